"""Every way in: the same image gives the same pixels, bit for bit, whatever brings it, in every mode that Pillow has.

A file lies in a folder, in a zip, as bytes in an npz; a function opens it and gives it; `predict` is asked about it. An
image that has no file, because no format holds its mode, is given by a function or to `predict`.
"""

import colorsys
import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import tiff_files
from image_files import noise
from PIL import Image
from png_files import make_png, pack_bits
from tiff_files import write_tiff

from cnn_vit import data
from cnn_vit.data.batches import batches
from cnn_vit.data.reading import materialize
from cnn_vit.errors import UserError
from cnn_vit.training import evaluation, forward, prediction, trained
from cnn_vit.training.rules import RuleSpec

HEIGHT, WIDTH = 6, 8
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
DEEP = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 4), np.uint16)
DEEP[0, 0] = 255  # whose higher byte is 0, while 255 / 257 is 1


@dataclass(frozen=True)
class Case:
    """An image that a user may have.

    Attributes:
        name: what it is.
        modes: the modes of Pillow that it has on its way.
        expected: its pixels (H, W, 3), or what the error must say.
        content: the bytes of its file; None where no format holds it.
        make: returns the image, where it has no file.
        tolerance: levels by which the pixels may differ from `expected`, which an independent formula gives.
        survives_loading: whether the pixels are the same where Pillow has loaded the file before it is given.
    """

    name: str
    modes: tuple[str, ...]
    expected: np.ndarray | str
    content: bytes | None = None
    make: Callable[[], Image.Image] | None = None
    tolerance: int = 0
    survives_loading: bool = True


def encode(image, kind="PNG", **options):
    """The bytes of an image file of pixels or of an image."""
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gray(levels):
    """Gray (H, W) as it is expected, (H, W, 3) uint8."""
    return np.repeat(np.asarray(levels)[..., None], 3, axis=-1).astype(np.uint8)


def eighth(levels, white=65535):
    """Levels up to `white` as 0 to 255, rounded."""
    return np.floor(levels * (255 / white) + 0.5).astype(np.uint8)


def on_white(colors, alpha):
    """Colors (H, W, 3) of an opacity (H, W), 0 to 255, on white; rounded."""
    share = alpha[..., None] / 255
    return np.floor(colors * share + 255 * (1 - share) + 0.5).astype(np.uint8)


