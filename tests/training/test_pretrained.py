"""A run that starts from pretrained weights: what they decide, what is loaded, and what a resume needs of them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from running import call_at_step, load_settings, read_lines, read_outcome, read_result, send_signal, train
from stepping import make_network_spec

from cnn_vit import trees
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import reader
from cnn_vit.settings import fingerprint
from cnn_vit.training import pretrained, trained
from cnn_vit.training.forward import get_network
from cnn_vit.transfer.weights import Card, Weights

VIT = ("model.dropout=0", "optimizer.accumulate=1", "ema_decay=none", "data.augment=()")


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A finished run, whose values others start from."""
    folder = tmp_path_factory.mktemp("origin") / "run"
    train("frozen", folder, "pretrained.freeze=none")
    return folder


@pytest.fixture(scope="module")
def vit_origin(tmp_path_factory):
    """A finished run of a ViT without a mark of its training but its values."""
    folder = tmp_path_factory.mktemp("origin") / "vit"
    train("vit", folder, *VIT)
    return folder


def read_pretrained(folder):
    return json.loads((folder / "pretrained.json").read_text())


def origins_of(folder, *paths):
    """How values of a run came about, by their paths."""
    leaves = {path: origin for path, origin, _, _ in read_pretrained(folder)["leaves"]}
    return [leaves[path] for path in paths]


def complete(name, origin, *changes):
    """The settings of a run from the weights of another, completed by them."""
    settings, _ = pretrained.complete_settings(load_settings(name, f"pretrained.weights={origin}", *changes))
    return settings


# Settings -------------------------------------------------------------------------------------------------------------


def test_what_a_recipe_leaves_open_the_weights_decide(origin):
    card = json.loads((origin / "preprocessing.json").read_text())
    settings = complete("frozen", origin, "data.image_size=none", "data.channels=none")
    assert settings["data.mean"] == tuple(card["mean"])
    assert settings["data.std"] == tuple(card["std"])
    assert settings["data.image_size"] == tuple(card["image_size"])
    assert settings["data.channels"] == card["channels"]
    assert settings["model.filters"] == 40
    decided = ("data.mean", "data.std", "data.image_size", "data.channels", "pretrained.digest")
    assert {settings.origin[key] for key in decided} == {"weights"}
    network = trained.load(origin)
    assert settings["pretrained.digest"] == trees.digest(dict(params=network.params, stats=network.stats))


def test_keywords_of_the_model_come_from_the_weights(origin):
    settings = load_settings("frozen", f"pretrained.weights={origin}", "pretrained.freeze=none")
    values = {key: value for key, value in settings.values.items() if key != "model.filters"}
    completed, _ = pretrained.complete_settings(type(settings)(values, settings.origin, "r"))
    assert completed["model.filters"] == 40
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
        pretrained.complete_from_card(settings, Weights({}, {}, card))


@pytest.mark.parametrize("setting", ["pretrained.load=stem", "pretrained.head=small", f"pretrained.digest={'0' * 64}"])
def test_what_means_nothing_without_weights_is_refused(setting, tmp_path):
    with pytest.raises(UserError, match=r"there are no weights; set pretrained\.weights"):
        train("frozen", tmp_path / "run", setting)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        train("frozen", tmp_path / "run", "pretrained.weights=nowhere")
    assert not (tmp_path / "run").exists()


# What is loaded -------------------------------------------------------------------------------------------------------


def test_a_run_starts_from_the_values_that_were_tested(origin, tmp_path):
    """A step at a rate of almost 0, on the images of the origin, whose accuracy is then the origin's."""
    changes = ("pretrained.freeze=none", "optimizer.learning_rate=1e-30", "ema_decay=none", "schedule.warmup=0")
    train("frozen", tmp_path, *changes, f"pretrained.weights={origin}", "optimizer.weight_decay=0", "duration=1 steps")
    assert origins_of(tmp_path, "params/stem/kernel", "stats/stem_norm/mean", "params/head/kernel") == ["loaded"] * 3
    before, after = trained.load(origin).params, trained.load(tmp_path).params
    assert trees.digest(before) == trees.digest(after)


def test_other_classes_get_a_head_of_zeros_whose_first_loss_is_that_of_chance(origin, tmp_path):
    changes = ("pretrained.freeze=none", "data.classes=4", "log_every=1", "duration=6 steps", "loss.smoothing=0")
    train("frozen", tmp_path, *changes, f"pretrained.weights={origin}")
    assert origins_of(tmp_path, "params/stem/kernel", "params/head/kernel") == ["loaded", "new"]
    assert read_lines(tmp_path)[0]["loss"] == pytest.approx(np.log(4), rel=1e-6)


@pytest.mark.slow
def test_what_is_not_asked_for_is_not_loaded(origin, tmp_path):
    changes = ("pretrained.freeze=stem", "pretrained.load=stem, stages/0..1", "duration=6 steps")
    train("frozen", tmp_path, *changes, f"pretrained.weights={origin}")
    paths = ("params/stem/kernel", "params/stages/1/blocks/0/conv1/kernel", "params/stages/2/blocks/0/conv1/kernel")
    assert origins_of(tmp_path, *paths, "params/head/kernel") == ["loaded", "loaded", "new", "new"]


