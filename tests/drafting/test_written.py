"""Recipes as text: what is written is what is read, whatever the texts in it."""

import ast
import warnings

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cnn_vit import settings
from cnn_vit.drafting import written

few_examples = hypothesis_settings(deadline=None, derandomize=True, database=None, max_examples=60)
texts = st.text(st.characters(codec=None), max_size=8) | st.text("\\\"'\n#{}é ", max_size=8)
plain = texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()


@few_examples
@given(st.recursive(plain, lambda inside: st.lists(inside, max_size=3).map(tuple), max_leaves=5))
def test_a_literal_is_read_back_as_the_value(value):
    with warnings.catch_warnings(action="error"):
        assert ast.literal_eval(written.python_literal(value)) == value


@few_examples
@given(texts, texts)
def test_no_text_in_a_recipe_breaks_the_file(name, path):
    docstring = f"A recipe of {name}."
    chosen = {"data.name": "folder", "data.path": path, "duration": "3 epochs"}
    text = written.recipe_source(docstring, chosen, {"data.path": "where they are"})
    with warnings.catch_warnings(action="error"):
        tree = ast.parse(text.encode())
    docstring_read = ast.get_docstring(tree, clean=False) or ""
    assert docstring_read.split() == docstring.split()  # but for blanks


def test_what_is_written_is_what_is_read(tmp_path, monkeypatch):
    chosen = {
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
    (tmp_path / "mine.py").write_text(written.recipe_source("Mine.", chosen, {"duration": "short"}), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    loaded = settings.load("mine.py")
    assert {key: loaded[key] for key in chosen} == chosen
    assert {key for key, origin in loaded.origin.items() if origin == "recipe"} == chosen.keys()
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
    assert written.assignment_lines("data.x", value, comment) == lines
