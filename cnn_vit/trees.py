"""Parameter trees: nested dicts of arrays, each leaf named by the keys on its way.

A path is written `stages/0/blocks/0/conv1/kernel`. Keys of an `nnx.List` are integers and stay so: the text "10" would
sort before "2".
"""

import hashlib
import math
import re
from typing import Any

import jax
import numpy as np


def shapes_by_path(tree: dict) -> dict[tuple, tuple]:
    """Shape of every leaf by its path, ("stages", 0, "blocks", 0, "conv1", "kernel")."""
    return {
        tuple(entry.key for entry in path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def differences(found: dict, expected: dict) -> list[str]:
    """What keeps one tree from standing for another, a line per leaf.

    `nnx.merge` compares nothing but the number of leaves: swapped kernels and the key "0" for 0 pass it silently.
    """
    have, want = shapes_by_path(found), shapes_by_path(expected)
    return [
        *(f"{path}: missing" for path in want.keys() - have.keys()),
        *(f"{path}: not known" for path in have.keys() - want.keys()),
        *(
            f"{path}: {have[path]} found, {want[path]} expected"
            for path in want.keys() & have.keys()
            if have[path] != want[path]
        ),
    ]


def path_text(path: tuple) -> str:
    """The written form of a path of tree keys, of optax's states too: `stages/0/kernel`, `opt/1/0/trace/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def mask_by_pattern(tree: dict, pattern: str) -> dict:
    """A tree of booleans: whether the regular expression is found in the leaf's path."""
    return jax.tree_util.tree_map_with_path(lambda path, _: re.search(pattern, path_text(path)) is not None, tree)


def count(tree: dict) -> int:
    """Numbers held by all leaves together."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def digest(tree: dict) -> str:
    """sha256 of paths, types, shapes and bits: equal digests mean bitwise equal trees."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{path_text(path)} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def merge(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """One tree of the leaves of two that share no leaf."""
    merged = dict(first)
    for key, branch in second.items():
        if key not in merged:
            merged[key] = branch
        elif isinstance(branch, dict) and isinstance(merged[key], dict):
            merged[key] = merge(merged[key], branch)
        else:
            raise ValueError(f"both trees hold a leaf at {key!r}")
    return merged
