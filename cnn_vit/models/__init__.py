"""Networks by name: `family/variant`, one file per family, with suffixes behind the variant: `vit/B16-gap`.

A family's file ends with literal dicts that say what there is: `VARIANTS` (name -> partial of the family's class),
`SIZES` where a patch side in pixels stands behind the name ("B16": the size "B" with patch=16), and `SUFFIXES` (name ->
keywords it sets). Names, keywords and meanings are read from the text of these files, so that `list` and `--help` need
no jax.
"""

import ast
import functools
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cnn_vit.errors import UserError, nearest, unknown

if TYPE_CHECKING:
    import jax
    from flax import nnx

KEYWORDS_FROM_DATA = (
    "channels",
    "image_size",
)  # keywords of every variant that the data answer, not the model's settings


def build(name: str, num_classes: int, **changes) -> "nnx.Module":
    """Builds a network without values. `changes` replace keywords of the variant.

    Raises UserError for a name, a keyword or a value that the network does not take.
    """
    refuse_keywords(name, {"num_classes": num_classes, **changes})
    return variant(name)(num_classes, **changes)


def check(
    name: str, keywords: dict[str, Any], *, num_classes: int, channels: int, image_size: int | tuple[int, int]
) -> "nnx.Module":
    """The network; raises UserError where `build` would, and for settings of the model that belong to the data."""
    for key in keywords:
        if key in KEYWORDS_FROM_DATA:
            raise UserError(f"model.{key} is not a setting; the model takes it from data.{key}")
        if key == "num_classes":
            raise UserError("model.num_classes is not a setting; the model takes the number of classes from the data")
    return build(name, num_classes, channels=channels, image_size=image_size, **keywords)


def refuse_unmasked(name: str) -> None:
    """Raises UserError for a network whose call takes no mask of each image's own pixels."""
    if not takes_mask(name):
        able = " or ".join(f"{family}/*" for family in families() if takes_mask(f"{family}/{variants_of(family)[0]}"))
        raise UserError(f"{name} takes no mask, and data.fit=pad_batch gives one; take {able}, or data.fit=crop")


def takes_mask(name: str) -> bool:
    """Whether the call of a network has a keyword `mask`."""
    network: Any = variant(name).func
    return "mask" in inspect.signature(network.__call__).parameters


def variant(name: str) -> functools.partial:
    """The partial that a name stands for, with its own keywords."""
    found = resolve(name)
    module = importlib.import_module(f"cnn_vit.models.{found.family}")
    if found.patch is None:
        return functools.partial(module.VARIANTS[found.entry], **found.changes)
    return functools.partial(module.SIZES[found.entry], patch=found.patch, **found.changes)


