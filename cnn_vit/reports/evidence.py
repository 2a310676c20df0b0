"""Verdicts on sentences of textbooks: each sentence has parts that can be measured, and an interval decides each part.

A part says that a number is at most, or at least, a bound. It was measured once a seed, and Student's interval of 95 %
over the seeds lies

    on the side that the part says     true
    on the other side                  false
    on both, or seeds are fewer than 3 not resolved

A sentence is true where all its parts are, false where none is, conditional where some are, and not resolved where one
part is not. A control is no part of the sentence: it shows that the instrument works, and where a control does not come
out true, nothing is resolved.

Where a clock measured a part, the verdict is one of the machine that it was measured on, and pages say so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.reports.intervals import Interval, student_interval

TRUE, FALSE, CONDITIONAL, NOT_RESOLVED = "true", "false", "conditional", "not resolved"
NOT_MEASURED = "not measured"  # where there are no results yet
LEAST_SEEDS = 3
BY_CLOCK = "by the clock"
RELATIONS = AT_MOST, AT_LEAST = "at most", "at least"


@dataclass(frozen=True)
class Evidence:
    """A part of a sentence, or a control, with what was measured of it.

    Attributes:
        statement: the part as a sentence.
        relation: AT_MOST or AT_LEAST.
        bound: the number that it is compared with.
        values: what was measured, one number a seed.
        is_control: whether it only shows that the instrument works.
    """

    statement: str
    relation: str
    bound: float
    values: tuple[float, ...]
    is_control: bool = False

    @property
    def interval(self) -> Interval:
        """The mean over the seeds with its interval."""
        return student_interval(self.values)

    @property
    def outcome(self) -> str:
        """TRUE, FALSE or NOT_RESOLVED."""
        _, low, high = self.interval
        if low is None or high is None or len(self.values) < LEAST_SEEDS:
            return NOT_RESOLVED
        if self.relation == AT_MOST:
            is_true, is_false = high <= self.bound, low > self.bound
        else:
            is_true, is_false = low >= self.bound, high < self.bound
        if is_true:
            return TRUE
        return FALSE if is_false else NOT_RESOLVED

    def to_json(self) -> dict[str, Any]:
        """Returns the evidence as plain values, with interval and outcome."""
        estimate, low, high = self.interval
        return {
            "statement": self.statement,
            "relation": self.relation,
            "bound": self.bound,
            "values": list(self.values),
            "is_control": self.is_control,
            "estimate": estimate,
            "low": low,
            "high": high,
            "outcome": self.outcome,
        }


@dataclass(frozen=True)
class EvidenceRow:
    """A line of the evidence on a sentence, as text.

    Attributes:
        statement: what was measured.
        bound: where the statement holds.
        interval: the mean and its interval.
        outcome: true, false or not resolved.
        role: part or control, and whether a clock measured it.
    """

    statement: str
    bound: str
    interval: str
    outcome: str
    role: str


def at_most(statement: str, values: Sequence[float], bound: float, *, is_control: bool = False) -> Evidence:
    """Returns the evidence for a sentence that holds where a number is at most a bound."""
    return Evidence(statement, AT_MOST, plain_bound(bound), tuple(map(float, values)), is_control)


def at_least(statement: str, values: Sequence[float], bound: float, *, is_control: bool = False) -> Evidence:
    """Returns the evidence for a sentence that holds where a number is at least a bound."""
    return Evidence(statement, AT_LEAST, plain_bound(bound), tuple(map(float, values)), is_control)


def plain_bound(bound: Any) -> float:
    """Returns a bound as a number of Python, whole where it was: one of numpy or JAX cannot be written as JSON."""
    return bound if type(bound) in (int, float) else float(bound)


def decide(evidence: Sequence[Evidence]) -> str:
    """Returns the verdict on a sentence.

    Raises:
        UserError: there is no evidence but controls.
    """
    parts = [part.outcome for part in evidence if not part.is_control]
    if not parts:
        raise UserError(
            "a sentence without any part that is measured has no verdict; give it evidence, or leave it out"
        )
    has_failed_control = any(part.is_control and part.outcome != TRUE for part in evidence)
    if has_failed_control or NOT_RESOLVED in parts:
        return NOT_RESOLVED
    if FALSE not in parts:
        return TRUE
    return CONDITIONAL if TRUE in parts else FALSE


def is_by_clock(judgement: Mapping[str, Any]) -> bool:
    """Whether a clock measured part of what decides a sentence; {} is the judgement where nothing was measured."""
    return any(part.get("is_by_clock", False) for part in judgement.get("evidence", []))


def role_of(part: Mapping[str, Any]) -> str:
    """Returns what a part of the evidence is, such as "control" or "part, by the clock"."""
    role = "control" if part["is_control"] else "part"
    return f"{role}, {BY_CLOCK}" if part.get("is_by_clock", False) else role


def describe(part: Mapping[str, Any]) -> EvidenceRow:
    """Returns a part of the evidence as text."""
    bound = f"{part['relation']} {number(part['bound'])}"
    return EvidenceRow(part["statement"], bound, interval_of(part), part["outcome"], role_of(part))


def join_verdicts(parts: Sequence[str]) -> str:
    """Returns the verdicts of several sentences in one phrase, such as "false; true"."""
    return "; ".join(parts) or NOT_MEASURED


def interval_of(evidence: Mapping[str, Any]) -> str:
    """Returns what was measured as text: the mean, and its interval where the seeds differ."""
    estimate = number(evidence["estimate"])
    low, high = evidence["low"], evidence["high"]
    if low is None or high is None:
        return f"{estimate} (too few seeds for an interval)"
    if low == high:
        return f"{estimate} (the same with all {len(evidence['values'])} seeds)"
    return f"{estimate} ({number(low)} to {number(high)}, {len(evidence['values'])} seeds)"


def number(value: float) -> str:
    """Writes a number with three significant digits, a whole one with all of them: 0.21, 3.6e-08, 1,143,466."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.3g}"
