"""Every family runs: any legal size, colors and dtype; features then head; chance in training only."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_vit import models
from cnn_vit.errors import UserError
from cnn_vit.nn.values import functional

FAMILIES = sorted(models.names())
RANDOM = {
    "mlp": {"dropout": 0.5},
    "cnn": {"dropout": 0.5},
    "vit": {"dropout": 0.5},
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_float32_and_features_keep_the_dtype(family, dtype, valued, images):
    network = valued(f"{family}/test", image_size=(8, 16), channels=1)
    batch = images((2, 8, 16, 1)).astype(dtype)
    scores, features = network.run(batch), network.features(batch)
    assert (scores.shape, scores.dtype) == ((2, 3), jnp.float32)
    assert (features.shape[0], features.dtype) == (2, dtype)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_head_of_the_features(family, valued, images):
    network = valued(f"{family}/test", image_size=(16, 8))
    kernel = network.params["head"]["kernel"] = np.arange(
        network.params["head"]["kernel"].size, dtype=np.float32
    ).reshape(-1, 3)
    bias = network.params["head"]["bias"] = np.float32([1, 2, 3])
    batch = images((2, 16, 8, 3))
    np.testing.assert_allclose(network.run(batch), network.features(batch) @ kernel + bias, rtol=2e-5, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_computes_about_the_same_as_float32(family, valued, images):
    network = valued(f"{family}/test", image_size=8, channels=1)
    batch = images((2, 8, 8, 1))
    exact, rough = network.features(batch), network.features(batch.astype(jnp.bfloat16)).astype(jnp.float32)
    assert not np.array_equal(exact, rough)  # it did compute in the shorter type
    np.testing.assert_allclose(rough, exact, rtol=0.1, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize("family", sorted(RANDOM))
def test_dropout_follows_its_key_in_training_and_rests_otherwise(family, valued, images):
    network = valued(f"{family}/test", image_size=8, channels=1, **RANDOM[family])
    batch = images((2, 8, 8, 1))
    rest = network.features(batch)
    one, same, other = (network.features(batch, train=True, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, rest)
    np.testing.assert_array_equal(network.features(batch, key=jax.random.key(1)), rest)


@pytest.mark.parametrize("family", sorted(RANDOM))
def test_dropout_without_a_key_is_refused(family, valued, images):
    network = valued(f"{family}/test", image_size=8, channels=1, **RANDOM[family])
    with pytest.raises(Exception, match="rngs"):
        network.features(images((2, 8, 8, 1)), train=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_without_chance_needs_no_key(family, valued, images):
    network = valued(f"{family}/test", image_size=8, channels=1)
    assert np.isfinite(network.run(images((2, 8, 8, 1)), train=True)).all()


@pytest.mark.parametrize("family", ["cifar_resnet", "cnn", "resnet"])
def test_every_batch_norm_moves_in_training(family):
    network = functional(models.build(f"{family}/test", 3, image_size=8))
    call = lambda p, s: network.apply(p, s, jnp.ones((2, 8, 8, 3)), train=True)  # noqa: E731
    _, stats = jax.eval_shape(call, network.params, network.stats)
    assert jax.tree.structure(stats) == jax.tree.structure(network.stats)
    assert len(jax.tree.leaves(stats)) == 2 * {"cifar_resnet": 7, "cnn": 2, "resnet": 12}[family]


@pytest.mark.parametrize("family", ["mlp", "lenet", "vit"])
def test_a_network_of_fixed_size_refuses_another(family, valued, images):
    network = valued(f"{family}/test", image_size=(8, 16))
    with pytest.raises(UserError, match="images of 16x8 pixels; this network is built for 8x16"):
        network.run(images((2, 16, 8, 3)))


BUILD = """
import jax
from cnn_vit.models import build
from cnn_vit.nn.values import first_values, functional
for name in {names}:
    network = functional(build(name, 10))
    leaves = jax.tree.leaves((network.params, network.stats))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves), name
    values = jax.tree.leaves(first_values(network, 0))
    assert [value.shape for value in values] == [leaf.shape for leaf in leaves], name
    assert all(type(value).__module__ == "numpy" for value in values), name
try:
    jax.numpy.zeros(1)
except RuntimeError:
    raise SystemExit(0)
raise SystemExit("this platform should not exist")
"""


@pytest.mark.parametrize(
    "names",
    [[f"{family}/test" for family in FAMILIES], pytest.param(["resnet/50", "vit/B16"], marks=pytest.mark.slow)],
    ids=["test", "large"],
)
def test_building_and_first_values_touch_no_device(names, monkeypatch):
    """On a platform that does not exist nothing can be placed or compiled, which is what costs the seconds."""
    monkeypatch.setenv("JAX_PLATFORMS", "nowhere")
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(names=names)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_without_values_says_so_when_it_is_called(family):
    network = models.build(f"{family}/test", 10, image_size=32)
    with pytest.raises(UserError, match=r"this network has no values, only shapes: cnn_vit.load\(RUN\)"):
        network(jnp.zeros((1, 32, 32, 3)))


def test_every_first_value_of_every_family_is_drawn_where_it_should_be(valued):
    """A ViT's head and token start at 0, as in Google's code; the other heads do not."""
    assert not np.any(valued("vit/test").params["head"]["kernel"])
    assert not np.any(valued("vit/test").params["cls_token"])
    assert all(np.any(valued(f"{family}/test").params["head"]["kernel"]) for family in FAMILIES if family != "vit")
