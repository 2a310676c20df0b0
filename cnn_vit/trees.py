"""Parameter trees: nested dicts of arrays, in which the keys on the way to a leaf are its path.

A path is written `stages/0/blocks/0/conv1/kernel`. The keys of an `nnx.List` are integers and stay integers, for the
text "10" would sort before "2".
"""

import hashlib
import math
import re
from typing import Any

import jax
import numpy as np


def leaves_by_path(tree: dict) -> dict[tuple, Any]:
    """Returns every leaf by its path, ("stages", 0, "blocks", 0, "conv1", "kernel"), in the order of jax."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaves[tuple(entry.key for entry in path)] = leaf
    return leaves


def shapes_by_path(tree: dict) -> dict[tuple, tuple]:
    """Returns the shape of every leaf by its path."""
    return {path: tuple(leaf.shape) for path, leaf in leaves_by_path(tree).items()}


def differences(tree: dict, expected: dict) -> list[str]:
    """Lists what keeps a tree from standing for another, a line for each leaf: missing, unknown, or of another shape.

    `nnx.merge` compares nothing but the number of leaves: swapped kernels and the key "0" for 0 pass it silently.
    """
    shapes, expected_shapes = shapes_by_path(tree), shapes_by_path(expected)
    lines = [f"{path}: missing" for path in expected_shapes.keys() - shapes.keys()]
    lines += [f"{path}: not known" for path in shapes.keys() - expected_shapes.keys()]
    for path in expected_shapes.keys() & shapes.keys():
        if shapes[path] != expected_shapes[path]:
            lines.append(f"{path}: {shapes[path]} found, {expected_shapes[path]} expected")
    return lines


def path_text(path: tuple) -> str:
    """Writes a path of jax's tree keys as text, of optax's states too: `stages/0/kernel`, `opt/1/0/trace/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def keys_text(keys: tuple) -> str:
    """Writes a path of plain keys, ("stages", 0, "kernel"), as text: `stages/0/kernel`."""
    return "/".join(map(str, keys))


def part_of(path: str) -> str:
    """Names the part of a network that a path lies in: `stages/0` of `stages/0/blocks/1`, `stem` of `stem/kernel`."""
    first, *rest = path.split("/")
    return f"{first}/{rest[0]}" if rest and rest[0].isdigit() else first


def mask_by_pattern(tree: dict, pattern: str) -> dict:
    """Returns a tree of booleans: whether a leaf's path, as text, holds a match of the regular expression."""
    return jax.tree_util.tree_map_with_path(lambda path, _: re.search(pattern, path_text(path)) is not None, tree)


def mask_by_paths(tree: dict, paths: set[tuple]) -> dict:
    """Returns a tree of booleans: whether the path of a leaf, ("stages", 0, "kernel"), is among those given."""
    return jax.tree_util.tree_map_with_path(lambda path, _: tuple(entry.key for entry in path) in paths, tree)


def paths_where(mask: dict) -> set[tuple]:
    """Returns the paths, ("stages", 0, "kernel"), of the leaves that are True."""
    return {path for path, is_true in leaves_by_path(mask).items() if is_true}


def count(tree: dict) -> int:
    """Counts the numbers that all leaves hold together."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def size_in_bytes(tree: dict) -> int:
    """Returns the bytes of all leaves together, which may be arrays or their shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def digest(tree: dict) -> str:
    """Returns the sha256, in hexadecimal, of paths, types, shapes and bits: equal digests mean bitwise equal trees."""
    sha256 = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha256.update(f"{path_text(path)} {array.dtype} {array.shape}\n".encode())
        sha256.update(np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


def split(tree: dict[Any, Any], mask: dict[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Parts a tree by a mask; `merge` joins the two parts again.

    A branch stands in a part only where that part has leaves in it, and a part without leaves is the empty dict. So
    neither holds an empty branch, which jax counts as structure: a state whose tree has one is not of the same
    structure as one that leaves it out. Keys are in sorted order, as jax puts them.

    Args:
        tree: arrays, or anything else that is no dict.
        mask: a tree of booleans with the same keys.

    Returns:
        The leaves where the mask is True, and those where it is False.

    Raises:
        ValueError: the mask has other keys.
    """
    if tree.keys() != mask.keys():
        raise ValueError(f"a mask with the keys {sorted(mask)} is not that of a tree with the keys {sorted(tree)}")
    where_true, where_false = {}, {}
    for key in sorted(tree):
        branch, branch_mask = tree[key], mask[key]
        if isinstance(branch, dict) != isinstance(branch_mask, dict):
            raise ValueError(f"at {key!r} one of tree and mask has a leaf, the other a branch")
        if isinstance(branch, dict):
            branch_where_true, branch_where_false = split(branch, branch_mask)
            if branch_where_true:
                where_true[key] = branch_where_true
            if branch_where_false:
                where_false[key] = branch_where_false
        elif branch_mask:
            where_true[key] = branch
        else:
            where_false[key] = branch
    return where_true, where_false


def merge(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Returns one tree with the leaves of two, its keys in sorted order, as jax puts them.

    Raises:
        ValueError: both trees hold a leaf in the same place, or one a leaf where the other has a branch.
    """
    merged = {}
    for key in sorted(first.keys() | second.keys()):
        if key not in second:
            merged[key] = first[key]
        elif key not in first:
            merged[key] = second[key]
        elif isinstance(first[key], dict) and isinstance(second[key], dict):
            merged[key] = merge(first[key], second[key])
        else:
            raise ValueError(f"both trees hold a leaf at {key!r}")
    return merged
