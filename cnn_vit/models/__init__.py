"""Networks by name: `family/variant`, one file per family, with suffixes behind the variant: `vit/B16-gap`.

build(name, num_classes)         a network, without values
check(name, keywords, ...)       the same for a run, whose data answer some of the keywords
new_when_cut(name, cut)          which parameters of a network that is cut have no values in the whole one
names(), read_keywords(name)     what there is, read from the text of the files: `list` and `--help` need no jax

What a name means and what a family's file has to hold is told in `_names`. Below the checks of keywords stand the
functions that the families share.
"""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from cnn_vit.errors import UserError, unknown
from cnn_vit.models._names import families, names, new_when_cut, read_keywords, resolve, variants_of

if TYPE_CHECKING:
    import jax
    from flax import nnx

__all__ = [
    "KEYWORDS_FROM_DATA",
    "build",
    "check",
    "choose_place",
    "cut_stages",
    "families",
    "feature_map_size",
    "height_and_width",
    "keywords",
    "names",
    "new_when_cut",
    "read_keywords",
    "refuse_size",
    "refuse_unmasked",
    "require_at_least",
    "require_multiplier",
    "require_rates",
    "resolve",
    "round_filters",
    "variant",
]  # fmt: skip

# The keywords of every variant whose values come from the data, not from the model's settings.
KEYWORDS_FROM_DATA = ("channels", "image_size")


# Building


def build(name: str, num_classes: int, **changes) -> "nnx.Module":
    """Builds a network without values.

    Args:
        name: `family/variant`, with suffixes or without.
        num_classes: the number of scores for each image.
        changes: keywords that replace those of the variant.

    Raises:
        UserError: a name, a keyword or a value that the network does not take.
    """
    changes = name_none(name, changes)
    check_keywords(name, {"num_classes": num_classes, **changes})
    return variant(name)(num_classes, **changes)


def check(
    name: str, keywords: dict[str, Any], *, num_classes: int, channels: int, image_size: int | tuple[int, int]
) -> "nnx.Module":
    """Builds the network that a run's settings and data ask for.

    Args:
        name: the setting `model.name`.
        keywords: the other settings of the model, without `model.`.
        num_classes: the number of classes of the data.
        channels: colors of an image.
        image_size: side in pixels, or (height, width).

    Raises:
        UserError: as of `build`, or a setting of the model that belongs to the data.
    """
    for key in keywords:
        if key in KEYWORDS_FROM_DATA:
            raise UserError(f"model.{key} is not a setting; the model takes it from data.{key}")
        if key == "num_classes":
            raise UserError("model.num_classes is not a setting; the model takes the number of classes from the data")
    return build(name, num_classes, channels=channels, image_size=image_size, **keywords)


def variant(name: str) -> functools.partial:
    """Imports a network's family and returns the partial of its class, with the keywords that the name stands for."""
    network = resolve(name)
    module = importlib.import_module(f"cnn_vit.models.{network.family}")
    if network.patch is None:
        return functools.partial(module.VARIANTS[network.entry], **network.changes)
    return functools.partial(module.SIZES[network.entry], patch=network.patch, **network.changes)


def keywords(name: str) -> dict[str, inspect.Parameter]:
    """Inspects the keywords of a network, with their types as objects and the network's own defaults.

    The signature is that of `__init__`: the class itself would answer `(*args, **kwargs)`, for its metaclass hides it.
    """
    network = variant(name)
    parameters = {}
    for key, parameter in inspect.signature(network.func.__init__).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            parameters[key] = parameter.replace(default=network.keywords.get(key, parameter.default))
    return parameters


def refuse_unmasked(name: str) -> None:
    """Raises UserError for a network whose call takes no mask of each image's own pixels."""
    if takes_mask(name):
        return
    masked = [family for family in families() if takes_mask(f"{family}/{variants_of(family)[0]}")]
    choices = " or ".join(f"{family}/*" for family in masked)
    raise UserError(f"{name} takes no mask, and data.fit=pad_batch gives one; take {choices}, or data.fit=crop")


def takes_mask(name: str) -> bool:
    """Whether the call of a network has a keyword `mask`."""
    network: Any = variant(name).func
    return "mask" in inspect.signature(network.__call__).parameters


# Checking keywords


def check_keywords(name: str, changes: dict[str, Any]) -> None:
    """Raises UserError for a keyword that a network does not take, or a value of another type than the keyword's."""
    annotations = {key: parameter.annotation for key, parameter in keywords(name).items()}
    annotations["num_classes"] = int  # a positional argument of every class
    for key, value in changes.items():
        if key not in annotations:
            raise unknown(f"keyword of {name}", key, annotations.keys() - {"num_classes", *KEYWORDS_FROM_DATA})
        if not accepts(annotations[key], value):
            raise UserError(f"{setting_name(key)}={value!r} is not {type_in_words(annotations[key])}")
    require_at_least(1, **{key: changes[key] for key in ("num_classes", "channels") if key in changes})


