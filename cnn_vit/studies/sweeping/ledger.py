"""plan.jsonl: which trials a sweep has, a line each, in a file that only grows and that only one process writes.

    {"kind": "trial", "row": 0, "suggestion": 0, "seed": 0, "values": {...}, "id": "...", "alias_of": null, ...}
    {"kind": "rung", "rung": 0, "suggestions": [3, 1]}      which suggestions go on beyond the first rung, best first

A trial that could not be run when it was planned, and can be by now, has a second line, which counts.

The plan holds nothing that a clock, a process or a number of workers decides: whoever plans the same sweep again writes
the same bytes. What became of a trial stands in its folder. A kill in the middle of a line leaves a torn one, which
counts as not written, and is cut before the next line is added.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.studies.sweeping.space import Point

PLAN = "plan.jsonl"
TRIAL, RUNG = "trial", "rung"


@dataclass(frozen=True)
class PlanRow:
    """A trial of a sweep.

    Attributes:
        row: its number among the trials of the plan, from 0.
        suggestion: the number of its point, from 0; the trials of one point differ in their seed.
        seed: of the run.
        values: the point.
        id: the name of its folder.
        alias_of: the row of an earlier trial that is the same one, whose result counts for this one, too; else None.
        steps: of the run.
        rungs: the steps at which it waits to be told whether it goes on, then its last step; () without halving.
        data_fingerprint: of its data; "" where it has none.
        error: why it cannot be run, a sentence; "" where it can.
    """

    row: int
    suggestion: int
    seed: int
    values: Point
    id: str
    alias_of: int | None
    steps: int
    rungs: tuple[int, ...]
    data_fingerprint: str
    error: str


@dataclass(frozen=True)
class RungRow:
    """What was decided at the end of a rung of successive halving.

    Attributes:
        rung: its number, from 0.
        suggestions: those that go on, best first.
    """

    rung: int
    suggestions: tuple[int, ...]


class Plan:
    """The lines of a plan.

    Attributes:
        rows: the trials, in their order.
        rungs: the rungs that are decided, in their order.
    """

    def __init__(self) -> None:
        self.rows: list[PlanRow] = []
        self.rungs: list[RungRow] = []
        self._by_suggestion: list[list[PlanRow]] = []

    @property
    def suggestions(self) -> int:
        """How many points there are; a kill may have kept the last one from having all its trials."""
        return len(self._by_suggestion)

    def trials_of(self, suggestion: int) -> list[PlanRow]:
        """Returns the trials of a point, by their seed."""
        return self._by_suggestion[suggestion]

    def add(self, line: PlanRow | RungRow) -> None:
        """Adds a line; a trial that could not be run is replaced by a later one of its number.

        Raises:
            ValueError: the line cannot follow those before it.
        """
        if isinstance(line, RungRow):
            self._add_rung(line)
        elif line.row < len(self.rows):
            self._replace(line)
        elif line.row > len(self.rows) or not self.suggestions - 1 <= line.suggestion <= self.suggestions:
            raise ValueError(f"trial {line.row} of suggestion {line.suggestion} follows trial {len(self.rows) - 1}")
        else:
            self.rows.append(line)
            if line.suggestion == len(self._by_suggestion):
                self._by_suggestion.append([])
            self._by_suggestion[line.suggestion].append(line)

    def _add_rung(self, line: RungRow) -> None:
        """Adds what was decided of the rung behind those that are decided."""
        taking_part = self.rungs[-1].suggestions if self.rungs else range(self.suggestions)
        if line.rung != len(self.rungs) or not set(line.suggestions) <= set(taking_part):
            raise ValueError(f"rung {line.rung} follows rung {len(self.rungs) - 1}")
        self.rungs.append(line)

    def _replace(self, line: PlanRow) -> None:
        """Puts a trial in the place of the one of its number, which could not be run."""
        earlier = self.rows[line.row]
        is_same_point = (line.suggestion, line.seed, line.values) == (earlier.suggestion, earlier.seed, earlier.values)
        if line.row < 0 or not earlier.error or not is_same_point:
            raise ValueError(f"trial {line.row} is planned already")
        of_point = self._by_suggestion[line.suggestion]
        of_point[of_point.index(earlier)] = line
        self.rows[line.row] = line


def read_plan(out: Path) -> tuple[Plan, int]:
    """Reads the plan of a sweep.

    Returns:
        The plan, and how many bytes of the file hold it: a torn last line lies behind them.

    Raises:
        UserError: a line before the last is not one of a plan.
        SurroundingsError: the file cannot be read.
    """
    plan = Plan()
    path = out / PLAN
    with files.os_errors(path):
        content = path.read_bytes() if path.exists() else b""
    size = 0
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break  # torn
        try:
            plan.add(parse_line(line))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"line {number} of {path} is not one of a plan; put the file back from a copy, or remove it: trials "
                "that are finished are found again by their folders"
            ) from error
        size += len(line)
    return plan, size


def parse_line(line: bytes) -> PlanRow | RungRow:
    """Returns a line of the file.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    words: dict[str, Any] = json.loads(line)
    kind = words.pop("kind")
    if kind == RUNG:
        return RungRow(words["rung"], tuple(words["suggestions"]))
    if kind != TRIAL:
        raise ValueError(f"there is no line of the kind {kind}")
    return PlanRow(**{**words, "rungs": tuple(words["rungs"])})


class Ledger:
    """The plan of a sweep and its file, for the one process that writes it.

    Args:
        out: the folder of the sweep, which this process has locked.

    Raises:
        UserError: the file is damaged before its last line.
        SurroundingsError: it cannot be read or written.

    Attributes:
        plan: what the file holds.
    """

    def __init__(self, out: Path):
        self.path = out / PLAN
        self.plan, size = read_plan(out)
        with files.os_errors(self.path):
            is_torn = self.path.exists() and self.path.stat().st_size > size
        if is_torn:
            files.truncate(self.path, size)

    def append(self, lines: Sequence[PlanRow | RungRow]) -> None:
        """Adds lines, and returns once they are on the disk."""
        text = ""
        for line in lines:
            kind = RUNG if isinstance(line, RungRow) else TRIAL
            text += json.dumps({"kind": kind, **asdict(line)}, sort_keys=True, allow_nan=False) + "\n"
        file = files.open_append(self.path)
        try:
            file.write(text)
        finally:
            file.close()
        for line in lines:
            self.plan.add(line)
