"""Your own images: ROOT/CLASS/*, or ROOT/{train,val,test}/CLASS/*; a folder, or a zip of one that stays packed.

A class is the folder right under the root or the split; folders inside it belong to it. Every file in a class is an
image, or is named as a file that cannot be read. Hidden files and what operating systems leave are passed over, as are
files beside the class folders that are not images. One folder, or one zip, that wraps all others is looked into.

`val`, `valid` and `validation` are the validation split. Without split folders, a stratified tenth is test and another
one validation. Without `test` beside `train` there is no test split.
"""

import unicodedata
from collections.abc import Iterable, Mapping
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

ClassFiles = dict[str, list[tuple[str, Entry]]]
"""The files of each class: pairs of the path inside the class folder and the file, sorted by path."""


def about(options: SourceOptions) -> SourceInfo:
    """Returns an empty record: nothing is known before the folder is listed."""
    require_path("folder", options)
    return SourceInfo()


def load(options: SourceOptions) -> SourceData:
    """Returns the parts; an image is read when it is asked for.

    Raises:
        UserError: there is nothing at the path, the layout is another, or a class has no images or no train folder.
    """
    listing = open_listing(require_path("folder", options))
    root = unwrap(listing.tree)
    folders = find_split_folders(root)
    files = {part: list_class_files(tree) for part, tree in (folders or {"train": root}).items()}
    classes = list_classes(root, files)
    parts = {part: make_part(listing, files[part], classes) for part in files}
    facts: dict[str, Any] = {"ignored": listing.ignored}
    if not folders:
        facts["layout"] = "no split folders: a stratified tenth is test, another one validation"
    return SourceData(classes, parts, facts=facts, is_undivided=not folders)


# Where the classes are


def unwrap(tree: Tree) -> Tree:
    """Returns the folder inside the folders that wrap all others."""
    for _ in range(WRAPPED):
        # A folder wraps all others where it is alone, beside no image, is no split, and has folders itself
        if len(tree.folders) != 1 or tree.image_files():
            return tree
        [(name, inside)] = tree.folders.items()
        if is_split_name(name) or not inside.folders:
            return tree
        tree = inside
    return tree


def is_split_name(name: str) -> bool:
    """Whether a folder's name is that of a split, in capital or small letters."""
    return name.casefold() in SPLITS


def find_split_folders(root: Tree) -> dict[str, Tree]:
    """Returns the split folders under a root in the order of PARTS, or {} where the class folders lie there.

    A class may be called train: a folder is a split only where one of these names has class folders and no images.

    Raises:
        UserError: splits lack classes or train, one is there twice, or images lie beside them.
    """
    names = [name for name in root.folders if is_split_name(name)]
    if not any(has_classes_only(root.folders[name]) for name in names):
        if names and len(names) == len(root.folders):
            raise UserError(f"{printable_name(root.folders[names[0]].path)} has no class folders; {LAYOUT}")
        return {}
    by_part: dict[str, Tree] = {}
    for name in names:
        part = SPLITS[name.casefold()]
        if part in by_part:
            raise UserError(f"{printable_name(root.path)} has two folders for {part}; keep one of them")
        by_part[part] = root.folders[name]
    if "train" not in by_part:
        raise UserError(f"{printable_name(root.path)} has {' and '.join(names)} but no train folder; {LAYOUT}")
    for name, tree in root.folders.items():
        if name not in names and has_images(tree):
            raise UserError(
                f"{printable_name(tree.path)} has images and lies beside {' and '.join(names)}; "
                "move it into a split or away"
            )
    return {part: by_part[part] for part in PARTS if part in by_part}


def has_classes_only(tree: Tree) -> bool:
    """Whether a folder holds folders and no images beside them."""
    return bool(tree.folders) and not tree.image_files()


def has_images(tree: Tree) -> bool:
    """Whether a folder holds an image at any depth."""
    return any(is_image_name(file.name) for _, file in tree.all_files())


def list_class_files(tree: Tree) -> ClassFiles:
    """Returns the files of each class folder in a folder.

    Raises:
        UserError: images lie outside of the class folders, there are no classes, a class is empty or holds splits, or
            the names of two classes only look different.
    """
    refuse_stray_images(tree)
    if not tree.folders:
        raise UserError(f"{printable_name(tree.path)} holds no images; {LAYOUT}")
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
        refuse_splits_inside(inside)
        files[name] = sorted(inside.all_files(), key=lambda path_and_file: path_and_file[0])
        if not files[name]:
            raise UserError(f"{printable_name(inside.path)} holds no images; fill it or remove it")
    return files


def refuse_stray_images(tree: Tree) -> None:
    """Raises UserError where images lie beside the class folders."""
    stray = tree.image_files()
    if not stray:
        return
    problem = "there are no classes"
    if tree.folders:
        problem = f"{printable_name(stray[0].path)} lies outside the class folders"
    raise UserError(f"{printable_name(tree.path)} has {len(stray)} images right in it, {problem}; {LAYOUT}")


def refuse_splits_inside(class_folder: Tree) -> None:
    """Raises UserError where a class folder holds a folder with the name of a split."""
    for name, inside in class_folder.folders.items():
        if is_split_name(name):
            raise UserError(f"{printable_name(inside.path)} is a split inside a class; {LAYOUT}")


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
