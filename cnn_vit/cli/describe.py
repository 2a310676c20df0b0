"""See what a network is before it trains: layers, shapes, parameters, MACs, receptive fields; and windows' arithmetic.

cnn-vit describe resnet/50                              a row per layer; nothing is computed
cnn-vit describe vit/B16 --image=384 --classes=10
cnn-vit describe --config=configs/cifar_resnet.py:56    the model, size and classes of a recipe
cnn-vit describe resnet/50 --layer=stages/1/blocks/0/conv2       one row's arithmetic written out
cnn-vit describe --weights=net.safetensors              the network that a file of weights is of
cnn-vit describe --diff resnet/50 resnet/50-v1          what differs between two networks
cnn-vit describe resnet/50 --diff 224 288               or between two image sizes
cnn-vit describe resnet/18 --check                      every number checked in a second way
cnn-vit describe conv --n=32 --k=3 --s=2 --padding=1    one side of a convolution, or of a pool
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cnn_vit import cli, settings
from cnn_vit.cli import _model, _network
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.analysis.table import Description

WINDOWS = ("conv", "pool")
WINDOW_FLAGS = {
    "n": "pixels of the side",
    "k": "taps of the window",
    "s": "stride, pixels between two windows",
    "padding": "pixels before and after, as 1 or 0,1",
    "d": "dilation of a convolution, pixels between two taps (default: 1)",
}
NETWORK_FLAGS = (
    "config",
    "workdir",
    "weights",
    "model",
    "classes",
    "image",
    "channels",
)  # they say which network is described
ANSWER_FLAGS = ("layer", "diff", "check")  # they say what is answered about it
LARGEST_SIDE = 8192  # pixels, as of data.image_size
DEFAULT_COLUMNS = 200  # where no terminal says how many it has


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("what", nargs="*", metavar="MODEL", help="family/variant, such as resnet/50; or conv, or pool")
    parser.add_argument("--config", help="recipe that gives the model, image size and classes")
    parser.add_argument("--workdir", metavar="RUN", help="run folder whose network is described")
    parser.add_argument("--weights", metavar="FILE", help="file of weights whose network is described")
    _model.add_model_arguments(parser)
    parser.add_argument("--classes", type=int, metavar="K", help="classes (default: 10 for small images, else 1000)")
    parser.add_argument("--image", metavar="SIZE", help="side in pixels, or HEIGHTxWIDTH (default: the model's own)")
    parser.add_argument("--channels", type=int, metavar="C", help="colors (default: the model's own)")
    parser.add_argument("--layer", metavar="PATH", help="write out the arithmetic of one row")
    parser.add_argument("--diff", nargs=2, metavar=("A", "B"), help="two models, or two sizes of MODEL")
    parser.add_argument(
        "--check", action="store_true", help="check every number in a second way; takes minutes for large networks"
    )
    for name, meaning in WINDOW_FLAGS.items():
        parser.add_argument(f"--{name}", type=str if name == "padding" else int, help=f"of conv and pool: {meaning}")


def run(args: argparse.Namespace) -> None:
    """Prints the answer that the words of the command ask for."""
    if len(args.what) > 1:
        raise UserError(f"{' '.join(args.what)}: one model at a time; two are compared by --diff A B")
    if args.what and args.what[0] in WINDOWS:
        return describe_window(args)
    for name in WINDOW_FLAGS:
        if getattr(args, name) is not None:
            raise UserError(f"--{name} belongs to describe conv or describe pool; leave it out")
    answers = [name for name in ANSWER_FLAGS if getattr(args, name)]
    if len(answers) > 1:
        raise UserError(f"--{answers[0]} and --{answers[1]} ask for different things; give one of them")
    if args.diff:
        return describe_differences(args)
    if args.layer:
        return describe_layer(args)
    return describe_table(args)


def describe_table(args: argparse.Namespace) -> None:
    """Prints the table of one network, checked in a second way with --check."""
    from cnn_vit.analysis import checks, formatting

    description = describe_requested(args, parse_side(args.image))
    text, record = formatting.format_table(description, width=terminal_columns()), description.to_json()
    if args.check:
        checked = checks.check(description)
        record["checked"] = checked
        text += (
            f"\n\nchecked in a second way: parameters of {checked['parameters']} rows, "
            f"MACs of {checked['macs']} modules, receptive fields of {checked['receptive_field']} rows"
        )
    costliest = max(record["layers"], key=lambda row: row["macs"])["path"]
    cli.print_answer(args, record, text, next_command=f"cnn-vit describe {network_words(args)} --layer={costliest}")


def describe_layer(args: argparse.Namespace) -> None:
    """Prints the arithmetic of one row of a network's table."""
    from cnn_vit.analysis import arithmetic
    from cnn_vit.analysis.table import as_json

    description = describe_requested(args, parse_side(args.image))
    row = description.row(args.layer)
    lines = arithmetic.explain_row(description, row)
    record = {**description.to_json(), "layers": [as_json(row)], "arithmetic": dict(lines)}
    text = arithmetic.definition_list(lines, width=terminal_columns())
    cli.print_answer(args, record, text, next_command=f"cnn-vit describe {network_words(args)}")


