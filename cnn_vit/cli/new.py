"""Look at your images and write a first recipe fitted to them, to train at once and to change afterwards.

    cnn-vit new photos/                        writes photos.py; then: cnn-vit train --config=photos.py
    cnn-vit new photos.zip --model=vit         a small Vision Transformer instead of a small CNN
    cnn-vit new photos/ --minutes=60 --image_size=128 --out=configs/photos.py
    cnn-vit new photos/ --on_bad_image=skip    where some files cannot be read

PICTURES is a folder with one folder for each class, such as photos/cats/*.jpg and photos/dogs/*.png, or with train/ and
val/ (and test/) above these; a zip of either; or an npz of arrays. Sizes and formats may be mixed. The recipe says what
was found, and sets sides, batch, network and a duration of about ten minutes on this machine: a few steps are timed
with the very images. Images so few that ten minutes would repeat them more than 300 times get a shorter run.

A recipe is a small Python program that sets values: read it, change it, keep it beside your results.
"""

import argparse
import importlib.metadata
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from cnn_vit import cli
from cnn_vit.errors import UserError, unknown

SIDES = (8, 1024)  # pixels that --image_size may ask for


def arguments(parser: argparse.ArgumentParser) -> None:
    """Words of the command."""
    parser.add_argument("images", metavar="PICTURES", help="folder with a folder for each class, zip of one, or npz")
    parser.add_argument("--model", default="cnn", metavar="KIND", help="cnn or vit (default: cnn)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the run, about (default: 10)")
    parser.add_argument("--image_size", type=int, metavar="SIDE", help="pixels (default: 64, or less of small images)")
    parser.add_argument(
        "--on_bad_image", default="refuse", help="refuse, or skip, what cannot be read (default: refuse)"
    )
    parser.add_argument("--out", metavar="FILE", help="the recipe (default: the images' name, here)")
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there already")


def run(given: argparse.Namespace) -> None:
    """Looks, times, writes and prints what was found."""
    path = Path(given.out or f"{recipe_name(given.pictures)}.py")
    check_request(given, path)
    from cnn_vit import files
    from cnn_vit.drafting import starting

    files.ensure_writable(path.parent)
    made = starting.draft_recipe(
        given.pictures.rstrip("/") or "/",
        str(path),
        network=given.model,
        minutes=given.minutes,
        image_size=given.image_size,
        on_bad_image=given.on_bad_image,
        say=cli.print_note,
    )
    files.write(path, starting.recipe_text(made))
    notes = starting.draft_notes(made)
    told = {
        "recipe": str(path),
        "path": made.path,
        "classes": list(made.header_summary.classes),
        "counts": {split: len(one) for split, one in made.dataset.splits.items()},
        "class_counts": dict(zip(made.header_summary.classes, made.header_summary.counts.tolist(), strict=True)),
        "skipped": made.header_summary.skipped,
        "image_shape": list(made.dataset.image_shape),
        "model": made.settings["model.name"],
        "parameters": made.parameters,
        "batch_size": made.settings["data.batch_size"],
        "seconds_per_step": made.pace.step,
        "steps_timed": made.pace.steps,
        "steps": made.steps,
        "duration": made.settings["duration"],
        "seconds": made.seconds,
        "notes": notes,
    }
    then = f"cnn-vit train {cli.shell_quote(f'--config={path}')}"
    cli.print_answer(given, told, as_text(made, told), then=then)


def check_request(given: argparse.Namespace, path: Path) -> None:
    """Refuses words, and a recipe that is there, before anything is looked at."""
    from cnn_vit.drafting.choosing import NETWORKS

    if given.model not in NETWORKS:
        raise unknown("kind of network", given.model, NETWORKS)
    if given.on_bad_image not in ("refuse", "skip"):
        raise unknown("way with bad images", given.on_bad_image, ("refuse", "skip"))
    if not 0.1 <= given.minutes <= 10_000:
        raise UserError(f"--minutes={given.minutes:g} is no length of a run; it takes 0.1 to 10,000")
    low, high = SIDES
    if given.image_size is not None and not low <= given.image_size <= high:
        raise UserError(f"--image_size={given.image_size} is no side of an image; it takes {low} to {high} pixels")
    if path.suffix != ".py":
        raise UserError(f"--out={path} is no name of a recipe; end it in .py")
    if not os.path.lexists(path):
        return
    if not given.force:
        raise UserError(f"{path} is there already; name another with --out=FILE, or write over it with --force")
    if not is_recipe(path):
        raise UserError(f"{path} is there and is no recipe (it has no get_config); name another with --out=FILE")


def is_recipe(path: Path) -> bool:
    """Whether a file is one that --force may write over: somebody's own program is not."""
    try:
        return bool(re.search(r"^def get_config\b", path.read_text(), re.MULTILINE))
    except (OSError, ValueError):
        return False


def recipe_name(images: str) -> str:
    """A name for the recipe, of letters, digits and underscores, that is typed without quotes.

    None that Python could import in place of a module, its own or an installed one, and none of a program of images.
    """
    program, _, function = images.partition(".py:")
    path = Path(os.path.abspath(program))
    name = path.name if path.is_dir() else path.stem
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"\W+", "_", plain).strip("_").lower() or "images"
    return f"{plain}_recipe" if function or is_module(plain) else plain


def is_module(name: str) -> bool:
    """Whether Python or an installed package has a module of a name."""
    return name in sys.stdlib_module_names or name in importlib.metadata.packages_distributions()


def as_text(made: Any, told: dict[str, Any]) -> str:
    """What was found and chosen, for people."""
    from cnn_vit.drafting import starting

    height, width, _ = told["image_shape"]
    rows = [
        ("images", f"{sum(told['class_counts'].values()):,}, {starting.describe_sizes(made.header_summary)}"),
        ("classes", f"{len(told['classes'])}: {class_counts_text(told['class_counts'])}"),
        ("splits", ", ".join(f"{split} {count:,}" for split, count in told["counts"].items())),
        ("network", f"{told['model']}, {told['parameters']:,} parameters, sees {height}x{width} pixels"),
        (
            "a step",
            f"{told['seconds_per_step']:.3f} s for {told['batch_size']} images (mean of {told['steps_timed']}), on "
            f"{made.machine}",
        ),
        ("the run", f"{told['duration']}, {told['steps']:,} steps: {starting.describe_seconds(told['seconds'])}"),
        ("recipe", told["recipe"]),
    ]
    wide = cli.terminal_width()
    notes = [cli.wrap(f"note: {sentence}", wide) for sentence in told["notes"]]
    return "\n".join([cli.table(rows, width=wide), *([""] if notes else []), *notes])


def class_counts_text(counts: dict[str, int], most: int = 6) -> str:
    """Classes with their images, the first few."""
    some = [f"{name} {count:,}" for name, count in list(counts.items())[:most]]
    return ", ".join(some) + (f" and {len(counts) - most} more" if len(counts) > most else "")
