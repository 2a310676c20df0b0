"""Names files that cannot be read in an error: one sentence about all of them, and a line for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnn_vit.data.base.parts import EncodedPart, Part
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.errors import UserError, printable_name

MOST_NAMED = 5  # files that the sentence names
MOST_REMEDIES = 3  # different remedies that the sentence names
THEN_RERUN = "then give the same command again"


@dataclass(frozen=True)
class UnreadableFile:
    """A file that cannot be read.

    Attributes:
        name: what errors call the file: its path, or "image 7" where it has none.
        index: its index in its part.
        error: the reason and the remedy.
    """

    name: str
    index: int
    error: UnreadableError

    def __str__(self) -> str:
        return f"{self.name} cannot be read: {self.error}"


def path_of(part: Part, index: int) -> str:
    """Returns what an error calls an image: its printable path, or "image 7" where it has no file of its own."""
    return printable_name(part.path_of(index)) if isinstance(part, EncodedPart) else f"image {index}"


def summarize(unreadable_files: Sequence[UnreadableFile]) -> str:
    """Names the first few files with the reasons, and says how many more there are."""
    summary = ", ".join(f"{file.name} ({file.error.reason})" for file in unreadable_files[:MOST_NAMED])
    if len(unreadable_files) > MOST_NAMED:
        summary += f", and {len(unreadable_files) - MOST_NAMED:,} more"
    return summary


def refuse_unreadable(unreadable_files: Sequence[UnreadableFile], count: int) -> None:
    """Refuses data with files that cannot be read.

    One sentence names them. Where it has to leave some out, the error's details have a line for each of them.

    Args:
        unreadable_files: the files; with none of them nothing happens.
        count: number of images among which they were found.

    Raises:
        UserError: there is at least one such file.
    """
    if not unreadable_files:
        return
    if len(unreadable_files) == 1:
        raise UserError(f"{unreadable_files[0]}, {THEN_RERUN}")
    remedies = list(dict.fromkeys(file.error.remedy for file in unreadable_files))  # each once, in order
    raise UserError(
        f"{len(unreadable_files):,} of {count:,} images cannot be read: {summarize(unreadable_files)}; "
        f"{' or '.join(remedies[:MOST_REMEDIES])}, {THEN_RERUN}",
        details=[str(file) for file in unreadable_files] if len(unreadable_files) > MOST_NAMED else (),
    )
