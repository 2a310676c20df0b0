"""The backward pass of a ViT works block by block: no fused loop of its program reads the values of many blocks."""

import re

import jax
import jax.numpy as jnp

from cnn_vit import compilation
from cnn_vit.compilation import ProgramKind
from cnn_vit.models.vit import ViT
from cnn_vit.nn.forms import only_plain_forms
from cnn_vit.nn.values import functional

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def most_operands_of_a_fusion(depth):
    """Counts the inputs of the fused loop with the most of them that computes an array, in a ViT's compiled gradient.

    Fusions that compute single numbers do not count: the sums over all gradients read one value of each.
    """
    network = functional(ViT(10, patch=4, width=64, depth=depth, heads=2, hidden=128, image_size=32))

    def loss(params, images):
        scores, _ = network.apply(params, network.stats, images, train=True)
        return jnp.square(scores).sum()

    kind = ProgramKind("cpu", convolutional=False, dtype="float32")
    program = compilation.jit(jax.grad(loss), kind).lower(network.params, IMAGES).compile().as_text()
    most = 0
    for shape, operands in re.findall(r" = (\S+) fusion\(([^)]*)\)", program):
        if "[]" not in shape:
            most = max(most, operands.count("%"))
    return most


def test_the_largest_fusion_of_a_vit_does_not_grow_with_its_depth():
    assert most_operands_of_a_fusion(2) == most_operands_of_a_fusion(8)


def test_the_plain_forms_are_seen_to_grow():
    """Their sums over tokens, in the gradients of biases and norms, are fused with the blocks that come later."""
    with only_plain_forms():
        assert most_operands_of_a_fusion(8) > 2 * most_operands_of_a_fusion(2)