def name_none(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns keywords with the choice "none" where a keyword has one and the value is None.

    The command line reads none as None: `--config.model.pooling=none` means the choice.
    """
    parameters = keywords(name)
    named = {}
    for key, value in changes.items():
        annotation = parameters[key].annotation if key in parameters else None
        has_choice = typing.get_origin(annotation) is Literal and "none" in typing.get_args(annotation)
        named[key] = "none" if value is None and has_choice else value
    return named


def setting_name(key: str) -> str:
    """Says where a user sets a keyword of a network."""
    if key in KEYWORDS_FROM_DATA:
        return f"data.{key}"
    if key == "num_classes":
        return "the number of classes"
    return f"model.{key}"


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value is of an annotated type. True is not a number, 1 is a float, nan and inf are not."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(accepts(choice, value) for choice in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and accepts_items(arguments, value)
    if isinstance(value, bool):  # Python counts it as an int as well
        return annotation is bool
    if annotation is float:
        # put so that it refuses nan too, and whole numbers that no float holds
        return isinstance(value, int | float) and abs(value) <= 1e300
    return isinstance(value, annotation)


def accepts_items(annotations: tuple[Any, ...], items: tuple) -> bool:
    """Whether the items of a tuple are of the types in the brackets of `tuple[...]`."""
    if annotations[-1] is ...:
        return all(accepts(annotations[0], item) for item in items)
    return len(items) == len(annotations) and all(map(accepts, annotations, items))


def type_in_words(annotation: Any) -> str:
    """Says an annotated type in words: `int | str` is "a whole number or a text"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(type_in_words, arguments))
    if origin is tuple:
        count = "any number" if arguments[-1] is ... else len(arguments)
        return f"a tuple of {count} of: {type_in_words(arguments[0])}"
    words = {
        int: "a whole number",
        float: "a finite number",
        bool: "True or False",
        str: "a text",
        types.NoneType: "none",
    }
    return words.get(annotation, str(annotation))


# What families share


def require_at_least(least: int, **numbers: int | tuple[int, ...]) -> None:
    """Raises UserError for a keyword whose number, alone or in a tuple, is below the least."""
    for key, value in numbers.items():
        smallest = min(value, default=least) if isinstance(value, tuple) else value
        if smallest < least:
            raise UserError(f"{setting_name(key)}={value} must be at least {least}")


def require_rates(**rates: float) -> None:
    """Raises UserError for a rate outside 0 <= rate < 1."""
    for key, value in rates.items():
        if not 0 <= value < 1:
            raise UserError(f"model.{key}={value} must be at least 0 and below 1")


def require_multiplier(width_multiplier: float) -> None:
    """Raises UserError for a width multiplier that is not above 0."""
    if width_multiplier <= 0:
        raise UserError(f"model.width_multiplier={width_multiplier} must be above 0")


def round_filters(filters: float) -> int:
    """Rounds a scaled number of filters to the nearest multiple of 8 that keeps 90 % of it; 8 is the least.

    This is the rule of Google's mobile networks, and so of their ports: 32 * 1.1 = 35.2 is 32, 24 * 0.5 = 12 is 16.
    """
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * filters else rounded + 8


def height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns the height and the width in pixels that an image size stands for; UserError for one below 1."""
    require_at_least(1, image_size=image_size)
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def feature_map_size(image_size: int | tuple[int, int], output_side: Callable[[int], int]) -> tuple[int, int]:
    """Returns the height and the width of a feature map.

    Args:
        image_size: side of an image in pixels, or (height, width).
        output_side: from a side of the image to the same side of the feature map.

    Raises:
        UserError: nothing is left of the image; the sentence names the least size of which something is.
    """
    height, width = height_and_width(image_size)
    if min(output_side(height), output_side(width)) < 1:
        least = next(side for side in range(1, 100_000) if output_side(side) >= 1)
        raise UserError(
            f"{height}x{width} pixels leave nothing behind the last layer; make data.image_size at least {least}"
        )
    return output_side(height), output_side(width)


def choose_place(cut: str, places: dict[str, Any]) -> Any:
    """Returns what a cut leaves of a network.

    Args:
        cut: path of the layer that is kept last.
        places: what each cut leaves, by path.

    Raises:
        UserError: the network has no such place; the sentence names those that it has.
    """
    if cut in places:
        return places[cut]
    choices = list(places)
    if len(choices) > 8:  # a network of many blocks has as many places
        choices = [*choices[:6], "...", choices[-1]]
    raise UserError(
        f"model.cut={cut!r} is not a place where this network can be cut; there is {', '.join(choices) or 'none'}"
    )


def cut_stages(cut: str | None, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """Returns how many blocks a cut leaves of each stage: "stages/1/blocks/0" all of the first and one of the second.

    Args:
        cut: path of the stage or block that is kept last; None leaves all.
        blocks: blocks of each stage of the whole network.

    Raises:
        UserError: the network has no such stage or block.
    """
    if cut is None:
        return blocks
    places = {f"stages/{i}": blocks[: i + 1] for i in range(len(blocks))}
    for i, count in enumerate(blocks):
        for j in range(count):
            places[f"stages/{i}/blocks/{j}"] = (*blocks[:i], j + 1)
    return choose_place(cut, places)


def refuse_size(images: "jax.Array", image_size: tuple[int, int]) -> None:  # (B, H, W, C)
    """Raises UserError for images of another size than the one that a network was built for."""
    height, width = images.shape[1:3]
    if (height, width) != image_size:
        expected = f"{image_size[0]}x{image_size[1]}"
        raise UserError(
            f"images of {height}x{width} pixels; this network is built for {expected}: build it with image_size"
        )
