"""Weights by name: `cifar_resnet/8@mnist`, the network in front of the @ and where it was trained behind it.

The names stand in the literal WEIGHTS of the families' rules, and are read from the text of these files, so that
nothing is imported to list them. Their files lie in `shipped/`, each made by one recipe of this project; a file that
has changed since is refused.
"""

import ast
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, unknown
from cnn_vit.settings import signatures

RULES = Path(__file__).with_name("rules")
SHIPPED = Path(__file__).with_name("shipped")
TABLE = "WEIGHTS"


@dataclass(frozen=True)
class ShippedWeights:
    """Weights that come with the package.

    Attributes:
        file: its name in `shipped/`.
        sha256: of the file, in hexadecimal.
        meaning: what they are, for people, on one line.
    """

    file: str
    sha256: str
    meaning: str


@functools.cache
def read_catalog() -> dict[str, ShippedWeights]:
    """Reads all weights that have a name, from the text of the families' rules."""
    catalog = {}
    for path in sorted(RULES.glob("[!_]*.py")):
        try:
            entries = signatures.read_entries(signatures.parse_file(path), TABLE)
        except LookupError:  # a family without weights of ours
            continue
        for name, entry in entries.items():
            file, sha256, meaning = ast.literal_eval(entry)
            catalog[name] = ShippedWeights(file, sha256, meaning)
    return catalog


def is_name(source: str) -> bool:
    """Whether a text is written as a name of weights; a path that is there is none."""
    return "@" in source and not Path(source).exists()


def find_file(name: str) -> Path:
    """Finds the file of weights that have a name.

    Raises:
        UserError: there are none of that name; the sentence names the nearest.
        SurroundingsError: the file is not as it came with the package.
    """
    catalog = read_catalog()
    if name not in catalog:
        raise unknown("weights", name, catalog)
    shipped = catalog[name]
    path = SHIPPED / shipped.file
    with files.os_errors(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != shipped.sha256:
        raise SurroundingsError(f"{path} is not the file of {name} that came with the package; install it again")
    return path
