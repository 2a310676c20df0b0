"""Which folders of a data set are splits and which are classes.

A folder named train, training, val, valid, validation, test or testing is a split where one of these has class folders
and no images. Other names are splits only where a folder for training stands beside another split's:

    training_set, Train Data, TrainImages, seg_train, train2017          train
    dev, val_set                                                         validation
    eval, evaluation                                                     validation where there is no other, else test
    test_set, seg_test                                                   test
    pred, prediction, seg_pred, unlabeled                                images without labels

That folders are built alike never makes splits of them: `benign/40X` and `malignant/40X` may be classes with folders
inside, or two parts of a set whose classes are 40X and so on. Where nothing tells which, both readings are shown and
`data.layout` says it.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cnn_vit.data.base.parts import PARTS
from cnn_vit.data.reading.entries import LINK_TO_NOTHING, Tree, is_image_name
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
FILLERS = (
    "set", "data", "dataset", "images", "image", "imgs", "img", "photos", "seg", "split", "folder", "single", "v",
)  # fmt: skip
GLUED = ("set", "data")  # also without a gap: "testset"
ADVICE = "put each class's images in a folder of its own, ROOT/CLASS/x.jpg or ROOT/train/CLASS/x.jpg"
INSIDE_ADVICE = f"{ADVICE}; where it belongs to the class, set data.layout=classes"
WRAPPED = 8  # folders around all others that are looked into
MOST_SHOWN = 3  # names of folders in a sentence


@dataclass(frozen=True)
class SplitFolders:
    """The split folders of a data set.

    Attributes:
        by_part: the folders with class folders in the order of PARTS; empty where the class folders lie in the root.
        unlabeled: the folders of images without labels: for validation or test without class folders, or named so.
    """

    by_part: dict[str, Tree] = field(default_factory=dict)
    unlabeled: tuple[Tree, ...] = ()


def split_words(name: str) -> list[str]:
    """Splits a name into its words, without numbers and what people write beside the name of a split.

    "Train_Images-2017" has one word, "train".
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)  # "TrainImages" is "Train Images"
    words = []
    for part in re.split(r"[\W_]+", spaced):
        if re.fullmatch(r"\d+x\d+", part):  # an image size
            continue
        word = part.casefold().rstrip("0123456789")
        for ending in GLUED:
            if word.removesuffix(ending) in ROLES:
                word = word.removesuffix(ending)
        if word and word not in FILLERS:
            words.append(word)
    return words


def read_role(name: str) -> str | None:
    """Returns what a folder is for by its name: a part, EVALUATION or UNLABELED; None where the name says neither."""
    words = split_words(name)
    return ROLES.get(words[0]) if len(words) == 1 else None


def hints_at_split(name: str) -> bool:
    """Whether a name has a split's among its words, as "my_train" has."""
    return any(word in ROLES for word in split_words(name))


def is_plain_name(name: str) -> bool:
    """Whether a name is a split's even where no folder for training stands beside it."""
    return name.casefold() in PLAIN_NAMES


def unwrap(tree: Tree, repeated_name: str | None = None) -> Tree:
    """Returns the folder inside the folders that wrap all others.

    Args:
        tree: the outermost folder.
        repeated_name: the only name of folders that are looked into, as in seg_train/seg_train/CLASS; None: any that
            is no split's.

    Raises:
        UserError: a link to nothing lies beside a folder on the way.
    """
    for _ in range(WRAPPED):
        refuse_links_to_nothing(tree)
        # A folder wraps all others where it is alone, beside no image, and has folders itself
        if len(tree.folders) != 1 or tree.image_files():
            return tree
        [(name, inside)] = tree.folders.items()
        if repeated_name is None:
            is_wrapper = not is_plain_name(name)
        else:
            is_wrapper = name.casefold() == repeated_name.casefold()
        if not is_wrapper or not inside.folders:
            return tree
        tree = inside
    return tree


def refuse_links_to_nothing(tree: Tree) -> None:
    """Raises UserError where a link that leads nowhere lies beside folders: it may have been a class or a split.

    A name with an ending, such as notes.txt, was a file's, and files beside classes do no harm.
    """
    for file in tree.files:
        is_link = file.problem is not None and file.problem[0] == LINK_TO_NOTHING
        if is_link and not os.path.splitext(file.name)[1]:
            raise UserError(
                f"{printable_name(file.path)} is {LINK_TO_NOTHING}, where a class or a split may have been; mend the "
                "link or remove it"
            )


def find_split_folders(root: Tree, layout: Layout, *, needs_train: bool = True) -> SplitFolders:
    """Finds the split folders under a root, as the top of this file says.

    Args:
        root: the folder.
        layout: what lies in it.
        needs_train: whether splits without one for training are refused.

    Raises:
        UserError: splits lack classes or train, one is there twice, images lie beside them, or the folders may be
            classes as well as splits and `layout` does not say which.
    """
    if layout == "classes":
        return SplitFolders()
    roles: dict[str, str] = {}
    for name in root.folders:
        role = read_role(name)
        if role is not None:
            roles[name] = role
    has_splits = "train" in roles.values() and len(set(roles.values())) > 1
    if not has_splits:
        roles = {name: role for name, role in roles.items() if is_plain_name(name)}
    trees = {name: unwrap(root.folders[name], repeated_name=name) for name in roles}
    if any(has_classes_only(tree) for tree in trees.values()):
        return sort_splits(root, roles, trees, needs_train=needs_train)
    if roles and len(roles) == len(root.folders):
        first = root.folders[next(iter(roles))]
        raise UserError(
            f"{printable_name(first.path)} has no class folders; {ADVICE}; where it is a class itself, set "
            "data.layout=classes"
        )
    if layout == "splits":
        refuse_hidden_splits(root)
    else:
        refuse_two_readings(root)
    return SplitFolders()