COLORS, GRAY, ALPHA = noise(HEIGHT, WIDTH, 3), noise(HEIGHT, WIDTH, seed=2), noise(HEIGHT, WIDTH, seed=3)
BITS = GRAY > 127
PLACES = GRAY % 5  # in a palette of five colors
PALETTE = noise(5, 3, seed=4)
PREMULTIPLIED = (COLORS.astype(int) * ALPHA[..., None] // 255).astype(np.uint8)


def with_palette(palette=PALETTE):
    """An image of mode P."""
    image = Image.fromarray(PLACES)
    image.putpalette(palette.tobytes())
    return image


def in_memory(mode):
    """An image of a mode that only arrays of bytes make: (H, W, 2) to (H, W, 4)."""
    bands = {"La": 2, "PA": 2, "RGBX": 4, "RGBa": 4, "LAB": 3, "HSV": 3, "YCbCr": 3, "CMYK": 4}[mode]
    return noise(HEIGHT, WIDTH, bands, seed=5)


def from_bytes(mode, pixels):
    """An image of a mode, of the bytes that Pillow has in its memory."""
    return Image.frombytes(mode, (WIDTH, HEIGHT), pixels.tobytes())


def make_premultiplied():
    """Gray and its opacity, multiplied (La)."""
    levels = (GRAY.astype(int) * ALPHA // 255).astype(np.uint8)
    return np.stack([levels, ALPHA], -1)


def divided(premultiplied, alpha):
    """Colors that were multiplied by their opacity (H, W), divided again: rounded down, as Pillow has it."""
    alpha = alpha.reshape(alpha.shape + (1,) * (premultiplied.ndim - alpha.ndim)).astype(int)
    return np.clip(255 * premultiplied.astype(int) // np.maximum(alpha, 1), 0, 255)


def hsv_colors(pixels):
    """Hue, saturation and value in bytes as red, green and blue, by Python's own formula."""
    flat = [colorsys.hsv_to_rgb(*(pixel / 255)) for pixel in pixels.reshape(-1, 3)]
    return np.rint(255 * np.array(flat)).reshape(pixels.shape).astype(np.uint8)


def ycbcr_colors(pixels):
    """JFIF 1.02, page 4."""
    y, cb, cr = np.moveaxis(pixels.astype(float) - [0, 128, 128], -1, 0)
    colors = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def cmyk_colors(pixels):
    """Each ink takes light away, and black takes it from all."""
    light = 255 - pixels.astype(float)
    return np.rint(light[..., :3] * light[..., 3:] / 255).astype(np.uint8)


def bmp_with_alpha(alpha):
    """A BMP of 32 bits whose header (version 4) names a mask for opacity."""
    pixels = np.concatenate([COLORS[..., ::-1], alpha[..., None]], -1)[::-1]  # blue first, last row first
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    image_header = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, pixels.size, 0, 0, 0, 0) + masks
    image_header += b"BGRs".ljust(108 - len(image_header), b"\0")
    start = 14 + len(image_header)
    return struct.pack("<2sIII", b"BM", start + pixels.size, 0, start) + image_header + pixels.tobytes()


def turned(orientation):
    """An upright image as it is stored under an EXIF orientation, and the tag."""
    stored = {3: COLORS[::-1, ::-1], 6: COLORS.transpose(1, 0, 2)[::-1]}[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    return np.ascontiguousarray(stored), exif


def by_key(color, key, levels):
    """A color that is transparent where the levels (H, W[, C]) are those of a key, on white."""
    is_key = levels == key if levels.ndim == 2 else (levels == key).all(-1)
    return on_white(color, np.where(is_key, 0, 255))


def key_cases():
    """PNG files with a transparency key, at every depth."""
    for depth in (1, 2, 4, 8, 16):
        levels = (DEEP[..., 0] >> (16 - depth)).astype(np.uint16)
        levels[0, :2] = levels[3, 3]  # a few pixels have the key
        rows = pack_bits(levels.astype(int), depth)
        white = 2**depth - 1
        key = int(levels[3, 3])
        content = make_png(rows, depth=depth, color=0, chunks=[(b"tRNS", struct.pack(">H", key))])
        expected = by_key(gray(eighth(levels, white)), key, levels)
        mode = {1: "1", 16: "I;16"}.get(depth, "L")
        yield Case(f"key of {depth} bits", (mode,), expected, content, survives_loading=depth not in (2, 4))
    for depth in (8, 16):
        levels = DEEP[..., :3] >> (16 - depth)
        levels[0, :2] = levels[3, 3]
        levels[0, 2] = levels[3, 3] ^ 1  # nearly the key, and opaque
        rows = [row.astype(f">u{depth // 8}").tobytes() for row in levels]
        key = levels[3, 3]
        content = make_png(rows, depth=depth, color=2, chunks=[(b"tRNS", key.astype(">u2").tobytes())])
        expected = by_key(eighth(levels, 2**depth - 1), key, levels)
        yield Case(f"key of colors of {depth} bits", ("RGB",), expected, content, survives_loading=depth == 8)


def deep_cases():
    """Files of 10, 12 and 16 bits."""
    colors, gray_levels, alpha = DEEP[..., :3], DEEP[..., 0], DEEP[..., 3]
    yield Case("16 bits", ("I;16",), gray(eighth(gray_levels)), encode(gray_levels))
    yield Case("16 bits TIFF", ("I;16",), gray(eighth(gray_levels)), encode(gray_levels, "TIFF"))
    wide = np.int32(gray_levels)
    yield Case("32-bit integers", ("I",), gray(eighth(gray_levels)), encode(wide, "TIFF"))
    text = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT)
    yield Case("16 bits PGM", ("I",), gray(eighth(gray_levels)), text + gray_levels.astype(">u2").tobytes())
    yield Case("32-bit integers, too large", ("I",), "32-bit pixels of unknown range", encode(wide * 99, "TIFF"))
    yield Case("negative integers", ("I",), "32-bit pixels of unknown range", encode(wide - 30_000, "TIFF"))
    for compressed in (False, True):
        for order in "<>":
            name = f"16 bits TIFF {order} {'compressed' if compressed else 'plain'}"
            how = dict(order=order, compressed=compressed)
            content = write_tiff(gray_levels[..., None], photometric=tiff_files.BLACK_IS_ZERO, **how)
            yield Case(name, ("I;16", "I;16B"), gray(eighth(gray_levels)), content)
            content = write_tiff(colors, photometric=tiff_files.RGB, **how)
            yield Case(f"{name} colors", ("RGB",), eighth(colors), content, survives_loading=False)
            content = write_tiff(DEEP, photometric=tiff_files.RGB, extra=[tiff_files.UNASSOCIATED], **how)
            expected = on_white(eighth(colors), eighth(alpha))
            yield Case(f"{name} opacity", ("RGBA",), expected, content, survives_loading=False)
        how = dict(compressed=compressed)
        content = write_tiff(gray_levels[..., None], photometric=tiff_files.WHITE_IS_ZERO, **how)
        yield Case(f"white is zero {how}", ("I;16",), gray(eighth(65535 - gray_levels)), content)
        content = write_tiff(colors, photometric=tiff_files.RGB, planar=2, **how)
        yield Case(f"16 bits in planes {how}", ("RGB",), "16-bit colors in planes of their own", content)
    twelve = gray_levels >> 4
    content = write_tiff(
        twelve[..., None],
        photometric=tiff_files.BLACK_IS_ZERO,
        bits=12,
        data=tiff_files.pack_twelve_bits(twelve),
    )
    yield Case("12 bits", ("I;16",), gray(eighth(twelve, 4095)), content)
    for color, used in ((2, colors), (4, DEEP[..., [0, 3]]), (6, DEEP)):
        rows = [row.astype(">u2").tobytes() for row in used]
        expected = {2: eighth(colors), 4: on_white(gray(eighth(gray_levels)), eighth(alpha)),
                    6: on_white(eighth(colors), eighth(alpha))}[color]  # fmt: skip
        content = make_png(rows, depth=16, color=color)
        mode = "RGB" if color == 2 else "RGBA"
        yield Case(f"16 bits PNG of color type {color}", (mode,), expected, content, survives_loading=False)


def transparent_cases():
    """Files with opacity."""
    for share in (0, 1):
        alpha = np.full((HEIGHT, WIDTH), 0, np.uint8)
        alpha[2:4] = 200 * share
        expected = on_white(COLORS, alpha) if share else COLORS  # a mask that nobody filled in
        yield Case(f"BMP with alpha up to {200 * share}", ("RGBA",), expected, bmp_with_alpha(alpha))
    invisible = encode(np.concatenate([COLORS, np.zeros((HEIGHT, WIDTH, 1), np.uint8)], -1))
    yield Case("PNG that shows nothing", ("RGBA",), np.full((HEIGHT, WIDTH, 3), 255, np.uint8), invisible)
    yield Case("LA", ("LA",), on_white(gray(GRAY), ALPHA), encode(np.stack([GRAY, ALPHA], -1)))
    content = write_tiff(make_premultiplied(), photometric=1, extra=[tiff_files.ASSOCIATED])
    expected = on_white(gray(divided(make_premultiplied()[..., 0], ALPHA)), ALPHA)
    yield Case("La", ("La",), expected, content)
    yield Case("RGBA", ("RGBA",), on_white(COLORS, ALPHA), encode(np.concatenate([COLORS, ALPHA[..., None]], -1)))
    multiplied = np.concatenate([PREMULTIPLIED, ALPHA[..., None]], -1)
    expected = on_white(divided(PREMULTIPLIED, ALPHA), ALPHA)
    content = write_tiff(multiplied, photometric=tiff_files.RGB, extra=[tiff_files.ASSOCIATED])
    yield Case("RGBa of a file", ("RGBA",), expected, content)
    yield Case("RGBa", ("RGBa",), expected, make=lambda: from_bytes("RGBa", multiplied))
    colors = PALETTE[PLACES]
    yield Case(
        "palette with one clear color", ("P",), by_key(colors, 2, PLACES), encode(with_palette(), transparency=2)
    )
    shares = np.array([0, 255, 100, 200, 7], np.uint8)
    content = encode(with_palette(), transparency=shares.tobytes())
    yield Case("palette with opacity", ("P",), on_white(colors, shares[PLACES]), content)
    gif = encode(with_palette(), "GIF", transparency=2)
    yield Case("GIF with one clear color", ("P",), by_key(colors, 2, PLACES), gif)
    tables = np.zeros((3, 256), np.uint16)
    tables[:, :5] = PALETTE.T.astype(np.uint16) * 257
    both = np.stack([PLACES, ALPHA], -1)
    how = dict(photometric=tiff_files.PALETTE_COLORS, tags=[(tiff_files.PALETTE, tables.ravel())])
    content = write_tiff(both, extra=[tiff_files.UNASSOCIATED], **how)
    yield Case("PA", ("PA",), on_white(colors, ALPHA), content)


def plain_cases():
    """Images of eight bits without opacity, upright or not."""
    yield Case("1", ("1",), gray(255 * BITS), encode(BITS))
    yield Case("L", ("L",), gray(GRAY), encode(GRAY))
    yield Case("P", ("P",), PALETTE[PLACES], encode(with_palette()))
    grays = np.repeat(PALETTE[:, :1], 3, axis=1)
    yield Case("P of grays", ("P",), grays[PLACES], encode(with_palette(grays)))
    yield Case("RGB", ("RGB",), COLORS, encode(COLORS))
    yield Case("RGBX", ("RGBX",), in_memory("RGBX")[..., :3], make=lambda: from_bytes("RGBX", in_memory("RGBX")))
    inks = in_memory("CMYK")
    yield Case("CMYK", ("CMYK",), cmyk_colors(inks), encode(from_bytes("CMYK", inks), "TIFF"), tolerance=1)
    ycbcr = in_memory("YCbCr")
    content = write_tiff(ycbcr, photometric=tiff_files.YCBCR, tags=[(530, [1, 1])])
    yield Case("YCbCr", ("YCbCr",), ycbcr_colors(ycbcr), content, tolerance=1)
    hsv = in_memory("HSV")
    yield Case("HSV", ("HSV",), hsv_colors(hsv), make=lambda: from_bytes("HSV", hsv), tolerance=1)
    for mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        levels = DEEP[..., 0].astype(">u2" if mode == "I;16B" else "<u2")
        make = lambda mode=mode, levels=levels: Image.frombytes(mode, (WIDTH, HEIGHT), levels.tobytes())  # noqa: E731
        yield Case(f"{mode} in memory", (mode,), gray(eighth(DEEP[..., 0])), make=make)
    for orientation in (3, 6):
        stored, exif = turned(orientation)
        for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
            content = encode(stored, kind, exif=exif, **options)
            yield Case(f"{kind} of orientation {orientation}", ("RGB",), COLORS, content)
    lab = write_tiff(in_memory("LAB"), photometric=tiff_files.CIELAB)
    yield Case("LAB", ("LAB",), "CIELAB colors", lab)
    yield Case("F", ("F",), "floating-point pixels of unknown range", encode(np.float32(GRAY), "TIFF"))
    for count, extra in ((4, [tiff_files.UNSPECIFIED]), (4, []), (5, [0, 0]), (2, [tiff_files.UNSPECIFIED])):
        photometric = tiff_files.RGB if count > 2 else tiff_files.BLACK_IS_ZERO
        content = write_tiff(noise(HEIGHT, WIDTH, count), photometric=photometric, extra=extra)
        yield Case(f"TIFF of {count} bands, extra {extra}", ("RGB", "L", "RGBA"), f"a TIFF of {count} bands", content)


CASES = [*plain_cases(), *transparent_cases(), *key_cases(), *deep_cases()]
by_name = {"ids": lambda case: case.name}


def test_every_mode_of_pillow_has_a_case():
    covered = {mode for case in CASES for mode in case.modes}
    assert covered == set(Image.MODES)


# The ways

GENERATOR = """
from PIL import Image

def give(split):
    for label in ("a", "b"):
        image = Image.open({path!r})
        {line}
        yield image, label
"""


def read_section(section, **resizing):
    """The pixels (H, W, 3) of the first image of a data section, or the sentence that refuses it."""
    try:
        dataset = data.load({**section, "channels": 3, "batch_size": 1, **resizing})
    except UserError as error:
        return str(error)
    first, second = dataset.splits["train"].read(np.arange(2))
    np.testing.assert_array_equal(first, second)
    return first


def read_predicted(network, image):
    """The pixels that `predict` sees of an image, or the sentence that refuses it."""
    [outcome] = prediction.read_images(network, [image])
    return str(outcome.error) if outcome.pixels is None else outcome.pixels


@pytest.fixture(scope="module")
def network():
    """What `predict` needs to know to read an image: nothing is computed here."""
    spec = forward.NetworkSpec("mlp/test", (), 3, (HEIGHT, WIDTH, 3), "float32", RuleSpec("softmax"))
    preprocessing = dict(
        mean=[0.5] * 3,
        std=[0.3] * 3,
        image_size=[HEIGHT, WIDTH],
        channels=3,
        fit="stretch",
        interpolation="bilinear",
        levels=None,
        max_pixels=10**6,
    )
    return trained.Trained(spec, {}, {}, ("a", "b"), preprocessing)


def read_in_every_way(folder, network, content, *, survives_loading=True, **resizing):
    """The pixels, or the refusal, of a file by each way in: name of the way -> outcome.

    `resizing` are settings of the data; they have to be those of the network's preprocessing.
    """
    path = folder / "image.png"  # the bytes decide, not the name
    path.write_bytes(content)
    outcomes = {}
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        for split in ("train", "val"):
            for name in "ab":
                inner = folder / "images" / split / name
                inner.mkdir(parents=True)
                (inner / "x.png").write_bytes(content)
                archive.writestr(f"{split}/{name}/x.png", content)
    outcomes["folder"] = read_section({"name": "folder", "path": str(folder / "images")}, **resizing)
    outcomes["zip"] = read_section({"name": "folder", "path": str(folder / "images.zip")}, **resizing)
    arrays = {}
    for split in ("train", "validation"):
        arrays[f"{split}_jpeg"] = np.frombuffer(2 * content, np.uint8)
        arrays[f"{split}_offsets"] = len(content) * np.arange(3)
        arrays[f"{split}_labels"] = np.arange(2)
    np.savez(folder / "arrays.npz", **arrays)
    outcomes["array"] = read_section({"name": "arrays", "path": str(folder / "arrays.npz")}, **resizing)
    lines = {"generator": "pass"}
    if survives_loading:
        lines["generator that loads"] = "image.load()"
    for name, line in lines.items():
        (folder / f"{name}.py").write_text(GENERATOR.format(path=str(path), line=line))
        outcomes[name] = read_section({"name": "generator", "path": f"{folder / name}.py:give"}, **resizing)
    outcomes["predict a file"] = read_predicted(network, path)
    with zipfile.ZipFile(folder / "one.zip", "w") as archive:
        archive.writestr("x.png", content)
    outcomes["predict a zip"] = read_predicted(network, folder / "one.zip")
    outcomes["predict an image"] = read_predicted(network, Image.open(path))
    return outcomes


def check_outcome(outcome, case, way):
    """Compares the pixels of one way in with what is expected, or the error."""
    if isinstance(case.expected, str):
        assert isinstance(outcome, str), way
        assert case.expected in outcome, way
        return
    assert not isinstance(outcome, str), f"{way}: {outcome}"
    assert outcome.dtype == np.uint8
    assert outcome.shape == case.expected.shape, way
    assert abs(outcome.astype(int) - case.expected).max() <= case.tolerance, way


@pytest.mark.parametrize("case", [case for case in CASES if case.content is not None], **by_name)
def test_a_file_gives_the_same_pixels_by_every_way_in(tmp_path, network, case):
    outcomes = read_in_every_way(tmp_path, network, case.content, survives_loading=case.survives_loading)
    for way, outcome in outcomes.items():
        check_outcome(outcome, case, way)
        if not isinstance(outcome, str):
            np.testing.assert_array_equal(outcome, outcomes["folder"], err_msg=way)


def resized_by_pillow(pixels, fit, interpolation):
    """Pixels (50, 71, 3) at 28 x 28 pixels, by Pillow alone."""
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    image = Image.fromarray(pixels)
    if fit == "crop(0.875)":  # the short side is 28 / 0.875 = 32, the long one 32 * 71 / 50 = 45.4
        return np.asarray(image.resize((45, 32), resample).crop((8, 2, 36, 30)))  # half of 45 - 28 is 8.5: even 8
    box = {"crop": (10, 0, 60, 50), "stretch": (0, 0, 71, 50)}[fit]
    return np.asarray(image.resize((28, 28), resample, box=box))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("fit", ["crop", "crop(0.875)", "stretch"])
def test_an_image_is_resized_alike_by_every_way_in(tmp_path, network, monkeypatch, fit, interpolation):
    pixels, size = noise(50, 71, 3), (28, 28)
    resizing = dict(fit=fit, interpolation=interpolation, image_size=size)
    preprocessing = network.preprocessing | resizing | {"image_size": list(size)}
    spec = replace(network.spec, image_shape=(*size, 3))
    network = replace(network, spec=spec, preprocessing=preprocessing)
    outcomes = read_in_every_way(tmp_path, network, encode(pixels), **resizing)

    both = np.stack([pixels, pixels])
    np.savez(tmp_path / "pixels.npz", train_x=both, train_y=[0, 1], validation_x=both, validation_y=[0, 1])
    section = {"name": "arrays", "path": str(tmp_path / "pixels.npz")}
    outcomes["pixels"] = read_section(section, **resizing)
    outcomes["predict pixels"] = read_predicted(network, pixels)
    with monkeypatch.context() as patch:
        patch.setattr(materialize, "MEMORY", 0)
        outcomes["pixels when they are read"] = read_section(section, **resizing)
        outcomes["files when they are read"] = read_section(
            {"name": "folder", "path": f"{tmp_path}/images"}, **resizing
        )
    for way, path in (("a folder", tmp_path / "images"), ("a zip", tmp_path / "images.zip")):
        split = evaluation.load_matching(network, path, "validation", None).split
        outcomes[f"evaluate {way}"] = split.read(np.arange(1))[0]
    section = {"name": "folder", "path": str(tmp_path / "images"), **resizing}
    [(floats, _)] = batches(section, split="validation")
    outcomes["batches"] = np.rint(255 * floats[0]).astype(np.uint8)

    assert len(outcomes) == 15
    for way, outcome in outcomes.items():
        np.testing.assert_array_equal(outcome, resized_by_pillow(pixels, fit, interpolation), err_msg=way)


def test_pixels_of_the_image_size_are_enlarged_before_their_middle_is_cut_out(tmp_path, network):
    """torchvision resizes an image of 32 x 32 to 36 x 36 before it cuts 32 x 32 out of it."""
    image_shape = (32, 32, 3)
    pixels = noise(8, *image_shape)
    enlarged = [np.asarray(Image.fromarray(image).resize((36, 36), Image.Resampling.BICUBIC)) for image in pixels]
    expected = np.stack(enlarged)[:, 2:34, 2:34]
    np.savez(tmp_path / "a.npz", train_x=pixels, train_y=np.arange(8) % 2, test_x=pixels, test_y=np.arange(8) % 2)
    section = {"name": "arrays", "path": str(tmp_path / "a.npz"), "fit": "crop(0.875)", "interpolation": "bicubic"}
    splits = data.load({**section, "image_size": 32}).splits
    np.testing.assert_array_equal(splits["test"].read(np.arange(8)), expected)
    resizing = dict(fit="crop(0.875)", interpolation="bicubic", image_size=[32, 32])
    spec = replace(network.spec, image_shape=image_shape)
    network = replace(network, spec=spec, preprocessing=network.preprocessing | resizing, classes=("0", "1"))
    split = evaluation.load_matching(network, tmp_path / "a.npz", None, None).split
    np.testing.assert_array_equal(split.read(np.arange(8)), expected)


def test_an_image_with_a_zip_behind_it_is_an_image(tmp_path, network):
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("x.png", encode(GRAY))
    (tmp_path / "both.png").write_bytes(encode(COLORS) + other.getvalue())
    assert zipfile.is_zipfile(tmp_path / "both.png")
    np.testing.assert_array_equal(read_predicted(network, tmp_path / "both.png"), COLORS)


def test_arrays_and_images_in_a_list_are_brought_to_the_size_of_the_network(tmp_path, network):
    large = noise(2 * HEIGHT, 2 * WIDTH, 3)
    (tmp_path / "large.png").write_bytes(encode(large))
    expected = read_predicted(network, tmp_path / "large.png")
    assert expected.shape == (HEIGHT, WIDTH, 3)
    for image in (large, Image.fromarray(large)):
        np.testing.assert_array_equal(read_predicted(network, image), expected)
    np.testing.assert_array_equal(read_predicted(network, GRAY), gray(GRAY))


def test_an_image_in_a_list_that_is_none_is_named_by_its_number(network):
    outcomes = list(prediction.read_images(network, [GRAY, np.zeros((4, 4))]))
    assert outcomes[0].error is None
    assert outcomes[1].path == "image 1"
    assert str(outcomes[1].error).startswith("image 1 is float64; it must be an array of uint8")


@pytest.mark.parametrize("case", [case for case in CASES if case.make is not None], **by_name)
def test_an_image_without_a_file_gives_the_same_pixels_by_every_way_in(tmp_path, network, case):
    lines = GENERATOR.format(path="", line="").replace("Image.open('')", "make()")
    (tmp_path / "made.py").write_text(
        f"import test_ways_in\n\ndef make():\n"
        f"    return next(c for c in test_ways_in.CASES if c.name == {case.name!r}).make()\n{lines}"
    )
    outcomes = {
        "generator": read_section({"name": "generator", "path": f"{tmp_path / 'made'}.py:give"}),
        "predict": read_predicted(network, case.make()),
    }
    for way, outcome in outcomes.items():
        check_outcome(outcome, case, way)
    np.testing.assert_array_equal(outcomes["predict"], outcomes["generator"])
