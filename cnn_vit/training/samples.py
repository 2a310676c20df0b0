"""The samples of a finished run, `samples.npz`: images and filters for its report, which only the run can know.

seen, seen_label           the first images of the first batch, augmented as the network saw them, (n, H, W, C) uint8
seen_other, seen_share     where labels are mixed: the second class of each, and the share of `seen_label` in the target
mistakes, mistakes_index   the validation images of highest loss that were taken for another class, worst first
mistakes_name              the names of those images, where they are files
filters_after, _before     the first layer's filters (F, V, U, C) float32: as tested, and before the first step
similarity                 (R', C', R, C) float32: cosines between learned positions of patches
patches                    side of a patch in pixels, patches down, patches right

A name is missing where the network has no such thing, or the run has none to show (no mistake, or initial values that
came from another run or from weights that are not there any more). Images of more than LARGEST_SIDE pixels a side are
reduced to means of whole squares of pixels.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit import compilation, files
from cnn_vit.analysis import input_layer
from cnn_vit.compilation import ProgramKind
from cnn_vit.runs import folder
from cnn_vit.training import devices, evaluation, forks, forward, step
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.program import Program

MOST_IMAGES = 32  # of the first batch, and of the mistakes
LARGEST_SIDE = 128  # of a saved image, in pixels


def are_saved(workdir: Path) -> bool:
    """Whether a run has saved its samples."""
    return (workdir / folder.SAMPLES).exists()


def save_samples(workdir: Path, program: Program, params: dict) -> None:
    """Writes the samples of a run where they are not saved yet; `params` are the tested parameters."""
    if are_saved(workdir):
        return
    first_batch = collect_first_batch(program)
    mistakes = collect_worst_mistakes(workdir, program)
    features = collect_features(workdir, program, params)
    arrays = first_batch | mistakes | features
    files.write_npz(workdir / folder.SAMPLES, arrays)


def collect_first_batch(program: Program) -> dict[str, np.ndarray]:
    """Collects images and labels of the first batch, augmented; second class and share only where images were mixed."""
    (batch,) = program.batches(0, 1)
    augmented = build_augmenter(program.spec, program.mesh)(batch, program.hyperparameters)
    images, target = map(np.array, augmented)  # copies, because the target is changed below
    label = np.asarray(batch["label"])[:MOST_IMAGES]
    rows = np.arange(len(label))
    share = target[rows, label]
    target[rows, label] = 0  # so that the largest entry left is the second class
    arrays = {"seen": shrink(images), "seen_label": label}
    if (share < 1).any():
        arrays |= {"seen_other": target.argmax(-1).astype(np.int32), "seen_share": share}
    return arrays


@compiled_once
def build_augmenter(spec: step.StepSpec, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles (batch, hyperparameters) -> the images that the network saw in the first update, uint8, and targets."""

    def augment_first(batch, hyperparameters):
        images, target, _ = step.augment_batch(spec, jnp.int32(0), batch, hyperparameters)
        return jnp.round(jnp.clip(images[:MOST_IMAGES], 0, 1) * 255).astype(jnp.uint8), target[:MOST_IMAGES]

    kind = ProgramKind(devices.platform(mesh), convolutional=False, dtype="float32")
    return compilation.jit(augment_first, kind, out_shardings=devices.replicated_sharding(mesh))


def collect_worst_mistakes(workdir: Path, program: Program) -> dict[str, np.ndarray]:
    """Collects the validation images that were taken for another class at the highest loss, worst first."""
    predictions = evaluation.load_predictions(workdir, "validation")
    wrong = np.flatnonzero(predictions["predicted"] != predictions["label"])
    worst = wrong[np.argsort(-predictions["loss"][wrong], kind="stable")[:MOST_IMAGES]]
    if not len(worst):
        return {}
    split = program.dataset.splits["validation"]
    indices = predictions["index"][worst]
    # one by one, because images in their full size may be large
    mistakes = [shrink(split.read(indices[row : row + 1])) for row in range(len(indices))]
    arrays = {"mistakes": np.concatenate(mistakes), "mistakes_index": indices}
    if split.names is not None:
        arrays["mistakes_name"] = np.array([split.names[index] for index in indices])
    return arrays


def collect_features(workdir: Path, program: Program, params: dict) -> dict[str, np.ndarray]:
    """Collects filters of the first layer, and patches and similarities of positions where the network has them."""
    network = forward.build_network(program.spec.network)
    arrays = input_layer.collect_arrays(network, program.dataset.image_shape, params)
    if forks.read_fork_note(workdir) is None:  # a fork starts from another run's values
        kernel_before = program.starting_kernel()
        if kernel_before is not None:
            arrays["filters_before"] = input_layer.take_filters(kernel_before)
    return arrays


def shrink(images: np.ndarray) -> np.ndarray:  # (N, H, W, C) -> (N, H', W', C)
    """Reduces uint8 images to at most LARGEST_SIDE pixels a side, by means of whole squares of pixels.

    Pixels at the bottom and right that fill no square are left out.
    """
    square_side = -(-max(images.shape[1:3]) // LARGEST_SIDE)
    if square_side == 1:
        return np.asarray(images)
    count, height, width, channels = images.shape
    down, right = min(square_side, height), min(square_side, width)  # of a very narrow image, a square is cut down
    covered = images[:, : height // down * down, : width // right * right]
    squares = covered.reshape(count, height // down, down, width // right, right, channels)
    return np.round(squares.mean((2, 4), dtype=np.float32)).astype(np.uint8)
