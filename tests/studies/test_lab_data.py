"""The experiments on data: their images are what they say, and what they count agrees with a count by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from cnn_vit import data
from cnn_vit.studies.lab import load_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def mixed_sizes():
    """The module of experiments/mixed_sizes."""
    return load_experiment(EXPERIMENTS / "mixed_sizes").module


@pytest.fixture(scope="module")
def data_in():
    """The module of experiments/data_in."""
    return load_experiment(EXPERIMENTS / "data_in").module


@pytest.mark.parametrize(
    ("start", "share"),
    # of 20 pixels the center crop keeps 5 to 14: a digit of 10 pixels lies in it with 10 pixels, 8, 5 or 5
    [(5, 1.0), (3, 0.8), (0, 0.5), (10, 0.5)],
)
def test_the_share_of_a_digit_in_the_center_is_counted_in_pixels(mixed_sizes, start, share):
    place = mixed_sizes.Place(side=10, length=20, start=start, is_upright=False)
    assert place.share_in_center == share


def test_each_image_is_a_digit_on_black_where_its_place_says(mixed_sizes):
    places = mixed_sizes.draw_places("test", 12)
    assert len({place.is_upright for place in places}) == 2
    for row, (image, label) in enumerate(itertools.islice(mixed_sizes.scattered("test"), len(places))):
        place = places[row]
        digits = data.load({"name": "digits", "image_size": place.side}).splits["test"]
        strip = image.swapaxes(0, 1) if place.is_upright else image
        assert strip.shape == (place.side, place.length, 1)
        end = place.start + place.side
        digit = strip[:, place.start : end]
        if place.is_upright:
            digit = digit.swapaxes(0, 1)
        assert (digit == digits.read(np.array([row]))[0]).all()
        assert label == digits.labels[row]
        assert not strip[:, : place.start].any()
        assert not strip[:, end:].any()


def test_a_digit_in_the_middle_is_never_cut(mixed_sizes):
    # to the pixel that is left over where the strip has an odd number of them beside the digit
    for place in mixed_sizes.draw_places("test", 50, is_centered=True):
        assert place.share_in_center >= 1 - 0.5 / place.side


def test_decoded_images_take_a_byte_for_each_level_of_each_color(data_in):
    shapes = {"name": "shapes", "image_size": 24, "train_count": 10, "validation_count": 1, "test_count": 0}
    split = data.load(shapes).splits["train"]
    assert data_in.decoded_bytes(10, 24) == split.read(np.arange(10)).nbytes == 10 * 24 * 24 * 3
    assert data_in.decoded_bytes(1, 224) == 150_528  # of one image of ImageNet


@pytest.mark.parametrize(
    ("files_pace", "memory_pace", "first_epoch"),
    # 10 / (10 - 8) = 5 epochs take as long either way; 20 / 18 lies between the first and the second
    [(8.0, 10.0, 6), (2.0, 20.0, 2), (5.0, 10.0, 3), (30.0, 40.0, 5)],
)
def test_decoding_once_pays_from_the_epoch_on_that_the_formula_gives(data_in, files_pace, memory_pace, first_epoch):
    def seconds_from_files(epochs):
        return sum(600 / files_pace for _ in range(epochs))

    def seconds_from_memory(epochs):
        return 600 / files_pace + sum(600 / memory_pace for _ in range(epochs))

    least = data_in.least_epochs(files_pace, memory_pace)
    for epochs in range(1, 2 * first_epoch):
        # a little beyond equality, which rounding would decide
        assert (epochs > least + 1e-9) == (seconds_from_files(epochs) > seconds_from_memory(epochs) + 1e-9)
    assert seconds_from_files(first_epoch) > seconds_from_memory(first_epoch) + 1e-9
    assert not first_epoch - 1 > least + 1e-9


def test_memory_that_is_no_faster_than_files_never_pays(data_in):
    assert data_in.least_epochs(10.0, 10.0) == data_in.least_epochs(20.0, 10.0) == float("inf")
