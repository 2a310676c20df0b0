"""Runs on images of several sizes (data.fit=pad_batch): trained, stopped, judged and predicted exactly."""

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
from cnn_vit.training import devices, evaluation, forward, loop, plan, prediction, step
from cnn_vit.training.trained import load

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
def folder():
    """Noise of two brightnesses: images of 7x8 and 8x5 pixels, and a few of 40x30."""
    root = Path(tempfile.mkdtemp(prefix="cnn_vit_mixed_"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 9), ("test", 9)):
        for name, level in (("dark", 0), ("light", 80)):
            (root / part / name).mkdir(parents=True)
            for at in range(count):
                sides = (40, 30) if at == 0 else (7, 8) if at % 4 else (8, 5)
                pixels = rng.integers(level, level + 170, (*sides, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{at}.png")
    return root


def configured(name, *changes):
    chosen = [*COMMON, f"data.path={folder()}", *MODELS[name], *changes]
    if name == "cnn":
        chosen = [one for one in chosen if not one.startswith("model.dropout")]
    return settings.load(RECIPES[name], chosen)


@functools.cache
def trained(name):
    """A finished run's folder, made once for a process."""
    workdir = Path(tempfile.mkdtemp(prefix="cnn_vit_mixed_")) / "run"
    loop.train(configured(name), workdir)
    return workdir


NAMES = pytest.mark.parametrize("name", ["cnn", pytest.param("vit", marks=pytest.mark.slow)])


@NAMES
def test_each_size_compiles_once(name):
    """`learn` has met several shapes, at most as many as there are sizes."""
    final, network = configured(name), load(trained(name))
    sizes = network.preprocessing["sizes"]
    assert sizes[-1] == [24, 24]
    assert 1 < len(sizes) <= 8
    learn = step.build_step(plan.step_spec(final, network.spec, examples=48), devices.mesh()).learn
    assert 1 < learn._cache_size() <= len(sizes)


@NAMES
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    expected = running.left(trained(name))
    with monkeypatch.context() as patched:
        running.at_step(patched, 5, running.signaled)
        with pytest.raises(StoppedError):
            loop.train(configured(name), tmp_path / "run")
    loop.train(configured(name), tmp_path / "run")
    assert running.left(tmp_path / "run") == expected


@NAMES
def test_scores_do_not_depend_on_what_else_is_in_the_batch(name):
    """Batches of 1, 7 and 512 say of each image what the network says of it alone, without any padding.

    Of single images each size compiles once.
    """
    network = load(trained(name))
    before = forward.build_eval_step(network.spec, devices.mesh())._cache_size()
    dataset = data.load(configured(name).section("data"))
    split = dataset.splits["test"]
    found = [evaluation.evaluate(network, dataset, batch_size=1)["rows"]]
    compiled = forward.build_eval_step(network.spec, devices.mesh())._cache_size() - before
    assert 1 < compiled <= len(network.preprocessing["sizes"])
    found += [evaluation.evaluate(network, dataset, batch_size=size)["rows"] for size in (7, 512)]
    numbers = forward.build_evaluator(network.spec, network.preprocessing, devices.mesh()).mean_and_std
    apply = jax.jit(functools.partial(network.network.apply, train=False))
    for at in range(len(split)):
        height, width = split.padded_sizes.image_sizes[at]
        image = np.float32(split.read(np.array([at]))[:, :height, :width]) / 255
        alone, _ = apply(
            network.params,
            network.stats,
            forward.normalize(image, numbers, "float32"),
            mask=np.ones((1, height, width), bool),
        )
        for rows in found:
            assert rows["index"][at] == at
            assert rows["label"][at] == split.labels[at]
            np.testing.assert_allclose(rows["scores"][at], alone[0], rtol=1e-5, atol=1e-6)


@NAMES
def test_a_prediction_is_what_evaluation_says(name):
    network = load(trained(name))
    rows = evaluation.evaluate(network, configured(name).section("data"))["rows"]
    paths = sorted((folder() / "test").rglob("*.png"))
    order = [str(path.relative_to(folder() / "test")) for path in paths]
    split = data.load(configured(name).section("data")).splits["test"]
    scores = rows["scores"][[list(split.names).index(one) for one in order]]
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(prediction.predict(network, paths), chances, atol=1e-6)
    np.testing.assert_allclose(prediction.predict(network, paths, batch_size=5), chances, atol=1e-6)
    one = np.asarray(Image.open(paths[1]))
    np.testing.assert_allclose(prediction.predict(network, one[None]), chances[1:2], atol=1e-6)


def test_a_path_is_read_as_the_run_read_its_own():
    network = load(trained("cnn"))
    found = evaluation.evaluate(network, folder())
    expected = evaluation.evaluate(network, configured("cnn").section("data"))
    np.testing.assert_allclose(found["rows"]["scores"], expected["rows"]["scores"], rtol=1e-5, atol=1e-6)


def test_an_image_too_small_to_predict_says_so_beside_the_others(tmp_path):
    """2 pixels are 1 behind the first stride, and its pooling leaves none; 3 are 2, and 1."""
    for at, sides in enumerate([(2, 9), (3, 9)]):
        Image.fromarray(np.zeros((*sides, 3), np.uint8)).save(tmp_path / f"{at}.png")
    network = load(trained("cnn"))
    small, enough = prediction.top_classes(network, prediction.read_images(network, [tmp_path]), 1)
    assert small["error"].startswith("it is read as 2x9 pixels, and the last layer of cnn/test needs 3 a side")
    assert enough["classes"][0]["name"] in ("dark", "light")


def test_micro_batches_take_their_masks_along():
    """A step on two halves of a batch, with images of another size in each, changes what one on the whole does."""
    form = stepping.network_spec("cnn/test", side=8, head="average", batch_norm=False, filters=(3,))
    batch = stepping.batch(side=8) | {"mask": np.zeros((8, 8, 8), bool)}
    for row in range(8):
        batch["mask"][row, : 2 + row % 2 * 6, : 1 + row] = True
    params = []
    for accumulate in (1, 2):
        state, _ = stepping.learned(stepping.static(form, accumulate=accumulate), stepping.numbers(), [batch])
        params.append(jax.device_get(state["params"]))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *params)


# --- what does not go together, before any device is touched


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("vit", ("model.name=resnet/18",), r"resnet/18 takes no mask, and data\.fit=pad_batch gives one"),
        ("cnn", ("model.batch_norm=true",), r"set model\.batch_norm=false to train with a mask"),
        ("cnn", ("model.head=dense",), r"set model\.head=average for a mask"),
        ("vit", ("data.augment=('flip', 'mixup(0.2)')",), "mixup takes no images of several sizes"),
        ("vit", ("data.image_size=30",), "30x30 pixels are not whole 4-pixel patches"),
    ],
)
def test_what_cannot_be_masked_is_refused_before_the_data_are_read(name, changes, sentence, monkeypatch):
    monkeypatch.setattr(data, "load", None)
    final = configured(name, *changes) if "resnet" not in str(changes) else unmodeled(*changes)
    with pytest.raises(UserError, match=sentence):
        plan.check(final)


