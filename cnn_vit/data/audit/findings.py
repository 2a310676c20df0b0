"""What a survey means: each problem as a sentence with its remedy, and all of it as plain values."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.data.audit.survey import ScannedImage, Survey
from cnn_vit.data.base.parts import PARTS
from cnn_vit.data.reading.unreadable import printable_name

UNEVEN = 3  # times as many images of one class as of another, from which on it is said
FEW = 10  # training images of a class, below which it is said
NAMED = 3  # that a sentence names


class Problem(NamedTuple):
    """What is wrong.

    Attributes:
        level: "error" where training would stop, or what it measures would not be true; else "warning".
        sentence: with the remedy.
    """

    level: str
    sentence: str


def problems(found: Survey) -> list[Problem]:
    """All of them, errors first."""
    errors = [*found.refused, *broken(found), *classes(found), *across_splits(found), *two_labels(found)]
    warnings = [*skipped(found), *counts(found), *repeated_in_split(found), *blank(found), *names(found)]
    return [Problem("error", one) for one in errors] + [Problem("warning", one) for one in warnings]


def display_path(found: Survey, path: str) -> str:
    """A path from the root, as a sentence shows it."""
    return printable_name(path.removeprefix(f"{(found.path or '').rstrip('/')}/"))


def first_names(names: Sequence[str], most: int = NAMED) -> str:
    """The first few, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def count_of(count: int, what: str = "image") -> str:
    """`1 image`, `2 images`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


# Errors


def broken(found: Survey) -> Iterator[str]:
    """Files that are no images."""
    if found.broken:
        named = [f"{display_path(found, one.path)} ({one.error.reason})" for one in found.broken]
        remedies = list(dict.fromkeys(one.error.remedy for one in found.broken))
        yield (
            f"{count_of(len(named))} cannot be read: {first_names(named)}; {' or '.join(remedies[:3])}, or leave such out with "
            "--config.data.on_bad_image=skip"
        )


def classes(found: Survey) -> Iterator[str]:
    """Classes that cannot be learned."""
    if len(found.classes) < 2:
        yield f"there is one class, {printable_name(found.classes[0])}; there must be two at least to tell apart"
    whole = Counter((one.split, one.label) for one in found.images)
    if missing := [printable_name(name) for at, name in enumerate(found.classes) if not whole["train", at]]:
        yield f"train has no image of {first_names(missing)} that can be read; add some or take the class away"


def across_splits(found: Survey) -> Iterator[str]:
    """Images on both sides of a line that must part them."""
    for place, first in enumerate(PARTS):
        for second in PARTS[place + 1 :]:
            same, near = (
                shared_with(found, groups, first, second) for groups in (found.duplicates, found.near_duplicates)
            )
            near = {at: other for at, other in near.items() if at not in same}
            if not same and not near:
                continue
            at, other = next(iter((same or near).items()))
            how = [f"{len(same):,} with the same pixels"] * bool(same) + [f"{len(near):,} nearly so"] * bool(near)
            yield (
                f"{count_of(len(same) + len(near))} of {second} {'are' if len(same) + len(near) > 1 else 'is'} in {first} "
                f"too, {' and '.join(how)} ({two_paths(found, at, other)}); take one of each away, or accuracy on {second} "
                "flatters"
            )


def shared_with(found: Survey, groups: Sequence[Sequence[int]], first: str, second: str) -> dict[int, int]:
    """Images of the second split that lie in a group with one of the first, and that one."""
    pairs: dict[int, int] = {}
    for group in groups:
        there = [at for at in group if found.images[at].split == first]
        pairs |= {at: there[0] for at in group if there and found.images[at].split == second}
    return pairs


def two_paths(found: Survey, at: int, other: int) -> str:
    """Two images by name."""
    return f"{display_path(found, found.images[at].path)} and {display_path(found, found.images[other].path)}"


def two_labels(found: Survey) -> Iterator[str]:
    """The same image in two classes."""
    for groups, how in ((found.duplicates, "pixel for pixel"), (found.near_duplicates, "nearly so")):
        some = [group for group in groups if len({found.images[at].label for at in group}) > 1]
        if some:
            one = some[0][0]
            other = next(at for at in some[0] if found.images[at].label != found.images[one].label)
            yield (
                f"{count_of(len(some))} {'are' if some[1:] else 'is'} in two classes, {how} ({two_paths(found, one, other)}); "
                "look which is right and take the other away"
            )


# Warnings


def skipped(found: Survey) -> Iterator[str]:
    """Files that are no images, and are left out."""
    if found.skipped:
        named = [f"{display_path(found, one.name)} ({one.error.reason})" for one in found.skipped]
        yield f"{count_of(len(named))} cannot be read and {'are' if named[1:] else 'is'} left out: {first_names(named)}"


def counts(found: Survey) -> Iterator[str]:
    """Classes of very many and of very few images."""
    train = found.counts["train"]
    (most, many_), (least, few) = ((int(at), int(train[at])) for at in (train.argmax(), train.argmin()))
    if few and many_ >= UNEVEN * few:
        yield (
            f"train has {many_ / few:.3g} times as many images of {printable_name(found.classes[most])} ({many_:,}) as of "
            f"{printable_name(found.classes[least])} ({few:,}); have each class count alike with "
            "--config.loss.class_weight=balanced, and look at the accuracy of each class"
        )
    if rare := [printable_name(name) for name, count in zip(found.classes, train, strict=True) if 0 < count < FEW]:
        yield f"train has fewer than {FEW} images of {first_names(rare)}; add some"
    for split in PARTS[1:]:
        if split in found.counts and (lost := missing(found, split)):
            yield f"{split} has no image of {first_names(lost)}, so its accuracy says nothing about that; add some"


def missing(found: Survey, split: str) -> list[str]:
    """Classes of which a split has nothing."""
    return [printable_name(name) for name, count in zip(found.classes, found.counts[split], strict=True) if not count]


def repeated_in_split(found: Survey) -> Iterator[str]:
    """Images that are in a split more than once."""
    for split in found.counts:
        spare = {}
        for groups, what in ((found.duplicates, "same"), (found.near_duplicates, "near")):
            each = [[at for at in group if found.images[at].split == split] for group in groups]
            spare[what] = [group for group in each if len(group) > 1]
        extra = sum(len(group) - 1 for group in spare["same"])
        known = {at for group in spare["same"] for at in group[1:]}
        more = sum(len(set(group) - known) - 1 for group in spare["near"])
        how = [f"{extra:,} with the same pixels"] * bool(extra) + [f"{more:,} nearly so"] * bool(more)
        if how:
            first = (spare["same"] or spare["near"])[0]
            yield (
                f"{count_of(extra + more)} of {split} {'repeat' if extra + more > 1 else 'repeats'} another of it, "
                f"{' and '.join(how)} ({two_paths(found, first[1], first[0])}); keep one of each"
            )


def blank(found: Survey) -> Iterator[str]:
    """Images of one color."""
    if some := [display_path(found, one.path) for one in found.images if one.blank]:
        yield f"{count_of(len(some))} of one color throughout ({first_names(some)}); take {'them' if some[1:] else 'it'} away"


def names(found: Survey) -> Iterator[str]:
    """Names of files that tell the class."""
    if found.label_leaks is None:
        return
    if found.label_leaks.other:
        some = [
            f"{display_path(found, found.images[at].path)} says {printable_name(found.classes[label])}"
            for at, label in found.label_leaks.other
        ]
        yield f"{names_that_say(len(some))} another class than the folder ({first_names(some)}); look which is right"
    own, word = found.label_leaks.own, found.label_leaks.word
    if own or word:
        said = f"the {word} word of each tells the class"
        if own:
            said = f"{names_that_say(len(own))} the class, of {len(found.images):,} ({display_path(found, found.images[own[0]].path)})"
        yield (
            f"labels in file names: {said}; networks here are shown pixels alone, but rename the files before people "
            "or other programs are to tell the classes apart"
        )


def names_that_say(count: int) -> str:
    """`1 file name says`, `2 file names say`."""
    return f"{count_of(count, 'file name')} say{'s' * (count == 1)}"


# As plain values


def to_record(found: Survey) -> dict[str, Any]:
    """All that was found, for JSON."""
    labels = found.label_leaks
    return {
        "source": found.source,
        "path": found.path,
        "classes": list(found.classes),
        "splits": {
            split: dict(zip(found.classes, numbers.tolist(), strict=True)) for split, numbers in found.counts.items()
        },
        "images": len(found.images) + len(found.broken),
        "sizes": size_summary(found.images),
        "formats": dict(Counter(one.format for one in found.images).most_common()),
        "colors": {
            "color": sum(one.colored for one in found.images),
            "gray": sum(not one.colored for one in found.images),
        },
        "ignored": found.ignored,
        "notes": found.notes,
        "broken": [
            {
                "path": one.path,
                "split": one.split,
                "class": found.classes[one.label],
                "reason": one.error.reason,
                "remedy": one.error.remedy,
            }
            for one in found.broken
        ],
        "skipped": [
            {"path": one.name, "reason": one.error.reason, "remedy": one.error.remedy} for one in found.skipped
        ],
        "duplicates": {
            what: [[image_record(found, at) for at in group] for group in groups]
            for what, groups in (("same", found.duplicates), ("near", found.near_duplicates))
        },
        "blank": [one.path for one in found.images if one.blank],
        "names": None
        if labels is None
        else {
            "class": len(labels.own),
            "other_class": [image_record(found, at) | {"says": found.classes[label]} for at, label in labels.other],
            "word": labels.word,
        },
        "problems": [one._asdict() for one in problems(found)],
    }


def image_record(found: Survey, at: int) -> dict[str, str]:
    """An image."""
    one = found.images[at]
    return {"path": one.path, "split": one.split, "class": found.classes[one.label]}


def size_summary(seen: Sequence[ScannedImage]) -> dict[str, Any] | None:
    """[height, width] in pixels: how many, the ones of least and largest area, each side's median, the commonest."""
    if not seen:
        return None
    pairs = Counter((one.height, one.width) for one in seen)
    both = np.array([(one.height, one.width) for one in seen])
    by_area = sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair))
    (common, count), *_ = pairs.most_common(1)
    return {
        "different": len(pairs),
        "smallest": list(by_area[0]),
        "median": np.round(np.median(both, axis=0)).astype(int).tolist(),
        "largest": list(by_area[-1]),
        "commonest": {"size": list(common), "images": count},
    }
