"""What a finished run keeps to be looked at: `samples.npz`, images and filters that only the run can know.

seen, seen_label           the first images of the first batch, augmented as the network saw them (n, H, W, C) uint8
seen_other, seen_share     where labels are mixed: the second class of each, and the first one's share of the target
mistakes, mistakes_index   the validation images of highest loss that were taken for another class, worst first
mistakes_name              of those, where they are files
filters_after, _before     the first layer's filters (F, V, U, C) float32, of the tested values and of the initial ones
similarity                 (R', C', R, C) float32: cosines between learned positions of patches
patches                    side of a patch in pixels, patches down, patches right

Where the network has no such thing, or the run none to show (no mistake, initial values that came from another run),
the name is missing. Images of more than SIDE pixels a side are means of whole squares of pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import files
from cnn_vit.analysis import input_layer
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import folder
from cnn_vit.training import devices, evaluation, forks, forward, step
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.program import Program

MOST = 32  # images of a kind
SIDE = 128  # pixels a side, at most


def are_saved(workdir: Path) -> bool:
    """Whether a run has kept its samples."""
    return (workdir / folder.SAMPLES).exists()


def save_samples(workdir: Path, program: Program, params: dict) -> None:
    """Writes the samples of a run, where they are not there yet; `params` are the tested parameters."""
    if are_saved(workdir):
        return
    arrays = seen_batch(program) | worst_mistakes(workdir, program) | learned_features(workdir, program, params)
    files.write_npz(workdir / folder.SAMPLES, arrays)


def seen_batch(program: Program) -> dict[str, np.ndarray]:
    """The first batch, augmented; second class and share only where an operation mixed images."""
    (batch,) = program.batches(0, 1)
    augmented = build_augmenter(program.spec, program.mesh)(batch, program.hyperparameters)
    images, target = map(np.array, augmented)  # copies, because the target is changed below
    label = np.asarray(batch["label"])[:MOST]
    rows = np.arange(len(label))
    share = target[rows, label]
    target[rows, label] = 0
    arrays = {"seen": shrink(images), "seen_label": label}
    if (share < 1).any():
        arrays |= {"seen_other": target.argmax(-1).astype(np.int32), "seen_share": share}
    return arrays


@compiled_once
def build_augmenter(spec: step.StepSpec, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles (batch, hyperparameters) -> the first images of update 1 as the network saw them, uint8, and targets."""

    def augment_first(batch, hyperparameters):
        images, target, _ = step.augment_batch(spec, jnp.int32(0), batch, hyperparameters)
        return jnp.round(jnp.clip(images[:MOST], 0, 1) * 255).astype(jnp.uint8), target[:MOST]

    return jax.jit(augment_first, out_shardings=devices.replicated(mesh))


def worst_mistakes(workdir: Path, program: Program) -> dict[str, np.ndarray]:
    """The validation images that were taken for another class at the highest loss, worst first."""
    rows = evaluation.load_predictions(workdir, "validation")
    wrong = np.flatnonzero(rows["predicted"] != rows["label"])
    worst = wrong[np.argsort(-rows["loss"][wrong], kind="stable")[:MOST]]
    if not len(worst):
        return {}
    split = program.dataset.splits["validation"]
    indices = rows["index"][worst]
    arrays = {"mistakes": shrink(split.read(indices)), "mistakes_index": indices}
    if split.names is not None:
        arrays["mistakes_name"] = np.array([split.names[index] for index in indices])
    return arrays


def learned_features(workdir: Path, program: Program, params: dict) -> dict[str, np.ndarray]:
    """Filters of the first layer, patches and positions of the network."""
    network = forward.build_network(program.spec.network)
    first_layer = input_layer.find_input_layer(network, program.dataset.image_shape)
    if first_layer is None:
        return {}
    kernel = np.asarray(input_layer.leaf_at(params, first_layer.path))
    arrays = {"filters_after": input_layer.filter_images(kernel)}
    if forks.read_fork_note(workdir) is None:  # a fork's initial values are another run's
        arrays["filters_before"] = input_layer.filter_images(initial_value(program, first_layer.path))
    if first_layer.patch is None or first_layer.grid is None:
        return arrays
    arrays["patches"] = np.array([first_layer.patch, *first_layer.grid], np.int32)
    rows, columns = first_layer.grid
    path = input_layer.find_pos_embed(network, rows * columns)
    if path:
        positions = np.asarray(input_layer.leaf_at(params, path))
        arrays["similarity"] = input_layer.position_similarities(positions, first_layer.grid)
    return arrays


def initial_value(program: Program, path: tuple) -> np.ndarray:
    """The initial value of one parameter alone: it depends on no other."""
    network = program.step.network
    branch = input_layer.leaf_at(network.params, path)
    for key in reversed(path):
        branch = {key: branch}
    params, _ = initial_values(replace(network, params=branch, stats={}), program.settings["seed"])
    return input_layer.leaf_at(params, path)


def shrink(images: np.ndarray) -> np.ndarray:  # (N, H, W, C) -> (N, H', W', C)
    """Images of at most SIDE pixels a side: means of whole squares of pixels; what fills no square is left out."""
    times = -(-max(images.shape[1:3]) // SIDE)
    if times == 1:
        return np.asarray(images)
    count, height, width, channels = images.shape
    down, right = min(times, height), min(times, width)
    whole = images[:, : height // down * down, : width // right * right]
    squares = whole.reshape(count, height // down, down, width // right, right, channels)
    return np.round(squares.mean((2, 4), dtype=np.float32)).astype(np.uint8)
