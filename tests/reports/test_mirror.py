"""The metrics as TensorBoard and W&B get them; neither package need be installed."""

import sys
from types import SimpleNamespace

import pytest
from folders import write_finished_run

from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.reports import mirror
from cnn_vit.runs import reader

SCALARS = [
    (10, {"train/accuracy": 0.5, "train/gradient_norm": 1.0, "train/learning_rate": 0.1, "train/loss": 2.0}),
    (10, {"validation/accuracy": 0.6, "validation/loss": 3.0}),
    (20, {"train/accuracy": 0.5, "train/gradient_norm": 1.0, "train/learning_rate": 0.1, "train/loss": 1.0}),
    (20, {"validation/accuracy": 0.6, "validation/loss": 1.5}),
]  # of the run that `write_finished_run` writes


@pytest.fixture
def record(tmp_path):
    return reader.read_run(write_finished_run(tmp_path / "run"))


def test_each_number_of_the_metrics_is_a_scalar_at_its_step(record, monkeypatch):
    calls = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: calls.append(scalar), close=lambda: calls.append("closed"))
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=lambda folder: writer))
    (record.workdir / "tensorboard").mkdir()
    (record.workdir / "tensorboard" / "old").touch()
    assert mirror.tensorboard(record) == f"tensorboard --logdir={record.workdir / 'tensorboard'}"
    scalars = [(name, value, step) for step, numbers in SCALARS for name, value in numbers.items()]
    assert calls == [*scalars, "closed"]
    assert not (record.workdir / "tensorboard" / "old").exists()  # a copy made anew, not a second one


@pytest.mark.parametrize(("offline", "mode"), [(False, None), (True, "offline")])
def test_wandb_gets_metrics_and_settings_and_stays_offline_where_the_user_wants_it(record, monkeypatch, offline, mode):
    options, logged = {}, []

    def init(**keywords):
        options.update(keywords)
        return SimpleNamespace(
            url="https://w/1", log=lambda numbers, step: logged.append((step, numbers)), finish=lambda: None
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr(cache, "_places", cache.CachePlaces(offline=offline))
    assert mirror.wandb(record) == "https://w/1"
    assert logged == SCALARS
    assert options["mode"] == mode
    assert options["config"]["optimizer.learning_rate"] == record.settings["optimizer.learning_rate"]


@pytest.mark.parametrize(("service", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_one_sentence_with_the_command(record, monkeypatch, service, extra):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(service, service), None)
    with pytest.raises(SurroundingsError, match=rf"is not installed; pip install 'cnn_vit\[{extra}\]'"):
        mirror.SERVICES[service](record)
