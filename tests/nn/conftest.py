"""Strict dtype promotion, and products of float32 in float32 where a platform would round them first."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.default_matmul_precision("highest"):
        yield
