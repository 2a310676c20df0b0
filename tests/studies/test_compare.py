"""A comparison from its recipe to its tables: one tiny one, done once by real workers, and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data, files, models, settings
from cnn_vit.__main__ import main
from cnn_vit.cli import _failures
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.runs import reader
from cnn_vit.studies import compare, shares, tasks, trials
from cnn_vit.transfer import weights as weight_files
from cnn_vit.transfer.weights import Card, Weights

RECIPE = '''"""A tiny one."""
from ml_collections import ConfigDict

COMMAND = "compare"


def get_config(mode=""):
    config = ConfigDict()
    config.data = ConfigDict({"name": "digits", "batch_size": 16, "train": "train[:80]", "validation": "train[80:120]",
                              "test": "test[:60]"})
    config.weights = "WEIGHTS"
    config.budget = "3 steps"
    config.seeds = 2
    config.arms = ConfigDict()
    config.arms.mlp = dict(recipe="configs/digits_mlp.py:smoke", settings=("ema_decay=0.5",))
    config.arms.broken = dict(recipe="configs/digits_mlp.py:smoke", settings=("optimizer.name=sgdd",))
    config.arms.knn = dict(task="knn")
    config.arms.linear = dict(task="linear")
    config.arms.untouched = dict(task="evaluate")
    return config
'''
TIMES = {"seconds", "cpu_seconds"}


def make_weights(path, *, origin=None, classes=tuple("9876543210")):
    """Writes weights of a tiny MLP for digits of 8x8 pixels, whose classes stand in another order than the data's."""
    network = functional(models.build("mlp/test", 10, image_size=(8, 8), channels=1))
    params, stats = initial_values(network, 3)
    preprocessing = {"mean": [0.3], "std": [0.4], "image_size": [8, 8], "channels": 1}
    rng = np.random.default_rng(0)
    params["head"]["kernel"] = rng.normal(size=params["head"]["kernel"].shape).astype(np.float32)
    card = Card("mlp/test", {}, 10, classes, preprocessing, origin or {})
    weight_files.save(path, Weights(params, stats, card))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with weights and the recipe of the tiny comparison."""
    folder = tmp_path_factory.mktemp("compare")
    make_weights(folder / "net.safetensors")
    (folder / "tiny.py").write_text(RECIPE.replace("WEIGHTS", str(folder / "net.safetensors")))
    return folder


@pytest.fixture(scope="module")
def compared(place):
    """The outcome of the tiny comparison, done once."""
    return compare.run_comparison(str(place / "tiny.py"), place / "out", options=compare.Options())


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def hash_outcome(out):
    return {name: (out / name).read_bytes() for name in ("results.csv", "timing.csv", "report.html", "plan.json")}


def test_every_trial_has_a_row_and_a_failing_one_does_not_stop_the_others(compared):
    rows = read_rows(compared.out / "results.csv")
    assert [(row["arm"], row["seed"], row["state"]) for row in rows] == [
        ("broken", "0", "bad config"), ("broken", "1", "bad config"), ("knn", "0", "complete"),
        ("linear", "0", "complete"), ("mlp", "0", "complete"), ("mlp", "1", "complete"), ("untouched", "0", "complete"),
    ]  # fmt: skip
    assert "did you mean" in rows[0]["reason"]
    assert not TIMES & rows[0].keys()
    timing = read_rows(compared.out / "timing.csv")
    assert [row["trial"] for row in timing] == [row["trial"] for row in rows]
    assert all(float(row["cpu_seconds"]) > 0 for row in timing[2:])
    assert [record.state for record in compared.failed] == ["bad config"] * 2


def test_all_runs_have_one_budget_and_one_data_fingerprint(compared):
    expected = data.load({"name": "digits"}).fingerprint
    results = [json.loads(path.read_text()) for path in compared.out.glob("trials/*/result.json")]
    steps = [result["result"]["steps"] for result in results if result["task"] == "train" and result["result"]]
    assert steps == [3, 3]
    fingerprints = set()
    for row in compared.rows:
        fingerprints |= {run.data_fingerprint for run in row.arm.runs}
    assert fingerprints == {expected}
    assert not any("not equal" in note or "not the same" in note for note in compared.notes)


def test_the_same_call_again_does_no_trial_and_makes_the_same_bytes(compared, place, monkeypatch):
    before = hash_outcome(compared.out)
    for name in ("results.csv", "timing.csv", "report.html"):
        (compared.out / name).unlink()
    monkeypatch.setattr(compare.workers, "Worker", None)  # nothing is left to do: a worker would be an error
    result = cnn_vit.compare(str(place / "tiny.py"), compared.out)
    assert hash_outcome(compared.out) == before
    assert [row["arm"] for row in result["rows"]] == [row.arm.name for row in compared.rows]
    json.dumps(result, allow_nan=False)


def test_the_command_prints_a_table_and_ends_with_the_code_of_what_failed(compared, place, capsys):
    words = ["compare", f"--config={place / 'tiny.py'}", f"--out={compared.out}"]
    assert main(words) == UserError.code
    out, err = capsys.readouterr()
    assert out.startswith(f"{compared.verdict.answer} ")
    for row in compared.rows:
        assert row.arm.name in out
    assert out.splitlines()[-1] == f"next: {compared.next_command}"
    assert "2 of 7 trials have failed; --retry_failed does them again" in err
    assert main([*words, "--json"]) == UserError.code
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["failed"]) == 2
    assert answer["steps"] == 3


def test_an_arm_less_is_another_comparison_of_the_same_trials(compared, place):
    shutil.copytree(compared.out, place / "fewer")
    words = ["arms.broken=none", "arms.linear=none"]
    result = cnn_vit.compare(str(place / "tiny.py"), place / "fewer", overrides=words)
    assert {row["arm"] for row in result["rows"]} == {"mlp", "knn", "untouched"}
    assert result["failed"] == []


def test_untouched_predictions_are_those_of_evaluate_with_the_classes_matched_by_name(compared, place):
    record = next(record for record in compared.records if record.planned.trial.task == "evaluate")
    section = {"name": "digits", "train": "train[:80]", "validation": "train[80:120]", "test": "test[:60]"}
    network = cnn_vit.load(place / "net.safetensors")
    expected = cnn_vit.evaluate(network, data.load(section), "test")
    assert record.result["test"]["accuracy"] == expected["accuracy"]
    assert record.result["test"]["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    rows = reader.make_predictions_reader(10)(record.planned.folder / "predictions" / "test.npz")
    np.testing.assert_array_equal(rows["predicted"], 9 - expected["rows"]["predicted"])  # the classes stand backwards
    np.testing.assert_array_equal(rows["scores"], expected["rows"]["scores"][:, ::-1])
    assert (record.result["steps"], record.result["trained_parameters"]) == (0, 0)


def test_probes_are_those_of_the_command_probe(compared, place):
    from cnn_vit.studies import probe

    section = {"name": "digits", "train": "train[:80]", "validation": "train[80:120]", "test": "test[:60]"}
    network = cnn_vit.load(place / "net.safetensors")
    expected = probe.probe(network, data.load(section), methods=("linear", "knn"))
    for method, probed in (("linear", expected.linear), ("knn", expected.knn)):
        record = next(record for record in compared.records if record.planned.trial.task == method)
        assert record.result["chosen"] == probed.chosen
        for split, accuracy in (("validation", probed.validation), ("test", probed.test)):
            rows = reader.make_predictions_reader(10)(record.planned.folder / "predictions" / f"{split}.npz")
            assert (rows["predicted"] == rows["label"]).sum() == accuracy.correct
            assert record.result[split]["accuracy"] == accuracy.correct / accuracy.n


def test_rows_of_scores_have_the_measures_of_an_evaluation():
    rows = tasks.make_rows(np.array([0, 1, 2]), np.log([[2, 1, 1], [2, 1, 1], [2, 2, 4]]), np.array([0, 0, 2]))
    assert rows["rank"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(rows["loss"], -np.log([0.5, 0.25, 0.5]), rtol=1e-6)
    np.testing.assert_allclose(rows["margin"], np.log([2, 2, 2]), rtol=1e-6)
    # of two classes with equal scores, the one that is answered is right
    tied = tasks.make_rows(np.array([0, 0]), np.zeros((2, 2)), np.array([1, 0]))
    assert tied["rank"].tolist() == [1, 0]


# Plans ----------------------------------------------------------------------------------------------------------------


def plan(recipe, *, steps=3, **sets):
    """The trials of a recipe, their arms and the data."""
    loaded = compare.arms.load_comparison(str(recipe), [f"{key}={value}" for key, value in sets.items()])
    weights = compare.open_weights(loaded)
    section, _ = compare.complete_data(loaded, weights)
    dataset = data.load(section)
    data_shares, _ = shares.plan_shares(loaded.shares, section, dataset)
    return compare.make_trials(loaded, weights, data_shares, dataset, steps), dataset


def test_shares_are_nested_slices_and_validation_stays_whole(place):
    planned, whole = plan(place / "tiny.py", shares="(0.1, 0.5, 1)")
    splits = {}
    for arm in planned:
        if arm.arm.name == "mlp":
            run = settings.load(arm.trials[0].config, list(arm.trials[0].overrides))
            splits[arm.share] = data.load(run.section("data")).splits
    assert {share: len(split["train"]) for share, split in splits.items()} == {0.1: 10, 0.5: 40, 1.0: 80}
    for split in splits.values():
        for name in ("validation", "test"):
            np.testing.assert_array_equal(split[name].labels, whole.splits[name].labels)
        assert set(split["train"].labels) == set(range(10))
    small = splits[0.1]["train"].read(np.arange(10))
    assert {image.tobytes() for image in small} <= {
        image.tobytes() for image in splits[0.5]["train"].read(np.arange(40))
    }
    # what learns nothing from the training data has one trial
    assert [arm.share for arm in planned if arm.arm.task == "evaluate"] == [1.0]


def test_a_validation_that_is_a_tenth_of_train_stays_that_tenth_on_every_share():
    section = {"name": "shapes", "train_count": 200, "validation_count": 0, "test_count": 20, "classes": 4,
               "image_size": 8, "channels": 1}  # fmt: skip
    whole = data.load(section)
    slices = shares.cut_share(0.1, section, whole).overrides[-3:]
    assert slices == ("data.train=train[20:38]", "data.validation=train[0:20]", "data.test=test[0:20]")
    small = data.load(section | {slice_.split("=")[0][5:]: slice_.split("=")[1] for slice_ in slices})
    for name in ("validation", "test"):
        indices = np.arange(20)
        np.testing.assert_array_equal(small.splits[name].read(indices), whole.splits[name].read(indices))
    assert small.fingerprint == whole.fingerprint


def test_of_two_shares_that_are_the_same_images_the_larger_one_stays():
    section = {"name": "shapes", "train_count": 80, "validation_count": 20, "test_count": 20, "classes": 8,
               "image_size": 8, "channels": 1}  # fmt: skip
    data_shares, notes = shares.plan_shares((0.01, 0.05, 0.5, 1.0), section, data.load(section))
    assert [(data_share.share, data_share.examples) for data_share in data_shares] == [(0.05, 8), (0.5, 40), (1.0, 80)]
    assert notes == [
        "1 % of the training data is left out: with at least one image for each class it is the same 8 images as 5 %"
    ]


def write_unbalanced(folder, counts):
    """Writes a folder of images with so many of each class, by the name of the class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")


