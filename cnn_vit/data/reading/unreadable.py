"""Files that cannot be read, by name: one sentence about them all, and a line for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnn_vit.data.base.parts import EncodedPart, Part
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.errors import UserError

NAMED = 5  # files that the sentence names
LONGEST = 200  # characters of a name that an error shows
AGAIN = "then give the same command again"


@dataclass(frozen=True)
class UnreadableFile:
    """A file that cannot be read.

    Attributes:
        name: what errors call it.
        index: its place in its part.
        error: reason and remedy.
    """

    name: str
    index: int
    error: UnreadableError

    def __str__(self) -> str:
        return f"{self.name} cannot be read: {self.error}"


def path_of(part: Part, index: int) -> str:
    """What an error calls an image."""
    return printable_name(part.where(index)) if isinstance(part, EncodedPart) else f"image {index}"


def printable_name(name: str) -> str:
    """A name as an error prints it: on one line, escaped, not too long."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 3 :]}"


def summarize(faults: Sequence[UnreadableFile]) -> str:
    """The first few, with reasons, and how many more."""
    named = ", ".join(f"{fault.name} ({fault.error.reason})" for fault in faults[:NAMED])
    return named + (f", and {len(faults) - NAMED:,} more" if len(faults) > NAMED else "")


def refuse_unreadable(faults: Sequence[UnreadableFile], count: int) -> None:
    """Names the files that cannot be read, of so many, in one sentence; where it leaves some out, all in its details.

    Raises:
        UserError: there are any.
    """
    if not faults:
        return
    if len(faults) == 1:
        raise UserError(f"{faults[0]}, {AGAIN}")
    remedies = list(dict.fromkeys(fault.error.remedy for fault in faults))
    raise UserError(
        f"{len(faults):,} of {count:,} images cannot be read: {summarize(faults)}; {' or '.join(remedies[:3])}, {AGAIN}",
        details=[str(fault) for fault in faults] if len(faults) > NAMED else (),
    )
