"""Your own images: ROOT/CLASS/*, or ROOT/{train,val,test}/CLASS/*; a folder, or a zip of one that stays packed.

A class is the folder right under the root or the split; folders inside it belong to it. Every file in a class is an
image, or is named as a file that cannot be read. Hidden files and what operating systems leave are passed over, as are
files beside the class folders that are not images. One folder, or one zip, that wraps all others is looked into.

Which folders are splits, `_layout` decides. Without split folders, a stratified tenth is test and another one
validation. Without `test` beside `train` there is no test split. A folder of images without labels is left out and
named.
"""

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from cnn_vit.data.base.parts import EncodedPart, ImageFolders, SourceData, SourceInfo, SourceOptions, require_path
from cnn_vit.data.reading.entries import Entry, Listing, Tree
from cnn_vit.data.reading.listing import open_listing
from cnn_vit.data.reading.unreadable import printable_name
from cnn_vit.data.sources._layout import (
    ADVICE,
    INSIDE_ADVICE,
    Layout,
    SplitFolders,
    find_split_folders,
    is_plain_name,
    refuse_links_to_nothing,
    show_names,
    unwrap,
)
from cnn_vit.errors import UserError, nearest

ClassFiles = dict[str, list[tuple[str, Entry]]]
"""The files of each class: pairs of the path inside the class folder and the file, sorted by path."""


def about(options: SourceOptions, *, layout: Literal["auto", "classes", "splits"] = "auto") -> SourceInfo:
    """Returns an empty record: nothing is known before the folder is listed; the keyword is that of `load`."""
    require_path("folder", options)
    return SourceInfo()


def load(options: SourceOptions, *, layout: Literal["auto", "classes", "splits"] = "auto") -> SourceData:
    """Returns the parts; an image is read when it is asked for.

    Args:
        options: the common settings.
        layout: what the folders in the root are: "classes" with all that is in them, "splits" with class folders
            inside (where none of their names is a split's, the parts of one set), or "auto", which goes by the names.

    Raises:
        UserError: there is nothing at the path, the layout is another, or a class has no images or no train folder.
    """
    path = require_path("folder", options)
    listing = open_listing(path)
    refuse_runs_alone(listing)
    root = unwrap(listing.tree)
    splits = find_split_folders(root, layout, needs_train=not options.for_evaluation)
    if splits.by_part:
        files = {part: list_class_files(tree, layout) for part, tree in splits.by_part.items()}
    elif layout == "splits":
        files = {"train": join_class_files(root)}
    else:
        files = {"train": list_class_files(root, layout)}
    if options.for_evaluation:  # the classes are compared with the network's
        classes = tuple(sorted(set().union(*files.values())))
    else:
        classes = list_classes(root, files)
    parts = {part: make_part(listing, files[part], classes) for part in files}
    facts: dict[str, Any] = {"ignored": listing.ignored}
    left_out = [describe_unlabeled(tree, path) for tree in splits.unlabeled]
    if listing.runs:
        left_out.append(describe_runs(listing.runs))
    if left_out:
        facts["left out"] = left_out
    if not splits.by_part:
        facts["layout"] = "no split folders: a stratified tenth is test, another one validation"
    folders = find_image_folders(path, root, splits, layout)
    return SourceData(classes, parts, facts=facts, is_undivided=not splits.by_part, folders=folders)


def find_image_folders(path: str, root: Tree, splits: SplitFolders, layout: Layout) -> ImageFolders:
    """Returns the paths of root, splits and classes; inside a zip they are those of no folder on the disk.

    Args:
        path: the folder or the zip that the user names.
        root: the folder that the splits or classes lie in.
        splits: the split folders under it.
        layout: as of `load`.
    """
    parents = [root]
    if splits.by_part:
        parents = list(splits.by_part.values())
    elif layout == "splits":
        parents = list(root.folders.values())
    roots = [path, root.path, *(tree.path for tree in parents)]
    classes = [tree.path for parent in parents for tree in parent.folders.values()]
    classes += [tree.path for tree in splits.unlabeled]
    return ImageFolders(tuple(roots), tuple(classes))


def refuse_runs_alone(listing: Listing) -> None:
    """Raises UserError where a folder holds run folders and nothing else."""
    if listing.runs and not listing.tree.folders:
        raise UserError(
            f"{printable_name(listing.tree.path)} holds no class folders; {describe_runs(listing.runs)}; {ADVICE}"
        )


def describe_runs(paths: Sequence[str]) -> str:
    """Says in a sentence which folders are left out because a run lies in them."""
    if len(paths) == 1:
        return f"{printable_name(paths[0])} is the folder of a training run and is left out"
    return f"{show_names(paths)} are folders of training runs and are left out"


