"""Prediction: the classes of images without labels, which are decoded, resized and normalized as in evaluation."""

import functools
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cnn_vit import compilation, stops
from cnn_vit.data import sections
from cnn_vit.data.base.padding import PAD_BATCH, PaddedSizes, pad_bottom_right, shrink_to_fit
from cnn_vit.data.decode import caller_images
from cnn_vit.data.decode import images as decoding
from cnn_vit.data.reading import entries, listing, unreadable, zips
from cnn_vit.errors import UserError
from cnn_vit.training import devices, evaluation, forward, losses
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec
from cnn_vit.training.trained import Trained, refuse_untrained

BATCH_SIZE = 64  # images that are predicted at once by default
CallerImage = str | os.PathLike | Image.Image | np.ndarray  # an image, or a path with images under it


@dataclass(frozen=True)
class InputImage:
    """An image that a user asked about.

    Attributes:
        path: as the user knows it; for a member of a zip, `photos.zip/cat.jpg`.
        pixels: (H, W, C) uint8 at the network's size, or at the image's own size where the network was trained on
            images of several sizes; None where the image cannot be read.
        error: why there are no pixels; None where there are.
    """

    path: str
    pixels: np.ndarray | None
    error: UserError | None = None


def predict(
    network: Trained,
    images: CallerImage | Sequence[CallerImage],
    *,
    batch_size: int = BATCH_SIZE,
) -> np.ndarray:
    """Predicts the class probabilities of images.

    Args:
        network: what `load` returned.
        images: an array (N, H, W, C), uint8 or float in 0..1, at the network's size (or at most that size, where it was
            trained on images of several sizes), which is taken as it is; or the path of a file, folder or zip, or an
            image that Pillow has opened or made; or a list of these, which may also hold arrays of one image, (H, W) or
            (H, W, C) uint8 of any size. Images of a list, files and Pillow's are brought to the network's size as in
            training.
        batch_size: images that are predicted at once; the result does not depend on it.

    Returns:
        (N, K) float32: for each image a distribution over `network.classes`; of a network trained with a loss of
        sigmoids, a probability for each class by itself.

    Raises:
        UserError: an image cannot be read, or has another shape than the network takes.
    """
    refuse_untrained(network)
    if isinstance(images, np.ndarray) or hasattr(images, "__array__"):
        return predict_probabilities(network, check_arrays(network, np.asarray(images)), batch_size=batch_size)
    images_or_paths = [images] if isinstance(images, str | os.PathLike | Image.Image) else images
    pixels = []
    for image in read_images(network, images_or_paths):
        if image.pixels is None:
            raise UserError(f"{image.path}: {image.error}")
        pixels.append(image.pixels)
    return predict_probabilities(network, pixels, batch_size=batch_size)


def read_images(network: Trained, images: Iterable[CallerImage]) -> Iterator[InputImage]:
    """Reads every image under some paths, and images that are given themselves, as the training images were read.

    An image that cannot be read comes with its error. Of a folder or a zip, the files with an image's name are read; a
    file that a path names itself is tried whatever its name. An image without a path is called "image 0", the first.
    """
    for number, image_or_path in enumerate(images):
        if not isinstance(image_or_path, str | os.PathLike):
            yield read_caller_image(network, image_or_path, f"image {number}")
            continue
        path = os.fspath(image_or_path)
        try:
            contents = list(list_contents(path))
        except UserError as error:
            yield InputImage(path, None, error)
            continue
        if not contents:
            yield InputImage(path, None, UserError("holds no images"))
        for name, read_content in contents:
            try:
                yield InputImage(name, read_pixels(network, read_content()))
            except decoding.UnreadableError as error:
                yield InputImage(name, None, error.without_traceback())
            except UserError as error:
                yield InputImage(name, None, error)


def read_caller_image(network: Trained, image: np.ndarray | Image.Image, name: str) -> InputImage:
    """Brings an array of one image, or an image of Pillow's, to the network's size; it may come with an error."""
    channels = network.preprocessing["channels"]
    options = sections.decoding_options(network.preprocessing)
    try:
        decoded = caller_images.decode_caller_image(image, name, channels=channels, options=options)
        return InputImage(name, fit_pixels(network, decoded.pixels))
    except UserError as error:
        return InputImage(name, None, error)


def read_pixels(network: Trained, content: bytes) -> np.ndarray:  # -> (H, W, C)
    """Decodes an image file to the network's size; UserError where it cannot be decoded or is too small."""
    channels = network.preprocessing["channels"]
    options = sections.decoding_options(network.preprocessing)
    return fit_pixels(network, decoding.decode(content, channels=channels, options=options))


def fit_pixels(network: Trained, pixels: np.ndarray) -> np.ndarray:  # (h, w, C) -> (H, W, C)
    """Brings decoded pixels to the network's size; UserError where they are too few for it."""
    preprocessing = network.preprocessing
    options = sections.fit_options(preprocessing)
    pixels = decoding.fit_image(pixels, tuple(preprocessing["image_size"]), options.fit, options.interpolation)
    if preprocessing["fit"] == PAD_BATCH:
        forward.refuse_small_image(network.spec, pixels.shape[:2], "it")  # the caller puts the path in front
    return pixels


