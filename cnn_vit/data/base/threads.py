"""Work on many images in threads, which helps because decoders and the operating system release Python's lock."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cnn_vit import stops

IMAGES_PER_TASK = 64  # images that a thread takes at a time

T = TypeVar("T")


def map_ranges(work: Callable[[range], T], count: int, workers: int) -> Iterable[T]:
    """Calls `work` on ranges that together cover `count` images, in threads; returns its answers in order.

    Raises:
        StoppedError: a signal asked to stop before all images were worked on.
    """

    def work_unless_stopped(rows: range) -> T:
        stops.raise_if_requested()
        return work(rows)

    ranges = [range(start, min(start + IMAGES_PER_TASK, count)) for start in range(0, count, IMAGES_PER_TASK)]
    if workers < 2 or len(ranges) < 2:
        return map(work_unless_stopped, ranges)
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(work_unless_stopped, ranges))
