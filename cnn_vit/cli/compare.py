"""Compare ways to get a classifier on one data set: from scratch, pretrained, untouched; one page says which to use.

    cnn-vit compare --config=configs/compare_digits.py --out=runs/digits       about ten minutes on two cores
    cnn-vit compare --config=configs/compare_digits.py:data --out=runs/shares  also with 1 and 10 % of the labels
    cnn-vit compare --config=configs/compare_folder.py --config.data.path=photos/ \\
        --config.weights=net.safetensors --out=runs/photos                     your own images, any weights
    cnn-vit compare --config=configs/compare_digits.py --config.arms.mine.recipe=configs/mine.py \\
        --config.arms.vit=none --out=runs/mine                                 one more arm, and one less

An arm is a recipe, or pretrained weights and what is done with them: all of the network trained, its
last stage, a new head, k-nearest neighbors of its features, or nothing. All arms have the same data,
the same splits and the same number of steps; those that train run with several seeds. The table says
how far each is behind the best one, and whether that is resolved: zero must lie outside the interval
over seeds as well as outside that over images. A network compared with itself never wins.

Each run is a trial in OUT/trials. The same command again goes on with what is missing, and makes
OUT/report.html, results.csv and timing.csv from what is there. A trial that fails is recorded, and
the others go on; the exit code then is that of the first that failed: 2 where its settings are wrong,
3 where memory ran out, 4 where it diverged, 1 where its process crashed three times. Weights that
were trained on the data are refused.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cnn_vit import cli
from cnn_vit.cli import _failures

if TYPE_CHECKING:
    from cnn_vit.reports.arms import ArmRow
    from cnn_vit.studies.compare import Comparison

DEFAULT_RECIPE = "configs/compare_digits.py"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--config",
        default=DEFAULT_RECIPE,
        help=f"the recipe of the comparison, configs/NAME.py[:word,word] (default: {DEFAULT_RECIPE})",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder of the comparison")
    parser.add_argument("--workers", type=int, default=1, help="processes that work at the same time (default: 1)")
    parser.add_argument("--retry_failed", action="store_true", help="do the trials again that have failed")
    parser.add_argument("--isolate", action="store_true", help="give each trial a process of its own")
    parser.add_argument("--keep", default="best", help="checkpoints that stay: best (default) or all")


def run(args: argparse.Namespace) -> int:
    """Compares, and prints the table; the exit code is that of the first trial that failed, else 0."""
    from cnn_vit.studies import compare, trials

    options = compare.Options(
        workers=args.workers, retries_failed=args.retry_failed, is_isolated=args.isolate, keep=args.keep
    )
    comparison = compare.run_comparison(args.config, Path(args.out), overrides=args.overrides, options=options)
    # All is written by now.
    cli.print_answer(
        args, comparison.to_json(), as_table(comparison), next_command=comparison.next_command, even_if_stopped=True
    )
    failed = comparison.failed
    for record in failed:
        name = trials.describe(record.planned.trial)
        cli.print_note(cli.as_one_line(f"{name} ({record.planned.folder}): {record.state}: {record.reason}"))
    if failed:
        remedy = "--retry_failed does them again"
        cli.print_note(f"{len(failed)} of {len(comparison.records)} trials have failed; {remedy}")
        return _failures.exit_code(failed[0].state)
    return 0


def as_table(comparison: "Comparison") -> str:
    """Returns the comparison as text: the answer, a table for each share of the data, what one should know, files."""
    from cnn_vit.reports.arms import group_left_out

    width = cli.terminal_width()
    parts = [cli.wrap_paragraphs(f"{comparison.verdict.answer} {comparison.verdict.certainty}", width)]
    shares = dict.fromkeys(row.arm.share for row in comparison.rows)
    for share in shares:
        title = f"{100 * share:g} % of the training data\n" if len(shares) > 1 else ""
        rows: list[tuple[str, ...]] = [
            ("arm", comparison.split, "against the best", "steps", "trained", "MACs", "time", "CPU")
        ]
        rows += [table_row(row) for row in comparison.rows if row.arm.share == share]
        parts.append(f"{title}{cli.format_table(rows)}")
    notes = [("note", note) for note in comparison.notes]
    notes += [("left out", f"{names}: {reason}") for names, reason in group_left_out(comparison.left_out)]
    if notes:
        parts.append(cli.format_table(notes, width=width))
    from cnn_vit.studies import outcome

    named_files = [("report", comparison.out / outcome.PAGE), ("results", comparison.out / outcome.RESULTS)]
    parts.append(cli.format_table(named_files))
    return "\n\n".join(parts)


def table_row(row: "ArmRow") -> tuple[str, ...]:
    """Returns the row of an arm; times are of one run."""
    from cnn_vit.reports.arms import difference_text

    arm = row.arm
    failed = f", {len(arm.failures)} failed" if arm.failures else ""
    if row.accuracy is None:
        return (arm.name, f"none{failed}", "", "", "", "", "", "")
    estimate, low, high = row.accuracy.interval
    accuracy = f"{100 * estimate:.2f} %"
    if low is not None and high is not None:
        accuracy = f"{accuracy} ({100 * low:.1f} to {100 * high:.1f}, {row.accuracy.basis}{failed})"
    counts = [count_text(arm.mean(name)) for name in ("steps", "trained_parameters", "macs")]
    times = []
    for name in ("seconds", "cpu_seconds"):
        seconds = arm.mean("timing", name)
        times.append("" if seconds is None else f"{seconds:.1f} s")
    return (arm.name, accuracy, "best" if row.is_leader else difference_text(row.difference), *counts, *times)


def count_text(value: float | None) -> str:
    """Writes a count; "" of None."""
    return "" if value is None else f"{value:,.0f}"