def test_a_share_without_an_image_of_some_class_is_left_out_and_the_class_named(tmp_path):
    write_unbalanced(tmp_path / "photos", {"common": 97, "rare": 2, "single": 1})
    section = {"name": "folder", "path": str(tmp_path / "photos"), "image_size": 8}
    dataset = data.load(section)
    ((whole,), notes) = shares.plan_shares((0.1, 1.0), section, dataset)
    assert (whole.share, whole.examples) == (1.0, 100)
    # the two images of "rare" stand about a quarter and three quarters through the stratified order, "single" halfway
    assert notes == [
        "10 % of the training data is left out: among its 10 images 2 of 3 classes have none: rare, single"
    ]
    with pytest.raises(UserError, match="2 of 3 classes have none: rare, single; name a larger share"):
        shares.plan_shares((0.1,), section, dataset)


def test_no_setting_of_the_data_comes_from_the_recipe_of_an_arm(place):
    planned, _ = plan(place / "tiny.py")
    sections = []
    for arm in planned:
        if arm.arm.name != "broken":
            run = settings.load(arm.trials[0].config, list(arm.trials[0].overrides))
            sections.append(run.section("data"))
    assert all(section == sections[0] for section in sections[1:])
    assert (sections[0]["train"], sections[0]["batch_size"]) == ("train[:80]", 16)


