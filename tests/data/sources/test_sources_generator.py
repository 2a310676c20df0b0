"""The source `generator`: a function of the user's, its images and labels, and what is said of its mistakes."""

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data
from cnn_vit.errors import UserError

HEAD = "import numpy as np\n"


def written(folder, body, name="mine.py"):
    """Writes a file; returns the section that runs its function `give`."""
    (folder / name).write_text(HEAD + body)
    return {"name": "generator", "path": f"{folder / name}:give"}


SPLITS = """
COUNTS = {"train": 20, "validation": 5, "test": 7}

def give(split):
    for at in range(COUNTS[split]):
        yield np.full((4, 6, 3), 10 * len(split) + at, np.uint8), at % 2
"""


def test_each_split_gives_its_own_images(tmp_path):
    found = data.load(written(tmp_path, SPLITS))
    assert found.classes == ("0", "1")
    assert found.image_shape == (4, 6, 3)
    for split, count in {"train": 20, "validation": 5, "test": 7}.items():
        one = found.splits[split]
        assert one.labels.tolist() == [at % 2 for at in range(count)]
        assert one.read(np.arange(count))[:, 0, 0, 0].tolist() == [10 * len(split) + at for at in range(count)]


def test_without_a_split_a_tenth_each_is_set_apart(tmp_path):
    body = """
def give():
    for at in range(50):
        yield np.full((4, 4), at, np.uint8), "odd" if at % 2 else "even"
"""
    found = data.load(written(tmp_path, body))
    assert found.classes == ("even", "odd")
    assert {split: len(one) for split, one in found.splits.items()} == {"train": 40, "validation": 5, "test": 5}
    pixels = np.concatenate([one.read(np.arange(len(one)))[:, 0, 0, 0] for one in found.splits.values()])
    labels = np.concatenate([one.labels for one in found.splits.values()])
    assert sorted(pixels.tolist()) == list(range(50))
    assert (labels == pixels % 2).all()


def test_images_of_several_sizes_are_brought_to_one_as_files_are(tmp_path):
    body = """
def give(split):
    for at in range(12):
        yield np.full((4 + at % 3, 8, 3), 20 * at, np.uint8), at % 2
"""
    with pytest.raises(UserError, match=r"images have 3 sizes, 4 to 6 pixels high and 8 to 8 wide; set"):
        data.load(written(tmp_path, body))
    one = data.load({**written(tmp_path, body), "image_size": 4}).splits["train"]
    assert (one.read(np.arange(12)) == 20 * np.arange(12)[:, None, None, None]).all()  # each of one color, in order


def test_pillow_images_are_taken(tmp_path):
    body = """
from PIL import Image

def give(split="train"):
    for at in range(10):
        yield Image.new("P" if at % 2 else "RGB", (5, 4)), at % 2
"""
    assert data.load(written(tmp_path, body)).image_shape == (4, 5, 3)
    assert Image.new("P", (5, 4)).mode == "P"


def test_a_split_that_gives_nothing_is_none(tmp_path):
    body = SPLITS.replace('"test": 7', '"test": 0').replace('"validation": 5', '"validation": 0')
    found = data.load(written(tmp_path, body))
    assert {split: len(one) for split, one in found.splits.items()} == {"train": 18, "validation": 2}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("def gave(): pass", r"mine.py has no function 'give'; write data.path=FILE.py:FUNCTION"),
        ("def give(:", r"mine.py:2: SyntaxError"),
        ("1 / 0\ndef give(): pass", r"mine.py:2: ZeroDivisionError: division by zero"),
        ("def give():\n    yield np.zeros((4, 4), np.uint8), 0\n    raise OSError('sun')", "mine.py:4: OSError: sun"),
        ("def give(): pass", r"give gives nothing to train on; yield \(image, label\)"),
        ("def give(): return 3", r"give gives a int; make it a generator"),
        ("def give(a, b): pass", r"give needs a, b; it may take one thing, the split"),
        ("def give(): yield np.zeros((4, 4), np.uint8)", r"example 0 is no pair \(image, label\) but ndarray"),
        ("def give(): yield np.zeros((4, 4)), 0", r"image 0 is float64, it is an array of uint8, 0 to 255; for "),
        ("def give(): yield np.zeros((4, 4), int), 0", r"image 0 is int64, it is an array of uint8, 0 to 255$"),
        ("def give(): yield np.zeros((4, 4, 2), np.uint8), 0", r"image 0 has the shape \(4, 4, 2\); it is \(H, W\)"),
        ("def give(): yield np.zeros((0, 4), np.uint8), 0", r"image 0 has the shape \(0, 4\)"),
        ("def give(): yield np.zeros((4, 4), np.uint8), 0.5", r"label 0 is 0.5; it is an integer from 0, or a text"),
        ("def give(): yield np.zeros((4, 4), np.uint8), True", r"label 0 is True; it is an integer"),
        ("def give(): yield np.zeros((4, 4), np.uint8), -1", r"gives -1 in train; train has the classes"),
        ("def give(): yield np.zeros((4, 4), np.uint8), 10**12", r"gives the label 1,000,000,000,000; number "),
        ("def give():\n    for label in (0, 'a'): yield np.zeros((4, 4), np.uint8), label", "gives texts and integers"),
        (
            "def give(split):\n    for label in ('a', 'b', split): yield np.zeros((4, 4), np.uint8), label",
            r"gives 'validation' in validation; train has the classes a, b, train",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_the_place(tmp_path, body, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(written(tmp_path, body))


@pytest.mark.parametrize("path", ["mine.py", "mine:give", "mine.py:", "mine.py:a.b", "mine.txt:give"])
def test_a_path_that_names_no_function_is_refused_before_anything_runs(path):
    with pytest.raises(UserError, match=r"write data.path=FILE.py:FUNCTION"):
        data.check({"name": "generator", "path": path})


def test_settings_are_checked_without_running_it(tmp_path):
    section = written(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\ndef give(): pass")
    data.check(section)
    data.about(section)
    assert not (tmp_path / "ran").exists()


def test_what_it_prints_is_no_answer(tmp_path, capsys):
    data.load(written(tmp_path, SPLITS.replace("    for at", "    print('hello')\n    for at")))
    assert capsys.readouterr().out == ""


def test_batches_take_it_as_a_path(tmp_path):
    section = written(tmp_path, SPLITS)
    (images, labels), *_ = cnn_vit.batches(section["path"], split="test", batch_size=7)
    assert images.shape == (7, 4, 6, 3)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
