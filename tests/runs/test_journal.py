"""The journal: the same run writes the same bytes, and a stopped one goes on as if it had not been."""

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

NUMBERS = {"loss": 2.5, "accuracy": 0.5, "learning_rate": 0.1, "gradient_norm": 3.0}


def written(folder, steps, *, at=0):
    """A run that logs at each of the steps and evaluates at even ones."""
    record = Journal(folder, step=at)
    for step in steps:
        record.write_train(step, **{key: value / step for key, value in NUMBERS.items()})
        if step % 2 == 0:
            record.write_evaluation(step, "validation", 1 / step, 0.3, 64)
        record.write_timing(step, seconds=0.5 * step)
    record.flush()
    found = record.evaluations()
    record.close()
    return found


def read(folder):
    return [(folder / name).read_bytes() for name in ("metrics.jsonl", "timing.jsonl")]


def test_lines_have_the_keys_that_other_programs_read(tmp_path):
    written(tmp_path, [2])
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
    for given_as in (value, np.float32(value), jnp.float32(value), np.array([value], np.float32)[0]):
        back = np.float32(json.loads(journal.format_line(1, loss=given_as))["loss"])
        assert back.tobytes() == np.float32(given_as).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, jnp.nan])
def test_what_is_not_finite_is_null(value):
    assert journal.format_line(3, loss=value) == '{"loss": null, "step": 3}\n'


@pytest.mark.parametrize("stopped", range(7))
@pytest.mark.parametrize("torn", ["", "{", '{"kind": "train", "step": 9', '{"kind": "train", "loss": 1, "step": 7}'])
def test_a_stopped_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, stopped, torn):
    undisturbed = written(tmp_path / "a", range(1, 7))
    written(tmp_path / "b", range(1, 6))
    at = min(stopped, 5)
    for name in ("metrics.jsonl", "timing.jsonl"):
        with open(tmp_path / "b" / name, "a") as file:
            file.write(torn)
    assert written(tmp_path / "b", range(at + 1, 7), at=at) == undisturbed
    assert read(tmp_path / "b") == read(tmp_path / "a")


def test_a_journal_from_step_0_starts_empty(tmp_path):
    written(tmp_path, range(1, 6))
    assert Journal(tmp_path, step=0).evaluations() == []
    assert read(tmp_path) == [b"", b""]


def test_lines_until_a_step_are_facts_and_bytes_and_change_nothing(tmp_path):
    written(tmp_path, range(1, 6))
    before, path = read(tmp_path), tmp_path / "metrics.jsonl"
    facts, text = journal.read_until(path, 3)
    assert [(line["kind"], line["step"]) for line in facts] == [
        ("train", 1), ("train", 2), ("evaluation", 2), ("train", 3),
    ]  # fmt: skip
    assert text == b"".join(path.read_bytes().splitlines(keepends=True)[:4])
    assert journal.read_until(path, 0) == ([], b"")
    assert journal.read_until(path, 99)[1] == path.read_bytes()
    assert journal.read_until(tmp_path / "none", 5) == ([], b"")
    assert read(tmp_path) == before


def test_the_best_is_the_most_accurate_then_of_least_loss_then_the_earliest():
    keys = ("step", "accuracy", "loss")
    rows = [(1, 0.5, 0.1), (2, 0.7, 0.9), (3, 0.7, 0.8), (4, 0.7, 0.8), (5, 0.7, None)]
    found = [dict(zip(keys, row, strict=True)) for row in rows]
    assert [journal.best_evaluation(found[:count])["step"] for count in range(1, 6)] == [1, 2, 3, 3, 3]
    assert journal.best_evaluation([found[4], found[0]])["step"] == 5


def test_time_taken_counts_that_of_the_processes_before(tmp_path, monkeypatch):
    hands = [100.0, 10.0]
    monkeypatch.setattr(journal, "now", lambda: hands[0])
    monkeypatch.setattr(journal, "cpu_seconds", lambda: hands[1])
    record = Journal(tmp_path, step=0)
    hands[:] = 130.0, 15.0
    assert record.elapsed() == {"seconds": 30.0, "cpu_seconds": 5.0}
    record.write_timing(4, **record.elapsed())
    hands[:] = 190.0, 19.0
    record.write_timing(8, **record.elapsed())
    record.close()
    hands[:] = 5000.0, 0.5
    record = Journal(tmp_path, step=4)  # killed after step 8, whose line is not counted
    hands[:] = 5007.0, 2.5
    assert record.elapsed() == {"seconds": 37.0, "cpu_seconds": 7.0}


@pytest.mark.parametrize("wrong", ["nonsense", "{}", '{"step": "2"}', "[1]", '{"step": 2'])
def test_a_damaged_line_between_whole_ones_is_refused_by_its_number(tmp_path, wrong):
    written(tmp_path, [1, 3])
    first, *rest = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join([first, wrong + "\n", *rest]))
    before = read(tmp_path)
    with pytest.raises(SurroundingsError, match=rf"line 2 of {tmp_path}/metrics.jsonl"):
        Journal(tmp_path, step=3)
    assert read(tmp_path) == before


def test_a_line_is_visible_at_once_and_on_the_disk_after_a_flush(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.readlink(f"/proc/self/fd/{handle}")))
    record = Journal(tmp_path, step=0)
    record.write_train(1, **NUMBERS)
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 1
    record.flush()
    assert flushed == [str(tmp_path / "metrics.jsonl"), str(tmp_path / "timing.jsonl")]


def test_the_clock_does_not_follow_the_time_of_day(monkeypatch):
    before = journal.now()
    monkeypatch.setattr(time, "time", lambda: -1e9)
    assert before <= journal.now() < before + 60
