"""`cnn-vit sweep status`: how a sweep stands, once or as a table that stays up to date while somebody watches it.

It reads files alone and takes no lock, so that it works from anywhere. Ctrl-C ends the watching, not the sweep.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.cli import _sweep_tables

if TYPE_CHECKING:
    from cnn_vit.reports.sweep_facts import LeaderRow, SweepTrial
    from cnn_vit.studies.sweeping.standing import Standing

REFRESH_SECONDS = 2.0
LOOK_SECONDS = 0.1  # between two looks at the signals
SHARE_OF_TIME = 0.2  # that reading a large sweep again and again may take
MOST_RUNNING = 12  # trials under way that are shown where there is no terminal
LEFT = "the watching was ended by {}; the sweep itself goes on"


def run(args: argparse.Namespace, out: Path) -> int:
    """Prints how a sweep stands; in a terminal until it ends, unless --once or --json asks for one look."""
    from cnn_vit.studies.sweeping import standing

    with stops.saying(LEFT):
        if cli.terminal_width() is None or args.once or args.json:
            now = standing.read_standing(out)
        else:
            now = watch(out)
        rows = leaderboard_of(now)
        text = as_text(now, rows, width=cli.terminal_width())
        cli.print_answer(args, as_json(now, rows), text, next_command=suggest_command(now, rows))
    return 0


def watch(out: Path) -> "Standing":
    """Shows how a sweep stands until nobody works on it; returns how it stands then."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from cnn_vit.runs import journal
    from cnn_vit.studies.sweeping import standing

    now = standing.read_standing(out)
    if not now.is_running:
        return now
    console = Console(highlight=False, markup=False)
    # What was watched is removed at the end: the last look is printed as the answer.
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while now.is_running:
            text = as_text(now, leaderboard_of(now), width=console.width, height=console.height - 1)
            live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            began = journal.now()
            now = standing.read_standing(out)
            took = journal.now() - began
            wait(max(REFRESH_SECONDS, took / SHARE_OF_TIME))
    return now


def wait(seconds: float) -> None:
    """Waits, and looks at the signals meanwhile.

    Raises:
        StoppedError: one came.
    """
    for _ in range(round(seconds / LOOK_SECONDS)):
        stops.raise_if_requested()
        time.sleep(LOOK_SECONDS)


def leaderboard_of(now: "Standing") -> list["LeaderRow"]:
    """Returns the settings that have numbers, best first."""
    from cnn_vit.reports import sweep_facts

    return sweep_facts.leaderboard(now.facts)


def suggest_command(now: "Standing", rows: list["LeaderRow"]) -> str:
    """Returns the command that goes on from here."""
    folder = cli.shell_quote(str(now.facts.out))
    if now.is_running:
        return f"cnn-vit sweep status {folder}"
    if now.over < now.total:
        return f"cnn-vit sweep {folder}"
    return f"cnn-vit sweep best {folder}" if rows else f"cnn-vit sweep retry {folder}"


# Text -----------------------------------------------------------------------------------------------------------------


def as_text(now: "Standing", rows: list["LeaderRow"], *, width: int | None, height: int | None = None) -> str:
    """Writes how a sweep stands.

    Args:
        now: how it stands.
        rows: its leaderboard.
        width: the most characters of a line; None for no limit.
        height: the most lines; what does not fit is left out from the trials under way. None for no limit.
    """
    facts = now.facts
    counts = [("trials", f"{now.over:,} of {now.total:,} over: {_sweep_tables.states_text(facts)}")]
    counts.append(("time left", time_left_text(now)))
    if rows:
        best = rows[0]
        counts.append(("best", f"{facts.metric} {_sweep_tables.interval_text(facts, best)}"))
        if best.values:  # a sweep may vary the seed alone
            counts.append(("", _sweep_tables.values_text(best.values)))
        if best.note:
            counts.append(("", best.note))
    counts += [("note", note) for note in facts.notes]
    parts = [f"sweep {facts.name} in {facts.out}", cli.format_table(counts, width=width)]
    # A table that is drawn again and again has a line for each reason, which the terminal's edge cuts.
    failures = _sweep_tables.failures_table(facts, width=width if height is None else None)
    lines = sum(part.count("\n") + 2 for part in [*parts, failures])
    most = MOST_RUNNING if height is None else max(1, height - lines - 2)
    if now.running or now.queue:
        parts.append(running_table(now, most=most, width=width if height is None else None))
    if failures:
        parts.append(failures)
    return "\n\n".join(parts)


def running_table(now: "Standing", *, most: int, width: int | None) -> str:
    """Returns the trials under way as a table: name, step, share of its steps, SLURM's words, values.

    Those that SLURM has and that do not run yet stand behind the others.
    """
    table: list[tuple[str, ...]] = [("under way", "step", "", "SLURM", "")]
    for one in now.running:
        trial = one.trial
        share = f"{100 * one.step // max(1, trial.planned_steps)} %"
        step = f"{one.step:,} of {trial.planned_steps:,}"
        table.append((trial.id, step, share, now.queue.get(trial.id, ""), seeded_values(trial)))
    names = {one.trial.id for one in now.running}
    for trial in _sweep_tables.own_trials(now.facts):
        if trial.id in now.queue and trial.id not in names:
            table.append((trial.id, "", "", now.queue[trial.id], seeded_values(trial)))
    if not now.queue:
        table = [(*row[:3], row[4]) for row in table]
    text = cli.format_table(table[: most + 1], width=width)
    hidden = len(table) - 1 - most
    return f"{text}\nand {hidden:,} more" if hidden > 0 else text


def seeded_values(trial: "SweepTrial") -> str:
    """Writes the point of a trial and its seed: `learning_rate=0.003 seed=1`."""
    from cnn_vit.reports import sweep_facts

    return f"{_sweep_tables.values_text(sweep_facts.without_seed(trial.values))} seed={trial.seed}".strip()


def time_left_text(now: "Standing") -> str:
    """Writes how long the rest will take: `20 min at the pace of 12 finished since the last start, 2 at a time`."""
    if now.over == now.total:
        return "none, all trials are over"
    idle = "" if now.is_running else "; nobody works on it"
    if now.seconds_left is None:
        return f"not known before a trial has logged a step{idle}"
    return f"{_sweep_tables.duration_text(now.seconds_left)} {now.basis}{idle}"


def as_json(now: "Standing", rows: list["LeaderRow"]) -> dict[str, Any]:
    """Returns how a sweep stands as one JSON object."""
    running = []
    for one in now.running:
        running.append(
            {
                "id": one.trial.id,
                "suggestion": one.trial.suggestion,
                "seed": one.trial.seed,
                "values": dict(one.trial.values),
                "step": one.step,
                "steps": one.trial.planned_steps,
                "seconds": one.seconds,
            }
        )
    return {
        **_sweep_tables.sweep_json(now.facts),
        "is_running": now.is_running,
        "over": now.over,
        "total": now.total,
        "steps_left": now.steps_left,
        "seconds_left": now.seconds_left,
        "basis": now.basis,
        "best": _sweep_tables.leader_json(rows[0]) if rows else None,
        "running": running,
        "queue": dict(now.queue),
        "failed": _sweep_tables.failed_json(now.facts),
    }
