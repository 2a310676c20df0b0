"""Makes the page of `cnn-vit explain --method=shift`: where each layer fails to move with the image, and by how much.

Every number and map on the page comes from the two `ShiftReport`s, of the network with its own and with initial values.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_vit import plots
from cnn_vit.analysis.shift import LayerShift, ShiftReport
from cnn_vit.reports import page
from cnn_vit.reports.mathml import formula

MOST_MAPS = 18  # layers whose maps are shown; of more, some are chosen at even distances
MOST_IMAGES = 6  # that are shown, each beside the shifted one
IMAGE_WIDTH = 110  # CSS pixels of an image and of a map
LEGEND_STEPS = 32  # colors of the legend
EQUIVARIANCE = formula(r"e = \frac{|f(T x) - T f(x)|}{|f(x)|}")
UNDEFINED = "-"  # in place of an error that is nan
UNDEFINED_MEANING = "undefined, for what the layer gives is 0 everywhere or does not depend on the image"
INVARIANCE = formula(r"v = \frac{|f(T x) - f(x)|}{|f(x)|}")


@dataclass(frozen=True)
class LayerRow:
    """What the page says of a layer; the two numbers of a pair are trained and untrained.

    Attributes:
        path: of the layer; "(scores)" for the whole network.
        kind: of the layer.
        stride: of its map, in pixels of the image; "" where its output is not a map.
        equivariance: the errors, as text.
        center: the errors at the center of the map, as text.
        invariance: the errors, as text.
    """

    path: str
    kind: str
    stride: str
    equivariance: tuple[str, str]
    center: tuple[str, str]
    invariance: tuple[str, str]


@dataclass(frozen=True)
class ErrorMaps:
    """The maps of a layer's errors.

    Attributes:
        path: of the layer.
        size: of the map, as text.
        trained: address of the map with the network's own values, and its largest error as text; transparent, and "",
            where the output of the layer is 0 everywhere.
        untrained: the same with initial values.
    """

    path: str
    size: str
    trained: tuple[str, str]
    untrained: tuple[str, str]


@dataclass(frozen=True)
class ShiftPage:
    """All that the template shows beside the reports.

    Attributes:
        images: address of each image and of the shifted one.
        rows: of all layers, the last of the scores.
        maps: of some layers that have a map, and no layers inside.
        layers_with_map: how many have.
        largest: the error of the lightest color.
        legend: address of the colors from 0 to the largest.
        curves: SVG of each error by layer; none where fewer than two layers have a map.
        map_width: CSS pixels of a map.
    """

    images: tuple[tuple[str, str], ...]
    rows: tuple[LayerRow, ...]
    maps: tuple[ErrorMaps, ...]
    layers_with_map: int
    largest: float
    legend: str
    curves: tuple[str, ...]
    map_width: int = IMAGE_WIDTH


def write_page(
    trained: ShiftReport,
    untrained: ShiftReport,
    images: np.ndarray,
    *,
    shift: tuple[int, int],
    network: str,
    start: str,
    is_before_training: bool,
    has_zero_head: bool,
    command: str,
    remedy: str = "",
) -> str:  # images: (B, H, W, C)
    """Returns the page as HTML.

    Args:
        trained: of the network with its own values.
        untrained: of the same network with initial values; nan of the scores where has_zero_head.
        images: uint8, as the network sees them.
        shift: pixels down and right, around.
        network: which network it is, in words.
        start: what the initial values are, in words: "before training", or "initial values of seed 0".
        is_before_training: whether the training of the network began with them.
        has_zero_head: whether the initial head is all zero, and gives every image the same scores.
        command: that makes the page again.
        remedy: the flag of a shift with which layers have maps, where none has.
    """
    return page.render(
        "shift.html",
        mark="",
        title="How a network answers a shifted image",
        network=network,
        start=start,
        is_before_training=is_before_training,
        has_zero_head=has_zero_head,
        command=command,
        remedy=remedy,
        count=len(images),
        shift=shift,
        trained=trained,
        untrained=untrained,
        equivariance=EQUIVARIANCE,
        invariance=INVARIANCE,
        undefined=UNDEFINED_MEANING if has_undefined(trained, untrained) else "",
        page=collect_page(trained, untrained, images, shift),
    )


def collect_page(
    trained: ShiftReport, untrained: ShiftReport, images: np.ndarray, shift: tuple[int, int]
) -> ShiftPage:  # (B, H, W, C)
    """Returns what the page shows."""
    pairs = list(zip(trained.layers, untrained.layers, strict=True))
    outer = find_outer_paths(trained.layers)
    with_map = [pair for pair in pairs if pair[0].errors is not None and pair[0].path not in outer]
    largest = 0.0
    for layer in itertools.chain(*with_map):
        if layer.errors is not None and not np.isnan(layer.errors).any():
            largest = max(largest, float(layer.errors.max()))
    shown = []
    for image in images[:MOST_IMAGES]:
        shifted = np.roll(image, shift, axis=(0, 1))
        shown.append((plots.data_uri(image), plots.data_uri(shifted)))
    steps = np.linspace(0, 1, LEGEND_STEPS)[None]
    return ShiftPage(
        images=tuple(shown),
        rows=tuple(write_row(*pair) for pair in pairs),
        maps=tuple(draw_maps(*pair, largest=largest) for pair in choose_evenly(with_map, MOST_MAPS)),
        layers_with_map=len(with_map),
        largest=largest,
        legend=plots.data_uri(plots.heatmap(steps, 0, 1)),
        curves=draw_errors(with_map) if len(with_map) > 1 else (),
    )


def find_outer_paths(layers: Sequence[LayerShift]) -> set[str]:
    """Returns the paths of modules that hold other layers, whose output is that of one of them."""
    outer = set()
    for layer in layers:
        names = layer.path.split("/")
        outer |= {"/".join(names[:depth]) for depth in range(1, len(names))}
    return outer


def choose_evenly(items: Sequence, most: int) -> list:
    """Returns at most so many items, the first and the last among them, at even distances."""
    if len(items) <= most:
        return list(items)
    return [items[round(number)] for number in np.linspace(0, len(items) - 1, most)]


def write_row(trained: LayerShift, untrained: LayerShift) -> LayerRow:
    """Returns the line of a layer in the table."""
    return LayerRow(
        path=trained.path or "(scores)",
        kind=trained.kind,
        stride="" if trained.stride is None else str(trained.stride),
        equivariance=(shift_error_text(trained.equivariance), shift_error_text(untrained.equivariance)),
        center=(shift_error_text(trained.center), shift_error_text(untrained.center)),
        invariance=(shift_error_text(trained.invariance), shift_error_text(untrained.invariance)),
    )


def shift_error_text(value: float | None) -> str:
    """Writes an error with three significant digits; "" where there is none, UNDEFINED where it is nan."""
    if value is None:
        return ""
    return UNDEFINED if math.isnan(value) else f"{value:.3g}"


def has_undefined(*reports: ShiftReport) -> bool:
    """Whether a layer of a report has an error that is undefined."""
    layers = itertools.chain(*(report.layers for report in reports))
    return any(math.isnan(layer.invariance) for layer in layers)


def draw_maps(trained: LayerShift, untrained: LayerShift, *, largest: float) -> ErrorMaps:
    """Draws the errors of a layer at each place of its map, in the colors that all maps share."""
    drawn = []
    size = ""
    for layer in (trained, untrained):
        errors = np.zeros((1, 1)) if layer.errors is None else layer.errors
        size = " x ".join(map(str, errors.shape))
        if np.isnan(errors).any():
            transparent = np.zeros((*errors.shape, 4), np.uint8)
            drawn.append((plots.data_uri(transparent), ""))
            continue
        # Of a network without any error, every place is dark.
        colors = plots.heatmap(errors, 0, largest or 1.0)
        drawn.append((plots.data_uri(colors), f"{errors.max():.2g}"))
    return ErrorMaps(trained.path, size, *drawn)


def draw_errors(pairs: Sequence[tuple[LayerShift, LayerShift]]) -> tuple[str, ...]:
    """Draws each error against the number of the layer, of those that have a map."""
    numbers = range(1, len(pairs) + 1)
    drawn = []
    for name in ("equivariance", "invariance"):
        lines = []
        for series, (when, layers) in enumerate(zip(("trained", "untrained"), zip(*pairs, strict=True), strict=True)):
            lines.append(plots.Line(when, numbers, [getattr(layer, name) for layer in layers], series))
        drawn.append(plots.draw_curves(lines, title=f"{name.capitalize()} error", x_label="layer with a map"))
    return tuple(drawn)
