"""What a sweep varies: the space of its settings, and the points of that space.

A point names a value for each setting that is active. A setting may depend on another one: momentum means something to
one optimizer and nothing to the next, so that it is active only where that optimizer is chosen.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = dict[str, Any]  # setting -> plain JSON value; only those that are active

CHOICE = "choice"
UNIFORM = "uniform"
LOG = "log"
INT = "int"
KINDS = (CHOICE, UNIFORM, LOG, INT)
# Sampled floats keep so many significant digits: they can be typed again, and the last bits of a logarithm, which
# differ between machines, decide nothing.
FLOAT_DIGITS = 5


@dataclass(frozen=True)
class Dimension:
    """A setting that is varied, and the values that it may have.

    Attributes:
        key: of the setting, "optimizer.learning_rate"; or the name of a value of the user's own objective.
        kind: "choice", one of `choices`; "uniform", a float between `low` and `high`; "log", one whose logarithm is
            uniform; "int", an integer.
        choices: of a choice, plain JSON values.
        low, high: of the other kinds; both belong to the range.
        steps: how many values a grid takes of a range, evenly spaced on its scale; None for all of an "int".
        when: the dimension is active only where each of these keys is active, too, and has one of these values.
    """

    key: str
    kind: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    steps: int | None = None
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def from_unit(self, unit: float) -> Any:
        """Returns the value at a place between 0 and 1, of which 1 is excluded: equal lengths are equally likely."""
        if self.kind == CHOICE:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.kind == INT:
            low, high = int(self.low), int(self.high)
            return min(low + int(unit * (high - low + 1)), high)
        if self.kind == LOG:
            return self.round(self.low * (self.high / self.low) ** unit)
        return self.round(self.low + unit * (self.high - self.low))

    def round(self, value: float) -> float:
        """Rounds a sampled float to FLOAT_DIGITS significant digits, without leaving the range."""
        rounded = float(f"{value:.{FLOAT_DIGITS}g}")
        return min(max(rounded, self.low), self.high)

    def grid_values(self) -> list[Any]:
        """Returns the values that a grid takes, ascending or in the order of the choices.

        Raises:
            ValueError: a float range without `steps`.
        """
        if self.kind == CHOICE:
            return list(self.choices)
        if self.kind == INT and self.steps is None:
            return list(range(int(self.low), int(self.high) + 1))
        if self.steps is None:
            raise ValueError(f"a grid over {self.key} needs steps")
        values: list[Any] = []
        for step in range(self.steps):
            share = step / (self.steps - 1) if self.steps > 1 else 0.0
            if self.kind == LOG:
                values.append(self.round(self.low * (self.high / self.low) ** share))
            elif self.kind == UNIFORM:
                values.append(self.round(self.low + share * (self.high - self.low)))
            else:
                values.append(round(self.low + share * (self.high - self.low)))
        return list(dict.fromkeys(values))  # few integers, or a narrow range, give the same value twice

    def to_json(self) -> dict[str, Any]:
        """Returns the dimension as plain values."""
        return {
            "key": self.key,
            "kind": self.kind,
            "choices": list(self.choices),
            "low": self.low,
            "high": self.high,
            "steps": self.steps,
            "when": {key: list(values) for key, values in self.when},
        }


@dataclass(frozen=True)
class Space:
    """All dimensions of a sweep.

    Attributes:
        dimensions: each with a key of its own; a condition names only keys of earlier ones.
    """

    dimensions: tuple[Dimension, ...]

    def is_active(self, dimension: Dimension, point: Mapping[str, Any]) -> bool:
        """Whether a dimension has a value where the earlier ones have those of a point."""
        return all(key in point and point[key] in values for key, values in dimension.when)

    def from_units(self, units: Sequence[float]) -> Point:
        """Returns the point at a place of the unit cube.

        Args:
            units: a number in [0, 1) for each dimension, also for those that are not active.
        """
        point: Point = {}
        for dimension, unit in zip(self.dimensions, units, strict=True):
            if self.is_active(dimension, point):
                point[dimension.key] = dimension.from_unit(unit)
        return point

    def grid(self) -> list[Point]:
        """Returns every combination of the dimensions' grid values, each once; the first key changes slowest."""
        points: list[Point] = [{}]
        for dimension in self.dimensions:
            longer: list[Point] = []
            for point in points:
                if not self.is_active(dimension, point):
                    longer.append(point)
                    continue
                longer += [{**point, dimension.key: value} for value in dimension.grid_values()]
            points = longer
        return points

    @functools.cached_property
    def grid_points(self) -> list[Point]:
        """What `grid` returns, made once, for whoever asks for one point after another; it is not to be changed."""
        return self.grid()

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the space as plain values."""
        return [dimension.to_json() for dimension in self.dimensions]

    @classmethod
    def from_json(cls, stored: Sequence[Mapping[str, Any]]) -> "Space":
        """Returns the space that `to_json` made plain values of."""
        dimensions = []
        for row in stored:
            when = tuple((key, tuple(values)) for key, values in row["when"].items())
            words = {**row, "choices": tuple(row["choices"]), "when": when}
            dimensions.append(Dimension(**words))
        return cls(tuple(dimensions))


def text_of_value(value: Any) -> str:
    """Writes a value as the command line takes it: 0.001, true, none, ('80 epochs',)."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and math.fabs(value) < 1e16:
        return repr(int(value))  # an int setting takes 3, and a float setting too
    if isinstance(value, list | tuple):
        return repr(as_tuple(value))
    return repr(value)


def as_tuple(value: Any) -> Any:
    """Returns a value in which every list, also one inside another, is a tuple."""
    if isinstance(value, list | tuple):
        return tuple(as_tuple(item) for item in value)
    return value
