"""Work on many images at once: threads, as decoders and the operating system work without Python's lock."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 64  # images that a thread takes

T = TypeVar("T")


def map_ranges(work: Callable[[range], T], count: int, workers: int) -> Iterable[T]:
    """Does the work for ranges that cover `count`, in threads; results in order."""
    ranges = [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]
    if workers < 2 or len(ranges) < 2:
        return map(work, ranges)
    with ThreadPoolExecutor(workers) as threads:
        return list(threads.map(work, ranges))
