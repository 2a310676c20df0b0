"""The command `explain`: how a trained network answers a shifted image, and mistakes in one sentence."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cnn_vit.__main__ import main
from cnn_vit.analysis.shift import LayerShift, ShiftReport
from cnn_vit.cli import explain
from cnn_vit.studies.explain import ShiftComparison


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """An image of noise, 8x8 gray."""
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(path)
    return path


def test_an_mlp_has_no_map_and_notices_a_shift_in_every_layer(run, photo, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["explain", str(photo), "--method=shift", f"--workdir={run}", "--shift=1,0", "--out=a.html", "--json"])
        == 0
    )
    answer = json.loads(capsys.readouterr().out)
    assert (answer["images"], answer["shift"]) == (1, [1, 0])
    for values in ("trained", "untrained"):
        layers = answer[values]["layers"]
        assert layers[-1]["path"] == ""
        assert min(layer["invariance"] for layer in layers) > 0.05
        assert {layer["equivariance"] for layer in layers} == {None}
        assert answer[values]["consistency"] in (0, 1)
    assert answer["trained"] != answer["untrained"]
    assert main(["explain", str(photo), "--method=shift", f"--workdir={run}", "--out=shift.html"]) == 0
    answer = capsys.readouterr().out
    assert "(scores)" in answer
    assert "page: shift.html" in answer
    page = (tmp_path / "shift.html").read_text(encoding="utf-8")
    assert f"cnn-vit explain {photo} --method=shift --shift=2,2 --workdir={run}" in page
    assert "No layer of this network has a map" in page


def test_an_undefined_error_is_null_and_a_dash():
    """What a layer of zeros does with a shift is neither exact nor wrong; a layer without a map has an empty cell."""
    nan = float("nan")
    silent = LayerShift("norm", "BatchNorm", 1, nan, nan, np.full((2, 2), nan))
    whole = LayerShift("", "CNN", None, None, 0.25, None)
    report = ShiftReport((silent, whole), consistency=1.0, largest_change=0.5)
    first, second = explain.as_json(report)["layers"]
    assert (first["equivariance"], first["center"], first["invariance"]) == (None, None, None)
    assert (second["equivariance"], second["invariance"]) == (None, 0.25)
    images = np.zeros((1, 2, 2, 1))
    text = explain.as_text(ShiftComparison(images, (1, 1), report, report, "before training", False, True))
    cells = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert cells["norm"] == ["BatchNorm", "1", "-", "-", "-", "-"]
    assert cells["(scores)"] == ["CNN", "0.25", "0.25"]
    assert "undefined, for what the layer gives is 0 everywhere" in text


def test_the_trained_network_and_the_untrained_one_each_have_their_place(capsys, tmp_path, monkeypatch):
    """In the table, the lines below it, --json and the page: no number is that of the other."""

    def measured(scale, consistency, change):
        conv = LayerShift("conv", "Conv", 1, 0.5 * scale, 0.25 * scale, np.full((2, 2), scale))
        return ShiftReport((conv, LayerShift("", "CNN", None, None, 2 * scale, None)), consistency, change)

    trained, untrained = measured(1, 0.75, 0.125), measured(3, 0.25, 0.5)
    images = np.zeros((4, 2, 2, 1), np.uint8)
    compared = ShiftComparison(images, (1, 1), trained, untrained, "before training", False, True)
    network = SimpleNamespace(spec=SimpleNamespace(model="cnn/test"))
    monkeypatch.setattr("cnn_vit.cli._network.load_network", lambda args: network)
    monkeypatch.setattr("cnn_vit.studies.explain.compare_shift", lambda *_: compared)
    monkeypatch.chdir(tmp_path)
    command = ["explain", "a.png", "--method=shift", "--workdir=run"]
    assert main(command) == 0
    out = capsys.readouterr().out
    head, row, *_ = (re.sub(" +", " ", line) for line in out.splitlines())
    assert head == "layer kind stride equivariance untrained invariance untrained"
    assert row == "conv Conv 1 0.5 1.5 0.25 0.75"
    assert "75.0 % of the images; untrained 25.0 %\n" in out
    assert "0.125 at most; untrained 0.5\n" in out
    page = (tmp_path / "run" / "shift.html").read_text(encoding="utf-8")
    assert "--shift=1,1 --workdir=run     # this page again" in page
    assert "<b>0.125</b><span>untrained 0.5</span>" in page
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for name, scale, consistency, change in (("trained", 1, 0.75, 0.125), ("untrained", 3, 0.25, 0.5)):
        assert [layer["invariance"] for layer in answer[name]["layers"]] == [0.25 * scale, 2 * scale]
        first = answer[name]["layers"][0]
        assert (first["equivariance"], first["center"]) == (0.5 * scale, scale)
        assert (answer[name]["consistency"], answer[name]["largest_change"]) == (consistency, change)


def test_of_one_image_the_class_is_the_same_or_not(capsys, tmp_path, monkeypatch):
    """A share of one image is no percentage."""
    whole = LayerShift("", "CNN", None, None, 1.0, None)
    trained, untrained = (ShiftReport((whole,), consistency, 0.5) for consistency in (1.0, 0.0))
    compared = ShiftComparison(np.zeros((1, 2, 2, 1), np.uint8), (1, 1), trained, untrained, "before", False, True)
    monkeypatch.setattr("cnn_vit.cli._network.load_network", lambda _: SimpleNamespace(spec=SimpleNamespace(model="")))
    monkeypatch.setattr("cnn_vit.studies.explain.compare_shift", lambda *_: compared)
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "a.png", "--method=shift", "--weights=a.npz"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^same class +yes; untrained no$", out, re.M)
    assert "%" not in out
    page = (tmp_path / "shift.html").read_text(encoding="utf-8")
    assert "<b>yes</b><span>untrained no</span>" in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method=shfit"], "no method of explain 'shfit'; did you mean shift?"),
        (["--method=shift", "--shift=2"], "--shift=2 is not two whole numbers of pixels; write it as --shift=2,2"),
        (["--method=shift", "--shift=0,0"], "--shift=0,0 moves nothing"),
        (["--method=shift", "--out=a.svg"], "--out=a.svg does not end in .html; name it a.html"),
        (["--method=shift", "--out=.html"], "--out=.html has no name before .html; name it shift.html"),
        (["--method=shift", "--out=."], "--out=. is a folder; name a page in it, shift.html"),
        (["--method=shift", "--shift=8,0"], "a shift of 8, 0 pixels does not fit images of 8x8"),
    ],
)
def test_a_mistake_ends_with_its_cause_and_exit_code_2(run, photo, capsys, words, sentence):
    assert main(["explain", str(photo), f"--workdir={run}", *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_stride_1_network_with_circular_padding_is_equivariant_before_and_after_training(tmp_path, capsys):
    workdir, page, photo = (tmp_path / name for name in ("run", "shift.html", "noise.png"))
    # The quotes tell the word none from no value.
    words = ["data.augment=()", "model.filters=(8,)", "model.pooling='none'", "model.padding_kind=circular"]
    words += ["model.head=average", "duration=10 steps", "schedule.warmup=0"]
    settings = [f"--config.{word}" for word in words]
    assert main(["train", "--config=configs/digits_cnn.py", f"--workdir={workdir}", *settings]) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(photo)
    capsys.readouterr()
    command = ["explain", str(photo), "--method=shift", f"--workdir={workdir}", f"--out={page}", "--json"]
    assert main(command) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["trained"] != answer["untrained"]
    for values in ("trained", "untrained"):
        errors = [layer["equivariance"] for layer in answer[values]["layers"] if layer["kind"] == "Conv"]
        assert len(errors) == 2
        assert max(errors) <= 1e-6
        assert answer[values]["layers"][-1]["invariance"] <= 1e-5  # of the scores, behind the average
    assert page.read_text(encoding="utf-8").count('alt="errors of ') == 2 * 4  # two convolutions, two norms
