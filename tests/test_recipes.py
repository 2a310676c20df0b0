"""Every recipe loads, passes the checks of data and model, and reads like a lab note."""

from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_vit import data, models
from cnn_vit.errors import UserError
from cnn_vit.settings import describe_recipe, load, read_command
from cnn_vit.studies import arms, trials
from cnn_vit.studies.sweeping.definition import describe_sweep, read_toml
from cnn_vit.studies.sweeping.space import text_of_value
from cnn_vit.training import devices, freezing, plan, step

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))
RECIPES = [path for path in FILES if read_command(path) == "train"]
COMPARISONS = [path for path in FILES if read_command(path) == "compare"]
SWEEPS = sorted((Path(__file__).parents[1] / "configs" / "sweeps").glob("*"))
PUBLISHED = {"mnist_lenet", "mnist_resnet", "mnist_vit", "cifar_resnet", "cifar_vit"}
NEEDS_PATH = {
    "folder_resnet",
    "folder_vit",
    "mobilenet_v1",
    "convnext",
    "deit",
    "vgg",
    "mobilenet_v2",
    "efficientnet",
    "finetune_folder",
    "linear_probe",
}
SIDE, CHANNELS = 32, 3  # of images where a recipe leaves them to its weights


def list_modes(path):
    """Names of a recipe: without a word, with each of its words, and as a smoke test with the first of them."""
    _, meanings = describe_recipe(path)
    words = [word for word in meanings if word != "smoke"]
    name = f"configs/{path.name}"
    smoke = ",".join([*words[:1], "smoke"])
    return [name, *(f"{name}:{word}" for word in words), f"{name}:{smoke}"]


MODES = [mode for path in RECIPES for mode in list_modes(path)]
MODES_OF_COMPARISONS = [mode for path in COMPARISONS for mode in list_modes(path)]
# Words that only make a network of the same layers deeper or wider: each takes seconds to trace.
OTHER_SIZES = {f"configs/cifar_resnet.py:{depth}" for depth in ("32", "44", "56", "110")}
OTHER_SIZES |= {"configs/vgg.py", *(f"configs/vgg.py:{depth}" for depth in ("11", "13", "16", "19"))}
OTHER_SIZES |= {f"configs/mobilenet_v1.py:{width}" for width in ("0.5", "0.75", "1.0")}
OTHER_SIZES |= {f"configs/convnext.py:{size}" for size in ("atto", "T")} | {"configs/convnext.py"}
OTHER_SIZES |= {f"configs/deit.py:{size}" for size in ("Ti", "S", "B")} | {"configs/deit.py"}
OTHER_SIZES |= {f"configs/mobilenet_v2.py{word}" for word in ("", ":0.5", ":1.0", ":1.4")}
OTHER_SIZES |= {"configs/mobilenet_v2.py:0.5,smoke"}  # the layers of efficientnet's smoke test
OTHER_SIZES |= {f"configs/efficientnet.py{word}" for word in ("", ":B0", ":B1", ":B2", ":B3")}


def traced_case(mode):
    """A mode as a case of the test that traces a step, marked slow where it is one of OTHER_SIZES."""
    return pytest.param(mode, marks=pytest.mark.slow if mode in OTHER_SIZES else ())


def lacks_path(settings):
    """Whether a recipe still needs the path of a folder; its smoke test draws its own images."""
    return settings.recipe in NEEDS_PATH and "smoke" not in settings.words


def test_the_recipes_are_these():
    names = {"digits_mlp", "digits_cnn", "digits_resnet", "digits_vit"} | PUBLISHED | NEEDS_PATH
    assert {path.stem for path in RECIPES} >= names
    assert {path.stem for path in COMPARISONS} >= {"compare_digits", "compare_folder"}
    assert len(RECIPES) + len(COMPARISONS) == len(FILES)  # every recipe has its tests here


@pytest.mark.parametrize("recipe", MODES)
def test_it_loads_and_passes_both_checks(recipe):
    settings = load(recipe)
    section = settings.section("data")
    if lacks_path(settings):
        with pytest.raises(UserError, match=r"--config\.data\.path="):
            data.check(section)
        image_size, channels = (section["image_size"] or SIDE,) * 2, section["channels"] or CHANNELS
        classes = section["classes"] or 5
    else:
        data.check(section)
        source_info = data.about(section)
        *image_size, channels = source_info.image_shape
        classes = source_info.num_classes or section["classes"] or 5
    keywords = {key: value for key, value in settings.section("model").items() if key != "name"}
    name = settings["model.name"]
    models.check(name, keywords, num_classes=classes, channels=channels, image_size=tuple(image_size))


def test_the_other_sizes_are_modes_of_recipes():
    assert set(MODES) > OTHER_SIZES


