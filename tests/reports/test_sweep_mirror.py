"""The trials of a sweep as TensorBoard and W&B get them; neither package need be installed."""

import sys
from types import SimpleNamespace

import pytest
from sweep_examples import OPTIMIZER, RATE, SPACE, make_facts, make_trial

from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.reports import sweep_mirror


@pytest.fixture
def facts(tmp_path):
    """Two trials with numbers, one that crashed, and one that is the same run as the first."""
    trials = [
        make_trial(0, 0.5, values={RATE: 0.1, OPTIMIZER: ["a", 1]}),
        make_trial(1, 0.75, values={RATE: 0.2}, seed=3),
        make_trial(2, None),
        make_trial(3, 0.5, alias_of=0, id=f"{0:016x}"),
    ]
    return make_facts(trials, dimensions=(SPACE[0], SPACE[2]), out=tmp_path / "it's a sweep")


def test_each_trial_with_numbers_is_a_row_of_hparams(facts, monkeypatch):
    rows = []

    def make_writer(folder):
        add = lambda values, metrics, name, global_step: rows.append((values, metrics, name, global_step))  # noqa: E731
        return SimpleNamespace(add_hparams=add, close=lambda: rows.append("closed"))

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=make_writer))
    (facts.out / "tensorboard").mkdir(parents=True)
    (facts.out / "tensorboard" / "old").touch()
    assert sweep_mirror.tensorboard(facts) == f"tensorboard --logdir='{facts.out}/tensorboard'".replace(
        "it's", "it'\"'\"'s"
    )
    assert rows == [
        ({RATE: 0.1, OPTIMIZER: '["a", 1]', "seed": 0}, {"validation.accuracy": 0.5}, f"{0:016x}", 90),
        ({RATE: 0.2, "seed": 3}, {"validation.accuracy": 0.75}, f"{1:016x}", 90),
        "closed",
    ]
    assert not (facts.out / "tensorboard" / "old").exists()  # a copy made anew, not a second one


@pytest.mark.parametrize(("offline", "mode"), [(False, None), (True, "offline")])
def test_wandb_gets_a_table_of_all_trials_and_stays_offline_where_the_user_wants_it(facts, monkeypatch, offline, mode):
    options, logged = {}, []

    def init(**keywords):
        options.update(keywords)
        return SimpleNamespace(url="https://w/1", log=logged.append, finish=lambda: logged.append("finished"))

    def make_table(**content):
        return content

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Table=make_table))
    monkeypatch.setattr(cache, "_places", cache.CachePlaces(offline=offline))
    assert sweep_mirror.wandb(facts) == "https://w/1"
    table = logged[0]["trials"]
    assert table["columns"] == ["suggestion", "seed", "id", "state", "validation.accuracy", "steps", RATE, OPTIMIZER]
    assert [row[3:] for row in table["data"]] == [
        ["complete", 0.5, 90, 0.1, '["a", 1]'],
        ["complete", 0.75, 90, 0.2, None],
        ["crashed", None, 0, 0.003, None],
        ["complete", 0.5, 90, 0.004, None],
    ]
    assert (options["mode"], options["config"], logged[1]) == (mode, facts.definition, "finished")


@pytest.mark.parametrize(("service", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_one_sentence_with_the_command(facts, monkeypatch, service, extra):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(service, service), None)
    with pytest.raises(SurroundingsError, match=rf"is not installed; pip install 'cnn_vit\[{extra}\]'"):
        sweep_mirror.SERVICES[service](facts)
