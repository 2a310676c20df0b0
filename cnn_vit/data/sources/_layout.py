"""Which folders of a data set are splits and which are classes.

A folder is a split by its name, and only where a folder for training stands beside another one:

    train, training, training_set, Train_Data, seg_train, train2017      train
    val, valid, validation, dev                                          validation
    eval, evaluation                                                     validation where there is no other, else test
    test, testing, test_set                                              test
    pred, prediction, seg_pred, unlabeled                                images without labels

That folders are built alike never makes splits of them: `benign/40X` and `malignant/40X` may be classes with folders
inside, or two parts of a set whose classes are 40X and so on. Where nothing tells which, both readings are shown and
`data.layout` says it.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from cnn_vit.data.base.parts import PARTS
from cnn_vit.data.reading.listing import Tree, is_image_name
from cnn_vit.data.reading.unreadable import printable_name
from cnn_vit.errors import UserError

Layout = Literal["auto", "classes", "splits"]

# Words that are a split by themselves, without a folder for training beside them.
PLAIN_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")
EVALUATION = "evaluation"  # the role of what some call the validation split and some the test split
UNLABELED = "unlabeled"
ROLES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
    "eval": EVALUATION, "evaluation": EVALUATION,
    "pred": UNLABELED, "predict": UNLABELED, "prediction": UNLABELED, "unlabeled": UNLABELED, "unlabelled": UNLABELED,
}  # fmt: skip
# What people write beside the word: "test_set", "Training Images", "seg_train".
FILLERS = ("set", "data", "dataset", "images", "image", "imgs", "img", "photos", "seg", "split", "folder")
GLUED = ("set", "data")  # also without a gap: "testset"
ADVICE = "put each class's images in a folder of its own, ROOT/CLASS/x.jpg or ROOT/train/CLASS/x.jpg"
WRAPPED = 8  # folders around all others that are looked into
MOST_SHOWN = 3  # names of folders in a sentence


@dataclass(frozen=True)
class SplitFolders:
    """The split folders of a data set.

    Attributes:
        by_part: the folders with class folders in the order of PARTS; empty where the class folders lie in the root.
        unlabeled: paths of folders for validation or test whose images lie in no class folder.
    """

    by_part: dict[str, Tree] = field(default_factory=dict)
    unlabeled: tuple[str, ...] = ()


def read_role(name: str) -> str | None:
    """Returns what a folder is for by its name: a part, EVALUATION or UNLABELED; None where the name says neither."""
    found = []
    for word in re.split(r"[\W_]+", name.casefold()):
        stem = word.rstrip("0123456789")  # train2017
        for ending in GLUED:
            if stem.removesuffix(ending) in ROLES:
                stem = stem.removesuffix(ending)
        if stem and stem not in FILLERS:
            found.append(ROLES.get(stem))
    return found[0] if len(found) == 1 else None


def is_plain_name(name: str) -> bool:
    """Whether a name is a split's even where no folder for training stands beside it."""
    return name.casefold() in PLAIN_NAMES


def unwrap(tree: Tree) -> Tree:
    """Returns the folder inside the folders that wrap all others."""
    for _ in range(WRAPPED):
        # A folder wraps all others where it is alone, beside no image, is no split, and has folders itself
        if len(tree.folders) != 1 or tree.image_files():
            return tree
        [(name, inside)] = tree.folders.items()
        if is_plain_name(name) or not inside.folders:
            return tree
        tree = inside
    return tree


def unwrap_repeated(name: str, tree: Tree) -> Tree:
    """Returns the folder inside folders that hold nothing but one of the same name, as in seg_train/seg_train/CLASS."""
    for _ in range(WRAPPED):
        if len(tree.folders) != 1 or tree.image_files():
            return tree
        [(inner_name, inside)] = tree.folders.items()
        if inner_name.casefold() != name.casefold():
            return tree
        tree = inside
    return tree


