"""Positions for another grid, the first kernel for other patches or channels: against others' code, and by meaning."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_vit.errors import UserError
from cnn_vit.transfer.adapt.patches import change_channels, resize_patch_kernel
from cnn_vit.transfer.adapt.positions import resize_positions
from cnn_vit.transfer.adapt.resampling import resampling_matrix

examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


FILTERS = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


def resize_with_pillow(images, size, kernel):
    """Images (B, H, W, C) of another size, each channel by itself as a float32 image of Pillow."""
    resized = np.empty((len(images), *size, images.shape[-1]), np.float32)
    for b in range(len(images)):
        for c in range(images.shape[-1]):
            channel = Image.fromarray(np.ascontiguousarray(images[b, ..., c]))
            resized[b, ..., c] = channel.resize((size[1], size[0]), FILTERS[kernel])
    return resized


# Resampling along one axis --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
@pytest.mark.parametrize(("old", "new"), [(7, 7), (7, 14), (14, 7), (14, 5), (3, 8), (8, 3), (1, 4), (4, 1), (16, 14)])
def test_samples_are_weighted_as_pillow_weighs_them(kernel, old, new):
    """The columns of an image whose pixels are a unit matrix are the unit vectors."""
    unit_vectors = np.eye(old, dtype=np.float32).reshape(1, old, old, 1)
    expected = resize_with_pillow(unit_vectors, (new, old), kernel)[0, ..., 0]
    np.testing.assert_allclose(resampling_matrix(old, new, kernel), expected, atol=3e-7)


def test_a_sample_between_two_is_weighted_by_hand():
    """Two of one: three quarters and one quarter at the distances 1/4 and 3/4; Keys' kernel by its polynomials."""
    assert resampling_matrix(4, 8, "linear")[3].tolist() == [0, 0.75, 0.25, 0]
    near, far = 1.5 / 64 - 2.5 / 16 + 1, 1.5 * 27 / 64 - 2.5 * 9 / 16 + 1
    beyond = -0.5 * 1.25**3 + 2.5 * 1.25**2 - 4 * 1.25 + 2
    outermost = -0.5 * 1.75**3 + 2.5 * 1.75**2 - 4 * 1.75 + 2
    # the sample at 1.25 reads those at 0, 1, 2, 3
    np.testing.assert_allclose(resampling_matrix(4, 8, "cubic")[3], [beyond, near, far, outermost], atol=1e-12)


# Positions ------------------------------------------------------------------------------------------------------------


@examples
@given(old=grids, new=grids, others=st.integers(0, 2))
def test_positions_are_an_image_that_pillow_resizes_with_learned_tokens_apart(old, new, others):
    table = draw(others + old[0] * old[1], 3)
    resized = resize_positions(table, old, new)
    assert (resized.shape, resized.dtype) == ((others + new[0] * new[1], 3), np.float32)
    np.testing.assert_array_equal(resized[:others], table[:others])
    expected = resize_with_pillow(table[others:].reshape(1, *old, 3), new, "cubic")
    np.testing.assert_allclose(resized[others:], expected.reshape(-1, 3), atol=3e-6)


