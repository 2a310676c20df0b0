"""Grades a learner's file, function by function: read `check_file`."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnn_vit.errors import SurroundingsError, UserError, nearest
from cnn_vit.studies.homework import diagnosis, running
from cnn_vit.studies.homework.exercises import Exercise, choose_exercises, load_exercise
from cnn_vit.studies.homework.running import CaseRun, FileRun, FunctionRun, LearnerError, Limits

RIGHT, WRONG, NOT_WRITTEN, NOT_RUN = "right", "wrong", "not written yet", "not run"
LARGEST_FILE = 1_000_000  # bytes
LONGEST_TEXT = 200  # characters of an exception or of a line of code that are shown


@dataclass(frozen=True)
class Remark:
    """A sentence about a function.

    Attributes:
        sentence: what is wrong, or what is not written yet.
        output: which output it is about, "" where it is about the function.
        mistake: name of a recognized mistake, "" where none was.
        cases: names of the cases in which it shows.
    """

    sentence: str
    output: str = ""
    mistake: str = ""
    cases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns the remark as plain values."""
        return {
            "sentence": self.sentence,
            "output": self.output or None,
            "mistake": self.mistake or None,
            "cases": list(self.cases),
        }


@dataclass(frozen=True)
class FunctionGrade:
    """How a function did.

    Attributes:
        name: of the function.
        state: RIGHT, WRONG, NOT_WRITTEN or NOT_RUN.
        remarks: what is to be said of it.
        right_cases: how many of its cases came out right.
        cases: how many cases it has.
        printed: what it printed.
    """

    name: str
    state: str
    remarks: tuple[Remark, ...] = ()
    right_cases: int = 0
    cases: int = 0
    printed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the grade as plain values."""
        return {
            "name": self.name,
            "state": self.state,
            "right_cases": self.right_cases,
            "cases": self.cases,
            "remarks": [remark.to_json() for remark in self.remarks],
            "printed": self.printed,
        }


@dataclass(frozen=True)
class FileGrade:
    """How a file did.

    Attributes:
        file: the file as it was named.
        functions: a grade for each function that was asked for.
    """

    file: str
    functions: tuple[FunctionGrade, ...]

    @property
    def is_right(self) -> bool:
        """Whether every function is right."""
        return all(grade.state == RIGHT for grade in self.functions)

    def count(self, state: str) -> int:
        """How many functions are in a state."""
        return sum(grade.state == state for grade in self.functions)

    def to_json(self) -> dict[str, Any]:
        """Returns the grades as plain values."""
        counts = {state.replace(" ", "_"): self.count(state) for state in (RIGHT, WRONG, NOT_WRITTEN, NOT_RUN)}
        functions = [grade.to_json() for grade in self.functions]
        return {"file": self.file, "all_right": self.is_right, **counts, "functions": functions}


def check_file(file: str, *, only: str | None = None, limits: Limits | None = None) -> FileGrade:
    """Runs the functions of a learner's file and grades them.

    The file is executed, in a process of its own with limits of time and memory.

    Args:
        file: the file.
        only: the name of one function, or of a layer; None for all.
        limits: of the process; None for the usual ones.

    Raises:
        UserError: there is no such function, or the file is no Python program that can be read to its end.
        SurroundingsError: the file cannot be read, or no process can be started.
        StoppedError: a signal asked to stop.
    """
    names = choose_exercises(only)
    path = Path(file)
    refuse_unreadable(path)
    outcome = running.run_file(path, names, limits or Limits())
    if outcome.error is not None:
        raise UserError(f"{file} cannot be read to its end: {describe_error(outcome.error)}")
    if outcome.death:
        raise UserError(f"{file} cannot be read to its end: it {outcome.death}")
    return FileGrade(file, tuple(grade_function(name, outcome) for name in names))


def refuse_unreadable(path: Path) -> None:
    """Refuses what is no file of Python code, before a process is started for it."""
    if not path.exists():
        with_suffix = path if path.suffix == ".py" else path.with_name(f"{path.name}.py")
        if with_suffix != path and with_suffix.is_file():
            raise UserError(f"there is no {path}; did you mean {with_suffix}?")
        raise UserError(f"there is no {path}; `cnn-vit backprop start {with_suffix}` writes a file to fill")
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"{path} is not a Python file; `cnn-vit backprop start FILE.py` writes one to fill")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SurroundingsError(f"{path} cannot be read ({error.strerror}); change its rights") from error
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} has {len(content):,} bytes; a file of functions has at most {LARGEST_FILE:,}")
    try:
        ast.parse(content)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise UserError(f"{path} is not Python: line {error.lineno}, {error.msg}: {shorten(line)}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} is not Python: {error}") from error


def grade_function(name: str, outcome: FileRun) -> FunctionGrade:
    """Grades what came out of a function."""
    exercise = load_exercise(name)
    count = len(exercise.cases)
    run = outcome.functions.get(name)
    if run is None:
        sentence = f"left out, because {running.MOST_DEATHS} functions before did not come to an end"
        return FunctionGrade(name, NOT_RUN, (Remark(sentence),), cases=count)
    if run.is_missing:
        near = nearest(name, outcome.names, most=1)
        hint = f"; there is {near[0]}, did you rename it?" if near else "; `cnn-vit backprop start` writes all of them"
        return FunctionGrade(name, NOT_WRITTEN, (Remark(f"the file has no function {name}{hint}"),), cases=count)
    if run.is_borrowed:
        sentence = "it is a function of cnn_vit, imported: these are the answers to read afterwards; write your own"
        return FunctionGrade(name, NOT_WRITTEN, (Remark(sentence),), cases=count)
    if run.death:
        return FunctionGrade(name, WRONG, (Remark(run.death),), cases=count)
    if run.cases[0].error is not None and run.cases[0].error.type == "NotImplementedError":
        return FunctionGrade(name, NOT_WRITTEN, cases=count, printed=run.printed)
    return grade_cases(exercise, run)


def grade_cases(exercise: Exercise, run: FunctionRun) -> FunctionGrade:
    """Grades a function that came to an end in all cases."""
    remarks = [*remarks_on_errors(exercise, run), *remarks_on_changes(run)]
    wrong_counts = remarks_on_counts(exercise, run)
    not_written: list[Remark] = []
    if wrong_counts:
        remarks += wrong_counts
        values_by_output: list[list[np.ndarray | None]] = []
    else:
        values_by_output = [collect_values(run.cases, number) for number in range(len(exercise.outputs))]
        exchanged = diagnosis.find_exchanged(exercise, values_by_output) or ()
        if exchanged:
            names = " and ".join(exercise.outputs[number] for number in exchanged)
            sentence = f"{names} are exchanged: both are right, and each is returned in the other's place; return "
            remarks.append(Remark(sentence + ", ".join(exercise.outputs), mistake="outputs exchanged"))
        for number, output in enumerate(exercise.outputs):
            remark = remark_on_type(exercise, run, number)
            if remark is not None and remark.mistake == NOT_WRITTEN:
                not_written.append(remark)
            elif remark is not None:
                remarks.append(remark)
            if number in exchanged:
                continue
            for finding in diagnosis.diagnose(exercise, number, values_by_output[number]):
                remarks.append(Remark(finding.sentence, output, finding.mistake, finding.cases))
    right_cases = count_right_cases(exercise, run, values_by_output)
    state = RIGHT
    if not_written:
        state = NOT_WRITTEN
    if remarks:
        state = WRONG
    all_remarks = (*remarks, *not_written)
    return FunctionGrade(exercise.name, state, all_remarks, right_cases, len(exercise.cases), run.printed)


def collect_values(cases: Sequence[CaseRun], output: int) -> list[np.ndarray | None]:
    """The arrays of an output; None where a case has none."""
    return [None if case.items is None else case.items[output].values for case in cases]


def count_right_cases(exercise: Exercise, run: FunctionRun, values: list[list[np.ndarray | None]]) -> int:
    """How many cases came out right in every output."""
    count = 0
    for number, (case, right) in enumerate(zip(run.cases, exercise.right, strict=True)):
        pairs = zip(values, right, strict=True) if values else ()
        is_right = values and not case.changed
        count += bool(is_right and all(diagnosis.is_equal(arrays[number], array) for arrays, array in pairs))
    return count


# What is wrong before any number is looked at -------------------------------------------------------------------------


def remarks_on_errors(exercise: Exercise, run: FunctionRun) -> list[Remark]:
    """Says which exceptions were raised, each kind once, with the first case that it came up in."""
    numbers_by_kind: dict[tuple[str, int | None], list[int]] = {}
    for number, case in enumerate(run.cases):
        if case.error is not None:
            numbers_by_kind.setdefault((case.error.type, case.error.line), []).append(number)
    remarks = []
    for numbers in numbers_by_kind.values():
        first = exercise.cases[numbers[0]]
        error = run.cases[numbers[0]].error
        if error is None:
            continue
        sentence = f"stops {diagnosis.with_case(first.name)}: {describe_error(error)}"
        if len(numbers) < len(exercise.cases):
            sentence += f". Look there: {first.hint}"
        remarks.append(Remark(sentence, cases=diagnosis.case_names(exercise, numbers)))
    return remarks


def remarks_on_changes(run: FunctionRun) -> list[Remark]:
    """Says which arguments were changed."""
    changed = sorted({name for case in run.cases for name in case.changed})
    if not changed:
        return []
    names = " and ".join(changed)
    sentence = (
        f"changes {names}, which it was given and others need again; work on a copy, or write x = x + 1 rather than "
        "x += 1"
    )
    return [Remark(sentence, mistake="inputs changed")]


def remarks_on_counts(exercise: Exercise, run: FunctionRun) -> list[Remark]:
    """Says where another number of things was returned than the function has outputs."""
    expected = len(exercise.outputs)
    for case in run.cases:
        if case.items is None or len(case.items) == expected:
            continue
        names = ", ".join(exercise.outputs)
        if [item.type for item in case.items] == ["None"]:
            return [Remark(f"returns None; is `return` missing? It has to return {names}", mistake="nothing returned")]
        things = "one thing" if len(case.items) == 1 else f"a tuple of {len(case.items)}"
        what = f"a tuple of {expected}: {names}" if expected > 1 else f"{names} alone, no tuple"
        return [Remark(f"returns {things}; it has to be {what}", mistake="wrong number of outputs")]
    return []


def remark_on_type(exercise: Exercise, run: FunctionRun, output: int) -> Remark | None:
    """Says where an output is no array of numbers, or not written yet."""
    name = exercise.outputs[output]
    for number, case in enumerate(run.cases):
        item = None if case.items is None else case.items[output]
        if item is None or item.values is not None:
            continue
        where = diagnosis.with_case(exercise.cases[number].name)
        if item.type == "None" and len(exercise.outputs) > 1:
            return Remark("None, not written yet", name, NOT_WRITTEN)
        if item.type == "None":
            return Remark(f"returns None {where}; is `return` missing?", name, "nothing returned")
        if item.type == "array":
            return Remark(f"its shape is {item.shape}, far more numbers than there are right ones, {where}", name)
        return Remark(f"it is of type {item.type}; it has to be a NumPy array of numbers, {where}", name, "wrong type")
    return None


def describe_error(error: LearnerError) -> str:
    """Writes an exception on one line: its type, its message, and the line of the file."""
    message = f"{error.type}: {error.message}" if error.message else error.type
    if error.type == "MemoryError":
        message = "MemoryError: more memory than there is for it; the arrays of this function are tiny"
    if error.type == "SystemExit":
        message = "SystemExit: a function returns its result and does not exit"
    text = shorten(message)
    if error.line is None:
        return text
    code = f": {shorten(error.code)}" if error.code else ""
    return f"{text} (line {error.line}{code})"


def shorten(text: str) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} ..."
