"""The order of the examples, the batches made in it, and the one random key: all functions of (seed, step) alone.

The order is an endless concatenation of epochs, each a keyed permutation that answers for any position without a list.
So nothing depends on the number of threads, on how many batches are made ahead, on the number of hosts, or on having
been stopped.

A batch is a dict of NumPy arrays: image (B, H, W, C) uint8, label (B,) int32, weight (B,) float32 in {0, 1}, index (B,)
int32; for images of several sizes also mask (B, H, W) bool, True on each image's own pixels, and H and W change from
batch to batch. With several hosts, host h of H has the rows h B/H to (h + 1) B/H of the global batch.
"""

import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit.data.base.splits import Split
from cnn_vit.data.decode import crops
from cnn_vit.data.feed import prefetch as prefetching
from cnn_vit.data.feed.prefetch import BatchRows, keep_on_host
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    import jax

MOST_EXAMPLES = 2**31 - 1  # examples of a split: an index is an int32
ROUNDS = 16  # of the permutation: with 8, some orders of 5 to 10 examples were visibly rarer than others
POSITIONS_PER_LOOKUP = 4096  # about so many are looked up at once: 0.3 instead of 2 us each


# Random order ---------------------------------------------------------------------------------------------------------


def key(seed: int) -> "jax.Array":
    """Returns the key that every random number on the device follows from."""
    import jax

    return jax.random.key(seed)


def order(n: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Returns the examples at positions of an endless concatenation of permutations of n examples, one for each epoch.

    A position is two digits of about sqrt(n) values. In turn each is shifted by a keyed hash of the other: a Feistel
    network, which permutes slightly more than n positions; one that lands at n or above walks on until it lands below
    (Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002).

    Args:
        n: number of examples, at least 1.
        seed: any whole number.
        positions: int64 from 0, any shape; position p is in epoch p // n.

    Returns:
        int64 in [0, n), of the shape of `positions`.
    """
    positions = np.asarray(positions, np.int64)
    epochs, which_epoch = np.unique(positions // n, return_inverse=True)
    keys = np.array([epoch_keys(seed, int(epoch)) for epoch in epochs], np.uint64).reshape(-1, ROUNDS)
    keys = np.take(keys.T, which_epoch.ravel(), axis=1)  # (ROUNDS, positions)
    low = math.isqrt(n - 1) + 1
    low += low % 2  # shifting an even number of values is an odd permutation: else all would be even
    high = -(-n // low)
    digits = np.uint64(high), np.uint64(low)
    # The network permutes high * low values, a few more than n: walking on from those outside stays a permutation.
    examples = feistel_pass((positions.ravel() % n).astype(np.uint64), keys, *digits)
    outside = np.flatnonzero(examples >= np.uint64(n))
    while len(outside):
        examples[outside] = feistel_pass(examples[outside], keys[:, outside], *digits)
        outside = np.flatnonzero(examples >= np.uint64(n))
    return examples.astype(np.int64).reshape(positions.shape)


def feistel_pass(values: np.ndarray, keys: np.ndarray, high: np.uint64, low: np.uint64) -> np.ndarray:
    """Sends values in [0, high * low), uint64, once through the network, each with its own keys (ROUNDS, values)."""
    left, right = np.divmod(values, low)
    for left_keys, right_keys in zip(keys[::2], keys[1::2], strict=True):
        left = (left + hash_uint64(right + left_keys)) % high
        right = (right + hash_uint64(left + right_keys)) % low
    return left * low + right


def hash_uint64(x: np.ndarray) -> np.ndarray:
    """Returns 63 evenly distributed bits as uint64: the output function of SplitMix64, Steele et al., OOPSLA 2014."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(1)  # one bit less, so that adding a digit cannot overflow


@functools.lru_cache(maxsize=4096)
def epoch_keys(seed: int, epoch: int) -> np.ndarray:
    """Returns the keys (ROUNDS,) uint64 of one epoch's permutation."""
    digest = hashlib.shake_256(f"order {operator.index(seed)} {epoch}".encode()).digest(8 * ROUNDS)
    return np.frombuffer(digest, "<u8").astype(np.uint64)


# Batches --------------------------------------------------------------------------------------------------------------


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    first: int,
    last: int | None = None,
    workers: int = 0,
    batches_ahead: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = keep_on_host,
    host: int = 0,
    hosts: int = 1,
) -> Generator[Any, None, None]:
    """Yields the batches of updates `first` to `last` - 1 (None: without end).

    Update k has the positions k B to (k + 1) B - 1 of the order. No example is dropped and a batch may span
    epochs; every weight is 1. (That the rows of several hosts add up to the global batch is tested in one process.)

    Args:
        split: what is read.
        batch_size: B, rows of the global batch.
        seed: of the order.
        first: first update, from 0.
        last: the update before which to end.
        workers: threads that decode; 0, and always where the split is in memory: the caller decodes.
        batches_ahead: batches made and placed ahead of the one asked for.
        place: puts a batch on the devices; called by the thread that finished it, several batches at once.
        host: the number of this process, from 0.
        hosts: number of processes; only this one's rows are read.

    Returns:
        A generator of what `place` returned, in order. `close` ends its threads. An error comes up at its own batch.

    Raises:
        UserError: the split is empty or has more than 2**31 - 1 examples, or the hosts cannot share a batch equally.
    """
    host_rows = rows_per_host(split, batch_size, hosts)
    row_numbers = np.arange(host * host_rows, (host + 1) * host_rows)
    rows = training_rows(split, seed, row_numbers, batch_size, first, last)
    return prefetching.prefetch(split, rows, workers=workers, batches_ahead=batches_ahead, place=place)


