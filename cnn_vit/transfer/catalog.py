"""Weights by name: `resnet/50@torchvision_v2`, the network in front of the @ and whose weights they are behind it.

The names stand in the literal WEIGHTS of the families' rules, and are read from the text of these files, so that
nothing is imported to list them. A few files lie in `shipped/`, each made by one recipe of this project. The others are
downloaded when they are first used, into the folder `weights` of the cache, and converted whenever they are opened.

How far a downloaded file can be trusted is said of each: `full` is known by its whole sha256, `prefix` by the first
digits of it, which stand in the name that its publisher gave it, and `first use` by what its host states and its bytes
are when it is first used, which is recorded beside it.
"""

import ast
import contextlib
import functools
import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_vit import files, models
from cnn_vit.errors import SurroundingsError, UserError, fold, nearest, unknown
from cnn_vit.files import cache, downloads
from cnn_vit.files.progress import note
from cnn_vit.settings import signatures
from cnn_vit.settings.values import quote_value
from cnn_vit.transfer import preprocessing

RULES = Path(__file__).with_name("rules")
SHIPPED = Path(__file__).with_name("shipped")
TABLE = "WEIGHTS"
FULL, PREFIX, FIRST_USE = "full", "prefix", "first use"
PREFIX_DIGITS = 8  # that the name of a file has of its sha256
NAME = re.compile(r"\w+/[\w.-]+@[\w.-]+")  # FAMILY/VARIANT@SOURCE
SHA256 = re.compile(r"[0-9a-f]{64}|[0-9a-f]{8}")
PREPROCESSING_KEYS = ("mean", "std", "image_size", "fit", "interpolation")
# What forbids commercial use says so in its name: CC-BY-NC-4.0 of SPDX's list, "non-commercial", "research only"
NON_COMMERCIAL = re.compile(r"\bNC\b|non-?commercial|research only", re.IGNORECASE)


@dataclass(frozen=True)
class NamedWeights:
    """Weights that have a name.

    Attributes:
        name: "resnet/50@torchvision_v2".
        address: where their file is downloaded from; "" where it comes with the package.
        file: name of the file.
        sha256: of the file, in hexadecimal: all 64 digits, or the first 8, which its name has; "" where nobody
            publishes it.
        size: of the file in bytes; None where no source says it to the byte.
        license: of the weights, as SPDX names it where it does; None where none is stated.
        preprocessing: how images became the network's input, with the keys of a card; {} where the file has a card.
        trained_on: names of the data sets.
        accuracy: published top-1 accuracy in percent; None where no source says it.
        accuracy_size: side in pixels of the images that it was measured on.
        source: where these figures stand, for people.
        keywords: keywords of the model that neither its name nor the shapes of the file tell.
        megabytes: about how large it is, in units of 1,000,000 bytes: 4 bytes for each of its numbers; None where the
            size is known.
        meaning: what they are, for people, on one line; "" where the rest says it.
    """

    name: str
    address: str
    file: str
    sha256: str
    size: int | None
    license: str | None
    preprocessing: dict[str, Any]
    trained_on: tuple[str, ...]
    accuracy: float | None
    accuracy_size: int | None
    source: str
    keywords: dict[str, Any] = field(default_factory=dict)
    megabytes: float | None = None
    meaning: str = ""

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.name.partition("@")[0]

    @property
    def is_shipped(self) -> bool:
        """Whether the file comes with the package."""
        return not self.address

    @property
    def trust(self) -> str:
        """By what the file is known: `full`, `prefix` or `first use`."""
        if self.remote.has_whole_sha256:
            return FULL
        return PREFIX if self.sha256 else FIRST_USE

    @property
    def remote(self) -> downloads.Remote:
        """The file as it is downloaded: in a folder of the cache that is called as the weights are."""
        return downloads.Remote((self.address,), f"weights/{self.name}/{self.file}", self.size, self.sha256)

    @property
    def forbids_commercial_use(self) -> bool:
        """Whether the licence forbids commercial use."""
        return self.license is not None and bool(NON_COMMERCIAL.search(self.license))

    @property
    def is_here(self) -> bool:
        """Whether the file lies on this machine, in the package or in the cache."""
        if self.is_shipped:
            return True
        with contextlib.suppress(SurroundingsError, OSError):  # without a home folder there is no cache
            return (cache.folder() / self.remote.name).is_file()
        return False

    @property
    def size_text(self) -> str:
        """The size of the file in megabytes; with "about" where no source says it, "unknown" where nothing does."""
        if self.size is not None:
            return f"{self.size / 1e6:,.1f} MB"
        return "unknown" if self.megabytes is None else f"about {self.megabytes:,.1f} MB"

    @property
    def accuracy_text(self) -> str:
        """The published accuracy with the image size that it belongs to; "" where none is known."""
        if self.accuracy is None:
            return ""
        size = "" if self.accuracy_size is None else f" at {self.accuracy_size} pixels"
        return f"{self.accuracy:.2f} %{size}"


