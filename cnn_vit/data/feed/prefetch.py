"""Batches made ahead of their use: which examples make one, and the threads, or the caller, that read them."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.data.base.splits import Split

ROWS_PER_PART = 16  # most images that a thread reads before it looks whether it should stop


class BatchRows(NamedTuple):
    """Which examples make a batch.

    Attributes:
        examples: (rows,) their indices; 0 where it is padding.
        real_count: rows before the padding.
        crop_numbers: (rows, 4) numbers for the boxes that are cut out of them; None where they are read whole.
        size: (height, width) that holds all images of the global batch; None where all have one size.
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
    prefetch: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = keep_on_host,
) -> Generator[Any, None, None]:
    """Makes and places the batches of `rows` ahead of their use and gives them in order.

    The thread that finishes a batch places it, so that the way to the device overlaps both decoding and the step. Each
    batch is made of new arrays that nobody writes to afterwards: on a CPU, JAX takes their memory for its own. Where
    there are no threads, or the split is in memory, the caller makes each batch, `prefetch` before it asks for it.
    """
    threads = 0 if split.in_memory else workers
    pool = ThreadPoolExecutor(threads, "decode") if threads else InlineExecutor()
    waiting: deque[list[Future]] = deque()
    try:
        for chosen in rows:
            waiting.append(Batch(split, chosen, place).begin(pool, threads))
            if len(waiting) > prefetch:
                yield wait_for_batch(waiting.popleft())
        while waiting:
            yield wait_for_batch(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)  # who stops asking waits for at most PART images of each thread


class Batch:
    """A batch on its way. Its parts are read by any thread; the one that reads the last part places the whole."""

    def __init__(self, split: Split, rows: BatchRows, place: Callable[[dict[str, np.ndarray]], Any]):
        self.split, self.rows, self.path = split, rows, place
        self.images: list[np.ndarray] = []
        self.left = 0
        self.lock = threading.Lock()

    def begin(self, pool: Executor, threads: int) -> list[Future]:
        """Hands out the parts: the real rows and one of the padding."""
        wanted = min(self.rows.real_count + 1, len(self.rows.examples))
        size = min(ROWS_PER_PART, -(-wanted // threads)) if threads else wanted
        parts = [slice(start, min(start + size, wanted)) for start in range(0, wanted, size)]
        self.images, self.left = [self.rows.examples] * len(parts), len(parts)  # images take the place of indices
        return [pool.submit(self.read, number, part) for number, part in enumerate(parts)]

    def read(self, number: int, part: slice) -> tuple[Any] | None:
        """Reads a part; gives the batch as placed where no other part is missing."""
        examples, chance = self.rows.examples[part], self.rows.crop_numbers
        cut, size = self.split.read_crops, self.rows.size
        images = self.split.read(examples) if cut is None or chance is None else cut(examples, chance[part])
        self.images[number] = images if size is None else np.ascontiguousarray(images[:, : size[0], : size[1]])
        with self.lock:
            self.left -= 1
            last = self.left == 0
        return (self.path(self.whole()),) if last else None

    def whole(self) -> dict[str, np.ndarray]:
        """The batch of all parts."""
        index, real = self.rows.examples, self.rows.real_count
        image = self.images[0] if len(self.images) == 1 else np.concatenate(self.images)
        if missing := len(index) - len(image):
            image = np.concatenate([image, np.repeat(image[-1:], missing, axis=0)])
        weight = (np.arange(len(index)) < real).astype(np.float32)
        label = np.where(weight > 0, self.split.labels[index], 0).astype(np.int32)
        batch = dict(image=image, label=label, weight=weight, index=index.astype(np.int32))
        if self.split.padded_sizes is not None and self.rows.size is not None:
            batch["mask"] = self.split.padded_sizes.mask(index, self.rows.size)
        return batch


def wait_for_batch(parts: list[Future]) -> Any:
    """Waits for a batch; the first error of its parts as it was raised."""
    return next(found[0] for found in [part.result() for part in parts] if found)


class InlineExecutor(Executor):
    """Does what it is given at once, in the caller's thread; an error waits until the result is asked for."""

    def submit(self, function: Callable, /, *given: Any, **named: Any) -> Future:
        """The finished future."""
        future: Future = Future()
        try:
            future.set_result(function(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future
