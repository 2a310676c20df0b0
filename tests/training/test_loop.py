"""The loop: what a run writes, when it stops, which values it is tested with, and what a finished run lacks."""

import itertools
import json
import math

import numpy as np
import pytest
from running import (
    committed_steps,
    evaluation_lines,
    hash_files,
    load_settings,
    read_lines,
    read_outcome,
    read_result,
    train,
    train_lines,
)

from cnn_vit import data, files, stops
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import materialize
from cnn_vit.errors import SurroundingsError
from cnn_vit.training import loop, trained


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run. To be read, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("mlp", folder)
    return folder


@pytest.fixture(autouse=True)
def _no_echo(monkeypatch):
    """Here a signal has no echo to wait for."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)


# What a run writes ----------------------------------------------------------------------------------------------------


def test_the_journal_has_a_line_of_each_step_asked_for_and_of_each_evaluation(whole):
    assert [(line["kind"], line["step"]) for line in read_lines(whole)] == [
        *(("train", 2), ("train", 4), ("evaluation", 5), ("train", 6), ("train", 8)),
        *(("train", 10), ("evaluation", 10), ("train", 12), ("evaluation", 12)),
    ]
    expected_keys = {
        "train": ["accuracy", "gradient_norm", "kind", "learning_rate", "loss", "step"],
        "evaluation": ["accuracy", "kind", "loss", "n", "split", "step"],
    }
    for line in read_lines(whole):
        assert list(line) == expected_keys[line["kind"]]
        assert not {"seconds", "time", "cpu_seconds"} & line.keys()
    assert {line["split"] for line in evaluation_lines(whole)} == {"validation"}
    timing = [json.loads(line) for line in (whole / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timing] == [2, 4, 6, 8, 10, 12]
    assert all(earlier["seconds"] <= later["seconds"] for earlier, later in itertools.pairwise(timing))


def test_a_line_has_the_measures_of_its_own_step(whole, tmp_path):
    """Lines of every step, and of every second one: the same numbers, no averages. The rate is the cosine's."""
    train("mlp", tmp_path, "log_every=1")
    line_of_step = {line["step"]: line for line in train_lines(tmp_path)}
    assert sorted(line_of_step) == list(range(1, 13))
    assert train_lines(whole) == [line_of_step[step] for step in range(2, 13, 2)]
    for step, line in line_of_step.items():
        update = step - 1  # updates count from 0
        if update < 5:  # a warm-up of 5 steps to 2e-3
            expected = 2e-3 * update / 5
        else:  # then half a cosine over 7
            expected = 1e-3 * (1 + math.cos(math.pi * (update - 5) / 7))
        assert line["learning_rate"] == pytest.approx(expected, rel=1e-5, abs=1e-9), step


