"""Turn run folders into a page: curves, mistakes, what the network saw and learned, settings, cost.

    cnn-vit report runs/digits_resnet                     RUN/report.html, and its plots in RUN/plots
    cnn-vit report runs/digits_resnet --out=digits.html
    cnn-vit report runs/*                                 several on one page: overlaid curves, intervals over seeds
    cnn-vit report runs/digits_resnet --to=tensorboard    copies the metrics to TensorBoard; or --to=wandb
    cnn-vit report --weights=net.safetensors              a file of weights: where they come from, filters, layers

The page is one self-contained file without scripts, light or dark as the reader's screen is. It is made from the run
folder alone; a run that is still under way shows what there is so far. A run whose settings, classes, data, metrics or
result are not as it left them is refused, and left out where there are others. Any other file that is missing or
damaged is named on the page. The exit code is 3 in both cases.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.cli import _model, _network
from cnn_vit.errors import SurroundingsError, UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.reports.intervals import Interval
    from cnn_vit.reports.several import Comparison, Group
    from cnn_vit.reports.tallies import SplitTally
    from cnn_vit.runs.reader import RunRecord

MAX_DIFFERING = 6  # settings that the terminal shows; the page has all
SERVICES = ("tensorboard", "wandb")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder of a `cnn-vit train`")
    parser.add_argument(
        "--weights", metavar="FILE", help="a file of weights, or a name of `cnn-vit list weights`, instead of runs"
    )
    _model.add_model_arguments(parser)
    parser.add_argument("--out", metavar="FILE", help="the page (default: RUN/report.html; of several, report.html)")
    parser.add_argument("--to", metavar="SERVICE", help=f"copy the metrics there instead: {' or '.join(SERVICES)}")


def run(args: argparse.Namespace) -> int:
    """Makes the page and prints its path; returns 3 where a file of a run could not be read, else 0."""
    keywords = _model.read_model_keywords(args)
    if args.weights:
        if args.runs or args.to:
            raise UserError("--weights names a file that has no run; leave RUN and --to out")
        _network.refuse_run_folder(args.weights, f"has a page of its own: cnn-vit report {args.weights}")
        return report_weights(args, keywords)
    if args.model or keywords:
        raise UserError("--model belongs to --weights=FILE; a run folder says its own model")
    if not args.runs:
        raise UserError("no run is named; give the folder of one, runs/NAME, or --weights=FILE")
    if args.to:
        return copy_to_service(args)
    if len(args.runs) > 1:
        return report_several(args)
    return report_one(args)


# A file of weights ----------------------------------------------------------------------------------------------------


def report_weights(args: argparse.Namespace, keywords: dict[str, Any]) -> int:
    """Makes the page of a file of weights, beside the file where nothing else is said."""
    from cnn_vit.reports import weights as weights_page
    from cnn_vit.transfer import catalog, convert

    weights = convert.open_weights(args.weights, model=args.model, keywords=keywords)
    out = Path(args.out) if args.out else Path(args.weights).with_suffix(".html")
    if not args.out and catalog.is_name(args.weights):
        out = Path(f"{args.weights.replace('/', '-')}.html")  # the slash of a name is no folder: cifar_resnet/8@mnist
    answer = weights_page.write(args.weights, weights, out)
    rows = [
        ("weights", f"{answer['model']}, {answer['parameters']:,} parameters, {answer['classes']:,} classes"),
        ("page", out),
    ]
    next_command = f"cnn-vit predict {_network.network_words(args)} IMAGE ..."
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
    return 0


# One run --------------------------------------------------------------------------------------------------------------


def report_one(args: argparse.Namespace) -> int:
    """Makes the page of one run."""
    from cnn_vit.reports import report

    record, path = report.write(args.runs[0], args.out)
    answer = summary(record) | {"report": str(path)}
    rows: list[tuple[str, Any]] = [("run", f"{record.name}, {answer['status']}")]
    for split in ("test", "validation"):
        evaluation = answer[split]
        if evaluation:
            accuracy, low, high = (100 * evaluation[name] for name in ("accuracy", "low", "high"))
            rows.append((f"{split} accuracy", f"{accuracy:.2f} %  ({low:.1f} to {high:.1f})"))
    if record.has_unread_test:
        rows.append(("test accuracy", "not read by the run"))
    rows += [("test reads", answer["test_reads"]), ("page", path)]
    next_command = f"cnn-vit report {cli.shell_quote(args.runs[0])} ANOTHER_RUN ..."
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
    return report_problems(record.problems)


def summary(record: "RunRecord") -> dict[str, Any]:
    """Returns the numbers of a page as a JSON object; a split that was not evaluated is null."""
    from cnn_vit.reports import facts

    evaluations: dict[str, Any] = dict.fromkeys(("test", "validation"))
    for split, tally in facts.tally_splits(record).items():
        evaluations[split] = tally_json(tally)
    return evaluations | {
        "run": str(record.workdir),
        "status": facts.status_text(record),
        "step": record.step,
        "test_reads": len(record.reads),
        "problems": list(record.problems),
    }


def tally_json(tally: "SplitTally") -> dict[str, Any]:
    """Returns the numbers of a split and of its classes as a JSON object."""
    classes = []
    for row in tally.classes:
        recall, precision = interval_json(row.recall, "share"), interval_json(row.precision, "share")
        classes.append({"name": row.name, "n": row.n, "recall": recall, "precision": precision})
    return {
        **interval_json(tally.accuracy, "accuracy"),
        "loss": tally.loss,
        "n": tally.n,
        "calibration_error": tally.calibration_error,
        "classes": classes,
    }


# Several runs ---------------------------------------------------------------------------------------------------------


def report_several(args: argparse.Namespace) -> int:
    """Makes the page of several runs."""
    from cnn_vit.reports import several
    from cnn_vit.runs import folder

    path = Path(args.out or folder.REPORT)
    groups, comparisons, damages = several.write(args.runs, path)
    differing = several.differing_settings(groups)
    problems = list(damages)
    for group in groups:
        for run in group.runs:
            problems += run.problems
    answer = {
        "report": str(path),
        "groups": [group_json(group) for group in groups],
        "differs": [{"setting": name, "values": values} for name, values in differing],
        "differences": [comparison_json(comparison) for comparison in comparisons],
        "problems": problems,
    }
    splits = several.evaluated_splits(groups) or ["validation"]
    tables = [differing_rows(groups, differing), accuracy_rows(groups, splits), comparison_rows(comparisons)]
    texts = [cli.format_table(rows, width=cli.terminal_width()) for rows in tables if rows]
    text = "\n\n".join([*texts, f"page  {path}"])
    cli.print_answer(args, answer, text, next_command="cnn-vit report RUN", even_if_stopped=True)
    return report_problems(problems)


def differing_rows(groups: Sequence["Group"], differing: list[tuple[str, list[str]]]) -> list[tuple[str, ...]]:
    """Returns a table of what differs, a column for each group; no rows where nothing differs."""
    if not differing:
        return []
    rows = [("differs", *(group.name for group in groups))]
    rows += [(name, *values) for name, values in differing[:MAX_DIFFERING]]
    hidden = len(differing) - MAX_DIFFERING
    if hidden > 0:
        rows.append((f"and {hidden} more", *[""] * len(groups)))
    return rows


def accuracy_rows(groups: Sequence["Group"], splits: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns a table of the accuracies of all groups, split by split."""
    rows: list[tuple[str, ...]] = [("group", "runs", "split", "accuracy")]
    for split in splits:
        for group in groups:
            rows.append((group.name, str(len(group.runs)), split, accuracy_text(group, split)))
    return rows


