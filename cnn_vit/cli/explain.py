"""Look into a trained network with an image: how each layer answers where the image is shifted.

    cnn-vit explain photo.jpg --method=shift --workdir=runs/flowers
    cnn-vit explain photos/ --method=shift --weights=net.safetensors --shift=4,0

It writes a page (--out, default RUN/shift.html) with a map for each layer that shows where its features
do not move with the image, with the network's own values and with initial ones. It prints, for each layer
and for the scores:

    equivariance   how far the features of the shifted image are from the shifted features, relative to the
                   features; 0 where they move with the image
    invariance     how much the features change; 0 where the layer does not notice the shift

A shift brings in at one side what leaves at the other. It is whole in a layer's map only where the stride
of that map divides it (for tokens the side of a patch); elsewhere there is no equivariance error. The
last lines say how often the predicted class stays the same. The initial values of the seed of the run (of a
file: of seed 0) are measured beside it. A dash, and null with --json, stands where an error is undefined: behind
a norm whose scale begins as 0, for it gives 0 everywhere, and for the scores of a head that begins as zeros, as
in most Transformers, for every image has the same.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _network
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.analysis.shift import ShiftReport
    from cnn_vit.studies.explain import ShiftComparison

METHODS = ("shift",)
EXAMPLE_SHIFT = "2,2"
DEFAULT_PAGE = "shift.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file, a folder or a zip archive")
    parser.add_argument("--method", metavar="NAME", required=True, help=f"what is looked at: {', '.join(METHODS)}")
    parser.add_argument(
        "--shift",
        metavar="PIXELS",
        help="pixels down,right (default: a patch, or the stride of the first layer; 2 at least)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"the page with the maps (default: {DEFAULT_PAGE} in the run folder, and here for a file of weights)",
    )
    _network.add_network_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Measures the network, writes the page of its maps and prints a row for each layer.

    Raises:
        UserError: there is no such method, an image cannot be read, the shift is not one, or --out is no page.
        SurroundingsError: the page cannot be written.
    """
    if args.method not in METHODS:
        raise unknown("method of explain", args.method, METHODS)
    shift = None if args.shift is None else read_shift(args.shift)
    out = Path(args.workdir or "") / DEFAULT_PAGE if args.out is None else read_page_name(args.out)
    from cnn_vit import files, stops
    from cnn_vit.reports import shift_page
    from cnn_vit.studies import explain

    network = _network.load_network(args)
    files.ensure_writable(out.parent)
    compared = explain.compare_shift(network, args.images, shift)
    stops.raise_if_requested()
    suggested = explain.suggest_shift(compared)
    remedy = "" if suggested is None else f"--shift={write_shift(suggested)}"
    page = shift_page.write_page(
        compared.trained,
        compared.untrained,
        compared.images,
        shift=compared.shift,
        remedy=remedy,
        network=f"{network.spec.model} of {args.workdir or args.weights}",
        start=compared.start,
        is_before_training=compared.is_before_training,
        has_zero_head=compared.has_zero_head,
        command=page_command(args, compared.shift),
    )
    files.write(out, page)
    record = {
        "page": str(out),
        "images": len(compared.images),
        "shift": list(compared.shift),
        "trained": as_json(compared.trained),
        "untrained": as_json(compared.untrained),
        "untrained_values": compared.start,
        "untrained_head_is_zero": compared.has_zero_head,
    }
    text = f"{as_text(compared)}\n\npage: {cli.as_one_line(str(out))}"
    if remedy:
        text += f"\n\nno layer has a map of which this shift is a whole number of pixels; give {remedy}"
    next_command = "cnn-vit lab run padding --quick"
    cli.print_answer(args, record, text, next_command=next_command, even_if_stopped=True)


def page_command(args: argparse.Namespace, shift: tuple[int, int]) -> str:
    """The command that makes the page again."""
    words = ["cnn-vit explain", *map(cli.shell_quote, args.images), f"--method={args.method}"]
    words += [f"--shift={write_shift(shift)}", _network.network_words(args)]
    if args.out is not None:
        words.append(cli.shell_quote(f"--out={args.out}"))
    return " ".join(words)


