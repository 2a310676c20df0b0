"""See what a network is before it trains: layers, shapes, parameters, MACs, receptive fields; and windows' arithmetic.

cnn-vit describe resnet/50                              a row per layer; nothing is computed
cnn-vit describe vit/B16 --image=384 --classes=10
cnn-vit describe --config=configs/cifar_resnet.py:56    the model, size and classes of a recipe
cnn-vit describe resnet/50 --layer=stages/1/blocks/0/conv2       one row's arithmetic written out
cnn-vit describe --diff resnet/50 resnet/50-v1          what differs between two networks
cnn-vit describe resnet/50 --diff 224 288               or between two image sizes
cnn-vit describe resnet/18 --check                      every number again in a second way
cnn-vit describe conv --n=32 --k=3 --s=2 --padding=1    one side of a convolution, or of a pool
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, settings
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.analysis.table import Description

WINDOWS = ("conv", "pool")
NUMBERS = {
    "n": "pixels of the side",
    "k": "taps of the window",
    "s": "stride, pixels between two windows",
    "padding": "pixels before and after, as 1 or 0,1",
    "d": "dilation of a convolution, pixels between two taps (default: 1)",
}
MOST = 8192  # pixels of a side, as of data.image_size
WIDE = 200  # columns where no terminal says how many it has


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("what", nargs="*", metavar="MODEL", help="family/variant, such as resnet/50; or conv, or pool")
    parser.add_argument("--config", help="recipe whose model, image size and classes are taken")
    parser.add_argument("--workdir", metavar="RUN", help="run folder whose network is taken")
    parser.add_argument("--classes", type=int, metavar="K", help="classes (default: 10 for small images, else 1000)")
    parser.add_argument("--image", metavar="SIZE", help="side in pixels, or HEIGHTxWIDTH (default: the model's own)")
    parser.add_argument("--channels", type=int, metavar="C", help="colors (default: the model's own)")
    parser.add_argument("--layer", metavar="PATH", help="write the arithmetic of one row out")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="two models, or two sizes of MODEL")
    parser.add_argument("--check", action="store_true", help="every number in a second way; minutes for large networks")
    for name, meaning in NUMBERS.items():
        parser.add_argument(f"--{name}", type=str if name == "padding" else int, help=f"of conv and pool: {meaning}")


def run(given: argparse.Namespace) -> None:
    """Describes and prints."""
    if len(given.what) > 1:
        raise UserError(f"{' '.join(given.what)}: one model at a time; two are compared by --diff A B")
    if given.what and given.what[0] in WINDOWS:
        return describe_window(given)
    if strays := [name for name in NUMBERS if getattr(given, name) is not None]:
        raise UserError(f"--{strays[0]} belongs to describe conv or describe pool; leave it out")
    asked = [flag for flag in ("layer", "diff", "check") if getattr(given, flag)]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} ask for different things; give one of them")
    if given.diff:
        return describe_two(given)
    return describe_one(given)


def describe_one(given: argparse.Namespace) -> None:
    """One network: its table, or one row."""
    from cnn_vit.analysis import arithmetic, checks, formatting
    from cnn_vit.analysis.table import as_json

    found = describe_requested(given, parse_side(given.image))
    source = network_words(given)
    if given.layer:
        row = found.row(given.layer)
        lines = arithmetic.explain_row(found, row)
        record = {**found.to_json(), "layers": [as_json(row)], "arithmetic": dict(lines)}
        return cli.print_answer(
            given,
            record,
            arithmetic.definition_list(lines, width=terminal_columns()),
            then=f"cnn-vit describe {source}",
        )
    text, record = formatting.format_table(found, width=terminal_columns()), found.to_json()
    if given.check:
        record["checked"] = checks.check(found)
        sizes, products, fields = record["checked"].values()
        text += f"\n\nfound again in a second way: parameters of {sizes} rows, MACs of {products} modules, receptive "
        text += f"fields of {fields} rows"
    dearest = max(record["layers"], key=lambda row: row["macs"])["path"]
    return cli.print_answer(given, record, text, then=f"cnn-vit describe {source} --layer={dearest}")


def describe_two(given: argparse.Namespace) -> None:
    """What differs between two networks, or two sizes of one."""
    from cnn_vit.analysis import formatting, table

    named = bool(given.what or given.config or given.workdir)
    sizes = [one for one in given.diff if is_size(one)]
    if named and len(sizes) < 2:
        other = next(one for one in given.diff if not is_size(one))
        raise UserError(f"--diff of one network takes two image sizes, not {other!r}; two models stand without another")
    if named and given.image:
        raise UserError("--image and --diff both say image sizes; leave --image out")
    if not named and sizes:
        raise UserError(f"--diff {' '.join(given.diff)}: {sizes[0]!r} is a size; name a model before --diff")
    if named:
        found = [describe_requested(given, parse_side(one)) for one in given.diff]
    else:
        found = [
            describe_requested(argparse.Namespace(**{**vars(given), "what": [one]}), parse_side(given.image))
            for one in given.diff
        ]
    record = table.differences(*found)
    cli.print_answer(
        given,
        record,
        formatting.format_differences(record),
        then=f"cnn-vit describe {network_words(given) or given.diff[0]}",
    )


def describe_window(given: argparse.Namespace) -> None:
    """One side of a convolution or pooling."""
    from cnn_vit.analysis import arithmetic, calculator

    kind = given.what[0]
    if missing := [name for name in ("n", "k", "s", "padding") if getattr(given, name) is None]:
        raise UserError(f"describe {kind} needs --{missing[0]}, the {NUMBERS[missing[0]]}")
    if strays := [name for name in STRANGE if getattr(given, name)]:
        raise UserError(f"--{strays[0]} belongs to a model; {kind} takes {', '.join(f'--{name}' for name in NUMBERS)}")
    numbers = {name: getattr(given, name) for name in ("n", "k", "s")}
    dilation = 1 if given.d is None else given.d
    found = calculator.calculate(kind, **numbers, d=dilation, padding=parse_padding(given.padding))
    text = arithmetic.definition_list(arithmetic.explain_window(found), width=terminal_columns())
    cli.print_answer(given, found.to_json(), text, then="cnn-vit describe cnn/lecture")


STRANGE = ("config", "workdir", "classes", "image", "channels", "layer", "diff", "check")  # to conv and pool


def parse_padding(text: str) -> tuple[int, int]:
    """Padding before and after, of "1" or "0,1"."""
    if not re.fullmatch(r"-?\d+(,-?\d+)?", text):
        raise UserError(f"--padding={text} is neither a number of pixels nor two of them, before,after")
    before, _, after = text.partition(",")
    return int(before), int(after or before)


# Where the network comes from


def describe_requested(given: argparse.Namespace, image_size: int | tuple[int, int] | None) -> "Description":
    """The network that was asked for, at an image size where one was given.

    Raises:
        UserError: none or several are named, or the recipe leaves open what was not said.
    """
    from cnn_vit.analysis.table import describe

    sources = [source for source in (given.what, given.config, given.workdir) if source]
    if len(sources) != 1:
        raise UserError(
            "name one network: a model such as resnet/50, --config=RECIPE or --workdir=RUN; cnn-vit list models says "
            "what there is"
        )
    if given.overrides and not given.config:
        raise UserError(f"--config.{given.overrides[0]} sets something of a recipe; add --config=RECIPE")
    if given.what:
        return describe(given.what[0], image_size, num_classes=given.classes, channels=given.channels)
    about = recipe_network(given) if given.config else run_network(Path(given.workdir))
    final, classes, shape = about
    keywords = {key: value for key, value in final.section("model").items() if key != "name"}
    image_size = image_size or shape[:2]
    classes = classes if given.classes is None else given.classes
    channels = shape[2] if given.channels is None else given.channels
    for what, flag, known in (("number of classes", "classes=K", classes), ("image size", "image=SIZE", image_size)):
        if known in (None, (None, None)):
            raise UserError(f"{network_words(given)} leaves the {what} to its data; add --{flag}")
    return describe(
        final["model.name"], image_size, num_classes=classes, channels=channels, dtype=final["dtype"], **keywords
    )


def recipe_network(given: argparse.Namespace) -> tuple[settings.Settings, int | None, tuple[Any, ...]]:
    """Settings, classes and image shape (H, W, C) of a recipe; None for what only its data know."""
    from cnn_vit import data

    final = settings.load(given.config, given.overrides)
    section = final.section("data")
    try:
        found = data.about(section)
    except UserError:
        if section["path"] is not None:
            raise
        found = data.SourceInfo()  # a source of files, which none are named for
    size = section["image_size"]
    shape = found.image_shape or (*(size if isinstance(size, tuple) else (size, size)), section["channels"])
    return final, found.num_classes or section["classes"], shape


def run_network(workdir: Path) -> tuple[settings.Settings, int, tuple[Any, ...]]:
    """Settings, classes and image shape (H, W, C) of a run."""
    from cnn_vit.runs import reader

    described = reader.read_description(workdir)
    final, classes, seen = described.settings, described.classes, described.preprocessing
    return final, len(classes), (*seen["image_size"], seen["channels"])


def network_words(given: argparse.Namespace) -> str:
    """The network as this command line named it."""
    shown = [*given.what, *(f"--{name}={getattr(given, name)}" for name in STRANGE[:5] if getattr(given, name))]
    return " ".join(map(cli.shell_quote, [*shown, *(f"--config.{override}" for override in given.overrides)]))


def parse_side(text: str | None) -> int | tuple[int, int] | None:
    """An image size: "224", or "224x160" (height, width)."""
    if text is None:
        return None
    if not is_size(text):
        raise UserError(f"--image={text} is no size; write pixels, 224, or HEIGHTxWIDTH, 224x160")
    sides = [int(part) for part in text.split("x")]
    if not all(1 <= one <= MOST for one in sides):
        raise UserError(f"an image of {text} pixels is not from 1 to {MOST:,} a side")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def is_size(text: str) -> bool:
    """Whether a word is an image size."""
    return re.fullmatch(r"-?\d+(x-?\d+)?", text) is not None


def terminal_columns() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((WIDE, 24)).columns
