"""Decoding: the same pixels in any container are the same array; any other file is refused in one sentence."""

import functools
import io
import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from cnn_vit.data.decode import images

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
EXACT = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}  # lossless formats and their options


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image, kind="PNG", **options):
    """The bytes of an image file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def empty_png(width, height):
    """A PNG whose header states a size and that has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# The same pixels, the same array


@pytest.mark.parametrize("kind", EXACT)
def test_colors_survive_every_exact_container(kind):
    pixels = noise(9, 7, 3)
    decoded = images.decode(encoded(pixels, kind, **EXACT[kind]), channels=3)
    np.testing.assert_array_equal(decoded, pixels)
    assert decoded.dtype == np.uint8


def test_a_jpeg_is_what_pillow_decodes():
    content = encoded(noise(16, 24, 3), "JPEG", quality=90)
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(content, channels=3), expected)


def gray_files(levels):
    """Files of one gray image (H, W) in every mode that can hold it exactly."""
    image = Image.fromarray(levels)
    opaque = Image.new("L", image.size, 255)
    palette = Image.fromarray(levels)  # each level is the place of its own color
    palette.putpalette(np.repeat(np.arange(256), 3).tolist())
    return {
        "L": encoded(image),
        "LA": encoded(Image.merge("LA", (image, opaque))),
        "P": encoded(palette),
        "GIF": encoded(image, "GIF"),
        "RGB": encoded(Image.merge("RGB", (image,) * 3)),
        "RGBA": encoded(Image.merge("RGBA", (image, image, image, opaque))),
        "16 bits": encoded(Image.fromarray(levels.astype(np.uint16) * 257)),
        "16 bits TIFF": encoded(Image.fromarray(levels.astype(np.uint16) * 257), "TIFF"),
    }


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "P", "GIF", "RGB", "RGBA", "16 bits", "16 bits TIFF"])
def test_gray_is_the_same_in_every_mode(mode, channels):
    levels = noise(8, 11)
    expected = np.repeat(levels[..., None], channels, axis=-1)
    np.testing.assert_array_equal(images.decode(gray_files(levels)[mode], channels=channels), expected)


def test_one_bit_is_black_and_white():
    bits = noise(9, 10) > 127
    for kind in ("PNG", "TIFF", "PPM"):
        decoded = images.decode(encoded(Image.fromarray(bits), kind), channels=1)
        np.testing.assert_array_equal(decoded[..., 0], 255 * bits)


def test_sixteen_bits_are_scaled_and_rounded_not_clipped():
    levels = np.array([[0, 128, 129, 257, 30000, 65535]], np.uint16)  # 30000 / 257 = 116.73
    assert images.decode(encoded(Image.fromarray(levels)), channels=1)[..., 0].tolist() == [[0, 0, 1, 1, 117, 255]]


def test_gray_of_colors_is_itu_601_luma():
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.uint8)
    expected = np.rint(colors @ np.array([0.299, 0.587, 0.114]))  # 76, 150, 29, 18
    np.testing.assert_array_equal(images.decode(encoded(colors), channels=1)[..., 0], expected)
    np.testing.assert_array_equal(images.to_channels(colors, 1)[..., 0], expected)


def test_transparent_pixels_lie_on_white():
    pixels = np.array([[[0, 0, 0, 0], [200, 100, 0, 255], [0, 0, 0, 51]]], np.uint8)  # 51 / 255 of black: 204
    assert images.decode(encoded(pixels), channels=3).tolist() == [[[255] * 3, [200, 100, 0], [204] * 3]]


def test_cmyk_is_decoded_to_its_colors():
    colors = np.zeros((16, 16, 3), np.uint8) + np.array([200, 40, 90], np.uint8)
    content = encoded(Image.fromarray(colors).convert("CMYK"), "JPEG", quality=95)
    assert abs(images.decode(content, channels=3).astype(int) - colors).max() <= 4  # what JPEG changes