def describe_differences(args: argparse.Namespace) -> None:
    """Prints what differs between two networks, or between two image sizes of one."""
    from cnn_vit.analysis import formatting, table

    is_named = bool(
        args.what or args.config or args.workdir or args.weights
    )  # one network before --diff, then two sizes
    sizes = [word for word in args.diff if is_size(word)]
    if is_named and len(sizes) < 2:
        wrong = next(word for word in args.diff if not is_size(word))
        raise UserError(
            f"--diff of one network takes two image sizes, not {wrong!r}; to compare two models, name both after "
            "--diff and none before it"
        )
    if is_named and args.image:
        raise UserError("--image and --diff both say image sizes; leave --image out")
    if not is_named and sizes:
        raise UserError(f"--diff {' '.join(args.diff)}: {sizes[0]!r} is a size; name a model before --diff")
    descriptions = []
    for word in args.diff:
        if is_named:
            descriptions.append(describe_requested(args, parse_side(word)))
        else:
            args_of_model = argparse.Namespace(**{**vars(args), "what": [word]})
            descriptions.append(describe_requested(args_of_model, parse_side(args.image)))
    record = table.find_differences(*descriptions)
    text = formatting.format_differences(record)
    cli.print_answer(args, record, text, next_command=f"cnn-vit describe {network_words(args) or args.diff[0]}")


def describe_window(args: argparse.Namespace) -> None:
    """Prints one side of a convolution or pooling."""
    from cnn_vit.analysis import arithmetic, calculator

    kind = args.what[0]
    for name in ("n", "k", "s", "padding"):
        if getattr(args, name) is None:
            raise UserError(f"describe {kind} needs --{name}, the {WINDOW_FLAGS[name]}")
    for name in (*NETWORK_FLAGS, *ANSWER_FLAGS):
        if getattr(args, name):
            flags = ", ".join(f"--{flag}" for flag in WINDOW_FLAGS)
            raise UserError(f"--{name} belongs to a model; {kind} takes {flags}")
    dilation = 1 if args.d is None else args.d
    padding = parse_padding(args.padding)
    calculation = calculator.calculate(kind, n=args.n, k=args.k, s=args.s, d=dilation, padding=padding)
    text = arithmetic.definition_list(arithmetic.explain_window(calculation), width=terminal_columns())
    cli.print_answer(args, calculation.to_json(), text, next_command="cnn-vit describe cnn/lecture")


def parse_padding(text: str) -> tuple[int, int]:
    """Parses "1" or "0,1" as pixels of padding before and after."""
    if not re.fullmatch(r"-?\d+(,-?\d+)?", text):
        raise UserError(f"--padding={text} is neither a number of pixels nor two of them, before,after")
    before, _, after = text.partition(",")
    return int(before), int(after or before)


# Where the network comes from


class ConfiguredNetwork(NamedTuple):
    """A network as a recipe or a run folder configures it.

    Attributes:
        settings: the checked settings.
        num_classes: how many classes there are; None where only the data know.
        image_shape: the shape (H, W, C) of the images; None for each number that only the data know.
    """

    settings: settings.Settings
    num_classes: int | None
    image_shape: tuple[Any, ...]


