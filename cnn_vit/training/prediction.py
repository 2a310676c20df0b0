"""Classes of images that nobody has labeled: decoded, resized and normalized as in training and evaluation."""

import functools
import itertools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_vit.data.base.padding import PAD_BATCH, PaddedSizes, pad_bottom_right, shrink_to_fit
from cnn_vit.data.decode import images as decoding
from cnn_vit.data.reading import listing
from cnn_vit.errors import UserError
from cnn_vit.training import devices, evaluation, losses, step

BATCH_SIZE = 64  # images at once where nobody says


class InputImage(NamedTuple):
    """An image as it was asked for.

    Attributes:
        path: as the user knows it; of a member of a zip, `photos.zip/cat.jpg`.
        pixels: (H, W, C) uint8 at the network's size, of its own where the network was trained so; or None.
        error: why there are no pixels, or None.
    """

    path: str
    pixels: np.ndarray | None
    error: UserError | None = None


def predict(
    network, images: np.ndarray | str | os.PathLike | Sequence[str | os.PathLike], *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """Class probabilities of images.

    Args:
        network: what `load` returned.
        images: (N, H, W, C) uint8 at the network's size, or float in 0..1 (at any up to that where it was trained on
            several); else a file, folder or zip, or several.
        batch_size: images at once; changes nothing.

    Returns:
        (N, K) float32: a distribution over `network.classes`; with a sigmoid loss a probability for each class by
        itself.

    Raises:
        UserError: an image cannot be read, or has another shape than the network takes.
    """
    evaluation.refuse_untrained(network)
    if isinstance(images, np.ndarray) or hasattr(images, "__array__"):
        return probabilities(network, check_arrays(network, np.asarray(images)), batch_size=batch_size)
    paths = [images] if isinstance(images, str | os.PathLike) else images
    found = list(read_images(network, paths))
    for image in found:
        if image.error is not None:
            raise UserError(f"{image.path}: {image.error}")
    pixels = [image.pixels for image in found if image.pixels is not None]
    return probabilities(network, pixels, batch_size=batch_size)


def read_images(network, paths: Iterable[str | os.PathLike]) -> Iterator[InputImage]:
    """Every image under the paths, read as the network's training images were; what cannot be read says why.

    Of a folder or a zip, the files with an image's name; a file that is named itself is tried whatever its name.
    """
    seen = network.preprocessing
    size = tuple(seen["image_size"])
    for path in [os.fspath(one) for one in paths]:
        try:
            found = list(list_contents(path))
        except UserError as error:
            yield InputImage(path, None, error)
            continue
        if not found:
            yield InputImage(path, None, UserError("holds no images"))
        for name, content in found:
            try:
                pixels = decoding.decode(content(), channels=seen["channels"])
                pixels = decoding.fit_image(pixels, size, seen["fit"])
                if seen["fit"] == PAD_BATCH:
                    evaluation.refuse_small(network.spec, pixels.shape[:2], "it")
                yield InputImage(name, pixels)
            except decoding.UnreadableError as error:
                yield InputImage(name, None, error.bare())
            except UserError as error:
                yield InputImage(name, None, error)


def list_contents(path: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and reader of the bytes of each image that a path stands for, in the order of their names."""
    if os.path.isdir(path) or (os.path.isfile(path) and zipfile.is_zipfile(path)):
        found = listing.open_listing(path)
        for _, entry in found.tree.all_files():
            if listing.is_image_name(entry.name):
                yield entry.path, functools.partial(found.read, entry, None)
    elif named := listing.Walk().entry(os.path.basename(path), path, 0):
        yield path, functools.partial(listing.read_file, named, None)


def top_classes(network, images: Iterable[InputImage], count: int) -> Iterator[dict]:
    """Each image with its most probable classes, as `predict --json` prints it; an image without pixels says why."""
    waiting = iter(images)
    while some := list(itertools.islice(waiting, BATCH_SIZE)):
        readable = [image.pixels for image in some if image.pixels is not None]
        found = iter(probabilities(network, readable))
        for image in some:
            if image.pixels is None:
                yield {"path": image.path, "error": str(image.error)}
                continue
            chances = next(found)
            best = np.argsort(-chances, kind="stable")[:count]
            classes = [{"name": network.classes[k], "probability": float(chances[k])} for k in best]
            yield {"path": image.path, "classes": classes}


def probabilities(network, images: Sequence[np.ndarray] | np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """N times (H, W, C) uint8 or float32 in 0..1 -> (N, K) float32. Every batch has as many rows: one compilation.

    Of a network that was trained on images of several sizes, one for each of these sizes.
    """
    on = devices.mesh()
    size = devices.round_up_batch(batch_size, on)
    mean_and_std = devices.place(evaluation.normalization(network.preprocessing), on)
    score = build_scorer(network.spec, on)
    found = []
    for first in range(0, len(images), size):
        some = images[first : first + size]
        batch = {
            key: np.concatenate([value, np.repeat(value[:1], size - len(some), axis=0)])
            for key, value in stack_images(network, some).items()
        }
        chances = score(network.params, network.stats, jax.device_put(batch, devices.batch_sharding(on)), mean_and_std)
        found.append(np.asarray(chances)[: len(some)])
    return np.concatenate(found) if found else np.zeros((0, network.spec.num_classes), np.float32)


def stack_images(network, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    """Images as one array, `image` (n, H, W, C); of several sizes at the least that holds all, with their `mask`."""
    seen = network.preprocessing
    if seen["fit"] != PAD_BATCH:
        return dict(image=np.stack(list(images)))
    mixed = PaddedSizes(
        np.array([one.shape[:2] for one in images]), tuple((high, wide) for high, wide in seen["sizes"])
    )
    every = np.arange(len(images))
    size = mixed.bucket_for(every)
    return dict(image=np.stack([pad_bottom_right(one, size) for one in images]), mask=mixed.mask(every, size))


def check_arrays(network, images: np.ndarray) -> np.ndarray:
    """Arrays as the network takes them.

    Raises:
        UserError: another shape, another type, or floats outside 0..1.
    """
    own, mixed = tuple(network.spec.image_shape), network.preprocessing["fit"] == PAD_BATCH
    smaller = mixed and images.ndim == 4 and (*shrink_to_fit(images.shape[1:3], own[:2]), own[2]) == images.shape[1:]
    if images.ndim != 4 or not (images.shape[1:] == own or smaller):
        wanted = evaluation.shape_text(own) + " at most" * mixed
        raise UserError(f"images of shape {images.shape}; this network takes (N, height, width, colors) with {wanted}")
    if mixed:
        evaluation.refuse_small(network.spec, images.shape[1:3], "each of the images")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) or not ((images >= 0) & (images <= 1)).all():
        raise UserError(f"images of {images.dtype} that are not all in 0..1; give uint8, or floats in 0..1")
    return images.astype(np.float32)


@functools.cache
def build_scorer(form: step.NetworkSpec, mesh) -> Callable:
    """(params, stats, batch, mean_and_std) -> probabilities (B, K), compiled once; the batch has `image`, perhaps `mask`."""
    net = step.get_network(form)

    def score(params, stats, batch, mean_and_std):
        images = batch["image"]
        scaled = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images
        scaled = step.normalize(scaled, mean_and_std, form.dtype)
        scores, _ = net.apply(params, stats, scaled, train=False, mask=batch.get("mask"))
        return losses.PROBABILITIES[form.loss](scores)

    return jax.jit(score, out_shardings=devices.batch_sharding(mesh))
