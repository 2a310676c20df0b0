"""The order of the examples, the batches made in it, and the one random key.

Which examples make up a training batch is a function of seed, number of examples, batch size and update number;
evaluation batches need no seed. The order is an endless concatenation of epochs, each a keyed permutation that answers
for any position without a list. So nothing depends on the number of threads, on how many batches are made ahead, on the
number of hosts, or on having been stopped. Step s counts the updates done: update k (from 0) runs at step k and makes
it k + 1.

A batch is a dict of NumPy arrays: image (B, H, W, C) uint8, label (B,) int32, weight (B,) float32 in {0, 1}, index (B,)
int32; for images of several sizes also mask (B, H, W) bool, True on each image's own pixels, and H and W change from
batch to batch. With N hosts, host h (from 0) has the rows h B/N to (h + 1) B/N - 1 of the global batch.
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

    A position within its epoch is written as left * right_count + right, both halves with about sqrt(n) values. The
    halves are shifted in turn, each by a keyed hash of the other: a Feistel network, which permutes slightly more than
    n numbers. A result of n or more is fed in again until it is below n ("cycle walking": Black and Rogaway, Ciphers
    with arbitrary finite domains, CT-RSA 2002).

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
    right_count = math.isqrt(n - 1) + 1  # sqrt(n), rounded up
    # Made even: with both counts odd every shift would be an even permutation, and half of all orders never come up.
    right_count += right_count % 2
    left_count = -(-n // right_count)
    counts = np.uint64(left_count), np.uint64(right_count)
    # The Feistel network permutes left_count * right_count numbers, a few more than n. Each result outside of [0, n) is
    # fed in again: from different numbers below n this always ends at different ones, so it stays a permutation.
    examples = feistel_pass((positions.ravel() % n).astype(np.uint64), keys, *counts)
    outside = np.flatnonzero(examples >= np.uint64(n))
    while len(outside):
        examples[outside] = feistel_pass(examples[outside], keys[:, outside], *counts)
        outside = np.flatnonzero(examples >= np.uint64(n))
    return examples.astype(np.int64).reshape(positions.shape)


def feistel_pass(values: np.ndarray, keys: np.ndarray, left_count: np.uint64, right_count: np.uint64) -> np.ndarray:
    """Sends values once through the Feistel network, each with its own keys.

    Args:
        values: (V,) uint64 in [0, left_count * right_count).
        keys: (ROUNDS, V) uint64.
        left_count, right_count: how many values each half can take.

    Returns:
        (V,) uint64 in the same range; with equal keys, different values stay different.
    """
    left, right = np.divmod(values, right_count)
    for left_keys, right_keys in zip(keys[::2], keys[1::2], strict=True):
        left = (left + hash_uint64(right + left_keys)) % left_count
        right = (right + hash_uint64(left + right_keys)) % right_count
    return left * right_count + right


def hash_uint64(x: np.ndarray) -> np.ndarray:
    """Returns 63 evenly distributed bits as uint64: the output function of SplitMix64, Steele et al., OOPSLA 2014."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(1)  # one bit less, so that adding a half cannot overflow


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
    start: int,
    stop: int | None = None,
    workers: int = 0,
    batches_ahead: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = keep_on_host,
    host: int = 0,
    hosts: int = 1,
) -> Generator[Any, None, None]:
    """Yields the batches of updates `start` to `stop` - 1; without end where `stop` is None.

    Update k has the positions k B to (k + 1) B - 1 of the order. No example is dropped and a batch may span
    epochs; every weight is 1. (That the rows of several hosts add up to the global batch is tested in one process.)

    Args:
        split: what is read.
        batch_size: B, rows of the global batch.
        seed: of the order.
        start: first update, from 0.
        stop: the update before which to end.
        workers: threads that decode; 0, and always where the split is in memory: the caller decodes.
        batches_ahead: batches made and placed ahead of the one asked for.
        place: puts a batch on the devices. It is called from the decoding threads, possibly from several at once: it
            must be thread-safe.
        host: the number of this process, from 0.
        hosts: number of processes; only this one's rows are read.

    Returns:
        A generator of what `place` returned, in order. `close` ends its threads. An error comes up at its own batch.

    Raises:
        UserError: the split is empty or has more than 2**31 - 1 examples, or the hosts cannot share a batch equally.
    """
    host_rows = rows_per_host(split, batch_size, hosts)
    row_numbers = np.arange(host * host_rows, (host + 1) * host_rows)
    rows = training_rows(split, seed, row_numbers, batch_size, start, stop)
    return prefetching.prefetch(split, rows, workers=workers, batches_ahead=batches_ahead, place=place)


def training_rows(
    split: Split, seed: int, row_numbers: np.ndarray, batch_size: int, start: int, stop: int | None
) -> Iterator[BatchRows]:
    """Yields the rows with these numbers of each update's global batch.

    They come with their crop numbers where boxes are cut out of the images. Where images have several sizes, the images
    of all hosts decide on the size of the batch.
    """
    padded_sizes = split.padded_sizes
    # All rows of the global batch are looked up only where the images of other hosts matter.
    looked_up = row_numbers if padded_sizes is None else np.arange(batch_size)
    examples_of_updates = examples_per_update(len(split), seed, looked_up, batch_size, start, stop)
    for update, examples in enumerate(examples_of_updates, start):
        if padded_sizes is not None:
            yield BatchRows(examples[row_numbers], len(row_numbers), size=padded_sizes.bucket_for(examples))
        elif split.read_crops:
            crop_numbers = crops.crop_numbers(seed, update, batch_size)[row_numbers]
            yield BatchRows(examples, len(row_numbers), crop_numbers)
        else:
            yield BatchRows(examples, len(row_numbers))


def examples_per_update(
    n: int, seed: int, row_numbers: np.ndarray, batch_size: int, start: int, stop: int | None
) -> Iterator[np.ndarray]:
    """Yields the examples at positions k B + `row_numbers` for each update k, looked up for many updates at a time."""
    updates_per_lookup = max(1, POSITIONS_PER_LOOKUP // len(row_numbers))
    for lookup_start in itertools.count(start, updates_per_lookup):
        lookup_stop = lookup_start + updates_per_lookup
        if stop is not None:
            lookup_stop = min(lookup_stop, stop)
        if lookup_start >= lookup_stop:
            return
        updates = np.arange(lookup_start, lookup_stop)
        # broadcast to (updates, row numbers): a row holds the positions of one update, and one row is yielded at a time
        yield from order(n, seed, updates[:, None] * batch_size + row_numbers)


def evaluation_batches(
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
    if len(split) == 0:
        raise UserError("a split has no examples; batches need at least 1: give it some")
    if len(split) > MOST_EXAMPLES:
        raise UserError(
            f"a split has {len(split):,} examples; an index has 32 bits: give it from 1 to {MOST_EXAMPLES:,}"
        )
    if batch_size < 1 or batch_size % hosts:
        below = max(batch_size, 0) // hosts * hosts
        sizes = f"{below} or {below + hosts}" if below else hosts
        raise UserError(f"data.batch_size is {batch_size}; each of {hosts} hosts takes an equal share: make it {sizes}")
    return batch_size // hosts
