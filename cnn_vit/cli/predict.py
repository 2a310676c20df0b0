"""Name the classes of your own images, with probabilities.

    cnn-vit predict --workdir=runs/flowers rose.jpg
    cnn-vit predict --workdir=runs/flowers photos/ more.zip --top=3
    cnn-vit predict --workdir=runs/flowers photos/ --json |
        jq -r '.images[] | [.path, .classes[0].name] | @tsv'

An IMAGE is a file, a folder with all images under it, or a zip archive. Images are turned upright,
brought to the size and colors that the network takes, and normalized as in training. An image that
cannot be read is listed with its reason beside the others, and the exit code is then 2.
Probabilities are those of the loss that the network was trained with, a softmax or a sigmoid for each
class: they say how sure it is, not how often it is right.
"""

import argparse
from typing import Any

from cnn_vit import cli
from cnn_vit.cli import _network
from cnn_vit.errors import UserError

UNREADABLE = 2  # exit code where an image cannot be read


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    _network.add_network_arguments(parser)
    parser.add_argument("paths", nargs="+", metavar="IMAGE", help="a file, a folder or a zip archive")
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="name the K most probable classes, best first (default: 5)"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts the classes of the images and prints them.

    Returns:
        The exit code: 2 where an image cannot be read, else 0.

    Raises:
        UserError: --top asks for no class.
    """
    if args.top < 1:
        raise UserError(f"--top={args.top} names no class; make it at least 1")
    from cnn_vit.training import prediction

    network = _network.load_network(args)
    images = prediction.read_images(network, args.paths)
    entries = list(prediction.top_classes(network, images, args.top))
    next_command = f"cnn-vit evaluate {_network.network_words(args)} --data=FOLDER_OF_CLASSES"
    cli.print_answer(args, {"images": entries}, cli.format_table(map(image_row, entries)), next_command=next_command)
    broken = [entry for entry in entries if "error" in entry]
    if not broken:
        return 0
    cli.print_note(cli.as_one_line(unreadable_sentence(broken, len(entries))))
    return UNREADABLE


def unreadable_sentence(broken: list[dict[str, Any]], count: int) -> str:
    """Returns the sentence about the images that cannot be read, which names the first of them.

    Args:
        broken: their entries, at least one.
        count: the number of all images.
    """
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    of_all = f" of {count}" if count > 1 else ""
    return f"{broken[0]['path']}{more}{of_all} could not be read: {broken[0]['error']}"


def image_row(entry: dict[str, Any]) -> tuple[str, str]:
    """Returns the row of an image: its path, and its most probable classes or why it cannot be read."""
    if "error" in entry:
        return entry["path"], f"not read: {entry['error']}"
    classes = [f"{score['name']} {100 * score['probability']:.1f} %" for score in entry["classes"]]
    return entry["path"], "   ".join(classes)
