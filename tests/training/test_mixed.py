"""Runs on images of several sizes (data.fit=pad_batch): trained, stopped, evaluated and predicted exactly."""

import functools
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest
import running
import stepping
from PIL import Image

from cnn_vit import data, settings
from cnn_vit.data.base.padding import PaddedSizes
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.training import devices, evaluation, forward, loop, plan, prediction, run_weights, step
from cnn_vit.training.rules import RuleSpec
from cnn_vit.training.trained import load, make_trained

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

SMALL = ("model.filters=(4,4)", "model.stride=2", "model.head=average", "model.batch_norm=false")
TINY = ("model.width=8", "model.depth=1", "model.heads=2", "model.hidden=16", "model.dropout=0.1")
MODELS = {"cnn": ("model.name=cnn/test", *SMALL), "vit": ("model.name=vit/test", *TINY)}
RECIPES = {"cnn": "configs/digits_cnn.py", "vit": "configs/folder_vit.py"}
COMMON = (
    *("data.name=folder", "data.fit=pad_batch", "data.image_size=24", "data.channels=3", "data.batch_size=4"),
    *("data.augment=('flip',)", "data.classes=none", "ema_decay=none", "loss.smoothing=0"),
    *("duration=12 steps", "schedule.warmup=0 steps", "log_every=4", "evaluate_every=6", "checkpoint_every=4"),
)


@functools.cache
def make_image_folder():
    """Noise of two brightnesses: images of 7x8 and 8x5 pixels, and a few of 40x30. Made once for a process."""
    root = Path(tempfile.mkdtemp(prefix="cnn_vit_mixed_"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 9), ("test", 9)):
        for class_name, darkest in (("dark", 0), ("light", 80)):
            (root / part / class_name).mkdir(parents=True)
            for number in range(count):
                if number == 0:
                    size = (40, 30)
                else:
                    size = (7, 8) if number % 4 else (8, 5)
                pixels = rng.integers(darkest, darkest + 170, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / class_name / f"{number}.png")
    return root


def load_settings(name, *changes):
    """Final settings of a tiny run on the folder of images."""
    overrides = [*COMMON, f"data.path={make_image_folder()}", *MODELS[name], *changes]
    return settings.load(RECIPES[name], overrides)


def load_resnet_settings(*changes):
    """Final settings of a recipe without keywords of the model."""
    return settings.load("configs/folder_resnet.py", [*COMMON, f"data.path={make_image_folder()}", *changes])


@functools.cache
def train_run(name):
    """Trains a run to its end, once for a process, and returns its folder."""
    workdir = Path(tempfile.mkdtemp(prefix="cnn_vit_mixed_")) / "run"
    loop.train(load_settings(name), workdir)
    return workdir


def load_dataset(name):
    return data.load(load_settings(name).section("data"))


BOTH_NETWORKS = pytest.mark.parametrize("name", ["cnn", pytest.param("vit", marks=pytest.mark.slow)])


@BOTH_NETWORKS
def test_each_size_compiles_once(name):
    """`learn` has met several shapes, at most as many as there are sizes."""
    run_settings, network = load_settings(name), load(train_run(name))
    sizes = network.preprocessing["sizes"]
    assert sizes[-1] == [24, 24]
    assert 1 < len(sizes) <= 8
    learn = step.build_step(plan.step_spec(run_settings, network.spec, examples=48), devices.mesh()).learn
    assert 1 < learn._cache_size() <= len(sizes)


@BOTH_NETWORKS
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    expected = running.read_outcome(train_run(name))
    with monkeypatch.context() as patch:
        running.call_at_step(patch, 5, running.send_signal)
        with pytest.raises(StoppedError):
            loop.train(load_settings(name), tmp_path / "run")
    loop.train(load_settings(name), tmp_path / "run")
    assert running.read_outcome(tmp_path / "run") == expected


