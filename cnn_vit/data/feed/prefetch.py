"""Batches made before they are asked for: which examples make up a batch, and who reads them, threads or the caller."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit.data.base.splits import Split

ROWS_PER_PART = 16  # images, at most, that a thread reads before it looks whether it should stop


@dataclass(frozen=True)
class BatchRows:
    """Which examples make up a batch.

    Attributes:
        examples: (rows,) their indices; 0 where a row is padding.
        real_count: the number of rows before the padding.
        crop_numbers: (rows, 4) numbers that decide on the boxes cut out of the images; None where they are read whole.
        size: (height, width) that holds all images of the global batch; None where all images have one size.
    """

    examples: np.ndarray
    real_count: int
    crop_numbers: np.ndarray | None = None
    size: tuple[int, int] | None = None


def keep_on_host(batch: dict[str, np.ndarray]) -> Any:
    """Leaves a batch on the host."""
    return batch


def prefetch(
    split: Split,
    rows: Iterable[BatchRows],
    *,
    workers: int = 0,
    batches_ahead: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = keep_on_host,
) -> Generator[Any, None, None]:
    """Makes and places the batches of `rows` before they are asked for, and yields them in order.

    The thread that finishes a batch places it, so that the way to the device overlaps both decoding and the step. Each
    batch is made of new arrays that nobody writes to afterwards: on a CPU, JAX takes their memory for its own. Where
    there are no threads, or the split is in memory, the caller makes each batch, `batches_ahead` before it asks for it.

    Args:
        split: what is read.
        rows: the rows of each batch.
        workers: threads that read; 0: the caller reads.
        batches_ahead: batches made and placed beyond the one that is asked for.
        place: puts a batch on the devices.

    Yields:
        What `place` returned.
    """
    threads = 0 if split.in_memory else workers
    pool = ThreadPoolExecutor(threads, "decode") if threads else InlineExecutor()
    waiting: deque[list[Future]] = deque()
    try:
        for batch_rows in rows:
            waiting.append(Batch(split, batch_rows, place).begin(pool, threads))
            if len(waiting) > batches_ahead:
                yield wait_for_batch(waiting.popleft())
        while waiting:
            yield wait_for_batch(waiting.popleft())
    finally:
        # Whoever stops asking waits here for the parts being read, at most ROWS_PER_PART images of each thread.
        pool.shutdown(cancel_futures=True)


class Batch:
    """A batch in the making. Any thread reads its parts; the one that reads the last part places the whole."""

    def __init__(self, split: Split, rows: BatchRows, place: Callable[[dict[str, np.ndarray]], Any]):
        self.split, self.rows, self.place = split, rows, place
        self.images: list[np.ndarray] = []  # of each part
        self.unread_parts = 0
        self.lock = threading.Lock()

    def begin(self, pool: Executor, threads: int) -> list[Future]:
        """Hands the parts of the batch to the pool."""
        # All padding rows show the same image, so that one of them is read and `assemble` repeats it.
        count = min(self.rows.real_count + 1, len(self.rows.examples))
        part_size = min(ROWS_PER_PART, -(-count // threads)) if threads else count
        parts = [slice(start, min(start + part_size, count)) for start in range(0, count, part_size)]
        self.images = [np.empty(0)] * len(parts)  # a place for each part, filled when the part is read
        self.unread_parts = len(parts)
        return [pool.submit(self.read_part, number, part) for number, part in enumerate(parts)]

    def read_part(self, number: int, part: slice) -> tuple[Any] | None:
        """Reads a part; returns the placed batch, in a tuple, where it was the last part, else None."""
        examples, crop_numbers, size = self.rows.examples[part], self.rows.crop_numbers, self.rows.size
        read_crops = self.split.read_crops
        if read_crops is None or crop_numbers is None:
            images = self.split.read(examples)
        else:
            images = read_crops(examples, crop_numbers[part])
        if size is not None:
            # Images of several sizes are read in the largest canvas: cut off what all images of the batch leave black.
            images = np.ascontiguousarray(images[:, : size[0], : size[1]])
        self.images[number] = images
        with self.lock:
            self.unread_parts -= 1
            is_last = self.unread_parts == 0
        return (self.place(self.assemble()),) if is_last else None

    def assemble(self) -> dict[str, np.ndarray]:
        """Puts the parts together and adds labels, weights and indices."""
        index = self.rows.examples
        # A single part is not copied: `read` gave an array that nobody else holds.
        image = self.images[0] if len(self.images) == 1 else np.concatenate(self.images)
        missing = len(index) - len(image)
        if missing:
            image = np.concatenate([image, np.repeat(image[-1:], missing, axis=0)])
        weight = (np.arange(len(index)) < self.rows.real_count).astype(np.float32)
        label = np.where(weight > 0, self.split.labels[index], 0).astype(np.int32)
        batch = dict(image=image, label=label, weight=weight, index=index.astype(np.int32))
        if self.split.padded_sizes is not None and self.rows.size is not None:
            batch["mask"] = self.split.padded_sizes.mask(index, self.rows.size)
        return batch


def wait_for_batch(parts: list[Future]) -> Any:
    """Waits for all parts of a batch and returns the placed batch; raises the first part's error as it was raised."""
    answers = [part.result() for part in parts]
    return next(answer[0] for answer in answers if answer)  # whichever part was read last


class InlineExecutor(Executor):
    """Does its work at once, in the caller's thread; an error waits until the result is asked for."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Calls the function and returns the finished future."""
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
