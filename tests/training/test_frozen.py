"""A run that does not train all of its network: what is frozen stays, is saved once, and is proven to have stayed."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import flip_bit
from flax import nnx
from quick import QUICK
from running import committed_steps, load_settings, read_result, train, undisturbed_outcome
from stepping import default_numbers, make_batch, make_hyperparameters, make_network_spec, make_step_spec

from cnn_vit import data, settings, trees
from cnn_vit.data.feed import stream
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.nn.forms import only_plain_forms
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import description, manifests
from cnn_vit.training import evaluation, freezing, recalibration, step, trained
from cnn_vit.training.caches import clear_compiled
from cnn_vit.training.devices import mesh
from cnn_vit.training.freezing import FreezeSpec
from cnn_vit.training.program import Program, check_network

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

RESNET = make_network_spec("cifar_resnet/test", side=8)
VIT = make_network_spec("vit/test", side=8, dropout=0.5, stochastic_depth=0.5, depth=2)
STORED = ("pretrained.statistics=stored",)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A finished run with a frozen body whose statistics are stored."""
    folder = tmp_path_factory.mktemp("frozen") / "run"
    train("frozen", folder, *STORED)
    return folder


def initial_values_of(spec, seed=0):
    """The initial values of a network, dict(params, stats)."""
    params, stats = initial_values(freezing.forward.get_network(spec), seed)
    return dict(params=params, stats=stats)


def saved_paths(folder, name):
    """The paths of the arrays in a checkpoint, of which the manifest says what they are."""
    return set(manifests.read(folder / "checkpoints" / name)["arrays"])


# The run and its folder -----------------------------------------------------------------------------------------------


def test_what_is_frozen_is_saved_once_and_lies_in_no_other_checkpoint(run_folder):
    frozen = saved_paths(run_folder, "frozen")
    assert {path.split("/")[1] for path in frozen} == {"stem", "stages"}
    assert "stats/stages/0/blocks/0/norm1/mean" in frozen
    for number in committed_steps(run_folder):
        state = saved_paths(run_folder, str(number))
        assert not [path for path in state if "stages/0" in path or "stem/kernel" in path]
        assert {path for path in state if path.startswith("ema/params")} == {
            path.replace("params/", "ema/params/", 1) for path in state if path.startswith("params/")
        }


def test_the_result_proves_that_nothing_frozen_has_moved(run_folder):
    result = read_result(run_folder)
    proof = result["frozen"]
    assert proof["moved"] == []
    assert proof["digest"] == proof["source_digest"]
    assert proof["statistics_digest"] == proof["source_statistics_digest"]
    assert proof["parameters"] + result["trained_parameters"] == result["parameters"]
    # by the initial values themselves, which the seed gives
    settings = load_settings("frozen", *STORED)
    program_spec = make_network_spec(
        "cifar_resnet/test", classes=10, side=8, filters=8, channels=settings["data.channels"]
    )
    params = initial_values_of(program_spec)["params"]
    stages = {index: params["stages"][index] for index in (0, 1)}
    assert proof["digest"] == trees.digest(dict(stages=stages, stem=params["stem"]))


def test_a_loaded_network_is_the_one_that_was_tested(run_folder):
    network = trained.load(run_folder)
    metrics = evaluation.evaluate(network, load_settings("frozen").section("data"), "test")
    assert metrics["accuracy"] == read_result(run_folder)["test"]["accuracy"]
    assert metrics["loss"] == pytest.approx(read_result(run_folder)["test"]["loss"], rel=1e-6)


def test_training_moved_what_is_not_frozen(run_folder):
    network = trained.load(run_folder)
    before = initial_values_of(network.spec)
    for path, leaf in jax.tree_util.tree_leaves_with_path(network.params):
        is_frozen = trees.path_text(path).startswith(("stem/", "stages/0/", "stages/1/"))
        same = np.array_equal(leaf, dict(jax.tree_util.tree_leaves_with_path(before["params"]))[path])
        assert same == is_frozen, path


def test_statistics_that_follow_the_batches_are_trained_values():
    outcome = undisturbed_outcome("frozen")
    proof = outcome["result"]["frozen"]
    assert proof["statistics"] == "update"
    assert proof["moved"] == []
    assert proof["statistics_digest"] == proof["source_statistics_digest"] == trees.digest({})


