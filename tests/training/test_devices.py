"""One device against four: the same losses, statistics and evaluation, wherever the arrays lie."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from stepping import NOTHING_FROZEN, batch, begun, network_spec, numbers, static

from cnn_vit import trees
from cnn_vit.training import devices, step


@pytest.fixture(scope="module")
def found():
    """What four_devices.py found, in one process for the whole file."""
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"  # compiled in less time
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("four_devices.py")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_twenty_steps_lose_the_same_on_one_device_and_on_four(found, name):
    """By SGD: over 50 AdamW steps a CNN with batch norm drifts by 1e-3."""
    one, four = (found["runs"][f"{name} {count}"]["losses"] for count in (1, 4))
    assert len(one) == 20
    np.testing.assert_allclose(four, one, rtol=1e-4)
    assert len(set(np.round(one, 3))) > 10  # it does learn


def test_batch_norm_sees_the_global_batch(found):
    """Each device's quarter of the batch is of another brightness; the mean of the quarters' variances is smaller."""
    one, four = (found["runs"][f"cnn {count}"]["statistics"] for count in (1, 4))
    for whole, parts in zip(one, four, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize("count", [1, 4])
def test_every_device_holds_the_whole_state_after_twenty_steps_of_one_compilation(found, name, count):
    run = found["runs"][f"{name} {count}"]
    assert (run["whole"], run["compiled"]) == (True, 1)


def test_a_pattern_sends_a_kernel_in_parts_and_the_step_keeps_it_there(found):
    """Momentum goes where its parameter goes; the moving average is kept whole by a rule that comes first."""
    parted, whole = (found["sharded"][name] for name in ("parted", "whole"))
    assert whole["parted"] == []
    assert parted["parted"] == ["opt/1/1/trace/hidden/layers/0/kernel", "params/hidden/layers/0/kernel"]
    assert (whole["piece"], parted["piece"]) == ([16, 8], [4, 8])
    assert (whole["compiled"], parted["compiled"]) == (1, 1)  # a state that moved would be compiled for again


def test_neither_where_a_kernel_lies_nor_the_number_of_devices_changes_a_value(found):
    """With dropout and two micro-batches: chance and the cut are those of the global batch."""
    parted, whole, alone = (found["sharded"][name]["values"] for name in ("parted", "whole", "alone"))
    np.testing.assert_allclose(parted, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)


def test_rows_are_split_evenly_and_in_order(found):
    placed = found["placed"]
    assert placed["devices"] == 4
    assert placed["index"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(rows == [2, 2, 2, 2] for rows in placed["rows"].values())


def test_a_batch_is_filled_up_to_a_multiple_of_the_devices(found):
    assert found["placed"]["fills"] == [4, 4, 8, 512]


@pytest.mark.parametrize("size", [1, 7, 512])
@pytest.mark.parametrize("count", [1, 4])
def test_evaluation_is_exact_whatever_the_batch_size_and_the_devices(found, size, count):
    judged, reference = found["judged"][f"{size} on {count}"], found["judged"]["7 on 1"]
    assert (judged["n"], judged["index"]) == (61, list(range(61)))
    assert judged["loss"] == pytest.approx(reference["loss"], rel=1e-6, abs=1e-7)
    ties = set(judged["near_ties"]) | set(reference["near_ties"])
    assert abs(judged["accuracy"] - reference["accuracy"]) * 61 <= len(ties) + 1e-9
    assert len(ties) < 3
    assert 0 < judged["accuracy"] < 1


# On one device


def test_the_first_rule_found_in_a_path_decides():
    tree = {"head": {"kernel": np.zeros((4, 4)), "bias": np.zeros(4)}, "stages": {0: {"kernel": np.zeros((4, 4))}}}
    rules = (("stages/0/kernel$", PartitionSpec(None, "data")), ("kernel$", PartitionSpec("data")))
    placed = devices.shardings(tree, devices.mesh(), rules)
    specs = {trees.path_text(path): place.spec for path, place in jax.tree_util.tree_leaves_with_path(placed)}
    assert specs == {
        "head/bias": PartitionSpec(),
        "head/kernel": PartitionSpec("data"),
        "stages/0/kernel": PartitionSpec(None, "data"),
    }


def aligned(array):
    """The same values where JAX on a CPU uses the host's memory as its own: at a multiple of 64 bytes."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def test_learning_does_not_write_into_the_arrays_it_was_started_from():
    built = step.build_step(static(network_spec(), ema=True), devices.mesh())
    host = jax.tree.map(aligned, jax.tree.map(np.asarray, begun(built)))
    before = trees.digest(host)
    state, given = devices.place(host, devices.mesh()), jax.device_put(numbers(momentum=0.9))
    for _ in range(3):
        state, _ = built.learn(state, NOTHING_FROZEN, devices.place_batch(batch(), devices.mesh()), given)
    assert trees.digest(host) == before
    assert trees.digest(state) != before


def test_what_the_only_cpu_takes_from_the_hosts_memory_gives_the_bits_of_what_was_put_there():
    on = devices.mesh()
    built, given = step.build_step(static(), on), jax.device_put(numbers(), devices.replicated_sharding(on))
    kept = devices.place_batch(batch(), on)
    assert all(isinstance(leaf, np.ndarray) for leaf in kept.values())
    put = jax.device_put(batch(), devices.batch_sharding(on))
    states = [built.learn(begun(built), NOTHING_FROZEN, one, given) for one in (kept, put)]
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, other)
