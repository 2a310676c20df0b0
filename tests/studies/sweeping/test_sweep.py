"""Sweeps that train: no trial is lost or done twice, whatever is killed, and no number depends on how it was done."""

import json
import sys
from pathlib import Path

import killing
import pytest

import cnn_vit
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.studies import trials, workers
from cnn_vit.studies.sweep import SweepOptions, run_sweep
from cnn_vit.studies.sweeping.definition import read_toml
from cnn_vit.studies.sweeping.ledger import read_plan

PROGRAM = Path(__file__).with_name("sweep_process.py")
COMMON = """
config = "configs/digits_mlp.py:smoke"
[settings]
evaluate_every = "10 steps"
checkpoint_every = "10 steps"
log_every = 1
schedule.warmup = 0
"""
SPACE = """
[space]
optimizer.learning_rate = {log = [1e-3, 1e-1], steps = 3}
optimizer.weight_decay = [0.0, 0.01]
"""
HALVING = """
[halving]
eta = 2
first = "10 steps"
"""


def write_sweep(folder, keys, *, steps=20, space=SPACE, more=""):
    """Writes a sweep of runs of so many steps; returns the file."""
    file = folder / "sweep.toml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(f'{keys}{COMMON}duration = "{steps} steps"\n{space}{more}')
    return file


def start_sweep(out, file, number_of_workers, *words):
    """Starts a sweep in a process of its own."""
    return killing.start([sys.executable, PROGRAM, out, file, number_of_workers, *words])


def file_times(out):
    """When each file of the trials was written last."""
    return {path: path.stat().st_mtime_ns for path in (out / trials.TRIALS).rglob("*") if path.name != trials.LOCK}


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """The folder, the file and the facts of a sweep of four points with halving, of which one is run to its end."""
    folder = tmp_path_factory.mktemp("halved")
    file = write_sweep(folder, 'sampler = "sobol"\ntrials = 4\nworkers = 2\n', steps=40, more=HALVING)
    return folder / "out", file, run_sweep(read_toml(file), folder / "out", SweepOptions())


def test_a_sweep_halves_its_trials_and_reads_no_test_split(halved):
    out, _, facts = halved
    assert sorted(trial.state for trial in facts.trials) == ["complete", "pruned", "pruned", "pruned"]
    assert sorted(trial.steps for trial in facts.trials) == [10, 10, 20, 40]
    plan, _ = read_plan(out)
    assert [len(rung.suggestions) for rung in plan.rungs] == [2, 1]
    assert not list(out.rglob("test_reads.jsonl"))
    assert not list(out.rglob("test.npz"))
    (complete,) = [trial for trial in facts.trials if trial.state == "complete"]
    result = json.loads((complete.folder / trials.RESULT).read_text())["result"]
    assert result["test"] is None
    assert result["validation"]["accuracy"] == complete.metric
    assert result["counts"]["test"] == 64


def test_a_trial_that_went_through_all_rungs_has_the_bits_of_one_that_was_trained_at_once(halved, tmp_path):
    _, _, facts = halved
    (complete,) = [trial for trial in facts.trials if trial.state == "complete"]
    values = [f"{key}={value}" for key, value in complete.values.items()]
    settings = cnn_vit.settings.load("configs/digits_mlp.py:smoke", [*facts.definition["overrides"], *values])
    cnn_vit.train(settings, tmp_path / "run")
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert metrics == (complete.folder / trials.RUN / "metrics.jsonl").read_bytes()


def test_the_page_is_written_by_another_process_and_by_this_one_where_that_fails(halved, monkeypatch):
    out, file, _ = halved
    page = out / "report.html"
    text = page.read_text()
    page.unlink()
    monkeypatch.setattr("cnn_vit.studies.sweep.write_page", None)  # not needed
    run_sweep(read_toml(file), out, SweepOptions())
    assert page.read_text() == text
    monkeypatch.undo()
    page.unlink()
    monkeypatch.setattr("cnn_vit.studies.sweep.PAGE_COMMAND", ("false",))
    run_sweep(read_toml(file), out, SweepOptions())
    assert page.read_text() == text