def describe_unlabeled(tree: Tree, path: str) -> str:
    """Says in a sentence that images without labels are left out, and what answers for them."""
    remedy = "cnn-vit predict"
    if not os.path.isdir(path):
        remedy = "once unpacked, cnn-vit predict"
    return f"{printable_name(tree.path)} has images without labels and is left out; {remedy} gives their classes"


# Where the classes are


def list_class_files(tree: Tree, layout: Layout) -> ClassFiles:
    """Returns the files of each class folder in a folder.

    Raises:
        UserError: images lie outside of the class folders, there are no classes, a class is empty or holds splits, or
            the names of two classes only look different.
    """
    refuse_stray_images(tree)
    if not tree.folders:
        raise UserError(f"{printable_name(tree.path)} holds no images; {ADVICE}")
    files: ClassFiles = {}
    folder_by_look: dict[str, str] = {}
    for folder, inside in tree.folders.items():
        # Composed and decomposed accents, capital letters and blanks do not make two classes of one
        name = unicodedata.normalize("NFC", folder)
        look = " ".join(name.casefold().split())
        first_folder = folder_by_look.setdefault(look, folder)
        if first_folder != folder:
            raise UserError(
                f"{printable_name(tree.path)} has the classes {first_folder!r} and {folder!r}; give them names apart"
            )
        if layout != "classes":
            refuse_splits_inside(inside)
        named_files = []
        for path, file in inside.all_files():  # accents composed alike, as the same files have them in another archive
            named_files.append((unicodedata.normalize("NFC", path), file))
        files[name] = sorted(named_files, key=lambda path_and_file: path_and_file[0])
        if not files[name]:
            raise UserError(f"{printable_name(inside.path)} holds no images; fill it or remove it")
    return files


def join_class_files(root: Tree) -> ClassFiles:
    """Returns the files of each class, of folders in a root that are parts of one set and hold the class folders.

    Raises:
        UserError: images lie beside the parts, a link to nothing beside the classes, a class is written in two ways, or
            a part cannot be read as `list_class_files` says.
    """
    refuse_stray_images(root)
    joined: ClassFiles = {}
    folder_by_look: dict[str, str] = {}
    for part, tree in root.folders.items():
        refuse_links_to_nothing(tree)
        for name, files in list_class_files(tree, "splits").items():
            first_name = folder_by_look.setdefault(name.casefold(), name)
            if first_name != name:
                raise UserError(
                    f"{printable_name(root.path)} has the classes {first_name!r} and {name!r} in two parts; write them "
                    "alike"
                )
            joined.setdefault(name, []).extend((f"{part}/{path}", file) for path, file in files)
    return joined


def refuse_stray_images(tree: Tree) -> None:
    """Raises UserError where images lie beside the class folders."""
    stray = tree.image_files()
    if not stray:
        return
    problem = "there are no classes"
    if tree.folders:
        problem = f"{printable_name(stray[0].path)} lies outside the class folders"
    raise UserError(f"{printable_name(tree.path)} has {len(stray)} images right in it, {problem}; {ADVICE}")


def refuse_splits_inside(class_folder: Tree) -> None:
    """Raises UserError where a class folder holds a folder with the name of a split."""
    for name, inside in class_folder.folders.items():
        if is_plain_name(name):
            raise UserError(f"{printable_name(inside.path)} is a split inside a class; {INSIDE_ADVICE}")


def list_classes(root: Tree, files: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Returns the classes of train, sorted.

    Args:
        root: the folder that an error names.
        files: part -> classes in it; train comes first.

    Raises:
        UserError: another split has a class that train lacks.
    """
    first, *others = files
    classes = tuple(sorted(files[first]))
    for part in others:
        for name in files[part]:
            if name not in classes:
                alike = nearest(name, classes)
                hint = f"; did you mean {alike[0]!r}?" if alike else ""
                raise UserError(
                    f"{printable_name(root.path)}: class {name!r} is in {part} but not in train; rename its folder, "
                    f"add it to train or remove it{hint}"
                )
    return classes


# Parts


def make_part(listing: Listing, class_files: ClassFiles, classes: tuple[str, ...]) -> EncodedPart:
    """Makes a part of the files of each class, class by class."""
    names: list[str] = []
    entries: list[Entry] = []
    counts: list[int] = []  # files of each class
    for name in classes:
        files = class_files.get(name, [])
        names += [f"{name}/{path}" for path, _ in files]
        entries += [entry for _, entry in files]
        counts.append(len(files))
    return EncodedPart(
        labels=np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        content=lambda index, most: listing.read(entries[index], most),
        sizes=np.array([entry.size for entry in entries], np.int64),
        path_of=lambda index: entries[index].path,
        names=names,
        version=lambda index: entries[index].file_version,
    )
