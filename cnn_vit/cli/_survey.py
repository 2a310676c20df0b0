"""`doctor --data`: a data set looked at, as a table or a record, with images of each class."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_vit import cli, files, settings
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.data.audit.survey import Survey

WRONG = 2  # exit code where there are errors
ROWS = 20  # classes that the table shows; of more, the largest and the smallest
SHOWN = 10  # files that cannot be read, in the table
EACH, SIDE = 10, 64  # images of each class, and their sides in pixels
MOST = 100  # classes with images


def run(given: argparse.Namespace) -> int:
    """Prints what was found; 2 where there are errors."""
    from cnn_vit.data.audit import findings, survey

    if given.pictures and Path(given.pictures).suffix.lower() != ".svg":
        raise UserError(f"--images={given.pictures} is drawn as SVG; give it a name that ends in .svg")
    section = section_of(given)
    with progress() as told:
        found = survey.survey(section, told=told)
    record = findings.to_record(found)
    lines = table(found, record)
    if given.pictures:
        files.write(Path(given.pictures), drawn(found).encode())
        record["pictures_in"] = given.pictures
        lines += f"\npictures  {given.pictures}"
    cli.print_answer(given, record, lines, then=following(given, found.source))
    errors = [one for one in record["problems"] if one["level"] == "error"]
    for one in errors[:1]:
        more = f"{len(errors)} errors, the first: " if errors[1:] else ""
        cli.print_note(cli.one_line(f"{more}{one['sentence']}"))
    return WRONG if errors else 0


def section_of(given: argparse.Namespace) -> dict[str, Any]:
    """The data section that was asked for.

    Raises:
        UserError: data are named twice, or settings without --config.
    """
    from cnn_vit.data.audit import survey

    if given.config and given.data:
        raise UserError("--config and --data both name data; give one of them")
    if given.config:
        return settings.load(given.config, given.overrides).section("data")
    if given.overrides:
        raise UserError(
            f"--config.{given.overrides[0]} sets something of a recipe that is not named; add --config=RECIPE"
        )
    return survey.section_from_text(given.data)


def following(given: argparse.Namespace, source: str) -> str:
    """The next sensible command."""
    said = [f"--config={given.config}", *(f"--config.{one}" for one in given.overrides)]
    said = list(map(cli.shell_quote, said if given.config else [f"--data={given.data}"]))
    if not given.pictures:
        return " ".join(["cnn-vit doctor", *said, "--images=images.svg"])
    if given.config:
        return " ".join(["cnn-vit train", *said])
    if source != "folder":
        return "cnn-vit train --help"
    return f"cnn-vit train --config=configs/folder_resnet.py {cli.shell_quote(f'--config.data.path={given.data}')}"


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int], object]]:
    """Takes how many images have been looked at, of how many: a bar on a terminal, elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done, count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)


# The table


def table(found: "Survey", record: dict[str, Any]) -> str:
    """What was found, one block below the other."""
    width = cli.terminal_width()
    head = f"{cli.one_line(found.path or found.source)}: {record['images']:,} images, {len(found.classes):,} classes"
    facts = [
        ("sizes", sizes(record["sizes"])),
        ("formats", tally(record["formats"])),
        ("colors", tally(record["colors"])),
        *[("ignored", f"{found.ignored:,} hidden files and files of operating systems")] * bool(found.ignored),
        ("repeated", repeated(found)),
        *(("note", note) for note in found.notes),
    ]
    blocks = [cli.wrap(head, width), cli.table(per_class(found), indent="  "), cli.table(facts, width=width)]
    if found.broken:
        blocks.append(f"cannot be read\n{cli.table(broken(found), indent='  ', width=width)}")
    rows = [(one["level"], one["sentence"]) for one in record["problems"]]
    blocks.append(f"problems\n{cli.table(rows or [('none', '')], indent='  ', width=width)}")
    return "\n\n".join(blocks)


def per_class(found: "Survey") -> list[tuple[str, ...]]:
    """Images of each class in each split; of many classes, the largest and the smallest."""
    splits = list(found.counts)
    order = list(range(len(found.classes)))
    if len(order) > ROWS:
        whole = np.sum(list(found.counts.values()), 0)
        order.sort(key=lambda at: -int(whole[at]))
    numbers = [[f"{int(found.counts[split][at]):,}" for split in splits] for at in order]
    rows = [(short(found.classes[at]), *row) for at, row in zip(order, numbers, strict=True)]
    if len(rows) > ROWS:
        rows[ROWS // 2 : -ROWS // 2] = [(f"... {len(rows) - ROWS} more", *[""] * len(splits))]
    rows.append(("all", *(f"{int(found.counts[split].sum()):,}" for split in splits)))
    rows.insert(0, ("", *splits))
    sides = [max(len(row[at]) for row in rows) for at in range(1, len(splits) + 1)]
    return [(row[0], *(cell.rjust(side) for cell, side in zip(row[1:], sides, strict=True))) for row in rows]


def short(name: str, most: int = 40) -> str:
    """A class's name that fits into a table."""
    text = cli.one_line(name)
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def sizes(found: dict[str, Any] | None) -> str:
    """Heights by widths, in words; as `new` writes them."""
    if found is None:
        return "no image can be read"
    smallest, median, largest, common = (
        f"{high}x{wide}"
        for high, wide in (found["smallest"], found["median"], found["largest"], found["commonest"]["size"])
    )
    if found["different"] == 1:
        return f"all {common} pixels"
    return (
        f"{found['different']:,} different (height x width), from {smallest} to {largest} pixels, median {median}; "
        f"most often {common} ({found['commonest']['images']:,}); set data.image_size to bring them to one"
    )


def tally(counts: dict[str, int]) -> str:
    """`JPEG 120, PNG 3`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def repeated(found: "Survey") -> str:
    """How many groups of images there are that go together."""
    told = [
        f"{len(groups):,} group{'s' * (len(groups) != 1)} of {sum(map(len, groups)):,} images {what}"
        for groups, what in ((found.duplicates, "with the same pixels"), (found.near_duplicates, "nearly the same"))
        if groups
    ]
    return "; ".join(told) or "nothing"


def broken(found: "Survey") -> list[tuple[str, str]]:
    """Files that cannot be read, with reason and remedy."""
    from cnn_vit.data.audit import findings

    rows = [(findings.display_path(found, one.path), str(one.error)) for one in found.broken[:SHOWN]]
    rest = len(found.broken) - SHOWN
    return [*rows, (f"... {rest:,} more", "all with --json")] if rest > 0 else rows


# Images


def drawn(found: "Survey") -> str:
    """A row of images for each class, then for each group of images that go together."""
    from cnn_vit import plots
    from cnn_vit.data.audit import survey

    counts = np.sum(list(found.counts.values()), 0)
    some = survey.sample_images(found, each_class=EACH, side=SIDE, most=MOST)
    rows = [plots.Row(short(found.classes[label]), f"{int(counts[label]):,}", pixels) for label, pixels in some.items()]
    for groups, what in ((found.duplicates, "same"), (found.near_duplicates, "nearly same")):
        for group in groups[:EACH]:
            ours = [found.images[at] for at in group]
            where = ", ".join(sorted({f"{one.split}/{short(found.classes[one.label], 20)}" for one in ours}))
            rows.append(plots.Row(what, where, survey.on_gray_squares(ours[:EACH], SIDE)))
    return plots.standalone(plots.gallery(rows, title=f"Images of {short(found.path or found.source, 60)}"))
