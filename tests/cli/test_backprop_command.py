"""`cnn-vit backprop`: a file to fill, its grades with their exit code, and the page of an image."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from cnn_vit.__main__ import main

RIGHT_RELU = """
import numpy as np

def relu_forward(x):
    return np.where(x > 0, x, 0.0)

def relu_backward(x, g):
    return np.where(x > 0, g, 0.0)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder that commands are given in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_start_writes_a_file_that_check_grades_and_never_writes_over_one(folder, capsys):
    assert main(["backprop", "start", "homework.py"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("homework.py has 18 functions to fill")
    assert out.endswith("next: cnn-vit backprop check homework.py --only=relu_backward\n")
    assert main(["backprop", "check", "homework.py", "--only=relu"]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"^relu_backward +not written yet$", out, re.M)
    # In the order that `start` and the file itself begin with.
    assert out.endswith("next: cnn-vit backprop check homework.py --only=relu_backward\n")
    assert err.splitlines() == [
        "running the functions of homework.py",
        "not all is right: 2 not written yet, of 2 functions",
    ]
    (folder / "homework.py").write_text("mine")
    assert main(["backprop", "start", "homework.py"]) == 2
    assert "homework.py is there already" in capsys.readouterr().err
    assert (folder / "homework.py").read_text() == "mine"


def test_a_file_whose_ending_is_left_out_is_suggested(folder, capsys):
    (folder / "homework.py").write_text(RIGHT_RELU)
    assert main(["backprop", "check", "homework"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "there is no homework; did you mean homework.py?"


def test_check_exits_0_only_where_all_that_was_asked_for_is_right(folder, capsys):
    (folder / "a.py").write_text(RIGHT_RELU)
    assert main(["backprop", "check", "a.py", "--only=relu"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-2:] == ["2 right, of 2 functions", "next: cnn-vit backprop check a.py"]
    (folder / "a.py").write_text(RIGHT_RELU.replace("np.where(x > 0, g", "np.where(g > 0, g"))
    assert main(["backprop", "check", "a.py", "--only=relu", "--json"]) == 2
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert err.splitlines()[-1] == "not all is right: 1 right, 1 wrong, of 2 functions"
    assert (answer["all_right"], answer["right"], answer["wrong"], answer["not_written_yet"]) == (False, 1, 1, 0)
    (remark,) = answer["functions"][1]["remarks"]
    assert (remark["output"], remark["mistake"]) == ("dL/dx", "mask of the gradient")
    assert main(["backprop", "check", "a.py", "--only=relu_backward"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("relu_backward  wrong: 0 of 3 cases are right\n    dL/dx: the gradient is cut off where g")
    assert "        through where x > 0" in out or "(with a few numbers; zeros in x; a batch of images)" in out


def test_trace_prints_the_difference_of_each_layer_and_writes_one_page(folder, capsys):
    assert main(["backprop", "trace"]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^(\w+\d?) +[\dx ]+ +(\d\.\de[+-]\d+)$", out, re.M)
    assert [name for name, _ in rows] == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "dense"]
    assert all(float(difference) <= 1e-10 for _, difference in rows)
    assert out.endswith("page: backprop.html\nnext: cnn-vit backprop start homework.py\n")
    page = (folder / "backprop.html").read_text(encoding="utf-8")
    assert "number 3 of scikit-learn's handwritten digits, of class 3" in page.replace("&#39;", "'")
    assert "cnn-vit backprop trace     # this page again" in page


def test_trace_takes_an_image_its_class_and_a_rate(folder, capsys, monkeypatch):
    from cnn_vit.analysis import backprop_trace

    calls = {}

    def trace(image, label, *, rate, seed):
        calls.update(image=image, label=label, rate=rate, seed=seed)
        raise RuntimeError

    monkeypatch.setattr(backprop_trace, "trace", trace)
    pixels = np.full((40, 60, 3), 255, np.uint8)
    Image.fromarray(pixels).save("white.png")
    assert main(["backprop", "trace"]) == 1
    assert calls.pop("image").tolist() == (load_digits().images[3] / 16).tolist()
    assert calls == {"label": 3, "rate": 0.1, "seed": 0}
    assert main(["backprop", "trace", "white.png", "--label=7", "--rate=0.5", "--seed=3", "--out=b.html"]) == 1
    assert calls.pop("image").tolist() == np.ones((16, 16)).tolist()
    assert calls == {"label": 7, "rate": 0.5, "seed": 3}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chek", "a.py"], "no part of backprop 'chek'; did you mean check?"),
        (["check"], "backprop check takes one FILE.py; write cnn-vit backprop check homework.py"),
        (["check", "none.py"], "there is no none.py; `cnn-vit backprop start none.py` writes a file to fill"),
        (["check", "none"], "there is no none; `cnn-vit backprop start none.py` writes a file to fill"),
        (["check", "a.py", "--only=convolution"], "no function 'convolution'"),
        (["check", "a.py", "--label=1"], "--label belongs to backprop trace; leave it out"),
        (["start", "a.txt"], "a.txt does not end in .py; name it a.py"),
        (["start", "a.py", "--only=relu"], "--only belongs to backprop check; leave it out"),
        (["trace", "none.png"], "there is no image none.png; leave IMAGE out for a handwritten digit"),
        (["trace", "a.png", "b.png"], "backprop trace takes one IMAGE, not 2"),
        (["trace", "--label=10"], "--label=10 is not a class; it takes 0 to 9"),
        (["trace", "--rate=nan"], "--rate=nan is not a learning rate; it takes a number above 0, up to 100"),
        (["trace", "--seed=-1"], "--seed=-1 is negative; it takes a whole number from 0 up"),
        (["trace", "--out=page.txt"], "--out=page.txt does not end in .html; name it page.html"),
    ],
)
def test_wrong_words_are_one_sentence(folder, capsys, words, sentence):
    assert main(["backprop", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(sentence)


def test_a_file_that_is_no_image_is_one_sentence(folder, capsys):
    (folder / "a.png").write_text("no image")
    assert main(["backprop", "trace", "a.png"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("a.png cannot be read: ")
