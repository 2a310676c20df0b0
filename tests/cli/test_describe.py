"""`describe`: names, recipes, runs, rows, differences and windows as words, and one sentence for what is wrong."""

import json
import re

import pytest

import cnn_vit
from cnn_vit import settings
from cnn_vit.__main__ import main
from cnn_vit.analysis import flops
from cnn_vit.data.decode import pixel_rules
from cnn_vit.nn.conv import Conv


def json_answer(capsys, *words):
    """Runs the command with --json; returns the object that it prints, and the last line of stderr."""
    assert main(["describe", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    return json.loads(out), err.splitlines()[-1]


def text_answer(capsys, *words):
    """Runs the command; returns the text that it prints."""
    assert main(["describe", *words]) == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def test_the_json_holds_what_is_agreed(capsys):
    answer, next_command = json_answer(capsys, "cifar_resnet/20")
    assert (answer["model"], answer["parameters"], answer["macs"]) == ("cifar_resnet/20", 269_722, 40_551_040)
    assert answer["layers"][0] == {
        "path": "stem", "kind": "Conv", "output": [32, 32, 16], "parameters": 432, "macs": 442_368,
        "activation_bytes": 65_536, "receptive_field": [3, 3], "stride": [1, 1],
    }  # fmt: skip
    assert next_command.startswith("next: cnn-vit describe cifar_resnet/20 --layer=stages/")


def test_classes_size_and_channels_are_taken(capsys):
    answer, _ = json_answer(capsys, "vit/Ti16", "--classes=10", "--image=32x64", "--channels=1")
    assert (answer["classes"], answer["image"], answer["layers"][1]["output"]) == (10, [32, 64, 1], [8, 192])


def test_the_table_fits_the_terminal(capsys, monkeypatch):
    narrow = text_answer(capsys, "resnet/18")
    assert max(map(len, narrow.splitlines()[:-1])) <= 80
    assert narrow.startswith("resnet/18: 1000 classes, image 224x224x3, float32\n")
    assert "11,689,512  1,814,073,344" in narrow
    monkeypatch.setenv("COLUMNS", "200")
    assert re.search(r"^stages/0/blocks/0/conv1 +Conv 3x3/1 ", text_answer(capsys, "resnet/18"), re.M)


def test_a_recipe_says_model_size_and_classes(capsys):
    answer, next_command = json_answer(capsys, "--config=configs/cifar_resnet.py:56", "--config.model.filters=8")
    assert (answer["model"], answer["classes"], answer["image"]) == ("cifar_resnet/56", 10, [32, 32, 3])
    assert answer["layers"][0]["output"] == [32, 32, 8]
    assert "describe --config=configs/cifar_resnet.py:56 --config.model.filters=8 --layer=" in next_command
    answer, _ = json_answer(
        capsys, "--config=configs/digits_vit.py"
    )  # the data source knows what the recipe leaves out
    assert (answer["classes"], answer["image"]) == (10, [8, 8, 1])
    answer, _ = json_answer(capsys, "--config=configs/folder_vit.py", "--classes=7", "--config.dtype=bfloat16")
    assert (answer["model"], answer["classes"], answer["dtype"]) == ("vit/Ti8-gap", 7, "bfloat16")


def test_a_run_says_what_it_was_trained_with(capsys, tmp_path):
    final = settings.load("configs/digits_cnn.py:smoke", ["model.filters=(4,4)"])
    preprocessing = {"image_size": [8, 10], "channels": 3, "fit": "crop", "mean": [0.5] * 3, "std": [1] * 3}
    preprocessing |= {"levels": None, "max_pixels": 1000, "version": pixel_rules.VERSION}
    (tmp_path / "config.json").write_text(json.dumps(settings.to_json(final)))
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b", "c"]))
    (tmp_path / "preprocessing.json").write_text(json.dumps(preprocessing))
    answer, _ = json_answer(capsys, f"--workdir={tmp_path}")
    assert (answer["model"], answer["classes"], answer["image"]) == ("cnn/test", 3, [8, 10, 3])
    assert answer["layers"][0]["output"] == [8, 10, 4]


def test_one_row_is_written_out(capsys):
    text = text_answer(capsys, "resnet/50", "--layer=stages/1/blocks/0/conv2")
    assert "field       35 + (3 - 1) * 1 * 4 = 43 pixels, stride 4 * 2 = 8\n" in text
    assert max(map(len, text.splitlines())) <= 80
    answer, _ = json_answer(capsys, "lenet/5", "--layer=head")
    assert [row["path"] for row in answer["layers"]] == ["head"]
    assert answer["arithmetic"]["parameters"] == "84 (inputs) * 10 (outputs) + 10 (biases) = 850"


def test_two_models_and_two_sizes_are_compared(capsys):
    answer, _ = json_answer(capsys, "--diff", "lenet/5", "lenet/5-valid")
    assert answer["parameters"] == [61_706, 44_426]
    assert answer["layers"][0]["differs"]["output"] == [[28, 28, 6], [24, 24, 6]]
    answer, _ = json_answer(capsys, "cifar_resnet/20", "--diff", "32", "64")
    assert answer["parameters"] == [269_722] * 2
    assert answer["macs"] == [40_551_040, 4 * (40_551_040 - 640) + 640]  # all layers but the head run at each position
    text = text_answer(capsys, "--diff", "lenet/5", "lenet/5-valid")
    assert text.startswith("A: lenet/5, 10 classes, image 32x32x1\nB: lenet/5-valid, 10 classes, image 28x28x1\n")


def test_a_check_says_what_it_checked(capsys):
    answer, _ = json_answer(capsys, "mlp/test", "--image=4", "--check")
    assert answer["checked"] == {"parameters": 2, "macs": 5, "receptive_field": 2}
    assert "checked in a second way: parameters of 2 rows" in text_answer(capsys, "mlp/test", "--image=4", "--check")


def test_a_disagreement_is_a_fault_that_names_the_row(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setitem(flops.MACS, Conv, lambda call: ())
    assert main(["describe", "lenet/test", "--image=16", "--check"]) == 1
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert "DisagreementError: conv1: MACs are 0 by the table's formula, " in last_line


def test_windows_are_calculated(capsys):
    text = text_answer(capsys, "conv", "--n=32", "--k=3", "--s=2", "--padding=1")
    assert "floor((32 + 1 + 1 - 1 * (3 - 1) - 1) / 2) + 1 = floor(31 / 2) + 1 = 16" in text
    assert "padding is -1 (1 of 3)" in text
    answer, _ = json_answer(capsys, "conv", "--n=33", "--k=3", "--s=1", "--padding=0,2", "--d=2")
    assert (answer["output"], answer["padding"], answer["same"]["padding"]) == (31, [0, 2], [2, 2])
    answer, _ = json_answer(capsys, "pool", "--n=31", "--k=2", "--s=2", "--padding=0")
    assert (answer["output"], answer["unread"], answer["ceil_mode"]) == (15, [30], {"output": 16, "padding": [0, 1]})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name one network: a model such as resnet/50, --config=RECIPE, --workdir=RUN or --weights=FILE; "),
        (["resnet/50", "--config=configs/digits_vit.py"], "name one network: "),
        (["resnett/50"], "no model family 'resnett'; did you mean resnet?"),
        (["resnet/51"], "resnet has no '51'; it has test, 18, 26, 34, 50, 101, 152"),
        (["resnet/18", "vit/B16"], "resnet/18 vit/B16: one model at a time; two are compared by --diff A B"),
        (["vit/B16", "--image=100"], "100x100 pixels are not whole 16-pixel patches; "),
        (["resnet/18", "--image=0"], "an image of 0 pixels is refused; each side must be from 1 to 8,192 pixels"),
        (
            ["resnet/18", "--image=99999"],
            "an image of 99999 pixels is refused; each side must be from 1 to 8,192 pixels",
        ),
        (["resnet/18", "--image=big"], "--image=big is not an image size; write pixels, 224, or HEIGHTxWIDTH, 224x160"),
        (["resnet/18", "--classes=0"], "the number of classes=0 must be at least 1"),
        (["--config=configs/cifar_resnet.py", "--classes=0"], "the number of classes=0 must be at least 1"),
        (["resnet/18", "--classes=x"], "cnn-vit describe: argument --classes: 'x' is not a whole number; "),
        (["lenet/5", "--layer=conv3"], "no layer of lenet/5 'conv3'; did you mean conv2 or conv1?"),
        (["lenet/5", "--layer=conv1", "--check"], "--layer and --check ask for different things; give one of them"),
        (["lenet/5", "--config.seed=1"], "--config.seed=1 sets something of a recipe; add --config=RECIPE"),
        (["--config=configs/folder_vit.py"], "--config=configs/folder_vit.py leaves the number of classes to its data"),
        (["--workdir=nowhere"], "nowhere holds no run (no config.json); "),
        (["lenet/5", "--diff", "28", "big"], "--diff of one network takes two image sizes, not 'big'; "),
        (["lenet/5", "--diff", "28", "32", "--image=32"], "--image and --diff both say image sizes; "),
        (["--diff", "lenet/5", "32"], "--diff lenet/5 32: '32' is a size; name a model before --diff"),
        (["lenet/5", "--k=3"], "--k belongs to describe conv or describe pool; leave it out"),
        (
            ["conv", "--n=32", "--k=3", "--s=2"],
            "describe conv needs --padding, the pixels before and after, as 1 or 0,1",
        ),
        (
            ["conv", "--n=32", "--k=3", "--s=2", "--padding=same"],
            "--padding=same is neither a number of pixels nor two",
        ),
        (["conv", "--n=32", "--k=3", "--s=0", "--padding=1"], "s=0 (stride) is not from 1 to 10,000"),
        (["conv", "--n=32", "--k=3", "--s=1", "--padding=-1"], "padding=-1 is not from 0 to 10,000 pixels"),
        (
            ["conv", "--n=2", "--k=5", "--s=1", "--padding=1"],
            "a window of 5 pixels does not fit into 2 with 2 of padding",
        ),
        (
            ["pool", "--n=8", "--k=2", "--s=2", "--padding=2"],
            "padding=2 is as large as the pooling's window of 2 pixels",
        ),
        (
            ["conv", "--n=8", "--k=2", "--s=2", "--padding=0", "--image=8"],
            "--image belongs to a model; conv takes --n, ",
        ),
    ],
)
def test_what_is_wrong_gets_one_sentence(capsys, words, sentence):
    assert main(["describe", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(sentence)
    assert len(err.splitlines()) == 1


def test_the_verb_is_at_the_public_door():
    assert cnn_vit.describe("lenet/5").parameters == 61_706
    assert "describe" in dir(cnn_vit)
