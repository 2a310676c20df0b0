"""Says what a survey means: each problem as a sentence with its remedy, and the whole survey as plain values."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.data.audit.survey import ScannedImage, Survey
from cnn_vit.data.base.parts import PARTS
from cnn_vit.data.reading.unreadable import MOST_REMEDIES, printable_name

UNEVEN = 3  # ratio of the images of two classes from which on a warning is given
FEW = 10  # training images of a class below which a warning is given
MOST_NAMED = 3  # files or classes that a sentence names


class Problem(NamedTuple):
    """What is wrong with a data set.

    Attributes:
        level: "error" where training would stop, or what it measures would not be true; else "warning".
        sentence: the problem, with its remedy.
    """

    level: str
    sentence: str


def find_problems(survey: Survey) -> list[Problem]:
    """Returns all problems of a data set, errors first."""
    errors = [
        *survey.refused,
        *report_broken(survey),
        *report_unlearnable_classes(survey),
        *report_across_splits(survey),
        *report_two_labels(survey),
    ]
    warnings = [
        *([survey.dark] if survey.dark else []),
        *report_skipped(survey),
        *report_class_counts(survey),
        *report_repeats_in_split(survey),
        *report_blank(survey),
        *report_label_leaks(survey),
    ]
    return [Problem("error", sentence) for sentence in errors] + [Problem("warning", text) for text in warnings]


def display_path(survey: Survey, path: str) -> str:
    """Returns a path as a sentence shows it: relative to the root of the data, and printable."""
    return printable_name(path.removeprefix(f"{(survey.path or '').rstrip('/')}/"))


def image_path(survey: Survey, position: int) -> str:
    """Returns the path of the image at a position in `survey.images`, as a sentence shows it."""
    return display_path(survey, survey.images[position].path)


def first_names(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Joins the first names, and says how many more there are."""
    text = ", ".join(names[:most])
    if len(names) > most:
        text += f" and {len(names) - most:,} more"
    return text