@pytest.mark.parametrize("recipe", [traced_case(mode) for mode in MODES])
def test_its_step_of_learning_is_traced_without_computing(recipe):
    """The whole of `learn`: augmentation, network, loss, gradient and update, for shapes alone."""
    settings = load(recipe)
    section = settings.section("data")
    source_info = data.about(section | {"path": "somewhere"} if lacks_path(settings) else section)
    side, classes = section["image_size"] or SIDE, source_info.num_classes or section["classes"] or 5
    image_shape = source_info.image_shape or (side, side, section["channels"] or CHANNELS)
    plan.check_model(settings, classes=classes, image_shape=image_shape)
    network_spec = plan.network_spec(settings, classes=classes, image_shape=image_shape)
    built = step.build_step(plan.step_spec(settings, network_spec, examples=20_000), devices.mesh())
    batch_size = section["batch_size"]
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, *image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((batch_size,), np.int32),
        "weight": jax.ShapeDtypeStruct((batch_size,), np.float32),
        "index": jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    channels = image_shape[-1]
    mean_and_std = {"mean": [0.5] * channels, "std": [0.25] * channels}
    hyperparameters = plan.hyperparameters(settings, mean_and_std, labels=np.arange(classes), classes=classes)
    values = {"params": built.network.params, "stats": built.network.stats}
    trained, frozen = freezing.split_values(values, freezing.get_masks(network_spec, plan.freeze_spec(settings)))
    state = jax.eval_shape(built.init_state, trained["params"], trained["stats"], hyperparameters)
    new_state, measures = jax.eval_shape(built.learn, state, frozen, batch, hyperparameters)
    assert shapes_and_dtypes(new_state) == shapes_and_dtypes(state)
    assert measures["loss"].dtype == np.float32


def shapes_and_dtypes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("recipe", sorted(PUBLISHED))
def test_a_published_set_is_known_without_a_file_and_may_come_from_a_users_own(recipe, tmp_path):
    published = data.about(load(f"configs/{recipe}.py").section("data"))
    path = tmp_path / "own.npz"
    pixels, labels = np.zeros((40, *published.image_shape), np.uint8), np.arange(40) % 10
    np.savez(path, train_x=pixels, train_y=labels, test_x=pixels, test_y=labels)
    with pytest.raises(UserError, match=r"takes no path.*data\.name=arrays"):
        data.check(load(f"configs/{recipe}.py", [f"data.path={path}"]).section("data"))
    slices = ["data.train=train[:20]", "data.validation=train[20:]"]
    settings = load(f"configs/{recipe}.py", ["data.name=arrays", f"data.path={path}", *slices])
    plan.check(settings)
    dataset = data.load(settings.section("data"))
    assert (len(dataset.classes), dataset.image_shape) == (10, pixels.shape[1:])
    assert (dataset.image_shape, 10) == (published.image_shape, published.num_classes)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_is_a_lab_note(path):
    text = path.read_text()
    note = text.split('"""')[1]
    for word in ("Measured: ", f"Run:      cnn-vit train --config=configs/{path.stem}.py", "Smoke:    cnn-vit train "):
        assert word in note
    smoke = note.partition("Smoke: ")[2].split()[2]
    assert load(smoke.removeprefix("--config="))["model.name"].endswith("/test")


# Comparisons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", MODES_OF_COMPARISONS)
def test_a_comparison_loads_and_so_does_each_of_its_arms(recipe):
    comparison = arms.load_comparison(recipe, ["weights=cifar_resnet/8@mnist"])
    assert len({arm.about for arm in comparison.arms}) == len(comparison.arms)  # each says what it is
    assert {arm.task for arm in comparison.arms} >= {"train", "knn", "evaluate"}
    assert comparison.shares == ((0.01, 0.1, 1.0) if "data" in recipe.partition(":")[2].split(",") else (1.0,))
    for arm in comparison.arms:
        load(arm.recipe, list(arm.settings))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_a_comparison_is_a_lab_note(path):
    note = path.read_text().split('"""')[1]
    for word in (
        "Measured: ",
        f"Run:      cnn-vit compare --config=configs/{path.stem}.py",
        "Smoke:    cnn-vit compare ",
    ):
        assert word in note
    smoke = note.partition("Smoke: ")[2].split()[2]
    comparison = arms.load_comparison(smoke.removeprefix("--config="))
    from_scratch = [arm for arm in comparison.arms if arm.weights is None]
    assert [load(arm.recipe)["model.name"].split("/")[1] for arm in from_scratch] == ["test"] * 3


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_a_recipe_belongs_to_one_command_and_the_others_refuse_it_with_that_word(path):
    with pytest.raises(
        UserError, match=rf"{path.name} is a recipe of `cnn-vit compare`, not of one training; cnn-vit c"
    ):
        load(f"configs/{path.name}:smoke")
    with pytest.raises(
        UserError, match=r"digits_mlp.py is a recipe of one training, not of compare; cnn-vit train --c"
    ):
        arms.load_comparison("configs/digits_mlp.py")


