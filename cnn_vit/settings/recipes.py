"""Recipes: config files that say what to run. A recipe is a program of its author's: running one is trusting it.

`configs/NAME.py[:words]` is looked for under the current folder, then beside the package (the repository, where it is
installed with `pip install -e`). Its words are a literal dict, `WORDS = {"56": "56 layers"}`, if it
has any; `smoke` is every recipe's.
"""

import ast
import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeGuard

from cnn_vit.errors import UserError, nearest
from cnn_vit.settings.values import quote_value

SMOKE = "smoke"
SMOKE_MEANING = "the same run made tiny: 20 steps of the family's test variant on 256 drawn images"
BESIDE = Path(__file__).parents[2]  # the folder that holds the package


class Source(importlib.machinery.SourceFileLoader):
    """Reads a recipe anew each time and leaves no compiled copy beside it: a copy may be older than an edit."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiles the file."""
        return self.source_to_code(self.get_data(self.path), self.path)


def split_name(given: str) -> tuple[Path, tuple[str, ...]]:
    """File and words of `configs/NAME.py:word,word`, smoke last.

    Raises:
        UserError: no such file, not a Python file, or a word given twice.
    """
    path, colon, mode = given.partition(".py:")
    path += ".py" if colon else ""
    words = [word.strip() for word in mode.split(",")] if mode else []
    if twice := [word for word in words if words.count(word) > 1]:
        raise UserError(f"{given} says {twice[0]!r} twice; say each word once")
    found = [place / path for place in (Path(), BESIDE) if path.endswith(".py") and os.path.isfile(place / path)]
    if not found:
        raise missing_recipe_error(path)
    return found[0], (*(word for word in words if word != SMOKE), *(word for word in words if word == SMOKE))


def missing_recipe_error(path: str) -> UserError:
    """The error for a recipe that is not there, with the recipes spelled most like it."""
    by_stem = {Path(name).stem: name for name in recipe_names()}
    near = [by_stem[stem] for stem in nearest(Path(path).stem.partition(":")[0], by_stem)]
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(recipe_names()) or 'none'}"
    return UserError(f"no recipe {quote_value(path)} here or in {BESIDE}, beside the package; {remedy}")


def recipe_names() -> dict[str, Path]:
    """Recipes at hand by the name to write, `configs/digits_mlp.py`; those under the current folder come first."""
    found = [(f"configs/{path.name}", path) for place in (BESIDE, Path()) for path in (place / "configs").glob("*.py")]
    return dict(sorted(found, key=lambda pair: pair[0]))


def describe_recipe(path: Path) -> tuple[str, dict[str, str]]:
    """The first line of a recipe's docstring and its words with their meaning, read without running it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = (ast.get_docstring(tree) or "").splitlines()
        words: dict[str, str] = next((ast.literal_eval(node.value) for node in tree.body if is_words(node)), {})
        return (lines[0] if lines else ""), {**words, SMOKE: SMOKE_MEANING}
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        return f"cannot be read: {error}", {}


def is_words(node: ast.stmt) -> TypeGuard[ast.Assign]:
    """Whether a statement is `WORDS = ...`, with a type or without."""
    return ast.unparse(node).startswith(("WORDS = ", "WORDS: ")) and getattr(node, "value", None) is not None


def layers(path: Path, words: Sequence[str], *, name: str) -> list[tuple[str, dict[str, Any]]]:
    """What a recipe sets with no word, then what each further word changes: [("recipe", {...}), ("word 56", {...})].

    Args:
        path: the file.
        words: without `smoke`.
        name: the file as errors name it.

    Raises:
        UserError: anything wrong with the file or a word, in one sentence with file and line.
    """
    module = run_recipe(path, name=name)
    documented = getattr(module, "WORDS", {})
    if not isinstance(documented, dict):
        raise UserError(f"{name}: WORDS is no dict; write WORDS = {{'word': 'what it means'}}")
    for word in words:
        if word not in documented:
            raise UserError(f"{name} has no word {quote_value(word)}; its words are {', '.join([*documented, SMOKE])}")
    found: list[tuple[str, dict[str, Any]]] = []
    for count in range(len(words) + 1):
        origin = f"word {words[count - 1]}" if count else "recipe"
        try:
            found.append((origin, flat_config(module, ",".join(words[:count]), name=name)))
        except UserError:
            if count == len(words):
                raise  # a recipe may need a word: only the whole mode has to work
    return found


def run_recipe(path: Path, *, name: str) -> ModuleType:
    """Runs a recipe's file."""
    module = run_file(path, name=name)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(
            f"{name} has no get_config(mode); a recipe defines one that returns an ml_collections.ConfigDict"
        )
    return module


def run_file(path: Path, *, name: str) -> ModuleType:
    """Runs a file of the user's. What it prints goes to stderr: stdout holds answers only."""
    loader = Source(f"recipe {path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a loader was given: there is a spec
    with recipe_errors(path, name=name):
        loader.exec_module(module)
    return module


def flat_config(module: ModuleType, mode: str, *, name: str) -> dict[str, Any]:
    """What `get_config(mode)` sets, flat: {"data.batch_size": 128}."""
    from ml_collections import ConfigDict

    function = module.get_config
    first = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    with recipe_errors(Path(str(module.__file__)), name=name, line=first):
        config = function(mode)
        if not isinstance(config, ConfigDict):
            raise UserError(
                f"{name}:{first}: get_config returned {type(config).__name__}; it returns an ml_collections.ConfigDict"
            )
        return dict(flatten(config.to_dict()))


def flatten(nested: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dicts under dotted names."""
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        elif not isinstance(value, dict):
            yield f"{prefix}{key}", value


@contextlib.contextmanager
def recipe_errors(path: Path, *, name: str, line: int = 1) -> Iterator[None]:
    """Turns whatever a recipe raises into one sentence with its file and line."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.walk_tb(error.__traceback__)
        lines = [number for frame, number in frames if frame.f_code.co_filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines = [error.lineno or line]
        said = " ".join(str(getattr(error, "msg", None) or error).split())[:300]
        raise UserError(f"{name}:{lines[-1] if lines else line}: {type(error).__name__}: {said}") from error
