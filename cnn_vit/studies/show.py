"""Takes out of a trained network what can be looked at: filters, and maps of features, with the same before training.

The values before training are drawn again from the seed of the run: the same numbers on every platform.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.analysis.input_layer import find_input_layer, leaf_at, path_keys, take_filters
from cnn_vit.analysis.record import Call, record_calls
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.errors import UserError, unknown
from cnn_vit.nn.values import initial_values
from cnn_vit.reports.layer_drawings import FilterComparison, LayerMaps
from cnn_vit.reports.shift_page import choose_evenly
from cnn_vit.studies.explain import prepare_images
from cnn_vit.training import forward
from cnn_vit.training.prediction import read_images
from cnn_vit.training.trained import Trained, describe_initial_values

NORMS = ("BatchNorm", "GroupNorm", "LayerNorm")
TOKEN_LAYERS = ("PatchEmbed", "Block")  # of a ViT: they return tokens, one for each patch
MOST_LAYERS = 6  # that are shown where none is named


def compare_filters(network: Trained) -> FilterComparison:
    """Takes the filters of the layer that reads pixels, before and after training.

    Of a network without convolutions and patches, the weights of each unit of the first dense layer are its filters.

    Raises:
        UserError: no layer reads pixels by a kernel.
    """
    spec = network.spec
    first_layer = find_input_layer(forward.build_network(spec), spec.image_shape)
    if first_layer is not None:
        path = first_layer.path
    else:
        layer = forward.find_first_layer(spec)
        if not layer:
            raise UserError(f"{spec.model} has no layer with a kernel; name a network that has one")
        path = (*path_keys(layer), "kernel")
    start = describe_initial_values(network)
    initial_params, _ = initial_values(network.network, start.seed)
    kernels = []
    for params in (initial_params, network.params):
        kernel = np.asarray(leaf_at(params, path), np.float32)
        if kernel.ndim == 2:
            kernel = kernel.reshape(*spec.image_shape, -1)
        kernels.append(kernel)
    before, after = kernels
    return FilterComparison(
        layer="/".join(map(str, path[:-1])),
        before=take_filters(before),
        after=take_filters(after),
        filters=after.shape[-1],
        change=float(np.linalg.norm(after - before) / max(np.linalg.norm(before), np.finfo(np.float32).tiny)),
        start=start.words,
        is_before_training=start.is_before_training,
    )


def compare_features(
    network: Trained, image: str | np.ndarray, layer: str | None
) -> tuple[np.ndarray, list[LayerMaps], str]:
    """Takes the maps of features of one image, before and after training.

    Args:
        network: what `training.trained.load` returned.
        image: path of a file, or pixels (H, W, C) uint8.
        layer: path of one layer; None for up to MOST_LAYERS of all, the first and the last among them.

    Returns:
        The pixels (H, W, C) that the network saw, the maps of each layer, and what the values before training are.

    Raises:
        UserError: the image cannot be read, there is no such layer, no layer has a map, or the
            network takes images of several sizes.
    """
    if network.preprocessing["fit"] == PAD_BATCH:
        raise UserError("maps are drawn of images of one size, and this network was trained on several")
    pixels = read_one(network, image)
    images = prepare_images(network, pixels[None])
    start = describe_initial_values(network)
    untrained = initial_values(network.network, start.seed)
    before, after = (
        collect_maps(network, images, params, stats) for params, stats in (untrained, (network.params, network.stats))
    )
    if not after:
        raise UserError(f"no layer of {network.spec.model} has a map: only convolutions and patches keep the place")
    if layer is not None and layer not in after:
        raise unknown("layer with a map", layer, after)
    names = [layer] if layer is not None else choose_evenly(list(after), MOST_LAYERS)
    layers = []
    for name in names:
        features, norm = after[name]
        layers.append(LayerMaps(name, before[name][0], features, norm))
    return pixels, layers, start.words


def read_one(network: Trained, image: str | np.ndarray) -> np.ndarray:  # -> (H, W, C)
    """Reads one image at the size of the network; UserError where it cannot be read, or is more than one."""
    if not isinstance(image, np.ndarray) and Path(image).is_dir():
        raise UserError(f"{image} is a folder; name one image in it")
    images = list(read_images(network, [image]))
    if len(images) != 1:
        raise UserError(f"{image} holds {len(images)} images; name one file")
    if images[0].pixels is None:
        raise UserError(f"{images[0].path}: {images[0].error}")
    return images[0].pixels


def collect_maps(network: Trained, images: np.ndarray, params: dict, stats: dict) -> dict[str, tuple[np.ndarray, str]]:
    """Runs a network on one image; returns the map (Y, X, C) of each convolution and block, and its norm, by path.

    A norm directly behind a convolution stands for it: what it returns is what the activation reads. Its own path is
    beside the map, and "" where there is none.
    """
    module = forward.build_network(network.spec)
    first_layer = find_input_layer(module, network.spec.image_shape)
    grid = None if first_layer is None else first_layer.grid
    maps: dict[str, tuple[np.ndarray, str]] = {}
    last: Call | None = None  # the convolution that no norm has followed yet
    for call in record_calls(module, images, params, stats):
        features = as_map(call, grid)
        if features is None:
            continue
        if call.kind not in NORMS:
            maps[call.path] = features, ""
            last = call if call.kind == "Conv" else None
        elif last is not None and features.shape == np.shape(last.outputs)[1:]:
            maps[last.path] = features, call.path
            last = None
    return maps


def as_map(call: Call, grid: tuple[int, int] | None) -> np.ndarray | None:
    """Returns the map (Y, X, C) that a layer gives, tokens of patches at their places; None where it gives none."""
    outputs: Any = call.outputs
    if call.kind in ("Conv", *NORMS) and np.ndim(outputs) == 4:
        return np.asarray(outputs[0], np.float32)
    if call.kind in TOKEN_LAYERS and np.ndim(outputs) == 3 and grid is not None:
        rows, columns = grid
        tokens = np.asarray(outputs[0], np.float32)[-rows * columns :]  # a class token stands in front
        return tokens.reshape(rows, columns, -1)
    return None
