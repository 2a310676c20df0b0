"""The kernel that reads pixels, for patches of another size or images with another number of colors."""

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.transfer.adapt.resampling import resampling_matrix

COLORS = 3


def resize_patch_kernel(kernel: np.ndarray, new: tuple[int, int]) -> np.ndarray:  # (P, P, C, D) -> (Y, X, C, D)
    """Resamples the kernel of a patch embedding so that resized patches give the tokens that the patches gave.

    Resizing the kernel like an image would not do: a kernel of more weights on a patch of more pixels gives larger
    sums. Let B be the matrix that resizes a patch x, linearly. Sought is the kernel v with <B x, v> = <x, w> for every
    x, which is B^T v = w, solved by the pseudo-inverse: v = (B^T)^+ w (PI-resize of FlexiViT, arXiv:2212.08013).

    For larger patches this is exact, patch by patch: an image that is enlarged as a whole blends pixels of neighboring
    patches along their borders, which no kernel can undo. For smaller patches it is the best in the least squares
    over patches of noise. Here B is antialiased, as resized images are; FlexiViT's own code is not, which makes a
    difference for smaller patches only.

    Args:
        kernel: float32, of patches of P x P pixels.
        new: height and width of the patches that it shall be of, in pixels.
    """
    old = kernel.shape[:2]
    if old == new:
        return kernel
    # B acts on the two axes apart, and so does its pseudo-inverse.
    down = np.linalg.pinv(resampling_matrix(old[0], new[0], "linear").T)  # (Y, P)
    across = np.linalg.pinv(resampling_matrix(old[1], new[1], "linear").T)  # (X, P)
    resized = np.einsum("yi,xj,ijcd->yxcd", down, across, kernel.astype(np.float64), optimize=True)
    return resized.astype(kernel.dtype)


def change_channels(kernel: np.ndarray, channels: int) -> np.ndarray:  # (..., C, D) -> (..., C, D)
    """Makes a kernel that reads colors from one that reads gray, or the reverse.

    One channel from three: the weights of the colors are summed, so that a gray image gives what its gray colors
    gave. Three from one: a third of the weights for each color, so that an image whose colors are equal gives what
    gray gave, and any other what the average of its colors would give.

    Both hold for the numbers that enter the network. These are normalized, and the sum is exact only where the mean and
    std of the one channel are those of all three. With others, such as ImageNet's (0.485, 0.456, 0.406) beside
    their average, a gray image gives other numbers, by a scale and by a shift. A norm behind the kernel takes up most
    of it, if it is trained.

    Args:
        kernel: float32; the last axis but one is the channels of an image.
        channels: of the images that it shall read, 1 or 3.

    Raises:
        UserError: from or to another number of channels than 1 and 3.
    """
    old = kernel.shape[-2]
    if old == channels:
        return kernel
    if (old, channels) == (COLORS, 1):
        return kernel.sum(-2, keepdims=True, dtype=np.float64).astype(kernel.dtype)
    if (old, channels) == (1, COLORS):
        return np.repeat(kernel / kernel.dtype.type(COLORS), COLORS, axis=-2)
    raise UserError(
        f"weights of a network that reads {old} channels have no meaning for images of {channels}; "
        f"only 1 can become 3 and 3 become 1: set data.channels={old}"
    )
