"""What a user can cause: one family of errors, each with one sentence and an exit code. Anything else is a bug."""

import difflib
import signal
from collections.abc import Iterable


class UserError(Exception):
    """The input is wrong. The sentence says value, rule, choices and remedy.

    Attributes:
        details: where the sentence sums many things up, a line about each.
    """

    code = 2

    def __init__(self, sentence: str = "", *, details: Iterable[str] = ()):
        super().__init__(sentence)
        self.details = tuple(details)


class SurroundingsError(UserError):
    """The disk, the rights or another run are in the way."""

    code = 3


class DivergedError(UserError):
    """Training left the finite numbers."""

    code = 4


class StoppedError(UserError):
    """A signal ended the run, which the same command resumes."""

    def __init__(self, number: int, sentence: str):
        super().__init__(sentence)
        self.code = 128 + number
        self.signal = signal.Signals(number)


def nearest(word: str, choices: Iterable[str], *, most: int = 3) -> list[str]:
    """Choices spelled most like a word, best first; none where nothing is near, and none much farther than the best."""
    by_folded = {choice.casefold().replace("-", "_"): choice for choice in choices}
    folded = word.casefold().replace("-", "_")
    found = difflib.get_close_matches(folded, by_folded, n=most, cutoff=0.6)
    alike = [difflib.SequenceMatcher(a=name, b=folded).ratio() for name in found]
    return [by_folded[name] for name, ratio in zip(found, alike, strict=True) if ratio > alike[0] - 0.15]


def unknown(what: str, word: str, choices: Iterable[str]) -> UserError:
    """The error for a name that is not among the choices: `no setting 'sed'; did you mean seed?`."""
    choices = list(choices)
    if near := nearest(word, choices):
        return UserError(f"no {what} {word!r}; did you mean {' or '.join(near)}?")
    return UserError(f"no {what} {word!r}; there is {', '.join(sorted(choices)) or 'none'}")
