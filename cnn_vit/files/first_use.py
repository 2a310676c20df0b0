"""What is recorded of a file whose sha256 nobody publishes: at first use its bytes are taken for the right ones.

Beside such a file `NAME` lies `NAME.first_use.json`: the address that it came from, its size, the ETag that the host
gave it, and the sha256 that its bytes had. Whatever comes from that address later has to have the same. While the file
is on its way, `.NAME.stated.json` beside its part says which version of the file the part is of.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError

MAX_ETAG = 200  # characters


@dataclass(frozen=True)
class Stated:
    """What a host says of a file, and what its bytes were.

    Attributes:
        address: where the file is said to be, without a mirror.
        size: in bytes.
        etag: by which the host tells versions of the file apart, as it writes it; "" where it gives none.
        sha256: of the bytes that arrived, in hexadecimal; "" while they are on their way.
    """

    address: str
    size: int
    etag: str = ""
    sha256: str = ""

    @property
    def can_resume(self) -> bool:
        """Whether the host tells two versions of the file apart byte by byte, so that a part of one is not continued
        with the other (RFC 9110, 13.1.5: weak tags, W/"...", do not)."""
        return self.etag.startswith('"')


def record_path(target: Path) -> Path:
    """Returns the path of the record of a file's first use."""
    return target.with_name(f"{target.name}.first_use.json")


def stated_path(target: Path) -> Path:
    """Returns the path of what the host said of a file that is on its way."""
    return target.with_name(f".{target.name}.stated.json")


def read(path: Path) -> Stated | None:
    """Reads a record; None where there is none.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is damaged.
    """
    with files.os_errors(path):
        if not path.is_file():
            return None
    facts = files.read_json(path)
    if not is_record(facts):
        raise UserError(f"{path} is not a record of a first use; remove it, and the file is taken as it is next time")
    return Stated(**facts)


def is_record(facts: Any) -> bool:
    """Whether a value of a JSON file is what `write` wrote."""
    if not isinstance(facts, dict) or facts.keys() != {"address", "size", "etag", "sha256"}:
        return False
    texts = (facts["address"], facts["etag"], facts["sha256"])
    return all(isinstance(text, str) for text in texts) and isinstance(facts["size"], int)


def write(path: Path, stated: Stated) -> None:
    """Writes a record.

    Raises:
        SurroundingsError: it cannot be written.
    """
    files.write_json(path, asdict(stated))


def record(target: Path, path: Path, address: str) -> None:
    """Records the bytes of a file at its first use.

    Args:
        target: its place in the cache, beside which the record stands.
        path: where it lies, which is elsewhere where a mirror's folder is read in place.
        address: where it is said to be.

    Raises:
        SurroundingsError: the record cannot be written.
    """
    stated = read(stated_path(target))
    with files.os_errors(path):
        size = path.stat().st_size
    etag = stated.etag if stated is not None and stated.size == size else ""
    write(record_path(target), Stated(address, size, etag, files.sha256(path)))
    files.remove(stated_path(target))
