"""Writes PNG files chunk by chunk, of depths that Pillow reads and cannot write. ISO/IEC 15948."""

import struct
import zlib

import numpy as np

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by color type


def make_png(rows, *, depth, color, chunks=()):
    """A PNG of rows of packed bytes that end with a whole byte, with chunks (name, content) before them."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = 8 * len(rows[0]) // (depth * SAMPLES[color])
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0))]
    parts += [chunk(name, content) for name, content in chunks]
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def pack_bits(levels, depth):
    """Rows of levels (H, W) of `depth` bits, packed into bytes, the first pixel in the highest bits."""
    bits = (levels[..., None] >> np.arange(depth - 1, -1, -1)) & 1  # (H, W, depth)
    return [np.packbits(row.ravel()).tobytes() for row in bits]
