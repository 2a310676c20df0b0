"""The stream: every order is a permutation without a list, and batches are the same however they are made."""

import hashlib
import itertools
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cnn_vit.data.base.splits import Split
from cnn_vit.data.feed import prefetch as ahead
from cnn_vit.data.feed import stream
from cnn_vit.errors import UserError

PRIMES = (307, 997, 7_919, 65_537, 99_991)
POWERS = tuple(2**k + more for k in range(9, 18) for more in (-1, 0, 1))
RARE = 1e-4  # chance that an even order fails one of the tests of evenness


def picture(index):
    """An example's pixels tell which it is."""
    return (
        np.stack([index % 256, index // 256, index % 7], axis=-1).astype(np.uint8)[:, None, None, :].repeat(2, axis=1)
    )


def examples(n, *, in_memory=False, read=picture):
    return Split((np.arange(n) * 7 % 5).astype(np.int32), read, in_memory)


def uneven(index):
    """Reads that take turns in being late."""
    time.sleep(int(index[0]) % 4 * 5e-4)
    return picture(index)


def same(one, other):
    return all(
        a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and np.array_equal(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def decoders():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


# --- the order


@pytest.mark.parametrize("sizes", [range(1, 301), PRIMES, POWERS], ids=["to 300", "primes", "powers of two"])
def test_each_epoch_is_a_permutation(sizes):
    for n in sizes:
        for seed, epoch in ((0, 0), (3, 11)):
            found = stream.order(n, seed, np.arange(n) + epoch * n)
            assert np.array_equal(np.sort(found), np.arange(n)), (n, seed, epoch)


def by_hand(n, seed, position):
    """The order of one position, in Python's own whole numbers."""
    epoch, value = divmod(position, n)
    digest = hashlib.shake_256(f"order {seed} {epoch}".encode()).digest(128)
    keys = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, 128, 8)]
    low = next(side for side in range(2, n + 3, 2) if side * side >= n)
    high = (n + low - 1) // low

    def hashed(x):
        x %= 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) // 2

    while True:
        left, right = divmod(value, low)
        for turn, key in enumerate(keys):
            if turn % 2 == 0:
                left = (left + hashed(right + key)) % high
            else:
                right = (right + hashed(left + key)) % low
        value = left * low + right
        if value < n:
            return value


@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 10**12))
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_the_order_is_that_of_plain_whole_numbers(n, seed, position):
    assert stream.order(n, seed, np.array([position])).tolist() == [by_hand(n, seed, position)]


def test_any_positions_are_answered_alone_and_across_epochs():
    n = 5
    whole = np.concatenate([stream.order(n, 1, np.arange(n) + epoch * n) for epoch in range(40)])
    assert np.array_equal(stream.order(n, 1, np.arange(3, 190)), whole[3:190])  # many epochs at once
    some = np.array([[7, 199, 0], [55, 55, 3]])
    assert np.array_equal(stream.order(n, 1, some), whole[some])
    assert stream.order(n, 1, np.zeros((0,), np.int64)).shape == (0,)


def test_epochs_and_seeds_differ():
    seeds, epochs = (0, 1, 2, 11, 111, 2**31 - 1), (0, 1, 2, 11, 111, 10**9)
    orders = {tuple(stream.order(40, seed, np.arange(40) + 40 * epoch)) for seed in seeds for epoch in epochs}
    assert len(orders) == len(seeds) * len(epochs)


