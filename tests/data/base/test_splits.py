"""Slices: taken from a fixed stratified order, disjoint, and refused in one sentence where they make no sense."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.data.base import splits
from cnn_vit.errors import UserError

few = settings(max_examples=40, deadline=None, derandomize=True, database=None)
class_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=6)
UNSET = dict.fromkeys(("train", "validation", "test"))


def order_by_hand(labels):
    """The rule of the order, one example after the other: its place is (rank + 1/2) / size of its class."""

    def shuffle_key(index):
        return hashlib.blake2b(str(index).encode(), digest_size=8, person=b"cnn_vit").digest()

    places = []
    for label in set(labels):
        members = [index for index, label_of_index in enumerate(labels) if label_of_index == label]
        for rank, index in enumerate(sorted(members, key=shuffle_key)):
            places.append((Fraction(2 * rank + 1, 2 * len(members)), label, index))
    return [index for _, _, index in sorted(places)]


def plan(counts, **slices):
    """The part and the positions of each split, and the notes."""
    split_plan = splits.plan_splits(counts, {**UNSET, **slices})
    positions = {split: (part, rows.tolist()) for split, (part, rows) in split_plan.positions.items()}
    return positions, split_plan.notes


@few
@given(sizes=class_sizes, shuffle=st.randoms(use_true_random=False))
def test_the_order_is_the_rule_applied_one_by_one(sizes, shuffle):
    labels = np.repeat(np.arange(len(sizes)), sizes).tolist()
    shuffle.shuffle(labels)
    assert splits.stratified_order(np.array(labels)).tolist() == order_by_hand(labels)


@few
@given(sizes=class_sizes, share=st.fractions(0, 1))
def test_any_prefix_holds_each_class_in_its_proportion(sizes, share):
    """Its share of the place reached, rounded; the place is off by half an example of each class at most."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    length = int(share * len(labels))
    counts = np.bincount(labels[splits.stratified_order(labels)[:length]], minlength=len(sizes))
    shares = np.array(sizes) / len(labels)
    even_counts = length * np.array(sizes) / len(labels)
    assert (abs(counts - even_counts) <= 0.5 + shares * len(sizes) / 2 + 1e-9).all()