def unmodeled(*changes):
    """Settings without keywords of the model."""
    return settings.load("configs/folder_resnet.py", [*COMMON, f"data.path={folder()}", *changes])


def test_an_image_of_which_nothing_is_left_is_named(tmp_path):
    """Of 5 pixels the pooling leaves 2, fewer than a window of 3 without padding; 6 leave it 3."""
    final = configured("cnn", "model.kernel_size=3", "model.padding=(1,0)", "model.stride=1")
    least = r"(dark|light)/\d+\.png is read as 8x5 pixels, and the last layer of cnn/test needs 6 a side"
    with pytest.raises(UserError, match=least):
        loop.train(final, tmp_path / "run")


def test_a_network_that_takes_no_mask_is_not_judged_with_one():
    section = configured("vit").section("data")
    dataset = data.load(section)
    network = forward.NetworkSpec("mlp/test", (), 2, dataset.image_shape, "float32", "softmax")
    with pytest.raises(UserError, match="mlp/test takes no mask"):
        forward.refuse_padded_sizes(network, dataset)


def test_a_padded_row_sees_something_of_its_image():
    """The rows that fill up the last batch have a mask that is not empty: nothing is divided by 0."""
    mixed = PaddedSizes(np.array([[20, 20], [3, 4]]), ((8, 8), (20, 20)))
    assert mixed.mask(np.array([0]), (8, 8)).all()