@pytest.mark.parametrize("said_by", ["keywords", "origin"])
def test_a_network_cut_at_the_same_layer_keeps_its_norm_and_its_head(said_by):
    spec = make_network_spec("vit/test", side=8, depth=2, cut="blocks/0")
    params, stats = initial_values(get_network(spec), 0)
    card = Card("vit/test", {}, spec.num_classes, ("a",) * spec.num_classes, {})
    weights = Weights(params, stats, replace(card, **{said_by: {"cut": "blocks/0"}}))
    initial = dict(params=params, stats=stats)
    adapted = pretrained.adapt_weights(load_settings("vit", *VIT), weights, spec, initial, card.classes)
    assert {leaf.origin for leaf in adapted.rows} == {"loaded"}


@pytest.mark.slow
def test_positions_are_resized_to_another_image_size(vit_origin, tmp_path, capsys):
    changes = (*VIT, "data.image_size=16", "duration=6 steps")
    train("vit", tmp_path, *changes, f"pretrained.weights={vit_origin}")
    assert "image size 8x8 -> 16x16; pos_embed/embedding resized" in capsys.readouterr().err
    leaves = {path: leaf for path, *leaf in read_pretrained(tmp_path)["leaves"]}
    how, old_shape, new_shape = leaves["params/pos_embed/embedding"]
    assert how == "resized"
    assert new_shape[0] - 1 == 4 * (old_shape[0] - 1)  # twice as many rows and columns, and the class token
    assert leaves["params/patches/kernel"][0] == "loaded"


def test_the_upper_layers_can_be_left_out_and_the_lower_ones_frozen(origin, tmp_path):
    changes = ("pretrained.cut=stages/1", "pretrained.freeze=all but head", "pretrained.statistics=stored")
    train("frozen", tmp_path, *changes, "duration=6 steps", f"pretrained.weights={origin}")
    leaves = {path: leaf for path, *leaf in read_pretrained(tmp_path)["leaves"]}
    assert {path.split("/")[1] for path in leaves} == {"stem", "stem_norm", "stages", "head"}
    assert not [path for path in leaves if "stages/2" in path]
    assert leaves["params/head/kernel"] == ["new", None, [80, 10]]  # 2 x 40 filters of the second stage
    assert read_result(tmp_path)["frozen"]["moved"] == []
    network = trained.load(tmp_path)
    assert network.spec.keywords == (("cut", "stages/1"), ("filters", 40))
    before = trained.load(origin).params
    assert trees.digest(network.params["stages"][1]) == trees.digest(before["stages"][1])


def test_a_frozen_value_that_the_weights_lack_is_refused(origin, tmp_path):
    changes = ("pretrained.load=stem", "pretrained.freeze=stages/0")
    with pytest.raises(UserError, match="an initial value that never learns; leave stages/0/blocks/0/conv1 out of it"):
        train("frozen", tmp_path / "run", *changes, f"pretrained.weights={origin}")


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


def test_a_resume_with_other_weights_is_refused(stopped, vit_origin, tmp_path):
    folder, settings, weights = stopped
    train("frozen", tmp_path / "other", "seed=1", "pretrained.freeze=none")
    shutil.rmtree(weights)
    (tmp_path / "other").rename(weights)
    with pytest.raises(UserError, match=r"pretrained\.digest: '[0-9a-f]+' here, '[0-9a-f]+' in the folder"):
        train("frozen", folder, *settings)
    with pytest.raises(UserError, match=r"put .* back as it was then, or move it away"):
        train("frozen", tmp_path / "fork", *settings, "duration=14 steps", fork_from=folder)


@pytest.mark.parametrize(
    "content",
    [
        {"leaves": [1]},
        {"leaves": [["params/stem/kernel", "moved", None, [3]]]},
        {"leaves": [["stem", "new", None, [3]]]},
        {"leaves": [], "card": "cifar_resnet/20"},
        {"leaves": [], "card": {"model": "cifar_resnet/20", "origin": []}},
    ],
)
def test_a_start_that_no_run_writes_is_refused(content, tmp_path):
    path = tmp_path / "pretrained.json"
    path.write_text(json.dumps({"frozen": {"params": "", "stats": ""}, **content}))
    with pytest.raises(UserError, match="is not as a run writes it"):
        reader.read_pretrained(path)


def test_the_digest_of_the_weights_is_part_of_the_fingerprint(origin, tmp_path):
    base = read_result(origin)["fingerprint"]
    completed = complete("frozen", origin)
    assert completed["pretrained.digest"] is not None
    other = pretrained.with_values(completed, {"pretrained.digest": "0" * 64})
    elsewhere = pretrained.with_values(completed, {"pretrained.weights": "elsewhere"})
    assert fingerprint(completed, "d") != fingerprint(other, "d")
    assert fingerprint(completed, "d") == fingerprint(elsewhere, "d")
    assert base != fingerprint(completed, "d")