def read_page_name(text: str) -> Path:
    """Reads the name of the page.

    Raises:
        UserError: it does not end in .html, or is this ending alone, or a folder.
    """
    out = Path(text)
    if out.suffix == ".html":
        return out
    if out.is_dir():
        raise UserError(f"--out={text} is a folder; name a page in it, {out / DEFAULT_PAGE}")
    if out.name == ".html":
        raise UserError(f"--out={text} has no name before .html; name it {out.with_name(DEFAULT_PAGE)}")
    raise UserError(f"--out={text} does not end in .html; name it {out.with_suffix('.html')}")


def write_shift(shift: tuple[int, int]) -> str:
    """Writes a shift as `read_shift` reads it."""
    return ",".join(map(str, shift))


def read_shift(text: str) -> tuple[int, int]:
    """Reads "2,2" as pixels down and right.

    Raises:
        UserError: it is something else.
    """
    words = text.split(",")
    if len(words) != 2 or not all(word.strip().isdecimal() for word in words):
        raise UserError(f"--shift={text} is not two whole numbers of pixels; write it as --shift={EXAMPLE_SHIFT}")
    down, right = map(int, words)
    if not down and not right:
        raise UserError("--shift=0,0 moves nothing; give at least one pixel")
    return down, right


def as_json(report: "ShiftReport") -> dict[str, Any]:
    """Returns a report as --json prints it; what is not finite is null."""
    layers = []
    for layer in report.layers:
        layers.append(
            {
                "path": layer.path,
                "kind": layer.kind,
                "stride": layer.stride,
                "equivariance": finite_or_none(layer.equivariance),
                "center": finite_or_none(layer.center),
                "invariance": finite_or_none(layer.invariance),
            }
        )
    return {
        "layers": layers,
        "consistency": finite_or_none(report.consistency),
        "largest_change": finite_or_none(report.largest_change),
    }


def finite_or_none(number: float | None) -> float | None:
    """Returns a number, and None for what JSON cannot write and where there is none."""
    return None if number is None or not math.isfinite(number) else number


def share_text(share: float, count: int) -> str:
    """Returns a share of some images in percent, and of one image yes or no."""
    if count > 1:
        return f"{100 * share:.1f} %"
    return "yes" if share else "no"


def as_text(compared: "ShiftComparison") -> str:
    """Returns a table of the layers, trained and untrained, and what becomes of the predictions."""
    from cnn_vit.reports import shift_page

    trained, untrained = compared.trained, compared.untrained
    rows: list[Sequence[str]] = [("layer", "kind", "stride", "equivariance", "untrained", "invariance", "untrained")]
    for layer, before in zip(trained.layers, untrained.layers, strict=True):
        cells = [layer.path or "(scores)", layer.kind, "" if layer.stride is None else str(layer.stride)]
        for error in (layer.equivariance, before.equivariance, layer.invariance, before.invariance):
            cells.append(shift_page.shift_error_text(error))
        rows.append(cells)
    count = len(compared.images)
    same = share_text(trained.consistency, count) + (" of the images" if count > 1 else "")
    change = f"{trained.largest_change:.3g} at most"
    values = compared.start
    if compared.has_zero_head:
        values += "; the head begins as zeros, so that every image has the same scores"
    else:
        same += f"; untrained {share_text(untrained.consistency, count)}"
        change += f"; untrained {untrained.largest_change:.3g}"
    summary = [("same class", same), ("scores change by", change), ("untrained", values)]
    if shift_page.has_undefined(trained, untrained):
        summary.append((shift_page.UNDEFINED, shift_page.UNDEFINED_MEANING))
    width = cli.terminal_width()
    return f"{cli.format_table(rows, width=width)}\n\n{cli.format_table(summary, width=width)}"
