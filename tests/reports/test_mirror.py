"""The journal in TensorBoard's and W&B's hands; neither package need be installed."""

import sys
from types import SimpleNamespace

import pytest
from folders import finished

from cnn_vit.errors import SurroundingsError
from cnn_vit.files import cache
from cnn_vit.reports import mirror
from cnn_vit.runs import reader

LINES = [
    (10, {"train/accuracy": 0.5, "train/gradient_norm": 1.0, "train/learning_rate": 0.1, "train/loss": 2.0}),
    (10, {"validation/accuracy": 0.6, "validation/loss": 3.0}),
    (20, {"train/accuracy": 0.5, "train/gradient_norm": 1.0, "train/learning_rate": 0.1, "train/loss": 1.0}),
    (20, {"validation/accuracy": 0.6, "validation/loss": 1.5}),
]


@pytest.fixture
def record(tmp_path):
    return reader.read_run(finished(tmp_path / "run"))


def test_each_number_of_the_journal_is_a_scalar_at_its_step(record, monkeypatch):
    written = []
    writer = SimpleNamespace(add_scalar=lambda *given: written.append(given), close=lambda: written.append("closed"))
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=lambda folder: writer))
    (record.workdir / "tensorboard").mkdir()
    (record.workdir / "tensorboard" / "old").touch()
    assert mirror.tensorboard(record) == f"tensorboard --logdir={record.workdir / 'tensorboard'}"
    assert written == [*((name, value, step) for step, told in LINES for name, value in told.items()), "closed"]
    assert not (record.workdir / "tensorboard" / "old").exists()  # a copy made anew, not a second one


@pytest.mark.parametrize(("offline", "mode"), [(False, None), (True, "offline")])
def test_wandb_gets_lines_and_settings_and_stays_offline_where_told(record, monkeypatch, offline, mode):
    asked, logged = {}, []
    run = SimpleNamespace(url="https://w/1", log=lambda told, step: logged.append((step, told)), finish=lambda: None)
    fake = SimpleNamespace(init=lambda **given: asked.update(given) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(cache, "_places", cache.CachePlaces(offline=offline))
    assert mirror.wandb(record) == "https://w/1"
    assert logged == LINES
    assert asked["mode"] == mode
    assert asked["config"]["optimizer.learning_rate"] == record.settings["optimizer.learning_rate"]


@pytest.mark.parametrize(("service", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_one_sentence_with_the_command(record, monkeypatch, service, extra):
    monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(service, service), None)
    with pytest.raises(SurroundingsError, match=rf"is not installed; pip install 'cnn_vit\[{extra}\]'"):
        mirror.SERVICES[service](record)
