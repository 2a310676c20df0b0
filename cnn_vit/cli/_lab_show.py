"""`cnn-vit lab show`: one layer at work on one image, as an animation with numbers and as a drawing that stays.

This file imports no jax at its top, so that the help of `lab` answers at once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _image, _network
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np

    from cnn_vit.analysis.walks import ConvolutionWalk
    from cnn_vit.plots import NumberDrawing

FOLDER = Path("runs") / "lab" / "show"
SUBJECT_FLAGS = {  # what is shown -> the flags that it takes, beside --out
    "convolution": ("kernel", "stride", "padding", "padding_kind", "dilation", "channels", "side"),
    "padding": ("kernel", "padding", "side"),
    "pooling": ("size", "stride", "side"),
    "attention": ("patch", "head_width", "seed", "side"),
    "filters": ("workdir", "weights", "model"),
    "features": ("workdir", "weights", "model", "layer"),
}
NUMBER_RANGES = {  # flag -> smallest and largest
    "stride": (1, 8),
    "padding": (0, 4),
    "dilation": (1, 8),
    "side": (3, 12),
    "size": (1, 8),
    "patch": (2, 8),  # a patch of one pixel is normalized to 0
    "head_width": (1, 6),
    "seed": (0, 2**31 - 1),
}
KERNELS = {
    "vertical": "1,0,-1/2,0,-2/1,0,-1",  # Sobel's: edges between left and right
    "horizontal": "1,2,1/0,0,0/-1,-2,-1",
    "outline": "0,-1,0/-1,4,-1/0,-1,0",  # Laplace's, with its sign turned
    "sharpen": "0,-1,0/-1,5,-1/0,-1,0",
    "sum": "1,1,1/1,1,1/1,1,1",
}
DEFAULT_KERNEL = "vertical"
MOST_WEIGHTS = 7  # of a side of a filter
LEVELS = 16  # gray levels above black, as in scikit-learn's digits: small enough to multiply by heart
DIGIT = 3
MOST_PATCHES = 9  # whose numbers can be read
SHAPE = 11  # one that stands out from what is behind it in each color
SHAPE_SIDE = 32  # pixels of a drawn shape before it is made small
FILE_ENDINGS = {".gif", ".svg", ".png", ".jpg", ".jpeg", ".html", ".json", ".pdf", ".txt"}  # of no folder
MOST_POSITIONS = 144  # of a filter, each with a frame: as many as the largest image has pixels, a minute and a half
NEXT = {
    "convolution": "cnn-vit lab show padding",
    "padding": "cnn-vit lab run padding --quick",
    "pooling": "cnn-vit lab show attention",
    "attention": "cnn-vit lab show filters --workdir=RUN",
}
FLAGS = sorted({flag for flags in SUBJECT_FLAGS.values() for flag in flags})


@dataclass(frozen=True)
class ShowOptions:
    """What `lab show` draws of a layer at work; a subject heeds those of its flags alone.

    Attributes:
        stride: pixels from one position to the next.
        padding: pixels around the image.
        padding_kind: what stands there, one of `nn.padding.MODES`.
        dilation: pixels from one weight of the filter to the next.
        channels: of the image, 1 or 3.
        side: pixels of the image along each side.
        size: pixels of a pooling window along each side.
        patch: pixels of a patch along each side.
        head_width: numbers of a query, key or value.
        seed: of the projections of attention.
    """

    stride: int = 1
    padding: int = 0
    padding_kind: str = "zero"
    dilation: int = 1
    channels: int = 1
    side: int = 8
    size: int = 2
    patch: int = 4
    head_width: int = 3
    seed: int = 0


DEFAULTS = {"padding": ShowOptions(padding=1), "pooling": ShowOptions(stride=2)}  # of subjects with some of their own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of `lab show`."""
    group = parser.add_argument_group("behind show convolution, padding, pooling or attention")
    group.add_argument(
        "--kernel",
        metavar="W",
        help=f"the filter: {', '.join(KERNELS)} (default: {DEFAULT_KERNEL}), or rows of weights such as 1,0,-1/2,0,-2/"
        "1,0,-1; filters of three channels stand behind each other with a colon between them",
    )
    group.add_argument("--stride", type=int, metavar="N", help="pixels from one position to the next")
    group.add_argument("--padding", type=int, metavar="N", help="pixels around the image")
    group.add_argument("--padding_kind", metavar="KIND", help="what stands there: zero, circular, reflect or edge")
    group.add_argument("--dilation", type=int, metavar="N", help="pixels from one weight of the filter to the next")
    group.add_argument("--channels", type=int, metavar="C", help="1 for gray (default), 3 for red, green and blue")
    group.add_argument("--side", type=int, metavar="N", help="pixels of a side of the image (default: 8)")
    group.add_argument("--size", type=int, metavar="N", help="pixels of a side of a pooling window (default: 2)")
    group.add_argument("--patch", type=int, metavar="N", help="pixels of a side of a patch (default: 4)")
    group.add_argument("--head_width", type=int, metavar="N", help="numbers of a query, key or value (default: 3)")
    group.add_argument("--seed", type=int, metavar="N", help="of the projections of attention (default: 0)")
    network = parser.add_argument_group("behind show filters or features")
    network.add_argument("--layer", metavar="PATH", help="features: the one layer that is shown")
    _network.add_network_arguments(parser)


