"""What the features of a trained network tell about any classes: linear, k-nearest and few-shot probes.

    cnn-vit probe --workdir=runs/flowers --data=birds/       birds, of which the network never heard
    cnn-vit probe --workdir=runs/flowers                     the run's own data
    cnn-vit probe --weights=net.safetensors --data=birds/    a network from elsewhere
    cnn-vit probe --workdir=runs/flowers --data=birds/ --layer=stages/1 --methods=linear

The network stays as it is. Its features, what its head sees or the output of the layer that --layer
names (averaged over pixels or tokens to one vector), are computed once for each image and kept in the
cache. The classes are those of the data; images are brought to the size that the network takes.

linear     one linear layer is fitted on the features of train (logistic regression by L-BFGS): how much
           of the classes is there already for a new head to read off. A low accuracy means that the
           layers below would have to be trained too.
knn        an image gets the class that most of the k training images have whose features point in the
           most similar direction (cosine). Nothing is fitted, so that it shows how images lie; where
           linear is much better, the classes are there, but not what the features are mostly about.
few_shot   the linear layer is fitted on 1, 5, 10 and 25 images a class, drawn --draws times from train,
           at a fixed regularization. Behind the number of draws stand the lowest and the highest
           accuracy: by so much it matters which images one happens to label. Brackets hold the 95 %
           interval of the mean over all such draws; the tested images are the same in each.

The regularization and k are chosen on validation, and the choice is printed; the test split is then
read once for each method, which adds a line to RUN/test_reads.jsonl. Brackets behind other accuracies
hold Wilson's 95 % interval over images. Where there is no test split, validation is both chosen by and
shown, which is too high, and the answer says so.
"""

import argparse
from typing import TYPE_CHECKING

from cnn_vit import cli
from cnn_vit.cli import _network

if TYPE_CHECKING:
    from cnn_vit.reports.intervals import Interval
    from cnn_vit.studies.probe import Accuracy, ChosenProbe, ProbeResult

CHOICES = {"linear": "regularization {:g}", "knn": "k = {:g}"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    _network.add_network_arguments(parser)
    _network.add_data_arguments(parser)
    parser.add_argument(
        "--methods", default="linear,knn,few_shot", help="which probes (default: linear,knn,few_shot, all of them)"
    )
    parser.add_argument(
        "--layer", metavar="PATH", default="features", help="layer to probe (default: features, what the head sees)"
    )
    parser.add_argument("--draws", type=int, default=10, help="how often few-shot draws its images (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of these draws (default: 0)")


def run(args: argparse.Namespace) -> None:
    """Probes the network and prints the accuracies."""
    from cnn_vit.studies import probe

    network = _network.load_network(args)
    source = _network.choose_data(args, network)
    result = probe.probe(
        network,
        source,
        layout=args.layout,
        methods=[method.strip().replace("-", "_") for method in args.methods.split(",")],
        layer=args.layer,
        seed=args.seed,
        draws=args.draws,
        batch_size=args.batch_size,
    )
    next_command = f"cnn-vit features {_network.network_words(args)} --out=features.npz"
    if args.data:
        next_command = f"{next_command} {cli.shell_quote(f'--data={args.data}')}"
    # The reading of a test split is written down by now.
    cli.print_answer(args, result.to_json(), as_table(result), next_command=next_command, even_if_stopped=True)


def as_table(result: "ProbeResult") -> str:
    """Returns the result of the probes as two tables: what was probed, and the accuracies."""
    counts = ", ".join(f"{count:,} {split}" for split, count in result.counts.items())
    facts = [
        ("network", result.model),
        ("layer", f"{result.layer}, {result.dimensions:,} numbers an image"),
        ("images", f"{counts}, of {len(result.classes):,} classes"),
    ]
    rows = [("probe", "", "validation", "test")]
    for probed in (result.linear, result.knn):
        if probed is not None:
            rows.append(chosen_row(probed))
    for few_shot in result.few_shot:
        lowest, highest = (100 * accuracy for accuracy in (min(few_shot.accuracies), max(few_shot.accuracies)))
        draws = f"{len(few_shot.accuracies)} draws, {lowest:.1f} to {highest:.1f} %"
        percent = as_percent(few_shot.interval)
        rows.append(place(f"few_shot, {few_shot.shots} a class", draws, few_shot.split, percent))
    majority = as_percent(result.majority.interval)
    rows.append(place("always the most frequent class", "", result.majority.split, majority))
    notes = [("note", note) for note in result.notes]
    text = f"{cli.format_table(facts)}\n\n{cli.format_table(rows)}"
    return f"{text}\n\n{cli.format_table(notes)}" if notes else text


def chosen_row(probed: "ChosenProbe") -> tuple[str, str, str, str]:
    """Returns the row of a probe of which a number was chosen on validation."""
    choice = CHOICES[probed.method].format(probed.chosen)
    return probed.method, choice, as_percent(probed.validation.interval), accuracy_cell(probed.test)


def accuracy_cell(accuracy: "Accuracy | None") -> str:
    """Returns the accuracy on a split as text; nothing where there is no such split."""
    return "" if accuracy is None else as_percent(accuracy.interval)


def place(name: str, choice: str, split: str, text: str) -> tuple[str, str, str, str]:
    """Returns a row whose only accuracy is that of a split, in the column of that split."""
    if split == "test":
        return name, choice, "", text
    return name, choice, text, ""


def as_percent(interval: "Interval") -> str:
    """Returns a share with its interval in percent: "93.15 % (84.9 to 97.0)"."""
    text = f"{100 * interval.estimate:.2f} %"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
