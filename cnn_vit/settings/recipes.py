"""Recipes: config files that say what to run. A recipe is a program of its author's: running one is trusting it.

`configs/NAME.py[:words]` is looked for under the current folder, then beside the package, which is in the repository
where it was installed with `pip install -e`. A recipe's words are a literal dict, `WORDS = {"56": "56 layers"}`, if it
has any; the word `smoke` belongs to every recipe. A recipe that is not of a training names its command in a literal,
`COMMAND = "compare"`; every other command refuses it.
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
TRAIN = "train"  # the command of a recipe that names none
PACKAGE_PARENT = Path(__file__).parents[2]  # the folder that holds the package
MAX_REASON = 300  # characters of what a recipe raised, in an error


class UncachedLoader(importlib.machinery.SourceFileLoader):
    """Reads a recipe anew each time and leaves no compiled copy beside it, for a copy may be older than an edit."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiles the file."""
        return self.source_to_code(self.get_data(self.path), self.path)


# Names and words


def split_name(recipe: str) -> tuple[Path, tuple[str, ...]]:
    """Splits `configs/NAME.py:word,word` into the recipe's file and its words, smoke last.

    Raises:
        UserError: there is no such file, it is not a Python file, or a word is given twice.
    """
    path, colon, mode = recipe.partition(".py:")
    path += ".py" if colon else ""
    words = [word.strip() for word in mode.split(",")] if mode else []
    repeated = [word for word in words if words.count(word) > 1]
    if repeated:
        raise UserError(f"{recipe} says {repeated[0]!r} twice; say each word once")
    for folder in (Path(), PACKAGE_PARENT):
        if path.endswith(".py") and os.path.isfile(folder / path):
            smoke_last = sorted(words, key=lambda word: word == SMOKE)  # False sorts before True
            return folder / path, tuple(smoke_last)
    raise missing_recipe_error(path)


def missing_recipe_error(path: str) -> UserError:
    """Makes the error for a recipe that is not there, with the recipes spelled most like it."""
    names_by_stem = {Path(name).stem: name for name in recipe_names()}
    near = [names_by_stem[stem] for stem in nearest(Path(path).stem.partition(":")[0], names_by_stem)]
    choices = ", ".join(recipe_names()) or "none"
    remedy = f"did you mean {' or '.join(near)}?" if near else f"there is {choices}"
    return UserError(f"no recipe {quote_value(path)} here or in {PACKAGE_PARENT}, beside the package; {remedy}")


def recipe_names() -> dict[str, Path]:
    """Lists the recipes by the name to write, `configs/digits_mlp.py`; one under the current folder hides the other."""
    recipes = {}
    for folder in (PACKAGE_PARENT, Path()):
        for path in (folder / "configs").glob("*.py"):
            recipes[f"configs/{path.name}"] = path
    return dict(sorted(recipes.items()))


def describe_recipe(path: Path) -> tuple[str, dict[str, str]]:
    """Reads the first line of a recipe's docstring, and its words with their meanings, without running the file.

    A file that cannot be read is described by the reason, and has no words.
    """
    try:
        module = ast.parse(path.read_text(encoding="utf-8"))
        summary = (ast.get_docstring(module) or "").partition("\n")[0]
        return summary, {**read_literal(module, "WORDS", {}), SMOKE: SMOKE_MEANING}
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        return f"cannot be read: {error}", {}


def read_command(path: Path) -> str:
    """Reads which command a recipe is of, without running the file; a file that cannot be read counts as a training."""
    try:
        return str(read_literal(ast.parse(path.read_text(encoding="utf-8")), "COMMAND", TRAIN))
    except (OSError, SyntaxError, ValueError, TypeError):
        return TRAIN


def read_literal(module: ast.Module, name: str, default: Any) -> Any:
    """Reads the literal that a file assigns to a name; the default where it assigns none.

    Raises:
        ValueError: it is not a literal.
    """
    for statement in module.body:
        if assigns(statement, name):
            return ast.literal_eval(statement.value)
    return default


def assigns(statement: ast.stmt, name: str) -> TypeGuard[ast.Assign]:
    """Whether a statement is `NAME = ...`, with a type or without."""
    is_named = ast.unparse(statement).startswith((f"{name} = ", f"{name}: "))
    return is_named and getattr(statement, "value", None) is not None


# Running a recipe


