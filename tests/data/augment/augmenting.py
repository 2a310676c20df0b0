"""How the tests of augmentation change a batch."""

import functools

import jax
import numpy as np
from quick import QUICK

from cnn_vit.data import augment

MANY = 600  # rows where a distribution is looked at


@functools.cache
def compiled(names):
    """The compiled augmentation of these operations, for ten classes."""
    return jax.jit(augment.build_augmentation(names, 10), compiler_options=QUICK)


def augmented(operations, images, *, labels=None, seed=0):
    """Images and soft labels after the operations."""
    key_of_rows, mix_key = jax.random.split(jax.random.key(seed))
    labels = np.arange(len(images)) % 10 if labels is None else labels
    row_keys = jax.random.split(key_of_rows, len(images))
    augmentation = compiled(augment.operation_names(operations))
    numbers = augment.operation_numbers(operations)
    return map(np.asarray, augmentation(images, np.int32(labels), row_keys, mix_key, numbers))


def noise(*shape, seed=0):
    """Even random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def mean_and_variance(samples):
    return np.mean(samples), np.var(samples)
