"""The values that a run begins with: what is loaded of its pretrained weights, what is resized, what is new."""

import gc
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
from running import (
    VIT,
    call_at_step,
    load_settings,
    read_lines,
    read_pretrained,
    read_result,
    send_signal,
    train,
)
from stepping import make_network_spec

from cnn_vit import data, trees
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import reader
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.training import pretrained_settings, program, starting_values, trained
from cnn_vit.training.forward import get_network
from cnn_vit.transfer.weights import Card, Weights

pytestmark = pytest.mark.usefixtures("_compiled_quickly")


def origins_of(folder, *paths):
    """How values of a run came about, by their paths."""
    leaves = {path: origin for path, origin, _, _ in read_pretrained(folder)["leaves"]}
    return [leaves[path] for path in paths]


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
    adapted = starting_values.adapt_weights(load_settings("vit", *VIT), weights, spec, initial, card.classes)
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
    assert leaves["params/head/kernel"] == ["new", None, [16, 10]]  # 2 x 8 filters of the second stage
    assert read_result(tmp_path)["frozen"]["moved"] == []
    network = trained.load(tmp_path)
    assert network.spec.keywords == (("cut", "stages/1"), ("filters", 8))
    before = trained.load(origin).params
    assert trees.digest(network.params["stages"][1]) == trees.digest(before["stages"][1])


def test_a_frozen_value_that_the_weights_lack_is_refused(origin, tmp_path):
    changes = ("pretrained.load=stem", "pretrained.freeze=stages/0")
    with pytest.raises(UserError, match="an initial value that never learns; leave stages/0/blocks/0/conv1 out of it"):
        train("frozen", tmp_path / "run", *changes, f"pretrained.weights={origin}")


# What stays in memory -------------------------------------------------------------------------------------------------


@pytest.fixture
def list_held(monkeypatch):
    """A function that lists what is still held, anywhere, of the weights that were opened and the starts made of them.

    Of the weights' arrays it looks at one that is trained: a CPU may use a frozen one where it lies.
    """
    references = {}

    def open_and_watch(*args, **keywords):
        settings, weights = complete_settings(*args, **keywords)
        references["weights"] = weakref.ref(weights)
        references["array"] = weakref.ref(weights.params["stages"][2]["blocks"][0]["conv2"]["kernel"])
        return settings, weights

    def make_and_watch(*args):
        start = make_start(*args)
        references["start"] = weakref.ref(start)
        return start

    def list_held():
        gc.collect()
        held = [name for name, reference in references.items() if reference() is not None]
        watched = sorted(references)
        references.clear()
        return watched, held

    complete_settings, make_start = pretrained_settings.complete_settings, starting_values.make_start
    monkeypatch.setattr(pretrained_settings, "complete_settings", open_and_watch)
    monkeypatch.setattr(program, "make_start", make_and_watch)
    return list_held


def test_the_host_keeps_no_copy_of_the_weights_while_it_trains(origin, tmp_path, monkeypatch, list_held):
    """Neither in a run that begins nor in one that goes on; both know the filters from before the first step."""
    settings = (f"pretrained.weights={origin}",)
    answers = []
    with monkeypatch.context() as patch:
        call_at_step(patch, 5, lambda: (answers.append(list_held()), send_signal()))
        with pytest.raises(StoppedError):
            train("frozen", tmp_path, *settings)
    call_at_step(monkeypatch, 8, lambda: answers.append(list_held()))
    train("frozen", tmp_path, *settings)
    assert answers == [(["array", "start", "weights"], [])] * 2
    kernel = np.asarray(trained.load(origin).params["stem"]["kernel"])
    with np.load(tmp_path / "samples.npz") as samples:
        np.testing.assert_array_equal(samples["filters_before"], np.moveaxis(kernel, -1, 0))


def test_the_kernel_that_is_kept_is_a_copy(origin):
    """A view of a larger array would keep all of that array."""
    settings, weights = pretrained_settings.complete_settings(load_settings("frozen", f"pretrained.weights={origin}"))
    dataset = data.load(settings.section("data"))
    run_program = program.Program(settings, dataset, make_preprocessing(settings, dataset), weights=weights)
    run_program.release_start()
    assert run_program.weights is None
    assert run_program.starting_kernel().flags.owndata


# What is written down -------------------------------------------------------------------------------------------------


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