def test_a_finished_sweep_is_left_as_it_is_and_starts_no_process(halved, monkeypatch):
    out, file, facts = halved
    before = file_times(out)
    results = (out / "results.csv").read_bytes()
    monkeypatch.setattr(workers, "WORKER_COMMAND", ("false",))  # no worker could start
    again = run_sweep(read_toml(file), out, SweepOptions())
    assert again == facts
    assert file_times(out) == before
    assert (out / "results.csv").read_bytes() == results


def test_a_recipe_that_was_edited_while_its_sweep_was_under_way_is_refused_and_nothing_is_lost(halved, tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text(Path("configs/digits_mlp.py").read_text())
    file = write_sweep(tmp_path, 'sampler = "random"\ntrials = 2\n')
    file.write_text(file.read_text().replace("configs/digits_mlp.py:smoke", f"{recipe}:smoke"))
    out = tmp_path / "out"
    run_sweep(read_toml(file), out, SweepOptions())
    plan, _ = read_plan(out)
    last = out / trials.TRIALS / plan.rows[1].id
    (last / trials.RESULT).unlink()
    recipe.write_text(
        recipe.read_text().replace("weight_decay = 0.01", "weight_decay = 0.01\n    config.loss.smoothing = 0.2")
    )
    with pytest.raises(SurroundingsError, match=r"mine\.py:smoke, or what it names, has changed since"):
        run_sweep(read_toml(file), out, SweepOptions())
    assert (out / trials.TRIALS / plan.rows[0].id / trials.RESULT).exists()
    assert not (last / trials.RESULT).exists()


def test_more_workers_than_the_lag_are_refused(tmp_path):
    file = write_sweep(tmp_path, 'sampler = "tpe"\ntrials = 4\nlag = 2\n')
    with pytest.raises(UserError, match="workers=3 are more than lag=2"):
        run_sweep(read_toml(file), tmp_path / "out", SweepOptions(workers=3))
    assert not (tmp_path / "out" / "plan.jsonl").exists()


# The verb -------------------------------------------------------------------------------------------------------------


def bowl(values, seed):
    """A function of one's own."""
    return (values["x"] - 0.25) ** 2 + values.get("y", 0) + 0.0 * seed


def test_a_function_of_ones_own_is_swept_in_this_process_and_goes_on_where_it_was(tmp_path):
    calls = []

    def counted(values):
        calls.append(values)
        return (values["x"] - 0.25) ** 2

    space = {"x": [0.0, 0.25, 0.5, 1.0]}
    table = cnn_vit.sweep(counted, space, sampler="grid", mode="min", out=tmp_path)
    assert table["best"]["values"] == {"x": 0.25}
    assert [row["value"] for row in table["rows"]] == [0.0625, 0.0, 0.0625, 0.5625]
    assert (tmp_path / "results.csv").read_text().splitlines()[0].startswith("row,suggestion,seed,id,state")
    assert cnn_vit.sweep(counted, space, sampler="grid", mode="min", out=tmp_path)["rows"] == table["rows"]
    assert len(calls) == 4

    def counted(values):
        calls.append(values)
        return 2 * (values["x"] - 0.25) ** 2

    with pytest.raises(SurroundingsError, match="counted> has changed since this sweep was planned"):
        cnn_vit.sweep(counted, space, sampler="grid", mode="min", out=tmp_path)
    with pytest.raises(UserError, match="space"):
        cnn_vit.sweep(counted, {"x": [0.0, 2.0]}, sampler="grid", mode="min", out=tmp_path)


def test_a_function_in_a_file_is_swept_by_workers_and_a_failing_point_takes_nothing_with_it(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def f(values):\n    return 1 / values['x']\n")
    table = cnn_vit.sweep(f"{file}:f", {"x": [2, 0, 4]}, mode="max", out=tmp_path / "out", workers=2)
    assert [row["state"] for row in table["rows"]] == ["complete", "crashed", "complete"]
    assert [row["value"] for row in table["rows"]] == [0.5, None, 0.25]
    assert "ZeroDivisionError" in table["rows"][1]["reason"]
    assert table["counts"] == {"complete": 2, "crashed": 1}


def test_a_misspelled_state_to_retry_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"'divergd'.*did you mean diverged"):
        cnn_vit.sweep(bowl, {"x": [0.0]}, mode="min", out=tmp_path, retries=["divergd"])


def test_the_traceback_of_a_function_that_failed_here_stands_in_the_log_of_its_trial(tmp_path):
    def fails(values):
        return 1 / values["x"]

    (row,) = cnn_vit.sweep(fails, {"x": [0]}, mode="min", out=tmp_path)["rows"]
    assert row["state"] == "crashed"
    log = (tmp_path / trials.TRIALS / row["id"] / trials.LOG).read_text()
    assert "return 1 / values[" in log


# Kills and order ------------------------------------------------------------------------------------------------------

SWEEPS = {
    "grid": ('sampler = "grid"\n', ""),
    "random": ('sampler = "random"\ntrials = 6\n', ""),
    "sobol": ('sampler = "sobol"\ntrials = 6\n', ""),
    "tpe": ('sampler = {name = "tpe", startup = 3}\ntrials = 8\n', ""),
    "halving": ('sampler = "random"\ntrials = 6\n', HALVING),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_the_same_bytes_at_one_worker_and_at_four_with_random_delays(tmp_path, name):
    keys, more = SWEEPS[name]
    file = write_sweep(tmp_path, keys, more=more)
    for out, words in {"one": (1,), "four": (4, "delayed")}.items():
        killing.finish(start_sweep(tmp_path / out, file, *words))
    for path in ("plan.jsonl", "results.csv"):
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "four" / path).read_bytes()


def kill_a_sweep(folder, *, points, unique, choices, seed, steps, worker_kills, parent_kills):
    """Does a sweep whose processes are killed now and then, and compares it with one that was left alone.

    Args:
        folder: an empty one.
        points: random points of a grid with so many learning rates and weight decays as `choices` says.
        unique: how many of them differ, with this seed.
        choices: of the grid.
        seed: of the sweep, and of the moments of the kills.
        steps: of each trial.
        worker_kills: how many workers are killed.
        parent_kills: how often the sweep itself is.
    """
    rates, decays = choices
    space = "\n[space]\n"
    space += f"optimizer.learning_rate = {[(number + 1) * 1e-3 for number in range(rates)]}\n"
    space += f"optimizer.weight_decay = {[number * 1e-3 for number in range(decays)]}\n"
    file = write_sweep(folder, f'sampler = "random"\ntrials = {points}\nseed = {seed}\n', steps=steps, space=space)
    undisturbed = killing.finish(start_sweep(folder / "undisturbed", file, 2))
    killed, kills = killing.kill_now_and_then(
        lambda: start_sweep(folder / "killed", file, 2),
        folder / "killed",
        worker_kills=worker_kills,
        parent_kills=parent_kills,
        seed=seed,
    )
    assert killed == undisturbed == f"{' '.join(['complete'] * points)}\nFalse\n"  # the last word: no jax
    names = ("validation", "best", "steps", "fingerprint")
    results = killing.results_of(folder / "killed", *names)
    assert len(results) == unique
    assert results == killing.results_of(folder / "undisturbed", *names)
    assert killing.count_starts(folder / "undisturbed") == unique
    assert killing.count_starts(folder / "killed") <= unique + len(kills)
    for path in ("plan.jsonl", "results.csv"):
        assert (folder / "killed" / path).read_bytes() == (folder / "undisturbed" / path).read_bytes()
    return kills


@pytest.mark.slow
def test_kills_of_scheduler_and_trials_lose_no_trial_and_do_none_twice(tmp_path):
    kills = kill_a_sweep(
        tmp_path, points=20, unique=18, choices=(8, 6), seed=4, steps=250, worker_kills=16, parent_kills=8
    )
    assert len(kills) == 24
    assert sum(kills) >= 10  # while a trial was training
