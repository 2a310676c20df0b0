"""The page of a sweep: which setting is best and how sure that is, then all that it stands on."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files, stops
from cnn_vit.reports import page, sweep_facts, sweep_plots
from cnn_vit.reports.sweep_facts import (
    COMPLETE,
    FAILED,
    PRUNED,
    LeaderRow,
    SweepFacts,
    metric_text,
    shorten_value,
    value_text,
    values_text,
)
from cnn_vit.reports.sweep_importance import importance
from cnn_vit.reports.sweep_unexplored import unexplored

FIRST_ROWS, MOST_ROWS = 20, 200  # of the leaderboard: that are shown at once, and that the page holds
SAME = "the same as another"
MOST_NAMED = 8  # failed trials of a group whose values are shown


def write(path: Path, facts: SweepFacts, *, command: str = "", next_commands: Sequence[str] = ()) -> None:
    """Writes the page of a sweep; the same facts give the same bytes.

    Args:
        path: where it goes.
        facts: the sweep.
        command: that made the sweep.
        next_commands: that go on from here.
    """
    rows = sweep_facts.leaderboard(facts)
    failures = sweep_facts.failures(facts)
    states = count_states(facts)
    text = page.render(
        "sweep.html",
        mark="",
        title=f"{facts.name}: a sweep of {count_text(len(facts.trials), 'trial')}",
        facts=facts,
        verdict=sweep_facts.reach_verdict(facts, rows),
        states=states,
        cost=sweep_facts.cost(facts),
        waiting=count_waiting(facts),
        rows=rows,
        table=[make_table_row(facts, row) for row in rows[:MOST_ROWS]],
        first_rows=FIRST_ROWS,
        intervals=sweep_plots.draw_leaders(facts, rows),
        parallel=sweep_plots.draw_parallel_forms(facts, rows),
        importance=importance(facts, rows),
        importance_plot=sweep_plots.draw_importance,
        scatters=sweep_plots.draw_scatters(facts, rows),
        curves=sweep_plots.draw_learning(facts, rows),
        unexplored=unexplored(facts, rows),
        failures=failures,
        most_named=MOST_NAMED,
        values_text=values_text,
        shown_definition=describe_definition(facts.definition),
        dimensions=[describe_dimension(dimension) for dimension in facts.dimensions],
        command=command,
        next_commands=next_commands or suggest_commands(facts, rows),
        trains=not facts.definition.get("objective"),
        outside_lines=describe_outside_lines(facts, rows),
        outside_points=describe_outside(sweep_plots.scale_of_points(facts, rows).outside, "the edge"),
        most_points=sweep_plots.MOST_POINTS,
        most_lines=sweep_plots.MOST_LINES,
        most_curves=sweep_plots.MOST_CURVES,
    )
    stops.raise_if_requested()
    files.write(path, text)


# Words ----------------------------------------------------------------------------------------------------------------


def count_text(count: int, noun: str) -> str:
    """Returns a count with its noun: "1 trial", "1,000 trials"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def describe_outside_lines(facts: SweepFacts, rows: Sequence[LeaderRow]) -> str:
    """Says how many settings stand at an end of the last axis of the parallel coordinates; "" where none does."""
    complete = sum(row.is_whole for row in rows)
    of_what = " of the complete settings" if complete > 1 else ""  # else the axis is that of all settings
    return describe_outside(sweep_plots.scale_of_lines(facts, rows).outside, "an end of the last axis", of_what)


def describe_outside(count: int, place: str, of_what: str = "") -> str:
    """Says how many settings lie far from the others and stand at a place, with a space before; "" of none."""
    if not count:
        return ""
    if count == 1:
        return f" 1{of_what or ' setting'} lies far from the others and stands at {place}."
    return f" {count:,}{of_what or ' settings'} lie far from the others and stand at {place}."


def count_states(facts: SweepFacts) -> dict[str, int]:
    """Returns how many trials are in each state, and how many are the same run as another, which have none."""
    states = dict(Counter(trial.state for trial in facts.trials if trial.alias_of is None).most_common())
    aliases = sum(trial.alias_of is not None for trial in facts.trials)
    return states | {SAME: aliases} if aliases else states


def count_waiting(facts: SweepFacts) -> int:
    """Returns how many trials are still to come, those that are not planned yet included."""
    over = sum(is_over(trial.state) for trial in sweep_facts.follow_aliases(facts.trials))
    return facts.planned - over


def is_over(state: str) -> bool:
    """Whether a trial in this state is run no more."""
    return state in (COMPLETE, PRUNED, "cancelled", *FAILED)


def describe_definition(definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what was asked for as rows of a table, without the space, which has its own."""
    rows = []
    for name, value in definition.items():
        is_set = value not in (None, "", [], {}, ())
        if name != "space" and is_set:
            text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
            rows.append((name.replace("_", " "), text))
    return rows


def describe_dimension(dimension: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns a swept setting as the row of a table: its key, what it may be, and when it is active."""
    if dimension["kind"] == "choice":
        what = "one of " + ", ".join(map(value_text, dimension["choices"]))
    else:
        low, high = value_text(dimension["low"]), value_text(dimension["high"])
        kinds = {"log": ", even on a logarithmic scale", "uniform": ", even", "int": ", whole numbers"}
        what = f"{low} to {high}{kinds.get(dimension['kind'], '')}"
        if dimension.get("steps"):
            what += f"; of a grid {dimension['steps']} values"
    conditions = []
    for key, values in (dimension.get("when") or {}).items():
        conditions.append(f"{key} is {' or '.join(map(value_text, values))}")
    return str(dimension["key"]), what, " and ".join(conditions)


def suggest_commands(facts: SweepFacts, rows: Sequence[LeaderRow]) -> list[str]:
    """Returns the commands that go on from here."""
    out = shlex.quote(f"--out={facts.out}")
    commands = []
    if rows:
        commands.append(f"cnn-vit sweep best {out}")
    if any(trial.state in FAILED and not trial.is_decided for trial in facts.trials):
        commands.append(f"cnn-vit sweep retry {out}")
    return commands


@dataclass(frozen=True)
class TableRow:
    """A row of the leaderboard as the page shows it.

    Attributes:
        row: the setting.
        metric: as text.
        interval: its ends as text; "" where it has none.
        values: of each swept setting, in the order of the space, long ones cut; a dash where it is not active.
    """

    row: LeaderRow
    metric: str
    interval: str
    values: tuple[str, ...]


def make_table_row(facts: SweepFacts, row: LeaderRow) -> TableRow:
    """Returns a row of the leaderboard as the page shows it."""
    values = []
    for key in facts.keys:
        values.append(shorten_value(row.values[key]) if key in row.values else "\N{EN DASH}")
    interval = sweep_facts.interval_text(facts, row).removesuffix(", ")
    return TableRow(row, metric_text(facts, row.estimate), interval, tuple(values))