@pytest.mark.slow
def test_positions_are_those_of_torch():
    """timm calls `interpolate(mode="bicubic", antialias=True)`."""
    torch = pytest.importorskip("torch", reason="torch is no dependency")
    for old, new in [((7, 7), (12, 5)), ((14, 14), (7, 9)), ((2, 3), (5, 7))]:
        table = draw(old[0] * old[1], 4)
        images = torch.from_numpy(table.reshape(1, *old, 4).transpose(0, 3, 1, 2))
        expected = torch.nn.functional.interpolate(images, size=new, mode="bicubic", antialias=True)
        resized = resize_positions(table, old, new).reshape(*new, 4).transpose(2, 0, 1)
        np.testing.assert_allclose(resized, expected[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("others", [0, 1, 2])
def test_positions_of_the_same_grid_are_the_same_array(others):
    table = draw(others + 12, 5)
    assert resize_positions(table, (3, 4), (3, 4)) is table


def test_another_grid_of_as_many_patches_is_resized():
    table = draw(37, 2)
    resized = resize_positions(table, (4, 9), (6, 6))
    assert resized.shape == table.shape
    assert np.abs(resized[1:] - table[1:]).max() > 0.1


@examples
@given(old=grids, new=grids)
def test_equal_positions_stay_equal(old, new):
    table = np.full((old[0] * old[1], 2), np.float32(0.7))
    np.testing.assert_allclose(resize_positions(table, old, new), 0.7, rtol=1e-6)


@pytest.mark.parametrize(("old", "new"), [((8, 6), (13, 9)), ((6, 8), (12, 24)), ((24, 12), (12, 6))])
def test_a_straight_line_stays_one_in_the_interior(old, new):
    """A table that holds the centers of its patches, as shares of the image, becomes one that holds the new centers."""

    def centers(grid):
        rows, columns = np.mgrid[: grid[0], : grid[1]]
        return np.stack([(rows + 0.5) / grid[0], (columns + 0.5) / grid[1]], axis=-1)

    table = centers(old).reshape(-1, 2).astype(np.float32)
    resized = resize_positions(table, old, new).reshape(*new, 2)
    # two old patches at each border, in new ones
    down, across = (int(np.ceil(2 * after / before)) + 1 for before, after in zip(old, new, strict=True))
    inside = np.s_[down:-down, across:-across]
    assert resized[inside].size > 0
    np.testing.assert_allclose(resized[inside], centers(new)[inside], atol=1e-6)


@pytest.mark.parametrize("rows", [11, 15, 1, 0])
def test_a_table_of_another_number_of_patches_is_refused(rows):
    with pytest.raises(UserError, match=f"position embeddings of {rows} rows do not fit 3x4 patches"):
        resize_positions(draw(rows, 2), (3, 4), (5, 5))


# Patches --------------------------------------------------------------------------------------------------------------


def embed(images, kernel):
    """Tokens of patches: products of (B, P, P, C) and (P, P, C, D), summed up."""
    return np.einsum("bijc,ijcd->bd", images.astype(np.float64), kernel.astype(np.float64))


@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 8)), ((4, 4), (7, 5)), ((4, 4), (4, 6)), ((2, 2), (32, 32))])
def test_an_enlarged_patch_gives_the_token_that_the_patch_gave(old, new):
    patches, kernel = draw(5, *old, 3), draw(*old, 3, 6, seed=1)
    resized = resize_patch_kernel(kernel, new)
    assert (resized.shape, resized.dtype) == ((*new, 3, 6), np.float32)
    enlarged = resize_with_pillow(patches, new, "linear")
    np.testing.assert_allclose(embed(enlarged, resized), embed(patches, kernel), atol=1e-5)
    # A kernel that is resized as images are would give larger sums, for there are more pixels.
    wrong = resize_with_pillow(kernel.transpose(3, 0, 1, 2), new, "linear").transpose(1, 2, 3, 0)
    assert np.abs(embed(enlarged, wrong) - embed(patches, kernel)).max() > 1


@pytest.mark.parametrize("new", [(8, 8), (3, 2), (5, 9)])
def test_a_patch_kernel_is_the_least_squares_solution_of_one_matrix_for_both_axes(new):
    kernel = draw(6, 6, 2, 4)
    unit_images = np.eye(36, dtype=np.float32).reshape(36, 6, 6, 1)
    resize = resize_with_pillow(unit_images, new, "linear").reshape(36, -1)  # a row: what becomes of one pixel
    for channel in range(2):
        expected, *_ = np.linalg.lstsq(resize, kernel[:, :, channel].reshape(36, 4), rcond=1e-6)
        resized = resize_patch_kernel(kernel, new)[:, :, channel].reshape(-1, 4)
        np.testing.assert_allclose(resized, expected, atol=2e-5)


def test_a_kernel_of_the_same_patch_and_channels_is_the_same_array():
    kernel = draw(4, 4, 3, 6)
    assert resize_patch_kernel(kernel, (4, 4)) is kernel
    assert change_channels(kernel, 3) is kernel


# Channels -------------------------------------------------------------------------------------------------------------


def test_a_gray_image_gives_what_its_gray_colors_gave():
    gray, kernel = draw(5, 4, 4, 1), draw(4, 4, 3, 6, seed=1)
    reading_gray = change_channels(kernel, 1)
    assert (reading_gray.shape, reading_gray.dtype) == ((4, 4, 1, 6), np.float32)
    np.testing.assert_allclose(embed(gray, reading_gray), embed(np.repeat(gray, 3, axis=-1), kernel), atol=1e-5)


def test_colors_give_what_their_average_gave_in_gray():
    colors, kernel = draw(5, 4, 4, 3), draw(4, 4, 1, 6, seed=1)
    reading_colors = change_channels(kernel, 3)
    assert (reading_colors.shape, reading_colors.dtype) == ((4, 4, 3, 6), np.float32)
    average = colors.mean(-1, keepdims=True)
    np.testing.assert_allclose(embed(colors, reading_colors), embed(average, kernel), atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(3, 4), (4, 3), (1, 2), (2, 1)])
def test_other_channels_are_refused(old, new):
    with pytest.raises(UserError, match=f"reads {old} channels have no meaning for images of {new}"):
        change_channels(draw(4, 4, old, 6), new)
