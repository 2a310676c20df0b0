"""EfficientNet's paddings: as many zeros at each side, or as many as TensorFlow's SAME."""

import ast
import csv
from pathlib import Path

import jax.numpy as jnp
import pytest

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.models.efficientnet import divide_size, pad_like_tensorflow


def published_paddings():
    """(pixels, filter side, stride) and (positions, zeros before, zeros after) of XLA's SAME, from the tables."""
    rows = csv.DictReader((Path(__file__).parents[1] / "tables" / "checks.csv").open(newline=""))
    cases = []
    for row in rows:
        kind, *numbers = row["id"].split("-")
        if kind == "same" and numbers[-1] == "1":  # no holes in the filter
            cases.append((tuple(map(int, numbers[:3])), ast.literal_eval(row["expected"])))
    return cases


@pytest.mark.parametrize(("case", "expected"), published_paddings())
def test_same_pads_as_tensorflow_does(case, expected):
    pixels, side, stride = case
    assert (divide_size((pixels, pixels), stride)[0], *pad_like_tensorflow(pixels, side, stride)) == expected


def depthwise_paddings(name, image_size):
    """Zeros around the input of each depthwise convolution with a stride."""
    network = models.build(name, 3, image_size=image_size)
    paddings = []
    for stage in network.stages:
        for block in stage.blocks:
            if block.depthwise.stride == (2, 2):
                paddings.append(block.depthwise.padding)
    return paddings


def test_the_zeros_follow_the_size_that_each_layer_sees():
    """224: 112, 56, 28 and 14 pixels are halved, all even. 225 x 230: 113 x 115, 57 x 58, 29 x 29 and 15 x 15."""
    before_3, before_5 = ((0, 1), (0, 1)), ((1, 2), (1, 2))
    assert depthwise_paddings("efficientnet/B0-tf", 224) == [before_3, before_5, before_3, before_5]
    odd = [((1, 1), (1, 1)), ((2, 2), (1, 2)), ((1, 1), (1, 1)), ((2, 2), (2, 2))]
    assert depthwise_paddings("efficientnet/B0-tf", (225, 230)) == odd
    symmetric = [((1, 1), (1, 1)), ((2, 2), (2, 2))] * 2
    assert depthwise_paddings("efficientnet/B0", 224) == depthwise_paddings("efficientnet/B0", 225) == symmetric


def test_a_network_with_same_padding_is_built_for_one_image_size():
    network = models.build("efficientnet/test-tf", 3, image_size=(8, 16))
    with pytest.raises(UserError, match="images of 16x8 pixels; this network is built for 8x16"):
        network(jnp.zeros((1, 16, 8, 3)))
