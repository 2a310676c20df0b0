"""Positions: what tells attention, to which all orders of its tokens are the same, where in the image a token stands.

| kind | what it does | where |
|---|---|---|
| `LearnedPositions` | adds a learned row to each token | before the blocks |
| `ConcatenatedPositions` | puts a learned row beside each token; a dense layer maps both | before the blocks |
| `sincos_positions` | fixed rows, to be added | before the blocks |
| `rotate` | turns queries and keys, so that their products depend on how far apart two tokens are | in each attention |
| `relative_scores` | learned scores for each head and each offset from one patch to another | in each attention |

Axes:
    B batch    N tokens    D width    Y, X rows and columns of the patches    A heads    E width of a head
    F pairs of numbers that are turned, half the width of a head    V, U offsets up and down, and across, with none
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit.errors import UserError
from cnn_vit.nn.dense import Dense
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
        return x + self.read_rows(x, rows)

    def read_rows(self, x: jax.Array, rows: np.ndarray | None) -> jax.Array:  # (B, N, D) -> (N, D)
        """Returns the row of each token of x, in the dtype of x; arguments and error are those of the call."""
        embedding = self.embedding[...].astype(x.dtype)
        if rows is not None:
            embedding = embedding[rows]  # (N, D)
        # Without this check a single row would be added to all tokens silently, by broadcasting.
        if x.shape[1:] != embedding.shape:
            raise ValueError(f"tokens of shape {x.shape[1:]} do not fit learned positions of shape {embedding.shape}")
        return embedding


class ConcatenatedPositions(LearnedPositions):
    """Puts a learned row of numbers beside those of each token, and maps both to the width by a dense layer.

    A linear map of two vectors side by side is the sum of a map of each: [x, p] W + b = x W1 + (p W2 + b), where W1 is
    the upper half of W and W2 the lower. So a learned row is added to the mapped token, as LearnedPositions does.

    Attributes:
        embedding: (tokens, width), a row for each token in their order.
        join: the dense layer, (2 * width, width); its first `width` inputs are the token's.

    Args:
        tokens: tokens of a sequence; fixed.
        width: numbers per token, and per row.
    """

    def __init__(self, tokens: int, width: int):
        super().__init__(tokens, width)
        self.join = Dense(2 * width, width, initializer="xavier_uniform")

    def __call__(self, x: jax.Array, rows: np.ndarray | None = None) -> jax.Array:  # (B, N, D) -> (B, N, D)
        """Joins the tokens with all rows in order, or with those whose indices are `rows` (N,).

        Raises:
            ValueError: if the tokens are not as many, or not as wide, as the rows.
        """
        positions = jnp.broadcast_to(self.read_rows(x, rows), x.shape)  # (B, N, D)
        return self.join(jnp.concatenate([x, positions], axis=-1))


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


def rotary_angles(height: int, width: int, features: int, *, temperature: float = 100.0) -> np.ndarray:  # -> (N, F)
    """Computes by how much `rotate` turns the tokens of a grid: (height * width, features / 2) float32, in radians.

    The first half of the angles are the column, the second half the row, each times temperature ** -(i / quarter) for i
    from 0 to quarter - 1, where quarter = features / 4.

    Source: RoFormer, arXiv:2104.09864, on two axes as in Heo et al., arXiv:2403.13298 (axial, with its temperature for
    images; RoFormer's 10,000 is made for texts).

    Args:
        height: rows of the grid.
        width: columns of the grid.
        features: numbers per head.
        temperature: the slowest wave is nearly as many times slower than the fastest, which turns by 1 radian a patch.

    Raises:
        UserError: if the features are not a multiple of 4.
    """
    if features % 4 or features < 4:
        raise UserError(
            f"heads of {features} numbers are no multiple of 4; rotary positions turn pairs of them on two axes"
        )
    quarter = features // 4
    frequencies = temperature ** -(np.arange(quarter) / quarter)
    rows, columns = np.divmod(np.arange(height * width), width)
    return np.concatenate([np.outer(columns, frequencies), np.outer(rows, frequencies)], axis=1).astype(np.float32)


def rotate(x: jax.Array, angles: np.ndarray) -> jax.Array:  # (B, N, A, E), (N, F) -> (B, N, A, E)
    """Turns each pair of numbers i and i + E / 2 of each token in the plane by the token's angle i.

    The product of a query turned by s and a key turned by t is that of the query and the key turned by t - s: it
    depends on the offset from one token to the other, and on nothing else of where they stand.

    Raises:
        ValueError: if the angles are not those of as many tokens, with half as many numbers as a head.
    """
    if angles.shape != (x.shape[1], x.shape[-1] // 2):
        raise ValueError(f"angles of shape {angles.shape} do not fit heads of shape {x.shape[1:]}")
    cos = jnp.asarray(np.cos(angles)[:, None], x.dtype)  # (N, 1, F)
    sin = jnp.asarray(np.sin(angles)[:, None], x.dtype)  # (N, 1, F)
    pairs = angles.shape[1]
    first, second = x[..., :pairs], x[..., pairs:]
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def relative_scores(table: jax.Array, grid: tuple[int, int]) -> jax.Array:  # (A, V, U) -> (A, N, N)
    """Returns a score of each patch of a grid for each other, the reader first, by the offset from one to the other.

    Source: the relative position bias of Swin Transformer, arXiv:2103.14030, equation 4.

    Args:
        table: a score for each head and offset, (heads, 2 * rows - 1, 2 * columns - 1) of the largest grid. The middle
            is the reader, and what lies below and to the right of it is for patches below and to the right of the
            reader.
        grid: rows and columns of the patches, at most those of the largest grid.
    """
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    # [i, j] is the offset from patch i, the reader, to patch j; an offset of 0 is the middle of the table.
    down = rows - rows[:, None] + table.shape[1] // 2
    across = columns - columns[:, None] + table.shape[2] // 2
    return table[:, down, across]
