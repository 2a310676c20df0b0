"""Learned position embeddings for another grid of patches.

A table has a row for each patch, grid row by grid row, and may begin with the row of the class token, and of a
distilled DeiT's second token, which stand for no place and are handed on as they are. The others are resampled
"according to their location in the original image" (Vision Transformer, arXiv:2010.11929, section 3.2): the image is
thought to be the same, cut into more or fewer patches.

Implementations differ, and so do their numbers at another resolution than the weights':

| source | resampling |
|---|---|
| timm (`resample_abs_pos_embed`) | cubic, antialiased, centers of patches: what is done here |
| DeiT, MAE (`interpolate_pos_embed`) | cubic with a = -3/4, not antialiased, centers of patches |
| vision_transformer, big_vision | linear (`scipy.ndimage.zoom`, order 1), the outermost patches laid on one another |
| FlexiViT, in big_vision | linear, antialiased, centers of patches (`jax.image.resize`) |

Why this one: most published weights of vision transformers are used through timm, so that its numbers are the ones to
be the same as. Centers of patches are the locations in the image; the outermost patches of 7 x 7 lie elsewhere than
those of 14 x 14. With antialiasing a smaller grid averages over the larger one, where else most rows would count for
nothing.
"""

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.transfer.adapt.resampling import resampling_matrix

Grid = tuple[int, int]


def resize_positions(table: np.ndarray, old: Grid, new: Grid) -> np.ndarray:  # (T, D) -> (T, D)
    """Resamples a table of positions.

    The same grid gives the table itself. A grid that grows keeps straight lines in the interior, two patches away from
    the border; so does one that shrinks by a whole number.

    Args:
        table: float32, a row for each patch of the old grid, behind those of learned tokens if it has any.
        old: rows and columns of the patches that the table is of.
        new: rows and columns of the patches that it shall be of.

    Returns:
        float32, a row for each patch of the new grid, behind those of learned tokens if the table has any.

    Raises:
        UserError: the table has another number of rows.
    """
    others = len(table) - old[0] * old[1]
    if others not in (0, 1, 2):
        raise UserError(
            f"position embeddings of {len(table)} rows do not fit {old[0]}x{old[1]} patches, with a class token, "
            "with two learned tokens or without; the image size that these weights are said to be of is wrong"
        )
    if old == new:
        return table
    rows_of_tokens, patch_rows = table[:others], table[others:]
    grid = patch_rows.reshape(*old, -1).astype(np.float64)  # (Y, X, D)
    down = resampling_matrix(old[0], new[0], "cubic")
    across = resampling_matrix(old[1], new[1], "cubic")
    grid = np.einsum("yi,xj,ijd->yxd", down, across, grid, optimize=True)
    return np.concatenate([rows_of_tokens, grid.reshape(new[0] * new[1], -1).astype(table.dtype)])
