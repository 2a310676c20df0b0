"""How `cnn-vit sweep` writes what it knows of a sweep: states, leaderboard, failures; alike behind each of its words.

A number of the metric stands with its interval and what that is over: `98.61 % (97.9 to 99.3, 3 seeds)`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.errors import on_one_line

if TYPE_CHECKING:
    from cnn_vit.reports.sweep_facts import LeaderRow, SweepFacts, SweepTrial

MOST_LEADERS = 10  # rows of the leaderboard in the terminal; the page has all
FEW_SECONDS = 9.95  # of which tenths are shown
TENTH = 0.095  # seconds, below which two digits are shown
LEAST_SECONDS = 0.001  # that are told apart
MOST_FAILURES = 5  # reasons in the terminal; results.csv has all
# The order in which states are counted; any other comes last.
STATES = (
    "complete", "pruned", "running", "interrupted", "queued", "cancelled", "diverged", "out of memory", "bad config",
    "crashed",
)  # fmt: skip


def own_trials(facts: "SweepFacts") -> list["SweepTrial"]:
    """Returns the trials that are runs of their own: not those that are the same run as an earlier one."""
    return [trial for trial in facts.trials if trial.alias_of is None]


def count_states(facts: "SweepFacts") -> dict[str, int]:
    """Counts the trials in each state, in the order of STATES; those that are not planned yet are queued."""
    counts = Counter(trial.state for trial in own_trials(facts))
    counts["queued"] += max(0, facts.planned - len(facts.trials))
    names = [*STATES, *sorted(counts.keys() - set(STATES))]
    return {name: counts[name] for name in names if counts[name]}


def states_text(facts: "SweepFacts") -> str:
    """Writes how many trials are in which state: `11 complete, 2 running, 17 queued`."""
    texts = [f"{count:,} {state}" for state, count in count_states(facts).items()]
    aliases = len(facts.trials) - len(own_trials(facts))
    if aliases:
        texts.append(f"{aliases:,} the same as another")
    return ", ".join(texts) or "no trials"


def failed_trials(facts: "SweepFacts") -> list["SweepTrial"]:
    """Returns the trials that have failed, in the order of the plan."""
    from cnn_vit.reports import sweep_facts

    return [trial for trial in own_trials(facts) if trial.state in sweep_facts.FAILED]


def decided_trials(facts: "SweepFacts") -> list["SweepTrial"]:
    """Returns the trials without numbers that are not done again, for their rung of the halving is decided."""
    from cnn_vit.reports import sweep_facts

    decided = []
    for trial in own_trials(facts):
        if trial.is_decided and trial.state in (*sweep_facts.FAILED, "cancelled"):
            decided.append(trial)
    return decided


def count_left(facts: "SweepFacts") -> int:
    """Counts the trials that are not over, those included that are not planned yet."""
    from cnn_vit.studies.sweeping import standing

    left = sum(trial.state not in standing.OVER for trial in own_trials(facts))
    return left + max(0, facts.planned - len(facts.trials))


# Values ---------------------------------------------------------------------------------------------------------------


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each key, `learning_rate`, or all of it where another key ends in the same part."""
    last_parts = Counter(key.rpartition(".")[2] for key in keys)
    names = {}
    for key in keys:
        last_part = key.rpartition(".")[2]
        names[key] = last_part if last_parts[last_part] == 1 else key
    return names


def values_text(values: Mapping[str, Any]) -> str:
    """Writes a point on one line: `learning_rate=0.003 weight_decay=0.01`."""
    from cnn_vit.reports import sweep_facts

    names = short_names(list(values))
    return " ".join(f"{names[key]}={sweep_facts.value_text(value)}" for key, value in values.items())


def interval_text(facts: "SweepFacts", row: "LeaderRow") -> str:
    """Writes the metric of a setting with its interval: `98.61 % (97.9 to 99.3, 3 seeds)`."""
    from cnn_vit.reports import sweep_facts

    return f"{sweep_facts.metric_text(facts, row.estimate)} ({sweep_facts.interval_text(facts, row)}{row.basis})"