# The catalogue as it is written ---------------------------------------------------------------------------------------


@functools.cache
def read_catalog() -> dict[str, NamedWeights]:
    """Reads all weights that have a name, from the text of the families' rules.

    Raises:
        UserError: an entry is not as entries are.
    """
    catalog: dict[str, NamedWeights] = {}
    for path in sorted(RULES.glob("[!_]*.py")):
        try:
            entries = signatures.read_entries(signatures.parse_file(path), TABLE)
        except LookupError:  # a family without weights that have a name
            continue
        catalog |= {name: read_entry(path, name, code) for name, code in entries.items()}
    return catalog


def read_entry(path: Path, name: Any, code: ast.expr) -> NamedWeights:
    """Reads one entry of a table.

    Args:
        path: the file of the table.
        name: the key.
        code: the value, as the file writes it.

    Raises:
        UserError: the name is not that of a network of this family, or a key is missing, unknown or of another kind.
    """
    where = f"{TABLE} of {path.name}, {quote_value(name)}"
    try:
        facts = ast.literal_eval(code)
    except ValueError as error:
        raise UserError(f"{where}: is not a literal dict, which is read and never run; write its values out") from error
    family = path.stem
    if not isinstance(name, str) or not name.startswith(f"{family}/") or not NAME.fullmatch(name):
        raise UserError(f"{where}: is not a name of this family; write {family}/VARIANT@SOURCE")
    try:
        models.resolve(name.partition("@")[0])
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    if not isinstance(facts, dict):
        raise UserError(f"{where}: is {quote_value(facts)}, expected a dict")
    kinds = SHIPPED_KINDS if "file" in facts else DOWNLOADED_KINDS
    missing = [key for key in kinds if key not in facts and key not in OPTIONAL]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)} is missing; an entry has {', '.join(kinds)}")
    for key, value in facts.items():
        if key not in kinds:
            raise UserError(f"{where}: {unknown('key', str(key), kinds)}")
        if not kinds[key].fits(value):
            raise UserError(f"{where}: {key} is {quote_value(value)}, expected {kinds[key].meaning}")
    if (facts["accuracy"] is None) != (facts["accuracy_size"] is None):
        raise UserError(f"{where}: accuracy and accuracy_size belong together; write both, or None for both")
    trained_on = facts["trained_on"]
    address = facts.get("address", "")
    file = facts.get("file", address.rpartition("/")[2])
    if len(facts["sha256"] or "") == PREFIX_DIGITS and facts["sha256"] not in file:
        raise UserError(f"{where}: sha256 is {facts['sha256']!r}, which the name of the file, {file}, does not have")
    return NamedWeights(
        name=name,
        address=address,
        file=file,
        sha256=facts["sha256"] or "",
        size=facts["bytes"],
        license=facts["license"],
        preprocessing=facts.get("preprocessing", {}),
        trained_on=(trained_on,) if isinstance(trained_on, str) else tuple(trained_on),
        accuracy=facts["accuracy"],
        accuracy_size=facts["accuracy_size"],
        source=facts["source"],
        keywords=facts.get("keywords", {}),
        megabytes=facts.get("megabytes"),
        meaning=facts.get("meaning", ""),
    )


@dataclass(frozen=True)
class Kind:
    """What a value of an entry may be.

    Attributes:
        fits: whether a value is of this kind.
        meaning: what it is, for people.
    """

    fits: Callable[[Any], bool]
    meaning: str


def is_text(value: Any) -> bool:
    """Whether a value is a text of one line that says something."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether a value is a finite number between two others."""
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )


def is_count(value: Any, most: int) -> bool:
    """Whether a value is a whole number from 1 to another."""
    return preprocessing.is_whole(value) and 1 <= value <= most


def is_texts(value: Any) -> bool:
    """Whether a value is a text, or a list of some."""
    return is_text(value) or (isinstance(value, list) and bool(value) and all(map(is_text, value)))


def is_preprocessing(value: Any) -> bool:
    """Whether a value says of images what a card can say; mean, std and image size are always said."""
    if not isinstance(value, dict) or not {"mean", "std", "image_size"} <= value.keys() <= set(PREPROCESSING_KEYS):
        return False
    return isinstance(value["mean"], list) and not preprocessing.find_fault({**value, "channels": len(value["mean"])})