@BOTH_NETWORKS
def test_scores_do_not_depend_on_what_else_is_in_the_batch(name):
    """In batches of 1, 7 and 512 each image has the scores that the network gives it alone, without any padding.

    In batches of 1 each size compiles once.
    """
    network, dataset = load(train_run(name)), load_dataset(name)
    split = dataset.splits["test"]
    eval_step = forward.build_eval_step(network.spec, devices.mesh())
    compilations_before = eval_step._cache_size()
    answers = [evaluation.evaluate(network, dataset, batch_size=1)["rows"]]
    compilations = eval_step._cache_size() - compilations_before
    assert 1 < compilations <= len(network.preprocessing["sizes"])
    for size in (7, 512):
        answers.append(evaluation.evaluate(network, dataset, batch_size=size)["rows"])
    constants = forward.build_evaluator(network.spec, network.preprocessing, devices.mesh(), loss_numbers={}).constants
    apply = jax.jit(functools.partial(network.network.apply, train=False))
    for index in range(len(split)):
        height, width = split.padded_sizes.image_sizes[index]
        image = np.float32(split.read(np.array([index]))[:, :height, :width]) / 255
        expected, _ = apply(
            network.params,
            network.stats,
            forward.normalize(image, constants, "float32"),
            mask=np.ones((1, height, width), bool),
        )
        for per_example in answers:
            assert per_example["index"][index] == index
            assert per_example["label"][index] == split.labels[index]
            np.testing.assert_allclose(per_example["scores"][index], expected[0], rtol=1e-5, atol=1e-6)


def test_weights_of_such_a_run_say_that_images_keep_their_sizes(tmp_path):
    """A recipe that leaves fit and size open: a step at a rate of almost 0 then measures what the origin measured."""
    origin = train_run("cnn")
    decided = ("data.fit", "data.image_size", "data.channels")
    changes = [change for change in COMMON if not change.startswith(decided)]
    changes += [f"data.path={make_image_folder()}", "data.image_size=none", "data.channels=none", "model.name=cnn/test"]
    changes += ["optimizer.learning_rate=1e-30", "optimizer.weight_decay=0", f"pretrained.weights={origin}"]
    run_settings = settings.load(RECIPES["cnn"], [*changes, "duration=1 steps"])
    assert run_settings.origin["data.fit"] == "default"
    result = loop.train(run_settings, tmp_path)
    network = load(tmp_path)
    assert network.preprocessing["fit"] == "pad_batch"
    assert network.preprocessing["sizes"] == load(origin).preprocessing["sizes"]
    assert result["test"]["loss"] == pytest.approx(running.read_result(origin)["test"]["loss"], rel=1e-6)
    assert network.spec.keywords == load(origin).spec.keywords


def test_weights_of_such_a_run_predict_as_the_run_does():
    """On canvases of one size, where the run had several."""
    origin = train_run("cnn")
    exported = run_weights.describe_export(run_weights.weights_of_run(origin), origin)
    assert "sizes" not in exported.card.preprocessing
    network = make_trained(exported)
    assert network.preprocessing["sizes"] == [[24, 24]]
    paths = sorted((make_image_folder() / "test").rglob("*.png"))[:3]
    expected = prediction.predict(load(origin), paths)
    np.testing.assert_allclose(prediction.predict(network, paths), expected, rtol=1e-5, atol=1e-6)


@BOTH_NETWORKS
def test_predicted_probabilities_are_those_of_evaluation(name):
    network, test_folder = load(train_run(name)), make_image_folder() / "test"
    per_example = evaluation.evaluate(network, load_settings(name).section("data"))["rows"]
    paths = sorted(test_folder.rglob("*.png"))
    names = list(load_dataset(name).splits["test"].names)
    indices = [names.index(str(path.relative_to(test_folder))) for path in paths]
    scores = per_example["scores"][indices]
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(prediction.predict(network, paths), probabilities, atol=1e-6)
    np.testing.assert_allclose(prediction.predict(network, paths, batch_size=5), probabilities, atol=1e-6)
    image = np.asarray(Image.open(paths[1]))
    np.testing.assert_allclose(prediction.predict(network, image[None]), probabilities[1:2], atol=1e-6)


def test_a_path_is_read_as_the_run_read_its_own():
    network = load(train_run("cnn"))
    from_path = evaluation.evaluate(network, make_image_folder())
    from_section = evaluation.evaluate(network, load_settings("cnn").section("data"))
    np.testing.assert_allclose(from_path["rows"]["scores"], from_section["rows"]["scores"], rtol=1e-5, atol=1e-6)


