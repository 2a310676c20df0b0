"""A network's forward pass as a pure function of its values: images in, scores and per-example measures out.

`NetworkSpec` says what a network is and how its scores are read. What only looks at images (evaluation, prediction, the
test of a run) is built here from a spec; `step` adds what learning needs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import compilation, data, models, trees
from cnn_vit.analysis import record
from cnn_vit.compilation import ProgramKind
from cnn_vit.errors import UserError
from cnn_vit.nn.conv import is_convolutional
from cnn_vit.nn.values import Network, functional
from cnn_vit.training import devices, losses
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.rules import RuleSpec

MANY_CLASSES = 1000  # above so many, only the best scores of each example are kept
TOP_SCORES = 5  # so many of them


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is and how its scores are read. Equal specs share everything that is compiled.

    Attributes:
        model: name of the network, such as "vit/B16".
        keywords: keywords of the model with their values, sorted by name.
        num_classes: K.
        image_shape: (H, W, C) of the images.
        dtype: of the arithmetic, "float32" or "bfloat16".
        loss: the loss, with the keywords of it that shape its program.
    """

    model: str
    keywords: tuple[tuple[str, Any], ...]
    num_classes: int
    image_shape: tuple[int, int, int]
    dtype: str
    loss: RuleSpec


def get_network(spec: NetworkSpec) -> Network:
    """Builds the network of a spec as plain data, once: shapes of its values, initializers, and `apply`."""
    return split_network(spec)[0]


def program_kind(spec: NetworkSpec, mesh: jax.sharding.Mesh) -> ProgramKind:
    """What decides over the compiler options of a program that runs the network of a spec on a mesh."""
    return ProgramKind(devices.platform(mesh), convolutional=split_network(spec)[1], dtype=spec.dtype)


@compiled_once
def split_network(spec: NetworkSpec) -> tuple[Network, bool]:
    """Builds the network of a spec; returns it as plain data, and whether it is convolutional."""
    network = build_network(spec)
    return functional(network), is_convolutional(network)


def build_network(spec: NetworkSpec) -> nnx.Module:
    """Builds the network of a spec as a module without values."""
    height, width, channels = spec.image_shape
    return models.build(
        spec.model, spec.num_classes, channels=channels, image_size=(height, width), **dict(spec.keywords)
    )


@functools.lru_cache(maxsize=32)
def list_calls(spec: NetworkSpec) -> tuple[str, ...]:
    """Lists the paths of the layers that a forward pass calls, in the order in which they are called, by tracing it."""
    images = jax.ShapeDtypeStruct((2, *spec.image_shape), jnp.float32)
    # behind a # stands the number of a second call
    return tuple(call.path.partition("#")[0] for call in record.record_calls(build_network(spec), images))


def find_first_layer(spec: NetworkSpec) -> str:
    """Finds the path of the layer with a kernel that is called first, such as "stem"; "" where there is none."""
    paths = {trees.path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(get_network(spec).params)}
    for layer in list_calls(spec):
        if f"{layer}/kernel" in paths:
            return layer
    return ""


def find_inner_kernels(spec: NetworkSpec) -> dict:
    """Builds a tree of booleans like the parameters: whether each is a kernel behind the first layer, not the head's.

    The head is the network's attribute `head`, as every family has it.
    """
    first_layer = find_first_layer(spec)

    def is_inner_kernel(path, _):
        layer, _, leaf = trees.path_text(path).rpartition("/")
        return leaf == "kernel" and layer != first_layer and layer.partition("/")[0] != "head"

    return jax.tree_util.tree_map_with_path(is_inner_kernel, get_network(spec).params)


def compute_loss(
    spec: NetworkSpec, scores: jax.Array, target: jax.Array, numbers: dict, weight: jax.Array | float = 1.0
) -> jax.Array:  # (B, K), (B, K) -> (B,)
    """Computes the loss of each example; `numbers` are those of the loss by keyword, `weight` that of each class."""
    cost = losses.get_loss(spec.loss.name).cost
    return cost(scores, target, weight, **spec.loss.keywords(cost, numbers))


def normalize(images: jax.Array, mean_and_std: dict, dtype: str) -> jax.Array:  # (B, H, W, C) -> (B, H, W, C)
    """Subtracts the mean of each channel from images in 0..1, and divides by its standard deviation.

    Args:
        images: float32.
        mean_and_std: dict with `mean` and `std`, each (C,) float32; a step's hyperparameters hold them too.
        dtype: of what is returned, the dtype that the network computes in.
    """
    return ((images - mean_and_std["mean"]) / mean_and_std["std"]).astype(dtype)


