"""Runs `doctor --data`: surveys a data set and prints a table or a record, with a gallery of images where asked for."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit import cli, files, settings, stops
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.data.audit.survey import Survey

EXIT_WITH_ERRORS = 2  # exit code where the data have errors
MOST_CLASSES = 20  # classes that the table shows; of more, the largest and the smallest
MOST_BROKEN = 10  # files that cannot be read, in the table
LONGEST_NAME = 40  # characters of a class name in the table
LONGEST_TITLE = 60  # characters of the path in the gallery's title
GALLERY_COLUMNS = 10  # images in a row of the gallery, and rows of each kind of duplicates
GALLERY_SIDE = 64  # pixels of an image's side in the gallery
GALLERY_CLASSES = 100  # classes, at most, with a row of the gallery


def run(args: argparse.Namespace) -> int:
    """Prints what a survey of the data has found; returns the exit code, 2 where there are errors."""
    from cnn_vit.data.audit import findings, survey

    if args.gallery and Path(args.gallery).suffix.lower() != ".svg":
        raise UserError(f"--gallery={args.gallery} is drawn as SVG; give it a name that ends in .svg")
    section = requested_section(args)
    with show_progress() as on_progress:
        surveyed = survey.survey(section, on_progress=on_progress)
    record = findings.to_record(surveyed)
    text = as_table(surveyed, record)
    if args.gallery:
        stops.raise_if_requested()
        files.write(Path(args.gallery), draw_gallery(surveyed).encode())
        record["pictures_in"] = args.gallery  # a key that other programs may read
        text += f"\ngallery  {args.gallery}"
    next_words = next_command(args, surveyed.source)
    cli.print_answer(args, record, text, next_command=next_words, even_if_stopped=bool(args.gallery))
    # The last line of stderr is the cause of an exit code other than 0.
    errors = [problem["sentence"] for problem in record["problems"] if problem["level"] == "error"]
    if not errors:
        return 0
    prefix = f"{len(errors)} errors, the first: " if len(errors) > 1 else ""
    cli.print_note(cli.as_one_line(prefix + errors[0]))
    return EXIT_WITH_ERRORS


def requested_section(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the data section that --data or --config asks for.

    Raises:
        UserError: data are named twice, or settings are given without --config.
    """
    from cnn_vit.data.audit import survey

    if args.config and args.data:
        raise UserError("--config and --data both name data; give one of them")
    if args.layout and not args.data:
        raise UserError(f"--layout={args.layout} belongs to --data=PATH; a recipe says --config.data.layout")
    if args.config:
        return settings.load(args.config, args.overrides).section("data")
    if args.overrides:
        raise UserError(
            f"--config.{args.overrides[0]} sets something of a recipe that is not named; add --config=RECIPE"
        )
    return survey.section_from_text(args.data, layout=args.layout)


def next_command(args: argparse.Namespace, source: str) -> str:
    """Returns the next sensible command: the gallery, where it was not drawn, else training."""
    words = [f"--data={args.data}"]
    if args.config:
        words = [f"--config={args.config}", *(f"--config.{override}" for override in args.overrides)]
    quoted_words = map(cli.shell_quote, words)
    if not args.gallery:
        return " ".join(["cnn-vit doctor", *quoted_words, "--gallery=gallery.svg"])
    if args.config:
        return " ".join(["cnn-vit train", *quoted_words])
    if source != "folder":
        return "cnn-vit train --help"
    return f"cnn-vit train --config=configs/folder_resnet.py {cli.shell_quote(f'--config.data.path={args.data}')}"


@contextlib.contextmanager
def show_progress() -> Iterator[Callable[[int, int], object]]:
    """Gives a callback (images done, images in all) that moves a bar on a terminal, and elsewhere does nothing."""
    if not sys.stderr.isatty():
        yield lambda done, count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # stdout is left alone: it has the answer and nothing else.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)


# The table


def as_table(surveyed: "Survey", record: dict[str, Any]) -> str:
    """Returns a survey as text, one block below the other."""
    width = cli.terminal_width()
    name = cli.as_one_line(surveyed.path or surveyed.source)
    summary = f"{name}: {record['images']:,} images, {len(surveyed.classes):,} classes"
    facts = [
        ("sizes", describe_sizes(record["sizes"])),
        ("formats", join_counts(record["formats"])),
        ("colors", join_counts(record["colors"])),
    ]
    if surveyed.ignored:
        facts.append(("ignored", f"{surveyed.ignored:,} hidden files and files of operating systems"))
    facts.append(("repeated", describe_duplicates(surveyed)))
    facts += [("note", note) for note in surveyed.notes]
    blocks = [
        cli.wrap_paragraphs(summary, width),
        cli.format_table(class_rows(surveyed), indent="  "),
        cli.format_table(facts, width=width),
    ]
    if surveyed.broken:
        blocks.append(f"cannot be read\n{cli.format_table(broken_rows(surveyed), indent='  ', width=width)}")
    problems = [(problem["level"], problem["sentence"]) for problem in record["problems"]]
    blocks.append(f"problems\n{cli.format_table(problems or [('none', '')], indent='  ', width=width)}")
    return "\n\n".join(blocks)