def test_a_warmup_is_a_tenth_of_the_budget_at_most_and_what_the_arm_says_stays(place):
    words = {"arms.broken": "none", "arms.own.settings": "('schedule.warmup=7 steps',)"}
    words |= {f"arms.{name}.recipe": "configs/digits_mlp.py" for name in ("own", "short")}
    planned, _ = plan(place / "tiny.py", steps=100, **words)
    warmups = {}
    for arm in planned:
        run = settings.load(arm.trials[0].config, list(arm.trials[0].overrides))
        warmups[arm.arm.name] = run["schedule.warmup"]
    # the recipe of the MLP says 100 steps, and smoke 5 at most
    assert (warmups["short"], warmups["mlp"], warmups["own"]) == ("10 steps", "5 steps", "7 steps")


def test_the_last_stage_is_that_with_the_norm_behind_it_and_the_head():
    for name, expected in (
        ("cifar_resnet/8@mnist", ["stages/2", "head"]),
        ("vit/Ti4-gap@mnist", ["blocks/3", "norm", "head"]),
    ):
        weights = compare.pretrained_settings.open_weights(name)
        assert compare.list_last_stage(weights) == expected


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ({"trained_on": ["mnist", "Digits"]}, "its card says Digits"),
        ({"data_fingerprint": "FINGERPRINT"}, "the same fingerprint"),
    ],
)
def test_weights_that_were_trained_on_the_data_are_refused(origin, reason, place, tmp_path):
    fingerprint = data.load({"name": "digits"}).fingerprint
    origin = {key: fingerprint if value == "FINGERPRINT" else value for key, value in origin.items()}
    path = make_weights(tmp_path / "seen.safetensors", origin=origin)
    with pytest.raises(
        UserError, match=f"arm knn: .*seen.safetensors was trained on the very data .*{reason}"
    ) as caught:
        cnn_vit.compare(str(place / "tiny.py"), tmp_path / "out", overrides=[f"weights={path}"])
    assert "--config.arms.knn=none" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_weights_that_the_recipe_of_an_arm_names_by_itself_are_looked_at_too(place, tmp_path):
    path = make_weights(tmp_path / "seen.safetensors", origin={"trained_on": ["digits"]})
    own = "settings=('model.name=mlp/test', 'pretrained.weights={path}', 'duration=3 steps', 'schedule.warmup=0')"
    words = ["arms.mine.recipe=configs/digits_mlp.py", f"arms.mine.{own.format(path=path)}", "arms.broken=none"]
    with pytest.raises(UserError, match=r"mine.*seen.safetensors, which its recipe names, was trained on the very dat"):
        cnn_vit.compare(str(place / "tiny.py"), tmp_path / "out", overrides=words)
    assert not (tmp_path / "out" / "plan.json").exists()


