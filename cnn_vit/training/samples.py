"""What a finished run keeps to be looked at: `samples.npz`, images and filters that only the run can know.

seen, seen_label           the first images of the first batch, augmented as the network saw them (n, H, W, C) uint8
seen_other, seen_share     where labels are mixed: the second class of each, and the first one's share of the target
mistakes, mistakes_index   the validation images of highest loss that were taken for another class, worst first
mistakes_name              of those, where they are files
filters_after, _before     the first layer's filters (F, V, U, C) float32, tested and first values
similarity                 (R', C', R, C) float32: cosines between learned positions of patches
patches                    side of a patch in pixels, patches down, patches right

Where the network has no such thing, or the run none to show (no mistake, first values that came from another run), the
name is missing. Images of more than SIDE pixels a side are means of whole squares of pixels.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import files
from cnn_vit.analysis import input_layer
from cnn_vit.data.feed import stream
from cnn_vit.nn.values import initial_values
from cnn_vit.training import devices, evaluation, forks, step

NAME = "samples.npz"
MOST = 32  # images of a kind
SIDE = 128  # pixels a side, at most


def are_saved(workdir: Path) -> bool:
    """Whether a run has kept them."""
    return (workdir / NAME).exists()


def save_samples(run, tested) -> None:
    """Writes them, of a run and the values it was tested with; nothing where they are there."""
    if not are_saved(run.workdir):
        files.write_npz(
            run.workdir / NAME,
            {**seen_batch(run), **worst_mistakes(run), **learned_features(run, tested.values["params"])},
        )


def seen_batch(run) -> dict[str, np.ndarray]:
    """The first batch, augmented; second class and share only where a mixing operation makes any."""
    batches = stream.batches(
        run.dataset.splits["train"],
        batch_size=run.batch_size,
        seed=run.settings["seed"],
        first=0,
        last=1,
        workers=run.settings["data.workers"],
        place=lambda batch: devices.place_batch(batch, run.mesh),
    )
    (batch,) = batches
    images, target = map(
        np.array, build_augmenter(run.spec, run.mesh)(batch, run.hyperparameters)
    )  # copies, to be written to
    label = np.asarray(batch["label"])[:MOST]
    rows = np.arange(len(label))
    share = target[rows, label]
    target[rows, label] = 0
    mixed = {"seen_other": target.argmax(-1).astype(np.int32), "seen_share": share} if (share < 1).any() else {}
    return {"seen": shrink(images), "seen_label": label, **mixed}


@functools.cache
def build_augmenter(static: step.StepSpec, mesh: jax.sharding.Mesh) -> Callable:
    """(batch, hyperparameters) -> the first images of update 1 as the network saw them, uint8, and their targets."""

    def show(batch, hyperparameters):
        images, target, _ = step.augment_batch(static, jnp.int32(0), batch, hyperparameters)
        return jnp.round(jnp.clip(images[:MOST], 0, 1) * 255).astype(jnp.uint8), target[:MOST]

    return jax.jit(show, out_shardings=devices.replicated(mesh))


def worst_mistakes(run) -> dict[str, np.ndarray]:
    """The validation images that were taken for another class at the highest loss, worst first."""
    found = evaluation.load_predictions(run.workdir, "validation")
    wrong = np.flatnonzero(found["predicted"] != found["label"])
    worst = wrong[np.argsort(-found["loss"][wrong], kind="stable")[:MOST]]
    if not len(worst):
        return {}
    index, split = found["index"][worst], run.dataset.splits["validation"]
    named = {} if split.names is None else {"mistakes_name": np.array([split.names[at] for at in index])}
    return {"mistakes": shrink(split.read(index)), "mistakes_index": index, **named}


def learned_features(run, params: dict) -> dict[str, np.ndarray]:
    """Filters, patches and positions of the network."""
    network = step.build_network(run.spec.network)
    enters = input_layer.find_input_layer(network, run.dataset.image_shape)
    if enters is None:
        return {}
    found = {"filters_after": input_layer.filter_images(np.asarray(input_layer.leaf_at(params, enters.path)))}
    if forks.read_fork_note(run.workdir) is None:
        found["filters_before"] = input_layer.filter_images(initial_value(run, enters.path))
    if enters.patch is None or enters.grid is None:
        return found
    found["patches"] = np.array([enters.patch, *enters.grid], np.int32)
    if path := input_layer.find_pos_embed(network, enters.grid[0] * enters.grid[1]):
        found["similarity"] = input_layer.position_similarities(
            np.asarray(input_layer.leaf_at(params, path)), enters.grid
        )
    return found


def initial_value(run, path: tuple) -> np.ndarray:
    """The first value of one parameter: it depends on no other."""
    network = run.step.network
    alone = input_layer.leaf_at(network.params, path)
    for key in reversed(path):
        alone = {key: alone}
    return input_layer.leaf_at(initial_values(network._replace(params=alone, stats={}), run.settings["seed"])[0], path)


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