def test_the_order_does_not_follow_the_file():
    labels = np.repeat([0, 1], 500)
    order = splits.stratified_order(labels)
    ranks_in_file = [order[order // 500 == label] % 500 for label in (0, 1)]  # of each class, in the order
    for ranks in ranks_in_file:
        assert abs(np.corrcoef(ranks, np.arange(500))[0, 1]) < 0.15
    assert (ranks_in_file[0] != ranks_in_file[1]).any()


def ordered_names(names):
    """Names like c1/07.jpg, whose second letter is the label, in stratified order."""
    labels = np.array([int(name[1]) for name in names])
    return [names[index] for index in splits.stratified_order(labels, names)]


def test_another_image_leaves_the_order_of_the_others():
    names = [f"c{index // 20}/{index:02}.jpg" for index in range(40)]
    before = ordered_names(names)
    after = ordered_names([*names[:5], "c0/04b.jpg", *names[5:]])
    after.remove("c0/04b.jpg")
    for class_name in ("c0", "c1"):
        assert [name for name in after if name.startswith(class_name)] == [
            name for name in before if name.startswith(class_name)
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", range(0, 1000)),
        ("train[:450]", range(0, 450)),
        ("train[ 45% : ]", range(450, 1000)),
        ("train[10%:20%]", range(100, 200)),
        ("train[12.25%:1_000]", range(123, 1000)),  # 122.5, halves up
        ("validation[:7]", range(0, 7)),
    ],
)
def test_a_slice_is_read_as_it_is_written(text, expected):
    parsed = splits.parse_slice(text, key="data.train")
    assert range(*parsed.bounds(1000, key="data.train")) == expected


@few
@given(count=st.integers(100, 2000), cuts=st.lists(st.integers(1, 99), min_size=2, max_size=2, unique=True))
def test_neighboring_slices_are_disjoint_and_cover_everything(count, cuts):
    low, high = sorted(cuts)
    positions_of_splits, _ = plan(
        {"train": count},
        train=f"train[:{low}%]",
        validation=f"train[{low}%:{high}%]",
        test=f"train[{high}%:]",
    )
    all_positions = []
    for _, positions in positions_of_splits.values():
        all_positions += positions
    assert sorted(all_positions) == list(range(count))


def test_unset_splits_are_the_parts():
    positions_of_splits, notes = plan({"train": 100, "validation": 10, "test": 20})
    sizes = {split: (part, len(positions)) for split, (part, positions) in positions_of_splits.items()}
    assert sizes == {"train": ("train", 100), "validation": ("validation", 10), "test": ("test", 20)}
    assert notes == []


def test_without_a_validation_part_a_tenth_of_train_is_taken_from_it():
    positions, notes = plan({"train": 100, "test": 20})
    assert positions["validation"] == ("train", list(range(10)))
    assert positions["train"] == ("train", list(range(10, 100)))
    assert notes == ["validation is a stratified tenth of train: 10 of 100"]


def test_the_tenth_comes_out_of_the_slice_that_train_is():
    positions, _ = plan({"train": 100}, train="train[50%:]")
    assert (positions["validation"][1], positions["train"][1]) == (list(range(50, 55)), list(range(55, 100)))


def test_an_unset_train_loses_what_the_slice_of_validation_takes():
    positions, notes = plan({"train": 100}, validation="train[90:]")
    assert positions["train"] == ("train", list(range(90)))
    assert notes == ["train is what other slices leave of it: 90 of 100"]


@pytest.mark.parametrize(
    ("slices", "sentence"),
    [
        ({"train": "trian[:10]"}, r"data.train is 'trian\[:10\]'; write train, train\[:45000\], train\[90%:\]"),
        ({"train": "train[10]"}, r"data.train is 'train\[10\]'; write train"),
        ({"train": "train[-10:]"}, r"data.train is 'train\[-10:\]'; write train"),
        ({"train": "train[:1.5]"}, "1.5 is not a number of examples"),
        ({"train": "train[:101%]"}, "101% is more than 100%"),
        ({"train": "train[20%:10%]"}, r"'train\[20%:10%\]', which holds nothing"),
        ({"train": "train[:101]"}, r"data.train is 'train\[:101\]', but train has 100 examples; ask for no more"),
        ({"train": "train[:0.1%]"}, r"data.train is 'train\[:0.1%\]', which holds none of the 100 examples"),
        ({"validation": "validation"}, r"the data has no validation split; it has train, test"),
        (
            {"train": "train[:60]", "validation": "train[50:]"},
            r"data.train=train\[:60\] and data.validation=train\[50:\] share 10 examples; write slices apart",
        ),
        ({"validation": "test[:5]", "test": "test"}, r"data.validation=test\[:5\] and data.test=test share 5 examples"),
        ({"validation": "test"}, "the slices that are set leave nothing of test; set data.test too"),
    ],
)
def test_slices_that_make_no_sense_are_refused(slices, sentence):
    with pytest.raises(UserError, match=sentence):
        plan({"train": 100, "test": 20}, **slices)


def test_a_selection_reads_the_images_at_its_positions():
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    names = [f"{index}.png" for index in range(10)]
    whole = splits.Split(np.arange(10, dtype=np.int32), pixels.__getitem__, names=names)
    selection = whole.select(np.array([7, 2, 5])).select(np.array([2, 0]))
    assert (selection.labels.tolist(), selection.names, len(selection)) == ([5, 7], ["5.png", "7.png"], 2)
    assert selection.read(np.array([1, 0, 1])).ravel().tolist() == [7, 5, 7]
