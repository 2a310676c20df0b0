"""Every family runs on any legal size, colors and dtype: features then head, random draws in training only."""

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


def for_each_family(slow):
    """Parametrizes a test that compiles by the families, some of which are slow."""
    cases = [pytest.param(family, marks=pytest.mark.slow if family in slow else ()) for family in FAMILIES]
    return pytest.mark.parametrize("family", cases)


COSTLY = ("efficientnet", "mobilenet_v2")  # of many layers, which take long to compile
WITH_DROPOUT = ["cnn", "mlp", *(pytest.param(family, marks=pytest.mark.slow) for family in ("vgg", *COSTLY)), "vit"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_float32_and_features_keep_the_dtype(family, dtype, make_network):
    network = make_network(f"{family}/test", image_size=(8, 16), channels=1)
    batch = jax.ShapeDtypeStruct((2, 8, 16, 1), dtype)
    scores, features = network.shapes(batch), network.shapes(batch, "features")
    assert (scores.shape, scores.dtype) == ((2, 3), jnp.float32)
    assert (features.shape[0], features.dtype) == (2, dtype)


# What is compiled of DeiT is what is compiled of ViT: tests/models/test_deit.py compares their programs.
@for_each_family(slow=("deit", *COSTLY))
def test_scores_are_the_head_of_the_features(family, make_network, images):
    network = make_network(f"{family}/test", image_size=(16, 8))
    head = network.params["head"]
    head["kernel"] = np.arange(head["kernel"].size, dtype=np.float32).reshape(-1, 3)
    head["bias"] = np.float32([1, 2, 3])
    batch = images((2, 16, 8, 3))
    expected = network.features(batch) @ head["kernel"] + head["bias"]
    scores = network.run(batch)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, expected, rtol=2e-5, atol=1e-3)


@for_each_family(slow=("convnext", "deit", *COSTLY))
def test_bfloat16_computes_about_the_same_as_float32(family, make_network, images):
    network = make_network(f"{family}/test", image_size=8, channels=1)
    batch = images((2, 8, 8, 1))
    exact, rough = network.features(batch), network.features(batch.astype(jnp.bfloat16)).astype(jnp.float32)
    assert np.isfinite(rough).all()
    assert not np.array_equal(exact, rough)  # it did compute in the shorter type
    np.testing.assert_allclose(rough, exact, rtol=0.1, atol=0.05 * np.abs(exact).max())


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_dropout_follows_its_key_in_training_and_does_nothing_otherwise(family, make_network, images):
    network = make_network(f"{family}/test", image_size=8, channels=1, dropout=0.5)
    batch = images((2, 8, 8, 1))
    without = network.features(batch)
    first = network.features(batch, train=True, key=jax.random.key(1))
    again = network.features(batch, train=True, key=jax.random.key(1))
    of_another_key = network.features(batch, train=True, key=jax.random.key(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, of_another_key)
    assert not np.allclose(first, without)
    np.testing.assert_array_equal(network.features(batch, key=jax.random.key(1)), without)


@pytest.mark.parametrize("family", WITH_DROPOUT)
def test_dropout_without_a_key_is_refused(family, make_network, images):
    network = make_network(f"{family}/test", image_size=8, channels=1, dropout=0.5)
    with pytest.raises(Exception, match="rngs"):
        network.features(images((2, 8, 8, 1)), train=True)


@for_each_family(slow=("convnext", "deit", "mobilenet_v2"))
def test_training_without_dropout_needs_no_key(family, make_network, images):
    network = make_network(f"{family}/test", image_size=8, channels=1)
    assert np.isfinite(network.run(images((2, 8, 8, 1)), train=True)).all()


@pytest.mark.parametrize("family", ["cifar_resnet", "cnn", "efficientnet", "mobilenet_v1", "mobilenet_v2", "resnet"])
def test_every_batch_norm_moves_in_training(family):
    network = functional(models.build(f"{family}/test", 3, image_size=8))

    def train_call(params, stats):
        return network.apply(params, stats, jnp.ones((2, 8, 8, 3)), train=True)

    _, stats = jax.eval_shape(train_call, network.params, network.stats)
    assert jax.tree.structure(stats) == jax.tree.structure(network.stats)
    batch_norms = {
        "cifar_resnet": 7, "cnn": 2, "efficientnet": 7, "mobilenet_v1": 5, "mobilenet_v2": 7, "resnet": 12
    }  # fmt: skip
    assert len(jax.tree.leaves(stats)) == 2 * batch_norms[family]  # a mean and a variance each


@pytest.mark.parametrize("family", ["mlp", "lenet", "vit"])
def test_a_network_of_fixed_size_refuses_another(family, make_network, images):
    network = make_network(f"{family}/test", image_size=(8, 16))
    with pytest.raises(UserError, match="images of 16x8 pixels; this network is built for 8x16"):
        network.run(images((2, 16, 8, 3)))


BUILD = """
import jax
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
for name in {names}:
    network = functional(build(name, 10))
    leaves = jax.tree.leaves((network.params, network.stats))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves), name
    values = jax.tree.leaves(initial_values(network, 0))
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
def test_building_and_initial_values_touch_no_device(names, monkeypatch):
    """On a platform that does not exist nothing can be placed or compiled, which is what costs the seconds."""
    monkeypatch.setenv("JAX_PLATFORMS", "nowhere")
    process = subprocess.run(
        [sys.executable, "-c", BUILD.format(names=names)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_calling_a_network_without_values_is_refused(family):
    network = models.build(f"{family}/test", 10, image_size=32)
    with pytest.raises(UserError, match=r"this network has no values, only shapes: cnn_vit.load\(RUN\)"):
        network(jnp.zeros((1, 32, 32, 3)))


def test_only_transformers_start_with_a_head_of_zeros(make_network):
    """A ViT's head and token start at 0, as in Google's code, and so do DeiT's; the other heads do not."""
    assert not np.any(make_network("vit/test").params["head"]["kernel"])
    assert not np.any(make_network("vit/test").params["cls_token"])
    for family in FAMILIES:
        starts_at_zero = not np.any(make_network(f"{family}/test").params["head"]["kernel"])
        assert starts_at_zero == (family in ("deit", "vit")), family
