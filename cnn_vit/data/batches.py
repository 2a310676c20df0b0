"""The public verb `batches`: images and labels from any data, batch after batch, for a loop that you write yourself.

for images, labels in cnn_vit.batches("photos", image_size=64, augment=("flip",)):
    ...
"""

import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cnn_vit import compilation, data, process
from cnn_vit.compilation import ProgramKind
from cnn_vit.data.feed import prefetch, stream
from cnn_vit.errors import UserError, nearest, unknown
from cnn_vit.settings import KEYS, Settings
from cnn_vit.settings.values import check_value

Pairs = Generator[tuple[np.ndarray, np.ndarray], None, None]
WORKERS = 2  # threads that decode, where a split is not in memory


def batches(
    source: str | os.PathLike | Mapping[str, Any] | Settings | data.Dataset,
    *,
    split: str = "train",
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    augment: Sequence[str] = (),
    seed: int = 0,
    epochs: int | None = 1,
) -> Pairs:
    """Returns a generator of images and labels.

    Training examples are shuffled and augmented as in a run of this seed and batch size: batch k is what the run's
    update k sees. Other splits come in order. Epochs follow one another without a seam, so that only the very last
    batch is short; for a seam after each epoch, call this once an epoch, with another seed.

    Args:
        source: a folder, zip or npz; the name of a data source such as "digits" (a folder of that name is "./digits");
            a data section, {"name": "folder", "path": ...}; settings, of which the data section is read; a data set.
        split: train, validation or test.
        image_size: side of the images in pixels, or (height, width); None: as the source has them.
        batch_size: B, images of a batch.
        augment: random changes of the images, in order, such as ("pad_crop(4)", "flip"), computed on the device; those
            that mix labels are refused. What a section or settings say of `augment` is not read.
        seed: seed of the order and of the changes.
        epochs: how many times each example comes; None: without end.

    Returns:
        A generator of (images (B, H, W, C) float32 in 0..1, not normalized; labels (B,) int32), new NumPy arrays.

    Raises:
        UserError: at the call, for whatever is wrong with the arguments or the data; while reading, for an image that
            turns out unreadable.
    """
    batch_size = check_value("batch_size", KEYS["data.batch_size"], batch_size, where="batches")
    seed = check_value("seed", KEYS["seed"], seed, where="batches")
    operations = check_value("augment", KEYS["data.augment"], augment, where="batches")
    transform = build_transform(operations, seed) if operations else scale_to_unit
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
        raise UserError(f"epochs is {epochs!r} (batches); it takes an int from 1, or None for no end")
    splits = open_source(source, image_size).splits
    if split not in splits:
        raise unknown("split", split, splits)
    if splits[split].padded_sizes is not None:
        raise UserError(
            "data.fit=pad_batch gives images of several sizes with a mask, `batches` images alone; take crop"
        )
    rows = epoch_rows(splits[split], batch_size, epochs, seed=seed if split == "train" else None)
    return generate_pairs(splits[split], rows, transform)


def generate_pairs(split: data.Split, rows: Iterable[prefetch.BatchRows], transform: Callable) -> Pairs:
    """Yields transformed images, and labels, of the rows that are not padding."""
    for update, batch in enumerate(prefetch.prefetch(split, rows, workers=WORKERS)):
        is_real = batch["weight"] > 0
        yield transform(batch["image"], update)[is_real], batch["label"][is_real]  # copies, also of a device's memory