def sort_splits(root: Tree, roles: dict[str, str], trees: dict[str, Tree], *, needs_train: bool) -> SplitFolders:
    """Sorts split folders by their parts.

    Args:
        root: the folder that they lie in.
        roles: what each one is for, by its name.
        trees: the folder that has its class folders, by the same names.
        needs_train: whether there must be a train folder.

    Raises:
        UserError: there is no train folder, a part is there twice, or images lie beside the splits.
    """
    evaluation_part = "test" if "validation" in roles.values() else "validation"
    classes: set[str] = set()
    for name, tree in trees.items():
        if roles[name] == "train":
            classes |= tree.folders.keys()
    by_part: dict[str, Tree] = {}
    unlabeled = []
    for name, role in roles.items():
        part = evaluation_part if role == EVALUATION else role
        tree = trees[name]
        if role == UNLABELED or (part != "train" and lacks_classes(name, tree, classes)):
            if has_images(tree):
                unlabeled.append(root.folders[name])
            continue
        if part in by_part:
            raise UserError(f"{printable_name(root.path)} has two folders for {part}; keep one of them")
        by_part[part] = tree
    if needs_train and "train" not in by_part:
        raise UserError(f"{printable_name(root.path)} has {' and '.join(roles)} but no train folder; {ADVICE}")
    for name, tree in root.folders.items():
        if name not in roles and has_images(tree):
            refuse_beside_splits(tree, list(roles))
    in_order = {part: by_part[part] for part in PARTS if part in by_part}
    return SplitFolders(in_order, tuple(unlabeled))


def lacks_classes(name: str, tree: Tree, classes: set[str]) -> bool:
    """Whether the images of a split lie in no class folder: right in it, or in one of its own name that is no class.

    Args:
        name: of the split's folder.
        tree: the folder.
        classes: names of the class folders of train.
    """
    if not tree.folders:
        return bool(tree.image_files())
    is_repeated = [inner.casefold() for inner in tree.folders] == [name.casefold()]
    return is_repeated and not tree.image_files() and not classes & tree.folders.keys()


def refuse_beside_splits(tree: Tree, splits: list[str]) -> None:
    """Raises UserError for a folder with images that lies beside splits."""
    path = printable_name(tree.path)
    if set(splits) <= tree.folders.keys():
        raise UserError(f"{path} looks like a copy of {' and '.join(splits)} beside it; take it away")
    raise UserError(
        f"{path} has images and lies beside {' and '.join(splits)}; move it into a split or away; where all of these "
        "are classes, set data.layout=classes"
    )


def refuse_two_readings(root: Tree) -> None:
    """Raises UserError where all folders hold the same two or more folders, which may be classes as well."""
    outer, trees = list(root.folders), list(root.folders.values())
    if len(outer) < 2 or not all(has_classes_only(tree) for tree in trees):
        return
    inner = list(trees[0].folders)
    are_alike = all(tree.folders.keys() == trees[0].folders.keys() for tree in trees)
    if len(inner) < 2 or not are_alike:
        return
    for name, tree in trees[0].folders.items():
        if read_role(name) is not None:
            raise UserError(f"{printable_name(tree.path)} is a split inside a class; {INSIDE_ADVICE}")
    refuse_hidden_splits(root)
    raise UserError(
        f"{printable_name(root.path)} can be read in two ways: the classes are {show_names(outer)}, or they are "
        f"{show_names(inner)}, in {len(outer)} parts of one set; set data.layout=classes for the first, "
        "data.layout=splits for the second (cnn-vit new, doctor and evaluate have --layout)"
    )


def refuse_hidden_splits(root: Tree) -> None:
    """Raises UserError where a folder whose folders may be classes has a split's name among its words."""
    for name, tree in root.folders.items():
        if hints_at_split(name) and has_classes_only(tree):
            raise UserError(
                f"{printable_name(tree.path)} may be a split or a class; where it is a split, rename it and those "
                "beside it to train, val and test; where it is a class, set data.layout=classes"
            )


def show_names(names: Sequence[str]) -> str:
    """Returns names as a list for a sentence, the first few of many."""
    shown = [printable_name(name) for name in sorted(names)]
    if len(shown) > MOST_SHOWN:
        return f"{', '.join(shown[:MOST_SHOWN])} and {len(shown) - MOST_SHOWN} more"
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def has_classes_only(tree: Tree) -> bool:
    """Whether a folder holds folders and no images beside them."""
    return bool(tree.folders) and not tree.image_files()


def has_images(tree: Tree) -> bool:
    """Whether a folder holds an image at any depth."""
    return any(is_image_name(file.name) for _, file in tree.all_files())