def find_split_folders(root: Tree, layout: Layout) -> SplitFolders:
    """Finds the split folders under a root.

    A class may be called train: a folder is a split only where one of these names has class folders and no images.

    Raises:
        UserError: splits lack classes or train, one is there twice, images lie beside them, or `layout` is "auto" and
            the folders may be classes as well as splits.
    """
    if layout == "classes":
        return SplitFolders()
    roles = {}
    for name in root.folders:
        role = read_role(name)
        if role is not None:
            roles[name] = role
    has_train = "train" in roles.values()
    if layout == "auto" and not (has_train and len(set(roles.values())) > 1):
        roles = {name: role for name, role in roles.items() if is_plain_name(name)}
    trees = {name: unwrap_repeated(name, root.folders[name]) for name in roles}
    if not any(has_classes_only(tree) for tree in trees.values()):
        if roles and len(roles) == len(root.folders):
            first = root.folders[next(iter(roles))]
            raise UserError(
                f"{printable_name(first.path)} has no class folders; {ADVICE}; where it is a class itself, set "
                "data.layout=classes"
            )
        if layout == "auto":
            refuse_two_readings(root)
        elif roles:
            raise UserError(f"{printable_name(root.path)} has both splits and other folders; set data.layout=classes")
        return SplitFolders()
    return sort_splits(root, roles, trees)


def sort_splits(root: Tree, roles: dict[str, str], trees: dict[str, Tree]) -> SplitFolders:
    """Sorts split folders by their parts.

    Args:
        root: the folder that they lie in.
        roles: what each one is for, by its name.
        trees: the folder that has its class folders, by the same names.

    Raises:
        UserError: there is no train folder, a part is there twice, or images lie beside the splits.
    """
    evaluation_part = "test" if "validation" in roles.values() else "validation"
    by_part: dict[str, Tree] = {}
    unlabeled = []
    for name, role in roles.items():
        part = evaluation_part if role == EVALUATION else role
        tree = trees[name]
        if role == UNLABELED or (part != "train" and tree.image_files() and not tree.folders):
            unlabeled.append(root.folders[name].path)
            continue
        if part in by_part:
            raise UserError(f"{printable_name(root.path)} has two folders for {part}; keep one of them")
        by_part[part] = tree
    if "train" not in by_part:
        raise UserError(f"{printable_name(root.path)} has {' and '.join(roles)} but no train folder; {ADVICE}")
    for name, tree in root.folders.items():
        if name not in roles and has_images(tree):
            raise UserError(
                f"{printable_name(tree.path)} has images and lies beside {' and '.join(roles)}; move it into a split "
                "or away; where all of these are classes, set data.layout=classes"
            )
    return SplitFolders({part: by_part[part] for part in PARTS if part in by_part}, tuple(unlabeled))


def refuse_two_readings(root: Tree) -> None:
    """Raises UserError where all folders hold the same two or more folders, which may be classes as well."""
    outer, trees = list(root.folders), list(root.folders.values())
    if len(outer) < 2 or not all(has_classes_only(tree) for tree in trees):
        return
    inner = {frozenset(tree.folders) for tree in trees}
    if len(inner) > 1 or len(trees[0].folders) < 2:
        return
    raise UserError(
        f"{printable_name(root.path)} can be read in two ways: the classes are {show_names(outer)}, or they are "
        f"{show_names(list(trees[0].folders))}, in {len(outer)} parts of one set; set data.layout=classes for the "
        "first, data.layout=splits for the second"
    )


def show_names(names: list[str]) -> str:
    """Returns names as a list for a sentence, the first few of many."""
    shown = [printable_name(name) for name in sorted(names)]
    if len(shown) > MOST_SHOWN:
        return f"{', '.join(shown[:MOST_SHOWN])} and {len(shown) - MOST_SHOWN} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def merge_folders(root: Tree) -> Tree:
    """Returns a tree whose classes are the folders inside the root's folders; each keeps the files of all of them.

    Raises:
        UserError: a folder of the root has images outside of the folders in it.
    """
    merged = Tree(root.path)
    for name, tree in root.folders.items():
        if tree.image_files():
            raise UserError(
                f"{printable_name(tree.path)} has images outside of class folders, and data.layout=splits takes the "
                "folders inside it for classes; move them, or set data.layout=classes"
            )
        for class_name, class_tree in tree.folders.items():
            merged.subfolder([class_name]).folders[name] = class_tree
    return merged


def has_classes_only(tree: Tree) -> bool:
    """Whether a folder holds folders and no images beside them."""
    return bool(tree.folders) and not tree.image_files()


def has_images(tree: Tree) -> bool:
    """Whether a folder holds an image at any depth."""
    return any(is_image_name(file.name) for _, file in tree.all_files())