@compiled_once
def build_eval_step(spec: NetworkSpec, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles the function that measures a batch: (params, stats, batch, constants) -> per-example measures.

    The constants are those of an `Evaluator`.

    The measures are a dict of arrays with a row for each example: loss, predicted class, rank of the label (0 is best),
    margin (best score less the second), scores, and the batch's label, weight and index. The loss is the recipe's
    against the bare label, not smoothed. Of more than 1,000 classes the best five scores are kept, with their
    `classes`.

    Equal scores rank by class, as with `argmax`. A score that is not a number ranks before all numbers, and a label
    with such a score has rank K, so that the example never counts as right.
    """
    network = get_network(spec)

    def measure(params, stats, batch, constants):
        images = normalize(batch["image"].astype(jnp.float32) / 255, constants, spec.dtype)
        scores, _ = network.apply(params, stats, images, train=False, mask=batch.get("mask"))
        label = batch["label"]
        label_score = jnp.take_along_axis(scores, label[:, None], 1)
        ties_before = (scores == label_score) & (jnp.arange(spec.num_classes) < label[:, None])
        # `~(<=)` instead of `>`: a comparison with nan is false either way, and nan must rank before all numbers
        ranks_before = ~(scores <= label_score) | ties_before
        first, second = scores[:, 0], -jnp.inf  # of one class alone, the margin is infinite
        if spec.num_classes > 1:
            first, second = jax.lax.top_k(scores, 2)[0].T
        measures = dict(
            loss=compute_loss(spec, scores, jax.nn.one_hot(label, spec.num_classes), constants["loss"]),
            predicted=scores.argmax(-1).astype(jnp.int32),
            rank=ranks_before.sum(-1).astype(jnp.int32),
            margin=first - second,
            scores=scores,
            label=label,
            weight=batch["weight"],
            index=batch["index"],
        )
        if spec.num_classes > MANY_CLASSES:
            measures["scores"], measures["classes"] = jax.lax.top_k(scores, TOP_SCORES)
        return measures

    return compilation.jit(measure, program_kind(spec, mesh), out_shardings=devices.batch_sharding(mesh))


@dataclass(frozen=True)
class Evaluator:
    """A network that is ready to measure batches: `evaluator(values, batch)` gives what `build_eval_step` describes.

    Attributes:
        spec: the network.
        mesh: the devices that it runs on.
        constants: dict of `mean` and `std`, (C,) float32, and `loss`, a dict of the loss's numbers; on the devices.
    """

    spec: NetworkSpec
    mesh: jax.sharding.Mesh
    constants: dict[str, Any]

    def __call__(self, values: dict, batch: dict) -> dict[str, jax.Array]:
        """Measures a batch with `values`, dict(params, stats) on the devices."""
        eval_step = build_eval_step(self.spec, self.mesh)
        return eval_step(values["params"], values["stats"], batch, self.constants)


def build_evaluator(
    spec: NetworkSpec, preprocessing: dict[str, Any], mesh: jax.sharding.Mesh, *, loss_numbers: dict[str, Any]
) -> Evaluator:
    """Builds an evaluator: puts its constants on the devices.

    Args:
        spec: the network.
        preprocessing: of a run; its mean and std are read.
        mesh: the devices.
        loss_numbers: the numbers of the spec's loss by keyword.
    """
    constants: dict[str, Any] = {name: np.asarray(preprocessing[name], np.float32) for name in ("mean", "std")}
    constants["loss"] = {name: np.float32(number) for name, number in loss_numbers.items()}
    return Evaluator(spec, mesh, devices.place(constants, mesh))


# Images of several sizes ---------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def smallest_side(spec: NetworkSpec) -> int:
    """The smallest height or width, in pixels, of an image behind a mask from which anything reaches the scores."""
    return getattr(build_network(spec), "least_side", 1)


def refuse_padded_sizes(spec: NetworkSpec, splits: Mapping[str, data.Split]) -> None:
    """Refuses images of several sizes for a network that cannot take them.

    Raises:
        UserError: the network cannot tell images from their padding, or the smallest image is too small for it.
    """
    for name, split in splits.items():
        if split.padded_sizes is None:
            continue
        models.refuse_unmasked(spec.model)
        network = build_network(spec)
        if hasattr(network, "refuse_mask"):
            network.refuse_mask(train=False)
        image_sizes = split.padded_sizes.image_sizes  # (N, 2): height and width of each
        smallest = int(image_sizes.min(1).argmin())
        image = f"image {smallest} of {name}" if split.names is None else split.names[smallest]
        refuse_small_image(spec, image_sizes[smallest].tolist(), image)


def refuse_small_image(spec: NetworkSpec, size: Sequence[int], image: str) -> None:
    """Raises UserError for an image that is so small that nothing of it is left behind the last layer.

    Args:
        spec: the network.
        size: height and width of the image in pixels.
        image: what the message calls it.
    """
    least = smallest_side(spec)
    if min(size) < least:
        raise UserError(
            f"{image} is read as {size[0]}x{size[1]} pixels, and the last layer of {spec.model} needs {least} a side "
            "to have anything left; remove it, or train with data.fit=crop, which enlarges small images"
        )
