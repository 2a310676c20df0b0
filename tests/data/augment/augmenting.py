"""How the tests of augmentation change a batch."""

import functools

import jax
import numpy as np

from cnn_vit.data import augment

QUICK = {"xla_backend_optimization_level": 0}  # the same program, compiled in half the time: it runs once or twice
MANY = 600  # rows where a distribution is looked at


@functools.cache
def compiled(names):
    return jax.jit(augment.build_augmentation(names, 10), compiler_options=QUICK)


def changed(operations, images, *, labels=None, seed=0):
    """Images and soft labels after the operations."""
    rows, mixing = jax.random.split(jax.random.key(seed))
    labels = np.arange(len(images)) % 10 if labels is None else labels
    keys = jax.random.split(rows, len(images))
    given = augment.operation_numbers(operations)
    return map(np.asarray, compiled(augment.operation_names(operations))(images, np.int32(labels), keys, mixing, given))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def moments(values):
    return np.mean(values), np.var(values)
