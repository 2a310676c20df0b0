"""Durations with their unit: "20 epochs", "4000 steps", "1e6 examples"; a bare number counts steps.

The arithmetic is exact, on fractions: 0.1 epochs of 1,000 examples are 100 examples on every machine.
"""

import math
import re
from fractions import Fraction

from cnn_vit.errors import UserError

UNITS = ("steps", "epochs", "examples")
DURATION = re.compile(
    r"(?P<number>[0-9][0-9_]{0,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?P<exponent>e[+-]?[0-9]{1,2})?\s*(?P<unit>[a-z]*)",
    re.IGNORECASE | re.ASCII,
)
MAX_STEPS = 2**31 - 1  # the state counts steps in int32


def parse_duration(amount: str | int | float) -> tuple[Fraction, str]:
    """Parses a duration into its number and its unit, "steps", "epochs" or "examples".

    Raises:
        ValueError: it is not a duration.
    """
    if isinstance(amount, bool) or not isinstance(amount, str | int | float):
        raise ValueError(f"{amount!r} is not a duration")
    match = DURATION.fullmatch(str(amount).strip())
    if not match:
        raise ValueError(f"{amount!r} is not a duration")
    word = match["unit"].lower() or "steps"
    unit = word if word.endswith("s") else f"{word}s"  # "1 epoch" is as good as "1 epochs"
    if unit not in UNITS:
        raise ValueError(f"{amount!r} is not a duration")
    # A fraction is not written with a point at its end: "3." is 3.
    return Fraction(match["number"].rstrip(".") + (match["exponent"] or "")), unit


def canonicalize_duration(amount: str | int | float) -> str:
    """Returns the one way in which a duration is stored: "1000000 examples" for "1e6 example".

    Raises:
        ValueError: it is not a duration.
    """
    number, unit = parse_duration(amount)
    return f"{number if number.denominator == 1 else float(number)} {unit}"


def exact_steps(amount: str | int | float, *, examples: int, batch: int) -> Fraction:
    """Returns the steps that a duration takes, with the fraction of a step at its end.

    Args:
        amount: the duration.
        examples: the number of examples in one epoch.
        batch: the number of examples in one step.
    """
    number, unit = parse_duration(amount)
    steps_in_one = {"steps": Fraction(1), "epochs": Fraction(examples, batch), "examples": Fraction(1, batch)}
    return number * steps_in_one[unit]


def count_steps(amount: str | int | float, *, examples: int, batch: int, key: str) -> int:
    """Returns the whole steps that a duration takes: ceil(amount * examples / batch).

    Args:
        amount: the duration.
        examples: the number of examples in one epoch.
        batch: the number of examples in one step.
        key: the setting that holds the duration, for the error.

    Raises:
        UserError: these are more steps than an int32 counts.
    """
    count = math.ceil(exact_steps(amount, examples=examples, batch=batch))
    if count > MAX_STEPS:
        raise UserError(f"{key} of {amount} is {count} steps; {MAX_STEPS} are the most")
    return count


class Every:
    """What happens every so often: at the first step at or after each multiple of a duration.

    Every 0.4 epochs of 10 steps fires at steps 4, 8, 12; every 1.5 steps at 2, 3, 5, 6, 8.

    Args:
        amount: the duration.
        examples: the number of examples in one epoch.
        batch: the number of examples in one step.
        key: the setting that holds the duration, for the error.

    Raises:
        UserError: the duration is 0.

    Attributes:
        interval: the duration in steps, with the fraction of a step at its end.
    """

    def __init__(self, amount: str | int | float, *, examples: int, batch: int, key: str):
        self.interval = exact_steps(amount, examples=examples, batch=batch)
        if self.interval <= 0:
            raise UserError(f"{key} of {amount} never comes round; make it longer than 0")

    def fires(self, step: int) -> bool:
        """Whether a multiple lies after step - 1 and not after step; steps count from 1."""
        # Of a step, step * denominator // numerator is floor(step / interval), the number of multiples up to it.
        numerator, denominator = self.interval.numerator, self.interval.denominator
        return step * denominator // numerator > (step - 1) * denominator // numerator

    def next_step(self, step: int) -> int:
        """The first step from `step` on at which it fires; steps count from 1."""
        number = (step - 1) * self.interval.denominator // self.interval.numerator + 1  # of the next multiple
        return math.ceil(number * self.interval)
