"""Says what is wrong with one output of a learner's function: read `diagnose`.

The learner's arrays are compared with what each known mistake gives in the same cases. A mistake is believed where it
would not have shown in any case that came out right, and where it gives the very numbers of at least half of the wrong
cases in which it would show, or of the first wrong case and another one: in the others it may meet a second mistake.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cnn_vit.studies.homework.exercises import OUTPUTS, Exercise, load_exercise
from cnn_vit.studies.homework.mistakes import MISTAKES, Mistake
from cnn_vit.studies.homework.mistakes.record import right

TOLERANCE = 1e-9  # of the largest number of the right array, and at least of 1
ROUNDED = 1e-4  # up to here a difference looks like float32 or a rounded constant
MOST_TOLD = 3  # mistakes of one output


@dataclass(frozen=True)
class Finding:
    """A sentence about an output.

    Attributes:
        mistake: name of a recognized mistake; "" where none was.
        sentence: what is wrong.
        cases: names of the cases in which it shows.
    """

    mistake: str
    sentence: str
    cases: tuple[str, ...]


Values = Sequence[np.ndarray | None]  # of each case; None where there is no array


def is_equal(values: np.ndarray | None, expected: np.ndarray | None) -> bool:
    """Whether an array is another one up to rounding; nan is equal to nan."""
    if values is None or expected is None or values.shape != expected.shape:
        return False
    finite = np.abs(expected[np.isfinite(expected)])
    largest = max(1.0, float(finite.max(initial=0.0)))
    return bool(np.allclose(values, expected, rtol=0, atol=TOLERANCE * largest, equal_nan=True))


def diagnose(exercise: Exercise, output: int, values: Values) -> tuple[Finding, ...]:
    """Says what is wrong with an output; nothing where all its arrays are right.

    Args:
        exercise: the function.
        output: the number of the output.
        values: what the learner's function returned in each case; None where it returned nothing of the kind.
    """
    expected = [outputs[output] for outputs in exercise.right]
    returned = [number for number, array in enumerate(values) if array is not None]
    wrong = [number for number in returned if not is_equal(values[number], expected[number])]
    if not wrong:
        return ()
    for candidates in list_candidates(exercise.name, output):
        findings = explain_by_mistakes(exercise, candidates, expected, values, wrong)
        if findings:
            return findings
    return (explain_by_numbers(exercise, expected, values, wrong),)


def find_exchanged(exercise: Exercise, values: Sequence[Values]) -> tuple[int, int] | None:
    """Returns the numbers of two outputs that were returned in each other's place; None where none were.

    Args:
        exercise: the function.
        values: for each output what was returned in each case.
    """
    for first, second in itertools.combinations(range(len(values)), 2):
        pairs = ((first, second), (second, first))
        if all(
            is_equal(array, outputs[right_one])
            for returned, right_one in pairs
            for array, outputs in zip(values[returned], exercise.right, strict=True)
        ):
            return first, second
    return None


# Mistakes -------------------------------------------------------------------------------------------------------------


@functools.cache
def list_candidates(function: str, output: int) -> tuple[list[Mistake], list[Mistake]]:
    """The mistakes that an output may have, and those of them that come with a wrong sign, to be tried afterwards."""
    name = OUTPUTS[function][output]
    known = [mistake for mistake in MISTAKES[function] if mistake.output == name]
    return known + general_mistakes(function, output), [negated(mistake) for mistake in known]


def general_mistakes(function: str, output: int) -> list[Mistake]:
    """Mistakes that can be made in any output, made of the right arrays."""
    name_of_output = OUTPUTS[function][output]
    is_loss = name_of_output == "L"

    def of_right(name: str, message: str, change: Callable[[np.ndarray], np.ndarray]) -> Mistake:
        return Mistake(name, name_of_output, message, lambda i: change(right(function, i, output)))

    negative_loss = "the loss has the wrong sign: log p is never positive, and the loss is -log p"
    wrong_sign = "the sign is wrong everywhere; all else is right"
    mistakes = [
        of_right("wrong sign", negative_loss if is_loss else wrong_sign, lambda array: -array),
        of_right("zeros", "all numbers are 0: is the result of the loop stored, and returned?", np.zeros_like),
        of_right("transposed", "it is transposed", lambda array: array.swapaxes(-1, -2)),
        of_right("height and width exchanged", "height and width are exchanged", lambda array: array.swapaxes(1, 2)),
        of_right("flipped", "it is flipped in height and width", lambda array: array[:, ::-1, ::-1]),
    ]
    for factor, text in ((2.0, "twice"), (0.5, "half of"), (4.0, "four times"), (0.25, "a quarter of")):
        message = f"every number is {text} the right one: a constant factor is missing or too much"
        mistakes.append(of_right("constant factor", message, functools.partial(np.multiply, factor)))
    return mistakes


def negated(mistake: Mistake) -> Mistake:
    """A mistake together with a wrong sign."""
    message = f"two things. The sign is wrong everywhere. And {mistake.message}"
    return Mistake(
        f"wrong sign, {mistake.name}", mistake.output, message, lambda inputs: -np.asarray(mistake.compute(inputs))
    )


@functools.cache
def compute_mistake(function: str, mistake: Mistake) -> tuple[np.ndarray | None, ...]:
    """What a mistake gives in each case of a function; None where arrays do not fit each other."""
    arrays: list[np.ndarray | None] = []
    for case in load_exercise(function).cases:
        try:
            with np.errstate(all="ignore"):
                arrays.append(np.asarray(mistake.compute(case.named), float))
        except (ValueError, IndexError):
            arrays.append(None)
    return tuple(arrays)


def explain_by_mistakes(
    exercise: Exercise, candidates: list[Mistake], expected: list[np.ndarray], values: Values, wrong: list[int]
) -> tuple[Finding, ...]:
    """Finds the mistakes that explain the wrong cases; nothing where none does."""
    explained_by: list[tuple[Mistake, list[int]]] = []
    for mistake in candidates:
        arrays = compute_mistake(exercise.name, mistake)
        shows = [
            number for number, array in enumerate(arrays) if array is not None and not is_equal(array, expected[number])
        ]
        returned_right = [number for number, array in enumerate(values) if is_equal(array, expected[number])]
        if set(shows) & set(returned_right):
            continue  # it would have shown where nothing is wrong
        explained = [number for number in wrong if number in shows and is_equal(values[number], arrays[number])]
        is_half = 2 * len(explained) >= len(set(shows) & set(wrong))
        is_first_and_another = len(explained) > 1 and wrong[0] in explained
        if explained and (is_half or is_first_and_another):
            explained_by.append((mistake, explained))
    findings: list[Finding] = []
    left = set(wrong)
    while left and len(findings) < MOST_TOLD:
        # Of mistakes that explain as much, the first stands: `max` keeps the order of the list.
        best = max(explained_by, key=lambda pair: len(left & set(pair[1])), default=None)
        if best is None or not left & set(best[1]):
            break
        mistake, explained = best
        findings.append(Finding(mistake.name, mistake.message, case_names(exercise, explained)))
        left -= set(explained)
    everything = len(exercise.cases) - 1  # the last case, in which two mistakes meet
    if findings and left - {everything}:
        findings.append(explain_by_numbers(exercise, expected, values, sorted(left)))
    return tuple(findings)


# Numbers --------------------------------------------------------------------------------------------------------------


def explain_by_numbers(exercise: Exercise, right_arrays: list[np.ndarray], values: Values, wrong: list[int]) -> Finding:
    """Says what can be seen of the first wrong case where no known mistake gives these numbers."""
    first = wrong[0]
    case = exercise.cases[first]
    array, expected = values[first], right_arrays[first]
    cases = case_names(exercise, wrong)
    if array is None or array.shape != expected.shape:
        shape = "none" if array is None else array.shape
        return Finding("", f"its shape is {shape} where it has to be {expected.shape}, {with_case(case.name)}", cases)
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        sentence = f"{count} of {array.size} numbers are nan or infinite, {with_case(case.name)}: {case.hint}"
        return Finding("", sentence, cases)
    differences = np.abs(array - expected)
    factor = find_factor(right_arrays, values, wrong)
    if factor is not None:
        return Finding("constant factor", f"every number is {factor:.6g} times the right one", cases)
    if all(is_rounded(values[number], right_arrays[number]) for number in wrong):
        sentence = (
            f"it is right to {differences.max():.1g} alone: float32, or a rounded constant? Stay in float64 throughout"
        )
        return Finding("rounded", sentence, cases)
    place = tuple(int(index) for index in np.unravel_index(differences.argmax(), differences.shape))
    at_place = f"at {list(place)} it is" if place else "it is"
    share = f"{int((differences > TOLERANCE).sum())} of {differences.size} numbers differ"
    sentence = (
        f"{at_place} {array[place]:.6g} and has to be {expected[place]:.6g}, {with_case(case.name)} ({share}). Look "
        f"there: {case.hint}"
    )
    return Finding("", sentence, cases)


def is_rounded(array: np.ndarray | None, expected: np.ndarray) -> bool:
    """Whether an array is nearly right."""
    return (
        array is not None and array.shape == expected.shape and np.allclose(array, expected, rtol=ROUNDED, atol=ROUNDED)
    )


def find_factor(right_arrays: list[np.ndarray], values: Values, wrong: list[int]) -> float | None:
    """The factor by which all numbers of all wrong cases differ from the right ones; None where there is none."""
    factors = []
    for number in wrong:
        array, expected = values[number], right_arrays[number]
        if array is None or array.shape != expected.shape or not np.isfinite(array).all():
            return None
        total = float((expected * expected).sum())
        if not total:
            continue
        factor = float((array * expected).sum()) / total
        if not is_equal(array, factor * expected):
            return None
        factors.append(factor)
    if not factors or max(factors) - min(factors) > 1e-6 * abs(factors[0]) or abs(factors[0] - 1) < ROUNDED:
        return None
    return factors[0]


def with_case(name: str) -> str:
    """A case as the end of a sentence."""
    return f"with {name}"


def case_names(exercise: Exercise, numbers: Sequence[int]) -> tuple[str, ...]:
    """The names of cases."""
    return tuple(exercise.cases[number].name for number in numbers)