@pytest.mark.parametrize("n", [4, 10, 33, 1000])
def test_the_first_example_is_evenly_drawn_over_seeds_and_over_epochs(n):
    by_epoch = stream.order(n, 5, np.arange(6000) * n)
    by_seed = np.array([stream.order(n, seed, np.array([0]))[0] for seed in range(2000)])
    for found in (by_epoch, by_seed):
        bins = min(n, 20)
        counts = np.bincount(found * bins // n, minlength=bins)
        sizes = np.bincount(np.arange(n) * bins // n)
        assert stats.chisquare(counts, len(found) * sizes / n).pvalue > RARE


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_of_a_few_examples_are_equally_frequent(n):
    orders = stream.order(n, 0, np.arange(20_000 * n)).reshape(-1, n)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == {3: 6, 4: 24, 5: 120}[n]
    assert stats.chisquare(counts).pvalue > RARE


@pytest.mark.parametrize("n", [50, 64])
def test_neighbors_in_the_order_are_no_neighbors_in_the_data(n):
    orders = stream.order(n, 2, np.arange(1000 * n)).reshape(-1, n)
    steps = np.diff(orders, axis=1) % n
    assert stats.chisquare(np.bincount(steps.ravel(), minlength=n)[1:]).pvalue > RARE
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    assert not pairs.diagonal().any()
    assert pairs.max() <= 8  # 1,000 pairs over n (n - 1) cells: 9 in a cell has chance 1e-9


def test_half_of_the_orders_are_even():
    orders = stream.order(7, 0, np.arange(7 * 4000)).reshape(-1, 7)
    inversions = sum((orders[:, i] > orders[:, j]).astype(int) for i in range(7) for j in range(i + 1, 7))
    assert stats.binomtest(int((inversions % 2 == 0).sum()), 4000).pvalue > RARE


def test_ten_billion_examples_are_ordered_without_a_list():
    n = 10**10
    found = stream.order(n, 0, np.concatenate([np.arange(5000), n - 1 - np.arange(5000)]))
    assert found.dtype == np.int64
    assert len(set(found.tolist())) == 10_000
    assert found.min() >= 0
    assert found.max() < n
    assert stats.kstest(found / n, "uniform").pvalue > RARE
    assert found[:10].tolist() == [by_hand(n, 0, position) for position in range(10)]


def test_the_key_is_a_typed_key_of_the_seed():
    assert jax.dtypes.issubdtype(stream.key(3).dtype, jax.dtypes.prng_key)
    assert np.array_equal(jax.random.key_data(stream.key(3)), jax.random.key_data(jax.random.key(3)))


# --- batches of training


def test_a_batch_holds_what_the_order_says():
    n, size = 300, 8
    batches = list(stream.batches(examples(n), batch_size=size, seed=4, first=0, last=80))
    assert len(batches) == 80  # two epochs and the beginning of a third
    for update, batch in enumerate(batches):
        expected = stream.order(n, 4, np.arange(update * size, (update + 1) * size))
        assert np.array_equal(batch["index"], expected)
        assert np.array_equal(batch["image"], picture(expected))
        assert np.array_equal(batch["label"], expected * 7 % 5)
        assert batch["weight"].tolist() == [1] * size
    kinds = {key: (value.dtype, value.shape) for key, value in batches[0].items()}
    assert kinds == {
        "image": (np.uint8, (8, 2, 1, 3)),
        "label": (np.int32, (8,)),
        "weight": (np.float32, (8,)),
        "index": (np.int32, (8,)),
    }


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("prefetch", [0, 1, 8])
def test_workers_prefetch_and_a_later_start_change_no_bit(workers, prefetch):
    expected = list(stream.batches(examples(70, in_memory=True), batch_size=40, seed=1, first=0, last=9))
    for first in (0, 1, 5):
        found = stream.batches(
            examples(70, read=uneven), batch_size=40, seed=1, first=first, last=9, workers=workers, prefetch=prefetch
        )
        assert same(found, expected[first:])


def test_updates_have_no_end_unless_one_is_said_and_none_where_all_are_done():
    endless = stream.batches(examples(5), batch_size=2, seed=0, first=10**9)
    index = np.concatenate([next(endless)["index"] for _ in range(3000)])
    assert np.array_equal(index, stream.order(5, 0, 2 * 10**9 + np.arange(6000)))
    assert not list(stream.batches(examples(5), batch_size=2, seed=0, first=7, last=7))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_rows_of_all_hosts_are_the_global_batch(hosts):
    split, common = examples(30, read=uneven), dict(batch_size=8, seed=2, first=3, last=9)
    parts = [list(stream.batches(split, **common, host=host, hosts=hosts, workers=2)) for host in range(hosts)]
    assert all(len(batch["label"]) == 8 // hosts for part in parts for batch in part)
    assert same(map(joined, zip(*parts, strict=True)), stream.batches(split, **common))


def test_a_host_reads_only_its_own_rows():
    reads = []
    split = examples(64, read=lambda index: reads.extend(index) or picture(index))
    list(stream.batches(split, batch_size=16, seed=0, first=0, last=4, host=1, hosts=4))
    assert len(reads) == 16


# --- exact passes


@given(
    st.integers(1, 40),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    st.sampled_from([0, 2]),
    st.booleans(),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_an_ordered_pass_gives_each_example_once_and_pads_with_weight_0(n, hosts, share, workers, in_memory):
    size = hosts * share
    parts = [
        list(stream.ordered_batches(examples(n, in_memory=in_memory), batch_size=size, host=host, hosts=hosts,
                                    workers=workers))
        for host in range(hosts)
    ]  # fmt: skip
    whole = joined([joined(batch) for batch in zip(*parts, strict=True)])
    padding = -n % size
    assert whole["weight"].tolist() == [1] * n + [0] * padding
    assert whole["index"].tolist() == [*range(n)] + [0] * padding
    assert whole["label"].tolist() == [index * 7 % 5 for index in range(n)] + [0] * padding
    assert np.array_equal(whole["image"], picture(whole["index"]))
    assert {key: value.dtype for key, value in whole.items()} == {
        "image": np.uint8, "label": np.int32, "weight": np.float32, "index": np.int32,
    }  # fmt: skip


# --- making them ahead


def settled(value, expected):
    """Waits until value() is as expected, and some more to see that it stays so."""
    end = time.monotonic() + 20
    while value() != expected and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(0.03)
    return value()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_just_prefetch_batches_are_read_and_placed_before_they_are_asked_for(workers, prefetch):
    reads, placed = [], []
    split = examples(1000, read=lambda index: reads.extend(index) or picture(index))
    batches = stream.batches(
        split, batch_size=4, seed=0, first=0, workers=workers, prefetch=prefetch, place=lambda b: placed.append(b) or b
    )
    assert settled(lambda: (len(reads), len(placed)), (0, 0)) == (0, 0)  # nothing before the first is asked for
    for asked in (1, 2, 3):
        next(batches)
        ready = asked + prefetch
        assert settled(lambda: (len(reads), len(placed)), (4 * ready, ready)) == (4 * ready, ready)
    batches.close()


@pytest.mark.parametrize("prefetch", [0, 2])
def test_as_many_threads_as_workers_decode_at_once(prefetch):
    together = threading.Barrier(4, timeout=20)
    split = examples(64, read=lambda index: together.wait() is None or picture(index))
    batches = stream.batches(split, batch_size=8, seed=0, first=0, last=6, workers=4, prefetch=prefetch)
    assert len(list(batches)) == 6  # each read waits for three others


def test_a_split_in_memory_is_read_by_the_caller():
    readers = set()
    split = examples(9, in_memory=True, read=lambda index: readers.add(threading.current_thread()) or picture(index))
    list(stream.batches(split, batch_size=4, seed=0, first=0, last=5, workers=4))
    assert readers == {threading.current_thread()}


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("prefetch", [0, 8])
@pytest.mark.parametrize("where", ["read", "place"])
def test_an_error_comes_up_as_it_is_at_its_own_batch(workers, prefetch, where):
    error = OSError("the disk is gone")
    bad = 9  # in the third batch of four

    def refuse(index, answer):
        if bad in index:
            raise error
        time.sleep(0.002 * (index[0] < bad))  # what comes before is slower
        return answer

    split = examples(24, read=lambda index: refuse(index, picture(index)) if where == "read" else picture(index))
    place = (lambda batch: refuse(batch["index"], batch)) if where == "place" else ahead.keep_on_host
    batches = stream.ordered_batches(split, batch_size=4, workers=workers, prefetch=prefetch, place=place)
    assert [next(batches)["index"][0] for _ in range(2)] == [0, 4]
    with pytest.raises(OSError, match="the disk is gone") as caught:
        next(batches)
    assert caught.value is error
    assert not decoders()


@pytest.mark.parametrize("end", ["close", "forget", "exhaust", "raise"])
def test_threads_end_with_their_generator(end):
    batches = stream.batches(
        examples(50), batch_size=4, seed=0, first=0, last=4 if end == "exhaust" else None, workers=3
    )
    next(batches)
    assert 1 <= len(decoders()) <= 3
    if end == "close":
        batches.close()
    elif end == "exhaust":
        list(batches)
    elif end == "raise":
        with pytest.raises(RuntimeError, match="stop"):
            batches.throw(RuntimeError("stop"))
    del batches
    assert not decoders()


def test_closing_waits_for_no_more_than_the_parts_being_read():
    reads = []
    split = examples(
        5000, read=lambda index: reads.append(len(index)) or time.sleep(2e-3 * len(index)) or picture(index)
    )
    batches = stream.batches(split, batch_size=128, seed=0, first=0, workers=2, prefetch=8)
    next(batches)
    before = len(reads)
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 1  # the 1,000 images ahead would take that long
    assert len(reads) <= before + 8  # of 72 parts ahead
    assert max(reads) <= ahead.ROWS_PER_PART


LEFT_OPEN = """
import sys, time
import numpy as np
from cnn_vit.data.base.splits import Split
from cnn_vit.data.feed import stream

def slow(index):
    time.sleep(0.005 * len(index))
    return np.zeros((len(index), 2, 2, 3), np.uint8)

batches = stream.batches(Split(np.zeros(1000, np.int32), slow, False), batch_size=8, seed=0, first=0, workers=4)
next(batches)
print("jax" in sys.modules)
if len(sys.argv) > 1:
    raise RuntimeError("on the way")
"""


@pytest.mark.parametrize(("words", "code"), [((), 0), (("fail",), 1)])
def test_a_program_that_leaves_its_batches_open_ends_and_needs_no_jax(words, code):
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN, *words], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (code, "False\n")
    assert ended.stderr.rstrip().rpartition("\n")[2] == ("RuntimeError: on the way" if words else "")
    assert "ignored" not in ended.stderr


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [True, False])
def test_no_buffer_is_used_again_after_placing(workers, in_memory):
    pixels = picture(np.arange(40))
    split = examples(40, in_memory=in_memory, read=pixels.__getitem__)
    kept = []

    def place(batch):
        kept.append((batch, {key: value.copy() for key, value in batch.items()}))
        return batch

    list(stream.batches(split, batch_size=8, seed=0, first=0, last=12, workers=workers, prefetch=3, place=place))
    assert same(*zip(*kept, strict=True))
    arrays = [value for batch, _ in kept for value in batch.values()] + [pixels, split.labels]
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_batches_are_placed_on_a_device_from_several_threads():
    expected = list(stream.batches(examples(90), batch_size=16, seed=0, first=0, last=20))
    placed = list(
        stream.batches(examples(90), batch_size=16, seed=0, first=0, last=20, workers=4, place=jax.device_put)
    )
    assert all(isinstance(batch["image"], jax.Array) for batch in placed)
    assert same([jax.device_get(batch) for batch in placed], expected)


# --- what is refused


class Counted(Split):
    """A split that says how many it has, and reads nothing."""

    def __len__(self):
        return self.labels


@pytest.mark.parametrize("make", [stream.batches, stream.ordered_batches])
@pytest.mark.parametrize(
    ("count", "size", "hosts", "says"),
    [
        (2**31, 8, 1, "2,147,483,648 examples; an index has 32 bits: give it from 1 to 2,147,483,647"),
        (0, 8, 1, "0 examples"),
        (9, 0, 1, "data.batch_size is 0; each of 1 hosts takes an equal share: make it 1"),
        (9, 6, 4, "data.batch_size is 6; each of 4 hosts takes an equal share: make it 4 or 8"),
    ],
)
def test_what_cannot_be_cut_is_refused_at_the_call(make, count, size, hosts, says):
    order = dict(seed=0, first=0) if make is stream.batches else {}
    with pytest.raises(UserError) as caught:
        make(Counted(count, picture), batch_size=size, hosts=hosts, **order)
    assert says in str(caught.value)


def test_as_many_examples_as_an_index_can_name_are_taken():
    assert stream.batches(Counted(2**31 - 1, picture), batch_size=8, seed=0, first=0)