def test_a_folder_in_which_another_process_compares_keeps_its_plan(place, tmp_path):
    with files.Lock(tmp_path / trials.LOCK), pytest.raises(SurroundingsError, match="is in use by process"):
        cnn_vit.compare(str(place / "tiny.py"), tmp_path)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize(
    ("section", "classes", "name"),
    [
        ({"name": "cifar", "path": None}, 10, "cifar10"),
        ({"name": "cifar"}, 100, "cifar100"),
        ({"name": "tfds", "dataset": "mnist:3.*.*"}, 10, "mnist"),
        ({"name": "folder", "path": "photos/Flowers.zip"}, 5, "Flowers"),
        ({"name": "digits"}, 10, "digits"),
    ],
)
def test_data_are_called_by_what_a_card_would_call_them(section, classes, name):
    dataset = data.Dataset(tuple(map(str, range(classes))), (8, 8, 1), {}, "f" * 64)
    assert compare.name_data(section, dataset) == name


def test_a_run_on_the_same_data_is_refused_as_weights(compared, place, tmp_path):
    run = next(record.run for record in compared.records if record.run is not None)
    words = ["arms.broken=none", "arms.untouched=none", f"weights={run}"]
    with pytest.raises(UserError, match=r"arm knn: .* was trained on the very data of this comparison \(the same f"):
        cnn_vit.compare(str(place / "tiny.py"), tmp_path / "out", overrides=words)