def epoch_rows(
    split: data.Split, batch_size: int, epochs: int | None, *, seed: int | None
) -> Iterator[prefetch.BatchRows]:
    """Yields the rows of the batches of some epochs, shuffled by a seed, or in order where the seed is None.

    All batches have the same number of rows: the last is padded where the examples do not suffice.
    """
    count = len(split)
    total = None if epochs is None else epochs * count
    rows_per_batch = batch_size if total is None else min(batch_size, total)  # no more padding than the last needs
    end = None if total is None else -(-total // rows_per_batch)  # the update before which to end
    if seed is None:
        ordered_rows = rows_in_order(count, rows_per_batch, end)
    else:
        ordered_rows = stream.training_rows(split, seed, np.arange(rows_per_batch), rows_per_batch, 0, end)
    for update, rows in enumerate(ordered_rows):
        left = None if total is None else total - update * rows_per_batch
        padded_rows = stream.pad_rows(rows.examples[:left], rows_per_batch)
        yield prefetch.BatchRows(padded_rows.examples, padded_rows.real_count, rows.crop_numbers)


def rows_in_order(count: int, batch_size: int, end: int | None) -> Iterator[prefetch.BatchRows]:
    """Yields the rows of updates 0 to `end` - 1 over `count` examples in order, again and again; None: without end."""
    for update in itertools.count() if end is None else range(end):
        yield prefetch.BatchRows((update * batch_size + np.arange(batch_size)) % count, batch_size)


def scale_to_unit(images: np.ndarray, update: int) -> np.ndarray:
    """Returns bytes as floats in 0..1; `update` is not used, it is there for what augments."""
    return images.astype(np.float32) / np.float32(255)


def build_transform(operations: tuple[str, ...], seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Returns the augmentation of one batch, with the random numbers of a training run: (images, update) -> images.

    Raises:
        UserError: an unknown operation, or one that mixes labels.
    """
    from cnn_vit.data import augment

    names, numbers = augment.operation_names(operations), augment.operation_numbers(operations)
    mixing_names = [name for name in names if augment.OPERATIONS[name].mixes]
    if mixing_names:
        raise UserError(
            f"{mixing_names[0]} mixes labels, which `batches` gives whole; leave it out, or train with it in a recipe"
        )
    key, transform = stream.key(seed), compile_transform(names)
    return lambda images, update: np.asarray(transform(images, key, update, numbers))


@functools.cache
def compile_transform(names: tuple[str, ...]) -> Callable:
    """Returns the compiled augmentation by operations of these names: (images, key, update, numbers) -> images.

    It is cached, and key and numbers are arguments, so that another seed or strength compiles nothing.
    """
    import jax.numpy as jnp

    from cnn_vit.data import augment

    augmentation = augment.build_augmentation(names, 1)  # labels are not mixed, so that one class will do

    def transform(images, key, update, numbers):
        keys = augment.split_step_key(key, update, len(images))
        labels = jnp.zeros(len(images), jnp.int32)
        augmented, _ = augmentation(images, labels, keys.row_keys, keys.mix_key, numbers)
        return augmented

    kind = ProgramKind(process.find_devices()[0].platform, convolutional=False, dtype="float32")
    return compilation.jit(transform, kind)


def open_source(source: Any, image_size: int | tuple[int, int] | None) -> data.Dataset:
    """Returns the data set that a source stands for.

    Raises:
        UserError: it stands for none, or for one that is already read at another size.
    """
    image_size = check_value("image_size", KEYS["data.image_size"], image_size, where="batches")
    if isinstance(source, data.Dataset):
        height, width = source.image_shape[:2]
        wanted = image_size if isinstance(image_size, tuple) else (image_size, image_size)
        if image_size is not None and wanted != (height, width):
            raise UserError(
                f"image_size is {image_size}, but the data set is read as {height}x{width}; give its section or path"
            )
        return source
    section = section_of(source)
    if image_size is not None:
        section = {**section, "image_size": image_size}
    return data.load(section)


def section_of(source: Any) -> dict[str, Any]:
    """Returns the data section that a source stands for.

    Raises:
        UserError: it stands for none, or a value in it is wrong.
    """
    if isinstance(source, Settings):
        return source.section("data")
    if isinstance(source, Mapping):
        section = dict(source)
        for key in section:
            row = KEYS.get(f"data.{key}")
            if row is not None:  # the source's own keywords are checked when it is loaded
                section[key] = check_value(f"data.{key}", row, section[key], where="batches")
        return section
    if not isinstance(source, str | os.PathLike):
        raise UserError(
            f"{source!r} does not name data; give a path, a data source, a data section, settings or a data set"
        )
    if source in data.names():  # before a folder of that name, which is written "./digits"
        return {"name": source}
    # What is not there and looks like a source is more likely a misspelled name than a lost folder.
    if not os.path.exists(source) and nearest(os.fspath(source), data.names()):
        raise unknown("path or data source", os.fspath(source), data.names())
    return data.section_for_path(source)
