"""Gradients of every family's network over many rows: python float64_gradients.py float32 gradients.npz

In float32 under the compiler options in force, or in float64 under those of jaxlib, for comparison. Rectifiers are made
smooth (softplus), because a rectifier whose input is rounded across 0 has another gradient and no fault.

The file has an array for each parameter, FAMILY/ROWS/PATH. ROWS counts examples x positions behind the first layer,
which sums run over: at and just above 16,384 and 32,768, where faults of jaxlib began.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np

DTYPE, FILE = sys.argv[1:3]
# Set before cnn_vit is imported, which looks some of these up while it is.
jax.nn.relu = jax.nn.softplus
jax.nn.relu6 = lambda x: jax.nn.softplus(x) - jax.nn.softplus(x - 6)
if DTYPE == "float64":
    jax.config.update("jax_enable_x64", True)
    jnp.float32 = jnp.float64

from cnn_vit import compilation, trees  # noqa: E402
from cnn_vit.nn import pool  # noqa: E402
from cnn_vit.nn.values import initial_values  # noqa: E402
from cnn_vit.training import devices, forward  # noqa: E402
from cnn_vit.training.rules import RuleSpec  # noqa: E402

CLASSES = 4
AROUND = (0, 1)
# Side of the images in pixels, and positions behind the first layer, of each family's smallest network.
FAMILIES = {
    "mlp/test": (4, 1, {}),
    "lenet/test": (16, 256, {}),
    "cnn/test": (8, 64, {}),
    "cifar_resnet/test": (8, 64, {}),
    "efficientnet/test": (16, 64, {}),
    "mobilenet_v1/test": (16, 64, {}),
    "mobilenet_v2/test": (16, 64, {}),
    "resnet/test": (16, 64, {}),
    "convnext/test": (16, 16, {}),
    "deit/test": (16, 16, {}),
    "vgg/test": (8, 64, {}),
    "vit/test": (16, 16, {"pool": "average"}),
}


class Float64NumPy:
    """NumPy, but for `float32`, which is float64."""

    float32 = np.float64

    def __getattr__(self, name):
        return getattr(np, name)


def batch_gradient(model, side, batch_size, keywords):
    """The gradient of the mean loss of random images, by path of the parameter."""
    spec = forward.NetworkSpec(model, tuple(keywords.items()), CLASSES, (side, side, 3), "float32", RuleSpec("softmax"))
    network = forward.get_network(spec)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(batch_size, side, side, 3)), rng.integers(0, CLASSES, batch_size)
    params, stats = jax.tree.map(lambda leaf: leaf.astype(DTYPE), initial_values(network, 0))

    def mean_loss(params, images):
        scores, _ = network.apply(params, stats, images, train=True)
        return -jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1).mean()

    compiled = jax.jit(jax.grad(mean_loss))
    if DTYPE == "float32":
        compiled = compilation.jit(jax.grad(mean_loss), forward.program_kind(spec, devices.mesh()))
    gradient = compiled(params, images.astype(DTYPE))
    leaves = jax.tree_util.tree_leaves_with_path(gradient)
    return {trees.path_text(path): np.asarray(leaf, np.float64) for path, leaf in leaves}


def main():
    """Writes the gradients of all families and sizes."""
    if DTYPE == "float64":
        pool.np = Float64NumPy()
    arrays = {}
    for model, (side, positions, keywords) in FAMILIES.items():
        for rows in (16_384, 32_768):
            for more in AROUND:
                batch_size = rows // positions + more
                gradient = batch_gradient(model, side, batch_size, keywords)
                arrays |= {f"{model}/{batch_size * positions}/{path}": leaf for path, leaf in gradient.items()}
    np.savez(FILE, **arrays)


main()
