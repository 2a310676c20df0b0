"""The backward pass works block by block: no loop that XLA fuses reads the values of many blocks."""

import re

import jax
import jax.numpy as jnp
import pytest
from quick import MACHINE_CODE

from cnn_vit import compilation
from cnn_vit.compilation import ProgramKind
from cnn_vit.models.cifar_resnet import ResNet
from cnn_vit.models.vit import ViT
from cnn_vit.nn import conv
from cnn_vit.nn.forms import only_plain_forms
from cnn_vit.nn.values import functional

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def build_vit(depth):
    """A small ViT of so many blocks."""
    return ViT(10, patch=4, width=64, depth=depth, heads=2, hidden=128, image_size=32)


def count_operands(network, *, named=""):
    """Counts the inputs of each fused loop that computes arrays, in a network's compiled gradient.

    Loops that compute single numbers are left out: the sums over all gradients read one value of each.

    Args:
        network: without values.
        named: what the name of a loop must hold.
    """
    network = functional(network)

    def loss(params, stats, images):
        scores, _ = network.apply(params, stats, images, train=True)
        return jnp.square(scores).sum()

    kind = ProgramKind("cpu", convolutional=False, dtype="float32")
    lowered = compilation.jit(jax.grad(loss), kind).lower(network.params, network.stats, IMAGES)
    options = compilation.options_to_set(kind) | MACHINE_CODE  # loops are fused as ever
    program = lowered.compile(options).as_text()
    counts = []
    for name, shapes, operands in re.findall(r"%?(\S+) = (.+?) fusion\(([^)]*)\)", program):
        if named in name and re.search(r"\[\d", shapes):
            counts.append(operands.count("%"))
    return counts


def test_the_largest_loop_of_a_vit_does_not_grow_with_its_depth():
    assert max(count_operands(build_vit(2))) == max(count_operands(build_vit(6)))


def test_in_the_plain_forms_of_a_vit_it_is_seen_to_grow():
    """Sums over tokens, in the gradients of biases and norms, are fused with the blocks before them."""
    with only_plain_forms():
        assert max(count_operands(build_vit(6))) > 2 * max(count_operands(build_vit(2)))


@pytest.fixture
def _forget_traced_forms():
    """Clears what JAX has traced: a form is traced once for all layers, and then keeps what it calls."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("_forget_traced_forms")
def test_the_weight_gradients_of_a_resnet_read_less_where_images_are_materialized(monkeypatch):
    """Else the loops that transpose images are fused with the residual stream of all earlier blocks of the stage."""
    network = ResNet(10, blocks=4, filters=8)
    with_materialized_images = sum(count_operands(network, named="transpose"))
    jax.clear_caches()
    monkeypatch.setattr(conv, "materialize", lambda x: x)
    assert sum(count_operands(network, named="transpose")) > 1.5 * with_materialized_images
