"""Name the class of your own images, with probabilities.

    cnn-vit predict --workdir=runs/flowers rose.jpg
    cnn-vit predict --workdir=runs/flowers photos/ more.zip --top=3
    cnn-vit predict --workdir=runs/flowers photos/ --json | jq -r '.images[] | [.path, .classes[0].name] | @tsv'

Files, folders with all that lies under them, and zip archives. Images are turned upright, brought to the network's
size and colors and normalized as in training. An image that cannot be read is listed with its reason beside the
others; the exit code is then 2. Probabilities are those of the network's softmax: how sure it is, not how often right.
"""

import argparse
from typing import Any

from cnn_vit import cli
from cnn_vit.cli import _network
from cnn_vit.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    _network.arguments(parser)
    parser.add_argument("paths", nargs="+", metavar="PICTURE", help="file, folder or zip")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to name, best first (default: 5)")


def run(given: argparse.Namespace) -> int:
    """Predicts and prints; 2 where an image could not be read."""
    if given.top < 1:
        raise UserError(f"--top={given.top} names no class; make it at least 1")
    from cnn_vit.training import prediction, trained

    network = trained.load(given.workdir)
    found = list(prediction.top_classes(network, prediction.read_images(network, given.paths), given.top))
    again = f"cnn-vit evaluate {cli.shell_quote(f'--workdir={given.workdir}')} --data=FOLDER_OF_CLASSES"
    cli.print_answer(given, {"images": found}, cli.table(map(image_row, found)), then=again)
    broken = [entry for entry in found if "error" in entry]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        of_all = f" of {len(found)}" if len(found) > 1 else ""
        cli.print_note(cli.one_line(f"{broken[0]['path']}{more}{of_all} could not be read: {broken[0]['error']}"))
    return 2 if broken else 0


def image_row(entry: dict[str, Any]) -> tuple[str, str]:
    """An image as a line: path and its best classes."""
    if "error" in entry:
        return entry["path"], f"not read: {entry['error']}"
    return entry["path"], "   ".join(f"{one['name']} {100 * one['probability']:.1f} %" for one in entry["classes"])
