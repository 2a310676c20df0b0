"""The order of the examples, the batches made in it, and the one random key: all functions of (seed, step) alone.

The order is an endless concatenation of epochs, each a keyed permutation that answers any position without a list. So
nothing depends on the number of threads, on how far ahead they work, on the number of hosts, or on having been stopped.

A batch is a dict of NumPy arrays: image (B, H, W, C) uint8, label (B,) int32, weight (B,) float32 in {0, 1}, index (B,)
int32; of images of several sizes also mask (B, H, W) bool, True on each image's own pixels, and H and W change from
batch to batch. Of several hosts, host h of H has the rows h B/H to (h + 1) B/H of the global batch.
"""

import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit.data.base.splits import Split
from cnn_vit.data.decode import crops
from cnn_vit.data.feed import prefetch as ahead
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    import jax

MOST_EXAMPLES = 2**31 - 1  # examples of a split: an index is an int32
ROUNDS = 16  # of the permutation: with 8, some orders of 5 to 10 examples were visibly rarer than others
BLOCK = 4096  # positions looked up at once, about: 0.3 instead of 2 us each


# Chance ---------------------------------------------------------------------------------------------------------------


def key(seed: int) -> "jax.Array":
    """The key that every random number on the device follows from."""
    import jax

    return jax.random.key(seed)


def order(n: int, seed: int, positions: np.ndarray) -> np.ndarray:
    """Examples at positions of the endless concatenation of permutations of n examples, one for each epoch.

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
    epochs, which = np.unique(positions // n, return_inverse=True)
    keys = np.array([epoch_keys(seed, int(epoch)) for epoch in epochs], np.uint64).reshape(-1, ROUNDS)
    keys = np.take(keys.T, which.ravel(), axis=1)  # (ROUNDS, positions)
    low = math.isqrt(n - 1) + 1
    low += low % 2  # shifting an even number of values is an odd permutation: else all would be even
    size, digits = np.uint64(n), (np.uint64(-(-n // low)), np.uint64(low))
    found = feistel_pass((positions.ravel() % n).astype(np.uint64), keys, *digits)
    while len(outside := np.flatnonzero(found >= size)):
        found[outside] = feistel_pass(found[outside], keys[:, outside], *digits)
    return found.astype(np.int64).reshape(positions.shape)


def feistel_pass(values: np.ndarray, keys: np.ndarray, high: np.uint64, low: np.uint64) -> np.ndarray:
    """One pass of the network over values in [0, high * low), uint64, each with its own keys (ROUNDS, values)."""
    left, right = np.divmod(values, low)
    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = (left + hash_uint64(right + first)) % high
        right = (right + hash_uint64(left + second)) % low
    return left * low + right


def hash_uint64(x: np.ndarray) -> np.ndarray:
    """63 even bits of 64, as uint64: the output function of SplitMix64, Steele et al., OOPSLA 2014."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) >> np.uint64(1)


@functools.lru_cache(maxsize=4096)
def epoch_keys(seed: int, epoch: int) -> np.ndarray:
    """The keys (ROUNDS,) uint64 of one epoch's permutation."""
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
    prefetch: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = ahead.keep_on_host,
    host: int = 0,
    hosts: int = 1,
) -> Generator[Any, None, None]:
    """The batches of updates `first` to `last` - 1 (None: without end): update k has positions k B to (k + 1) B - 1.

    No example is dropped and a batch may span epochs; every weight is 1. (That the rows of several hosts add up to the
    global batch is tested in one process.)

    Args:
        split: what is read.
        batch_size: B, rows of the global batch.
        seed: of the order.
        first: first update, from 0.
        last: the update before which to end.
        workers: threads that decode; 0, and always where the split is in memory: the caller's.
        prefetch: batches made and placed ahead of the one asked for.
        place: puts a batch on the devices; called by the thread that finished it, several batches at once.
        host: this process.
        hosts: number of processes; only this one's rows are read.

    Returns:
        A generator of what `place` gave, in order. `close` ends its threads. An error comes up at its own batch.

    Raises:
        UserError: no example, more than 2**31 - 1, or a batch that does not divide by the hosts.
    """
    share = rows_per_host(split, batch_size, hosts)
    mine = np.arange(host * share, (host + 1) * share)
    rows = training_rows(split, seed, mine, batch_size, first, last)
    return ahead.prefetch(split, rows, workers=workers, prefetch=prefetch, place=place)


def training_rows(
    split: Split, seed: int, mine: np.ndarray, batch_size: int, first: int, last: int | None
) -> Iterator[ahead.BatchRows]:
    """The rows `mine` of each update's batch, with their chance where the images are cut.

    Where sizes are mixed, the images of all hosts decide on the size of the batch.
    """
    looked_up = mine if split.padded_sizes is None else np.arange(batch_size)
    for update, index in enumerate(update_orders(len(split), seed, looked_up, batch_size, first, last), first):
        if split.padded_sizes is not None:
            yield ahead.BatchRows(index[mine], len(mine), size=split.padded_sizes.bucket_for(index))
            continue
        yield ahead.BatchRows(
            index, len(mine), crops.crop_numbers(seed, update, batch_size)[mine] if split.read_crops else None
        )


def update_orders(
    n: int, seed: int, mine: np.ndarray, batch_size: int, first: int, last: int | None
) -> Iterator[np.ndarray]:
    """The examples at positions k B + `mine` for each update k, looked up for a few thousand positions at a time."""
    step = max(1, BLOCK // len(mine))
    for start in itertools.count(first, step):
        end = start + step if last is None else min(start + step, last)
        if start >= end:
            return
        yield from order(n, seed, np.arange(start, end)[:, None] * batch_size + mine)


def ordered_batches(
    split: Split,
    *,
    batch_size: int,
    workers: int = 0,
    prefetch: int = 2,
    place: Callable[[dict[str, np.ndarray]], Any] = ahead.keep_on_host,
    host: int = 0,
    hosts: int = 1,
) -> Generator[Any, None, None]:
    """Every example once, in order, or the small ones first where sizes are mixed; arguments and errors as `batches`.

    The last batch is filled up with rows of weight 0, index 0, label 0 and the pixels of example 0.
    """
    share, mixed = rows_per_host(split, batch_size, hosts), split.padded_sizes
    order = np.arange(len(split)) if mixed is None else mixed.small_first_order()
    wholes = (order[start : start + batch_size] for start in range(0, len(split), batch_size))
    rows = (
        pad_rows(whole[host * share :][:share], share)._replace(size=None if mixed is None else mixed.bucket_for(whole))
        for whole in wholes
    )
    return ahead.prefetch(split, rows, workers=workers, prefetch=prefetch, place=place)


def pad_rows(index: np.ndarray, size: int) -> ahead.BatchRows:
    """Rows filled up to a size."""
    return ahead.BatchRows(np.pad(index, (0, size - len(index))), len(index))


def rows_per_host(split: Split, batch_size: int, hosts: int) -> int:
    """Rows of a host.

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
