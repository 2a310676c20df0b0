"""A sweep as TensorBoard and W&B get it; neither package need be installed."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from sweep_examples import OPTIMIZER, RATE, make_facts, make_trial

from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.reports import sweep_exports

VALUES = {RATE: 0.01, OPTIMIZER: "sgd", "model.hidden": [8, 8], "schedule.name": None, "model.bias": True}
PLAIN = {"seed": 3, RATE: 0.01, OPTIMIZER: "sgd", "model.hidden": "(8, 8)", "schedule.name": "none", "model.bias": True}


@pytest.fixture
def facts(tmp_path):
    trials = [
        make_trial(0, 0.5, seed=3, values=VALUES),
        make_trial(1, 0.4, state="pruned", curve=((45, 0.4),), steps=45),
        make_trial(2, None),
        make_trial(3, 0.5, alias_of=0),
        make_trial(4, None, state="running", curve=((45, 0.2),)),
    ]
    return replace(make_facts(trials), out=tmp_path)


def test_each_run_gets_its_values_its_metric_and_its_curve(facts, tmp_path, monkeypatch):
    calls = {}

    def make_writer(folder):
        made = calls.setdefault(str(folder).removeprefix(f"{tmp_path}/tb/"), [])
        return SimpleNamespace(
            add_scalar=lambda *scalar: made.append(scalar),
            file_writer=SimpleNamespace(add_summary=made.append),
            close=lambda: made.append("closed"),
        )

    def hparams(values, metrics):
        return [("begins", values, list(metrics)), "ends"]

    module = SimpleNamespace(SummaryWriter=make_writer, summary=SimpleNamespace(hparams=hparams))
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    old, foreign = tmp_path / "tb" / "suggestion0001-seed0" / "old", tmp_path / "tb" / "mine"
    for path in (old, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert sweep_exports.to_tensorboard(facts, tmp_path / "tb") == f"tensorboard --logdir={tmp_path / 'tb'}"
    final = "final/validation.accuracy"
    assert calls == {
        "suggestion0000-seed3": [
            ("begins", PLAIN, [final]), "ends",
            ("validation.accuracy", 0.25, 45), ("validation.accuracy", 0.5, 90), (final, 0.5, 90), "closed",
        ],
        "suggestion0001-seed0": [
            ("begins", {"seed": 0, RATE: 0.002}, [final]), "ends",
            ("validation.accuracy", 0.4, 45), (final, 0.4, 45), "closed",
        ],
        "suggestion0004-seed0": [
            ("begins", {"seed": 0, RATE: 0.005}, [final]), "ends", ("validation.accuracy", 0.2, 45), "closed",
        ],
    }  # fmt: skip
    assert not old.exists()  # a copy made anew, not a second one
    assert foreign.exists()


@pytest.mark.parametrize(("offline", "mode", "url"), [(False, None, "https://w/1"), (True, "offline", None)])
def test_wandb_gets_a_run_for_each_trial_and_stays_offline_where_asked(facts, monkeypatch, offline, mode, url):
    runs = []

    def init(**keywords):
        run = SimpleNamespace(url=url, summary={}, options=keywords, logged=[], finished=False)
        run.log = lambda numbers, step: run.logged.append((step, numbers))
        run.finish = lambda: setattr(run, "finished", True)
        assert all(earlier.finished for earlier in runs)
        runs.append(run)
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(cache, "_places", cache.CachePlaces(offline=offline))
    answer = sweep_exports.to_wandb(facts, "mine")
    assert answer == (url or f"wandb sync {facts.out}/wandb/offline-run-*")
    assert [run.options["name"] for run in runs] == [
        "suggestion0000-seed3", "suggestion0001-seed0", "suggestion0004-seed0",
    ]  # fmt: skip
    assert runs[0].options["config"] == PLAIN
    assert {run.options["mode"] for run in runs} == {mode}
    assert {(run.options["project"], run.options["group"]) for run in runs} == {("mine", "made_up")}
    assert [run.options["tags"] for run in runs] == [["complete"], ["pruned"], ["running"]]
    assert runs[0].logged == [(45, {"validation.accuracy": 0.25}), (90, {"validation.accuracy": 0.5})]
    assert [run.summary for run in runs] == [
        {"final/validation.accuracy": 0.5}, {"final/validation.accuracy": 0.4}, {},
    ]  # fmt: skip


@pytest.mark.parametrize(("service", "module"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_is_one_sentence_with_the_command(facts, tmp_path, monkeypatch, service, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SurroundingsError, match=rf"is not installed; pip install 'cnn_vit\[{service}\]'"):
        sweep_exports.SERVICES[service](facts, tmp_path)