def class_rows(surveyed: "Survey") -> list[tuple[str, ...]]:
    """Returns the images of each class in each split as rows of a table; of many classes, the largest and smallest."""
    splits = list(surveyed.counts)
    labels = list(range(len(surveyed.classes)))
    if len(labels) > MOST_CLASSES:
        totals = np.sum(list(surveyed.counts.values()), 0)
        labels.sort(key=lambda label: -int(totals[label]))
    rows: list[tuple[str, ...]] = [("", *splits)]
    for label in labels:
        counts = [f"{int(surveyed.counts[split][label]):,}" for split in splits]
        rows.append((shorten(surveyed.classes[label]), *counts))
    if len(labels) > MOST_CLASSES:
        half = MOST_CLASSES // 2
        # Behind the heading row, one row takes the place of those in the middle.
        rows[1 + half : -half] = [(f"... {len(labels) - MOST_CLASSES} more", *[""] * len(splits))]
    rows.append(("all", *(f"{int(surveyed.counts[split].sum()):,}" for split in splits)))
    return align_counts(rows)


def align_counts(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Returns the rows of a table with all columns but the first aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned_rows = []
    for name, *counts in rows:
        aligned_rows.append((name, *(count.rjust(width) for count, width in zip(counts, widths[1:], strict=True))))
    return aligned_rows


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """Returns a name on one line and, with an ellipsis, of at most `longest` characters."""
    text = cli.as_one_line(name)
    return text if len(text) <= longest else f"{text[: longest - 4]} ..."


def describe_sizes(sizes: dict[str, Any] | None) -> str:
    """Describes the sizes of a survey's record, height x width in pixels, in words; as `new` writes them."""
    if sizes is None:
        return "no image can be read"
    smallest, largest = size_text(sizes["smallest"]), size_text(sizes["largest"])
    median, commonest = size_text(sizes["median"]), size_text(sizes["commonest"]["size"])
    if sizes["different"] == 1:
        return f"all {commonest} pixels"
    return (
        f"{sizes['different']:,} different (height x width), from {smallest} to {largest} pixels, median {median}; "
        f"most often {commonest} ({sizes['commonest']['images']:,}); set data.image_size to bring them to one"
    )


def size_text(size: list[int]) -> str:
    """Returns [height, width] as `48x64`."""
    height, width = size
    return f"{height}x{width}"


def join_counts(counts: dict[str, int]) -> str:
    """Returns counts by name as `JPEG 120, PNG 3`, without those of 0."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def describe_duplicates(surveyed: "Survey") -> str:
    """Says how many groups of images there are that repeat one another."""
    phrases = []
    for groups, kind in (
        (surveyed.duplicates, "with the same pixels"),
        (surveyed.near_duplicates, "nearly the same"),
    ):
        if groups:
            noun = "group" if len(groups) == 1 else "groups"
            phrases.append(f"{len(groups):,} {noun} of {sum(map(len, groups)):,} images {kind}")
    return "; ".join(phrases) or "nothing"


def broken_rows(surveyed: "Survey") -> list[tuple[str, str]]:
    """Returns the first files that cannot be read, with reason and remedy, as rows of a table."""
    from cnn_vit.data.audit import findings

    rows = [(findings.display_path(surveyed, file.path), str(file.error)) for file in surveyed.broken[:MOST_BROKEN]]
    more = len(surveyed.broken) - MOST_BROKEN
    if more > 0:
        rows.append((f"... {more:,} more", "all with --json"))
    return rows


# The gallery


def draw_gallery(surveyed: "Survey") -> str:
    """Draws an SVG with a row of images for each class, then one for each group of images that repeat one another."""
    from cnn_vit import plots
    from cnn_vit.data.audit import survey

    classes = surveyed.classes
    totals = np.sum(list(surveyed.counts.values()), 0)
    samples = survey.sample_images(surveyed, each_class=GALLERY_COLUMNS, side=GALLERY_SIDE, most=GALLERY_CLASSES)
    rows = [plots.Row(shorten(classes[label]), f"{int(totals[label]):,}", pixels) for label, pixels in samples.items()]
    for groups, kind in ((surveyed.duplicates, "same"), (surveyed.near_duplicates, "nearly same")):
        for group in groups[:GALLERY_COLUMNS]:
            group_images = [surveyed.images[position] for position in group]
            places = sorted({f"{image.split}/{shorten(classes[image.label], 20)}" for image in group_images})
            pixels = survey.on_gray_squares(group_images[:GALLERY_COLUMNS], GALLERY_SIDE)
            rows.append(plots.Row(kind, ", ".join(places), pixels))
    name = shorten(surveyed.path or surveyed.source, LONGEST_TITLE)
    return plots.standalone(plots.draw_gallery(rows, title=f"Images of {name}"))
