"""Parameter trees: parted by a mask and joined again, without empty branches on the way."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit import trees

examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def branches(children):
    """Dicts with leaves or branches, whose keys are names or the indices of a list; none is empty."""
    names = st.dictionaries(st.sampled_from(["head", "stages", "kernel", "bias"]), children, min_size=1, max_size=3)
    indices = st.dictionaries(st.sampled_from([0, 1, 2, 10]), children, min_size=1, max_size=3)
    return st.one_of(names, indices)


# A leaf is drawn with its place in the mask.
leaves = st.tuples(st.integers(0, 99), st.booleans())
marked_trees = branches(st.recursive(leaves, branches, max_leaves=12))


def is_marked_leaf(node):
    return isinstance(node, tuple)


def pick(tree, place):
    """The tree with one of the two values of each leaf."""
    return jax.tree.map(lambda leaf: leaf[place], tree, is_leaf=is_marked_leaf)


def find_empty_branches(tree):
    """Paths of the branches below the root that hold nothing."""
    empty = []
    for key, branch in tree.items():
        if branch == {}:
            empty.append(key)
        elif isinstance(branch, dict):
            empty += find_empty_branches(branch)
    return empty


@examples
@given(marked_trees)
def test_merge_joins_what_split_parted_with_the_same_keys_in_the_same_order(marked):
    tree, mask = pick(marked, 0), pick(marked, 1)  # jax.tree.map sorts the keys
    where_true, where_false = trees.split(tree, mask)
    for merged in (trees.merge(where_true, where_false), trees.merge(where_false, where_true)):
        assert repr(merged) == repr(tree)  # `==` would not see the order
        assert jax.tree.structure(merged) == jax.tree.structure(tree)


@examples
@given(marked_trees)
def test_each_part_has_the_leaves_of_its_side_and_no_empty_branch(marked):
    expected = {True: {}, False: {}}
    for path, (value, side) in jax.tree_util.tree_leaves_with_path(marked, is_leaf=is_marked_leaf):
        expected[side][jax.tree_util.keystr(path)] = value
    for side, part in zip([True, False], trees.split(pick(marked, 0), pick(marked, 1)), strict=True):
        values = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(part)}
        assert values == expected[side]
        assert find_empty_branches(part) == []


def test_a_part_without_leaves_is_the_empty_dict():
    tree = {"stages": {0: {"kernel": 1}}, "head": {"bias": 2}}
    everything = jax.tree.map(lambda _: True, tree)
    nothing = jax.tree.map(lambda _: False, tree)
    assert trees.split(tree, everything) == (tree, {})
    assert trees.split(tree, nothing) == ({}, tree)
    assert trees.split({}, {}) == ({}, {})


def test_an_empty_branch_is_in_neither_part():
    tree = {"stages": {0: {}}, "head": {"bias": 2}}
    assert trees.split(tree, {"stages": {0: {}}, "head": {"bias": True}}) == ({"head": {"bias": 2}}, {})


@pytest.mark.parametrize("mask", [{}, {"0": True}, {0: {"kernel": True}}, {0: True, 1: True}])
def test_a_mask_of_another_tree_is_refused(mask):
    with pytest.raises(ValueError, match="mask"):
        trees.split({0: 7}, mask)


def test_merge_refuses_two_leaves_in_one_place_and_a_leaf_beside_a_branch():
    with pytest.raises(ValueError, match="both trees hold a leaf at 'bias'"):
        trees.merge({"head": {"bias": 1}}, {"head": {"bias": 2}})
    with pytest.raises(ValueError, match="both trees hold a leaf at 'head'"):
        trees.merge({"head": {"bias": 1}}, {"head": 2})


def test_paths_and_mask_say_the_same():
    tree = {"stages": {0: {"kernel": np.zeros(2)}, 10: {"kernel": np.zeros(2)}}, "head": {"kernel": np.zeros(2)}}
    paths = {("stages", 10, "kernel"), ("head", "kernel")}
    mask = trees.mask_by_paths(tree, paths)
    assert mask == {"stages": {0: {"kernel": False}, 10: {"kernel": True}}, "head": {"kernel": True}}
    assert trees.paths_where(mask) == paths
    assert trees.keys_text(("stages", 10, "kernel")) == "stages/10/kernel"