@pytest.mark.parametrize("name", ["frozen/MANIFEST.json", "frozen/d"])
def test_damage_to_what_is_frozen_is_refused_by_name(run_folder, tmp_path, name):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    path = folder / "checkpoints" / name
    if path.is_dir():
        path = max(path.iterdir(), key=lambda file: file.stat().st_size)
    path.write_bytes(flip_bit(path.read_bytes(), 8 * (path.stat().st_size // 2)))
    with pytest.raises(SurroundingsError, match="frozen"):
        trained.load(folder)
    (folder / "result.json").unlink()  # the same command then goes on from the last checkpoint
    with pytest.raises(SurroundingsError, match="frozen"):
        train("frozen", folder, *STORED)


def test_a_fork_freezes_the_same_and_another_pattern_is_refused(run_folder, tmp_path, capsys):
    changes = (*STORED, "duration=14 steps")
    train("frozen", tmp_path / "fork", *changes, "seed=1", fork_from=run_folder)  # whose initial values are others
    assert "freezes initial values, which have learned nothing" in capsys.readouterr().err
    fork, origin = read_result(tmp_path / "fork"), read_result(run_folder)
    assert fork["steps"] == 14
    assert fork["frozen"]["digest"] == origin["frozen"]["digest"]
    assert fork["frozen"]["moved"] == []
    with pytest.raises(UserError, match=r"stages/0/"):
        train("frozen", tmp_path / "other", *changes, "pretrained.freeze=stem", fork_from=run_folder)
    with pytest.raises(UserError, match="another network"):
        train("frozen", tmp_path / "none", *changes, "pretrained.freeze=none", fork_from=run_folder)
    with pytest.raises(UserError, match=r"has pretrained\.statistics=stored"):
        train("frozen", tmp_path / "anew", *changes, "pretrained.statistics=recalibrate", fork_from=run_folder)
    with pytest.raises(UserError, match=r"did not begin with the weights .* leave pretrained\.weights="):
        train("frozen", tmp_path / "weights", *changes, f"pretrained.weights={run_folder}", fork_from=run_folder)


def test_a_fork_that_freezes_needs_an_origin_that_did(tmp_path):
    train("mlp", tmp_path / "origin")
    with pytest.raises(UserError, match="trained its whole network"):
        train(
            "mlp",
            tmp_path / "fork",
            "duration=14 steps",
            "pretrained.freeze=all but head",
            fork_from=tmp_path / "origin",
        )


def test_another_pattern_is_another_run(run_folder):
    with pytest.raises(UserError, match=r"pretrained\.freeze: 'stem' here, 'stem, stages/0\.\.1' in the folder"):
        train("frozen", run_folder, *STORED, "pretrained.freeze=stem")


def test_smoke_keeps_freezing_all_but_the_head_and_no_other_pattern(tmp_path):
    recipe = tmp_path / "mine.py"
    text = (
        "from ml_collections import ConfigDict\n\n\ndef get_config(mode=''):\n    config = ConfigDict()\n"
        "    config.data = ConfigDict(dict(name='digits'))\n"
        "    config.model = ConfigDict(dict(name='cifar_resnet/20'))\n"
        "    config.optimizer = ConfigDict(dict(name='sgd'))\n"
        "    config.pretrained = ConfigDict(dict(weights='gone', freeze='{}'))\n    return config\n"
    )
    for pattern, expected in (("all but head", "all but head"), ("stages/0..1", None)):
        recipe.write_text(text.format(pattern))
        smoke = settings.load(f"{recipe}:smoke")
        assert (smoke["pretrained.freeze"], smoke["pretrained.weights"]) == (expected, None)


def test_weight_decay_of_what_is_frozen_alone_is_refused(digits):
    """Of a norm that is trained, no kernel is; a pattern of its own decays, and so does any other kernel."""
    changes = ("pretrained.freeze=all but stem_norm", "optimizer.weight_decay=0.1")
    with pytest.raises(UserError, match=r"decay_pattern '\(\^\|/\)kernel\$' matches, so that nothing decays"):
        check_network(load_settings("frozen", *changes), digits.dataset)
    for remedy in ("optimizer.weight_decay=0", "optimizer.decay_pattern=scale$", "pretrained.freeze=all but stem"):
        check_network(load_settings("frozen", *changes, remedy), digits.dataset)


def test_adapters_alone_may_decay_where_a_pattern_means_them(digits):
    """Where all else is frozen, no kernel decays; the names of the factors are what a pattern needs."""
    changes = ("pretrained.freeze=all", "pretrained.lora=2", "optimizer.weight_decay=0.1")
    with pytest.raises(UserError, match=r"'all' freezes all .* nothing decays; .* such as head/lora_a"):
        check_network(load_settings("mlp", *changes), digits.dataset)
    for pattern in ("(kernel|lora_[ab])$", "lora_[ab]$"):
        settings = load_settings("mlp", *changes, f"optimizer.decay_pattern={pattern}")
        Program(settings, digits.dataset, digits.preprocessing)


# The network in training ----------------------------------------------------------------------------------------------


def features_in_training(spec, freeze, values, images):
    """Scores of a network in training, with its new statistics."""
    network = freezing.build_training_network(spec, freeze)

    def score(params, stats, images, key):
        return network.apply(params, stats, images, train=True, rngs=nnx.Rngs(dropout=key))

    return jax.jit(score, compiler_options=QUICK)(values["params"], values["stats"], images, stream.key(0))


def scores_in_evaluation(spec, values, images):
    """Scores of a network outside of training."""
    score = jax.jit(partial(freezing.forward.get_network(spec).apply, train=False), compiler_options=QUICK)
    return score(values["params"], values["stats"], images)[0]


@pytest.mark.parametrize(
    ("spec", "pattern"), [(RESNET, "all but head"), (VIT, "all but head"), (VIT, "all but norm, head")]
)
def test_a_body_that_is_frozen_works_in_training_as_in_evaluation(spec, pattern):
    """Batch norm uses what is stored, and nothing is dropped: dropout in front of the first trained layer neither."""
    values = initial_values_of(spec)
    values["params"]["head"]["kernel"] = np.random.default_rng(0).normal(size=values["params"]["head"]["kernel"].shape)
    images = jnp.asarray(make_batch(side=8)["image"] / 255, jnp.float32)
    scores, stats = features_in_training(spec, FreezeSpec(pattern), values, images)
    expected = scores_in_evaluation(spec, values, images)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert trees.digest(stats) == trees.digest(values["stats"])


def test_dropout_stays_on_behind_a_trained_layer():
    values = initial_values_of(VIT)
    values["params"]["head"]["kernel"] = np.random.default_rng(0).normal(size=values["params"]["head"]["kernel"].shape)
    images = jnp.asarray(make_batch(side=8)["image"] / 255, jnp.float32)
    expected = scores_in_evaluation(VIT, values, images)
    for pattern in ("patches", "blocks/0"):  # the second block is trained
        scores, _ = features_in_training(VIT, FreezeSpec(pattern), values, images)
        assert np.abs(scores - expected).max() > 1e-2


@pytest.fixture
def nothing_fixed(monkeypatch):
    """A package whose frozen norms are not fixed."""
    clear_compiled()
    monkeypatch.setattr(freezing, "BatchNorm", type(None))
    yield
    clear_compiled()


@pytest.mark.usefixtures("nothing_fixed")
def test_an_unfixed_batch_norm_is_named_as_moved(tmp_path):
    assert "stem_norm/mean" in freezing.find_moving_statistics(RESNET, FreezeSpec("all but head"))
    train("frozen", tmp_path, *STORED, "pretrained.freeze=all but head", "duration=6 steps")
    moved = read_result(tmp_path)["frozen"]["moved"]
    assert "stages/2/blocks/0/norm2/var" in moved


def test_nothing_moves_where_norms_are_fixed():
    assert freezing.find_moving_statistics(RESNET, FreezeSpec("all but head")) == []


# Recalibration --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Settings and data of a run that recalibrates, its program."""
    changes = ("pretrained.statistics=recalibrate", "pretrained.freeze=all but head")
    run_settings = load_settings("frozen", *changes)
    dataset = data.load(run_settings.section("data"))
    return Program(run_settings, dataset, description.make_preprocessing(run_settings, dataset))


def test_recalibrated_statistics_are_those_of_all_whole_batches(digits):
    """By float64 and NumPy, of the first batch norm, in front of which nothing depends on the batch."""
    values = digits.start.values
    recalibrated = digits.recalibrate(values)["stats"]["stem_norm"]
    split = digits.dataset.splits["train"]
    whole = len(split) // digits.batch_size * digits.batch_size
    images = split.read(np.arange(whole)).astype(np.float64) / 255
    images = (images - np.array(digits.preprocessing["mean"])) / np.array(digits.preprocessing["std"])
    kernel = values["params"]["stem"]["kernel"].astype(np.float64)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    outputs = 0
    for row in range(3):
        for column in range(3):
            outputs = outputs + padded[:, row : row + height, column : column + width] @ kernel[row, column]
    np.testing.assert_allclose(recalibrated["mean"], outputs.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(recalibrated["var"], outputs.var((0, 1, 2)), rtol=1e-4)


def test_pooled_variance_holds_that_of_the_means():
    rng = np.random.default_rng(0)
    batches = rng.normal(rng.normal(size=(5, 1)), 1, (5, 40))
    parts = [{"n/mean": batch.mean(keepdims=True), "n/var": batch.var(keepdims=True)} for batch in batches]
    pooled = recalibration.pool_batches(parts)
    assert pooled["n/mean"] == pytest.approx(batches.mean(), rel=1e-6)
    assert pooled["n/var"] == pytest.approx(batches.var(), rel=1e-6)


def test_a_run_that_recalibrates_freezes_what_it_measured(digits, tmp_path):
    changes = ("pretrained.statistics=recalibrate", "pretrained.freeze=all but head")
    train("frozen", tmp_path, *changes)
    network = trained.load(tmp_path)
    expected = digits.recalibrate(digits.start.values)["stats"]
    assert trees.digest(network.stats) == trees.digest(expected)
    proof = read_result(tmp_path)["frozen"]
    assert proof["moved"] == []
    assert proof["statistics_digest"] != proof["source_statistics_digest"]


def test_to_measure_what_is_not_frozen_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing is frozen"):
        train("mlp", tmp_path / "run", "pretrained.statistics=recalibrate")


def test_fewer_images_than_a_batch_cannot_be_measured(digits):
    split = digits.dataset.splits["train"].select(np.arange(8))
    with pytest.raises(UserError, match=r"data\.batch_size of 32 is more than the 8 training images"):
        recalibration.measure_statistics(
            digits.spec.network, mesh(), digits.start.values, digits.preprocessing, split, batch_size=32, workers=0
        )


# What it costs --------------------------------------------------------------------------------------------------------


def count_lowered_flops(spec, pattern):
    """The FLOPs of a step of 8 images, lowered with plain forms, as XLA counts them."""
    freeze = freezing.NOTHING if pattern is None else FreezeSpec(pattern)
    step_spec = make_step_spec(spec, freeze=freeze)
    network = freezing.build_training_network(spec, freeze)
    masks = freezing.get_masks(spec, freeze)
    values, frozen = freezing.split_values(dict(params=network.params, stats=network.stats), masks)
    side, _, channels = spec.image_shape
    batch = make_batch(8, classes=spec.num_classes, side=side, channels=channels)
    hyperparameters = make_hyperparameters(channels=channels, classes=spec.num_classes)
    with only_plain_forms():
        state = jax.eval_shape(partial(step.init_state, step_spec, network), **values, hyperparameters=hyperparameters)
        learn = jax.jit(partial(step.learn, step_spec, network))
        return learn.lower(state, frozen, batch, hyperparameters).cost_analysis()["flops"]


@pytest.mark.parametrize(("model", "side"), [("cifar_resnet/20", 32), ("vit/Ti16", 224)])
def test_a_head_alone_is_trained_at_less_than_half_of_the_work(model, side):
    """A forward pass, of the three times as much that training everything takes."""
    spec = make_network_spec(model, classes=10, side=side, channels=3)
    whole = count_lowered_flops(spec, None)
    head_alone = count_lowered_flops(spec, "all but head")
    assert 0.3 < head_alone / whole <= 0.45


@pytest.mark.parametrize("pattern", ["all but head", "stem, stages/0", "all but stages/1"])
def test_the_optimizer_has_a_state_for_what_is_trained_alone(pattern):
    spec = make_step_spec(RESNET, optimizer="adamw", freeze=FreezeSpec(pattern))
    masks = freezing.get_masks(RESNET, spec.freeze)
    values, _ = freezing.split_values(initial_values_of(RESNET), masks)
    hyperparameters = make_hyperparameters(optimizer=default_numbers("optimizer", "adamw"))
    network = freezing.build_training_network(RESNET, spec.freeze)
    state = jax.eval_shape(partial(step.init_state, spec, network), **values, hyperparameters=hyperparameters)
    trained_leaves = len(jax.tree.leaves(values["params"]))
    moments = [leaf for leaf in jax.tree.leaves(state["opt"]) if leaf.shape]
    assert len(moments) == 2 * trained_leaves  # Adam's first and second
    assert 0 < trained_leaves < len(jax.tree.leaves(masks["params"]))
