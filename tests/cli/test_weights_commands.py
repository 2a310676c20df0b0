"""Every command that takes a run folder takes a file of weights in its place, and answers the same."""

import json

import foreign_weights
import numpy as np
import pytest
from PIL import Image

from cnn_vit import trees
from cnn_vit.__main__ import main
from cnn_vit.nn.values import initial_values
from cnn_vit.training import run_weights
from cnn_vit.transfer import weights
from cnn_vit.transfer.weights import Card

DIGITS = "--config=configs/digits_mlp.py"


@pytest.fixture(scope="module")
def weights_file(run, tmp_path_factory):
    """The values of the finished run in a file."""
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    weights.save(path, run_weights.weights_of_run(str(run)))
    return path


def answer_of(capsys, *words):
    """The JSON that a command prints."""
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *words):
    """The last line that a refused command prints to stderr; the exit code must be 2."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_evaluate_measures_the_same(run, weights_file, capsys):
    of_run = answer_of(capsys, "evaluate", f"--workdir={run}")
    of_weights = answer_of(capsys, "evaluate", f"--weights={weights_file}", DIGITS)
    for name in ("split", "accuracy", "top5", "loss", "n"):
        assert of_weights[name] == of_run[name]


def test_predict_names_the_same_classes_with_the_same_probabilities(run, weights_file, tmp_path, capsys):
    image = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(image)
    of_run = answer_of(capsys, "predict", f"--workdir={run}", image)
    assert answer_of(capsys, "predict", f"--weights={weights_file}", image) == of_run


def test_describe_and_show_tell_the_network_that_a_run_from_weights_would_train(tmp_path, capsys):
    """3 filters and 16 pixels come from the card of the weights, no setting names them."""
    card = Card("cifar_resnet/test", {"filters": 3}, 10, None, {"image_size": [16, 16], "channels": 1})
    network = weights.network_of(card)
    params, stats = initial_values(network, 0)
    path = tmp_path / "narrow.safetensors"
    weights.save(path, weights.Weights(params, stats, card))
    recipe = ["--config=configs/digits_resnet.py", f"--config.pretrained.weights={path}"]
    recipe += ["--config.model.name=cifar_resnet/test", "--config.data.image_size=none"]
    answer = answer_of(capsys, "describe", *recipe)
    assert answer["layers"][0]["output"] == [16, 16, 3]
    assert answer["parameters"] == trees.count(params)
    shown = answer_of(capsys, "train", "--show", *recipe)
    assert sum(group["count"] for group in shown["groups"]) == trees.count(params)
    assert shown["macs"] == answer["macs"]
    gone = ["--config=configs/digits_resnet.py", "--config.pretrained.weights=nowhere"]
    assert "nowhere" in error_of(capsys, "describe", *gone)


def test_train_tells_the_keywords_of_a_foreign_file_and_takes_them(tmp_path, capsys):
    path = foreign_weights.write(tmp_path / "net.npz", filters=4)
    recipe = ["--config=configs/cifar_resnet.py:20", f"--config.pretrained.weights={path}"]
    sentence = f"{path} holds cifar_resnet/20 blocks=1 filters=4, as its shapes tell, and not cifar_resnet/20; set "
    assert error_of(capsys, "train", "--show", *recipe).endswith(f"{sentence}model.blocks=1, model.filters=4")
    shown = answer_of(capsys, "train", "--show", *recipe, "--config.model.blocks=1", "--config.model.filters=4")
    loaded = {group["path"]: group["loaded"] for group in shown["groups"]}
    assert loaded["stem"] == 3 * 3 * 3 * 4


def test_describe_counts_the_same(run, weights_file, capsys):
    of_run = answer_of(capsys, "describe", f"--workdir={run}")
    assert answer_of(capsys, "describe", f"--weights={weights_file}") == of_run


def test_probe_finds_the_same(run, weights_file, capsys):
    words = ("--methods=knn",)
    of_run = answer_of(capsys, "probe", f"--workdir={run}", *words)
    of_weights = answer_of(capsys, "probe", f"--weights={weights_file}", DIGITS, *words)
    assert of_weights["knn"] == of_run["knn"]


def test_features_writes_the_same(run, weights_file, tmp_path, capsys):
    arrays = []
    for words in ((f"--workdir={run}",), (f"--weights={weights_file}", DIGITS)):
        out = tmp_path / f"{len(arrays)}.npz"
        answer_of(capsys, "features", *words, f"--out={out}")
        with np.load(out) as file:
            arrays.append({name: file[name] for name in file.files})
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])


def test_report_writes_a_page_of_the_weights(run, weights_file, tmp_path, capsys):
    out = tmp_path / "page.html"
    answer = answer_of(capsys, "report", f"--weights={weights_file}", f"--out={out}")
    assert answer["parameters"] == json.loads((run / "result.json").read_text())["parameters"]
    assert answer["preprocessing"]["mean"] == json.loads((run / "preprocessing.json").read_text())["mean"]
    page = out.read_text()
    for text in ("Weights of mlp/test", "Where they come from", "10 names, in the order of the scores", "Layers: "):
        assert text in page
    assert "<script" not in page


def test_the_next_command_names_the_weights(weights_file, capsys):
    assert main(["evaluate", f"--weights={weights_file}", DIGITS]) == 0
    assert f"next: cnn-vit predict --weights={weights_file} IMAGE ..." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["evaluate"], "no network is named; give --workdir=RUN, or --weights=FILE"),
        (["evaluate", "--workdir=a", "--weights=b"], "--workdir and --weights both name a network; give one of them"),
        (["predict", "--workdir=a", "--model=mlp/test", "x.png"], "--model belongs to --weights=FILE"),
        (["predict", "--workdir=a", "--model.depth=1", "x.png"], "--model belongs to --weights=FILE"),
        (["evaluate", "--weights=nowhere.safetensors"], "nowhere.safetensors is not there"),
        (["describe", "--weights=a", "mlp/test"], "name one network"),
        (["report"], "no run is named; give the folder of one, runs/NAME, or --weights=FILE"),
        (["report", "runs/a", "--weights=b"], "--weights names a file that has no run; leave RUN and --to out"),
        (["report", "runs/a", "--model=mlp/test"], "--model belongs to --weights=FILE"),
        (["new", "photos", "--weights=a"], "--weights=a belongs to --transfer; add it"),
        (["new", "photos", "--transfer", "--weights=a", "--model=vit"], "--model=vit belongs to a network"),
    ],
)
def test_a_network_is_named_once_and_rightly(words, sentence, capsys):
    assert sentence in error_of(capsys, *words)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("report", "{0} is a run folder, which has a page of its own: cnn-vit report {0}"),
        ("describe", "{0} is a run folder, which is named by --workdir={0}"),
    ],
)
def test_a_run_folder_is_not_named_as_a_file_where_it_has_another_word(run, command, sentence, capsys):
    assert error_of(capsys, command, f"--weights={run}") == f"--weights={sentence.format(run)}"


def test_a_run_folder_named_as_weights_has_its_own_data(run, capsys):
    of_run = answer_of(capsys, "evaluate", f"--workdir={run}")
    assert answer_of(capsys, "evaluate", f"--weights={run}")["accuracy"] == of_run["accuracy"]


def test_weights_have_no_data_of_their_own(weights_file, capsys):
    sentence = error_of(capsys, "evaluate", f"--weights={weights_file}")
    assert sentence == "weights have no data of their own; name some, --data=PATH or --config=RECIPE"
