"""Networks with values, and strict dtype promotion: a sum of bfloat16 and float32 is an error."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from quick import QUICK

from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        yield


class NetworkWithValues:
    """A network with its initial values; each kind of call is compiled once."""

    def __init__(self, name: str, num_classes: int = 3, **changes):
        self.graph, *_ = nnx.split(build(name, num_classes, **changes), nnx.Param, nnx.BatchStat)
        self.network = functional(build(name, num_classes, **changes))
        self.params, self.stats = initial_values(self.network, seed=1)

    @cache  # noqa: B019, a network lives as long as its test
    def compiled(self, method, train):
        def call(params, stats, images, key):
            network = nnx.merge(self.graph, params, stats)
            rngs = None if key is None else nnx.Rngs(dropout=key)
            return getattr(network, method)(images, train=train, rngs=rngs)

        return jax.jit(call, compiler_options=QUICK)

    def run(self, images, *, method="__call__", train=False, key=None):
        """Runs a method of the network on images."""
        return self.compiled(method, train)(self.params, self.stats, images, key)

    def shapes(self, images, method="__call__"):
        """Shape and dtype of what a method of the network gives for images, which are not computed."""
        return self.compiled(method, False).eval_shape(self.params, self.stats, images, None)

    def features(self, images, **keywords):
        return self.run(images, method="features", **keywords)


@pytest.fixture
def make_network():
    """Makes a network with values: `make_network(name, num_classes, **keywords)`."""
    return NetworkWithValues


@pytest.fixture
def images():
    """Makes random images of any shape (B, H, W, C), of mean 0 and standard deviation 1."""
    return partial(jax.random.normal, jax.random.key(0), dtype=jnp.float32)
