"""The errors that a user can cause: one family, each with one sentence and an exit code. Anything else is a bug."""

import difflib
import signal
from collections.abc import Iterable

OUT_OF_MEMORY_SIGNS = ("RESOURCE_EXHAUSTED", "Out of memory")  # in the texts of jax's errors


class UserError(Exception):
    """The input is wrong. The sentence says value, rule, choices and remedy.

    Attributes:
        code: the exit code of the process.
        details: where the sentence sums up many faults, a line about each of them.
    """

    code = 2

    def __init__(self, sentence: str = "", *, details: Iterable[str] = ()):
        super().__init__(sentence)
        self.details = tuple(details)


class SurroundingsError(UserError):
    """The disk, the user's rights or another run are in the way."""

    code = 3


class TooLittleMemoryError(SurroundingsError):
    """What is to be computed does not fit into the memory that is free."""


class DivergedError(UserError):
    """A number of the training is no longer finite."""

    code = 4


class StoppedError(BaseException):
    """A signal ended the run, which the same command resumes.

    Like KeyboardInterrupt it is not an `Exception`: code that tolerates the errors of a library or of a damaged file
    must not take it for one of these and go on.

    Args:
        number: the number of the signal, such as 15 for SIGTERM; the exit code is 128 more.
        sentence: what happened.

    Attributes:
        signal: the signal by its name.
    """

    def __init__(self, number: int, sentence: str):
        super().__init__(sentence)
        self.details = ()  # as UserError has them
        self.code = 128 + number
        self.signal = signal.Signals(number)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: Python's own, ours, or one of the ways in which jax says it."""
    if isinstance(error, MemoryError | TooLittleMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY_SIGNS)


def nearest(word: str, choices: Iterable[str], *, most: int = 3) -> list[str]:
    """Returns the choices that are spelled most like a word, the best first.

    Capitals, dashes and underscores count as the same. A choice counts as near from a similarity of 0.6 on, difflib's
    own threshold, unless it is more than 0.15 below the best one's; there may be none.
    """
    choices_by_folded = {fold(choice): choice for choice in choices}
    folded_word = fold(word)
    near = difflib.get_close_matches(folded_word, choices_by_folded, n=most, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(a=folded, b=folded_word).ratio() for folded in near]
    return [choices_by_folded[folded] for folded, ratio in zip(near, ratios, strict=True) if ratio > ratios[0] - 0.15]


def fold(word: str) -> str:
    """Returns the form in which words are compared: small letters, underscores for dashes."""
    return word.casefold().replace("-", "_")


def unknown(what: str, word: str, choices: Iterable[str]) -> UserError:
    """Makes the error for a name that is not among the choices: `no setting 'sed'; did you mean seed?`."""
    choices = list(choices)
    near = nearest(word, choices)
    if near:
        return UserError(f"no {what} {word!r}; did you mean {' or '.join(near)}?")
    return UserError(f"no {what} {word!r}; there is {', '.join(sorted(choices)) or 'none'}")


LONGEST_NAME = 200  # characters of a name that an error shows


def on_one_line(text: str) -> str:
    """Returns a text as a line or a cell holds it: line breaks, and what would steer a terminal, are escaped."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def printable_name(name: str) -> str:
    """Returns a name as an error prints it: on one line, escaped, and shortened where it is very long."""
    text = name if name.isprintable() else ascii(name)
    if len(text) <= LONGEST_NAME:
        return text
    # Both ends tell most: the folder where the file lies, and the file's own name.
    return f"{text[: LONGEST_NAME // 2]} ... {text[-LONGEST_NAME // 3 :]}"
