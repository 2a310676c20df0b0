"""What a PNG says that Pillow does not look at: rows that end early, and the color that is transparent.

Pillow leaves missing rows black, and compares the transparent color with pixels that it has brought to 8 bits.
"""

import zlib
from dataclasses import dataclass

from PIL import Image

# Places of the header's fields in a file, in bytes; ISO/IEC 15948, 5.2 and 11.2.2.
WIDTH, HEIGHT, BIT_DEPTH, COLOR_TYPE, INTERLACED = slice(16, 20), slice(20, 24), 24, 25, 28
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples of a pixel by color type
GRAY, COLORS = 0, 2  # color types that may have a transparent color
FIRST_CHUNK = 8  # where it begins, behind the signature


@dataclass(frozen=True)
class Pass:
    """Which pixels one pass over an image stores.

    Attributes:
        top: its first row.
        down: rows from one of its rows to the next.
        left: its first column.
        across: columns from one of its columns to the next.
    """

    top: int
    down: int
    left: int
    across: int


ADAM7 = (
    Pass(0, 8, 0, 8), Pass(0, 8, 4, 8), Pass(4, 8, 0, 4), Pass(0, 4, 2, 4), Pass(2, 4, 0, 2), Pass(0, 2, 1, 2),
    Pass(1, 2, 0, 1),
)  # fmt: skip  # the passes of an interlaced PNG; ISO/IEC 15948, 8.2
ONE_PASS = (Pass(0, 1, 0, 1),)  # of any other


def transparent_color(content: bytes) -> tuple[int, ...] | None:
    """Returns the level, or the three, that a PNG of gray or colors makes transparent, in the bits of its samples.

    None where it has none. ISO/IEC 15948, 11.3.2.1.
    """
    if content[COLOR_TYPE] not in (GRAY, COLORS):
        return None
    start = FIRST_CHUNK
    while start + 8 <= len(content) and content[start + 4 : start + 8] != b"IDAT":
        size = int.from_bytes(content[start : start + 4], "big")
        if content[start + 4 : start + 8] == b"tRNS":
            samples = []
            for sample_start in range(start + 8, start + 8 + 2 * SAMPLES[content[COLOR_TYPE]], 2):
                sample = int.from_bytes(content[sample_start : sample_start + 2], "big")
                samples.append(sample & (2 ** content[BIT_DEPTH] - 1))  # higher bits mean nothing
            return tuple(samples)
        start += size + 12  # length, name, data and checksum
    return None


def lacks_rows(image: Image.Image, content: bytes) -> bool:
    """Returns whether the packed rows of a decoded PNG end early: Pillow leaves the missing rows black."""
    if not content[INTERLACED]:
        last_row = image.crop((0, image.height - 1, *image.size))
        if last_row.getbbox() is not None:
            return False  # light in the last row: nothing is missing before it
    unpacker = zlib.decompressobj()
    missing = count_row_bytes(content)
    start = FIRST_CHUNK  # of a chunk: length, name, data and checksum
    while missing > 0 and start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        packed = b""
        if content[start + 4 : start + 8] == b"IDAT":
            packed = content[start + 8 : start + 8 + size]
        while packed and missing > 0:
            missing -= len(unpacker.decompress(packed, 2**20))  # a mebibyte at a time, whatever a file unpacks to
            packed = unpacker.unconsumed_tail
        start += size + 12
    return missing > len(unpacker.flush())


def count_row_bytes(content: bytes) -> int:
    """Returns the bytes that a PNG's rows unpack to, by its header: each row has a byte for its filter before it."""
    width, height = int.from_bytes(content[WIDTH], "big"), int.from_bytes(content[HEIGHT], "big")
    bits_per_pixel = content[BIT_DEPTH] * SAMPLES[content[COLOR_TYPE]]
    total = 0
    for one_pass in ADAM7 if content[INTERLACED] else ONE_PASS:
        rows = -(-(height - one_pass.top) // one_pass.down)
        columns = -(-(width - one_pass.left) // one_pass.across)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits_per_pixel // 8))
    return total
