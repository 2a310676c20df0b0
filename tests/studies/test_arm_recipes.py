"""Recipes of comparisons: what they may say, what they mean, and what is refused."""

import pytest

from cnn_vit.errors import UserError
from cnn_vit.settings import load
from cnn_vit.studies import arms

RECIPE = '''"""Mine."""
from ml_collections import ConfigDict

COMMAND = "compare"
WORDS = {{"data": "with shares of the data"}}


def get_config(mode=""):
    config = ConfigDict()
    config.data = ConfigDict({{"name": "digits"}})
    config.budget = 20
    if mode == "data":
        config.shares = (0.5, 0.1, 1)
    config.arms = ConfigDict()
    config.arms.mlp = dict(recipe="configs/digits_mlp.py", about="an MLP")
    config.arms.head = dict(trained="head")
    {}
    return config
'''


@pytest.fixture
def write_recipe(tmp_path):
    """Writes a recipe with a further line, and returns its name."""

    def write(line=""):
        path = tmp_path / "mine.py"
        path.write_text(RECIPE.format(line))
        return str(path)

    return write


def test_a_recipe_says_what_all_arms_share_and_the_arms(write_recipe):
    recipe = arms.load_comparison(write_recipe() + ":data", ["weights=net.safetensors", "seeds=5", "data.batch_size=8"])
    assert (recipe.budget, recipe.seeds, recipe.threads, recipe.shares) == ("20", 5, 1, (0.1, 0.5, 1.0))
    assert recipe.data == {"name": "digits", "batch_size": 8}
    head, mlp = recipe.arms  # by name
    assert (mlp.recipe, mlp.weights, mlp.trained, mlp.about) == ("configs/digits_mlp.py", None, None, "an MLP")
    # an arm from weights alone: those of the comparison, and a recipe that suits what is trained
    assert (head.recipe, head.weights, head.about) == ("configs/linear_probe.py", "net.safetensors", "head")


def test_the_command_line_adds_an_arm_and_leaves_one_out(write_recipe):
    words = ["arms.tuned.weights=runs/mine", "arms.mlp=none", "arms.knn.task=knn", "arms.knn.weights=runs/mine"]
    recipe = arms.load_comparison(write_recipe(), words)
    assert [(arm.name, arm.task, arm.trained) for arm in recipe.arms] == [
        ("knn", "knn", None),
        ("tuned", "train", "all"),
    ]
    assert recipe.left_out.keys() == {"head"}  # which starts from weights, and none are named
    assert "add --config.weights=FILE" in recipe.left_out["head"]


def test_adapters_layer_decay_and_stages_are_settings_of_an_arm():
    """As the recipe's own docstring adds them on the command line; stages hold commas, in quotes."""
    words = ["weights=net.safetensors", "data.path=photos"]
    words += ["arms.lora.trained=all", "arms.lora.settings=pretrained.lora=8,optimizer.learning_rate=0.03"]
    words += ["arms.decay.trained=all", "arms.decay.settings=pretrained.layer_decay=0.75"]
    words += ["arms.slowly.trained=all", 'arms.slowly.settings="pretrained.stages=head 2 epochs, all",']
    recipe = arms.load_comparison("configs/compare_folder.py", words)
    settings = {arm.name: load(arm.recipe, arm.settings) for arm in recipe.arms if arm.settings and arm.weights}
    assert settings["lora"]["pretrained.lora"] == 8
    assert settings["lora"]["optimizer.learning_rate"] == 0.03
    assert settings["decay"]["pretrained.layer_decay"] == 0.75
    assert settings["slowly"]["pretrained.stages"] == ("head 2 epochs", "all")


@pytest.mark.parametrize(
    ("line", "overrides", "sentence"),
    [
        ("", ["sedes=5"], "no setting of a comparison 'sedes'; did you mean seeds?"),
        ("", ["seeds=0"], "seeds is '0' (command line); it takes an int in [1, 1000] (runs)"),
        ("", ["arms.mlp.recpie=x"], "no setting of the arm mlp 'recpie'; did you mean recipe?"),
        ("", ["arms.mpl=none"], "no arm 'mpl'; did you mean mlp?"),
        ("", ["data.mean=0.5"], "data.mean is each arm's own"),
        ("", ["arms.a b.recipe=x"], "'a b' is not the name of an arm"),
        ("", ["budget=3 epochs"], 'budget is \'3 epochs\'; it takes steps, "200 steps", or a time, "90 CPU-seconds"'),
        ("", ["budget=0.5 steps"], "budget is '0.5 steps'"),
        ("config.arms.x = dict(about='x')", [], "arms.x names neither recipe nor weights"),
        ("config.arms.x = dict(task='knn', trained='all')", [], "arms.x: trained=all belongs to task=train, and knn"),
        ("config.arms.x = dict(task='guess')", [], "arms.x.task is 'guess'"),
        ("config.arms = ConfigDict()", [], "has no arm to compare"),
        ("config.budget = None", [], "sets no budget"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(write_recipe, line, overrides, sentence):
    with pytest.raises(UserError) as caught:
        arms.load_comparison(write_recipe(line), overrides)
    assert sentence in str(caught.value)


def test_a_budget_is_a_number_of_steps_or_a_time_of_the_processor():
    assert arms.parse_budget("200 steps") == (200, None)
    assert arms.parse_budget("1e3") == (1000, None)
    assert arms.parse_budget("90 CPU-seconds") == (None, 90.0)
    assert arms.parse_budget("0.5 cpu seconds") == (None, 0.5)


def test_smoke_needs_no_file_and_keeps_what_the_arms_train(write_recipe):
    lines = "config.arms.last = dict(trained='last stage'); config.arms.same = dict(weights='x', trained='head')"
    recipe = arms.load_comparison(write_recipe(lines) + ":smoke")
    assert [(arm.name, arm.recipe, arm.weights, arm.trained) for arm in recipe.arms] == [
        ("head", "configs/linear_probe.py", "cifar_resnet/8@mnist", "head"),  # and `same` has become the same arm
        ("last", "configs/finetune_folder.py", "cifar_resnet/8@mnist", "last stage"),
        ("mlp", "configs/digits_mlp.py:smoke", None, None),
    ]
    assert (recipe.budget, recipe.data["name"], recipe.left_out) == ("6 steps", "digits", {})