def show(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Writes the drawings of a subject, and prints the numbers and where the drawings are.

    Args:
        args: the parsed words.
        names: the subject, and the path of an image if there is one.

    Raises:
        UserError: there is no such subject, or a flag or the image is not one of it.
    """
    if not names:
        raise UserError(f"`cnn-vit lab show` takes what to show: {', '.join(SUBJECT_FLAGS)}")
    subject, *images = names
    if subject not in SUBJECT_FLAGS:
        raise unknown("subject of lab show", subject, SUBJECT_FLAGS)
    if len(images) > 1:
        raise UserError(f"`cnn-vit lab show {subject}` takes one IMAGE, not {len(images)}")
    if subject == "filters" and images:
        raise UserError(f"filters are the network's own, and need no image; leave {images[0]} out")
    refuse_flags_of_others(args, subject)
    out = Path(args.out) if args.out is not None else FOLDER
    if out.suffix.lower() in FILE_ENDINGS:
        raise UserError(f"--out={out} has the ending of a file; name the folder of the drawings, such as {FOLDER}")
    from cnn_vit import files

    files.ensure_writable(out)
    if subject in ("filters", "features"):
        show_network(args, subject, images[0] if images else None, out)
    else:
        options = read_options(args, subject)
        show_numbers(args, subject, options, images[0] if images else None, out)


def refuse_flags_of_others(args: argparse.Namespace, subject: str) -> None:
    """Raises UserError for a flag that another subject takes."""
    for flag in FLAGS:
        if getattr(args, flag) is not None and flag not in SUBJECT_FLAGS[subject]:
            takers = [name for name, flags in SUBJECT_FLAGS.items() if flag in flags]
            raise UserError(f"--{flag} belongs to lab show {' and '.join(takers)}, not to {subject}; leave it out")
    if args.model_keywords and subject not in ("filters", "features"):
        raise UserError(f"--model.{args.model_keywords[0]} belongs to lab show filters and features; leave it out")


def read_options(args: argparse.Namespace, subject: str) -> ShowOptions:
    """Returns the flags of a subject with their defaults filled in.

    Raises:
        UserError: a number is out of its range.
    """
    options = DEFAULTS.get(subject, ShowOptions())
    for flag in SUBJECT_FLAGS[subject]:
        value = getattr(args, flag)
        if value is None or flag == "kernel":
            continue
        options = replace(options, **{flag: value})
        low, high = NUMBER_RANGES.get(flag, (value, value))
        if not low <= value <= high:
            raise UserError(f"--{flag}={value} is out of its range; it takes {low} to {high}")
    if subject == "convolution" and args.padding_kind is not None and options.padding == 0:
        raise UserError(f"--padding_kind={args.padding_kind} has no padding to fill; add --padding=1")
    if options.channels not in (1, 3):
        raise UserError(f"--channels={options.channels} is neither 1, for gray, nor 3, for colors")
    return options


# Layers at work -------------------------------------------------------------------------------------------------------


def show_numbers(args: argparse.Namespace, subject: str, options: ShowOptions, path: str | None, out: Path) -> None:
    """Writes the animation and the drawing of a layer, and prints what it did."""
    import numpy as np

    from cnn_vit import files, plots, stops
    from cnn_vit.training.progress import Progress

    pixels, source = choose_image(path, options.side, options.channels)
    levels = np.rint(pixels * LEVELS)
    makers = {
        "convolution": show_convolution,
        "padding": show_padding,
        "pooling": show_pooling,
        "attention": show_attention,
    }
    answer = makers[subject](args, options, levels)
    source += f", levels 0 (black) to {LEVELS} (white)"
    drawn = replace(answer.still, lines=(*answer.still.lines, f"The image is {source}."))
    animation, drawing = out / f"{subject}.gif", out / f"{subject}.svg"
    with Progress(len(answer.frames), batch_size=None) as progress:

        def note_frame(number: int) -> None:
            stops.raise_if_requested()
            progress.update(number)

        content = plots.draw_animation(answer.frames, on_frame=note_frame)
    files.write(animation, content)
    files.write(drawing, plots.standalone(plots.draw_numbers(drawn)))
    written = {"animation": str(animation), "drawing": str(drawing), "frames": len(answer.frames)}
    table = cli.format_table(
        [
            ("image", source),
            *answer.rows,
            ("animation", f"{animation}, {len(answer.frames)} frames"),
            ("drawing", f"{drawing}, which follows light and dark"),
        ],
        width=cli.terminal_width(),
    )
    text = f"{table}\n\n{cli.wrap_paragraphs(chr(10).join(answer.still.lines), cli.terminal_width())}"
    cli.print_answer(
        args,
        {"subject": subject, "image": levels.tolist()} | answer.record | written,
        text,
        next_command=NEXT[subject],
        even_if_stopped=True,
    )


def choose_image(path: str | None, side: int, channels: int) -> tuple["np.ndarray", str]:
    """Returns pixels (side, side, channels) in 0..1 of a file, a digit or a drawn shape, and says what they are."""
    if path is not None:
        return _image.read_image(path, side, channels=channels)
    import numpy as np

    from cnn_vit.data.decode import images
    from cnn_vit.data.sources import shapes

    if channels == 3:
        drawer = shapes.ImageDrawer(0, 0, "shape", 1, (SHAPE_SIDE, SHAPE_SIDE, 3))
        drawn = drawer.draw(np.array([SHAPE]))[0]
        return images.fit_image(drawn, (side, side), "crop") / 255, f"a drawn disc, {side} x {side} pixels"
    digit, source = _image.read_digit(DIGIT)
    if len(digit) == side:
        return digit[..., None], source
    whole = np.rint(digit[..., None] * 255).astype(np.uint8)
    return images.fit_image(whole, (side, side), "crop") / 255, f"{source} at {side} x {side} pixels"


@dataclass(frozen=True)
class Answer:
    """What a layer did.

    Attributes:
        record: of --json.
        rows: of the table.
        frames: of the animation.
        still: the drawing that stays.
    """

    record: dict[str, Any]
    rows: list[tuple[str, str]]
    frames: "list[NumberDrawing]"
    still: "NumberDrawing"


def show_convolution(args: argparse.Namespace, options: ShowOptions, levels: "np.ndarray") -> Answer:
    """Slides a filter over an image."""
    from cnn_vit.analysis import walks
    from cnn_vit.reports import walk_drawings

    kernel = read_kernel(args.kernel or DEFAULT_KERNEL, options.channels)
    walk = walks.walk_convolution(
        levels,
        kernel,
        stride=options.stride,
        padding=options.padding,
        padding_kind=options.padding_kind,
        dilation=options.dilation,
    )
    if walk.output.size > MOST_POSITIONS:
        raise UserError(
            f"{walk.output.size} positions of the filter are more frames than can be watched; make --side or --padding "
            f"smaller, or --stride larger, for at most {MOST_POSITIONS}"
        )
    frames, still = walk_drawings.draw_convolution(walk, LEVELS)
    record = {"kernel": kernel.tolist(), "output": walk.output.tolist()}
    return Answer(record, convolution_rows(walk), frames, still)


def convolution_rows(walk: "ConvolutionWalk") -> list[tuple[str, str]]:
    """Returns the rows of a table on a convolution: the filter, how many outputs, how many products."""
    height, width, channels = walk.kernel.shape
    rows, columns = walk.output.shape
    pixels, padding = walk.slide.image.shape[0], walk.slide.padding
    stride, dilation = walk.slide.stride, walk.slide.dilation
    weights, verb = ("1 weight", "is") if walk.kernel.size == 1 else (f"{walk.kernel.size} weights", "are")
    size = f"floor(({pixels} + 2 * {padding} - {dilation} * ({height} - 1) - 1) / {stride}) + 1 = {rows}"
    products = f"{rows} * {columns} outputs * {weights} = {rows * columns * walk.kernel.size:,}"
    return [
        ("filter", f"{height} x {width} x {channels}, {weights} that {verb} used at every position"),
        ("output rows", size),
        ("products", products),
    ]


def show_padding(args: argparse.Namespace, options: ShowOptions, levels: "np.ndarray") -> Answer:
    """Runs a convolution with each kind of padding."""
    import numpy as np

    from cnn_vit.analysis import walks
    from cnn_vit.nn.padding import MODES, ZERO
    from cnn_vit.reports import walk_drawings

    filter_text = args.kernel or DEFAULT_KERNEL
    kernel = read_kernel(filter_text, 1)
    if options.padding == 0:
        raise UserError("--padding=0 leaves nothing to show; it takes at least 1 here")
    by_kind = {}
    for kind in MODES:
        by_kind[kind] = walks.walk_convolution(levels, kernel, padding=options.padding, padding_kind=kind)
    frames, still = walk_drawings.draw_padding(list(by_kind.values()), LEVELS)
    name = f"the filter {filter_text}"
    rows = []
    for kind, walk in by_kind.items():
        changed = int((walk.output != by_kind[ZERO].output).sum())
        rows.append((kind, f"{changed} of {walk.output.size} outputs of {name} are not those of zero padding"))
    record = {"kernel": kernel.tolist(), "padded": {}, "output": {}}
    for kind, walk in by_kind.items():
        record["padded"][kind] = np.asarray(walk.slide.padded).tolist()
        record["output"][kind] = walk.output.tolist()
    return Answer(record, rows[1:], frames, still)


def show_pooling(args: argparse.Namespace, options: ShowOptions, levels: "np.ndarray") -> Answer:
    """Pools an image in four ways."""
    from cnn_vit.analysis import walks
    from cnn_vit.reports import walk_drawings

    walk = walks.walk_pooling(levels[..., 0], size=options.size, stride=options.stride)
    frames, still = walk_drawings.draw_pooling(walk, LEVELS)
    rows, columns = walk.outputs["max"].shape
    kept = f"{rows * columns} of {levels.size} numbers go on; no parameter is learned"
    record = {"output": {kind: output.tolist() for kind, output in walk.outputs.items()}}
    return Answer(record, [("kept", kept)], frames, still)


def show_attention(args: argparse.Namespace, options: ShowOptions, levels: "np.ndarray") -> Answer:
    """Lets the patches of an image attend to each other."""
    from cnn_vit.analysis import walks
    from cnn_vit.reports import walk_drawings

    side, patch = options.side, options.patch
    patches = (side // patch) ** 2
    if patches > MOST_PATCHES:
        raise UserError(
            f"{patches} patches are more numbers than can be read; make --patch larger than {patch}, or --side smaller "
            f"than {side}, for at most {MOST_PATCHES}"
        )
    walk = walks.walk_attention(levels[..., 0] / LEVELS, patch=patch, head_width=options.head_width, seed=options.seed)
    frames, still = walk_drawings.draw_attention(walk)
    names = ("tokens", "queries", "keys", "values", "scores", "weights", "output")
    record = {name: getattr(walk, name).tolist() for name in names}
    record["projections"] = {}
    for name, projection in walk.projections.items():
        record["projections"][name] = {part: values.tolist() for part, values in projection.items()}
    width = options.head_width
    rows = [
        ("tokens", f"{patches} patches of {patch * patch} pixels, each normalized"),
        ("projections", "random, not trained; --json prints them, and the tokens"),
        ("scores", f"{patches} * {patches} of {width} products each: quadratic in the number of tokens"),
    ]
    return Answer(record, rows, frames, still)


def read_kernel(text: str, channels: int) -> "np.ndarray":  # -> (V, U, C)
    """Reads the weights of a filter, or the name of one.

    Args:
        text: "vertical", or rows such as "1,0,-1/2,0,-2/1,0,-1", one filter or one for each channel, with ":" between.
        channels: of the image; one filter is used for all of them.

    Raises:
        UserError: it is neither.
    """
    import numpy as np

    if text.isidentifier() and text not in KERNELS:
        raise unknown("kernel", text, KERNELS)
    parts = KERNELS.get(text, text).split(":")
    if len(parts) not in (1, channels):
        remedy = f"give one filter for all, or {channels}"
        if channels == 1:
            remedy = "add --channels=3" if len(parts) == 3 else "give one filter"
        raise UserError(f"--kernel={text} has {len(parts)} channels, and the image {channels}; {remedy}")
    filters = []
    for part in parts:
        try:
            filters.append([[float(number) for number in row.split(",")] for row in part.split("/")])
        except ValueError:
            raise UserError(f"--kernel={text} has weights that are not numbers; write 1,0,-1/2,0,-2/1,0,-1") from None
    widths = {len(row) for rows in filters for row in rows}
    heights = {len(rows) for rows in filters}
    if len(widths) > 1 or len(heights) > 1:
        raise UserError(f"--kernel={text} has rows of different lengths; write 1,0,-1/2,0,-2/1,0,-1")
    kernel = np.array(filters).transpose(1, 2, 0)
    if max(kernel.shape[:2]) > MOST_WEIGHTS or not np.isfinite(kernel).all() or np.abs(kernel).max() >= 100:
        raise UserError(f"--kernel={text} is not of at most {MOST_WEIGHTS} x {MOST_WEIGHTS} weights below 100")
    return np.repeat(kernel, channels // kernel.shape[2], axis=2)


# What a network has learned -------------------------------------------------------------------------------------------


def show_network(args: argparse.Namespace, subject: str, image: str | None, out: Path) -> None:
    """Writes the drawing of a trained network's filters or features, and prints what it shows."""
    import numpy as np

    from cnn_vit import files, plots
    from cnn_vit.reports import layer_drawings
    from cnn_vit.studies import show

    network = _network.load_network(args)
    drawing = out / f"{subject}.svg"
    words = _network.network_words(args)
    if subject == "filters":
        comparison = show.compare_filters(network)
        files.write(drawing, plots.standalone(layer_drawings.draw_filters(comparison)))
        rows = [
            ("layer", comparison.layer),
            ("filters", f"{comparison.filters}, {' x '.join(map(str, comparison.after.shape[1:]))} each"),
            ("distance", comparison.change_sentence),
        ]
        record = {"layer": comparison.layer, "filters": comparison.filters, "change": comparison.change}
        record |= {"start": comparison.start}
        next_command = f"cnn-vit lab show features {words}"
    else:
        if image is None:
            digit, source = _image.read_digit(DIGIT)
            pixels: str | np.ndarray = np.rint(digit * 255).astype(np.uint8)
        else:
            pixels, source = image, image
        seen, layers, start = show.compare_features(network, pixels, args.layer)
        files.write(drawing, plots.standalone(layer_drawings.draw_features(seen, layers, start)))
        rows = [("image", source)]
        rows += [(layer.label, " x ".join(map(str, layer.after.shape))) for layer in layers]
        rows.append(("drawn", f"{start}, and after training"))
        shown = []
        for layer in layers:
            shown.append({"path": layer.layer, "norm": layer.norm or None, "shape": list(layer.after.shape)})
        record = {"layers": shown, "start": start}
        next_command = f"cnn-vit explain IMAGE --method=shift {words}"
    rows.append(("drawing", str(drawing)))
    answer = {"subject": subject, "drawing": str(drawing)} | record
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
