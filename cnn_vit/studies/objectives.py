"""Trials of a function that the user wrote: it takes the values of a point and returns a number.

    def loss(values):                      # {"rate": 0.01, "layers": 3}
        return (values["rate"] - 0.1) ** 2

    def loss(values, *, seed, folder):     # where it asks for them: the trial's seed, and a folder for its files
        return {"value": ..., "epochs": ...}

It is named FILE.py:NAME, so that any process can find it, or given as the function itself, which only the process that
has it can call. A trial is known by the content of the file, or by the text of the function; modules that the file
imports, such as those beside it, do not belong to that.
"""

import contextlib
import copy
import hashlib
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn_vit import files, stops
from cnn_vit.errors import DivergedError, SurroundingsError, UserError, unknown
from cnn_vit.settings.recipes import run_file
from cnn_vit.studies import trials
from cnn_vit.studies.trials import PlannedTrial, Trial

FILES = "files"  # the folder of a trial that its function may write into
VALUE = "value"  # the name of a number that a function returns alone
VALUES = "values"  # the option of its trials: the point
# What the results of trials hold under these names is not what a function would call so.
TAKEN_NAMES = ("steps", "timing", "validation", "is_finished")

# Functions that were given as themselves, by what their trials are called, and the sha256 of their texts.
_functions: dict[str, Callable[..., Any]] = {}
_digests: dict[str, str] = {}


def register_function(function: Callable[..., Any]) -> str:
    """Makes a function known to the trials of this process, and returns the name that stands for FILE.py:NAME.

    Raises:
        UserError: its text cannot be found, so that its trials would not be known again.
    """
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise UserError(
            f"the text of {function!r} cannot be found, so that its trials would not be known again; write it with "
            "def in a file, and give FILE.py:NAME"
        ) from error
    name = f"<{function.__qualname__}>"
    _functions[name], _digests[name] = function, hashlib.sha256(source.encode()).hexdigest()
    return name


def is_function_here(objective: str) -> bool:
    """Whether an objective is a function that was given as itself, which no other process can call."""
    return objective.startswith("<")


def split_objective(objective: str) -> tuple[Path, str]:
    """Parts FILE.py:NAME.

    Raises:
        UserError: it is not of that form, or the file is not there.
    """
    file, _, name = objective.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f"objective is {objective}; give the file and the name of the function, FILE.py:NAME")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"objective is {objective}, and there is no file {file}")
    return path, name


def digest_objective(objective: str) -> str:
    """Returns the sha256 of the file of an objective, or of the text of a function that was given as itself.

    Raises:
        UserError: there is no such file.
        SurroundingsError: the function lives in another process.
    """
    if is_function_here(objective):
        load_objective(objective)
        return _digests[objective]
    path, _ = split_objective(objective)
    return files.sha256(path)


def load_objective(objective: str) -> Callable[..., Any]:
    """Runs the file of an objective and returns its function.

    Raises:
        UserError: the file fails, or has no such function.
        SurroundingsError: the function lives in another process.
    """
    if objective in _functions:
        return _functions[objective]
    if is_function_here(objective):
        raise SurroundingsError(
            f"the function {objective} lives in the process that started the sweep; give the same call there again"
        )
    path, name = split_objective(objective)
    with importing_beside(objective):
        module = run_file(path, name=str(path))
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UserError(f"{path}: {unknown('function', name, functions)}")
    return function


@contextlib.contextmanager
def importing_beside(objective: str) -> Iterator[None]:
    """Within this context the file of an objective finds the modules that lie beside it, as `python FILE.py` does."""
    if is_function_here(objective):
        yield
        return
    folder = str(split_objective(objective)[0].parent.absolute())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have changed the list
            sys.path.remove(folder)


def plan_objective(trial: Trial, out: Path) -> PlannedTrial:
    """Gives a trial of an objective its place; nothing is run for that.

    Raises:
        UserError: there is no such file.
        SurroundingsError: the function lives in another process.
    """
    deciding = {
        "task": trial.task,
        "name": trial.config.rpartition(":")[2],
        "content": digest_objective(trial.config),
        "seed": trial.seed,
        "options": dict(trial.options),
    }
    return PlannedTrial(trial, *trials.place(deciding, out), None, "", "", steps=1)


def call_objective(planned: PlannedTrial) -> dict[str, Any]:
    """Calls the function of a trial with its values, and returns its numbers: {"value": number}, or those it named.

    Raises:
        UserError: it returns something else than numbers, or not the one that is compared.
        DivergedError: it returns a number that is nan or infinite.
        SurroundingsError: it has changed since the trial was planned, or lives in another process.
    """
    trial = planned.trial
    if plan_objective(trial, planned.folder.parents[1]).id != planned.id:
        raise SurroundingsError(
            f"{trial.config} has changed since this was planned; put it back, or start again in another folder with "
            "--out"
        )
    function = load_objective(trial.config)
    values = copy.deepcopy(dict(trial.options)[VALUES])  # the function may change them
    keywords = choose_keywords(function, planned)
    # It may change the folder, too, in which the next trial shall begin as this one did.
    with contextlib.chdir("."), importing_beside(trial.config), stops.interrupting():
        returned = function(values, **keywords)
    numbers = check_numbers(returned, trial.config)
    if planned.metric and planned.metric not in numbers:
        raise UserError(
            f"{trial.config} returned {', '.join(numbers) or 'nothing'}, and what is compared is {planned.metric}; "
            "return a number of that name, or start a sweep with another metric"
        )
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise DivergedError(f"{trial.config} returned {number} as {name}; return a finite number")
    return {**numbers, "steps": 1}


def choose_keywords(function: Callable[..., Any], planned: PlannedTrial) -> dict[str, Any]:
    """Returns what a function asks for beside the values: `seed`, or `folder`, which is made for it."""
    names = inspect.signature(function).parameters
    keywords: dict[str, Any] = {}
    if "seed" in names:
        keywords["seed"] = planned.trial.seed
    if "folder" in names:
        keywords["folder"] = planned.folder.absolute() / FILES
        files.make_folders(keywords["folder"])
    return keywords


def check_numbers(returned: Any, objective: str) -> dict[str, float]:
    """Returns what a function returned as numbers by name.

    Raises:
        UserError: it is neither a number nor a dict of numbers, or one has a name that is taken.
    """
    numbers = returned if isinstance(returned, Mapping) else {VALUE: returned}
    checked: dict[str, float] = {}
    for name, number in numbers.items():
        if name in TAKEN_NAMES:
            raise UserError(
                f"{objective} returned a number by the name {name}, which means something else in results; give it "
                f"another name, such as my_{name} (taken are {', '.join(TAKEN_NAMES)})"
            )
        try:
            checked[str(name)] = float(number)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{objective} returned {type(number).__name__} as {name}; return a number, or a dict of numbers"
            ) from error
    return checked