def training_rows(
    split: Split, seed: int, row_numbers: np.ndarray, batch_size: int, first: int, last: int | None
) -> Iterator[BatchRows]:
    """Yields the rows with these numbers of each update's global batch.

    They come with their crop numbers where boxes are cut out of the images. Where images have several sizes, the images
    of all hosts decide on the size of the batch.
    """
    padded_sizes = split.padded_sizes
    # All rows of the global batch are looked up only where the images of other hosts matter.
    looked_up = row_numbers if padded_sizes is None else np.arange(batch_size)
    orders = update_orders(len(split), seed, looked_up, batch_size, first, last)
    for update, examples in enumerate(orders, first):
        if padded_sizes is not None:
            yield BatchRows(examples[row_numbers], len(row_numbers), size=padded_sizes.bucket_for(examples))
        elif split.read_crops:
            crop_numbers = crops.crop_numbers(seed, update, batch_size)[row_numbers]
            yield BatchRows(examples, len(row_numbers), crop_numbers)
        else:
            yield BatchRows(examples, len(row_numbers))


def update_orders(
    n: int, seed: int, row_numbers: np.ndarray, batch_size: int, first: int, last: int | None
) -> Iterator[np.ndarray]:
    """Yields the examples at positions k B + `row_numbers` for each update k, looked up for many updates at a time."""
    updates_per_lookup = max(1, POSITIONS_PER_LOOKUP // len(row_numbers))
    for start in itertools.count(first, updates_per_lookup):
        end = start + updates_per_lookup
        if last is not None:
            end = min(end, last)
        if start >= end:
            return
        yield from order(n, seed, np.arange(start, end)[:, None] * batch_size + row_numbers)


def ordered_batches(
    split: Split,
    *,
    batch_size: int,
    workers: int = 0,
    batches_ahead: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = keep_on_host,
    host: int = 0,
    hosts: int = 1,
) -> Generator[Any, None, None]:
    """Yields every example once: in order, or the small ones first where images have several sizes.

    The last batch is filled up with rows of weight 0, index 0, label 0 and the pixels of example 0. Arguments and
    errors are those of `batches`.
    """
    host_rows = rows_per_host(split, batch_size, hosts)
    rows = evaluation_rows(split, batch_size, host * host_rows, host_rows)
    return prefetching.prefetch(split, rows, workers=workers, batches_ahead=batches_ahead, place=place)


def evaluation_rows(split: Split, batch_size: int, first_row: int, host_rows: int) -> Iterator[BatchRows]:
    """Yields the `host_rows` rows from `first_row` of each global batch of `ordered_batches`."""
    padded_sizes = split.padded_sizes
    examples = np.arange(len(split)) if padded_sizes is None else padded_sizes.small_first_order()
    for start in range(0, len(split), batch_size):
        global_batch = examples[start : start + batch_size]
        rows = pad_rows(global_batch[first_row:][:host_rows], host_rows)
        if padded_sizes is not None:
            rows = replace(rows, size=padded_sizes.bucket_for(global_batch))
        yield rows


def pad_rows(examples: np.ndarray, size: int) -> BatchRows:
    """Returns rows of these examples, filled up to `size` rows with padding."""
    return BatchRows(np.pad(examples, (0, size - len(examples))), len(examples))


def rows_per_host(split: Split, batch_size: int, hosts: int) -> int:
    """Returns how many rows of a batch each host reads.

    Raises:
        UserError: as `batches`.
    """
    if not 1 <= len(split) <= MOST_EXAMPLES:
        raise UserError(
            f"a split has {len(split):,} examples; an index has 32 bits: give it from 1 to {MOST_EXAMPLES:,}"
        )
    if batch_size < 1 or batch_size % hosts:
        below = max(batch_size, 0) // hosts * hosts
        sizes = f"{below} or {below + hosts}" if below else hosts
        raise UserError(f"data.batch_size is {batch_size}; each of {hosts} hosts takes an equal share: make it {sizes}")
    return batch_size // hosts
