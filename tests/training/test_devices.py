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
from quick import QUICK, write_flags
from stepping import (
    NOTHING_FROZEN,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_step_spec,
)

from cnn_vit import trees
from cnn_vit.training import devices, step


@pytest.fixture(scope="module")
def report():
    """What four_devices.py printed, run once for the whole file."""
    flags = f"--xla_force_host_platform_device_count=4 {write_flags(QUICK)}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, Path(__file__).with_name("four_devices.py")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", ["cnn", "vit"])
def test_twenty_steps_have_the_same_losses_on_one_device_and_on_four(report, name):
    """By SGD: over 50 AdamW steps a CNN with batch norm drifts by 1e-3."""
    on_one, on_four = (report["networks"][f"{name} {count}"]["losses"] for count in (1, 4))
    assert len(on_one) == 20
    np.testing.assert_allclose(on_four, on_one, rtol=1e-4)
    assert len(set(np.round(on_one, 3))) > 10  # it does learn


def test_batch_norm_sees_the_global_batch(report):
    """Each device's quarter of the batch is of another brightness; the mean of the quarters' variances is smaller."""
    on_one, on_four = (report["networks"][f"cnn {count}"]["statistics"] for count in (1, 4))
    for expected, statistics in zip(on_one, on_four, strict=True):
        np.testing.assert_allclose(statistics, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cnn", "vit"])
@pytest.mark.parametrize("count", [1, 4])
def test_every_device_holds_the_whole_state_after_twenty_steps_of_one_compilation(report, name, count):
    outcome = report["networks"][f"{name} {count}"]
    assert (outcome["is_whole"], outcome["compilations"]) == (True, 1)


def test_a_rule_splits_a_kernel_over_the_devices_and_the_step_keeps_it_there(report):
    """Momentum goes where its parameter goes; the moving average is kept whole by a rule that comes first."""
    in_quarters, whole = (report["rules"][name] for name in ("in quarters", "whole"))
    assert whole["split_paths"] == []
    assert in_quarters["split_paths"] == ["opt/1/1/trace/hidden/layers/0/kernel", "params/hidden/layers/0/kernel"]
    assert (whole["piece_shape"], in_quarters["piece_shape"]) == ([16, 8], [4, 8])
    # a state that moved would be compiled for again
    assert (whole["compilations"], in_quarters["compilations"]) == (1, 1)


def test_neither_where_a_kernel_lies_nor_the_number_of_devices_changes_a_value(report):
    """With dropout and two micro-batches: random numbers and micro-batches are those of the global batch."""
    in_quarters, whole, on_one = (report["rules"][name]["values"] for name in ("in quarters", "whole", "on one"))
    np.testing.assert_allclose(in_quarters, on_one, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole, on_one, rtol=1e-5, atol=1e-6)


def test_rows_are_split_evenly_and_in_order(report):
    batch = report["batch"]
    assert batch["devices"] == 4
    assert batch["index"] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert all(rows == [2, 2, 2, 2] for rows in batch["rows"].values())


def test_a_batch_size_is_rounded_up_to_a_multiple_of_the_devices(report):
    assert report["batch"]["rounded_sizes"] == [4, 4, 8, 512]


@pytest.mark.parametrize("size", [1, 7, 512])
@pytest.mark.parametrize("count", [1, 4])
def test_evaluation_is_exact_whatever_the_batch_size_and_the_devices(report, size, count):
    metrics, reference = report["evaluation"][f"{size} on {count}"], report["evaluation"]["7 on 1"]
    assert (metrics["n"], metrics["index"]) == (61, list(range(61)))
    assert metrics["loss"] == pytest.approx(reference["loss"], rel=1e-6, abs=1e-7)
    near_ties = set(metrics["near_ties"]) | set(reference["near_ties"])
    assert abs(metrics["accuracy"] - reference["accuracy"]) * 61 <= len(near_ties) + 1e-9
    assert len(near_ties) < 3
    assert 0 < metrics["accuracy"] < 1


# On one device --------------------------------------------------------------------------------------------------------


def test_the_first_rule_found_in_a_path_decides():
    tree = {"head": {"kernel": np.zeros((4, 4)), "bias": np.zeros(4)}, "stages": {0: {"kernel": np.zeros((4, 4))}}}
    rules = (("stages/0/kernel$", PartitionSpec(None, "data")), ("kernel$", PartitionSpec("data")))
    shardings = devices.shardings(tree, devices.mesh(), rules)
    specs = {}
    for path, sharding in jax.tree_util.tree_leaves_with_path(shardings):
        specs[trees.path_text(path)] = sharding.spec
    assert specs == {
        "head/bias": PartitionSpec(),
        "head/kernel": PartitionSpec("data"),
        "stages/0/kernel": PartitionSpec(None, "data"),
    }


def align(array):
    """Copies an array to a multiple of 64 bytes, where JAX on a CPU uses the host's memory as its own."""
    raw = np.zeros(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    view = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def test_learning_does_not_write_into_the_arrays_it_was_started_from():
    mesh = devices.mesh()
    built_step = step.build_step(make_step_spec(make_network_spec(), ema=True), mesh)
    host_state = jax.tree.map(align, jax.tree.map(np.asarray, make_initial_state(built_step)))
    digest_before = trees.digest(host_state)
    hyperparameters = jax.device_put(make_hyperparameters(optimizer=dict(momentum=0.9, weight_decay=0)))
    state = devices.place(host_state, mesh)
    for _ in range(3):
        state, _ = built_step.learn(state, NOTHING_FROZEN, devices.place_batch(make_batch(), mesh), hyperparameters)
    assert trees.digest(host_state) == digest_before
    assert trees.digest(state) != digest_before


def test_a_batch_in_the_hosts_memory_gives_the_same_bits_as_one_put_on_the_only_cpu():
    mesh = devices.mesh()
    built_step = step.build_step(make_step_spec(), mesh)
    hyperparameters = jax.device_put(make_hyperparameters(), devices.replicated_sharding(mesh))
    host_batch = devices.place_batch(make_batch(), mesh)
    assert all(isinstance(leaf, np.ndarray) for leaf in host_batch.values())
    device_batch = jax.device_put(make_batch(), devices.batch_sharding(mesh))
    from_host = built_step.learn(make_initial_state(built_step), NOTHING_FROZEN, host_batch, hyperparameters)
    from_device = built_step.learn(make_initial_state(built_step), NOTHING_FROZEN, device_batch, hyperparameters)
    for leaf, expected in zip(*map(jax.tree.leaves, (from_host, from_device)), strict=True):
        np.testing.assert_array_equal(leaf, expected)