def keywords(name: str) -> dict[str, inspect.Parameter]:
    """Keywords that a variant takes, with their types and its own defaults.

    The class itself would answer `(*args, **kwargs)`: its metaclass hides the signature.
    """
    partial = variant(name)
    own = inspect.signature(partial.func.__init__).parameters
    return {
        key: parameter.replace(default=partial.keywords.get(key, parameter.default))
        for key, parameter in own.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def keyword_table(name: str) -> dict[str, tuple[Any, str, str]]:
    """Keywords of a variant, read without jax: (default, type as written, meaning from the docstring)."""
    found, family = resolve(name), read_family(name.partition("/")[0])
    call = family.variants[found.entry] if found.patch is None else family.sizes[found.entry]
    own = {word.arg: ast.literal_eval(word.value) for word in call.keywords} | found.changes
    if found.patch is not None:
        own["patch"] = found.patch
    node = family.classes[ast.unparse(call.args[0])]
    meaning = meanings(ast.get_docstring(node) or "")
    init = next(part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
    return {
        word.arg: (
            own.get(word.arg, inspect.Parameter.empty if default is None else ast.literal_eval(default)),
            ast.unparse(word.annotation) if word.annotation else "",
            meaning.get(word.arg, ""),
        )
        for word, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    }


def names() -> dict[str, tuple[str, ...]]:
    """Families and their variants, without suffixes; a size is shown with its usual patch side, though any will do."""
    return {family: variants_of(family) for family in families()}


def families() -> list[str]:
    """The files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


# What the text of a family's file says


class FamilySource(NamedTuple):
    """A family's file, read as text.

    Attributes:
        variants: the call `partial(Class, ...)` of each variant.
        sizes: the same of each size that takes a patch side behind its name.
        suffixes: keywords that each suffix sets.
        classes: definition of each class.
    """

    variants: dict[str, ast.Call]
    sizes: dict[str, ast.Call]
    suffixes: dict[str, dict[str, Any]]
    classes: dict[str, ast.ClassDef]


@functools.cache
def read_family(family: str) -> FamilySource:
    """Reads the text of a family's file."""
    if family not in families():
        raise unknown("model family", family, families())
    body = ast.parse(Path(__file__).with_name(f"{family}.py").read_text(encoding="utf-8")).body
    tables: dict[str, dict[str, Any]] = {
        ast.unparse(node.targets[0]): {
            ast.literal_eval(key): value for key, value in zip(node.value.keys, node.value.values, strict=True) if key
        }
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    return FamilySource(
        variants=tables["VARIANTS"],
        sizes=tables.get("SIZES", {}),
        suffixes={key: ast.literal_eval(value) for key, value in tables.get("SUFFIXES", {}).items()},
        classes={node.name: node for node in body if isinstance(node, ast.ClassDef)},
    )


class Resolved(NamedTuple):
    """What a name means: an entry of VARIANTS, or of SIZES with a patch side, and keywords that its suffixes set."""

    family: str
    entry: str
    patch: int | None
    changes: dict[str, Any]


def resolve(name: str) -> Resolved:
    """Reads `family/variant-suffix-suffix`. The longest variant wins: "5-valid" may be one with a dash in it."""
    family, _, rest = name.partition("/")
    known = read_family(family)
    sizes = "|".join(sorted(map(re.escape, known.sizes), key=len, reverse=True))
    words = rest.split("-")
    for end in range(len(words), 0, -1):
        candidate = "-".join(words[:end])
        if candidate in known.variants:
            return Resolved(family, candidate, None, suffix_keywords(name, words[end:]))
        if sizes and (found := re.fullmatch(f"({sizes})([1-9][0-9]*)", candidate)):
            return Resolved(family, found[1], int(found[2]), suffix_keywords(name, words[end:]))
    note = " (a size and any patch side in pixels)" if sizes else ""
    what = f"{family} has no {rest!r}" if rest else f"{family} alone is a family, not a network, {family}/VARIANT"
    near = f"; did you mean {' or '.join(near)}" if (near := nearest(rest, variants_of(family))) else ""
    raise UserError(f"{what}{near}; it has {', '.join(variants_of(family))}{note}")


def suffix_keywords(name: str, suffixes: list[str]) -> dict[str, Any]:
    """Keywords that suffixes set together; two that set the same one contradict each other."""
    known = read_family(name.partition("/")[0]).suffixes
    changes: dict[str, Any] = {}
    for suffix in suffixes:
        if suffix not in known:
            raise UserError(f"{name} has an unknown suffix -{suffix}; there is {', '.join(known) or 'none'}")
        if twice := changes.keys() & known[suffix].keys():
            raise UserError(f"{name}: two suffixes set {', '.join(sorted(twice))}; keep one of them")
        changes |= known[suffix]
    return changes


def variants_of(family: str) -> tuple[str, ...]:
    """Names behind the slash."""
    known = read_family(family)
    patches = {
        size: next(ast.literal_eval(word.value) for word in call.keywords if word.arg == "patch")
        for size, call in known.sizes.items()
    }
    return *known.variants, *(f"{size}{patch}" for size, patch in patches.items())


def meanings(docstring: str) -> dict[str, str]:
    """The lines under `Args:`, a sentence per argument."""
    found: dict[str, str] = {}
    last = ""
    for line in docstring.partition("Args:\n")[2].split("\n\n")[0].splitlines():
        if start := re.fullmatch(r" {4}(\w+): (.*)", line):
            last = start[1]
            found[last] = start[2].strip()
        elif last:
            found[last] += " " + line.strip()
    return found


# What a keyword takes


def refuse_keywords(name: str, given: dict[str, Any]) -> None:
    """Raises UserError for a keyword that a variant does not take, or a value of another type than it takes."""
    known = {key: parameter.annotation for key, parameter in keywords(name).items()} | {"num_classes": int}
    for key, value in given.items():
        if key not in known:
            raise unknown(f"keyword of {name}", key, known.keys() - {"num_classes", *KEYWORDS_FROM_DATA})
        if not accepts(known[key], value):
            raise UserError(f"{setting_name(key)}={value!r} is not {type_in_words(known[key])}")
    require_at_least(1, **{key: given[key] for key in ("num_classes", "channels") if key in given})


def setting_name(key: str) -> str:
    """Where a user sets a keyword."""
    return (
        f"data.{key}"
        if key in KEYWORDS_FROM_DATA
        else "the number of classes"
        if key == "num_classes"
        else f"model.{key}"
    )


def accepts(kind: Any, value: Any) -> bool:
    """Whether a value is of an annotated type. True is no number, 1 is a float, nan and inf are not."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin in (types.UnionType, typing.Union):
        return any(accepts(one, value) for one in inside)
    if origin is tuple:
        each: Iterable[Any] = [inside[0]] * len(value) if isinstance(value, tuple) and inside[-1] is ... else inside
        return isinstance(value, tuple) and len(value) == len(list(each)) and all(map(accepts, each, value))
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)


def type_in_words(kind: Any) -> str:
    """An annotated type in words."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, inside))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(type_in_words, inside))
    if origin is tuple:
        return f"a tuple of {'any number' if inside[-1] is ... else len(inside)} of: {type_in_words(inside[0])}"
    return {int: "a whole number", float: "a finite number", bool: "True or False", str: "a text"}.get(kind, str(kind))


# What families share


def require_at_least(least: int, **numbers: int | tuple[int, ...]) -> None:
    """Raises UserError for a keyword's number below the least, alone or in a tuple."""
    for key, value in numbers.items():
        if min(value if isinstance(value, tuple) else (value,), default=least) < least:
            raise UserError(f"{setting_name(key)}={value} must be at least {least}")


def require_rates(**rates: float) -> None:
    """Raises UserError for a rate outside 0 <= rate < 1."""
    for key, value in rates.items():
        if not 0 <= value < 1:
            raise UserError(f"model.{key}={value} must be at least 0 and below 1")


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of an image size."""
    require_at_least(1, image_size=image_size)
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def feature_map_size(image_size: int | tuple[int, int], after: Callable[[int], int]) -> tuple[int, int]:
    """Sides of a feature map, each `after` of an image's; where nothing is left, UserError with the least size."""
    height, width = height_and_width(image_size)
    if min(after(height), after(width)) < 1:
        least = next(side for side in range(1, 100_000) if after(side) >= 1)
        raise UserError(
            f"{height}x{width} pixels leave nothing behind the last layer; make data.image_size at least {least}"
        )
    return after(height), after(width)


def refuse_size(images: "jax.Array", image_size: tuple[int, int]) -> None:  # (B, H, W, C)
    """Raises UserError for images of another size than the one that a network was built for."""
    if images.shape[1:3] != image_size:
        found, expected = ("x".join(map(str, size)) for size in (images.shape[1:3], image_size))
        raise UserError(f"images of {found} pixels; this network is built for {expected}: build it with image_size")