def accuracy_text(group: "Group", split: str) -> str:
    """Writes a group's accuracy on a split: `98.61 % (98.2 to 99.0 over 3 seeds)`."""
    from cnn_vit.reports import several

    accuracy = group.mean_accuracy(split)
    if accuracy is None:
        return several.explain_missing(group, split)
    estimate, low, high = accuracy.interval
    return f"{100 * estimate:.2f} % ({100 * (low or 0):.1f} to {100 * (high or 0):.1f} over {accuracy.basis})"


def comparison_rows(comparisons: Sequence["Comparison"]) -> list[tuple[str, ...]]:
    """Returns a table of the differences from the first group."""
    rows: list[tuple[str, ...]] = []
    for comparison in comparisons:
        names = f"{comparison.group_name} - {comparison.baseline_name}"
        rows.append((names, comparison.split, difference_text(comparison)))
    return rows


def difference_text(comparison: "Comparison") -> str:
    """Writes a difference: `+0.40 points (-0.10 to +0.90), paired over seeds, not resolved`."""
    difference = comparison.difference
    estimate, low, high = difference.interval
    if low is None or high is None:
        return "not resolved"
    text = f"{100 * estimate:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f}), {difference.method}"
    return text if difference.is_resolved else f"{text}, not resolved"


def group_json(group: "Group") -> dict[str, Any]:
    """Returns a group as a JSON object."""
    record: dict[str, Any] = {
        "name": group.name,
        "seeds": [run.settings["seed"] for run in group.runs],
        "runs": [str(run.workdir) for run in group.runs],
    }
    for split in ("test", "validation"):
        record[split] = None
        accuracy = group.mean_accuracy(split)
        if accuracy is not None:
            record[split] = interval_json(accuracy.interval, "accuracy") | {"over": accuracy.basis}
    return record


def comparison_json(comparison: "Comparison") -> dict[str, Any]:
    """Returns a comparison as a JSON object."""
    return {
        "split": comparison.split,
        "groups": [comparison.baseline_name, comparison.group_name],
        **interval_json(comparison.difference.interval, "difference"),
        "how": comparison.difference.method or None,
        "resolved": comparison.difference.is_resolved,
    }


def interval_json(interval: "Interval", name: str) -> dict[str, float | None]:
    """Returns an interval as a JSON object in which the estimate has this name; null stands for what is not known."""
    estimate, low, high = interval
    return {name: None if math.isnan(estimate) else estimate, "low": low, "high": high}


# Other services, and problems -----------------------------------------------------------------------------------------


def copy_to_service(args: argparse.Namespace) -> int:
    """Copies the metrics of each run to a service; returns 3 where a run is damaged and left out, else 0."""
    if args.to not in SERVICES:
        raise unknown("service", args.to, SERVICES)
    if args.out:
        raise UserError(f"--out belongs to a page; leave it out of --to={args.to}")
    from cnn_vit.reports import mirror
    from cnn_vit.runs import reader
    from cnn_vit.runs.seals import RunDamageError

    copy_run = mirror.SERVICES[args.to]
    copies, damages = [], []
    for run in args.runs:
        stops.raise_if_requested()
        try:
            record = reader.read_run(run)
        except RunDamageError as error:
            damages.append(str(error))
        else:
            copies.append((run, copy_run(record)))
    if not copies:
        raise RunDamageError(f"no run is left to copy: {damages[0]}", details=damages)
    answer = {"copied": [{"run": run, "to": destination} for run, destination in copies]}
    last_destination = copies[-1][1]
    cli.print_answer(args, answer, cli.format_table(copies), next_command=last_destination, even_if_stopped=True)
    return report_problems(damages)


def report_problems(problems: Sequence[str]) -> int:
    """Prints to stderr what could not be read, and returns the exit code."""
    for problem in problems:
        cli.print_note(cli.as_one_line(problem))
    return SurroundingsError.code if problems else 0
