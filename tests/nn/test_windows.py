"""How many windows fit: floor((side + padding - dilation (window - 1) - 1) / stride) + 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers import few_examples

from cnn_vit.errors import UserError
from cnn_vit.nn.windows import height_and_width, normalize_padding, output_size

small = st.integers(0, 3)


@few_examples
@given(
    pixels=st.integers(1, 12),
    window=st.integers(1, 4),
    stride=st.integers(1, 4),
    padding=st.tuples(small, small),
    dilation=st.integers(1, 3),
)
def test_windows_are_counted_as_they_are_laid(pixels, window, stride, padding, dilation):
    reach = dilation * (window - 1) + 1
    padded_side = pixels + sum(padding)
    starts = [start for start in range(0, padded_side, stride) if start + reach <= padded_side]
    if starts:
        assert output_size(pixels, window, stride=stride, padding=padding, dilation=dilation) == len(starts)
    else:
        with pytest.raises(UserError, match=f"a window of {reach} pixels does not fit into {pixels}"):
            output_size(pixels, window, stride=stride, padding=padding, dilation=dilation)


def test_one_number_means_every_side():
    assert height_and_width(3, "stride") == (3, 3)
    assert height_and_width((3, 1), "stride") == (3, 1)
    assert normalize_padding(2) == ((2, 2), (2, 2))
    assert normalize_padding(((0, 1), (2, 3))) == ((0, 1), (2, 3))


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", (3,), (3, 0), (1, 2, 3), True, (True, 2), None])
def test_sides_that_are_not_pixels_are_refused(value):
    with pytest.raises(UserError, match=r"stride .* is neither a whole number of pixels above 0 nor two of them"):
        height_and_width(value, "stride")


@pytest.mark.parametrize(
    "value", ["SAME", "VALID", -1, 1.5, (1, 1), ((1, 1),), ((1, 1), (1,)), ((1, 1), (1, -1)), None, True]
)
def test_padding_that_is_not_pixels_is_refused(value):
    with pytest.raises(UserError, match="padding"):
        normalize_padding(value)