def test_an_untouched_network_that_does_not_know_the_classes_is_left_out(place, tmp_path):
    path = make_weights(tmp_path / "other.safetensors", classes=tuple("abcdefghij"))
    recipe = compare.arms.load_comparison(str(place / "tiny.py"), [f"weights={path}"])
    weights = compare.open_weights(recipe)
    kept = compare.leave_out_unknown_classes(recipe, weights, data.load({"name": "digits"}))
    assert kept.left_out.keys() == {"untouched"}
    assert {arm.name for arm in kept.arms} == {"broken", "knn", "linear", "mlp"}


def test_a_budget_of_time_is_turned_into_steps_once_and_kept(place, tmp_path, monkeypatch):
    words = ["budget=10 CPU-seconds"]
    recipe = compare.arms.load_comparison(str(place / "tiny.py"), words)
    weights = compare.open_weights(recipe)
    section, _ = compare.complete_data(recipe, weights)
    cache = trials.DataCache()
    measured = []

    def measure_paces(planned, *_):
        for one in planned:
            measured.append(one.trial.name)
            assert one.settings["pretrained.stages"] == ()  # all of what is trained at the end
        return [1.5]

    monkeypatch.setattr(compare.workers, "measure_paces", measure_paces)
    assert compare.choose_steps(recipe, weights, section, tmp_path, cache) == 6
    assert measured == ["the pace of mlp"]  # no arm that cannot be started, and none that trains nothing
    dataset = cache.load(section)
    compare.write_plan(tmp_path, recipe, dataset, [], [], 6)
    assert compare.read_plan(tmp_path, recipe, dataset)["steps"] == 6
    other = compare.arms.load_comparison(str(place / "tiny.py"), [*words, "budget=20 CPU-seconds"])
    assert compare.read_plan(tmp_path, other, dataset) is None
    more = compare.arms.load_comparison(str(place / "tiny.py"), [*words, "threads=2"])
    with pytest.raises(UserError, match="was begun with threads=1"):
        compare.read_plan(tmp_path, more, dataset)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"workers": 0}, "workers=0 do nothing; make it at least 1"),
        ({"keep": "some"}, "keep is some; it takes best or all"),
        ({"overrides": ["arms.twin.task=knn"]}, "the arms knn and twin are the same; leave one out"),
        ({"overrides": ["data.bach_size=3"]}, "no setting 'data.bach_size'"),
        ({"overrides": ["weights=nowhere.pth"]}, "arm knn: "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(words, sentence, place, tmp_path):
    with pytest.raises(UserError) as caught:
        cnn_vit.compare(str(place / "tiny.py"), tmp_path / "out", **words)
    assert sentence in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_flags_of_the_command_are_options_of_the_comparison(compared, place, monkeypatch):
    taken = []

    def run_comparison(config, out, *, overrides, options):
        taken.append((config, out, overrides, options))
        return compared

    monkeypatch.setattr(compare, "run_comparison", run_comparison)
    words = ["--workers=3", "--retry-failed", "--isolate", "--keep=all", "--config.seeds=7"]
    main(["compare", "--config=x.py", "--out=y", *words])
    main(["compare", "--out=z"])
    every = compare.Options(workers=3, retries_failed=True, is_isolated=True, keep="all")
    assert taken == [
        ("x.py", Path("y"), ["seeds=7"], every),
        ("configs/compare_digits.py", Path("z"), [], compare.Options()),
    ]


def test_states_that_end_a_trial_have_exit_codes():
    assert {*_failures.CODES, trials.CRASHED} == set(trials.FAILED)


# Whole recipes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "shares"),
    [("compare_digits.py:data,smoke", {"0.01", "0.1", "1.0"}), ("compare_folder.py:smoke", {"1.0"})],
)
def test_smoke_compares_every_arm_of_a_recipe_without_a_file(recipe, shares, tmp_path):
    assert main(["compare", f"--config=configs/{recipe}", f"--out={tmp_path}", "--workers=2"]) == 0
    rows = read_rows(tmp_path / "results.csv")
    assert {row["state"] for row in rows} == {"complete"}
    assert {row["share"] for row in rows} == shares
    assert {row["steps"] for row in rows if row["task"] == "train"} == {"6"}
    assert len({row["data"] for row in rows}) == 1
