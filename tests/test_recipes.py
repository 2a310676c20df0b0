"""Every recipe loads, passes both checks, and reads like a lab note."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_vit import data, models
from cnn_vit.errors import UserError
from cnn_vit.settings import describe_recipe, load
from cnn_vit.training import devices, plan, step

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
MODES = [
    f"configs/{path.name}" + (f":{','.join(words)}" if words else "")
    for path in RECIPES
    for own in [[word for word in describe_recipe(path)[1] if word != "smoke"]]
    for words in [[], *([word] for word in own), [*own[:1], "smoke"]]
]
PUBLISHED = {"mnist_lenet", "cifar_resnet", "cifar_vit"}
NEEDS_PATH = {"folder_resnet", "folder_vit"}


def test_the_recipes_are_these():
    names = {"digits_mlp", "digits_cnn", "digits_resnet", "digits_vit"} | PUBLISHED | NEEDS_PATH
    assert {path.stem for path in RECIPES} >= names


@pytest.mark.parametrize("recipe", MODES)
def test_it_loads_and_passes_both_checks(recipe):
    final = load(recipe)
    section = final.section("data")
    if section["path"] is None and final.recipe in NEEDS_PATH and "smoke" not in final.words:
        with pytest.raises(UserError, match=r"--config\.data\.path="):
            data.check(section)
    else:
        data.check(section)
    about = data.about(section) if "smoke" in final.words or final.recipe not in NEEDS_PATH else None
    height, width, channels = about.image_shape if about else (section["image_size"],) * 2 + (section["channels"],)
    keywords = {key: value for key, value in final.section("model").items() if key != "name"}
    classes = (about and about.num_classes) or section["classes"] or 5
    models.check(final["model.name"], keywords, num_classes=classes, channels=channels, image_size=(height, width))


@pytest.mark.parametrize("recipe", MODES)
def test_its_step_of_learning_is_traced_without_computing(recipe):
    """The whole of `learn`: augmentation, network, loss, gradient and update, for shapes alone."""
    final = load(recipe)
    section = final.section("data")
    needs_path = final.recipe in NEEDS_PATH and "smoke" not in final.words
    about = data.about(section | {"path": "somewhere"} if needs_path else section)
    side, classes = section["image_size"], about.num_classes or section["classes"] or 5
    shape = about.image_shape or (side, side, section["channels"])
    plan.check_model(final, classes=classes, image_shape=shape)
    form = plan.network_spec(final, classes=classes, image_shape=shape)
    built = step.build_step(plan.step_spec(final, form, examples=20_000), devices.mesh())
    state = jax.eval_shape(built.start, built.network.params, built.network.stats)
    size = section["batch_size"]
    batch = {
        "image": jax.ShapeDtypeStruct((size, *shape), np.uint8),
        "label": jax.ShapeDtypeStruct((size,), np.int32),
        "weight": jax.ShapeDtypeStruct((size,), np.float32),
        "index": jax.ShapeDtypeStruct((size,), np.int32),
    }
    seen = {"mean": [0.5] * shape[-1], "std": [0.25] * shape[-1]}
    numbers = plan.hyperparameters(final, seen, labels=np.arange(classes), classes=classes)
    after, measures = jax.eval_shape(built.learn, state, {"params": {}, "stats": {}}, batch, numbers)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert measures["loss"].dtype == np.float32


@pytest.mark.parametrize("recipe", sorted(PUBLISHED))
def test_a_published_set_is_known_without_a_file_and_may_come_from_ones_own(recipe, tmp_path):
    published, own = load(f"configs/{recipe}.py"), tmp_path / "own.npz"
    pixels, labels = np.zeros((40, *data.about(published.section("data")).image_shape), np.uint8), np.arange(40) % 10
    np.savez(own, train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    with pytest.raises(UserError, match=r"takes no path.*data\.name=arrays"):
        data.check(load(f"configs/{recipe}.py", [f"data.path={own}"]).section("data"))
    slices = ["data.train=train[:20]", "data.validation=train[20:]"]
    final = load(f"configs/{recipe}.py", ["data.name=arrays", f"data.path={own}", *slices])
    plan.check(final)
    dataset = data.load(final.section("data"))
    assert (len(dataset.classes), dataset.image_shape) == (10, pixels.shape[1:])
    assert (dataset.image_shape, 10) == data.about(published.section("data"))[2:0:-1]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_a_lab_note(path):
    text = path.read_text()
    note = text.split('"""')[1]
    for word in ("Measured: ", f"Run:      cnn-vit train --config=configs/{path.stem}.py", "Smoke:    cnn-vit train "):
        assert word in note
    smoke = note.partition("Smoke: ")[2].split()[2]
    assert load(smoke.removeprefix("--config="))["model.name"].endswith("/test")


@pytest.mark.parametrize(
    ("depth", "boundaries", "warmup"),
    [("20", ("32000 steps", "48000 steps"), "0 steps"), ("110", ("32000 steps", "48000 steps"), "400 steps")],
)
def test_cifar_resnet_is_the_papers_recipe(depth, boundaries, warmup):
    """He et al. 2015, section 4.2: SGD 0.9, 0.1 divided by ten at 32k and 48k of 64k steps of 128, decay 1e-4."""
    final = load(f"configs/cifar_resnet.py:{depth}")
    assert (final["optimizer.name"], final["optimizer.momentum"], final["optimizer.learning_rate"]) == ("sgd", 0.9, 0.1)
    assert (final["schedule.name"], final["schedule.boundaries"], final["schedule.factor"]) == ("step", boundaries, 0.1)
    assert (final["duration"], final["data.batch_size"], final["optimizer.weight_decay"]) == ("64000 steps", 128, 1e-4)
    assert (final["data.train"], final["data.augment"]) == ("train[:45000]", ("pad_crop(4)", "flip"))
    assert final["schedule.warmup"] == warmup


def test_two_depths_are_refused():
    with pytest.raises(UserError, match=r"configs/cifar_resnet.py:\d+: ValueError: one depth, not 20,56"):
        load("configs/cifar_resnet.py:20,56")
