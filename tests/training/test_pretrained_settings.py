"""A run whose settings its pretrained weights complete: what they decide, and what a resume needs of them."""

import json
import shutil

import pytest
from running import call_at_step, load_settings, read_outcome, read_pretrained, read_result, send_signal, train

from cnn_vit import trees
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.settings import fingerprint
from cnn_vit.training import pretrained_settings, trained
from cnn_vit.transfer.weights import Card, Weights

pytestmark = pytest.mark.usefixtures("_compiled_quickly")


def complete(name, origin, *changes):
    """The settings of a run from the weights of another, completed by them."""
    settings, _ = pretrained_settings.complete_settings(load_settings(name, f"pretrained.weights={origin}", *changes))
    return settings


def test_what_a_recipe_leaves_open_the_weights_decide(origin):
    card = json.loads((origin / "preprocessing.json").read_text())
    settings = complete("frozen", origin, "data.image_size=none", "data.channels=none")
    assert settings["data.mean"] == tuple(card["mean"])
    assert settings["data.std"] == tuple(card["std"])
    assert settings["data.image_size"] == tuple(card["image_size"])
    assert settings["data.channels"] == card["channels"]
    assert settings["model.filters"] == 8
    decided = ("data.mean", "data.std", "data.image_size", "data.channels", "pretrained.digest")
    assert {settings.origin[key] for key in decided} == {"weights"}
    network = trained.load(origin)
    assert settings["pretrained.digest"] == trees.digest(dict(params=network.params, stats=network.stats))


def test_keywords_of_the_model_come_from_the_weights(origin):
    settings = load_settings("frozen", f"pretrained.weights={origin}", "pretrained.freeze=none")
    values = {key: value for key, value in settings.values.items() if key != "model.filters"}
    completed, _ = pretrained_settings.complete_settings(type(settings)(values, settings.origin, "r"))
    assert completed["model.filters"] == 8
    assert completed.origin["model.filters"] == "weights"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["data.mean=(0.1,)"], r"data\.mean is \(0\.1,\), and the weights were trained with"),
        (["data.std=(0.1,)"], r"data\.std is \(0\.1,\)"),
        (["model.name=cifar_resnet/8"], r"weights of cifar_resnet/test, and model\.name is cifar_resnet/8"),
        ([f"pretrained.digest={'0' * 64}"], "holds other weights than pretrained.digest says"),
    ],
)
def test_what_contradicts_the_weights_is_refused(origin, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        complete("frozen", origin, *changes)


@pytest.mark.parametrize("mean", ["(0.5, 0.5)", "(0.5, 0.5, 0.4)"])
def test_a_mean_of_other_channels_or_of_another_color_is_refused(mean):
    preprocessing = dict(mean=[0.5] * 3, std=[0.2] * 3, channels=3, image_size=[8, 8])
    card = Card("cifar_resnet/test", {}, 10, None, preprocessing)
    settings = load_settings("frozen", "data.channels=3", f"data.mean={mean}", "pretrained.weights=w")
    with pytest.raises(UserError, match=r"and the weights were trained with \(0\.5, 0\.5, 0\.5\)"):
        pretrained_settings.complete_from_card(settings, Weights({}, {}, card))


@pytest.mark.parametrize("setting", ["pretrained.load=stem", "pretrained.head=small", f"pretrained.digest={'0' * 64}"])
def test_what_means_nothing_without_weights_is_refused(setting, tmp_path):
    with pytest.raises(UserError, match=r"there are no weights; set pretrained\.weights"):
        train("frozen", tmp_path / "run", setting)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        train("frozen", tmp_path / "run", "pretrained.weights=nowhere")
    assert not (tmp_path / "run").exists()


def test_the_digest_of_the_weights_is_part_of_the_fingerprint(origin, tmp_path):
    base = read_result(origin)["fingerprint"]
    completed = complete("frozen", origin)
    assert completed["pretrained.digest"] is not None
    other = pretrained_settings.with_values(completed, {"pretrained.digest": "0" * 64})
    elsewhere = pretrained_settings.with_values(completed, {"pretrained.weights": "elsewhere"})
    assert fingerprint(completed, "d") != fingerprint(other, "d")
    assert fingerprint(completed, "d") == fingerprint(elsewhere, "d")
    assert base != fingerprint(completed, "d")


# A resume -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(origin, tmp_path, monkeypatch):
    """A run from weights that was stopped at step 5: its folder, its settings, and where its weights lie."""
    weights = tmp_path / "weights"
    shutil.copytree(origin, weights)
    settings = (f"pretrained.weights={weights}", "pretrained.freeze=stem, stages/0", "pretrained.statistics=update")
    with monkeypatch.context() as patch:
        call_at_step(patch, 5, send_signal)
        with pytest.raises(StoppedError):
            train("frozen", tmp_path / "run", *settings)
    return tmp_path / "run", settings, weights


def test_a_resume_goes_on_when_the_weights_are_gone(stopped, tmp_path):
    folder, settings, weights = stopped
    train("frozen", tmp_path / "undisturbed", *settings)
    shutil.rmtree(weights)
    with pytest.raises(UserError, match=r"data\.fit: 'stretch' here, 'crop' in the folder"):
        train("frozen", folder, *settings, "data.fit=stretch")
    train("frozen", folder, *settings)
    outcome, expected = read_outcome(folder), read_outcome(tmp_path / "undisturbed")
    # filters before the first step are not known any more
    assert outcome.pop("samples") != expected.pop("samples")
    assert outcome == expected
    assert trained.load(folder).spec.model == "cifar_resnet/test"
    train("frozen", tmp_path / "fork", *settings, "duration=14 steps", fork_from=folder)
    assert read_result(tmp_path / "fork")["frozen"]["moved"] == []
    assert read_pretrained(tmp_path / "fork") == read_pretrained(folder)


def test_a_resume_with_other_weights_is_refused(stopped, tmp_path):
    folder, settings, weights = stopped
    train("frozen", tmp_path / "other", "seed=1", "pretrained.freeze=none")
    shutil.rmtree(weights)
    (tmp_path / "other").rename(weights)
    with pytest.raises(UserError, match=r"pretrained\.digest: '[0-9a-f]+' here, '[0-9a-f]+' in the folder"):
        train("frozen", folder, *settings)
    with pytest.raises(UserError, match=r"put .* back as it was then, or move it away"):
        train("frozen", tmp_path / "fork", *settings, "duration=14 steps", fork_from=folder)
