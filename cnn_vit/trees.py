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


def shapes_by_path(tree: dict) -> dict[tuple, tuple]:
    """Returns the shape of every leaf by its path, ("stages", 0, "blocks", 0, "conv1", "kernel")."""
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys = tuple(entry.key for entry in path)
        shapes[keys] = tuple(leaf.shape)
    return shapes


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


def mask_by_pattern(tree: dict, pattern: str) -> dict:
    """Returns a tree of booleans: whether a leaf's path, as text, holds a match of the regular expression."""
    return jax.tree_util.tree_map_with_path(lambda path, _: re.search(pattern, path_text(path)) is not None, tree)


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


def merge(first: dict[Any, Any], second: dict[Any, Any]) -> dict[Any, Any]:
    """Returns one tree with the leaves of two.

    Raises:
        ValueError: both trees hold a leaf in the same place, or one a leaf where the other has a branch.
    """
    merged = dict(first)
    for key, branch in second.items():
        if key not in merged:
            merged[key] = branch
        elif isinstance(branch, dict) and isinstance(merged[key], dict):
            merged[key] = merge(merged[key], branch)
        else:
            raise ValueError(f"both trees hold a leaf at {key!r}")
    return merged
