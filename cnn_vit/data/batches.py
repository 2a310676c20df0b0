"""Images and labels from any data, batch after batch, for a loop of one's own.

for images, labels in cnn_vit.batches("photos", size=64, augment=("flip",)):
    ...
"""

import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cnn_vit import data
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
    size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    augment: Sequence[str] = (),
    seed: int = 0,
    epochs: int | None = 1,
) -> Pairs:
    """A generator of images and labels.

    Training examples are shuffled and augmented as in a run of this seed and batch size: batch k is what its update k
    sees. Other splits come in order. Epochs follow one another without a seam, so that only the very last batch is
    short; for a seam after each, call once an epoch, with another seed.

    Args:
        source: a folder, zip or npz; the name of a data source such as "digits" (a folder of that name is "./digits");
            a data section, {"name": "folder", "path": ...}; settings, of which the data section is read; a data set.
        split: train, validation or test.
        size: side of the images in pixels, or (height, width); None: as the source has them.
        batch_size: B.
        augment: random changes of the images, in order, such as ("pad_crop(4)", "flip"), computed on the device; those
            that mix labels are refused. What a section or settings say of `augment` is not read.
        seed: of the order and the changes.
        epochs: times that each example comes; None: without end.

    Returns:
        A generator of (images (B, H, W, C) float32 in 0..1, not normalized; labels (B,) int32), new NumPy arrays.

    Raises:
        UserError: at the call, for whatever is wrong with the arguments or the data; while reading, for an image that
            turns out unreadable.
    """
    batch_size = check_value("batch_size", KEYS["data.batch_size"], batch_size, where="batches")
    seed = check_value("seed", KEYS["seed"], seed, where="batches")
    operations = check_value("augment", KEYS["data.augment"], augment, where="batches")
    change = build_changer(operations, seed) if operations else scale_to_unit
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
        raise UserError(f"epochs is {epochs!r} (batches); it takes an int from 1, or None for no end")
    splits = open_source(source, size).splits
    if split not in splits:
        raise unknown("split", split, splits)
    if splits[split].padded_sizes is not None:
        raise UserError(
            "data.fit=pad_batch gives images of several sizes with a mask, `batches` images alone; take crop"
        )
    rows = epoch_rows(splits[split], batch_size, epochs, seed=seed if split == "train" else None)
    return pairs(splits[split], rows, change)


def pairs(split: data.Split, rows: Iterable[prefetch.BatchRows], change: Callable) -> Pairs:
    """Images as floats, and labels, of the real rows."""
    for update, batch in enumerate(prefetch.prefetch(split, rows, workers=WORKERS)):
        real = batch["weight"] > 0
        yield change(batch["image"], update)[real], batch["label"][real]  # copies, also of what a device holds


def epoch_rows(
    split: data.Split, batch_size: int, epochs: int | None, *, seed: int | None
) -> Iterator[prefetch.BatchRows]:
    """Rows of the batches of so many epochs, shuffled by a seed, or in order where it is None."""
    n = len(split)
    total = None if epochs is None else epochs * n
    size = batch_size if total is None else min(batch_size, total)
    last = None if total is None else -(-total // size)
    updates = itertools.count() if last is None else range(last)
    in_turn = (prefetch.BatchRows((update * size + np.arange(size)) % n, size) for update in updates)
    chosen = in_turn if seed is None else stream.training_rows(split, seed, np.arange(size), size, 0, last)
    for update, rows in enumerate(chosen):
        real = rows.examples[: None if total is None else total - update * size]
        yield stream.pad_rows(real, size)._replace(crop_numbers=rows.crop_numbers)


def scale_to_unit(images: np.ndarray, update: int) -> np.ndarray:
    """Bytes as floats in 0..1."""
    return images.astype(np.float32) / np.float32(255)


def build_changer(operations: tuple[str, ...], seed: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """The augmentation of one batch, with the chance of a training run: (images, update) -> images.

    Raises:
        UserError: what is no operation, or mixes labels.
    """
    from cnn_vit.data import augment

    names, numbers = augment.operation_names(operations), augment.operation_numbers(operations)
    if mixing := [name for name in names if augment.OPERATIONS[name].mixes]:
        raise UserError(
            f"{mixing[0]} mixes labels, which `batches` gives whole; leave it out, or train with it in a recipe"
        )
    key, changed = stream.key(seed), compile_changes(names)
    return lambda images, update: np.asarray(changed(images, key, update, numbers))


@functools.cache
def compile_changes(names: tuple[str, ...]) -> Callable:
    """The same for given operations, compiled: (images, key, update, numbers) -> images."""
    import jax
    import jax.numpy as jnp

    from cnn_vit.data import augment

    augmented = augment.build_augmentation(names, 1)

    def changed(images, key, update, numbers):
        rows, mix, _ = jax.random.split(jax.random.fold_in(key, update), 3)
        row_keys = jax.vmap(jax.random.fold_in, (None, 0))(rows, jnp.arange(len(images)))
        return augmented(images, jnp.zeros(len(images), jnp.int32), row_keys, mix, numbers)[0]

    return jax.jit(changed)


def open_source(source: Any, size: int | tuple[int, int] | None) -> data.Dataset:
    """The data set that a source means.

    Raises:
        UserError: it means none, or one of another size.
    """
    size = check_value("size", KEYS["data.image_size"], size, where="batches")
    if isinstance(source, data.Dataset):
        sides = source.image_shape[:2]
        if size is not None and sides != (size if isinstance(size, tuple) else (size, size)):
            raise UserError(
                f"size is {size}, but the data set is read as {sides[0]}x{sides[1]}; give its section or path"
            )
        return source
    section = section_of(source)
    return data.load(section if size is None else {**section, "image_size": size})


def section_of(source: Any) -> dict[str, Any]:
    """The data section that a source means."""
    if isinstance(source, Settings):
        return source.section("data")
    if isinstance(source, Mapping):
        rows = {key: KEYS.get(f"data.{key}") for key in source}
        return {
            key: check_value(f"data.{key}", row, source[key], where="batches") if row else source[key]
            for key, row in rows.items()
        }
    if not isinstance(source, str | os.PathLike):
        raise UserError(f"{source!r} names no data; give a path, a data source, a data section, settings or a data set")
    if source in data.names():
        return {"name": source}
    if not os.path.exists(source) and nearest(os.fspath(source), data.names()):
        raise unknown("path or data source", os.fspath(source), data.names())
    return data.section_for_path(source, image_size=None, channels=None, fit="crop")
