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
