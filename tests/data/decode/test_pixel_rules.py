"""The rules from an image to pixels: what is white among 16 bits, what a changed image keeps, what libtiff writes."""

import io

import numpy as np
import pytest
import tiff_files
from image_files import noise
from PIL import Image, ImageOps
from png_files import make_png
from tiff_files import write_tiff

from cnn_vit import data
from cnn_vit.data.base.parts import DecodingOptions, EncodedPart, SourceData, pixel_part
from cnn_vit.data.decode import caller_images, images, pixel_rules
from cnn_vit.data.decode.images import UnreadableError
from cnn_vit.data.reading import fingerprints, materialize
from cnn_vit.errors import UserError
from cnn_vit.files import cache

TWELVE_BITS = DecodingOptions(levels=4095)


def encode(image, kind="PNG", **options):
    """The bytes of an image file of pixels or of an image."""
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Levels


def test_the_level_that_is_white_is_a_setting():
    levels = np.array([[0, 8, 2048, 4095]], np.uint16)  # times 255 / 4095: 0, 0.498, 127.53, 255
    content = encode(levels)
    assert images.decode(content, channels=1, options=TWELVE_BITS).ravel().tolist() == [0, 0, 128, 255]
    assert images.decode(content, channels=1).ravel().tolist() == [0, 0, 8, 16]  # times 1 / 257


def test_colors_of_sixteen_bits_have_the_same_white_and_opacity_keeps_its_own():
    pixels = np.full((2, 2, 4), 65535, np.uint16)
    pixels[..., :3] = 4095
    pixels[0, 0] = [2048, 0, 0, 65535]
    content = write_tiff(pixels, photometric=tiff_files.RGB, extra=[tiff_files.UNASSOCIATED])
    decoded = images.decode(content, channels=3, options=TWELVE_BITS)
    assert decoded.tolist() == [[[128, 0, 0], [255] * 3], [[255] * 3] * 2]


def test_where_white_is_zero_the_level_of_the_setting_is_black():
    levels = np.array([[[0], [2048], [4095]]], np.uint16)
    content = write_tiff(levels, photometric=tiff_files.WHITE_IS_ZERO)
    assert images.decode(content, channels=1, options=TWELVE_BITS).ravel().tolist() == [255, 127, 0]
    assert images.inspect_file(content).highest_level == 4095  # as it is stored


def test_a_level_above_white_is_refused_by_number():
    content = encode(np.array([[0, 4096]], np.uint16))
    with pytest.raises(UnreadableError, match=r"^a level of 4,096, above data.levels=4095; make data.levels larger"):
        images.decode(content, channels=1, options=TWELVE_BITS)