def test_an_animation_gives_its_first_frame():
    first, second = noise(8, 8), noise(8, 8, seed=1)
    content = encoded(first, "GIF", save_all=True, append_images=[Image.fromarray(second)], duration=100)
    np.testing.assert_array_equal(images.decode(content, channels=1)[..., 0], first)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_upright_image(orientation):
    upright = noise(6, 9, 3)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]  # EXIF 2.32, tag 274: what the first row and column of the stored image show
    exif = Image.Exif()
    exif[274] = orientation
    for kind in ("PNG", "WEBP", "TIFF"):
        content = encoded(np.ascontiguousarray(stored), kind, exif=exif, **EXACT[kind])
        np.testing.assert_array_equal(images.decode(content, channels=3), upright)
        header = images.read_header(content)
        assert (header.height, header.width) == (6, 9)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_orientation_leaves_the_image_readable():
    content = encoded(noise(16, 16, 3), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert images.decode(content, channels=3).shape == (16, 16, 3)


def test_junk_behind_the_end_changes_nothing():
    pixels = noise(8, 8, 3)
    np.testing.assert_array_equal(images.decode(encoded(pixels) + b"junk" * 100, channels=3), pixels)


@pytest.mark.parametrize(
    ("image", "colored"),
    [
        (noise(4, 5), False),
        (noise(4, 5, 3), True),
        (np.uint16(noise(4, 5)), False),
        (noise(4, 5) > 9, False),
        (Image.fromarray(noise(4, 5)).convert("LA"), False),
        (Image.fromarray(noise(4, 5, 3)).quantize(8), True),
        (Image.fromarray(noise(4, 5)).convert("P"), False),
    ],
)
def test_a_header_states_size_and_color(image, colored):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    kinds = ["PNG", "TIFF"]
    if image.mode not in ("LA", "I;16"):
        kinds.append("BMP")  # which cannot hold those
    for kind in kinds:
        header = images.read_header(encoded(image, kind))
        assert (header.height, header.width, header.colored) == (4, 5, colored)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM"])
def test_a_header_is_read_from_the_beginning_and_nothing_is_decoded(kind, monkeypatch):
    content = encoded(noise(100, 80, 3), kind)[:2000]
    with pytest.raises(images.UnreadableError):
        images.decode(content, channels=3)
    loads = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loads.append(image))
    header = images.read_header(content)
    assert (header.height, header.width) == (100, 80)
    assert not loads


# Files that are not images


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty, 0 bytes; replace it or remove it"),
        (b"hello", "not an image of a kind that is read (JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM), or its beginning is "
         "damaged; replace it or remove it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer, not the image; run git "
         "lfs pull"),
        (b"\n <!DOCTYPE html><html>", "an HTML page, perhaps what a server answered instead; download it again"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript; export it as PNG or JPEG"),
        (b"%PDF-1.7", "a PDF; export its pages as PNG or JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a vector drawing (SVG); export it as PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, AVIF or a video; convert it to JPEG or PNG"),
        (empty_png(40_000, 40_000), f"40,000 x 40,000 pixels, more than 50,000,000; {images.SMALLER}"),
        (empty_png(8_000, 8_000), f"8,000 x 8,000 pixels, more than 50,000,000; {images.SMALLER}"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_an_image_is_refused_with_a_remedy(content, sentence):
    for read in (images.read_header, functools.partial(images.decode, channels=3)):
        with pytest.raises(images.UnreadableError) as caught:
            read(content)
        # Pillow itself refuses the larger of the two headers, and its error does not state the size.
        message = str(caught.value).replace(
            "more than 50,000,000 pixels", "40,000 x 40,000 pixels, more than 50,000,000"
        )
        assert message == sentence


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_a_cut_file_is_damaged(kind):
    content = encoded(noise(32, 32, 3), kind)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(images.UnreadableError):
            images.decode(content[: int(share * len(content))], channels=3)


def test_a_wrong_checksum_is_damage():
    content = bytearray(encoded(noise(32, 32, 3)))
    content[content.index(b"IDAT") + 40] ^= 1
    with pytest.raises(images.UnreadableError, match="damaged"):
        images.decode(bytes(content), channels=3)


def test_a_comment_that_unpacks_to_too_much_is_damage():
    content = encoded(noise(4, 4, 3))
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000))
    pixels_start = content.index(b"IDAT") - 4
    with pytest.raises(images.UnreadableError, match=r"damaged \(Decompressed data too large"):
        images.decode(content[:pixels_start] + bomb + content[pixels_start:], channels=3)