def test_the_result_says_what_other_programs_read(whole):
    result = read_result(whole)
    assert result["steps"] == 12
    assert result["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert result["macs"] == 64 * 8 + 8 * 10
    assert result["counts"] == {"train": 256, "validation": 64, "test": 64}
    assert (result["recipe"], result["words"], result["model"]) == ("digits_mlp", ["smoke"], "mlp/test")
    assert result["tested"] == {"step": 12, "values": "trained", "with": "last"}
    assert result["forked_from"] is None
    assert len(result["fingerprint"]) == 64
    assert result["timing"].keys() == {"seconds", "cpu_seconds"}
    last = read_lines(whole)[-1]
    logged = {key: last[key] for key in ("accuracy", "loss", "n", "step")}
    assert result["validation"] == logged | {"top5": result["validation"]["top5"]}
    evaluations = evaluation_lines(whole)
    highest = max(line["accuracy"] for line in evaluations)
    most_accurate = [line for line in evaluations if line["accuracy"] == highest]
    best = min(most_accurate, key=lambda line: (line["loss"], line["step"]))
    assert result["best"] == {key: best[key] for key in ("accuracy", "loss", "n", "step")}
    for split in ("validation", "test"):
        with np.load(whole / "predictions" / f"{split}.npz") as predictions:
            assert result[split]["n"] == len(predictions["label"]) == 64
            assert result[split]["accuracy"] == (predictions["label"] == predictions["predicted"]).mean()
            assert result[split]["loss"] == pytest.approx(predictions["loss"].mean(dtype=np.float64), rel=1e-12)


def test_each_test_is_written_down(whole):
    reads = [json.loads(line) for line in (whole / "test_reads.jsonl").read_text().splitlines()]
    assert reads == [{"by": "train", "step": 12, "accuracy": read_result(whole)["test"]["accuracy"]}]


def test_two_runs_of_a_seed_are_alike_and_of_another_are_not(whole, tmp_path):
    train("mlp", tmp_path / "same")
    assert read_outcome(tmp_path / "same") == read_outcome(whole)
    train("mlp", tmp_path / "other", "seed=1")
    assert read_outcome(tmp_path / "other")["metrics"] != read_outcome(whole)["metrics"]


@pytest.mark.parametrize(
    "changes",
    [
        ("data.workers=0",),
        ("data.workers=1", "data.prefetch=0"),
        ("data.workers=4", "data.prefetch=8", "checkpoint_every=1"),
        ("checkpoint_every=1000", "keep_checkpoints=5"),
    ],
    ids=lambda changes: ",".join(changes),
)
def test_threads_prefetch_and_saves_change_no_bit(whole, tmp_path, monkeypatch, changes):
    monkeypatch.setattr(materialize, "MEMORY", 0)  # images are made by the threads, when they are read
    assert not data.load(load_settings("mlp").section("data")).splits["train"].in_memory
    train("mlp", tmp_path, *changes)
    assert read_outcome(tmp_path) == read_outcome(whole)


# Which values it is tested with ---------------------------------------------------------------------------------------


def evaluate_by_hand(folder, values, split):
    """Mean loss and predicted classes of the MLP on a split, in NumPy.

    Args:
        folder: the run folder.
        values: parameters by their paths.
        split: validation or test.
    """
    images = data.load(load_settings("mlp").section("data")).splits[split]
    preprocessing = json.loads((folder / "preprocessing.json").read_text())
    pixels = images.read(np.arange(64)).reshape(64, -1) / 255
    x = (pixels - preprocessing["mean"][0]) / preprocessing["std"][0]
    x = np.maximum(x @ values["hidden/layers/0/kernel"] + values["hidden/layers/0/bias"], 0)
    x = x @ values["head/kernel"] + values["head/bias"]
    shifted = x - x.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log_probabilities[np.arange(64), images.labels].mean(), log_probabilities.argmax(1)


def read_arrays(folder, step, prefix):
    """The arrays of a checkpoint whose path begins with a prefix, by the rest of the path, read by Orbax alone."""
    import orbax.checkpoint as orbax

    arrays = orbax.PyTreeCheckpointer().restore((folder / "checkpoints" / str(step)).absolute())
    return {
        name.removeprefix(prefix): np.asarray(leaf, float) for name, leaf in arrays.items() if name.startswith(prefix)
    }


# With a rate so high, the first evaluation stays the best
FALLING = ("optimizer.learning_rate=1", "schedule.warmup=0 steps", "ema_decay=0.5")


@pytest.mark.parametrize(
    ("choice", "step", "prefix"),
    [("last", 12, "params/"), ("ema", 12, "ema/params/"), ("best", 0, "ema/params/"), (None, 12, "ema/params/")],
)
def test_the_test_split_sees_the_parameters_asked_for(tmp_path, choice, step, prefix):
    changes = [*FALLING]
    if choice:
        changes.append(f"test_weights={choice}")
    train("mlp", tmp_path, *changes)
    result = read_result(tmp_path)
    if choice == "best":
        step = result["best"]["step"]
        assert step < 12
    assert result["tested"] == {
        "step": step,
        "values": "trained" if choice == "last" else "ema",
        "with": choice or "ema",
    }
    values = read_arrays(tmp_path, step, prefix)
    for split in ("validation", "test"):
        loss, predicted = evaluate_by_hand(tmp_path, values, split)
        assert result[split]["loss"] == pytest.approx(loss, rel=1e-4)
        with np.load(tmp_path / "predictions" / f"{split}.npz") as predictions:
            assert (predictions["predicted"] == predicted).mean() > 0.98
    loaded = trained.load(tmp_path)
    np.testing.assert_array_equal(np.asarray(loaded.params["head"]["bias"]), values["head/bias"])


def test_validation_reads_the_average_where_there_is_one(tmp_path):
    train("mlp", tmp_path, *FALLING, "test_weights=last")
    last = read_lines(tmp_path)[-1]
    loss, _ = evaluate_by_hand(tmp_path, read_arrays(tmp_path, 12, "ema/params/"), "validation")
    assert last["loss"] == pytest.approx(loss, rel=1e-4)


def test_the_best_is_kept_beside_the_newest(tmp_path):
    train("mlp", tmp_path, *FALLING, "checkpoint_every=1")
    assert committed_steps(tmp_path) == sorted({read_result(tmp_path)["best"]["step"], 11, 12})


STILL = ("optimizer.learning_rate=1e-60", "evaluate_every=2", "early_stop=2")  # 0 in float32: no evaluation is better


def test_a_run_stops_after_so_many_evaluations_without_a_better_one(tmp_path):
    train("mlp", tmp_path, *STILL)
    result = read_result(tmp_path)
    assert (result["steps"], result["best"]["step"]) == (6, 2)
    assert read_lines(tmp_path)[-1]["step"] == 6
    assert committed_steps(tmp_path)[-1] == 6
    outcome = read_outcome(tmp_path)
    (tmp_path / "result.json").unlink()
    train("mlp", tmp_path, *STILL)
    assert read_outcome(tmp_path) == outcome


# A finished run -------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first_result = train("mlp", tmp_path)
    files_before = hash_files(tmp_path)
    assert train("mlp", tmp_path) == first_result == read_result(tmp_path)
    assert train("mlp", tmp_path, "data.workers=0", "keep_checkpoints=7", "checkpoint_every=3") == first_result
    assert hash_files(tmp_path) == files_before


@pytest.mark.parametrize(
    "missing",
    [
        *("predictions/test.npz", "predictions/validation.npz", "result.json", "samples.npz"),
        *("classes.json", "data.json", "preprocessing.json"),
    ],
)
def test_a_finished_run_makes_what_it_lacks(whole, tmp_path, missing):
    folder = tmp_path / "run"
    train("mlp", folder)
    content = (folder / missing).read_bytes()
    (folder / missing).unlink()
    train("mlp", folder)
    assert read_outcome(folder) == read_outcome(whole)
    assert missing == "result.json" or (folder / missing).read_bytes() == content  # a result has times


def test_a_run_whose_journal_is_gone_is_refused(tmp_path):
    train("mlp", tmp_path)
    for name in ("result.json", "metrics.jsonl"):
        (tmp_path / name).unlink()
    with pytest.raises(SurroundingsError, match=f"12 is damaged: {tmp_path}/metrics.jsonl has disappeared"):
        train("mlp", tmp_path)


# Weights of classes ---------------------------------------------------------------------------------------------------


def test_balanced_weights_come_from_the_training_split_and_count_in_learning_alone(tmp_path):
    """Black images, of which a network without biases knows nothing: every one costs ln 2 before the first update."""
    labels = np.array([0] * 36 + [1] * 4)
    arrays = {
        "train_x": np.zeros((40, 8, 8), np.uint8),
        "train_y": labels,
        "class_names": np.array(["many", "few"]),
    }
    files.write_npz(tmp_path / "a.npz", arrays)
    settings = load_settings(
        "mlp", "data.name=arrays", f"data.path={tmp_path}/a.npz", "data.train=train[:75%]",
        "data.validation=train[75%:]", "data.augment=()", "data.mean=0", "data.std=1", "data.channels=1",
        "data.classes=none", "loss.smoothing=0", "duration=1 steps", "schedule.warmup=0", "log_every=1",
        "optimizer.learning_rate=1e-9", "loss.class_weight=balanced",
    )  # fmt: skip
    loop.train(settings, tmp_path / "run")
    train_line, evaluation_line = read_lines(tmp_path / "run")
    train_labels = data.load(settings.section("data")).splits["train"].labels
    counts = np.bincount(train_labels)
    np.testing.assert_array_equal(counts, [27, 3])
    # the examples of the first batch: 32 of 30, so that it goes on into the next epoch
    indices = stream.order(30, settings["seed"], np.arange(settings["data.batch_size"], dtype=np.int64))
    weights = (30 / (2 * counts))[train_labels[indices]]  # 5 / 9 and 5
    assert abs(weights.mean() - 1) > 0.01
    assert train_line["loss"] == pytest.approx(np.log(2) * weights.mean(), rel=1e-5)
    assert evaluation_line["loss"] == pytest.approx(np.log(2), rel=1e-6)