def test_eight_bits_and_twelve_that_the_file_states_are_not_scaled_by_the_setting():
    pixels = noise(4, 6)
    np.testing.assert_array_equal(images.decode(encode(pixels), channels=1, options=TWELVE_BITS)[..., 0], pixels)
    levels = np.full((2, 4), 4095, np.uint16)
    content = write_tiff(levels[..., None], photometric=1, bits=12, data=tiff_files.pack_twelve_bits(levels))
    assert (images.decode(content, channels=1, options=DecodingOptions(levels=1023)) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_highest_level_of_sixteen_bits_is_told_and_eight_have_none(kind):
    levels = np.array([[3, 700], [5, 6]], np.uint16)
    assert images.inspect_file(encode(levels, kind)).highest_level == 700
    assert images.read_header(encode(levels, kind)).highest_level is None  # nothing was decoded
    assert images.read_header(encode(levels, kind)).deep
    assert images.inspect_file(encode(noise(3, 3), kind)).highest_level is None
    assert not images.read_header(encode(noise(3, 3), kind)).deep


def test_gray_of_sixteen_bits_with_opacity_is_gray_though_pillow_opens_it_in_color():
    rows = np.full((2, 3, 2), 65535, ">u2")
    content = make_png([row.tobytes() for row in rows], depth=16, color=4)
    assert not images.read_header(content).colored
    assert images.decode_image(content, channels=None).pixels.shape == (2, 3, 1)


# What a caller gives


def oriented_jpeg(orientation):
    """A JPEG of a smooth image whose tag says how it stands."""
    rows, columns = np.mgrid[:24, :16]
    exif = Image.Exif()
    exif[274] = orientation
    return encode(np.stack([10 * rows, 15 * columns, 5 * rows], -1).astype(np.uint8), "JPEG", quality=95, exif=exif)


def decode_caller_image(image, channels=3):
    """The pixels of an image that a caller gives."""
    return caller_images.decode_caller_image(image, "image", channels=channels, options=images.DEFAULTS).pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_that_was_opened_and_changed_is_turned_as_its_file_would_be(orientation):
    content = oriented_jpeg(orientation)
    expected = images.decode(content, channels=3)
    for change in (Image.Image.copy, lambda image: image.convert("RGB"), ImageOps.exif_transpose):
        np.testing.assert_array_equal(decode_caller_image(change(Image.open(io.BytesIO(content)))), expected)
    half = Image.open(io.BytesIO(content)).resize((8, 12))
    assert decode_caller_image(half).shape == ((8, 12, 3) if orientation >= 5 else (12, 8, 3))


def test_an_image_that_is_given_stays_as_it_was():
    opened = Image.open(io.BytesIO(encode(noise(5, 4, 3))))
    position = opened.fp.tell()
    decode_caller_image(opened)
    assert opened.tile  # not loaded
    assert opened.fp.tell() == position
    np.testing.assert_array_equal(decode_caller_image(opened), np.asarray(opened))
    palette = Image.fromarray(noise(5, 4) % 3)
    palette.putpalette(noise(3, 3, seed=1).tobytes())
    palette.info["transparency"] = 1
    first = decode_caller_image(palette)
    np.testing.assert_array_equal(decode_caller_image(palette), first)
    assert palette.im.getpalettemode() == "RGB"


def test_a_frame_and_a_size_that_a_caller_has_chosen_are_the_ones_that_count():
    frames = [noise(8, 8), noise(8, 8, seed=1)]
    content = encode(frames[0], "GIF", save_all=True, append_images=[Image.fromarray(frames[1])])
    opened = Image.open(io.BytesIO(content))
    opened.seek(1)
    np.testing.assert_array_equal(decode_caller_image(opened, channels=1)[..., 0], frames[1])
    drafted = Image.open(io.BytesIO(oriented_jpeg(1)))
    drafted.draft("RGB", (8, 12))
    assert decode_caller_image(drafted).shape == (12, 8, 3)


def test_a_damaged_file_that_is_given_unloaded_is_refused_like_a_file():
    content = encode(noise(40, 40, 3))
    opened = Image.open(io.BytesIO(content[: len(content) // 2]))
    with pytest.raises(UserError, match=r"^image cannot be read: damaged \("):
        decode_caller_image(opened)


def test_what_is_no_image_is_refused():
    with pytest.raises(UserError, match="image is float64; it must be an array of uint8"):
        decode_caller_image(np.zeros((4, 4)))
    with pytest.raises(UserError, match="image has the shape"):
        decode_caller_image(np.zeros((4, 4, 2), np.uint8))


# The largest image


def test_the_largest_number_of_pixels_is_a_setting():
    content = encode(noise(20, 30))
    with pytest.raises(UnreadableError, match="20 x 30 pixels, more than 599; make it smaller, or train with a larger"):
        images.read_header(content, DecodingOptions(max_pixels=599))
    assert images.read_header(content, DecodingOptions(max_pixels=600)).height == 20


def test_a_file_that_was_too_large_is_read_once_the_setting_allows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(materialize, "MEMORY", 0)  # so that files are scanned, and what a scan says is remembered
    cache.configure(folder=tmp_path / "cache")
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "x.png").write_bytes(encode(noise(20, 30)))
    section = {"name": "folder", "path": str(tmp_path / "root")}
    for _ in range(2):
        with pytest.raises(UserError, match=r"4 of 4 images cannot be read: .* more than 599"):
            data.load({**section, "max_pixels": 599})
        assert data.load({**section, "max_pixels": 600}).image_shape == (20, 30, 1)


def test_pillow_refuses_no_image_that_the_setting_allows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it refuses from twice as many on
    content = encode(noise(20, 30))
    with pytest.raises(UnreadableError, match="20 x 30 pixels, more than 500"):
        images.decode(content, channels=1, options=DecodingOptions(max_pixels=500))
    assert images.decode(content, channels=1, options=DecodingOptions(max_pixels=600)).shape == (20, 30, 1)


# The version


def test_the_version_of_the_rules_is_in_the_fingerprint_of_files_and_not_in_that_of_pixels(tmp_path, monkeypatch):
    content, labels = np.frombuffer(encode(noise(4, 4)), np.uint8), np.zeros(1, np.int32)
    files = EncodedPart(labels, lambda index, most: content[:most].tobytes(), np.array([len(content)]), str)
    fingerprints_by_version = {}
    for version in (pixel_rules.VERSION, pixel_rules.VERSION + 1):
        monkeypatch.setattr(pixel_rules, "VERSION", version)
        for name, part in (("files", files), ("pixels", pixel_part(noise(1, 4, 4, 1), labels))):
            fingerprint, _ = fingerprints.data_fingerprint(SourceData(("a",), {"train": part}))
            fingerprints_by_version.setdefault(name, set()).add(fingerprint)
    assert len(fingerprints_by_version["files"]) == 2
    assert len(fingerprints_by_version["pixels"]) == 1


# Lines of libraries


def test_libtiff_writes_nothing_by_itself_and_pillow_logs_nothing(capfd, caplog):
    content = bytearray(write_tiff(noise(64, 64, 3), photometric=tiff_files.RGB, compressed=True))
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    with pytest.raises(UnreadableError, match="damaged"):
        images.decode(bytes(content), channels=3)
    many = write_tiff(noise(4, 4, 40), photometric=tiff_files.RGB)  # Pillow logs these as an error
    with pytest.raises(UnreadableError, match="a TIFF of 40 bands"):
        images.decode(many, channels=3)
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    assert not caplog.records
