"""Measure a trained network on a split, exactly: each example counts once.

    cnn-vit evaluate --workdir=runs/digits_resnet                   the run's own test split
    cnn-vit evaluate --workdir=runs/digits_resnet --split=validation
    cnn-vit evaluate --workdir=runs/flowers --data=more_flowers/    other images of these classes

The command reads the parameters that the run itself tested, and the batch size changes no number.
Other data may have some of the network's classes, which are matched by name. A folder without split
folders is evaluated whole, or in the run's own splits where it is what the run was trained on.
Images whose content was trained on are counted, as far as the run's data can still be read.
Each reading of a test split adds a line to RUN/test_reads.jsonl, so that choosing a network by its
test accuracy leaves a trace. Near ties are examples whose two highest scores are so close that
rounding may exchange them.
"""

import argparse
from typing import Any

from cnn_vit import cli
from cnn_vit.cli import _network

MAX_NEAR_TIES = 10  # indices of near ties in the table; --json has all


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    _network.add_network_arguments(parser)
    _network.add_data_arguments(parser)
    parser.add_argument(
        "--split", help="train, validation or test (default: test, or all images of a folder without split folders)"
    )


def run(args: argparse.Namespace) -> None:
    """Evaluates the network and prints its metrics."""
    from cnn_vit.training import evaluation

    network = _network.load_network(args)
    source = _network.choose_data(args, network)
    metrics = evaluation.evaluate(network, source, args.split, layout=args.layout, batch_size=args.batch_size)
    del metrics["rows"]  # arrays with a row for each example, which are too long to print
    next_command = f"cnn-vit predict {_network.network_words(args)} IMAGE ..."
    # The reading of a test split is written down by now.
    cli.print_answer(args, metrics, as_table(metrics), next_command=next_command, even_if_stopped=True)


def as_table(metrics: dict[str, Any]) -> str:
    """Returns the metrics of a split as a short table."""
    rows = [("accuracy", f"{100 * metrics['accuracy']:.2f} %")]
    if metrics["top5"] is not None:
        rows.append(("top 5", f"{100 * metrics['top5']:.2f} %"))
    rows.append(("loss", f"{metrics['loss']:.4f}"))
    rows.append(("examples", f"{metrics['n']:,}"))
    if metrics["near_ties"]:
        rows.append(("near ties", ", ".join(map(str, metrics["near_ties"][:MAX_NEAR_TIES]))))
    if metrics["layout"]:
        rows.append(("layout", metrics["layout"]))
    rows += [("note", note) for note in metrics["notes"]]
    return f"{metrics['split']}\n{cli.format_table(rows, indent='  ')}"
