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
from cnn_vit.data.feed import prefetch, stream
from cnn_vit.errors import UserError

PRIMES = (307, 997, 7_919, 65_537, 99_991)
NEAR_POWERS = tuple(2**power + more for power in range(9, 18) for more in (-1, 0, 1))
RARE = 1e-4  # probability that an even order fails one of the tests of evenness


def pixels_of(index):
    """The images of some examples, (n, 2, 1, 3): their pixels tell which examples they are."""
    channels = np.stack([index % 256, index // 256, index % 7], axis=-1).astype(np.uint8)
    return channels[:, None, None, :].repeat(2, axis=1)


def read_late(index):
    """Reads that take turns in being late."""
    time.sleep(int(index[0]) % 4 * 5e-4)
    return pixels_of(index)


def make_split(n, *, in_memory=False, read=pixels_of):
    return Split((np.arange(n) * 7 % 5).astype(np.int32), read, in_memory)


def are_same_batches(batches, expected_batches):
    for batch, expected in zip(batches, expected_batches, strict=True):
        if batch.keys() != expected.keys():
            return False
        for key, array in batch.items():
            if array.dtype != expected[key].dtype or not np.array_equal(array, expected[key]):
                return False
    return True


def join_rows(batches):
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def decoding_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


# --- the order


@pytest.mark.parametrize("sizes", [range(1, 301), PRIMES, NEAR_POWERS], ids=["to 300", "primes", "powers of two"])
def test_each_epoch_is_a_permutation(sizes):
    for n in sizes:
        for seed, epoch in ((0, 0), (3, 11)):
            examples = stream.order(n, seed, np.arange(n) + epoch * n)
            assert np.array_equal(np.sort(examples), np.arange(n)), (n, seed, epoch)


def order_by_hand(n, seed, position):
    """The example at one position, in Python's own whole numbers."""
    epoch, value = divmod(position, n)
    digest = hashlib.shake_256(f"order {seed} {epoch}".encode()).digest(128)
    keys = [int.from_bytes(digest[start : start + 8], "little") for start in range(0, 128, 8)]
    low = next(side for side in range(2, n + 3, 2) if side * side >= n)
    high = (n + low - 1) // low

    def hash_uint64(x):
        x %= 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return (x ^ (x >> 31)) // 2

    while True:
        left, right = divmod(value, low)
        for turn, key in enumerate(keys):
            if turn % 2 == 0:
                left = (left + hash_uint64(right + key)) % high
            else:
                right = (right + hash_uint64(left + key)) % low
        value = left * low + right
        if value < n:
            return value


@given(st.integers(1, 3000), st.integers(0, 2**31 - 1), st.integers(0, 10**12))
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_the_order_is_that_of_plain_whole_numbers(n, seed, position):
    assert stream.order(n, seed, np.array([position])).tolist() == [order_by_hand(n, seed, position)]


def test_any_positions_are_answered_alone_and_across_epochs():
    n = 5
    epoch_by_epoch = np.concatenate([stream.order(n, 1, np.arange(n) + epoch * n) for epoch in range(40)])
    assert np.array_equal(stream.order(n, 1, np.arange(3, 190)), epoch_by_epoch[3:190])  # many epochs at once
    positions = np.array([[7, 199, 0], [55, 55, 3]])
    assert np.array_equal(stream.order(n, 1, positions), epoch_by_epoch[positions])
    assert stream.order(n, 1, np.zeros((0,), np.int64)).shape == (0,)


def test_epochs_and_seeds_differ():
    seeds, epochs = (0, 1, 2, 11, 111, 2**31 - 1), (0, 1, 2, 11, 111, 10**9)
    orders = set()
    for seed, epoch in itertools.product(seeds, epochs):
        orders.add(tuple(stream.order(40, seed, np.arange(40) + 40 * epoch)))
    assert len(orders) == len(seeds) * len(epochs)


@pytest.mark.parametrize("n", [4, 10, 33, 1000])
def test_the_first_example_is_evenly_drawn_over_seeds_and_over_epochs(n):
    by_epoch = stream.order(n, 5, np.arange(6000) * n)
    by_seed = np.array([stream.order(n, seed, np.array([0]))[0] for seed in range(2000)])
    for first_examples in (by_epoch, by_seed):
        bins = min(n, 20)
        counts = np.bincount(first_examples * bins // n, minlength=bins)
        bin_sizes = np.bincount(np.arange(n) * bins // n)
        assert stats.chisquare(counts, len(first_examples) * bin_sizes / n).pvalue > RARE


@pytest.mark.parametrize("n", [3, 4, 5])
def test_all_orders_of_a_few_examples_are_equally_frequent(n):
    orders = stream.order(n, 0, np.arange(20_000 * n)).reshape(-1, n)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == {3: 6, 4: 24, 5: 120}[n]
    assert stats.chisquare(counts).pvalue > RARE


@pytest.mark.parametrize("n", [50, 64])
def test_neighbors_in_the_order_are_not_neighbors_in_the_data(n):
    orders = stream.order(n, 2, np.arange(1000 * n)).reshape(-1, n)
    steps = np.diff(orders, axis=1) % n  # from one example to the next
    assert stats.chisquare(np.bincount(steps.ravel(), minlength=n)[1:]).pvalue > RARE
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    assert not pairs.diagonal().any()
    assert pairs.max() <= 8  # 1,000 pairs over n (n - 1) cells: 9 in a cell has probability 1e-9


def test_half_of_the_orders_are_even():
    orders = stream.order(7, 0, np.arange(7 * 4000)).reshape(-1, 7)
    inversions = sum((orders[:, i] > orders[:, j]).astype(int) for i, j in itertools.combinations(range(7), 2))
    assert stats.binomtest(int((inversions % 2 == 0).sum()), 4000).pvalue > RARE


def test_ten_billion_examples_are_ordered_without_a_list():
    n = 10**10
    examples = stream.order(n, 0, np.concatenate([np.arange(5000), n - 1 - np.arange(5000)]))
    assert examples.dtype == np.int64
    assert len(set(examples.tolist())) == 10_000
    assert examples.min() >= 0
    assert examples.max() < n
    assert stats.kstest(examples / n, "uniform").pvalue > RARE
    assert examples[:10].tolist() == [order_by_hand(n, 0, position) for position in range(10)]


def test_the_key_is_a_typed_key_of_the_seed():
    assert jax.dtypes.issubdtype(stream.key(3).dtype, jax.dtypes.prng_key)
    assert np.array_equal(jax.random.key_data(stream.key(3)), jax.random.key_data(jax.random.key(3)))


# --- batches of training


def test_a_batch_holds_what_the_order_says():
    n, batch_size = 300, 8
    batches = list(stream.batches(make_split(n), batch_size=batch_size, seed=4, start=0, stop=80))
    assert len(batches) == 80  # two epochs and the beginning of a third
    for update, batch in enumerate(batches):
        examples = stream.order(n, 4, np.arange(update * batch_size, (update + 1) * batch_size))
        assert np.array_equal(batch["index"], examples)
        assert np.array_equal(batch["image"], pixels_of(examples))
        assert np.array_equal(batch["label"], examples * 7 % 5)
        assert batch["weight"].tolist() == [1] * batch_size
    assert {key: (array.dtype, array.shape) for key, array in batches[0].items()} == {
        "image": (np.uint8, (8, 2, 1, 3)),
        "label": (np.int32, (8,)),
        "weight": (np.float32, (8,)),
        "index": (np.int32, (8,)),
    }


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("batches_ahead", [0, 1, 8])
def test_workers_batches_ahead_and_a_later_start_change_no_bit(workers, batches_ahead):
    expected = list(stream.batches(make_split(70, in_memory=True), batch_size=40, seed=1, start=0, stop=9))
    split = make_split(70, read=read_late)
    for first in (0, 1, 5):
        batches = stream.batches(
            split, batch_size=40, seed=1, start=first, stop=9, workers=workers, batches_ahead=batches_ahead
        )
        assert are_same_batches(batches, expected[first:])


def test_updates_have_no_end_unless_one_is_set_and_there_are_none_where_all_are_done():
    endless = stream.batches(make_split(5), batch_size=2, seed=0, start=10**9)
    index = np.concatenate([next(endless)["index"] for _ in range(3000)])
    assert np.array_equal(index, stream.order(5, 0, 2 * 10**9 + np.arange(6000)))
    assert not list(stream.batches(make_split(5), batch_size=2, seed=0, start=7, stop=7))


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_the_rows_of_all_hosts_are_the_global_batch(hosts):
    split = make_split(30, read=read_late)
    batches_of_hosts = []
    for host in range(hosts):
        batches = list(stream.batches(split, batch_size=8, seed=2, start=3, stop=9, host=host, hosts=hosts, workers=2))
        assert all(len(batch["label"]) == 8 // hosts for batch in batches)
        batches_of_hosts.append(batches)
    global_batches = stream.batches(split, batch_size=8, seed=2, start=3, stop=9)
    assert are_same_batches(map(join_rows, zip(*batches_of_hosts, strict=True)), global_batches)


def test_a_host_reads_only_its_own_rows():
    examples_read = []

    def read(index):
        examples_read.extend(index)
        return pixels_of(index)

    list(stream.batches(make_split(64, read=read), batch_size=16, seed=0, start=0, stop=4, host=1, hosts=4))
    assert len(examples_read) == 16


# --- exact passes


@given(
    st.integers(1, 40),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 6),
    st.sampled_from([0, 2]),
    st.booleans(),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_an_ordered_pass_gives_each_example_once_and_pads_with_weight_0(n, hosts, host_rows, workers, in_memory):
    batch_size = hosts * host_rows
    split = make_split(n, in_memory=in_memory)
    batches_of_hosts = []
    for host in range(hosts):
        batches = stream.evaluation_batches(split, batch_size=batch_size, host=host, hosts=hosts, workers=workers)
        batches_of_hosts.append(list(batches))
    all_rows = join_rows([join_rows(batch) for batch in zip(*batches_of_hosts, strict=True)])
    padding = -n % batch_size
    assert all_rows["weight"].tolist() == [1] * n + [0] * padding
    assert all_rows["index"].tolist() == [*range(n)] + [0] * padding
    assert all_rows["label"].tolist() == [index * 7 % 5 for index in range(n)] + [0] * padding
    assert np.array_equal(all_rows["image"], pixels_of(all_rows["index"]))
    assert {key: array.dtype for key, array in all_rows.items()} == {
        "image": np.uint8, "label": np.int32, "weight": np.float32, "index": np.int32,
    }  # fmt: skip


# --- making them ahead


def wait_until(value, expected):
    """Waits until value() is as expected, and some more to see that it stays so; returns it."""
    end = time.monotonic() + 20
    while value() != expected and time.monotonic() < end:
        time.sleep(0.002)
    time.sleep(0.03)
    return value()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batches_ahead", [0, 1, 3])
def test_just_so_many_batches_are_read_and_placed_ahead_of_the_one_asked_for(workers, batches_ahead):
    examples_read, placed = [], []

    def read(index):
        examples_read.extend(index)
        return pixels_of(index)

    def place(batch):
        placed.append(batch)
        return batch

    def counts():
        return len(examples_read), len(placed)

    batches = stream.batches(
        make_split(1000, read=read),
        batch_size=4,
        seed=0,
        start=0,
        workers=workers,
        batches_ahead=batches_ahead,
        place=place,
    )
    assert wait_until(counts, (0, 0)) == (0, 0)  # nothing before the first is asked for
    for asked in (1, 2, 3):
        next(batches)
        count = asked + batches_ahead
        assert wait_until(counts, (4 * count, count)) == (4 * count, count)
    batches.close()


@pytest.mark.parametrize("batches_ahead", [0, 2])
def test_as_many_threads_as_workers_decode_at_once(batches_ahead):
    barrier = threading.Barrier(4, timeout=20)

    def read(index):
        barrier.wait()  # for three other reads
        return pixels_of(index)

    split = make_split(64, read=read)
    batches = stream.batches(split, batch_size=8, seed=0, start=0, stop=6, workers=4, batches_ahead=batches_ahead)
    assert len(list(batches)) == 6


def test_a_split_in_memory_is_read_by_the_caller():
    readers = set()

    def read(index):
        readers.add(threading.current_thread())
        return pixels_of(index)

    split = make_split(9, in_memory=True, read=read)
    list(stream.batches(split, batch_size=4, seed=0, start=0, stop=5, workers=4))
    assert readers == {threading.current_thread()}


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batches_ahead", [0, 8])
@pytest.mark.parametrize("failing", ["read", "place"])
def test_an_error_comes_up_as_it_is_at_its_own_batch(workers, batches_ahead, failing):
    error = OSError("the disk is gone")
    bad_example = 9  # in the third batch of four

    def fail_at_bad_example(index):
        if bad_example in index:
            raise error
        time.sleep(0.002 * (index[0] < bad_example))  # what comes before is slower

    def read(index):
        if failing == "read":
            fail_at_bad_example(index)
        return pixels_of(index)

    def place(batch):
        if failing == "place":
            fail_at_bad_example(batch["index"])
        return batch

    split = make_split(24, read=read)
    batches = stream.evaluation_batches(split, batch_size=4, workers=workers, batches_ahead=batches_ahead, place=place)
    assert [next(batches)["index"][0] for _ in range(2)] == [0, 4]
    with pytest.raises(OSError, match="the disk is gone") as caught:
        next(batches)
    assert caught.value is error
    assert not decoding_threads()


@pytest.mark.parametrize("end", ["close", "forget", "exhaust", "raise"])
def test_threads_end_with_their_generator(end):
    last = 4 if end == "exhaust" else None
    batches = stream.batches(make_split(50), batch_size=4, seed=0, start=0, stop=last, workers=3)
    next(batches)
    assert 1 <= len(decoding_threads()) <= 3
    if end == "close":
        batches.close()
    elif end == "exhaust":
        list(batches)
    elif end == "raise":
        with pytest.raises(RuntimeError, match="stop"):
            batches.throw(RuntimeError("stop"))
    del batches
    assert not decoding_threads()


def test_closing_waits_for_no_more_than_the_parts_being_read():
    part_sizes = []

    def read(index):
        part_sizes.append(len(index))
        time.sleep(2e-3 * len(index))
        return pixels_of(index)

    split = make_split(5000, read=read)
    batches = stream.batches(split, batch_size=128, seed=0, start=0, workers=2, batches_ahead=8)
    next(batches)
    parts_before = len(part_sizes)
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 1  # the 1,000 images ahead would take that long
    assert len(part_sizes) <= parts_before + 8  # of 72 parts ahead
    assert max(part_sizes) <= prefetch.ROWS_PER_PART


LEFT_OPEN = """
import sys, time
import numpy as np
from cnn_vit.data.base.splits import Split
from cnn_vit.data.feed import stream

def slow(index):
    time.sleep(0.005 * len(index))
    return np.zeros((len(index), 2, 2, 3), np.uint8)

batches = stream.batches(Split(np.zeros(1000, np.int32), slow, False), batch_size=8, seed=0, start=0, workers=4)
next(batches)
print("jax" in sys.modules)
if len(sys.argv) > 1:
    raise RuntimeError("on the way")
"""


@pytest.mark.parametrize(("words", "code"), [((), 0), (("fail",), 1)])
def test_a_program_that_leaves_its_batches_open_ends_and_needs_no_jax(words, code):
    ended = subprocess.run([sys.executable, "-c", LEFT_OPEN, *words], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (code, "False\n")
    assert ended.stderr.rstrip().rpartition("\n")[2] == ("RuntimeError: on the way" if words else "")
    assert "ignored" not in ended.stderr


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("in_memory", [True, False])
def test_no_buffer_is_used_again_after_placing(workers, in_memory):
    pixels = pixels_of(np.arange(40))
    split = make_split(40, in_memory=in_memory, read=pixels.__getitem__)
    placed, copies = [], []

    def place(batch):
        placed.append(batch)
        copies.append({key: array.copy() for key, array in batch.items()})
        return batch

    list(stream.batches(split, batch_size=8, seed=0, start=0, stop=12, workers=workers, batches_ahead=3, place=place))
    assert are_same_batches(placed, copies)
    arrays = [pixels, split.labels]
    for batch in placed:
        arrays += batch.values()
    spans = sorted((array.ctypes.data, array.ctypes.data + array.nbytes) for array in arrays)  # in memory
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_batches_are_placed_on_a_device_from_several_threads():
    split = make_split(90)
    expected = list(stream.batches(split, batch_size=16, seed=0, start=0, stop=20))
    placed = list(stream.batches(split, batch_size=16, seed=0, start=0, stop=20, workers=4, place=jax.device_put))
    assert all(isinstance(batch["image"], jax.Array) for batch in placed)
    assert are_same_batches([jax.device_get(batch) for batch in placed], expected)


# --- what is refused


class SplitOfCount(Split):
    """A split that has a number of examples in place of its labels, and reads nothing."""

    def __len__(self):
        return self.labels


@pytest.mark.parametrize("make_batches", [stream.batches, stream.evaluation_batches])
@pytest.mark.parametrize(
    ("count", "batch_size", "hosts", "sentence"),
    [
        (2**31, 8, 1, "2,147,483,648 examples; an index has 32 bits: give it from 1 to 2,147,483,647"),
        (0, 8, 1, "a split has no examples; batches need at least 1: give it some"),
        (9, 0, 1, "data.batch_size is 0; each of 1 hosts takes an equal share: make it 1"),
        (9, 6, 4, "data.batch_size is 6; each of 4 hosts takes an equal share: make it 4 or 8"),
    ],
)
def test_a_split_that_cannot_be_cut_into_batches_is_refused_at_the_call(
    make_batches, count, batch_size, hosts, sentence
):
    order = dict(seed=0, start=0) if make_batches is stream.batches else {}
    with pytest.raises(UserError) as caught:
        make_batches(SplitOfCount(count, pixels_of), batch_size=batch_size, hosts=hosts, **order)
    assert sentence in str(caught.value)


def test_as_many_examples_as_an_index_can_name_are_accepted():
    assert stream.batches(SplitOfCount(2**31 - 1, pixels_of), batch_size=8, seed=0, start=0)
