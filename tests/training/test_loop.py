"""The loop: what a run writes, when it stops, what it is tested with, and where another one starts from it."""

import itertools
import json
import math

import numpy as np
import pytest
from running import configured, contents, left, lines, result, steps, train

from cnn_vit import data, files
from cnn_vit.data.feed import stream
from cnn_vit.data.reading import materialize
from cnn_vit.errors import SurroundingsError
from cnn_vit.training import loop, stops, trained


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run. To be read, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("mlp", folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signals here have no echo to be waited for."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)


# What a run writes ----------------------------------------------------------------------------------------------------


def test_the_journal_has_a_line_of_each_step_asked_for_and_of_each_evaluation(whole):
    found = [(line["kind"], line["step"]) for line in lines(whole)]
    assert found == [
        *(("train", 2), ("train", 4), ("evaluation", 5), ("train", 6), ("train", 8)),
        *(("train", 10), ("evaluation", 10), ("train", 12), ("evaluation", 12)),
    ]
    for text in (whole / "metrics.jsonl").read_text().splitlines():
        facts = json.loads(text)
        expected = {
            "train": ["accuracy", "gradient_norm", "kind", "learning_rate", "loss", "step"],
            "evaluation": ["accuracy", "kind", "loss", "n", "split", "step"],
        }
        assert list(facts) == expected[facts["kind"]]
        assert not {"seconds", "time", "cpu_seconds"} & facts.keys()
    assert {line["split"] for line in lines(whole) if line["kind"] == "evaluation"} == {"validation"}
    timing = [json.loads(line) for line in (whole / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timing] == [2, 4, 6, 8, 10, 12]
    assert all(earlier["seconds"] <= later["seconds"] for earlier, later in itertools.pairwise(timing))


def test_a_line_tells_the_numbers_of_its_own_step(whole, tmp_path):
    """Lines of every step, and of every second one: the same numbers, no averages. The rate is the cosine's."""
    train("mlp", tmp_path, "log_every=1")
    every = {line["step"]: line for line in lines(tmp_path) if line["kind"] == "train"}
    assert sorted(every) == list(range(1, 13))
    assert [line for line in lines(whole) if line["kind"] == "train"] == [every[step] for step in range(2, 13, 2)]
    for step, line in every.items():  # warm-up of 5 steps to 2e-3, then half a cosine over 7; update k is step k + 1
        done = step - 1
        expected = 2e-3 * done / 5 if done < 5 else 1e-3 * (1 + math.cos(math.pi * (done - 5) / 7))
        assert line["learning_rate"] == pytest.approx(expected, rel=1e-5, abs=1e-9), step


def test_the_result_says_what_other_programs_read(whole):
    found = result(whole)
    assert found["steps"] == 12
    assert found["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert found["macs"] == 64 * 8 + 8 * 10
    assert found["counts"] == {"train": 256, "validation": 64, "test": 64}
    assert (found["recipe"], found["words"], found["model"]) == ("digits_mlp", ["smoke"], "mlp/test")
    assert found["tested"] == {"step": 12, "values": "trained", "with": "last"}
    assert found["forked_from"] is None
    assert len(found["fingerprint"]) == 64
    assert found["timing"].keys() == {"seconds", "cpu_seconds"}
    last = lines(whole)[-1]
    assert found["validation"] == {key: last[key] for key in ("accuracy", "loss", "n", "step")} | {
        "top5": found["validation"]["top5"]
    }
    evaluations = [line for line in lines(whole) if line["kind"] == "evaluation"]
    top = max(line["accuracy"] for line in evaluations)
    best = min((line for line in evaluations if line["accuracy"] == top), key=lambda line: (line["loss"], line["step"]))
    assert found["best"] == {key: best[key] for key in ("accuracy", "loss", "n", "step")}
    for split in ("validation", "test"):
        with np.load(whole / "predictions" / f"{split}.npz") as kept:
            assert found[split]["n"] == len(kept["label"]) == 64
            assert found[split]["accuracy"] == (kept["label"] == kept["predicted"]).mean()
            assert found[split]["loss"] == pytest.approx(kept["loss"].mean(dtype=np.float64), rel=1e-12)


def test_each_test_is_written_down(whole):
    reads = [json.loads(line) for line in (whole / "test_reads.jsonl").read_text().splitlines()]
    assert reads == [{"by": "train", "step": 12, "accuracy": result(whole)["test"]["accuracy"]}]


def test_two_runs_of_a_seed_are_alike_and_of_another_are_not(whole, tmp_path):
    train("mlp", tmp_path / "same")
    assert left(tmp_path / "same") == left(whole)
    train("mlp", tmp_path / "other", "seed=1")
    assert left(tmp_path / "other")["metrics"] != left(whole)["metrics"]


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
    assert not data.load(configured("mlp").section("data")).splits["train"].in_memory
    train("mlp", tmp_path, *changes)
    assert left(tmp_path) == left(whole)


# What it is tested with -----------------------------------------------------------------------------------------------


def scores(folder, values, split):
    """Loss and classes of the network, in NumPy, from values by their paths."""
    images = data.load(configured("mlp").section("data")).splits[split]
    how = json.loads((folder / "preprocessing.json").read_text())
    pixels = images.read(np.arange(64)).reshape(64, -1) / 255
    x = (pixels - how["mean"][0]) / how["std"][0]
    x = np.maximum(x @ values["hidden/layers/0/kernel"] + values["hidden/layers/0/bias"], 0)
    x = x @ values["head/kernel"] + values["head/bias"]
    shifted = x - x.max(1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log[np.arange(64), images.labels].mean(), log.argmax(1)


def arrays(folder, step, prefix):
    """A checkpoint's arrays below a path, read by Orbax alone."""
    import orbax.checkpoint as orbax

    found = orbax.PyTreeCheckpointer().restore((folder / "checkpoints" / str(step)).absolute())
    return {
        name.removeprefix(prefix): np.asarray(leaf, float) for name, leaf in found.items() if name.startswith(prefix)
    }


FALLING = (
    "optimizer.learning_rate=1",
    "schedule.warmup=0 steps",
    "ema_decay=0.5",
)  # the first evaluation stays the best


@pytest.mark.parametrize(
    ("how", "step", "prefix"),
    [("last", 12, "params/"), ("ema", 12, "ema/params/"), ("best", 0, "ema/params/"), (None, 12, "ema/params/")],
)
def test_the_test_split_sees_the_parameters_asked_for(tmp_path, how, step, prefix):
    train("mlp", tmp_path, *FALLING, *([f"test_weights={how}"] if how else []))
    found = result(tmp_path)
    if how == "best":
        step = found["best"]["step"]
        assert step < 12
    assert found["tested"] == {
        "step": step,
        "values": "trained" if how == "last" else "ema",
        "with": how or "ema",
    }
    values = arrays(tmp_path, step, prefix)
    for split in ("validation", "test"):
        loss, predicted = scores(tmp_path, values, split)
        assert found[split]["loss"] == pytest.approx(loss, rel=1e-4)
        with np.load(tmp_path / "predictions" / f"{split}.npz") as kept:
            assert (kept["predicted"] == predicted).mean() > 0.98
    loaded = trained.load(tmp_path)
    np.testing.assert_array_equal(np.asarray(loaded.params["head"]["bias"]), values["head/bias"])


def test_validation_reads_the_average_where_there_is_one(tmp_path):
    train("mlp", tmp_path, *FALLING, "test_weights=last")
    last = lines(tmp_path)[-1]
    assert last["loss"] == pytest.approx(
        scores(tmp_path, arrays(tmp_path, 12, "ema/params/"), "validation")[0], rel=1e-4
    )


def test_the_best_is_kept_beside_the_newest(tmp_path):
    train("mlp", tmp_path, *FALLING, "checkpoint_every=1")
    assert steps(tmp_path) == sorted({result(tmp_path)["best"]["step"], 11, 12})


STILL = ("optimizer.learning_rate=1e-60", "evaluate_every=2", "early_stop=2")  # 0 in float32: no evaluation is better


def test_a_run_stops_after_so_many_evaluations_without_a_better_one(tmp_path):
    train("mlp", tmp_path, *STILL)
    found = result(tmp_path)
    assert (found["steps"], found["best"]["step"]) == (6, 2)
    assert lines(tmp_path)[-1]["step"] == 6
    assert steps(tmp_path)[-1] == 6
    before = left(tmp_path)
    (tmp_path / "result.json").unlink()
    train("mlp", tmp_path, *STILL)
    assert left(tmp_path) == before


# A finished run -------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = train("mlp", tmp_path)
    before = contents(tmp_path)
    assert train("mlp", tmp_path) == first == result(tmp_path)
    assert train("mlp", tmp_path, "data.workers=0", "keep_checkpoints=7", "checkpoint_every=3") == first
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "missing", ["predictions/test.npz", "predictions/validation.npz", "result.json", "samples.npz"]
)
def test_a_finished_run_makes_what_it_lacks(whole, tmp_path, missing):
    folder = tmp_path / "run"
    train("mlp", folder)
    (folder / missing).unlink()
    train("mlp", folder)
    assert left(folder) == left(whole)


def test_a_journal_without_its_evaluations_is_refused(tmp_path):
    train("mlp", tmp_path)
    for name in ("result.json", "metrics.jsonl"):
        (tmp_path / name).unlink()
    with pytest.raises(SurroundingsError, match=r"metrics\.jsonl holds no evaluation"):
        train("mlp", tmp_path)


# Weights of classes ---------------------------------------------------------------------------------------------------


def test_balanced_weights_come_from_the_training_split_and_count_in_learning_alone(tmp_path):
    """Black images, of which a network without biases knows nothing: every one costs ln 2 before the first update."""
    labels = np.array([0] * 36 + [1] * 4)
    files.write_npz(tmp_path / "a.npz", {"train_x": np.zeros((40, 8, 8), np.uint8), "train_y": labels,
                                         "class_names": np.array(["many", "few"])})  # fmt: skip
    final = configured(
        "mlp", "data.name=arrays", f"data.path={tmp_path}/a.npz", "data.train=train[:75%]",
        "data.validation=train[75%:]", "data.augment=()", "data.mean=0", "data.std=1", "data.channels=1",
        "data.classes=none", "loss.smoothing=0", "duration=1 steps", "schedule.warmup=0", "log_every=1",
        "optimizer.learning_rate=1e-9", "loss.class_weight=balanced",
    )  # fmt: skip
    loop.train(final, tmp_path / "run")
    learned, judged = lines(tmp_path / "run")
    train_labels = data.load(final.section("data")).splits["train"].labels
    counts = np.bincount(train_labels)
    np.testing.assert_array_equal(counts, [27, 3])
    seen = stream.order(30, final["seed"], np.arange(final["data.batch_size"], dtype=np.int64))
    weights = (30 / (2 * counts))[train_labels[seen]]  # 5 / 9 and 5; a batch of 32 goes on into the next epoch
    assert abs(weights.mean() - 1) > 0.01
    assert learned["loss"] == pytest.approx(np.log(2) * weights.mean(), rel=1e-5)
    assert judged["loss"] == pytest.approx(np.log(2), rel=1e-6)
