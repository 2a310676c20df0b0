"""Whole runs on four devices, begun there or on one: the commands give there what they give on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from four_device_runs import SIZES, evaluated
from running import at_step, lines, result, signaled, train

from cnn_vit.errors import StoppedError
from cnn_vit.training import stops


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs `one`, `stopped` and `four`, the latter two finished on four devices. To be read, not changed."""
    folder = tmp_path_factory.mktemp("runs")
    train("mlp", folder / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # no echo to be waited for
        at_step(patch, 3, signaled)
        with pytest.raises(StoppedError):
            train("mlp", folder / "stopped")
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"  # compiled in less time
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    words = [sys.executable, Path(__file__).with_name("four_device_runs.py"), folder]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "found.json").write_text(done.stdout)
    return folder


@pytest.fixture
def found(folder):
    """What four_device_runs.py saw."""
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def alone(folder):
    """What evaluation on one device says of a run, by batch size."""
    return {name: evaluated(folder / name) for name in ("one", "four")}


def losses(folder):
    return [line["loss"] for line in lines(folder) if line["kind"] == "train"]


def quarters(size):
    return {str(device): size // 4 for device in range(4)}


def test_a_step_finds_a_quarter_of_its_batch_on_each_device_and_leaves_its_state_on_all(found):
    for name, count in (("train", 12), ("resume", 9)):
        assert found[name]["learned"] == [quarters(32)] * 4 * count  # image, index, label and weight of each step
        assert {tuple(devices) for devices in found[name]["state"]} == {("0", "1", "2", "3")}


def test_batches_are_on_the_devices_before_the_step_asks_for_them(found):
    """Of a split in memory, the one asked for and the `data.prefetch` that follow."""
    assert (found["train"]["first"], found["resume"]["first"]) == (3, 3)


def test_what_is_judged_lies_in_quarters_whatever_the_batch_size(found):
    assert found["train"]["judged"]
    assert all(batch == quarters(64) for batch in found["train"]["judged"])
    batches = found["evaluate"]["judged"]
    assert all(batch in (quarters(12), quarters(64)) for batch in batches)
    assert len(batches) == 2 * 4 * (6 + 1)  # runs, arrays, batches of 12 and of 64
    assert {tuple(devices) for devices in found["evaluate"]["scores"]} == {("0", "1", "2", "3")}


def test_a_run_writes_down_its_devices_and_loses_what_it_loses_on_one(folder):
    for name, count in (("one", 1), ("four", 4)):
        assert json.loads((folder / name / "environment.json").read_text())["devices"]["count"] == count
    np.testing.assert_allclose(losses(folder / "four"), losses(folder / "one"), rtol=1e-4)
    one, four = (result(folder / name) for name in ("one", "four"))
    assert four["steps"] == one["steps"] == 12
    assert four["fingerprint"] == one["fingerprint"]
    for split in ("validation", "test"):
        assert four[split]["loss"] == pytest.approx(one[split]["loss"], rel=1e-4)
        assert abs(four[split]["accuracy"] - one[split]["accuracy"]) * 64 <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["one", "four"])
def test_evaluate_says_the_same_of_a_run_on_one_device_and_on_four(folder, found, alone, name, size):
    here, there = alone[name][size], found["evaluate"]["answer"][name][str(size)]
    assert there | {"loss": 0} == here | {"loss": 0}
    assert (here["n"], here["near_ties"]) == (64, [])
    assert there["loss"] == pytest.approx(here["loss"], rel=1e-6)
    assert there["accuracy"] == result(folder / name)["validation"]["accuracy"]


def test_a_run_begun_on_one_device_goes_on_on_four_and_says_so(folder, found):
    _, err = found["resume"]["answer"]
    assert err.splitlines()[:2] == [
        "going on from step 3 of 12",
        "this run goes on where bits may differ from its beginning: device count 1 then, 4 now",
    ]
    facts = json.loads((folder / "stopped" / "environment.json").read_text())
    assert (facts["devices"]["count"], [one["devices"]["count"] for one in facts["resumed"]]) == (1, [4])
    assert result(folder / "stopped")["steps"] == 12
    np.testing.assert_allclose(losses(folder / "stopped"), losses(folder / "one"), rtol=1e-4)
