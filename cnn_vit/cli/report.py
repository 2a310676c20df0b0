"""Turn run folders into a page: curves, mistakes, what the network saw and learned, settings, cost.

    cnn-vit report runs/digits_resnet                     RUN/report.html, and its plots in RUN/plots
    cnn-vit report runs/digits_resnet --out=digits.html
    cnn-vit report runs/*                                 several on one page: overlaid curves, intervals over seeds
    cnn-vit report runs/digits_resnet --to=tensorboard    its journal for TensorBoard; or --to=wandb

One self-contained file, light or dark as the reader's screen is, with no script in it. It is made from the run folder
alone; a run that is still under way shows what there is so far. A file that is missing or damaged is named on the page,
and the exit code is then 3.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.reports.intervals import Interval
    from cnn_vit.reports.several import Comparison, Group
    from cnn_vit.runs.reader import RunRecord

DAMAGED = 3  # exit code where not all could be read
MOST = 6  # settings that the terminal shows; the page has all
SERVICES = ("tensorboard", "wandb")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder of a `cnn-vit train`")
    parser.add_argument("--out", metavar="FILE", help="the page (default: RUN/report.html; of several, report.html)")
    parser.add_argument("--to", metavar="SERVICE", help=f"copy the journal there instead: {' or '.join(SERVICES)}")


def run(given: argparse.Namespace) -> int:
    """Makes the page and prints where it is; 3 where not all of a run could be read."""
    if given.to:
        return copy_to_service(given)
    return report_several(given) if len(given.runs) > 1 else report_one(given)


def report_one(given: argparse.Namespace) -> int:
    """The page of one run."""
    from cnn_vit.reports import report

    record, path = report.write(given.runs[0], given.out)
    told = summary(record) | {"report": str(path)}
    rows: list[tuple[str, Any]] = [("run", f"{record.name}, {told['status']}")]
    rows += [
        (
            f"{split} accuracy",
            f"{100 * found['accuracy']:.2f} %  ({100 * found['low']:.1f} to {100 * found['high']:.1f})",
        )
        for split in ("test", "validation")
        if (found := told[split])
    ]
    rows += [("test reads", told["test_reads"]), ("page", path)]
    cli.print_answer(
        given, told, cli.table(rows), then=f"cnn-vit report {cli.shell_quote(given.runs[0])} ANOTHER_RUN ..."
    )
    return report_damage(record.problems)


def summary(record: "RunRecord") -> dict[str, Any]:
    """What a program would ask of a page."""
    from cnn_vit.reports import facts

    tallied = facts.tally_splits(record)
    found: dict[str, Any] = dict.fromkeys(("test", "validation"))
    for split, told in tallied.items():
        found[split] = {
            **interval_json(told["accuracy"], "accuracy"),
            "loss": told["loss"],
            "n": told["n"],
            "calibration_error": told["calibration_error"],
            "classes": [
                {
                    "name": row.name,
                    "n": row.n,
                    "recall": interval_json(row.recall, "share"),
                    "precision": interval_json(row.precision, "share"),
                }
                for row in told["classes"]
            ],
        }
    return found | {
        "run": str(record.workdir),
        "status": facts.status(record),
        "step": record.step,
        "test_reads": len(record.reads),
        "problems": list(record.problems),
    }


def report_several(given: argparse.Namespace) -> int:
    """The page of several runs."""
    from cnn_vit.reports import several

    path = Path(given.out or "report.html")
    groups, compared = several.write(given.runs, path)
    splits = [split for split in ("test", "validation") if any(group.values(split) for group in groups)]
    rows = [("group", "runs", "split", "accuracy")]
    rows += [
        (group.letter, str(len(group.runs)), split, accuracy_text(group, split))
        for split in splits or ["validation"]
        for group in groups
    ]
    apart = [(f"{one.other} - {one.first}", one.split, difference_text(one)) for one in compared]
    differs = several.differing_settings(groups)
    record = {
        "report": str(path),
        "groups": [group_json(group) for group in groups],
        "differs": [{"setting": key, "values": values} for key, values in differs],
        "differences": [difference_json(one) for one in compared],
    }
    problems = [problem for group in groups for run in group.runs for problem in run.problems]
    shown = [("differs", *(group.letter for group in groups)), *((key, *values) for key, values in differs[:MOST])]
    if len(differs) > MOST:
        shown.append((f"and {len(differs) - MOST} more", *[""] * len(groups)))
    tables = [cli.table(part, width=cli.terminal_width()) for part in (shown if differs else [], rows, apart) if part]
    text = "\n\n".join([*tables, f"page  {path}"])
    cli.print_answer(given, record | {"problems": problems}, text, then="cnn-vit report RUN")
    return report_damage(problems)


def accuracy_text(group: "Group", split: str) -> str:
    """A group's accuracy on a split: `98.61 % (98.2 to 99.0 over 3 seeds)`."""
    found = group.interval(split)
    if found is None:
        return "not finished"
    (middle, low, high), over = found
    return f"{100 * middle:.2f} % ({100 * (low or 0):.1f} to {100 * (high or 0):.1f} over {over})"


def difference_text(one: "Comparison") -> str:
    """A difference in words: `+0.40 points (-0.10 to +0.90), not resolved`."""
    middle, low, high = one.difference.interval
    if low is None or high is None:
        return "not resolved"
    text = f"{100 * middle:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}), {one.difference.how}"
    return text if one.difference.resolved else f"{text}, not resolved"


def group_json(group: "Group") -> dict[str, Any]:
    """A group as plain values."""
    found: dict[str, Any] = {
        "name": group.letter,
        "seeds": [run.settings["seed"] for run in group.runs],
        "runs": [str(run.workdir) for run in group.runs],
    }
    for split in ("test", "validation"):
        interval = group.interval(split)
        found[split] = None if interval is None else interval_json(interval[0], "accuracy") | {"over": interval[1]}
    return found


def difference_json(one: "Comparison") -> dict[str, Any]:
    """A difference as plain values."""
    return {
        "split": one.split,
        "groups": [one.first, one.other],
        **interval_json(one.difference.interval, "difference"),
        "how": one.difference.how or None,
        "resolved": one.difference.resolved,
    }


def interval_json(interval: "Interval", name: str) -> dict[str, float | None]:
    """An interval as plain values; null where it is not known."""
    middle, low, high = interval
    return {name: middle if middle == middle else None, "low": low, "high": high}


def copy_to_service(given: argparse.Namespace) -> int:
    """Copies the journal of each run to a service."""
    if given.to not in SERVICES:
        raise unknown("service", given.to, SERVICES)
    if given.out:
        raise UserError(f"--out belongs to a page; leave it out of --to={given.to}")
    from cnn_vit.reports import mirror
    from cnn_vit.runs import reader

    found = [(run, mirror.SERVICES[given.to](reader.read_run(run))) for run in given.runs]
    cli.print_answer(
        given, {"copied": [{"run": run, "to": to} for run, to in found]}, cli.table(found), then=found[-1][1]
    )
    return 0


def report_damage(problems: Any) -> int:
    """Says what could not be read; the exit code."""
    for problem in problems:
        cli.print_note(cli.one_line(problem))
    return DAMAGED if problems else 0
