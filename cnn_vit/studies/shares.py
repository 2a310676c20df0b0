"""The data that the arms of a study see: the same for all, with the whole training split or with a share of it.

The images of a small share are among those of a larger one. Validation and test stay what they are with all of the
data, so that accuracies on different shares are of the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import data
from cnn_vit.data.base.splits import example_indices
from cnn_vit.data.sections import complete_section
from cnn_vit.errors import UserError, printable_name
from cnn_vit.settings import KEYS
from cnn_vit.studies import arms

MOST_NAMED = 5  # classes that a note names


@dataclass(frozen=True)
class DataShare:
    """A share of the training data.

    Attributes:
        share: in (0, 1]; 1 is all of it.
        overrides: the settings of the data, "data.KEY=value" each.
        examples: how many are learned from.
        missing: the classes of which there is no example to learn from.
    """

    share: float
    overrides: tuple[str, ...]
    examples: int
    missing: tuple[str, ...]


def plan_shares(
    wanted: Sequence[float], section: Mapping[str, Any], dataset: data.Dataset
) -> tuple[list[DataShare], list[str]]:
    """Cuts shares out of the training split, and says what one should know of them.

    A share has as many examples as there are classes at least. So two small ones may be equal: then only the larger
    one stays. One without an example of some class is left out, since nothing can learn that class from it.

    Args:
        wanted: the shares, ascending.
        section: the data section of all arms.
        dataset: all of the data.

    Returns:
        The shares, ascending, and notes, a sentence each.

    Raises:
        UserError: a split is not one piece of a part of the data, so that no share can be taken of it; or no share has
            an example of each class.
    """
    by_examples: dict[int, DataShare] = {}
    notes = []
    for share in wanted:
        data_share = cut_share(share, section, dataset)
        if data_share.missing:
            notes.append(describe_missing(data_share, len(dataset.classes)))
            continue
        equal = by_examples.get(data_share.examples)
        if equal is not None:
            notes.append(
                f"{100 * equal.share:g} % of the training data is left out: with at least one image for each class it "
                f"is the same {equal.examples:,} images as {100 * share:g} %"
            )
        by_examples[data_share.examples] = data_share
    if not by_examples:
        raise UserError(f"{'; '.join(notes)}; name a larger share")
    return list(by_examples.values()), notes


def describe_missing(data_share: DataShare, classes: int) -> str:
    """Says of which classes a share has no example, in a sentence."""
    names = ", ".join(printable_name(name) for name in data_share.missing[:MOST_NAMED])
    more = ", ..." if len(data_share.missing) > MOST_NAMED else ""
    return (
        f"{100 * data_share.share:g} % of the training data is left out: among its {data_share.examples:,} images "
        f"{len(data_share.missing)} of {classes} classes have none: {names}{more}"
    )


def cut_share(share: float, section: Mapping[str, Any], dataset: data.Dataset) -> DataShare:
    """Cuts one share out of the training split, as `plan_shares` has it."""
    settings = data_overrides(section)
    labels = dataset.splits["train"].labels
    if share < 1:
        completed = complete_section(section)
        parts = data.load_readable(completed).source_data.parts
        plan = data.plan_splits(parts, completed)
        slices = {}
        for split, (part, positions) in plan.positions.items():
            start, stop = int(positions[0]), int(positions[-1]) + 1
            if stop - start != len(positions):
                raise UserError(
                    f"data.{split} is not one piece of {part}, of which a share can be taken; leave shares out"
                )
            if split == "train":
                count = round(share * len(positions))
                stop = start + min(len(positions), max(count, len(dataset.classes)))
                labels = parts[part].labels[example_indices(parts[part], np.arange(start, stop))]
            slices[split] = f"data.{split}={part}[{start}:{stop}]"
        settings += slices.values()
    present = set(labels.tolist())
    missing = tuple(name for number, name in enumerate(dataset.classes) if number not in present)
    return DataShare(share, tuple(settings), len(labels), missing)


def data_overrides(section: Mapping[str, Any]) -> list[str]:
    """Returns every setting of the data as the command line writes it, so that no arm's own recipe decides any."""
    overrides = []
    for key, row in KEYS.items():
        name = key.removeprefix("data.")
        if key.startswith("data."):
            value = None if key in arms.MEASURED else section.get(name, row.default)
            overrides.append(f"{key}={write_value(value)}")
    for name, value in section.items():
        if f"data.{name}" not in KEYS:
            overrides.append(f"data.{name}={write_value(value)}")
    return overrides


def write_value(value: Any) -> str:
    """Writes a value as the command line takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, tuple | list) else str(value)
