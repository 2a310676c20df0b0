"""Labels in the names of image files."""

import numpy as np
import pytest

from cnn_vit.data.audit.label_leaks import find_labels

CLASSES = ("cats", "dogs", "hot dog", "Überraschung", "3")


def found(*names, classes=CLASSES):
    labels = np.array([classes.index(name.partition("/")[0]) for name in names])
    return find_labels(names, labels, classes)


@pytest.mark.parametrize(
    "name",
    ["cats/cat.jpg", "cats/Cats_01.png", "cats/a/my-cat 7.jpg", "cats/cat/01.jpg", "cats/cat01.jpg",
     "hot dog/hot_dog9.jpg", "Überraschung/U\u0308berraschung.1.jpg"],
)  # fmt: skip
def test_a_name_that_says_its_class_is_found(name):
    assert found(name, "dogs/1.jpg").own == [0]
    assert found(name, "dogs/1.jpg").other == []


@pytest.mark.parametrize(
    "name",
    ["cats/01.jpg", "cats/category.jpg", "cats/concat.jpg", "cats/IMG_2041.jpg", "3/3.jpg", "3/img_3.jpg", "cats/.x"],
)
def test_a_name_that_only_looks_so_is_not(name):
    assert found(name, "dogs/1.jpg") == ([], [], None)


def test_a_name_that_says_another_class_is_found_unless_it_says_its_own_too():
    names = "cats/dog_1.jpg", "cats/cat_and_dog.jpg", "hot dog/hot dog.jpg", "dogs/hot-dog-2.jpg"
    assert found(*names) == ([1, 2, 3], [(0, 1)], None)


@pytest.mark.parametrize(
    ("pattern", "word"), [("{code}_{at:03}", "first"), ("x-{code}-{at}", "second"), ("{at}.x.{code}", "last")]
)
def test_a_word_of_every_name_that_belongs_to_one_class_is_found(pattern, word):
    """As `qx_001.jpg` of cats and `qy_001.jpg` of dogs."""
    names = [
        f"{name}/{pattern.format(code=code, at=at)}.jpg"
        for name, code in (("cats", "qx"), ("dogs", "qy"))
        for at in range(9)
    ]
    assert found(*names).word == word


@pytest.mark.parametrize("kind", ["one word for all", "numbers", "one name without", "too few of each"])
def test_a_word_that_tells_nothing_is_not(kind):
    if kind == "one word for all":
        names = [f"{name}/img_{at}.jpg" for name in ("cats", "dogs") for at in range(9)]
    elif kind == "numbers":
        names = [f"{name}/{at + 100 * (name == 'dogs')}_x.jpg" for name in ("cats", "dogs") for at in range(9)]
    elif kind == "one name without":
        names = [f"{name}/{name[0]}_{at}.jpg" for name in ("cats", "dogs") for at in range(9)] + ["cats/d_1.jpg"]
    else:
        names = [f"{name}/{name[0]}_{at}.jpg" for name in ("cats", "dogs") for at in range(3)]
    assert found(*names).word is None
