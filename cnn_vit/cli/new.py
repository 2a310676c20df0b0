"""Look at your images and write a first recipe fitted to them, to train at once and to change afterwards.

    cnn-vit new photos/                        writes photos.py; then: cnn-vit train --config=photos.py
    cnn-vit new photos.zip --model=vit         a small Vision Transformer instead of a small CNN
    cnn-vit new photos/ --minutes=60 --image_size=128 --out=configs/photos.py
    cnn-vit new photos/ --on_bad_image=skip    where some files cannot be read
    cnn-vit new photos/ --transfer --weights=net.safetensors       starts from a pretrained network
    cnn-vit new signs/ --transfer              from weights that come with the package, where they suit

IMAGES is a folder with one folder for each class, such as photos/cats/*.jpg and photos/dogs/*.png, or with train/ and
val/ (and test/) above these; a zip of either; or an npz of arrays. Sizes and formats may be mixed. The recipe says what
was found, and sets image size, batch, network and a duration of about ten minutes on this machine: a few steps are
timed with the very images. Images so few that ten minutes would repeat them more than 300 times get a shorter run.

A recipe is a small Python program that sets values: read it, change it, keep it beside your results.
"""

import argparse
import importlib.metadata
import os
import re
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.drafting.starting import Draft

SMALLEST_SIDE, LARGEST_SIDE = 8, 1024  # pixels that --image_size may ask for
SHORTEST, LONGEST = 0.1, 10_000  # minutes that --minutes may ask for
NAMED = 6  # classes that the answer names, at most
MOST_PROBED = 5_000  # images whose features are computed to say what to expect of pretrained weights
DEFAULT_MODEL = "cnn"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument("images", metavar="IMAGES", help="folder with a folder for each class, zip of one, or npz")
    parser.add_argument("--model", metavar="KIND", help="cnn or vit (default: cnn); not with --transfer")
    parser.add_argument(
        "--transfer",
        action="store_true",
        help="start from pretrained weights: best with few images, and with photos like those of the weights",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="of --transfer: a file of weights, a run folder, or a name of `cnn-vit list weights`",
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of the run, about (default: 10)")
    parser.add_argument("--image_size", type=int, metavar="SIDE", help="pixels (default: 64, or less of small images)")
    parser.add_argument(
        "--on_bad_image", default="refuse", help="refuse, or skip, what cannot be read (default: refuse)"
    )
    parser.add_argument(
        "--layout",
        metavar="KIND",
        help="what the folders are: classes, or splits with class folders in them (default: their names tell)",
    )
    parser.add_argument("--out", metavar="FILE", help="the recipe (default: the images' name, here)")
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there already")


def run(args: argparse.Namespace) -> None:
    """Looks at the images, times a few steps, writes the recipe and prints what was found."""
    path = Path(args.out or f"{recipe_name(args.images)}.py")
    check_request(args, path)
    from cnn_vit import files
    from cnn_vit.drafting import choosing, starting

    files.ensure_writable(path.parent)  # before the images are looked at, which may take long
    draft = starting.draft_recipe(
        args.images.rstrip("/") or "/",
        str(path),
        network=choosing.TRANSFER if args.transfer else args.model or DEFAULT_MODEL,
        weights=args.weights,
        minutes=args.minutes,
        image_size=args.image_size,
        on_bad_image=args.on_bad_image,
        layout=args.layout,
        on_progress=say_unless_stopped,
    )
    stops.raise_if_requested()
    if args.transfer:
        draft = replace(draft, expectation=expect_of_features(draft, draft.settings["pretrained.weights"]))
    files.write(path, starting.recipe_text(draft))
    answer = as_json(draft, starting.draft_notes(draft))
    next_command = f"cnn-vit train {cli.shell_quote(f'--config={path}')}"
    cli.print_answer(args, answer, as_text(draft, answer), next_command=next_command, even_if_stopped=True)


def expect_of_features(draft: "Draft", weights: str) -> str:
    """Fits a linear probe on the features of the weights, and says in a sentence how good it is on validation.

    The test split is not read. Returns "" where the images are so many that it would take long, or of another size than
    the network of the weights takes.
    """
    from cnn_vit.studies import probe
    from cnn_vit.training import trained

    network = trained.load(weights)
    splits = {name: draft.dataset.splits[name] for name in ("train", "validation")}
    image_count = sum(map(len, splits.values()))
    if image_count > MOST_PROBED or draft.dataset.image_shape != tuple(network.spec.image_shape):
        return ""
    say_unless_stopped(f"fitting a linear probe on the features of {image_count:,} images")
    result = probe.probe(network, replace(draft.dataset, splits=splits), methods=["linear"])
    if result.linear is None:
        return ""
    interval, n = result.linear.validation.interval, result.linear.validation.n
    low, high = (100 * bound for bound in (interval.low or 0, interval.high or 0))
    return (
        f"a linear probe of its features classifies {100 * interval.estimate:.1f} % ({low:.1f} to {high:.1f}) of {n:,} "
        "validation images, its regularization chosen by them; a new head should come near that"
    )


def say_unless_stopped(sentence: str) -> None:
    """Says what is done next; raises `StoppedError` where a signal asked to stop."""
    stops.raise_if_requested()
    cli.print_note(sentence)


def check_request(args: argparse.Namespace, path: Path) -> None:
    """Checks the words and the place of the recipe before anything is looked at.

    Raises:
        UserError: a word has a value that it does not take, or a file that is there would be written over.
    """
    from cnn_vit.drafting.choosing import NETWORKS

    if args.transfer and args.model is not None:
        raise UserError(f"--model={args.model} belongs to a network from scratch; leave it out, the weights say theirs")
    if args.model not in (None, *NETWORKS):
        raise unknown("kind of network", args.model, NETWORKS)
    if args.weights and not args.transfer:
        raise UserError(f"--weights={args.weights} belongs to --transfer; add it")
    if args.on_bad_image not in ("refuse", "skip"):
        raise unknown("way with bad images", args.on_bad_image, ("refuse", "skip"))
    if args.layout not in (None, "classes", "splits"):
        raise unknown("layout", args.layout, ("classes", "splits"))
    if not SHORTEST <= args.minutes <= LONGEST:  # nan is in no range
        raise UserError(
            f"--minutes={args.minutes:g} is not a length of a run; it takes {SHORTEST:g} to {LONGEST:,} minutes"
        )
    if args.image_size is not None and not SMALLEST_SIDE <= args.image_size <= LARGEST_SIDE:
        raise UserError(
            f"--image_size={args.image_size} is not a side of an image; it takes {SMALLEST_SIDE} to {LARGEST_SIDE} "
            "pixels"
        )
    if path.suffix != ".py":
        raise UserError(f"--out={path} is not a name of a recipe; end it in .py")
    if not os.path.lexists(path):  # a link to nothing is there as well
        return
    if not args.force:
        raise UserError(f"{path} is there already; name another with --out=FILE, or write over it with --force")
    if not is_recipe(path):
        raise UserError(f"{path} is there and is not a recipe (it has no get_config); name another with --out=FILE")


def is_recipe(path: Path) -> bool:
    """Whether a file is one that --force may write over: a user's own program is not."""
    try:
        return bool(re.search(r"^def get_config\b", path.read_text(), re.MULTILINE))
    except (OSError, ValueError):
        return False


def recipe_name(images: str) -> str:
    """Returns a name for the recipe, of letters, digits and underscores, that is typed without quotes.

    It is not a name that Python could import in place of a module, its own or an installed one, nor that of a program
    that gives images.
    """
    program, _, function = images.partition(".py:")
    path = Path(os.path.abspath(program))
    name = path.name if path.is_dir() else path.stem
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", plain).strip("_").lower() or "images"
    return f"{plain}_recipe" if function or is_module(plain) else plain


def is_module(name: str) -> bool:
    """Whether Python or an installed package has a module of this name."""
    return name in sys.stdlib_module_names or name in importlib.metadata.packages_distributions()


def as_json(draft: "Draft", notes: list[str]) -> dict[str, Any]:
    """Returns what was found and chosen, as --json prints it."""
    summary = draft.header_summary
    return {
        "recipe": draft.recipe,
        "path": draft.path,
        "classes": list(summary.classes),
        "counts": {name: len(split) for name, split in draft.dataset.splits.items()},
        "class_counts": dict(zip(summary.classes, summary.counts.tolist(), strict=True)),
        "skipped": summary.skipped,
        "image_shape": list(draft.dataset.image_shape),
        "model": draft.settings["model.name"],
        "parameters": draft.parameters,
        "batch_size": draft.settings["data.batch_size"],
        "seconds_per_step": draft.pace.step,
        "steps_timed": draft.pace.steps,
        "steps": draft.steps,
        "duration": draft.settings["duration"],
        "seconds": draft.seconds,
        "expectation": draft.expectation or None,
        "notes": notes,
    }


def as_text(draft: "Draft", answer: dict[str, Any]) -> str:
    """Returns the answer for people: a table, and a paragraph for each note."""
    from cnn_vit.drafting import starting

    height, width, _ = answer["image_shape"]
    image_count = sum(answer["class_counts"].values())
    rows = [
        ("images", f"{image_count:,}, {starting.describe_sizes(draft.header_summary)}"),
        ("classes", f"{len(answer['classes'])}: {class_counts_text(answer['class_counts'])}"),
        ("splits", ", ".join(f"{split} {count:,}" for split, count in answer["counts"].items())),
        ("network", f"{answer['model']}, {answer['parameters']:,} parameters, sees {height}x{width} pixels"),
        (
            "a step",
            f"{answer['seconds_per_step']:.3f} s for {answer['batch_size']} images (mean of {answer['steps_timed']}), "
            f"on {draft.machine}",
        ),
        ("the run", f"{answer['duration']}, {answer['steps']:,} steps: {starting.describe_seconds(answer['seconds'])}"),
        *([("expect", answer["expectation"])] if answer["expectation"] else []),
        ("recipe", answer["recipe"]),
    ]
    width_of_line = cli.terminal_width()
    lines = [cli.format_table(rows, width=width_of_line)]
    if answer["notes"]:
        lines.append("")
    for sentence in answer["notes"]:
        lines.append(cli.wrap_paragraphs(f"note: {sentence}", width_of_line))
    return "\n".join(lines)


def class_counts_text(counts: dict[str, int]) -> str:
    """Returns the first NAMED classes with their images, and how many more there are."""
    text = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:NAMED])
    return f"{text} and {len(counts) - NAMED} more" if len(counts) > NAMED else text
