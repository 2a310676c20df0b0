"""SAME padding against PyTorch: as many pixels, and at stride 2 on even sides other numbers."""

import jax
import numpy as np
import pytest

from cnn_vit.analysis.calculator import calculate
from cnn_vit.nn.conv import Slide, plain_convolve

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def convolve_with_torch(images, kernel, *, stride, padding):
    """PyTorch's convolution of images and a kernel whose channels are last."""
    x, weight = torch.from_numpy(images.transpose(0, 3, 1, 2)), torch.from_numpy(kernel.transpose(3, 2, 0, 1))
    y = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    return y.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize(("side", "taps"), [(8, 3), (14, 5), (32, 3), (224, 7), (9, 3), (15, 5), (33, 3), (225, 7)])
def test_same_gives_as_many_pixels_as_torch_and_its_numbers_on_odd_sides_alone(side, taps):
    rng = np.random.default_rng(0)
    images, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((1, side, side, 2), (taps, taps, 2, 3)))
    half = taps // 2
    theirs = convolve_with_torch(images, kernel, stride=2, padding=half)
    (edges,) = jax.lax.padtype_to_pads((side,), (taps,), (2,), "SAME")
    same, symmetric = (
        np.asarray(plain_convolve(images, kernel, Slide((2, 2), (pair, pair), (1, 1), groups=1)))
        for pair in (tuple(map(int, edges)), (half, half))
    )
    assert same.shape == theirs.shape
    assert calculate("conv", n=side, k=taps, s=2, padding=half).output == theirs.shape[1]
    scale = np.abs(theirs).max()
    assert np.abs(symmetric - theirs).max() <= 1e-5 * scale
    assert (np.abs(same - theirs).max() <= 1e-5 * scale) == bool(side % 2)


def test_torch_has_no_same_padding_at_stride_2():
    images, kernel = np.ones((1, 8, 8, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    with pytest.raises(RuntimeError, match="padding='same' is not supported for strided convolutions"):
        convolve_with_torch(images, kernel, stride=2, padding="same")
