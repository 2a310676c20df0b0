"""`cnn-vit sweep --dry`: what a sweep would run, and what that would take; nothing is written.

The trials are printed at once; then the time of one is measured, unless trials of the sweep are finished.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _sweep_tables, _sweep_words
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.studies.sweeping.definition import SweepDefinition
    from cnn_vit.studies.sweeping.forecast import Forecast, TrialList


def run(args: argparse.Namespace, definition: "SweepDefinition", out: Path | None) -> int:
    """Prints what a sweep would do, then what it would take."""
    from cnn_vit.studies.sweeping import forecast

    workers = definition.workers if args.workers is None else args.workers
    if workers < 1:
        raise UserError(f"--workers={workers} do nothing; make it at least 1")
    listed = forecast.list_trials(definition, out)
    if not args.json:
        cli.print_line(trials_text(definition, listed) + "\n")
    expected = forecast.measure(definition, listed, out, workers_asked=workers)
    text = forecast_text(definition, listed, expected, workers)
    next_command = suggest_command(args, definition, out)
    if listed.over >= listed.runs:
        next_command = f"cnn-vit sweep best {cli.shell_quote(str(out))}"
    cli.print_answer(args, as_json(definition, listed, expected), text, next_command=next_command)
    return 0


def suggest_command(args: argparse.Namespace, definition: "SweepDefinition", out: Path | None) -> str:
    """Returns the command that runs what was looked at."""
    words = [*args.words]
    for flag in ("config", "seeds", "trials", "sampler", "metric", "workers", "slurm", "hours", "max_failures", "keep"):
        value = getattr(args, flag)
        if value is not None:
            words.append(f"--{flag}={value}")
    words += [f"--grid={word}" for word in args.grid or ()]
    words += [f"--config.{override}" for override in args.overrides]
    if args.isolate:
        words.append("--isolate")
    if out is None:
        words.append(f"--out={_sweep_words.suggest_out(definition)}")
    elif args.out is not None:
        words.append(f"--out={args.out}")
    return " ".join(["cnn-vit", "sweep", *map(cli.shell_quote, words)])


def trials_text(definition: "SweepDefinition", listed: "TrialList") -> str:
    """Writes what a sweep would do: how many trials, of what, and the first points as a table."""
    from cnn_vit.reports import sweep_facts

    points = "point" if listed.suggestions == 1 else "points"
    seeds = "" if definition.seeds == 1 else f", each with {definition.seeds} seeds"
    word = "is" if listed.over == 1 else "are"
    trials = f"{listed.runs:,} of {definition.config or definition.objective}; {listed.over:,} {word} over"
    if listed.repeats:
        verb = "is the same run" if listed.repeats == 1 else "are the same runs"
        trials += f"; {listed.repeats:,} more {verb} as another, and not done again"
    rows = [
        ("sweep", f"{definition.name}: {listed.suggestions:,} {points} by {definition.sampler}{seeds}"),
        ("trials", trials),
        ("compares", f"{definition.metric} ({definition.mode}); no trial reads the test split"),
    ]
    if definition.overrides:
        rows.append(("fixed", " ".join(definition.overrides)))
    if definition.halving is not None:
        halving = definition.halving
        rows.append(("halving", f"one in {halving.eta} goes on, for the first time after {halving.first} or more"))
    width = cli.terminal_width()
    parts = [cli.format_table(rows, width=width)]
    keys = [dimension.key for dimension in definition.space.dimensions]
    names = _sweep_tables.short_names(keys)
    note_column = [""] if listed.repeated else []
    wide: list[list[str]] = [["point", *(names[key] for key in keys), *note_column]]
    narrow: list[tuple[str, str]] = [("point", "settings")]
    for number, point in enumerate(listed.points):
        note = f"the same as {listed.repeated[number]}" if number in listed.repeated else ""
        cells = [sweep_facts.value_text(point[key]) if key in point else "" for key in keys]
        wide.append([str(number), *cells, *([note] if note_column else [])])
        narrow.append((str(number), "; ".join(filter(None, (_sweep_tables.values_text(point), note)))))
    table = cli.format_table(wide)
    if width is not None and max(map(len, table.splitlines())) > width:
        table = cli.format_table(narrow, width=width)
    hidden = listed.suggestions - len(listed.points)
    if hidden:
        table += f"\nand {hidden:,} more"
    return "\n\n".join([*parts, table])


def forecast_text(definition: "SweepDefinition", listed: "TrialList", expected: "Forecast", workers: int) -> str:
    """Writes what the trials that are left would take, and what these numbers stand on."""
    left = listed.runs - listed.over
    beside = "one after another" if expected.at_once == 1 else f"{expected.at_once} at a time"
    if workers > expected.at_once and left > expected.at_once:
        beside += " (this machine has no cores for more)"
    time = "not known"
    if left == 0:
        time = "none, all trials are over"
    elif expected.seconds is not None and expected.trial_seconds is not None:
        start = ""
        if expected.start_seconds is not None:
            start = f"{_sweep_tables.duration_text(expected.start_seconds)} to start and compile, then "
        trials = "1 trial of" if left == 1 else f"{left:,} trials of"
        each = "" if left == 1 else f" each at full length, {beside}"
        one = _sweep_tables.duration_text(expected.trial_seconds)
        time = f"{_sweep_tables.duration_text(expected.seconds)}: {start}{trials} {one}{each}"
        if definition.halving is not None:
            time += "; halving gives up on most of them earlier"
    kind = "of folders" if expected.is_from_finished else "of checkpoints"
    rows = [("time", time), ("disk", with_free(expected.disk_bytes, kind, expected.free_disk_bytes))]
    if left and expected.memory_bytes is not None:
        rows.append(("memory", with_free(expected.memory_bytes, "at once", expected.free_memory_bytes)))
    rows.append(("by", expected.basis))
    return cli.format_table(rows, width=cli.terminal_width())


def with_free(size: int | None, kind: str, free: int | None) -> str:
    """Writes a number of bytes of a kind beside those that are free: `5 MB of checkpoints; 80.0 GB are free`."""
    text = "not known" if size is None else f"{bytes_text(size)} {kind}"
    return text if free is None else f"{text}; {bytes_text(free)} are free"


def bytes_text(size: int) -> str:
    """Writes a number of bytes: 12 kB, 314 MB, 15.6 GB."""
    if size < 999_500:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.0f} MB" if size < 999_500_000 else f"{size / 1e9:.1f} GB"


def as_json(definition: "SweepDefinition", listed: "TrialList", expected: "Forecast") -> dict[str, Any]:
    """Returns what a sweep would do and take as one JSON object."""
    return {
        "sweep": definition.name,
        "definition": definition.to_json(),
        "suggestions": listed.suggestions,
        "trials": listed.trials,
        "repeats": listed.repeats,
        "over": listed.over,
        "points": [dict(point) for point in listed.points],
        "trial_seconds": expected.trial_seconds,
        "start_seconds": expected.start_seconds,
        "seconds": expected.seconds,
        "disk_bytes": expected.disk_bytes,
        "memory_bytes": expected.memory_bytes,
        "free_disk_bytes": expected.free_disk_bytes,
        "free_memory_bytes": expected.free_memory_bytes,
        "at_once": expected.at_once,
        "basis": expected.basis,
    }
