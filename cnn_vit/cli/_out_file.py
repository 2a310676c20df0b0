"""The file that a command writes where --out says: its place is checked before anything is read."""

import os
from pathlib import Path

from cnn_vit.errors import UserError


def check_out(out: Path, source: Path, *, suffix: str, force: bool) -> None:
    """Checks the place of the new file before anything is read.

    Raises:
        UserError: its name does not end in .safetensors or .toml, it is the source, or it would be written over.
    """
    if out.suffix != suffix:
        raise UserError(f"--out={out} does not end in {suffix}; name it {out.with_suffix(suffix)}")
    if not os.path.lexists(out):  # a link to nothing is there as well
        return
    if source.exists() and out.exists() and out.samefile(source):
        raise UserError(f"--out={out} is the source itself; name another file")
    if not force:
        raise UserError(f"{out} is there already; name another with --out=FILE, or write over it with --force")


def refuse_other_file(out: Path) -> None:
    """Raises UserError where --force would write over a file that this command did not write."""
    from cnn_vit.transfer import backwards, readers, weights

    try:
        named = readers.read(out)
        is_own = weights.is_own(named) or backwards.METADATA.items() <= named.metadata.items()
    except UserError:
        is_own = False
    if not is_own:
        raise UserError(f"{out} is there and is not a file of this command; name another with --out=FILE")
