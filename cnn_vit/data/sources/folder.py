"""Your own images: ROOT/CLASS/*, or ROOT/{train,val,test}/CLASS/*; a folder, or a zip of one that stays packed.

A class is the folder right under the root or the split; folders inside it belong to it. Every file in a class is a
image or is named as a fault. Hidden files and what operating systems leave are passed over, as are files that are no
images beside the class folders. One folder, or one zip, that wraps all others is looked into.

`val`, `valid` and `validation` are the validation split. Without split folders, a stratified tenth is test and another
one validation. Without `test` beside `train` there is no test split.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_vit.data.base.parts import PARTS, EncodedPart, SourceData, SourceInfo, SourceOptions, require_path
from cnn_vit.data.reading.listing import Entry, Listing, Tree, is_image_name, open_listing
from cnn_vit.data.reading.unreadable import printable_name
from cnn_vit.errors import UserError, nearest

SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
LAYOUT = "put each class's images in a folder of its own, ROOT/CLASS/x.jpg or ROOT/train/CLASS/x.jpg"
WRAPPED = 8  # folders around all others that are looked into


def about(given: SourceOptions) -> SourceInfo:
    """Nothing is known before looking."""
    require_path("folder", given)
    return SourceInfo()


def load(given: SourceOptions) -> SourceData:
    """The parts; an image is read when it is asked for.

    Raises:
        UserError: nothing there, another layout, a class without images or in no train folder.
    """
    listing = open_listing(require_path("folder", given))
    root = unwrap(listing.tree)
    folders = split_folders(root)
    by_part = {part: by_class(tree) for part, tree in (folders or {"train": root}).items()}
    classes = class_list(root, by_part)
    parts = {name: part_of(listing, found, classes) for name, found in by_part.items()}
    facts: dict[str, Any] = {"ignored": listing.ignored}
    if not folders:
        facts["layout"] = "no split folders: a stratified tenth is test, another one validation"
    return SourceData(classes, parts, facts=facts, is_undivided=not folders)


# Where the classes are


def unwrap(tree: Tree) -> Tree:
    """The tree inside the folders that wrap all others."""
    for _ in range(WRAPPED):
        (name, inside), *others = tree.folders.items() or [("", tree)]
        if others or tree.image_files() or name.casefold() in SPLITS or not inside.folders:
            return tree
        tree = inside
    return tree


def split_folders(root: Tree) -> dict[str, Tree]:
    """The split folders under a root, or {} where the classes lie there: a class may be called train.

    Raises:
        UserError: splits without classes, a split twice, images beside the splits.
    """
    names = [name for name in root.folders if name.casefold() in SPLITS]
    if not any(root.folders[name].folders and not root.folders[name].image_files() for name in names):
        if names and len(names) == len(root.folders):
            raise UserError(f"{printable_name(root.folders[names[0]].path)} has no class folders; {LAYOUT}")
        return {}
    found: dict[str, Tree] = {}
    for name in names:
        part = SPLITS[name.casefold()]
        if part in found:
            raise UserError(f"{printable_name(root.path)} has two folders for {part}; keep one of them")
        found[part] = root.folders[name]
    if "train" not in found:
        raise UserError(f"{printable_name(root.path)} has {' and '.join(names)} but no train folder; {LAYOUT}")
    for name, tree in root.folders.items():
        if name not in names and any(is_image_name(entry.name) for _, entry in tree.all_files()):
            raise UserError(
                f"{printable_name(tree.path)} has images and lies beside {' and '.join(names)}; move it into a split or away"
            )
    return {part: found[part] for part in PARTS if part in found}


def by_class(tree: Tree) -> dict[str, list[tuple[str, Entry]]]:
    """Files of each class folder by their path in it, sorted.

    Raises:
        UserError: images outside, no classes, splits below classes, two names that only look different.
    """
    if stray := tree.image_files():
        where = (
            f"{printable_name(stray[0].path)} lies outside the class folders"
            if tree.folders
            else "there are no classes"
        )
        raise UserError(f"{printable_name(tree.path)} has {len(stray)} images right in it, {where}; {LAYOUT}")
    if not tree.folders:
        raise UserError(f"{printable_name(tree.path)} holds no images; {LAYOUT}")
    found: dict[str, list[tuple[str, Entry]]] = {}
    alike: dict[str, str] = {}
    for folder, inside in tree.folders.items():
        name = unicodedata.normalize("NFC", folder)
        other = alike.setdefault(" ".join(name.casefold().split()), folder)
        if other != folder:
            raise UserError(
                f"{printable_name(tree.path)} has the classes {other!r} and {folder!r}; give them names apart"
            )
        if inner := [one for one in inside.folders if one.casefold() in SPLITS]:
            raise UserError(f"{printable_name(inside.folders[inner[0]].path)} is a split inside a class; {LAYOUT}")
        found[name] = sorted(inside.all_files(), key=lambda pair: pair[0])
        if not found[name]:
            raise UserError(f"{printable_name(inside.path)} holds no images; fill it or remove it")
    return found


def class_list(root: Tree, by_part: Mapping[str, Mapping[str, object]]) -> tuple[str, ...]:
    """The classes, of train, sorted; another split may have no others.

    Raises:
        UserError: it has.
    """
    first, *others = by_part
    classes = tuple(sorted(by_part[first]))
    for part in others:
        for name in by_part[part]:
            if name not in classes:
                near = f"; did you mean {nearest(name, classes)[0]!r}?" if nearest(name, classes) else ""
                raise UserError(
                    f"{printable_name(root.path)}: class {name!r} is in {part} but not in train; rename its folder, add it to "
                    f"train or remove it{near}"
                )
    return classes


# Parts


def part_of(listing: Listing, found: Mapping[str, list[tuple[str, Entry]]], classes: tuple[str, ...]) -> EncodedPart:
    """A part, class by class."""
    files = [(f"{name}/{path}", entry) for name in classes for path, entry in found.get(name, ())]
    entries = [entry for _, entry in files]
    return EncodedPart(
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), [len(found.get(name, ())) for name in classes]),
        content=lambda index, most: listing.read(entries[index], most),
        sizes=np.array([entry.size for entry in entries], np.int64),
        where=lambda index: entries[index].path,
        names=[name for name, _ in files],
        version=lambda index: entries[index].mark,
    )
