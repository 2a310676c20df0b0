"""Sweep hyperparameters: many trials, none lost, none done twice; the same command again goes on after any stop.

    cnn-vit sweep FILE.toml --out=runs/mine                what varies stands in a file; `cnn-vit list sweeps`
    cnn-vit sweep --config=configs/digits_mlp.py --grid optimizer.learning_rate=1e-3,3e-3,1e-2 \\
        --grid optimizer.weight_decay=0,0.1 --seeds=3 --out=runs/grid     a grid, without a file
    cnn-vit sweep FILE.toml --dry                          how many trials, hours and bytes; writes nothing
    cnn-vit sweep FILE.toml --out=runs/mine --workers=4 --hours=8
    cnn-vit sweep FILE.toml --out=runs/mine --slurm="--partition=gpu --time=2:00:00 --gres=gpu:1"

    cnn-vit sweep status runs/mine                         how far it is and the best so far, while it runs
    cnn-vit sweep best runs/mine                           the best setting, and the command that trains it again
    cnn-vit sweep best runs/mine --test                    its accuracy on the test split, which is read once
    cnn-vit sweep retry runs/mine --state=diverged         does trials again that have failed
    cnn-vit sweep cancel runs/mine                         ends a sweep that runs; behind it IDs: these trials alone
    cnn-vit sweep report runs/mine                         report.html anew; --to=tensorboard or wandb copies the trials

A file of a sweep:

    config = "configs/digits_mlp.py"      # the recipe of every trial
    sampler = "random"                    # grid, random, sobol, halton or tpe
    trials = 30
    seeds = 1                             # runs of each point
    metric = "validation.accuracy"

    [settings]                            # over the recipe, the same in every trial
    duration = "10 epochs"

    [space]                               # what varies
    optimizer.learning_rate = {log = [1e-4, 1e-1]}
    optimizer.name = ["adamw", "sgd"]
    optimizer.momentum = {uniform = [0, 0.99], when = {"optimizer.name" = "sgd"}}

Behind --grid stands KEY=VALUE,VALUE; ints as 0..4; values that hold commas as a Python list; ranges stand
in a file. A recipe may also say itself what varies, which `cnn-vit sweep --config=RECIPE --out=DIR` runs:

    def sweep(add):                       # in the recipe, beside get_config
        add("optimizer.name", choice=["adamw", "sgd"])
        add("optimizer.learning_rate", log=(1e-4, 1e-1))
        add("optimizer.momentum", uniform=(0, 0.99), when={"optimizer.name": "sgd"})
        return {"sampler": "random", "trials": 30}

A sweep chooses by validation: no trial reads the test split. DIR/trials holds a folder for each trial, and
what is finished there is never done again. Trials that diverged or have a wrong setting are done again by
`retry` alone; those that crashed or had too little memory, by the same command. More trials may be asked
for later; any other change of what is swept needs another folder. `sweep --out=DIR` goes on with what is
in DIR. The exit code is that of the first trial that failed, as of `cnn-vit compare`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.cli import _failures, _sweep_words
from cnn_vit.errors import SurroundingsError, UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.reports.sweep_facts import LeaderRow, SweepFacts

SERVICES = ("tensorboard", "wandb")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command, those of each of its parts in a group."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="FILE | DIR",
        help="FILE.toml to run it, or one of run, status, best, retry, cancel, report, and the folder of a sweep",
    )
    parser.add_argument("--out", metavar="DIR", help="the folder of the sweep")

    what = parser.add_argument_group("what is swept, where no file says it")
    what.add_argument("--config", help="the recipe, configs/NAME.py[:word,word]")
    what.add_argument(
        "--grid", action="append", metavar="KEY=VALUES", help="a setting and its values; once for each setting"
    )
    what.add_argument("--seeds", type=int, metavar="N", help="runs of each point, with other seeds (default: 1)")
    what.add_argument("--trials", type=int, metavar="N", help="points that are tried; of a grid all that it has")
    what.add_argument("--sampler", metavar="NAME", help="grid, random, sobol, halton or tpe")
    what.add_argument("--metric", metavar="NAME", help="what is compared (default: validation.accuracy)")

    how = parser.add_argument_group("how it is run")
    how.add_argument("--dry", action="store_true", help="only say what would be run, and what it would take")
    how.add_argument("--workers", type=int, metavar="N", help="trials that are done at the same time (default: 1)")
    how.add_argument(
        "--slurm", nargs="?", const="", metavar="OPTIONS", help="let SLURM do the trials, with these options of sbatch"
    )
    how.add_argument("--hours", type=float, metavar="H", help="end after so many hours, with all saved")
    how.add_argument("--max_failures", type=int, metavar="N", help="end once so many trials have failed")
    how.add_argument("--keep", metavar="WHICH", help="checkpoints of finished trials that stay: best (default) or all")
    how.add_argument("--isolate", action="store_true", help="give each trial a process of its own")

    others = parser.add_argument_group("behind status, retry, best and report")
    others.add_argument("--once", action="store_true", help="status: print it once, also in a terminal")
    others.add_argument(
        "--state",
        metavar="STATES",
        help="retry: diverged, out_of_memory, bad_config, crashed or cancelled (default: all)",
    )
    others.add_argument("--test", action="store_true", help="best: its numbers on the test split, measured once")
    others.add_argument(
        "--again", action="store_true", help="best --test: read the test split though another was tested"
    )
    others.add_argument("--to", metavar="SERVICE", help=f"report: copy the trials there: {' or '.join(SERVICES)}")


def run(args: argparse.Namespace) -> int:
    """Does what the first word asks for, and returns the exit code."""
    action, names = _sweep_words.read_action(args.words)
    _sweep_words.refuse_other_flags(args, action)
    _sweep_words.refuse_swallowed_word(args)
    if action == _sweep_words.RUN:
        return run_trials(args, names)
    out, rest = _sweep_words.take_folder(args, action, names)
    if action == "cancel":
        return cancel(args, out, rest)
    _sweep_words.refuse_more_words(action, rest)
    if action == "status":
        from cnn_vit.cli import _sweep_status

        return _sweep_status.run(args, out)
    if action == "best":
        from cnn_vit.cli import _sweep_best

        return _sweep_best.run(args, out)
    if action == "report":
        return report(args, out)
    return retry(args, out)


# Trials ---------------------------------------------------------------------------------------------------------------


def run_trials(args: argparse.Namespace, names: list[str]) -> int:
    """Begins a sweep or goes on with it; or, with --dry, says what that would take."""
    definition, out = _sweep_words.read_definition(args, names)
    if args.dry:
        from cnn_vit.cli import _sweep_dry

        return _sweep_dry.run(args, definition, out)
    if out is None:
        raise UserError(
            f"--out is missing, the folder that the sweep is written to; add "
            f"--out={_sweep_words.suggest_out(definition)}, or --dry to see first what it would take"
        )
    return do_sweep(args, definition, out)


def do_sweep(args: argparse.Namespace, definition: Any, out: Path, *, retries: tuple[str, ...] = ()) -> int:
    """Does the trials that are left, prints the leaderboard, and returns the exit code."""
    from cnn_vit.studies import sweep

    options = sweep.SweepOptions(
        workers=args.workers,
        keep=args.keep or "best",
        is_isolated=args.isolate,
        hours=args.hours,
        slurm=args.slurm,
        retries=retries,
    )
    facts = sweep.run_sweep(definition, out, options)
    print_outcome(args, facts)
    return note_rest(args, facts)


def print_outcome(args: argparse.Namespace, facts: "SweepFacts") -> None:
    """Prints what a sweep has found once it ended."""
    from cnn_vit.cli import _sweep_tables
    from cnn_vit.reports import sweep_facts

    rows = sweep_facts.leaderboard(facts)
    answer = {
        **_sweep_tables.sweep_json(facts),
        "leaderboard": [_sweep_tables.leader_json(row) for row in rows],
        "failed": _sweep_tables.failed_json(facts),
        "report": str(facts.out / page_name()),
        "results": str(facts.out / table_name()),
    }
    # All is written by now.
    cli.print_answer(
        args, answer, outcome_text(facts, rows), next_command=suggest_command(args, facts, rows), even_if_stopped=True
    )


def note_rest(args: argparse.Namespace, facts: "SweepFacts") -> int:
    """Says on stderr what is left to do, and returns the exit code.

    It is that of the first trial that failed. A sweep that was ended from elsewhere did not do what it was asked for,
    one whose --hours are over did.
    """
    from cnn_vit.cli import _sweep_tables
    from cnn_vit.reports import sweep_facts

    folder, place = cli.shell_quote(str(facts.out)), place_words(args)
    failed = _sweep_tables.failed_trials(facts)
    left = _sweep_tables.count_left(facts)
    if left:
        word = "is" if left == 1 else "are"
        cli.print_note(f"{left:,} of {facts.planned:,} trials {word} left; `{rest_command(args, facts)}` goes on")
    decided = _sweep_tables.decided_trials(facts)
    if decided:
        word = "trial has" if len(decided) == 1 else "trials have"
        cli.print_note(
            f"{len(decided):,} {word} no numbers, and the rung of the halving is decided without them; a sweep in "
            "another folder does them again"
        )
    if failed:
        retried = len(failed) - sum(trial.state in sweep_facts.FAILED for trial in decided)
        word = "trial has" if retried == 1 else "trials have"
        if retried:
            them = "it" if retried == 1 else "them"
            cli.print_note(f"{retried:,} {word} failed; `cnn-vit sweep retry {folder}{place}` does {them} again")
        return _failures.exit_code(failed[0].state)
    return SurroundingsError.code if left and args.hours is None else 0


def outcome_text(facts: "SweepFacts", rows: list["LeaderRow"]) -> str:
    """Returns what a sweep has found as text: leaderboard, how sure the best is, failures, counts, files."""
    from cnn_vit.cli import _sweep_tables
    from cnn_vit.reports import sweep_facts

    width = cli.terminal_width()
    parts = []
    if rows:
        parts.append(_sweep_tables.leaderboard_table(facts, rows, width=width))
    verdict = sweep_facts.reach_verdict(facts, rows)
    parts.append(cli.wrap_paragraphs(verdict.certainty or verdict.answer, width))
    failures = _sweep_tables.failures_table(facts, width=width)
    if failures:
        parts.append(failures)
    spent = sweep_facts.cost(facts)
    facts_rows = [("trials", _sweep_tables.states_text(facts))]
    if spent.cpu_hours:
        took, cpu = (_sweep_tables.duration_text(3600 * hours) for hours in (spent.hours, spent.cpu_hours))
        facts_rows.append(("cost", f"{took} of trials, {cpu} of CPU"))
    facts_rows += [("note", note) for note in facts.notes]
    facts_rows += [("results", str(facts.out / table_name())), ("report", str(facts.out / page_name()))]
    parts.append(cli.format_table(facts_rows, width=width))
    return "\n\n".join(parts)


def suggest_command(args: argparse.Namespace, facts: "SweepFacts", rows: list["LeaderRow"]) -> str:
    """Returns the command that goes on from here: with the rest, the best, or what has failed."""
    from cnn_vit.cli import _sweep_tables

    folder, place = cli.shell_quote(str(facts.out)), place_words(args)
    if _sweep_tables.count_left(facts):
        return rest_command(args, facts)
    return f"cnn-vit sweep best {folder}" if rows else f"cnn-vit sweep retry {folder}{place}"


def rest_command(args: argparse.Namespace, facts: "SweepFacts") -> str:
    """Returns the command that does the trials that are left; it allows more failures where it would end at once."""
    from cnn_vit.cli import _sweep_tables
    from cnn_vit.studies import sweep

    more, most = "", facts.definition["max_failures"]
    failed = [trial for trial in _sweep_tables.failed_trials(facts) if trial.state not in sweep.RETRIED]
    if most is not None and len(failed) >= most:
        more = f" --max_failures={len(failed) + most}"
    return f"cnn-vit sweep {cli.shell_quote(str(facts.out))}{place_words(args)}{more}"


def place_words(args: argparse.Namespace) -> str:
    """Returns the words that let the cluster go on with what it has begun; "" for trials of this machine."""
    if args.slurm is None:
        return ""
    return f" --slurm={cli.shell_quote(args.slurm)}" if args.slurm else " --slurm"


def page_name() -> str:
    """Returns the name of the page in the folder of a sweep."""
    from cnn_vit.studies.sweeping import outcome

    return outcome.PAGE


def table_name() -> str:
    """Returns the name of the table in the folder of a sweep."""
    from cnn_vit.studies.sweeping import outcome

    return outcome.RESULTS


def retry(args: argparse.Namespace, out: Path) -> int:
    """Does trials again that have failed or were cancelled, and goes on with the sweep."""
    states = _sweep_words.choose_states(args.state)
    changes = {} if args.max_failures is None else {"max_failures": args.max_failures}
    definition = _sweep_words.change_begun(args, out, changes)
    return do_sweep(args, definition, out, retries=states)


# A sweep that runs, and its page --------------------------------------------------------------------------------------


def cancel(args: argparse.Namespace, out: Path, ids: list[str]) -> int:
    """Ends the sweep that runs in a folder; or, where trials are named, calls these off and leaves the sweep alone."""
    from cnn_vit.studies.sweeping import cancelling, scheduler

    folder = cli.shell_quote(str(out))
    if ids:
        rows = cancelling.cancel_trials(out, ids)
        lines = [f"cancelled {row.id}" for row in rows]
        answer: dict[str, Any] = {"out": str(out), "cancelled": [row.id for row in rows]}
        next_command = f"cnn-vit sweep status {folder}"
        cli.print_answer(args, answer, "\n".join(lines), next_command=next_command, even_if_stopped=True)
        return 0
    is_running = scheduler.request_cancel(out)
    tasks = 0 if is_running else cancel_tasks(out)  # the process that runs ends its own tasks
    text = f"no process works on {out}, so that there is nothing to end"
    if is_running or tasks:
        what = f"{tasks} tasks at SLURM were" if tasks else f"{out} was"
        text = f"{what} asked to end: the trials save what they have learned; `cnn-vit sweep {folder}` goes on"
    answer = {"out": str(out), "was_running": is_running, "tasks": tasks}
    next_command = f"cnn-vit sweep status {folder}" if is_running or tasks else suggest_after_cancel(args, out)
    cli.print_answer(args, answer, text, next_command=next_command, even_if_stopped=True)
    return 0


def suggest_after_cancel(args: argparse.Namespace, out: Path) -> str:
    """Returns the command that goes on with a sweep that nobody works on: with the rest, or with the best setting."""
    from cnn_vit.reports import sweep_facts
    from cnn_vit.studies.sweeping import outcome

    facts = outcome.read_sweep(out, with_curves=False)
    return suggest_command(args, facts, sweep_facts.leaderboard(facts))


def cancel_tasks(out: Path) -> int:
    """Ends what SLURM still does for a sweep that nobody follows; returns how many tasks that were."""
    from cnn_vit.studies.sweeping import standing

    if not standing.has_arrays(out):
        return 0
    from cnn_vit.studies.sweeping import slurm

    return slurm.cancel(out)


def report(args: argparse.Namespace, out: Path) -> int:
    """Makes page and tables anew from what the folder holds, or copies the trials to a service."""
    from cnn_vit.studies.sweeping import outcome

    if args.to is not None and args.to not in SERVICES:
        raise unknown("service", args.to, SERVICES)
    facts = outcome.read_sweep(out)
    if args.to is not None:
        from cnn_vit.reports import sweep_mirror

        destination = sweep_mirror.SERVICES[args.to](facts)
        answer = {"out": str(out), "to": destination}
        cli.print_answer(args, answer, f"{out}  {destination}", next_command=destination, even_if_stopped=True)
        return 0
    from cnn_vit.cli import _sweep_tables
    from cnn_vit.studies import sweep

    outcome.write_tables(facts)
    sweep.write_page(facts)
    answer = {
        **_sweep_tables.sweep_json(facts),
        "report": str(out / outcome.PAGE),
        "results": str(out / outcome.RESULTS),
        "timing": str(out / outcome.TIMING),
    }
    rows = [
        ("trials", _sweep_tables.states_text(facts)),
        ("report", answer["report"]),
        ("results", answer["results"]),
        ("timing", answer["timing"]),
    ]
    next_command = f"cnn-vit sweep best {cli.shell_quote(str(out))}"
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
    return 0