def list_contents(path: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Lists the images that a path stands for, in the order of their names: the name and a reader of the bytes."""
    if os.path.isdir(path) or (os.path.isfile(path) and zips.is_zip(path)):
        contents = listing.open_listing(path)
        if contents.runs:
            first = unreadable.printable_name(contents.runs[0])
            count = len(contents.runs)
            sentence = f"{path} holds {count:,} training runs, such as {first}; their plots are left out"
            print(sentence, file=sys.stderr, flush=True)
        for _, entry in contents.tree.all_files():
            # What has a problem and no ending may be a folder of images, which must not be passed over in silence.
            may_be_folder = entry.problem is not None and not os.path.splitext(entry.name)[1]
            if entries.is_image_name(entry.name) or may_be_folder:
                yield entry.path, functools.partial(contents.read, entry, None)
        return
    file = listing.FolderWalk().make_entry(os.path.basename(path), path, 0)
    if file:
        yield path, functools.partial(listing.read_file, file, None)


def top_classes(network: Trained, images: Iterable[InputImage], count: int) -> Iterator[dict]:
    """Names the `count` most probable classes of each image, as `predict --json` prints them.

    An image without pixels comes with its error instead.
    """
    images = iter(images)
    while True:  # one batch after another, so that many images need little memory
        stops.raise_if_requested()
        chunk = list(itertools.islice(images, BATCH_SIZE))
        if not chunk:
            return
        readable = [image.pixels for image in chunk if image.pixels is not None]
        predicted = iter(predict_probabilities(network, readable))
        for image in chunk:
            if image.pixels is None:
                yield {"path": image.path, "error": str(image.error)}
                continue
            probabilities = next(predicted)
            best = np.argsort(-probabilities, kind="stable")[:count]
            classes = [{"name": network.classes[k], "probability": float(probabilities[k])} for k in best]
            yield {"path": image.path, "classes": classes}


def predict_probabilities(
    network: Trained, images: Sequence[np.ndarray] | np.ndarray, *, batch_size: int = BATCH_SIZE
) -> np.ndarray:  # -> (N, K)
    """Predicts the class probabilities of N images, each (H, W, C) uint8 or float32 in 0..1.

    Every batch is filled up to the same number of rows, so that there is one compilation (or one for each padded size,
    where the network was trained on images of several sizes).
    """
    mesh = devices.mesh()
    size = devices.round_up_batch(batch_size, mesh)
    evaluator = forward.build_evaluator(network.spec, network.preprocessing, mesh, loss_numbers=network.loss_numbers)
    predict_batch = build_scorer(network.spec, mesh)
    parts = []
    for first in range(0, len(images), size):
        chunk = images[first : first + size]
        batch = {}
        for name, array in stack_images(network, chunk).items():
            padding = np.repeat(array[:1], size - len(chunk), axis=0)
            batch[name] = np.concatenate([array, padding])
        placed = jax.device_put(batch, devices.batch_sharding(mesh))
        predicted = predict_batch(network.params, network.stats, placed, evaluator.constants)
        parts.append(np.asarray(predicted)[: len(chunk)])
    return np.concatenate(parts) if parts else np.zeros((0, network.spec.num_classes), np.float32)


def stack_images(network: Trained, images: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    """Stacks images to a batch of one array, `image` (n, H, W, C).

    Images of several sizes are put into the top left corner of the smallest padded size that holds all of them, and a
    `mask` (n, H, W) says which pixels are theirs.
    """
    preprocessing = network.preprocessing
    if preprocessing["fit"] != PAD_BATCH:
        return dict(image=np.stack(list(images)))
    buckets = tuple((height, width) for height, width in preprocessing["sizes"])
    padded_sizes = PaddedSizes(np.array([image.shape[:2] for image in images]), buckets)
    indices = np.arange(len(images))
    size = padded_sizes.bucket_for(indices)
    padded = np.stack([pad_bottom_right(image, size) for image in images])
    return dict(image=padded, mask=padded_sizes.mask(indices, size))


def check_arrays(network: Trained, images: np.ndarray) -> np.ndarray:
    """Returns images as an array that the network takes, uint8 or float32.

    Raises:
        UserError: they have another shape or type, or are floats outside 0..1.
    """
    expected = network.spec.image_shape
    takes_several_sizes = network.preprocessing["fit"] == PAD_BATCH
    fits = images.ndim == 4 and images.shape[1:] == expected
    if takes_several_sizes and images.ndim == 4:
        _, height, width, channels = images.shape
        fits = channels == expected[2] and shrink_to_fit((height, width), expected[:2]) == (height, width)
    if not fits:
        limit = " at most" if takes_several_sizes else ""
        wanted = evaluation.shape_text(expected) + limit
        raise UserError(f"images of shape {images.shape}; this network takes (N, height, width, colors) with {wanted}")
    if takes_several_sizes:
        forward.refuse_small_image(network.spec, images.shape[1:3], "each of the images")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating) or not ((images >= 0) & (images <= 1)).all():
        raise UserError(f"images of {images.dtype} that are not all in 0..1; give uint8, or floats in 0..1")
    return images.astype(np.float32)


@compiled_once
def build_scorer(spec: NetworkSpec, mesh: jax.sharding.Mesh) -> Callable:
    """Compiles (params, stats, batch, constants) -> class probabilities (B, K).

    The batch has `image` (B, H, W, C), uint8 or float32 in 0..1, and for images of several sizes a `mask` (B, H, W).
    """
    network = forward.get_network(spec)

    def predict_batch(params, stats, batch, constants):
        images = batch["image"]
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32) / 255
        images = forward.normalize(images, constants, spec.dtype)
        scores, _ = network.apply(params, stats, images, train=False, mask=batch.get("mask"))
        return losses.get_loss(spec.loss.name).probabilities(scores)

    kind = forward.program_kind(spec, mesh)
    return compilation.jit(predict_batch, kind, out_shardings=devices.batch_sharding(mesh))
