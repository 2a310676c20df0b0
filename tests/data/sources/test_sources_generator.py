"""The source `generator`: a function of the user's, its images and labels, and the errors over its mistakes."""

import numpy as np
import pytest
from PIL import Image

import cnn_vit
from cnn_vit import data
from cnn_vit.errors import UserError

HEAD = "import numpy as np\n"


def write_function(folder, body, name="mine.py"):
    """Writes a Python file; returns the settings of the data that run its function `give`."""
    (folder / name).write_text(HEAD + body)
    return {"name": "generator", "path": f"{folder / name}:give"}


SPLITS = """
COUNTS = {"train": 20, "validation": 5, "test": 7}

def give(split):
    for index in range(COUNTS[split]):
        yield np.full((4, 6, 3), 10 * len(split) + index, np.uint8), index % 2
"""


def count_examples(dataset):
    """Returns the number of examples of each split."""
    return {name: len(split) for name, split in dataset.splits.items()}


def test_each_split_gives_its_own_images(tmp_path):
    dataset = data.load(write_function(tmp_path, SPLITS))
    assert dataset.classes == ("0", "1")
    assert dataset.image_shape == (4, 6, 3)
    for name, count in {"train": 20, "validation": 5, "test": 7}.items():
        split = dataset.splits[name]
        assert split.labels.tolist() == [index % 2 for index in range(count)]
        first_numbers = split.read(np.arange(count))[:, 0, 0, 0]
        assert first_numbers.tolist() == [10 * len(name) + index for index in range(count)]


def test_a_function_without_a_split_has_a_tenth_each_set_apart(tmp_path):
    body = """
def give():
    for index in range(50):
        yield np.full((4, 4), index, np.uint8), "odd" if index % 2 else "even"
"""
    dataset = data.load(write_function(tmp_path, body))
    assert dataset.classes == ("even", "odd")
    assert count_examples(dataset) == {"train": 40, "validation": 5, "test": 5}
    pixels, labels = [], []
    for split in dataset.splits.values():
        pixels.append(split.read(np.arange(len(split)))[:, 0, 0, 0])
        labels.append(split.labels)
    pixels, labels = np.concatenate(pixels), np.concatenate(labels)
    assert sorted(pixels.tolist()) == list(range(50))
    assert (labels == pixels % 2).all()


def test_images_of_several_sizes_need_an_image_size_as_files_do(tmp_path):
    body = """
def give(split):
    for index in range(12):
        yield np.full((4 + index % 3, 8, 3), 20 * index, np.uint8), index % 2
"""
    with pytest.raises(UserError, match=r"images have 3 sizes, 4 to 6 pixels high and 8 to 8 wide; set"):
        data.load(write_function(tmp_path, body))
    train = data.load({**write_function(tmp_path, body), "image_size": 4}).splits["train"]
    assert (train.read(np.arange(12)) == 20 * np.arange(12)[:, None, None, None]).all()  # each of one color, in order


def test_pillow_images_of_any_mode_are_read(tmp_path):
    body = """
from PIL import Image

def give(split="train"):
    for index in range(10):
        yield Image.new("P" if index % 2 else "RGB", (5, 4)), index % 2
"""
    assert data.load(write_function(tmp_path, body)).image_shape == (4, 5, 3)
    assert Image.new("P", (5, 4)).mode == "P"


def test_a_split_that_gives_nothing_does_not_exist(tmp_path):
    body = SPLITS.replace('"test": 7', '"test": 0').replace('"validation": 5', '"validation": 0')
    dataset = data.load(write_function(tmp_path, body))
    assert count_examples(dataset) == {"train": 18, "validation": 2}


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
        ("def give(): yield np.zeros((4, 4), np.uint8)", r"example 0 is not a pair \(image, label\) but ndarray"),
        ("def give(): yield np.zeros((4, 4)), 0", r"image 0 is float64; it must be an array of uint8, 0 to 255; for "),
        ("def give(): yield np.zeros((4, 4), int), 0", r"image 0 is int64; it must be an array of uint8, 0 to 255$"),
        ("def give(): yield np.zeros((4, 4, 2), np.uint8), 0",
         r"image 0 has the shape \(4, 4, 2\); it must be \(H, W\)"),
        ("def give(): yield np.zeros((0, 4), np.uint8), 0", r"image 0 has the shape \(0, 4\)"),
        ("def give(): yield np.zeros((4, 4), np.uint8), 0.5",
         r"label 0 is 0.5; it must be an integer from 0, or a text"),
        ("def give(): yield np.zeros((4, 4), np.uint8), True", r"label 0 is True; it must be an integer"),
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
        data.load(write_function(tmp_path, body))


@pytest.mark.parametrize("path", ["mine.py", "mine:give", "mine.py:", "mine.py:a.b", "mine.txt:give"])
def test_a_path_that_names_no_function_is_refused_before_anything_runs(path):
    with pytest.raises(UserError, match=r"write data.path=FILE.py:FUNCTION"):
        data.check({"name": "generator", "path": path})


def test_settings_are_checked_without_running_the_file(tmp_path):
    section = write_function(tmp_path, f"open({str(tmp_path / 'ran')!r}, 'w')\ndef give(): pass")
    data.check(section)
    data.about(section)
    assert not (tmp_path / "ran").exists()


def test_what_the_function_prints_does_not_reach_stdout(tmp_path, capsys):
    data.load(write_function(tmp_path, SPLITS.replace("    for index", "    print('hello')\n    for index")))
    assert capsys.readouterr().out == ""


def test_batches_take_a_function_as_a_path(tmp_path):
    section = write_function(tmp_path, SPLITS)
    (images, labels), *_ = cnn_vit.batches(section["path"], split="test", batch_size=7)
    assert images.shape == (7, 4, 6, 3)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