def test_an_image_too_small_to_predict_says_so_beside_the_others(tmp_path):
    """The first stride makes 2 pixels 1, of which its pooling leaves none; it makes 3 pixels 2, and the pooling 1."""
    for number, size in enumerate([(2, 9), (3, 9)]):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    network = load(train_run("cnn"))
    too_small, enough = prediction.top_classes(network, prediction.read_images(network, [tmp_path]), 1)
    assert too_small["error"].startswith("it is read as 2x9 pixels, and the last layer of cnn/test needs 3 a side")
    assert enough["classes"][0]["name"] in ("dark", "light")


def learn_from(batch, *, operations=(), accumulate=1):
    """The parameters of a tiny CNN after a step on one batch."""
    network_spec = stepping.make_network_spec("cnn/test", side=8, head="average", batch_norm=False, filters=(3,))
    step_spec = stepping.make_step_spec(network_spec, augment=operations, accumulate=accumulate)
    state, _ = stepping.learn_batches(step_spec, stepping.make_hyperparameters(operations=operations), [batch])
    return jax.device_get(state["params"])


def assert_close(params, expected_params):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), params, expected_params)


@pytest.mark.parametrize("operations", [(), ("flip",)])
def test_a_step_learns_from_padded_images_what_it_learns_from_them_alone(operations):
    padded = stepping.make_batch(side=8) | {"mask": np.zeros((8, 8, 8), bool)}
    padded["mask"][:, :5, :6] = True
    alone = stepping.make_batch(side=8)
    alone["image"] = alone["image"][:, :5, :6]
    assert_close(learn_from(padded, operations=operations), learn_from(alone, operations=operations))


def test_micro_batches_take_their_masks_along():
    """A step on two halves of a batch, each with images of other sizes, changes what one on the whole batch does."""
    batch = stepping.make_batch(side=8) | {"mask": np.zeros((8, 8, 8), bool)}
    for row in range(8):
        batch["mask"][row, : 2 + row % 2 * 6, : 1 + row] = True
    whole, halves = learn_from(batch), learn_from(batch, accumulate=2)
    assert_close(halves, whole)


# What does not go together, before any device is touched --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit", ("model.name=resnet/18",), r"resnet/18 takes no mask, and data\.fit=pad_batch gives one"),
        ("cnn", ("model.batch_norm=true",), r"set model\.batch_norm=false to train with a mask"),
        ("cnn", ("model.head=dense",), r"set model\.head=average for a mask"),
        ("vit", ("data.augment=('flip', 'mixup(0.2)')",), "mixup cannot change images of several sizes"),
        ("vit", ("data.image_size=30",), "30x30 pixels are not whole 4-pixel patches"),
    ],
)
def test_what_cannot_be_masked_is_refused_before_the_data_are_read(name, changes, message, monkeypatch):
    monkeypatch.setattr(data, "load", None)
    if "resnet" in str(changes):
        run_settings = load_resnet_settings(*changes)
    else:
        run_settings = load_settings(name, *changes)
    with pytest.raises(UserError, match=message):
        plan.check(run_settings)


def test_an_image_of_which_nothing_is_left_is_named(tmp_path):
    """Of 5 pixels the pooling leaves 2, fewer than a window of 3 without padding; 6 leave it 3."""
    run_settings = load_settings("cnn", "model.kernel_size=3", "model.padding=(1,0)", "model.stride=1")
    message = r"(dark|light)/\d+\.png is read as 8x5 pixels, and the last layer of cnn/test needs 6 a side"
    with pytest.raises(UserError, match=message):
        loop.train(run_settings, tmp_path / "run")


def test_a_network_that_takes_no_mask_is_not_evaluated_with_one():
    dataset = load_dataset("vit")
    network_spec = forward.NetworkSpec("mlp/test", (), 2, dataset.image_shape, "float32", RuleSpec("softmax"))
    with pytest.raises(UserError, match="mlp/test takes no mask"):
        forward.refuse_padded_sizes(network_spec, dataset.splits)


def test_a_padded_row_sees_something_of_its_image():
    """The rows that fill up the last batch have a mask that is not empty: nothing is divided by 0."""
    padded_sizes = PaddedSizes(np.array([[20, 20], [3, 4]]), ((8, 8), (20, 20)))
    assert padded_sizes.mask(np.array([0]), (8, 8)).all()
