"""What the names of networks mean, read from the text of the families' files: no family is imported here.

A name is `family/variant` with suffixes behind the variant: `vit/B16-gap`. The family is a file of this folder, which
ends with literal dicts that say what there is:

    VARIANTS    name of a variant -> `partial(Class, ...)`
    SIZES       name of a size -> `partial(Class, patch=..., ...)`; a patch side in pixels stands behind it: "B16" is
                the size "B" with patch=16
    SUFFIXES    name of a suffix -> the keywords that it sets
    CUTS        path of a layer that the keyword `cut` may name, `*` for any number in it -> paths of what is new there:
                layers that stand on it, but on another one in the whole network, whose values do not fit them
"""

import ast
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import signatures
from cnn_vit.settings.signatures import Keyword

# What the files say


@dataclass(frozen=True)
class FamilySource:
    """The file of a family, read as text.

    Attributes:
        module: the parsed file.
        variants: the call `partial(Class, ...)` of each variant.
        sizes: the call `partial(Class, patch=..., ...)` of each size.
        suffixes: the keywords that each suffix sets.
        cuts: the paths of what is new where the network is cut, by the path of the place.
    """

    module: ast.Module
    variants: dict[str, ast.Call]
    sizes: dict[str, ast.Call]
    suffixes: dict[str, dict[str, Any]]
    cuts: dict[str, tuple[str, ...]]


def families() -> list[str]:
    """Lists the families: the files of this folder but those that begin with an underscore."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@functools.cache
def read_family(family: str) -> FamilySource:
    """Parses the file of a family.

    Raises:
        UserError: there is no such family.
    """
    if family not in families():
        raise unknown("model family", family, families())
    module = signatures.parse_file(Path(__file__).with_name(f"{family}.py"))
    tables: dict[str, dict[str, Any]] = {}  # a dict of the file by its name: keys are texts, values are still code
    for statement in module.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            tables[ast.unparse(statement.targets[0])] = read_entries(statement.value)
    suffixes = {name: ast.literal_eval(code) for name, code in tables.get("SUFFIXES", {}).items()}
    cuts = {place: ast.literal_eval(code) for place, code in tables.get("CUTS", {}).items()}
    return FamilySource(module, tables["VARIANTS"], tables.get("SIZES", {}), suffixes, cuts)


def read_entries(table: ast.Dict) -> dict[str, Any]:
    """Reads the keys of a dict's code; the values stay code, for most are calls."""
    entries = {}
    for key, value in zip(table.keys, table.values, strict=True):
        if key is not None:  # None stands for a `**` in the dict
            entries[ast.literal_eval(key)] = value
    return entries


def names() -> dict[str, tuple[str, ...]]:
    """Lists the variants of each family, without suffixes."""
    return {family: variants_of(family) for family in families()}


def variants_of(family: str) -> tuple[str, ...]:
    """Lists what may stand behind the slash. A size is shown with its usual patch side, though it takes any."""
    source = read_family(family)
    sizes = [f"{size}{read_literals(call)['patch']}" for size, call in source.sizes.items()]
    return (*source.variants, *sizes)


def read_literals(call: ast.Call) -> dict[str, Any]:
    """Reads the keywords of a call, all of which are literals."""
    return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}


# What a name means


@dataclass(frozen=True)
class NetworkName:
    """The parts of a network's name.

    Attributes:
        family: the file that holds the network's class.
        entry: a key of the file's VARIANTS or, where there is a patch side, of its SIZES.
        patch: the patch side in pixels that stands behind a size; None for a variant.
        changes: the keywords that the suffixes set.
    """

    family: str
    entry: str
    patch: int | None
    changes: dict[str, Any]


def resolve(name: str) -> NetworkName:
    """Parses `family/variant-suffix-suffix`. The longest variant wins, for "5-valid" is one with a dash in it.

    Raises:
        UserError: there is no such family, variant or suffix, or two suffixes contradict each other.
    """
    family, _, rest = name.partition("/")
    source = read_family(family)
    sizes = "|".join(sorted(map(re.escape, source.sizes), key=len, reverse=True))
    words = rest.split("-")
    for end in range(len(words), 0, -1):
        candidate = "-".join(words[:end])
        if candidate in source.variants:
            return NetworkName(family, candidate, None, suffix_keywords(name, words[end:]))
        size = re.fullmatch(f"({sizes})([1-9][0-9]*)", candidate) if sizes else None
        if size:
            return NetworkName(family, size[1], int(size[2]), suffix_keywords(name, words[end:]))
    raise unknown_variant_error(family, rest)


def unknown_variant_error(family: str, variant: str) -> UserError:
    """Makes the error for what is not a variant of a family; "" where a name is the family's alone."""
    sentence = f"{family} alone is a family, not a network, {family}/VARIANT"
    if variant:
        sentence = f"{family} has no {variant!r}"
    near = nearest(variant, variants_of(family))
    if near:
        sentence += f"; did you mean {' or '.join(near)}"
    sentence += f"; it has {', '.join(variants_of(family))}"
    if read_family(family).sizes:
        sentence += " (a size and any patch side in pixels)"
    return UserError(sentence)


def suffix_keywords(name: str, suffixes: list[str]) -> dict[str, Any]:
    """Returns the keywords that some suffixes of a name set together.

    Raises:
        UserError: the family has no such suffix, or two of them set the same keyword.
    """
    keywords_by_suffix = read_family(name.partition("/")[0]).suffixes
    changes: dict[str, Any] = {}
    for suffix in suffixes:
        if suffix not in keywords_by_suffix:
            choices = ", ".join(keywords_by_suffix) or "none"
            raise UserError(f"{name} has an unknown suffix -{suffix}; there is {choices}")
        twice = changes.keys() & keywords_by_suffix[suffix].keys()
        if twice:
            raise UserError(f"{name}: two suffixes set {', '.join(sorted(twice))}; keep one of them")
        changes |= keywords_by_suffix[suffix]
    return changes


# What a network takes


def new_when_cut(name: str, cut: str | None) -> tuple[str, ...]:
    """Lists the layers of a network that is cut for which the whole network has no values, by path.

    The head is not among them, for it is always new. A network may lack a layer that is named: a post-norm ViT has no
    last norm.

    Args:
        name: `family/variant`.
        cut: the keyword `cut` of the network; None for the whole one, where nothing is new.

    Raises:
        UserError: there is no such family, or it cannot be cut there.
    """
    if cut is None:
        return ()
    family = name.partition("/")[0]
    cuts = read_family(family).cuts
    place = "/".join("*" if part.isdecimal() else part for part in cut.split("/"))
    if place not in cuts:
        choices = ", ".join(cuts) or "no place"
        raise UserError(f"model.cut={cut!r} is not a place where {family}/* can be cut; there is {choices}")
    return cuts[place]


def read_keywords(name: str) -> dict[str, Keyword]:
    """Reads the keywords of a network without importing its class; defaults are the network's own.

    A suffix and a patch side in the name override what the variant sets, and the variant what the class sets.

    Raises:
        UserError: there is no such network.
    """
    network = resolve(name)
    source = read_family(network.family)
    if network.patch is None:
        call = source.variants[network.entry]
        defaults = read_literals(call) | network.changes
    else:
        call = source.sizes[network.entry]
        defaults = read_literals(call) | network.changes | {"patch": network.patch}
    keywords = signatures.read_keywords(source.module, ast.unparse(call.args[0]))
    for key in keywords.keys() & defaults.keys():
        keywords[key] = replace(keywords[key], default=defaults[key])
    return keywords
