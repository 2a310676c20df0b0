"""What pooling costs and saves: every row of the published cost table is what `describe` says of that network."""

import re

import pytest
from published import describe_once, expected_by_check

QUESTION = re.compile(r"pool-(flat128|gap)-(SAME|VALID)-(max|avg|conv|none)")
HEADS = {"flat128": {"head": "dense", "hidden": (128,)}, "gap": {"head": "average", "hidden": ()}}
PADDINGS = {"SAME": 1, "VALID": 0}
# What makes the image smaller twice: a pooling of 2x2, or one more convolution of as many filters with a stride of 2.
DOWNSAMPLINGS = {
    "max": {"pooling": "max"},
    "avg": {"pooling": "average"},
    "conv": {"pooling": "none", "filters": (32, 32, 64, 64, 128), "stride": (1, 2, 1, 2, 1)},
    "none": {"pooling": "none"},
}


@pytest.mark.parametrize(("check", "expected"), expected_by_check("pooling/padding cost").items())
def test_a_row_of_the_cost_table_is_what_describe_says(check, expected):
    head, padding, downsampling = QUESTION.fullmatch(check).groups()
    changes = {**HEADS[head], **DOWNSAMPLINGS[downsampling], "padding": PADDINGS[padding]}
    description = describe_once("cnn/lecture", 32, **changes)
    assert f"{description.parameters} / {description.macs}" == expected


@pytest.mark.parametrize("pooling", ["average", "blur", "max_blur"])
def test_kinds_of_pooling_have_the_parameters_and_products_of_the_largest_value(pooling):
    description, of_max = (describe_once("cnn/lecture", 32, pooling=kind) for kind in (pooling, "max"))
    assert (description.parameters, description.macs) == (of_max.parameters, of_max.macs)


def test_a_stride_in_the_convolution_itself_costs_what_a_pooling_does():
    """The convolution behind a pooling, and the one with the stride, both have an output at each second pixel."""
    strided = describe_once("cnn/lecture", 32, pooling="none", stride=(1, 2, 2), head="average", hidden=())
    assert (strided.parameters, strided.macs) == (94_762, 10_323_200)  # as with max and average