# Sweeps ---------------------------------------------------------------------------------------------------------------


def read_corners(path):
    """The definition of a sweep, and its trials at two opposite corners of the space, as plans have them."""
    definition = read_toml(f"configs/sweeps/{path.name}")
    corners = []
    for unit in (0.0, 0.999):
        point = definition.space.from_units([unit] * len(definition.space.dimensions))
        texts = [f"{key}={text_of_value(value)}" for key, value in point.items()]
        corners.append(trials.Trial("train", definition.config, (*definition.overrides, *texts)))
    return definition, corners


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_read_and_the_corners_of_its_space_can_be_trained(path):
    definition, corners = read_corners(path)
    assert definition.name == path.stem
    assert definition.trials * definition.seeds <= 40  # small: each is run, and its cost is written into it
    cache = trials.DataCache()
    for corner in corners:
        settings, dataset = trials.prepare_trial(corner, cache)
        assert "validation" in dataset.splits
        assert settings["duration"].endswith(" steps")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_a_lab_note(path):
    lines = path.read_text().splitlines()
    note = [line for line in lines if line.startswith("#")]
    assert lines[: len(note)] == note  # it stands at the top
    assert describe_sweep(path).endswith(".")
    assert [line for line in note if line.startswith("# Measured: ")]
    assert [line for line in note if line.startswith(f"# Run:      cnn-vit sweep configs/sweeps/{path.name} --out=")]


def test_every_sweep_is_a_toml_file_and_these_are_there():
    assert {path.suffix for path in SWEEPS} == {".toml"}
    assert {path.stem for path in SWEEPS} >= {"digits_rate_decay", "digits_vit_tpe", "vit_finetune", "smoke"}


def test_vit_finetune_is_the_papers_way():
    """Dosovitskiy et al. 2021, appendix B.1.1 and Table 4; the steps are fewer, for the images are."""
    definition = read_toml("configs/sweeps/vit_finetune.toml")
    expected = {
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "optimizer.nesterov": False,
        "optimizer.weight_decay": 0.0,
        "optimizer.clip": 1.0,
        "schedule.name": "cosine",
        "pretrained.weights": "vit/Ti4-gap@mnist",
        "pretrained.head": "zero",
        "pretrained.freeze": None,
    }
    settings = load(definition.config, definition.overrides)
    assert {key: settings[key] for key in expected} == expected
    rates, steps = definition.space.dimensions
    assert (rates.key, rates.choices) == ("optimizer.learning_rate", (0.001, 0.003, 0.01, 0.03))
    assert (steps.key, definition.sampler, definition.trials) == ("duration", "grid", 8)


def test_digits_vit_can_be_found_again_by_its_sweep():
    """The recipe's own values lie in the space, and the rungs where trials are evaluated and saved."""
    definition = read_toml("configs/sweeps/digits_vit_tpe.toml")
    settings = load(definition.config, definition.overrides)
    for dimension in definition.space.dimensions:
        value = settings.values.get(dimension.key, 0.0)
        assert value in dimension.choices or dimension.low <= value <= dimension.high, dimension.key
    steps = int(definition.halving.first.removesuffix(" steps"))
    assert settings["evaluate_every"] == settings["checkpoint_every"] == definition.halving.first
    assert settings["duration"] == f"{steps * definition.halving.eta**2} steps"


@pytest.mark.parametrize(
    ("depth", "boundaries", "warmup"),
    [("20", ("32000 steps", "48000 steps"), "0 steps"), ("110", ("32000 steps", "48000 steps"), "400 steps")],
)
def test_cifar_resnet_is_the_papers_recipe(depth, boundaries, warmup):
    """He et al. 2015, section 4.2: SGD 0.9, 0.1 divided by ten at 32k and 48k of 64k steps of 128, decay 1e-4."""
    settings = load(f"configs/cifar_resnet.py:{depth}")
    expected = {
        "optimizer.name": "sgd",
        "optimizer.momentum": 0.9,
        "optimizer.learning_rate": 0.1,
        "optimizer.weight_decay": 1e-4,
        "schedule.name": "step",
        "schedule.boundaries": boundaries,
        "schedule.factor": 0.1,
        "schedule.warmup": warmup,
        "duration": "64000 steps",
        "data.batch_size": 128,
        "data.train": "train[:45000]",
        "data.augment": ("pad_crop(4)", "flip"),
    }
    assert {key: settings[key] for key in expected} == expected


def test_two_depths_are_refused():
    with pytest.raises(
        UserError, match=r"configs/cifar_resnet.py:\d+: ValueError: the word must be one depth, not 20,56"
    ):
        load("configs/cifar_resnet.py:20,56")