def test_floating_point_pixels_are_refused():
    with pytest.raises(images.UnreadableError, match="floating-point pixels of unknown range; save it with 8"):
        images.decode(encoded(Image.fromarray(np.float32(noise(4, 4))), "TIFF"), channels=1)


@few
@given(data=st.data())
def test_no_damage_raises_anything_but_ours(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]))
    content = bytearray(encoded(noise(12, 12, 3), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = images.decode(bytes(content), channels=3)
    except images.UnreadableError:
        return
    assert decoded.dtype == np.uint8
    assert decoded.shape[2:] == (3,)


# Sizes


def tents(pixels, size, *, box):
    """Antialiased bilinear resizing as two products: a tent over the source, as wide as the reduction."""

    def weights(source_length, count, low, high):
        scale = (high - low) / count
        reach = max(scale, 1)
        centers = low + (np.arange(count)[:, None] + 0.5) * scale
        tent = np.maximum(1 - abs(np.arange(source_length) + 0.5 - centers) / reach, 0)
        return tent / tent.sum(axis=1, keepdims=True)

    (top, left, bottom, right), (height, width) = box, size
    row_weights = weights(pixels.shape[0], height, top, bottom)
    column_weights = weights(pixels.shape[1], width, left, right)
    return np.einsum("yh,hwc,xw->yxc", row_weights, pixels.astype(float), column_weights)


@few
@given(
    heights_and_widths=st.tuples(*[st.integers(2, 24)] * 4),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["crop", "stretch"]),
)
def test_resizing_is_the_product_of_two_tents(heights_and_widths, channels, fit):
    height, width, *size = heights_and_widths
    pixels = noise(height, width, channels)
    part_height, part_width = height, width
    if fit == "crop":
        scale = min(height / size[0], width / size[1])
        part_height, part_width = scale * size[0], scale * size[1]
    top, left = (height - part_height) // 2, (width - part_width) // 2
    box = top, left, min(top + part_height, height), min(left + part_width, width)
    resized = images.fit_image(pixels, tuple(size), fit)
    assert resized.shape == (*size, channels)
    assert abs(resized - tents(pixels, size, box=box)).max() <= 2  # Pillow rounds between its two passes


def test_the_same_size_keeps_the_bits_and_a_mere_crop_too():
    pixels = noise(11, 14, 3)
    np.testing.assert_array_equal(images.fit_image(pixels, (11, 14), "crop"), pixels)
    np.testing.assert_array_equal(images.fit_image(pixels, (11, 10), "crop"), pixels[:, 2:12])
    np.testing.assert_array_equal(images.fit_image(pixels[:, :11], (8, 11), "crop"), pixels[1:9, :11])


RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
by_interpolation = pytest.mark.parametrize("interpolation", RESAMPLING)


@by_interpolation
@pytest.mark.parametrize(
    ("image_size", "whole", "corner"),
    [
        ((300, 403), (256, 343), (16, 60)),  # 256 * 403 / 300 = 343.9 columns; half of 119 is rounded to the even 60
        ((403, 300), (343, 256), (60, 16)),
        ((400, 301), (340, 256), (58, 16)),  # 256 * 400 / 301 = 340.2 rows
        ((256, 256), (256, 256), (16, 16)),  # a mere crop
        ((224, 224), (256, 256), (16, 16)),  # an image of the wanted size is enlarged and cropped
        ((90, 101), (256, 287), (16, 32)),  # half of 63 is rounded to the even 32
    ],
)
def test_crop_of_seven_eighths_is_the_published_resize_to_256_and_the_middle_224(
    image_size, whole, corner, interpolation
):
    """torchvision.transforms: Resize(256), CenterCrop(224) of a Pillow image, worked out by hand for each size."""
    pixels = noise(*image_size, 3)
    resized = np.asarray(Image.fromarray(pixels).resize((whole[1], whole[0]), RESAMPLING[interpolation]))
    top, left = corner
    expected = resized[top : top + 224, left : left + 224]
    cropped = images.fit_image(pixels, (224, 224), "crop(0.875)", interpolation)
    np.testing.assert_array_equal(cropped, expected)


@few
@given(
    heights_and_widths=st.tuples(*[st.integers(1, 40)] * 4),
    share=st.sampled_from([0.1, 0.5, 0.875, 0.9, 0.95, 1.0]),
    channels=st.sampled_from([1, 3]),
    interpolation=st.sampled_from(list(RESAMPLING)),
)
def test_crop_of_a_share_keeps_proportions_and_cuts_the_middle_out_of_the_whole(
    heights_and_widths, share, channels, interpolation
):
    height, width, *size = heights_and_widths
    pixels = noise(height, width, channels)
    cropped = images.fit_image(pixels, tuple(size), f"crop({share})", interpolation)
    assert cropped.shape == (*size, channels)
    # The least whole image that covers both sides divided by the share, which one of the two only just does
    whole = images.size_before_crop((height, width), tuple(size), share)
    least = [math.floor(side / share) for side in size]
    assert min(whole[0] - least[0], whole[1] - least[1]) == 0
    scale = max(least[0] / height, least[1] / width)
    assert abs(whole[0] - scale * height) < 1
    assert abs(whole[1] - scale * width) < 1
    image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    resized = np.asarray(image.resize((whole[1], whole[0]), RESAMPLING[interpolation])).reshape(*whole, channels)
    above, left = (whole[0] - size[0]) / 2, (whole[1] - size[1]) / 2
    corners = [(int(above), int(left)), (math.ceil(above), int(left)), (int(above), math.ceil(left))]
    corners.append((math.ceil(above), math.ceil(left)))
    middles = [resized[top : top + size[0], left : left + size[1]] for top, left in corners]
    assert any(np.array_equal(cropped, middle) for middle in middles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MOST_RESIZED", 0)
        alone = images.fit_image(pixels, tuple(size), f"crop({share})", interpolation)
    if interpolation == "bilinear":  # bicubic overshoots, and is clipped between the passes over rows and columns
        assert abs(alone.astype(int) - cropped).max() <= 2


def test_before_a_crop_that_is_no_square_an_image_covers_both_sides_and_is_rounded_to_the_nearest():
    """timm.data.ResizeKeepRatio, by hand: 100 / 0.875 = 114.3, 200 / 0.875 = 228.6; the width limits, by 300 / 228."""
    assert images.size_before_crop((200, 300), (100, 200), 0.875) == (152, 228)
    assert images.size_before_crop((203, 300), (100, 200), 0.875) == (154, 228)  # 203 * 228 / 300 = 154.3
    assert images.size_before_crop((202, 300), (100, 200), 0.875) == (154, 228)  # 153.5: rounded up


def test_crop_of_a_share_of_one_is_crop_for_a_square_and_differs_from_it_where_sides_are_rounded():
    square, wide = noise(50, 50, 3), noise(50, 71, 3)
    for interpolation in RESAMPLING:
        whole = images.fit_image(square, (32, 32), "crop(1.0)", interpolation)
        np.testing.assert_array_equal(whole, images.fit_image(square, (32, 32), "crop", interpolation))
        whole = images.fit_image(wide, (32, 32), "crop(1.0)", interpolation)  # 32 x 45.44 becomes 32 x 45
        assert not np.array_equal(whole, images.fit_image(wide, (32, 32), "crop", interpolation))


def test_of_an_image_too_long_to_be_enlarged_as_a_whole_the_middle_is_computed_alone(monkeypatch):
    sizes, resize = [], images.resize

    def recording_resize(pixels, size, *args):
        sizes.append(size)
        return resize(pixels, size, *args)

    monkeypatch.setattr(images, "resize", recording_resize)
    images.fit_image(noise(1, 60_000, 1), (224, 224), "crop(0.875)")  # the whole would have 256 x 15,360,000 pixels
    images.fit_image(noise(30, 90, 1), (224, 224), "crop(0.875)")
    assert sizes == [(224, 224), (256, 768)]


@few
@given(
    heights_and_widths=st.tuples(*[st.integers(2, 24)] * 4),
    fit=st.sampled_from(["crop", "stretch", "pad(9)", "pad_batch"]),
)
def test_every_fit_resizes_by_the_filter_that_is_asked_for(heights_and_widths, fit):
    """Each gives Pillow's pixels for the box and the size that it has with the other filter."""
    height, width, *size = heights_and_widths
    pixels = noise(height, width, 3)
    calls = []

    def recording_resize(image, new_size, box, interpolation):
        calls.append((new_size, box))
        assert interpolation == "bicubic"
        part = Image.fromarray(image).resize(new_size[::-1], Image.Resampling.BICUBIC, box=box)
        return np.asarray(part)

    resized = images.fit_image(pixels, tuple(size), fit, "bicubic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "resize", recording_resize)
        np.testing.assert_array_equal(images.fit_image(pixels, tuple(size), fit, "bicubic"), resized)
    is_fitted = (height, width) == tuple(size) or (fit == "pad_batch" and height <= size[0] and width <= size[1])
    assert len(calls) == (0 if is_fitted else 1)


def test_half_the_side_with_stretch_keeps_the_mean_of_a_flat_image():
    flat = np.full((10, 20, 3), 77, np.uint8)
    assert (images.fit_image(flat, (5, 5), "stretch") == 77).all()


def test_gray_becomes_three_equal_colors():
    pixels = noise(4, 5, 1)
    np.testing.assert_array_equal(images.to_channels(pixels, 3), np.concatenate([pixels] * 3, axis=-1))


@few
@given(
    heights_and_widths=st.tuples(*[st.integers(1, 24)] * 4),
    channels=st.sampled_from([1, 3]),
    gray=st.sampled_from([0, 127, 255]),
)
def test_padding_puts_the_whole_image_in_its_proportions_in_the_middle(heights_and_widths, channels, gray):
    height, width, canvas_height, canvas_width = heights_and_widths
    pixels = noise(height, width, channels)
    padded = images.fit_image(pixels, (canvas_height, canvas_width), f"pad({gray})")
    if (height, width) == (canvas_height, canvas_width):
        np.testing.assert_array_equal(padded, pixels)
        return
    if canvas_height * width <= canvas_width * height:  # the height limits the image
        inner = canvas_height, max(1, round(canvas_height * width / height))
    else:
        inner = max(1, round(canvas_width * height / width)), canvas_width
    top, left = (canvas_height - inner[0]) // 2, (canvas_width - inner[1]) // 2
    inside = np.s_[top : top + inner[0], left : left + inner[1]]
    np.testing.assert_array_equal(padded[inside], images.fit_image(pixels, inner, "stretch"))
    outside = np.ones((canvas_height, canvas_width), bool)
    outside[inside] = False
    assert (padded[outside] == gray).all()
    assert outside.sum() == canvas_height * canvas_width - inner[0] * inner[1]


def test_padding_alone_changes_no_pixel():
    pixels = noise(5, 10, 3)
    padded = images.fit_image(pixels, (8, 10), "pad(127)")
    np.testing.assert_array_equal(padded[1:6], pixels)
    assert (padded[[0, 6, 7]] == 127).all()
    assert images.fit_image(noise(40, 1, 1), (4, 4), "pad(0)").shape == (4, 4, 1)  # 0.1 pixels wide becomes one


def test_a_bitmap_of_run_lengths_is_read_however_many_reads_it_takes():
    """Pillow reads these byte by byte: 1.3 MB here."""
    side, pixels = 800, noise(800, 800)
    runs = b""
    for row in pixels[::-1]:  # from the last row to the first
        runs += b"".join(b"\x01" + bytes([level]) for level in row)  # each run is one pixel
        runs += b"\0\0"  # end of the row
    runs += b"\0\1"  # end of the image
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    pixels_start = 14 + 40 + len(palette)
    file_header = struct.pack("<2sIII", b"BM", pixels_start + len(runs), 0, pixels_start)
    image_header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    content = file_header + image_header + palette + runs
    np.testing.assert_array_equal(images.decode(content, channels=1)[..., 0], pixels)