def count_of(count: int, noun: str = "image") -> str:
    """Returns `1 image`, `2 images`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def count_same_and_near(same: int, near: int) -> str:
    """Returns `2 with the same pixels and 1 nearly so`, without the kind of which there is none."""
    counts = [(same, "with the same pixels"), (near, "nearly so")]
    return " and ".join(f"{count:,} {kind}" for count, kind in counts if count)


# Errors


def report_broken(survey: Survey) -> Iterator[str]:
    """Reports files that cannot be read."""
    if survey.broken:
        files = [f"{display_path(survey, file.path)} ({file.error.reason})" for file in survey.broken]
        remedies = list(dict.fromkeys(file.error.remedy for file in survey.broken))  # each once, in order
        yield (
            f"{count_of(len(files))} cannot be read: {first_names(files)}; {' or '.join(remedies[:MOST_REMEDIES])}, or "
            "leave such files out with --config.data.on_bad_image=skip"
        )


def report_unlearnable_classes(survey: Survey) -> Iterator[str]:
    """Reports classes that cannot be learned."""
    if len(survey.classes) < 2:
        yield f"there is one class, {printable_name(survey.classes[0])}; there must be two at least to tell apart"
    # The survey's own counts hold the broken files too.
    readable_counts = Counter((image.split, image.label) for image in survey.images)
    missing = [printable_name(name) for label, name in enumerate(survey.classes) if not readable_counts["train", label]]
    if missing:
        yield f"train has no image of {first_names(missing)} that can be read; add some or take the class away"


def report_across_splits(survey: Survey) -> Iterator[str]:
    """Reports images that are in two splits."""
    for first, second in combinations(PARTS, 2):
        same = shared_with(survey, survey.duplicates, first, second)
        near = shared_with(survey, survey.near_duplicates, first, second)
        # Groups of near duplicates hold the exact ones too, which are not counted twice.
        near = {position: match for position, match in near.items() if position not in same}
        if not same and not near:
            continue
        position, match = next(iter((same or near).items()))  # one example is shown
        total = len(same) + len(near)
        yield (
            f"{count_of(total)} of {second} {'are' if total > 1 else 'is'} in {first} too, "
            f"{count_same_and_near(len(same), len(near))} ({two_paths(survey, position, match)}); take one of each "
            f"away, or the accuracy on {second} looks better than it is"
        )


def shared_with(survey: Survey, groups: Sequence[Sequence[int]], first: str, second: str) -> dict[int, int]:
    """Returns images of the second split in a group with one of the first split -> the one of the first split."""
    pairs: dict[int, int] = {}
    for group in groups:
        in_first = [position for position in group if survey.images[position].split == first]
        in_second = [position for position in group if survey.images[position].split == second]
        if in_first:
            pairs |= dict.fromkeys(in_second, in_first[0])
    return pairs


def two_paths(survey: Survey, position: int, match: int) -> str:
    """Names two images of a survey."""
    return f"{image_path(survey, position)} and {image_path(survey, match)}"


def report_two_labels(survey: Survey) -> Iterator[str]:
    """Reports images that are in two classes."""
    for groups, how in ((survey.duplicates, "pixel for pixel"), (survey.near_duplicates, "nearly so")):
        mixed_groups = [group for group in groups if len({survey.images[position].label for position in group}) > 1]
        if not mixed_groups:
            continue
        first = mixed_groups[0][0]
        label = survey.images[first].label
        # The first image of the group, and the first one of it with another label, are shown.
        match = next(position for position in mixed_groups[0] if survey.images[position].label != label)
        yield (
            f"{count_of(len(mixed_groups))} {'are' if len(mixed_groups) > 1 else 'is'} in two classes, {how} "
            f"({two_paths(survey, first, match)}); check which is right and take the other away"
        )


# Warnings


def report_skipped(survey: Survey) -> Iterator[str]:
    """Reports files that cannot be read and are left out."""
    if survey.skipped:
        files = [f"{display_path(survey, file.name)} ({file.error.reason})" for file in survey.skipped]
        verb = "are" if len(files) > 1 else "is"
        yield f"{count_of(len(files))} cannot be read and {verb} left out: {first_names(files)}"


def report_class_counts(survey: Survey) -> Iterator[str]:
    """Reports classes with very many images, with very few, and with none in a split."""
    train_counts = survey.counts["train"]
    largest, smallest = int(train_counts.argmax()), int(train_counts.argmin())
    most, least = int(train_counts[largest]), int(train_counts[smallest])
    if least and most >= UNEVEN * least:  # a class without images is reported as an error
        yield (
            f"train has {most / least:.3g} times as many images of {printable_name(survey.classes[largest])} "
            f"({most:,}) as of {printable_name(survey.classes[smallest])} ({least:,}); give the classes equal weight "
            "with --config.loss.class_weight=balanced, and look at the accuracy of each class"
        )
    rare = [printable_name(name) for name, count in zip(survey.classes, train_counts, strict=True) if 0 < count < FEW]
    if rare:
        yield f"train has fewer than {FEW} images of {first_names(rare)}; add some"
    for split in PARTS[1:]:
        missing = missing_classes(survey, split) if split in survey.counts else []
        if missing:
            yield f"{split} has no image of {first_names(missing)}, so its accuracy says nothing about that; add some"


def missing_classes(survey: Survey, split: str) -> list[str]:
    """Returns the names of the classes of which a split has no image."""
    counts = survey.counts[split]
    return [printable_name(name) for name, count in zip(survey.classes, counts, strict=True) if not count]


def report_repeats_in_split(survey: Survey) -> Iterator[str]:
    """Reports images that are in a split more than once."""
    for split in survey.counts:
        same_groups = groups_in_split(survey, survey.duplicates, split)
        near_groups = groups_in_split(survey, survey.near_duplicates, split)
        same_extra = sum(len(group) - 1 for group in same_groups)
        # Groups of near duplicates hold the exact ones too, which are not counted twice.
        counted = set(chain.from_iterable(group[1:] for group in same_groups))
        near_extra = sum(len(set(group) - counted) - 1 for group in near_groups)
        total = same_extra + near_extra
        if total:
            first, second = (same_groups or near_groups)[0][:2]
            yield (
                f"{count_of(total)} of {split} {'repeat' if total > 1 else 'repeats'} another of it, "
                f"{count_same_and_near(same_extra, near_extra)} ({two_paths(survey, second, first)}); keep one of each"
            )


def groups_in_split(survey: Survey, groups: Sequence[Sequence[int]], split: str) -> list[list[int]]:
    """Returns the groups reduced to the images of a split, those with at least two."""
    reduced_groups = []
    for group in groups:
        in_split = [position for position in group if survey.images[position].split == split]
        if len(in_split) > 1:
            reduced_groups.append(in_split)
    return reduced_groups


def report_blank(survey: Survey) -> Iterator[str]:
    """Reports images of one color."""
    blank = [display_path(survey, image.path) for image in survey.images if image.blank]
    if blank:
        pronoun = "them" if len(blank) > 1 else "it"
        yield f"{count_of(len(blank))} of one color throughout ({first_names(blank)}); take {pronoun} away"


def report_label_leaks(survey: Survey) -> Iterator[str]:
    """Reports names of files that tell a class."""
    leaks = survey.label_leaks
    if leaks is None:
        return
    if leaks.other_class:
        contradictions = []
        for position, label in leaks.other_class:
            contradictions.append(f"{image_path(survey, position)} says {printable_name(survey.classes[label])}")
        yield (
            f"{names_that_say(len(contradictions))} another class than the folder ({first_names(contradictions)}); "
            "check which is right"
        )
    if not leaks.own_class and not leaks.word:
        return
    if leaks.own_class:
        leak = (
            f"{names_that_say(len(leaks.own_class))} the class, of {len(survey.images):,} "
            f"({image_path(survey, leaks.own_class[0])})"
        )
    else:
        leak = f"the {leaks.word} word of each tells the class"
    yield (
        f"labels in file names: {leak}; networks here see only the pixels, but rename the files before people or other "
        "programs are to tell the classes apart"
    )


def names_that_say(count: int) -> str:
    """Returns `1 file name says`, `2 file names say`."""
    return f"{count_of(count, 'file name')} {'says' if count == 1 else 'say'}"


# As plain values


def to_record(survey: Survey) -> dict[str, Any]:
    """Returns the whole survey and its problems as plain values, for JSON."""
    counts = {}
    for split, numbers in survey.counts.items():
        counts[split] = dict(zip(survey.classes, numbers.tolist(), strict=True))
    colored = sum(image.colored for image in survey.images)
    return {
        "source": survey.source,
        "path": survey.path,
        "classes": list(survey.classes),
        "splits": counts,
        "images": len(survey.images) + len(survey.broken),
        "sizes": size_summary(survey.images),
        "formats": dict(Counter(image.format for image in survey.images).most_common()),
        "colors": {"color": colored, "gray": len(survey.images) - colored},
        "ignored": survey.ignored,
        "notes": survey.notes,
        "broken": broken_records(survey),
        "skipped": [
            {"path": file.name, "reason": file.error.reason, "remedy": file.error.remedy} for file in survey.skipped
        ],
        "duplicates": {
            "same": group_records(survey, survey.duplicates),
            "near": group_records(survey, survey.near_duplicates),
        },
        "blank": [image.path for image in survey.images if image.blank],
        "names": label_leak_record(survey),
        "problems": [problem._asdict() for problem in find_problems(survey)],
    }


def broken_records(survey: Survey) -> list[dict[str, str]]:
    """Returns the files that cannot be read as plain values."""
    records = []
    for file in survey.broken:
        place = {"path": file.path, "split": file.split, "class": survey.classes[file.label]}
        records.append(place | {"reason": file.error.reason, "remedy": file.error.remedy})
    return records


def group_records(survey: Survey, groups: Sequence[Sequence[int]]) -> list[list[dict[str, str]]]:
    """Returns groups of images as plain values."""
    records = []
    for group in groups:
        records.append([image_record(survey, position) for position in group])
    return records


def label_leak_record(survey: Survey) -> dict[str, Any] | None:
    """Returns what the file names tell as plain values; None where there are no names."""
    leaks = survey.label_leaks
    if leaks is None:
        return None
    contradictions = []
    for position, label in leaks.other_class:
        contradictions.append(image_record(survey, position) | {"says": survey.classes[label]})
    return {"class": len(leaks.own_class), "other_class": contradictions, "word": leaks.word}


def image_record(survey: Survey, position: int) -> dict[str, str]:
    """Returns path, split and class of the image at a position in `survey.images`."""
    image = survey.images[position]
    return {"path": image.path, "split": image.split, "class": survey.classes[image.label]}


def size_summary(scanned_images: Sequence[ScannedImage]) -> dict[str, Any] | None:
    """Summarizes the sizes of images, each [height, width] in pixels; None where there are no images.

    Returns:
        How many sizes there are, those of the least and the largest area, the median of each side, and the commonest
        size with its number of images.
    """
    if not scanned_images:
        return None
    sizes = [(image.height, image.width) for image in scanned_images]
    count_by_size = Counter(sizes)
    by_area = sorted(count_by_size, key=lambda size: (size[0] * size[1], size))
    commonest, count = count_by_size.most_common(1)[0]
    return {
        "different": len(count_by_size),
        "smallest": list(by_area[0]),
        "median": np.round(np.median(np.array(sizes), axis=0)).astype(int).tolist(),
        "largest": list(by_area[-1]),
        "commonest": {"size": list(commonest), "images": count},
    }