def duration_text(seconds: float) -> str:
    """Writes a time as its two largest units: `2 d 3 h`, `1 h 20 min`, `3 min`, `40 s`.

    Below 10 s it is `1.3 s`, with tenths, and below a tenth `0.025 s`, with two digits.
    """
    if 0 < seconds < LEAST_SECONDS:
        return f"less than {LEAST_SECONDS} s"
    if 0 < seconds < TENTH:
        return f"{seconds:.2g} s"
    if 0 < seconds < FEW_SECONDS:
        return f"{seconds:.1f} s"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"


# Tables ---------------------------------------------------------------------------------------------------------------


def leaderboard_table(facts: "SweepFacts", rows: Sequence["LeaderRow"], *, width: int | None) -> str:
    """Returns the best settings as a table, with a column for each key where the width allows it.

    Args:
        facts: of the sweep.
        rows: of all settings with numbers, best first.
        width: the most characters of a line; None for no limit.
    """
    from cnn_vit.reports import sweep_facts

    shown = rows[:MOST_LEADERS]
    names = short_names(facts.keys)
    has_notes = any(row.note for row in shown)
    note_column = ["note"] if has_notes else []
    head = ["rank", "suggestion", facts.metric]
    wide: list[list[str]] = [[*head, *(names[key] for key in facts.keys), *note_column]]
    narrow: list[list[str]] = [[*head, ""]]
    for row in shown:
        cells = [str(row.rank), str(row.suggestion), interval_text(facts, row)]
        columns = [sweep_facts.value_text(row.values[key]) if key in row.values else "" for key in facts.keys]
        wide.append([*cells, *columns, *([row.note] if has_notes else [])])
        narrow.append([*cells, "; ".join(filter(None, (values_text(row.values), row.note)))])
    table = cli.format_table(wide)
    if width is not None and max(map(len, table.splitlines())) > width:
        table = cli.format_table(narrow, width=width)
    hidden = len(rows) - len(shown)
    return f"{table}\nand {hidden:,} more" if hidden else table


def failures_table(facts: "SweepFacts", *, width: int | None) -> str:
    """Returns the reasons for which trials have failed, the most frequent first; "" where none has."""
    from cnn_vit.reports import sweep_facts

    groups = sweep_facts.failures(facts)
    if not groups:
        return ""
    rows = []
    for group in groups[:MOST_FAILURES]:
        first = group.trials[0]
        rows.append(
            (
                f"{len(group.trials):,} {group.state}",
                f"{on_one_line(group.reason)} ({first.id}: {values_text(first.values)})",
            )
        )
    table = cli.format_table(rows, width=width)
    hidden = len(groups) - MOST_FAILURES
    return f"{table}\nand {hidden:,} more reasons" if hidden > 0 else table


# Objects for --json ---------------------------------------------------------------------------------------------------


def sweep_json(facts: "SweepFacts") -> dict[str, Any]:
    """Returns what every answer about a sweep begins with."""
    return {
        "sweep": facts.name,
        "out": str(facts.out),
        "metric": facts.metric,
        "mode": facts.mode,
        "planned": facts.planned,
        "states": count_states(facts),
        "notes": list(facts.notes),
    }


def leader_json(row: "LeaderRow") -> dict[str, Any]:
    """Returns a setting of the leaderboard as a JSON object."""
    return {
        "rank": row.rank,
        "suggestion": row.suggestion,
        "values": dict(row.values),
        "metric": row.estimate,
        "low": row.low,
        "high": row.high,
        "over": row.basis,
        "state": row.state,
        "note": row.note,
        "trials": [{"id": trial.id, "seed": trial.seed, "metric": trial.metric} for trial in row.trials],
    }


def failed_json(facts: "SweepFacts") -> list[dict[str, Any]]:
    """Returns the trials that have failed as JSON objects."""
    failed = []
    for trial in failed_trials(facts):
        failed.append(
            {
                "id": trial.id,
                "suggestion": trial.suggestion,
                "seed": trial.seed,
                "values": dict(trial.values),
                "state": trial.state,
                "reason": trial.reason,
            }
        )
    return failed
