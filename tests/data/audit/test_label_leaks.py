"""Labels in the names of image files are found."""

import numpy as np
import pytest

from cnn_vit.data.audit.label_leaks import find_label_leaks

CLASSES = ("cats", "dogs", "hot dog", "Überraschung", "3")


def find_leaks(*names, classes=CLASSES):
    """Searches names `CLASS/x.jpg`, whose labels are those of their folders."""
    labels = np.array([classes.index(name.partition("/")[0]) for name in names])
    return find_label_leaks(names, labels, classes)


@pytest.mark.parametrize(
    "name",
    ["cats/cat.jpg", "cats/Cats_01.png", "cats/a/my-cat 7.jpg", "cats/cat/01.jpg", "cats/cat01.jpg",
     "hot dog/hot_dog9.jpg", "Überraschung/U\u0308berraschung.1.jpg"],
)  # fmt: skip
def test_a_name_that_says_its_class_is_found(name):
    assert find_leaks(name, "dogs/1.jpg").own_class == [0]
    assert find_leaks(name, "dogs/1.jpg").other_class == []


@pytest.mark.parametrize(
    "name",
    ["cats/01.jpg", "cats/category.jpg", "cats/concat.jpg", "cats/IMG_2041.jpg", "3/3.jpg", "3/img_3.jpg", "cats/.x"],
)
def test_a_name_that_only_seems_to_say_its_class_is_not_found(name):
    assert find_leaks(name, "dogs/1.jpg") == ([], [], None)


def test_a_name_that_says_another_class_is_found_unless_it_says_its_own_too():
    names = "cats/dog_1.jpg", "cats/cat_and_dog.jpg", "hot dog/hot dog.jpg", "dogs/hot-dog-2.jpg"
    assert find_leaks(*names) == ([1, 2, 3], [(0, 1)], None)


@pytest.mark.parametrize(
    ("pattern", "word"),
    [("{code}_{number:03}", "first"), ("x-{code}-{number}", "second"), ("{number}.x.{code}", "last")],
)
def test_a_word_of_every_name_that_belongs_to_one_class_is_found(pattern, word):
    """Such as `qx_001.jpg` of cats and `qy_001.jpg` of dogs."""
    names = []
    for class_name, code in (("cats", "qx"), ("dogs", "qy")):
        for number in range(9):
            names.append(f"{class_name}/{pattern.format(code=code, number=number)}.jpg")
    assert find_leaks(*names).word == word


@pytest.mark.parametrize("kind", ["one word for all", "numbers", "one name without", "too few of each"])
def test_a_word_that_does_not_tell_the_class_is_not_found(kind):
    cats, dogs = [f"cats/c_{number}.jpg" for number in range(9)], [f"dogs/d_{number}.jpg" for number in range(9)]
    names = {
        "one word for all": [name.replace("c_", "img_").replace("d_", "img_") for name in cats + dogs],
        "numbers": [f"cats/{number}_x.jpg" for number in range(9)]
        + [f"dogs/{number}_x.jpg" for number in range(100, 109)],
        "one name without": [*cats, *dogs, "cats/d_1.jpg"],
        "too few of each": cats[:3] + dogs[:3],
    }[kind]
    assert find_leaks(*names).word is None
