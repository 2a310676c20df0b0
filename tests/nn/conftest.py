"""The tests of layers promote dtypes strictly, and multiply float32 as float32 even where a platform would round it."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    with jax.numpy_dtype_promotion("strict"), jax.default_matmul_precision("highest"):
        yield
