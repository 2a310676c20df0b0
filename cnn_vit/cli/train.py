"""Run a recipe: train, evaluate, save checkpoints, test at the end, and report.

    cnn-vit train                                                handwritten digits, about a minute
    cnn-vit train --config=configs/cifar_resnet.py:56 --workdir=runs/r56
    cnn-vit train --config=configs/cifar_resnet.py:56 --config.data.name=arrays --config.data.path=cifar10.npz
    cnn-vit train --config=configs/cifar_resnet.py:56 --help     every setting, what it takes and means
    cnn-vit train --config=configs/cifar_resnet.py:56 --show     the final settings and where each comes from

The same command again resumes a run that was stopped, to the same bits, and leaves a finished one as it is. A recipe is
looked for under the current folder, then beside the package (the repository, where that is installed with `pip install
-e`); it is a Python program, so run only those you trust. Its words stand behind a colon; `smoke` makes a run tiny.
"""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import cli, settings
from cnn_vit.errors import SurroundingsError, UserError

DEFAULT = "configs/digits_resnet.py"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("--config", default=DEFAULT, help=f"recipe, configs/NAME.py[:word,word] (default: {DEFAULT})")
    parser.add_argument("--workdir", help="run folder (default: runs/RECIPE[-words])")
    parser.add_argument("--fork_from", metavar="DIR", help="start a new run folder from the checkpoint of another")
    parser.add_argument("--show", action="store_true", help="print the final settings and where each comes from")


def run(given: argparse.Namespace) -> int:
    """Trains, or shows the settings, and prints the answer; a finished run gets its page."""
    final = settings.load(given.config, given.overrides)
    if given.workdir is None:
        given.workdir = str(Path("runs", "-".join((final.recipe, *final.words))))
    if given.show:
        show_settings(given, final)
        return 0
    from cnn_vit.training import loop

    fork = None if given.fork_from is None else Path(given.fork_from)
    words = [f"--config={given.config}", *(f"--config.{override}" for override in given.overrides)]
    command = " ".join(["cnn-vit", "train", *map(cli.shell_quote, words)])
    result = loop.train(final, Path(given.workdir), fork_from=fork, command=command)
    try:
        wrong = write_report(given.workdir)
    finally:
        then = f"cnn-vit predict {cli.shell_quote(f'--workdir={given.workdir}')} PICTURE ..."
        cli.print_answer(given, result, as_table(result, Path(given.workdir)), then=then)
    for sentence in wrong:
        cli.print_note(cli.one_line(sentence))
    return SurroundingsError.code if wrong else 0


def write_report(workdir: str) -> tuple[str, ...]:
    """Makes the page of a finished run, or leaves it where nothing has changed; what stood in the way, in sentences."""
    from cnn_vit.reports import report

    try:
        record, _ = report.write(workdir)
    except UserError as error:
        return (f"the run is finished and saved, but its report is not made: {error}",)
    return record.problems


def show_settings(given: argparse.Namespace, final: settings.Settings) -> None:
    """Prints the final settings with their origins."""
    from cnn_vit.cli import _settings

    _settings.refuse_unknown(final)
    words = [f"--config={given.config}", *(f"--config.{override}" for override in given.overrides)]
    again = " ".join(map(cli.shell_quote, words))
    cli.print_answer(given, settings.to_json(final), _settings.settings_table(final), then=f"cnn-vit train {again}")


def as_table(result: dict[str, Any], workdir: Path) -> str:
    """A run's result as a short table."""
    splits = [(split, result.get(split)) for split in ("test", "validation")]
    rows = [
        (split, f"accuracy {100 * found['accuracy']:.2f} %", f"loss {found['loss']:.4f}", f"n {found['n']}")
        for split, found in splits
        if found
    ]
    facts = [
        ("steps", result["steps"]),
        ("parameters", f"{result['parameters']:,}"),
        *timing_rows(result),
        ("run folder", workdir),
        *(("report", path) for path in [workdir / "report.html"] if path.exists()),
    ]
    return f"{cli.table(rows)}\n\n{cli.table(facts)}" if rows else cli.table(facts)


def timing_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Clock times of a run, in seconds."""
    return [
        (name.replace("_", " "), f"{value:.1f}")
        for name, value in sorted(result.get("timing", {}).items(), key=lambda pair: (pair[0] != "seconds", pair[0]))
        if value is not None
    ]
