"""Durations carry their unit: "20 epochs", "4000 steps", "1e6 examples"; a bare number is steps.

Exact arithmetic on fractions: 0.1 epochs of 1,000 examples are 100 examples, on every machine.
"""

import math
import re
from fractions import Fraction

from cnn_vit.errors import UserError

UNITS = ("steps", "epochs", "examples")
WRITTEN = re.compile(r"([0-9][0-9_]{0,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(e[+-]?[0-9]{1,2})?\s*([a-z]*)", re.I | re.A)
MOST_STEPS = 2**31 - 1  # the state counts steps in int32


def parse_duration(amount: str | int | float) -> tuple[Fraction, str]:
    """The number and the unit of a duration.

    Raises:
        ValueError: it is none.
    """
    if isinstance(amount, bool) or not isinstance(amount, str | int | float):
        raise ValueError(f"{amount!r} is no duration")
    found = WRITTEN.fullmatch(str(amount).strip())
    unit = found and {"": "steps", **{name: name for name in UNITS}, **{name[:-1]: name for name in UNITS}}.get(
        found[3].lower()
    )
    if not found or not unit:
        raise ValueError(f"{amount!r} is no duration")
    return Fraction(found[1].rstrip(".") + (found[2] or "")), unit


def canonical(amount: str | int | float) -> str:
    """The one way a duration is written: canonical("1e6 example") is "1000000 examples"."""
    number, unit = parse_duration(amount)
    return f"{number if number.denominator == 1 else float(number)} {unit}"


def exact(amount: str | int | float, *, examples: int, batch: int) -> Fraction:
    """Steps of a duration, a fraction of one included."""
    number, unit = parse_duration(amount)
    return number * {"steps": Fraction(1), "epochs": Fraction(examples, batch), "examples": Fraction(1, batch)}[unit]


def steps(amount: str | int | float, *, examples: int, batch: int, key: str) -> int:
    """Whole steps that a duration takes: ceil(amount * examples / batch).

    Args:
        amount: the duration.
        examples: in one epoch.
        batch: examples in one step.
        key: the setting it stands for, for the error.

    Raises:
        UserError: more steps than an int32 counts.
    """
    found = math.ceil(exact(amount, examples=examples, batch=batch))
    if found > MOST_STEPS:
        raise UserError(f"{key} of {amount} is {found} steps; {MOST_STEPS} are the most")
    return found


class Every:
    """What happens every so often: at the first step at or after each multiple of a duration.

    Every 0.4 epochs of 10 steps fires at steps 4, 8, 12; every 1.5 steps at 2, 3, 5, 6, 8.
    """

    def __init__(self, amount: str | int | float, *, examples: int, batch: int, key: str):
        self.interval = exact(amount, examples=examples, batch=batch)
        if self.interval <= 0:
            raise UserError(f"{key} of {amount} never comes round; make it longer than 0")

    def fires(self, step: int) -> bool:
        """Whether a multiple lies after step - 1 and not after step; steps count from 1."""
        over, under = self.interval.denominator, self.interval.numerator
        return step * over // under > (step - 1) * over // under
