"""Draws what a network has learned: filters of its first layer, and maps of features, before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cnn_vit import plots

COLUMNS = 8  # filters or maps in a row
MOST_FILTERS = 32
COLORS = 3  # channels of an image in color
LARGEST_MAP = 32  # pixels of a side of a map; larger ones are reduced


@dataclass(frozen=True)
class FilterComparison:
    """The filters of the layer that reads pixels.

    Attributes:
        layer: its path in the network.
        before: (N, V, U, C) initial values.
        after: (N, V, U, C) trained values.
        filters: how many the layer has; the arrays may hold fewer.
        change: |after - before| / |before|, over all filters of the layer.
        start: what the values before are, in words.
        is_before_training: whether the training began with them.
    """

    layer: str
    before: np.ndarray
    after: np.ndarray
    filters: int
    change: float
    start: str
    is_before_training: bool

    @property
    def change_sentence(self) -> str:
        """Says how far the values are from those before, which the training need not have begun with."""
        if self.is_before_training:
            return f"Training moved them by {self.change:.2g} times the length of the initial values."
        return f"Their distance from {self.start} is {self.change:.2g} times the length of those."


@dataclass(frozen=True)
class LayerMaps:
    """The features of one image behind one layer.

    Attributes:
        layer: its path in the network.
        before: (Y, X, C) with initial values.
        after: (Y, X, C) with trained values.
        norm: path of the norm directly behind it, whose output the maps are then; "" for none.
    """

    layer: str
    before: np.ndarray
    after: np.ndarray
    norm: str = ""

    @property
    def label(self) -> str:
        """Says which layer it is, and whether its norm is in it."""
        return f"{self.layer} with its norm" if self.norm else self.layer


def draw_filters(comparison: FilterComparison) -> str:
    """Returns the filters before and after training as SVG."""
    before, after = comparison.before[:MOST_FILTERS], comparison.after[:MOST_FILTERS]
    _, height, width, channels = after.shape
    colors = "Middle gray is 0; in each of the three images a filter's largest number is the brightest or darkest."
    if channels != COLORS:
        before, after = before.mean(-1, keepdims=True), after.mean(-1, keepdims=True)
        drawn = "" if channels == 1 else "Of each the mean over its channels is drawn. "
        colors = f"{drawn}Orange is above 0 and blue below; the largest number has the strongest color."
    largest = float(np.abs([before, after]).max())
    images = [
        plots.SheetImage(comparison.start, "", draw_kernels(before, largest)),
        plots.SheetImage("after training", "", draw_kernels(after, largest)),
        plots.SheetImage("the difference, in stronger colors", "", draw_kernels(after - before, None)),
    ]
    shown = f"{comparison.filters} filters"
    if len(after) < comparison.filters:
        shown = f"{len(after)} of {comparison.filters} filters"
    lines = (
        f"{shown} of {height} x {width} pixels and {channels} channel{'s' if channels > 1 else ''}. {colors}",
        comparison.change_sentence,
    )
    return plots.draw_sheet(images, title=f"Filters of {comparison.layer}", lines=lines)


def draw_kernels(filters: np.ndarray, largest: float | None) -> np.ndarray:  # (N, V, U, 1 or 3) -> (Y, X, 4)
    """Returns filters side by side: those of three channels in their colors, others as signed maps.

    Args:
        filters: their weights.
        largest: the weight with the strongest color in signed maps; None for the largest of all.
    """
    if filters.shape[-1] == COLORS:
        return plots.image_grid(plots.filter_images(filters), columns=COLUMNS)
    return plots.signed_maps(filters[..., 0], columns=COLUMNS, largest=largest)


def as_colors(images: np.ndarray) -> np.ndarray:  # (N, H, W, 1 or 3) -> (N, H, W, 3)
    """Returns images with three channels, gray ones repeated."""
    return np.broadcast_to(images, (*images.shape[:3], 3))


def draw_features(image: np.ndarray, layers: Sequence[LayerMaps], start: str) -> str:  # (H, W, C)
    """Returns the maps of each layer before and after training as SVG.

    Args:
        image: what the network saw, uint8.
        layers: in the order in which the network calls them.
        start: what the values before are, in words.
    """
    images = [plots.SheetImage("the image", "", as_colors(image[None])[0])]
    for layer in layers:
        for name, features in ((start, layer.before), ("after training", layer.after)):
            height, width, channels = features.shape
            maps = shrink(features[..., :COLUMNS].transpose(2, 0, 1))
            shown = f"{len(maps)} of {channels} channels" if channels > len(maps) else f"{channels} channels"
            title, note = f"{layer.label}, {name}", f"{shown}, {height} x {width}"
            images.append(plots.SheetImage(title, note, plots.signed_maps(maps, columns=COLUMNS)))
    lines = (
        "Orange is above 0; blue is below, where a ReLU would answer 0. The largest absolute number of a row has the "
        "strongest color.",
    )
    return plots.draw_sheet(images, title="Feature maps", lines=lines)


def shrink(maps: np.ndarray) -> np.ndarray:  # (N, H, W) -> (N, H', W')
    """Returns maps of at most LARGEST_MAP pixels a side.

    Each pixel of them is the mean of a square of pixels; rows and columns at the end that fill no square are left out.
    A map that is narrower than a square keeps a pixel of its width.
    """
    side = -(-max(maps.shape[1:]) // LARGEST_MAP)
    count, height, width = maps.shape
    down, right = min(side, height), min(side, width)
    covered = maps[:, : height // down * down, : width // right * right]
    return covered.reshape(count, height // down, down, width // right, right).mean((2, 4))
