"""Position embeddings: numbers added to a token that tell its position in the image."""

import jax
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.values import declare


class LearnedPositions(nnx.Module):
    """Adds a learned row of numbers to each token.

    Attributes:
        embedding: (tokens, width), a row for each token in their order.

    Args:
        tokens: tokens of a sequence; fixed.
        width: numbers per token.
        initializer: distribution of the initial values; normal(0.02) is that of the ViT paper's code (big_vision's is
            normal with standard deviation 1 / sqrt(width)).
    """

    def __init__(self, tokens: int, width: int, *, initializer: str = "normal(0.02)"):
        self.embedding = declare(nnx.Param, (tokens, width), initializer)

    def __call__(self, x: jax.Array, rows: np.ndarray | None = None) -> jax.Array:  # (B, N, D) -> (B, N, D)
        """Adds the table's rows to the tokens: all rows in order, or those whose indices are `rows` (N,).

        Raises:
            ValueError: if the tokens are not as many, or not as wide, as the rows.
        """
        embedding = self.embedding[...].astype(x.dtype)
        if rows is not None:
            embedding = embedding[rows]  # (N, D)
        # Without this check a single row would be added to all tokens silently, by broadcasting.
        if x.shape[1:] != embedding.shape:
            raise ValueError(f"tokens of shape {x.shape[1:]} do not fit learned positions of shape {embedding.shape}")
        return x + embedding


def sincos_positions(
    height: int, width: int, features: int, *, temperature: float = 10_000.0
) -> np.ndarray:  # -> (N, D)
    """Computes fixed positions of a grid in two dimensions: (height * width, features) float32, tokens row by row.

    The features are four quarters: sine and cosine of the column, then sine and cosine of the row, each times
    temperature ** -(i / (features / 4 - 1)) for i from 0 to features / 4 - 1, so that the slowest wave is
    1 / temperature (a single one is 1). This is the layout of big_vision's `posemb_sincos_2d` (Simple ViT,
    arXiv:2205.01580). It follows MoCo v3 (arXiv:2104.02057) except for two things: MoCo v3 divides i by features / 4,
    and its tokens run down the columns.

    Raises:
        UserError: if the features are not a multiple of 4.
    """
    if features % 4 or features < 4:
        raise UserError(
            f"{features} features are not a multiple of 4; sin-cos positions are sines and cosines of two axes"
        )
    quarter = features // 4
    # A single wave would divide 0 by 0; its exponent is 0.
    frequencies = temperature ** -(np.arange(quarter) / max(quarter - 1, 1))
    rows, columns = np.divmod(np.arange(height * width), width)
    row_angles = np.outer(rows, frequencies)
    column_angles = np.outer(columns, frequencies)
    waves = [np.sin(column_angles), np.cos(column_angles), np.sin(row_angles), np.cos(row_angles)]
    return np.concatenate(waves, axis=1).astype(np.float32)
