"""What stands around an image that a window slides over: zeros, or pixels of the image itself.

| kind | beside the first pixels a b c of a row that ends with x y z | exactly right for |
|---|---|---|
| zero | 0 0 [a b c | none |
| circular | y z [a b c | images that are shifted around: what leaves at one side comes in at the other |
| reflect | c b [a b c | none |
| edge | a a [a b c | none |

"Right" means that the layer commutes with the shift: the shifted image gives the shifted output. No padding at all is
right for a window that moves over a larger image. `experiments/padding` measures how far the others are from it.

Axes:
    B batch    H, W image height and width    R, S height and width with padding    C channels
"""

from typing import Literal

import jax
import jax.numpy as jnp

from cnn_vit.errors import UserError, unknown

PaddingKind = Literal["zero", "circular", "reflect", "edge"]
ZERO = "zero"
# The names that NumPy and JAX have for the kinds; PyTorch says "zeros", "circular", "reflect" and "replicate".
MODES = {ZERO: "constant", "circular": "wrap", "reflect": "reflect", "edge": "edge"}
# How many pixels more than the padding a side needs; zero and edge need none, for they repeat what is there.
LEAST_MORE = {"circular": 0, "reflect": 1}


def check_padding_kind(kind: str) -> str:
    """Returns a kind of padding.

    Raises:
        UserError: there is none of that name.
    """
    if kind not in MODES:
        raise unknown("kind of padding", kind, MODES)
    return kind


def surround(
    x: jax.Array, padding: tuple[tuple[int, int], tuple[int, int]], kind: str
) -> jax.Array:  # (B, H, W, C) -> (B, R, S, C)
    """Surrounds images with pixels of a kind.

    Args:
        x: images.
        padding: pixels around them, ((top, bottom), (left, right)).
        kind: of MODES.

    Raises:
        UserError: the images have too few pixels to fill the padding with.
    """
    for pixels, pair in zip(x.shape[1:3], padding, strict=True):
        needed = max(pair) + LEAST_MORE.get(kind, -max(pair))
        if pixels < needed:
            raise UserError(
                f"{kind} padding of {max(pair)} pixels needs an image of {needed} pixels, not {pixels}; make the "
                "padding smaller or the image larger"
            )
    return jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=MODES[kind])
