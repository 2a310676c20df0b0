"""Keywords read from text: what is expected is written by hand beside the text that is read."""

import ast

import pytest

from cnn_vit.settings import signatures
from cnn_vit.settings.signatures import REQUIRED, Keyword

SOURCE = '''"""A room of examples.

Its second line is not the summary.
"""

raise RuntimeError("this file is never run")


def blur(images, strength=1, *, sigma: float, size: int | None = 3, mode="edge", rates: tuple[float, ...] = (0.5, -1)):
    """Blurs images.

    Args:
        images: a positional argument, of which only the docstring tells.
        sigma: standard deviation in pixels, above 0.
        size: side of the window;
            where it is None, three times sigma: rounded up.
        mode:  what lies beyond the border
          is never indented alike.

    Returns:
        size: this is not an argument.
    """


class Blur:
    """Blurs images.

    Args:
        strength: of the blur.
    """

    sigma = 0

    def __init__(self, sigma, *, strength: "float" = 0.5, seed: int = 0):
        """Sets the strength.

        Args:
            seed: not read, for the docstring of the class tells of its arguments.
        """

    def __call__(self, *, mask=None): ...


class Inherited(Blur):
    """Has no `__init__` of its own."""


def positional(images, strength=1): ...


def computed(*, sigma=3 * 7 + len("a")): ...
'''
MODULE = ast.parse(SOURCE)


def test_the_keywords_of_a_function_are_read_in_order_with_their_meanings():
    assert list(signatures.read_keywords(MODULE, "blur").values()) == [
        Keyword("sigma", REQUIRED, "float", "standard deviation in pixels, above 0."),
        Keyword("size", 3, "int | None", "side of the window; where it is None, three times sigma: rounded up."),
        Keyword("mode", "edge", "", "what lies beyond the border is never indented alike."),
        Keyword("rates", (0.5, -1), "tuple[float, ...]", ""),
    ]


def test_the_keywords_of_a_class_are_those_of_its_init_and_their_meanings_those_of_its_docstring():
    assert signatures.read_keywords(MODULE, "Blur") == {
        "strength": Keyword("strength", 0.5, "'float'", "of the blur."),
        "seed": Keyword("seed", 0, "int", ""),
    }


def test_a_keyword_without_a_default_is_required():
    keywords = signatures.read_keywords(MODULE, "blur")
    assert [keyword.is_required for keyword in keywords.values()] == [True, False, False, False]


def test_a_function_may_take_no_keywords():
    assert signatures.read_keywords(MODULE, "positional") == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sharpen", "no function and no class is called sharpen"),
        ("__call__", "no function and no class is called __call__"),
        ("Inherited", "no function and no class is called __init__"),
    ],
)
def test_a_name_that_is_not_defined_is_a_lookup_error(name, sentence):
    with pytest.raises(LookupError, match=sentence):
        signatures.read_keywords(MODULE, name)


def test_a_default_that_would_have_to_be_computed_is_refused():
    with pytest.raises(ValueError, match="malformed node"):
        signatures.read_keywords(MODULE, "computed")


@pytest.mark.parametrize(
    ("docstring", "meanings"),
    [
        ("", {}),
        ("Blurs.\n\nTakes no Args:\n    a: not read.", {}),
        ("Args:\n    a: one.", {"a": "one."}),
        (
            "Blurs.\n\nArgs:\n    a: one\n      more\n    b_2: two.\nReturns:\n    c: three.",
            {"a": "one more", "b_2": "two."},
        ),
        ("Blurs.\n\nArgs:\n    a: one.\n\n    b: behind a blank line.", {"a": "one."}),
        (
            "Args:\n    a: one.\n    **names: not a keyword that\n        can be named.\n    b: two.",
            {"a": "one.", "b": "two."},
        ),
    ],
)
def test_meanings_are_read_from_the_section_args_alone(docstring, meanings):
    assert signatures.read_meanings(docstring) == meanings


@pytest.mark.parametrize(
    ("source", "summary"),
    [(SOURCE, "A room of examples."), ("x = 1", ""), ('"""\nBegins late.\n"""', "Begins late."), ("", "")],
)
def test_the_summary_of_a_file_is_the_first_line_of_its_docstring(tmp_path, source, summary):
    (tmp_path / "room.py").write_text(source)
    assert signatures.read_summary(tmp_path / "room.py") == summary


def test_a_file_is_parsed_without_being_run(tmp_path):
    (tmp_path / "room.py").write_text(SOURCE)
    assert "sigma" in signatures.read_keywords(signatures.parse_file(tmp_path / "room.py"), "blur")
