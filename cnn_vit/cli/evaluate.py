"""Measure a trained network on a split, exactly: every example counts once, whatever the batch size.

    cnn-vit evaluate --workdir=runs/digits_resnet                       the run's own test split
    cnn-vit evaluate --workdir=runs/digits_resnet --split=validation
    cnn-vit evaluate --workdir=runs/flowers --data=more_flowers/        other images of the same classes

The network is the one that its run tested. Each look at a test split adds a line to RUN/test_reads.jsonl, so that
choosing by it leaves a trace. Near ties are examples whose first two scores rounding may exchange.
"""

import argparse
from typing import Any

from cnn_vit import cli
from cnn_vit.cli import _network


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    _network.arguments(parser)
    _network.data_arguments(parser)
    parser.add_argument("--split", default="test", help="train, validation or test (default: test)")


def run(given: argparse.Namespace) -> None:
    """Evaluates and prints."""
    from cnn_vit.training import evaluation, trained

    network = trained.load(given.workdir)
    section = _network.data_section(given, network)
    found = evaluation.evaluate(network, section, given.split, batch_size=given.batch_size)
    del found["rows"]
    cli.print_answer(
        given,
        found,
        as_table(found),
        then=f"cnn-vit predict {cli.shell_quote(f'--workdir={given.workdir}')} PICTURE ...",
    )


def as_table(found: dict[str, Any]) -> str:
    """The result as a short table."""
    rows = [("accuracy", f"{100 * found['accuracy']:.2f} %")]
    if found["top5"] is not None:
        rows.append(("top 5", f"{100 * found['top5']:.2f} %"))
    rows += [("loss", f"{found['loss']:.4f}"), ("examples", f"{found['n']:,}")]
    if found["near_ties"]:
        rows.append(("near ties", ", ".join(map(str, found["near_ties"][:10]))))
    if found["layout"]:
        rows.append(("layout", found["layout"]))
    return f"{found['split']}\n{cli.table(rows, indent='  ')}"