def is_address(value: Any) -> bool:
    """Whether a value is the address of a file, https, without what only a browser would need."""
    return is_text(value) and re.fullmatch(r"https://[^/\s?#]+(/[^/\s?#]+)+", value) is not None


DOWNLOADED_KINDS = {
    "address": Kind(is_address, "the https address of one file"),
    "sha256": Kind(
        lambda value: value is None or (isinstance(value, str) and SHA256.fullmatch(value) is not None),
        "64 hexadecimal digits, the 8 of the file's name, or None",
    ),
    "bytes": Kind(lambda value: value is None or is_count(value, 2**40), "a number of bytes or None"),
    "license": Kind(lambda value: value is None or is_text(value), "the name of a licence or None"),
    "preprocessing": Kind(is_preprocessing, f"a dict of {', '.join(PREPROCESSING_KEYS)}, as a card has them"),
    "trained_on": Kind(is_texts, "the name of a data set, or a list of names"),
    "accuracy": Kind(lambda value: value is None or is_number(value, 1, 100), "a percentage or None"),
    "accuracy_size": Kind(lambda value: value is None or is_count(value, 8192), "a number of pixels or None"),
    "source": Kind(is_text, "where the figures stand"),
    "keywords": Kind(lambda value: isinstance(value, dict), "a dict of keywords of the model"),
    "megabytes": Kind(lambda value: is_number(value, 0.001, 10**6), "a size in units of 1,000,000 bytes"),
    "meaning": Kind(is_text, "one line for people"),
}
OPTIONAL = ("keywords", "megabytes", "meaning")
SHIPPED_KINDS = {
    "file": Kind(is_text, "the name of a file of shipped/"),
    **{key: kind for key, kind in DOWNLOADED_KINDS.items() if key not in ("address", "preprocessing", "keywords")},
}


# Finding them ---------------------------------------------------------------------------------------------------------


def is_name(source: str) -> bool:
    """Whether a text is written as a name of weights, FAMILY/VARIANT@SOURCE; a path that is there is none."""
    return NAME.fullmatch(source) is not None and not Path(source).exists()


def is_here(source: str) -> bool:
    """Whether a text is a name of weights whose file lies on this machine, in the package or in the cache."""
    weights = read_catalog().get(source)
    return is_name(source) and weights is not None and weights.is_here


def find_entry(name: str) -> NamedWeights:
    """Finds weights by their name; UserError where there are none of that name: the sentence names the nearest."""
    catalog = read_catalog()
    if name in catalog:
        return catalog[name]
    model = name.partition("@")[0]
    of_model = [known for known in catalog if known.startswith(f"{model}@")]
    if of_model:
        raise UserError(f"no weights {name!r}; there is {' and '.join(of_model)}")
    if len(catalog) > 20 and not nearest(name, catalog):
        raise UserError(f"no weights {name!r}; `cnn-vit list weights` names the {len(catalog):,} that there are")
    raise unknown("weights", name, catalog)


def suggest_names(source: str) -> list[str]:
    """Returns the names of weights that somebody may mean who gave that of a network, resnet/50, or of a family."""
    return [name for name in read_catalog() if fold(name).startswith((fold(f"{source}@"), fold(f"{source}/")))]


def find_by_content(sha256: str) -> NamedWeights | None:
    """Finds the downloaded weights that have this sha256, as far as theirs is published."""
    for weights in read_catalog().values():
        if weights.sha256 and not weights.is_shipped and sha256.startswith(weights.sha256):
            return weights
    return None


def find_file(name: str) -> Path:
    """Finds the file of weights that have a name, and downloads it where it is not in the cache.

    A licence that forbids commercial use is shown before the download.

    Raises:
        UserError: there are none of that name; the sentence names the nearest.
        SurroundingsError: the file is not as it came with the package, or cannot be downloaded, or its host gives other
            bytes than at its first use.
    """
    weights = find_entry(name)
    if weights.is_shipped:
        return find_shipped(weights)
    if weights.forbids_commercial_use and not weights.is_here:
        note(f"{name}: its licence, {weights.license}, forbids commercial use")
    return downloads.fetch(weights.remote)


def find_shipped(weights: NamedWeights) -> Path:
    """Finds a file that comes with the package; SurroundingsError where it is not as it came."""
    path = SHIPPED / weights.file
    with files.os_errors(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != weights.sha256:
        raise SurroundingsError(
            f"{path} is not the file of {weights.name} that came with the package; install it again"
        )
    return path