def read_layers(
    path: Path, words: Sequence[str], *, name: str, command: str = TRAIN
) -> list[tuple[str, dict[str, Any]]]:
    """Returns what a recipe sets with no word, then with its first word, its first two words, and so on.

    Args:
        path: the file.
        words: its words, without `smoke`.
        name: the file as errors name it.
        command: that reads the recipe.

    Returns:
        [("recipe", {...}), ("word 56", {...})]: where a change comes from, and all settings after it.

    Raises:
        UserError: anything wrong with the file or a word, in one sentence with file and line; it is a recipe of
            another command.
    """
    module = run_recipe(path, name=name)
    refuse_other_command(str(getattr(module, "COMMAND", TRAIN)), command, name=name)
    documented = getattr(module, "WORDS", {})
    if not isinstance(documented, dict):
        raise UserError(f"{name}: WORDS is not a dict; write WORDS = {{'word': 'what it means'}}")
    for word in words:
        if word not in documented:
            raise UserError(f"{name} has no word {quote_value(word)}; its words are {', '.join([*documented, SMOKE])}")
    layers: list[tuple[str, dict[str, Any]]] = []
    for count in range(len(words) + 1):
        origin = f"word {words[count - 1]}" if count else "recipe"
        try:
            layers.append((origin, read_config(module, ",".join(words[:count]), name=name)))
        except UserError:
            if count == len(words):
                raise  # a recipe may need a word: only the whole mode has to work
    return layers


def refuse_other_command(named: str, command: str, *, name: str) -> None:
    """Raises UserError for a recipe of another command than the one that reads it.

    Args:
        named: the command that the recipe names.
        command: the one that reads it.
        name: the file as the error names it.
    """
    if named == command:
        return
    if named == TRAIN:
        raise UserError(f"{name} is a recipe of one training, not of {command}; cnn-vit train --config={name} runs it")
    raise UserError(
        f"{name} is a recipe of `cnn-vit {named}`, not of one training; cnn-vit {named} --config={name} runs it"
    )


def run_recipe(path: Path, *, name: str) -> ModuleType:
    """Runs the file of a recipe and returns its module.

    Raises:
        UserError: the file fails, or it has no get_config.
    """
    module = run_file(path, name=name)
    if not callable(getattr(module, "get_config", None)):
        raise UserError(
            f"{name} has no get_config(mode); a recipe defines one that returns an ml_collections.ConfigDict"
        )
    return module


def run_file(path: Path, *, name: str) -> ModuleType:
    """Runs a file of the user's and returns its module.

    What it prints goes to stderr: stdout holds answers only.

    Args:
        path: the file.
        name: the file as errors name it.

    Raises:
        UserError: whatever the file raises, with its line.
    """
    loader = UncachedLoader(f"recipe {path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a loader was given: there is a spec
    with recipe_errors(path, name=name):
        loader.exec_module(module)
    return module


def read_config(module: ModuleType, mode: str, *, name: str) -> dict[str, Any]:
    """Returns what `get_config(mode)` of a recipe sets, under dotted names: {"data.batch_size": 128}.

    Raises:
        UserError: get_config fails, or returns something else than a ConfigDict.
    """
    from ml_collections import ConfigDict

    function = module.get_config
    first_line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    with recipe_errors(Path(str(module.__file__)), name=name, line=first_line):
        config = function(mode)
        if not isinstance(config, ConfigDict):
            kind = type(config).__name__
            raise UserError(f"{name}:{first_line}: get_config returned {kind}; it returns an ml_collections.ConfigDict")
        return dict(flatten(config.to_dict()))


def flatten(nested: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dicts under dotted names; an empty dict has none."""
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextlib.contextmanager
def recipe_errors(path: Path, *, name: str, line: int = 1) -> Iterator[None]:
    """Turns whatever a user's file raises into one sentence with the file and the line, and sends its prints to stderr.

    Args:
        path: the file.
        name: the file as the sentence names it.
        line: the line to name where no line of the file took part.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        error_line = line
        for frame, number in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename == str(path):  # the last one counts: behind it a library may have raised
                error_line = number
        if isinstance(error, SyntaxError) and error.filename == str(path):
            error_line = error.lineno or line
        message = " ".join(str(getattr(error, "msg", None) or error).split())
        raise UserError(f"{name}:{error_line}: {type(error).__name__}: {message[:MAX_REASON]}") from error
