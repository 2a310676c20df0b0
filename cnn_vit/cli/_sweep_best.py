"""`cnn-vit sweep best`: the best setting of a sweep, how sure it is, and the commands that go on with it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _sweep_tables
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.reports.sweep_facts import LeaderRow, SweepFacts, SweepTrial
    from cnn_vit.studies.sweeping.tested_best import BestTest

SEED = "seed"


def run(args: argparse.Namespace, out: Path) -> int:
    """Prints the best setting; with --test also what the test split says of it."""
    from cnn_vit.reports import sweep_facts
    from cnn_vit.studies.sweeping import outcome, tested_best

    if args.again and not args.test:
        raise UserError("--again belongs to --test; add it, or leave --again out")
    facts = outcome.read_sweep(out, with_curves=False)
    rows = sweep_facts.leaderboard(facts)
    if not rows or not rows[0].is_whole:
        reason = sweep_facts.describe_nothing(facts)
        raise UserError(f"{reason} `cnn-vit sweep status {cli.shell_quote(str(out))}` says how far it is")
    leader = rows[0]
    tested = None
    if args.test:
        if facts.definition["objective"]:
            raise UserError(
                f"{facts.definition['objective']} measures what it likes, and cnn-vit knows no test split of it; leave "
                "--test out"
            )
        note_unfinished(facts)
        tested = tested_best.measure_best(facts, leader, again=args.again)
    else:
        tested = tested_best.find_stored(facts, leader)
    commands = list_commands(facts, leader)
    answer = {
        **_sweep_tables.sweep_json(facts),
        "best": _sweep_tables.leader_json(leader),
        "test": None if tested is None else tested_json(tested),
        "commands": commands,
    }
    text = as_text(facts, rows, tested, commands)
    next_command = commands.get("predict") or f"cnn-vit sweep report {cli.shell_quote(str(out))}"
    if tested is None and not facts.definition["objective"]:
        next_command = f"cnn-vit sweep best {cli.shell_quote(str(out))} --test"
    # A reading of the test split is written down by now.
    cli.print_answer(args, answer, text, next_command=next_command, even_if_stopped=args.test)
    return 0


def note_unfinished(facts: "SweepFacts") -> None:
    """Says on stderr that the best setting may change, where trials are not over."""
    left = _sweep_tables.count_left(facts)
    if left:
        word = "trial is" if left == 1 else "trials are"
        cli.print_note(
            f"{left:,} {word} not over: where one of them becomes the best, the test split was read for another one"
        )


# Commands -------------------------------------------------------------------------------------------------------------


def list_commands(facts: "SweepFacts", leader: "LeaderRow") -> dict[str, str]:
    """Returns the commands that go on with the best setting, each as it is typed; none for an objective of one's own.

    They are of the trial with the smallest seed: the one with the best number would be chosen by chance once more.
    """
    from cnn_vit.reports import sweep_facts
    from cnn_vit.studies import trials

    if facts.definition["objective"]:
        return {}
    trial = min(sweep_facts.measured_trials(leader.trials), key=lambda trial: trial.seed)
    workdir = cli.shell_quote(f"--workdir={trial.folder / trials.RUN}")
    return {
        "train": train_command(facts, trial),
        "evaluate": f"cnn-vit evaluate {workdir} --split=validation",
        "predict": f"cnn-vit predict {workdir} IMAGE ...",
    }


def train_command(facts: "SweepFacts", trial: "SweepTrial") -> str:
    """Returns the command that does the run of a trial again in another folder, ready for a shell."""
    from cnn_vit.studies.sweeping import space

    definition = facts.definition
    settings = list(definition["overrides"])
    settings += [f"{key}={space.text_of_value(value)}" for key, value in trial.values.items() if key != SEED]
    settings.append(f"{SEED}={trial.seed}")
    name = facts.name.replace(":", "-").replace(",", "-")
    words = [f"--config={definition['config']}", *(f"--config.{setting}" for setting in settings)]
    words.append(f"--workdir=runs/{name}-best")
    return " ".join(["cnn-vit", "train", *map(cli.shell_quote, words)])


# Text -----------------------------------------------------------------------------------------------------------------


def as_text(facts: "SweepFacts", rows: list["LeaderRow"], tested: "BestTest | None", commands: dict[str, str]) -> str:
    """Writes the best setting, what is known of it, and the commands that go on with it."""
    from cnn_vit.reports import sweep_facts

    width = cli.terminal_width()
    leader = rows[0]
    table: list[tuple[str, str]] = [(facts.metric, _sweep_tables.interval_text(facts, leader))]
    if tested is not None:
        table += tested_rows(tested)
    table += [(key, sweep_facts.value_text(value)) for key, value in leader.values.items()]
    for trial in leader.trials:
        metric = trial.state if trial.metric is None else sweep_facts.metric_text(facts, trial.metric)
        table.append((f"seed {trial.seed}", f"{metric}  {trial.folder}"))
    verdict = sweep_facts.reach_verdict(facts, rows)
    parts = [cli.format_table(table), cli.wrap_paragraphs(verdict.certainty, width)]
    if facts.definition["objective"]:
        parts.append(f"values:\n{json.dumps(dict(leader.values))}")
    elif tested is None and len(rows) > 1:
        warning = (
            f"It is the best of {len(rows):,} on the very images that chose it, so that its number is too good by some "
            "chance; --test says, once, how good it is on others."
        )
        parts.append(cli.wrap_paragraphs(warning, width))
    # Each command on a line of its own that is not folded, to be copied.
    parts += [f"{name}:\n{command}" for name, command in commands.items()]
    return "\n\n".join(parts)


def tested_rows(tested: "BestTest") -> list[tuple[str, str]]:
    """Returns what the test split says, as rows of a table."""
    estimate, low, high = tested.accuracy
    ends = "" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}, "
    when = "read just now" if tested.is_new else "stored, nothing was read"
    rows = [("test.accuracy", f"{100 * estimate:.2f} % ({ends}{tested.basis}); {when}")]
    rows.append(("test reads", reads_text(tested)))
    return rows


def reads_text(tested: "BestTest") -> str:
    """Says how often the test split was read: by the runs of this setting, and for how many settings of the sweep."""
    reads = [reading.reads for reading in tested.readings]
    per_run = f"{sum(reads)} by {len(reads)} {'run' if len(reads) == 1 else 'runs'}"
    if tested.settings == 1:
        return f"{per_run}, of no other setting of this sweep"
    return f"{per_run}; it was read for {tested.settings} settings of this sweep, so that the best of them is too good"


def tested_json(tested: "BestTest") -> dict[str, Any]:
    """Returns what the test split says as a JSON object."""
    readings = []
    for reading in tested.readings:
        readings.append(
            {
                "id": reading.id,
                "seed": reading.seed,
                "accuracy": reading.accuracy,
                "loss": reading.loss,
                "n": reading.n,
                "test_reads": reading.reads,
            }
        )
    return {
        "accuracy": tested.accuracy.estimate,
        "low": tested.accuracy.low,
        "high": tested.accuracy.high,
        "over": tested.basis,
        "is_new": tested.is_new,
        "settings": tested.settings,
        "trials": readings,
    }
