"""Whole runs on four devices, begun there or on one: the commands give the same results as on one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from four_device_runs import SIZES, evaluate_run
from quick import QUICK, write_flags
from running import call_at_step, read_result, send_signal, train, train_lines

from cnn_vit import stops
from cnn_vit.errors import StoppedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs `one`, `stopped` and `four`, the latter two finished on four devices. To be read, not changed."""
    folder = tmp_path_factory.mktemp("runs")
    train("mlp", folder / "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
        call_at_step(patch, 3, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", folder / "stopped")
    flags = f"--xla_force_host_platform_device_count=4 {write_flags(QUICK)}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, Path(__file__).with_name("four_device_runs.py"), folder]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-3000:]
    (folder / "report.json").write_text(process.stdout)
    return folder


@pytest.fixture
def report(folder):
    """What four_device_runs.py printed."""
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def answers_on_one(folder):
    """What evaluation on one device answers, by run and batch size."""
    return {name: evaluate_run(folder / name) for name in ("one", "four")}


def read_losses(folder):
    return [line["loss"] for line in train_lines(folder)]


def quarters(rows):
    """So many rows, split evenly over four devices."""
    return {str(device): rows // 4 for device in range(4)}


def test_a_step_finds_a_quarter_of_its_batch_on_each_device_and_leaves_its_state_on_all(report):
    for name, steps in (("train", 12), ("resume", 9)):
        assert report[name]["learned"] == [quarters(32)] * 4 * steps  # image, index, label and weight of each step
        assert {tuple(rows) for rows in report[name]["state"]} == {("0", "1", "2", "3")}


def test_batches_are_on_the_devices_before_the_step_asks_for_them(report):
    """Of a split in memory, the one asked for and the `data.prefetch` that follow."""
    assert (report["train"]["first"], report["resume"]["first"]) == (3, 3)


def test_what_is_evaluated_lies_in_quarters_whatever_the_batch_size(report):
    assert report["train"]["evaluated"]
    assert all(rows == quarters(64) for rows in report["train"]["evaluated"])
    evaluated = report["evaluate"]["evaluated"]
    assert all(rows in (quarters(12), quarters(64)) for rows in evaluated)
    assert len(evaluated) == 2 * 4 * (6 + 1)  # runs, arrays, batches of 12 and of 64
    assert {tuple(rows) for rows in report["evaluate"]["scores"]} == {("0", "1", "2", "3")}


def test_a_run_records_its_devices_and_has_the_losses_of_a_run_on_one(folder):
    for name, count in (("one", 1), ("four", 4)):
        environment = json.loads((folder / name / "environment.json").read_text())
        assert environment["devices"]["count"] == count
    np.testing.assert_allclose(read_losses(folder / "four"), read_losses(folder / "one"), rtol=1e-4)
    on_one, on_four = read_result(folder / "one"), read_result(folder / "four")
    assert on_four["steps"] == on_one["steps"] == 12
    assert on_four["fingerprint"] == on_one["fingerprint"]
    for split in ("validation", "test"):
        assert on_four[split]["loss"] == pytest.approx(on_one[split]["loss"], rel=1e-4)
        assert abs(on_four[split]["accuracy"] - on_one[split]["accuracy"]) * 64 <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["one", "four"])
def test_evaluate_answers_the_same_on_one_device_and_on_four(folder, report, answers_on_one, name, size):
    on_one, on_four = answers_on_one[name][size], report["evaluate"]["answer"][name][str(size)]
    assert on_four | {"loss": 0} == on_one | {"loss": 0}
    assert (on_one["n"], on_one["near_ties"]) == (64, [])
    assert on_four["loss"] == pytest.approx(on_one["loss"], rel=1e-6)
    assert on_four["accuracy"] == read_result(folder / name)["validation"]["accuracy"]


def test_a_run_begun_on_one_device_goes_on_on_four_and_says_so(folder, report):
    _, stderr = report["resume"]["answer"]
    assert stderr.splitlines()[:2] == [
        "going on from step 3 of 12",
        "this run goes on where bits may differ from its beginning: device count 1 then, 4 now",
    ]
    environment = json.loads((folder / "stopped" / "environment.json").read_text())
    counts_resumed = [later["devices"]["count"] for later in environment["resumed"]]
    assert (environment["devices"]["count"], counts_resumed) == (1, [4])
    assert read_result(folder / "stopped")["steps"] == 12
    np.testing.assert_allclose(read_losses(folder / "stopped"), read_losses(folder / "one"), rtol=1e-4)
