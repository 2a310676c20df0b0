"""PNG files whose packed rows end early, which Pillow decodes without a word."""

import zlib

from PIL import Image

ADAM7 = (
    (0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1),
)  # fmt: skip  # first row, step, first column, step of each pass of an interlaced PNG; ISO/IEC 15948, 8.2


def lacks_rows(image: Image.Image, content: bytes) -> bool:
    """Whether the packed rows of a decoded PNG end early: Pillow leaves the others black. Light at the end is whole."""
    if not (content[28] or image.crop((0, image.height - 1, *image.size)).getbbox() is None):
        return False
    unpacking, at, left = zlib.decompressobj(), 8, unpack_rows(content)
    while left > 0 and at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        packed = content[at + 8 : at + 8 + size] if content[at + 4 : at + 8] == b"IDAT" else b""
        while packed and left > 0:
            left -= len(unpacking.decompress(packed, 2**20))
            packed = unpacking.unconsumed_tail
        at += size + 12
    return left > len(unpacking.flush())


def unpack_rows(content: bytes) -> int:
    """Bytes of the rows of a PNG, each behind the byte of its filter, by its header; of seven passes if interlaced."""
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    bits = content[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[content[25]]
    total = 0
    for top, down, left, across in ADAM7 if content[28] else ((0, 1, 0, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        total += rows * (1 + -(-columns * bits // 8)) if rows > 0 and columns > 0 else 0
    return total