def describe_requested(args: argparse.Namespace, image_size: int | tuple[int, int] | None) -> "Description":
    """Describes the network that was asked for.

    Args:
        args: the parsed words of the command.
        image_size: side in pixels, or (height, width); None for the network's own.

    Raises:
        UserError: none or several networks are named, or the recipe leaves open what the command line does not say.
    """
    from cnn_vit.analysis.table import describe
    from cnn_vit.training import plan

    sources = [source for source in (args.what, args.config, args.workdir, args.weights) if source]
    if len(sources) != 1:
        raise UserError(
            "name one network: a model such as resnet/50, --config=RECIPE, --workdir=RUN or --weights=FILE; cnn-vit "
            "list models shows the models"
        )
    model_keywords = _model.read_model_keywords(args)
    if not args.weights and (args.model or model_keywords):
        raise UserError(
            "--model belongs to --weights=FILE; a model is named without a flag: cnn-vit describe resnet/50"
        )
    if args.overrides and not args.config:
        raise UserError(f"--config.{args.overrides[0]} sets something of a recipe; add --config=RECIPE")
    if args.what:
        return describe(args.what[0], image_size, num_classes=args.classes, channels=args.channels)
    if args.weights:
        return describe_weights(args, image_size, model_keywords)
    configured = read_recipe_network(args) if args.config else read_run_network(Path(args.workdir))
    # What the command line says goes before what the recipe or run says.
    image_size = image_size or configured.image_shape[:2]
    num_classes = configured.num_classes if args.classes is None else args.classes
    channels = configured.image_shape[2] if args.channels is None else args.channels
    if num_classes is None:
        raise UserError(f"{network_words(args)} leaves the number of classes to its data; add --classes=K")
    if image_size == (None, None):
        raise UserError(f"{network_words(args)} leaves the image size to its data; add --image=SIZE")
    final = configured.settings
    return describe(
        final["model.name"],
        image_size,
        num_classes=num_classes,
        channels=channels,
        dtype=final["dtype"],
        **plan.model_keywords(final),
    )


def describe_weights(
    args: argparse.Namespace, image_size: int | tuple[int, int] | None, model_keywords: dict[str, Any]
) -> "Description":
    """Describes the network of a file of weights, at its own image size and classes where nothing else is asked for."""
    from cnn_vit.analysis.table import describe
    from cnn_vit.transfer import convert

    _network.refuse_run_folder(args.weights, f"is named by --workdir={args.weights}")
    card = convert.open_weights(args.weights, model=args.model, keywords=model_keywords).card
    known = card.preprocessing
    if image_size is None and "image_size" in known:
        image_size = tuple(known["image_size"])
    return describe(
        card.model,
        image_size,
        num_classes=args.classes or card.num_classes,
        channels=args.channels or known.get("channels"),
        **card.keywords,
    )


def read_recipe_network(args: argparse.Namespace) -> ConfiguredNetwork:
    """Reads the network of the recipe that the command line names, completed by the weights that it starts from."""
    from cnn_vit import data
    from cnn_vit.training import pretrained_settings

    final, _ = pretrained_settings.complete_settings(settings.load(args.config, args.overrides))
    section = final.section("data")
    try:
        info = data.about(section)
    except UserError:
        if section["path"] is not None:
            raise
        # A source that reads files says nothing as long as no path is set; the recipe may say enough without it.
        info = data.SourceInfo()
    size = section["image_size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    image_shape = info.image_shape or (height, width, section["channels"])
    return ConfiguredNetwork(final, info.num_classes or section["classes"], image_shape)


def read_run_network(workdir: Path) -> ConfiguredNetwork:
    """Reads the network of a run folder."""
    from cnn_vit.runs import reader

    description = reader.read_description(workdir)
    return ConfiguredNetwork(description.settings, len(description.classes), description.image_shape)


def network_words(args: argparse.Namespace) -> str:
    """The words with which this command line named its network, quoted for a shell."""
    words = list(args.what)
    for name in NETWORK_FLAGS:
        if getattr(args, name):
            words.append(f"--{name}={getattr(args, name)}")
    words += [f"--model.{word}" for word in args.model_keywords]
    words += [f"--config.{override}" for override in args.overrides]
    return " ".join(map(cli.shell_quote, words))


def parse_side(text: str | None) -> int | tuple[int, int] | None:
    """Parses an image size: "224" as a side, "224x160" as (height, width); None where the text is None."""
    if text is None:
        return None
    if not is_size(text):
        raise UserError(f"--image={text} is not an image size; write pixels, 224, or HEIGHTxWIDTH, 224x160")
    pixels = [int(side) for side in text.split("x")]
    if not all(1 <= side <= LARGEST_SIDE for side in pixels):
        raise UserError(f"an image of {text} pixels is refused; each side must be from 1 to {LARGEST_SIDE:,} pixels")
    return pixels[0] if len(pixels) == 1 else (pixels[0], pixels[1])


def is_size(text: str) -> bool:
    """Whether a word has the form of an image size."""
    return re.fullmatch(r"-?\d+(x-?\d+)?", text) is not None


def terminal_columns() -> int:
    """How many columns the terminal has."""
    return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns
