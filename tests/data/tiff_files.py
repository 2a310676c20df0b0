"""Writes TIFF files tag by tag, of kinds that Pillow reads and cannot write. TIFF 6.0, Adobe 1992."""

import struct
import zlib

import numpy as np

# Tags, by their numbers in TIFF 6.0
KIND, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_SIZES, PLANAR, PALETTE, EXTRA_SAMPLES = 273, 277, 278, 279, 284, 320, 338
SAMPLE_FORMAT = 339
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE_COLORS, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2  # what an extra sample is; associated: colors are multiplied by it
DEFLATE = 8
SHORT, LONG = 3, 4  # types of numbers
LETTERS = {SHORT: "H", LONG: "L"}  # of the same types for `struct`
FORMATS = {"u": 1, "i": 2, "f": 3}  # NumPy's kinds of numbers, and the values of SAMPLE_FORMAT


def write_tiff(pixels, *, photometric, order="<", planar=1, compressed=False, extra=(), bits=None, data=None, tags=()):
    """The bytes of a TIFF of one strip, or of one for each band.

    Args:
        pixels: (H, W, C), of any type of numbers.
        photometric: what the samples mean.
        order: "<" for little-endian, ">" for big-endian.
        planar: 1 for samples side by side, 2 for bands one behind the other.
        compressed: whether by deflate; libtiff then reads it for Pillow.
        extra: what the samples behind the colors are; () leaves the tag out.
        bits: of a sample; as the type has by default.
        data: the bytes of the strip, instead of the pixels'.
        tags: more tags, (number, values) each.
    """
    height, width, count = pixels.shape
    ordered = pixels.astype(pixels.dtype.newbyteorder(order))
    strips = [ordered.tobytes() if data is None else data]
    if planar == 2:
        strips = [ordered[..., band].tobytes() for band in range(count)]
    if compressed:
        strips = [zlib.compress(strip) for strip in strips]
    entries = {
        WIDTH: [width],
        HEIGHT: [height],
        BITS: [bits or 8 * pixels.dtype.itemsize] * count,
        COMPRESSION: [DEFLATE if compressed else 1],
        PHOTOMETRIC: [photometric],
        STRIP_OFFSETS: [0] * len(strips),
        SAMPLES: [count],
        STRIP_ROWS: [height],
        STRIP_SIZES: [len(strip) for strip in strips],
        PLANAR: [planar],
        SAMPLE_FORMAT: [FORMATS[pixels.dtype.kind]] * count,
    }
    if extra:
        entries[EXTRA_SAMPLES] = list(extra)
    entries |= {number: list(values) for number, values in tags}
    longs = {WIDTH, HEIGHT, STRIP_OFFSETS, STRIP_ROWS, STRIP_SIZES}

    start = 8 + 2 + 12 * len(entries) + 4  # behind the header and the directory
    behind = b""
    offsets = []
    for strip in strips:
        offsets.append(start + len(behind))
        behind += strip + bytes(len(strip) % 2)
    entries[STRIP_OFFSETS] = offsets
    directory = struct.pack(f"{order}H", len(entries))
    for number in sorted(entries):
        kind = LONG if number in longs else SHORT
        values = struct.pack(f"{order}{len(entries[number])}{LETTERS[kind]}", *entries[number])
        field = values.ljust(4, b"\0")
        if len(values) > 4:
            field = struct.pack(f"{order}L", start + len(behind))
            behind += values + bytes(len(values) % 2)
        directory += struct.pack(f"{order}HHL", number, kind, len(entries[number])) + field
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}L", 8)
    return header + directory + bytes(4) + behind


def pack_twelve_bits(levels):
    """Packs levels below 4096, (H, W) with an even W, as two of them in three bytes, row by row."""
    pairs = levels.reshape(-1, 2).astype(np.uint32)
    words = (pairs[:, 0] << 12 | pairs[:, 1])[:, None] >> np.array([16, 8, 0])
    return (words & 255).astype(np.uint8).tobytes()
