"""Recipes as text: what is written is what is read, whatever the texts in it."""

import ast
import warnings

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cnn_vit import settings
from cnn_vit.drafting import written

few = hypothesis_settings(deadline=None, derandomize=True, database=None, max_examples=60)
texts = st.text(st.characters(codec=None), max_size=8) | st.text("\\\"'\n#{}é ", max_size=8)
plain = texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()


@few
@given(st.recursive(plain, lambda inside: st.lists(inside, max_size=3).map(tuple), max_leaves=5))
def test_a_literal_is_read_back_as_the_value(value):
    with warnings.catch_warnings(action="error"):
        assert ast.literal_eval(written.python_literal(value)) == value


@few
@given(texts, texts)
def test_no_text_in_it_breaks_the_file(told, path):
    found = {"data.name": "folder", "data.path": path, "duration": "3 epochs"}
    text = written.recipe_source(f"A recipe of {told}.", found, {"data.path": "where they are"})
    with warnings.catch_warnings(action="error"):
        tree = ast.parse(text.encode())
    assert " ".join((ast.get_docstring(tree, clean=False) or "").split()) == " ".join(f"A recipe of {told}.".split())


def test_what_is_written_is_what_is_read(tmp_path, monkeypatch):
    found = {
        "data.name": "folder",
        "data.path": 'a "b"/ü',
        "data.image_size": (24, 32),
        "data.augment": ("flip",),
        "model.name": "cnn/small",
        "model.filters": (16, 32),
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "duration": "12 epochs",
    }
    (tmp_path / "mine.py").write_text(written.recipe_source("Mine.", found, {"duration": "short"}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    final = settings.load("mine.py")
    assert {key: final[key] for key in found} == found
    assert {key for key, origin in final.origin.items() if origin == "recipe"} == found.keys()
    assert settings.describe_recipe(tmp_path / "mine.py")[0] == "Mine."


@pytest.mark.parametrize(
    ("value", "comment", "lines"),
    [
        (64, "pixels", ["    config.data.x = 64  # pixels"]),
        (("flip",), "", ['    config.data.x = ("flip",)']),
        (1, "c" * 100, ["    # " + "c" * 100, "    config.data.x = 1"]),
        ("a" * 103, "", ["    config.data.x = (", '        "' + "a" * 103 + '"', "    )"]),
        ("a" * 130, "", ['    config.data.x = "' + "a" * 130 + '"']),
    ],
)
def test_a_comment_stands_behind_its_setting_or_above_a_long_one(value, comment, lines):
    assert written.statement("data.x", value, comment) == lines
