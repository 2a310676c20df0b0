"""What each way to bring images to one size does to them and costs, in numbers that are counted by hand."""

import numpy as np
import pytest

from cnn_vit.data.base.padding import PaddedSizes
from cnn_vit.data.decode.images import fit_image

WHITE, BLACK = 255, 0


@pytest.mark.parametrize(("height", "width"), [(10, 20), (20, 10), (6, 24), (12, 12)])
def test_a_square_letterbox_is_filled_by_the_shorter_side_over_the_longer(height, width):
    image = np.full((height, width, 1), WHITE, np.uint8)
    letterbox = fit_image(image, (16, 16), f"pad({BLACK})")
    assert (letterbox == WHITE).mean() == min(height, width) / max(height, width)


@pytest.mark.parametrize(("height", "width", "first", "last"), [(8, 16, 4, 12), (16, 8, 4, 12), (8, 10, 1, 9)])
def test_a_square_center_crop_keeps_the_middle_of_the_longer_side(height, width, first, last):
    image = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)
    kept = image[:, first:last] if width > height else image[first:last]
    assert (fit_image(image, (8, 8), "crop") == kept).all()


def test_stretching_a_strip_to_a_square_keeps_its_ends_where_a_crop_loses_them():
    strip = np.zeros((8, 16, 1), np.uint8)
    strip[:, :2], strip[:, -2:] = 100, 200
    stretched = fit_image(strip, (8, 8), "stretch")
    assert (stretched[:, -1] > stretched[:, 0]).all()
    assert (stretched[:, 0] > 0).all()
    assert not fit_image(strip, (8, 8), "crop").any()


def test_a_lying_and_an_upright_image_in_one_batch_leave_half_of_it_outside():
    # 2 x 4 and 4 x 2 pixels need a canvas of 4 x 4 each: 16 of 32 pixels belong to no image. Alone, none do.
    sizes = PaddedSizes(np.array([[2, 4], [4, 2]], np.int32), buckets=((2, 4), (4, 2), (4, 4)))
    for examples, outside in (([0, 1], 0.5), ([0], 0.0), ([1], 0.0)):
        mask = sizes.mask(np.array(examples), sizes.bucket_for(np.array(examples)))
        assert 1 - mask.mean() == outside
