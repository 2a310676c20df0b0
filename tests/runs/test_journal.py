"""The journal: the same run writes the same bytes, and a stopped run goes on as if it had not been stopped."""

import json
import os
import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.errors import SurroundingsError
from cnn_vit.runs import journal
from cnn_vit.runs.journal import Journal

MEASURES = {"loss": 2.5, "accuracy": 0.5, "learning_rate": 0.1, "gradient_norm": 3.0}


def write_journal(folder, steps, *, start=0):
    """Writes the journal of a run that logs at each of the steps and evaluates at even ones; returns the evaluations.

    The run goes on from step `start`.
    """
    open_journal = Journal(folder, step=start)
    for step in steps:
        open_journal.write_train(step, **{name: measure / step for name, measure in MEASURES.items()})
        if step % 2 == 0:
            open_journal.write_evaluation(step, "validation", 1 / step, 0.3, 64)
        open_journal.write_timing(step, seconds=0.5 * step)
    open_journal.flush()
    evaluations = open_journal.evaluations()
    open_journal.close()
    return evaluations


def read_journal(folder):
    """The bytes of both files."""
    return [(folder / name).read_bytes() for name in ("metrics.jsonl", "timing.jsonl")]


def test_lines_have_the_keys_that_other_programs_read(tmp_path):
    write_journal(tmp_path, [2])
    train, evaluation = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert train == {
        "kind": "train",
        "step": 2,
        "loss": 1.25,
        "accuracy": 0.25,
        "learning_rate": 0.05,
        "gradient_norm": 1.5,
    }
    assert evaluation == {
        "kind": "evaluation",
        "step": 2,
        "split": "validation",
        "accuracy": 0.5,
        "loss": 0.3,
        "n": 64,
    }
    assert list(train) == sorted(train)
    assert list(evaluation) == sorted(evaluation)
    assert json.loads((tmp_path / "timing.jsonl").read_text()) == {"seconds": 1.0, "step": 2}


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_number_keeps_its_bits(value):
    for number in (value, np.float32(value), jnp.float32(value), np.array([value], np.float32)[0]):
        read_back = np.float32(json.loads(journal.format_line(1, loss=number))["loss"])
        assert read_back.tobytes() == np.float32(number).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, jnp.nan])
def test_what_is_not_finite_is_null(value):
    assert journal.format_line(3, loss=value) == '{"loss": null, "step": 3}\n'


@pytest.mark.parametrize("stopped", range(7))
@pytest.mark.parametrize("torn", ["", "{", '{"kind": "train", "step": 9', '{"kind": "train", "loss": 1, "step": 7}'])
def test_a_stopped_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, stopped, torn):
    undisturbed = write_journal(tmp_path / "a", range(1, 7))
    write_journal(tmp_path / "b", range(1, 6))
    start = min(stopped, 5)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with open(tmp_path / "b" / name, "a") as file:
            file.write(torn)
    assert write_journal(tmp_path / "b", range(start + 1, 7), start=start) == undisturbed
    assert read_journal(tmp_path / "b") == read_journal(tmp_path / "a")


def test_a_journal_from_step_0_starts_empty(tmp_path):
    write_journal(tmp_path, range(1, 6))
    assert Journal(tmp_path, step=0).evaluations() == []
    assert read_journal(tmp_path) == [b"", b""]


def test_read_until_gives_lines_up_to_a_step_as_dicts_and_bytes_and_changes_nothing(tmp_path):
    write_journal(tmp_path, range(1, 6))
    before, path = read_journal(tmp_path), tmp_path / "metrics.jsonl"
    lines, content = journal.read_until(path, 3)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 1), ("train", 2), ("evaluation", 2), ("train", 3),
    ]  # fmt: skip
    assert content == b"".join(path.read_bytes().splitlines(keepends=True)[:4])
    assert journal.read_until(path, 0) == ([], b"")
    assert journal.read_until(path, 99)[1] == path.read_bytes()
    assert journal.read_until(tmp_path / "none", 5) == ([], b"")
    assert read_journal(tmp_path) == before


def test_the_best_is_the_most_accurate_then_of_least_loss_then_the_earliest():
    keys = ("step", "accuracy", "loss")
    rows = [(1, 0.5, 0.1), (2, 0.7, 0.9), (3, 0.7, 0.8), (4, 0.7, 0.8), (5, 0.7, None)]
    evaluations = [dict(zip(keys, row, strict=True)) for row in rows]
    best_steps = [journal.best_evaluation(evaluations[:count])["step"] for count in range(1, 6)]
    assert best_steps == [1, 2, 3, 3, 3]
    assert journal.best_evaluation([evaluations[4], evaluations[0]])["step"] == 5


def test_elapsed_time_includes_that_of_earlier_processes(tmp_path, monkeypatch):
    clocks = [100.0, 10.0]  # seconds, and CPU-seconds
    monkeypatch.setattr(journal, "now", lambda: clocks[0])
    monkeypatch.setattr(journal, "cpu_seconds", lambda: clocks[1])
    open_journal = Journal(tmp_path, step=0)
    clocks[:] = 130.0, 15.0
    assert open_journal.elapsed() == {"seconds": 30.0, "cpu_seconds": 5.0}
    open_journal.write_timing(4, **open_journal.elapsed())
    clocks[:] = 190.0, 19.0
    open_journal.write_timing(8, **open_journal.elapsed())
    open_journal.close()
    clocks[:] = 5000.0, 0.5
    open_journal = Journal(tmp_path, step=4)  # killed after step 8, whose line is not counted
    clocks[:] = 5007.0, 2.5
    assert open_journal.elapsed() == {"seconds": 37.0, "cpu_seconds": 7.0}


@pytest.mark.parametrize("wrong", ["nonsense", "{}", '{"step": "2"}', "[1]", '{"step": 2'])
def test_a_damaged_line_between_whole_ones_is_refused_by_its_number(tmp_path, wrong):
    write_journal(tmp_path, [1, 3])
    first, *rest = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([first, wrong + "\n", *rest]))
    before = read_journal(tmp_path)
    with pytest.raises(SurroundingsError, match=rf"line 2 of {tmp_path}/metrics.jsonl"):
        Journal(tmp_path, step=3)
    assert read_journal(tmp_path) == before


def test_a_line_is_visible_at_once_and_on_the_disk_after_a_flush(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}")))
    open_journal = Journal(tmp_path, step=0)
    open_journal.write_train(1, **MEASURES)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    open_journal.flush()
    assert flushed == [str(tmp_path / "metrics.jsonl"), str(tmp_path / "timing.jsonl")]


def test_the_clock_does_not_follow_the_time_of_day(monkeypatch):
    before = journal.now()
    monkeypatch.setattr(time, "time", lambda: -1e9)
    assert before <= journal.now() < before + 60
