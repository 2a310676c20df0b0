"""Errors over files that are not images that can be read: the reason and the remedy, and what such a file is instead.

First bytes decide what a file is, never its name nor what follows behind.
"""

from typing import NamedTuple

from cnn_vit.data.decode import jpeg, tiff
from cnn_vit.errors import UserError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # no other reader of Pillow is ever asked
DEFAULT_REMEDY = "replace it or remove it"
BEGINNING = 256  # bytes of a file that are looked at


class UnreadableError(UserError):
    """A file that is not an image that can be read: the reason, and the remedy."""

    def __init__(self, reason: str, remedy: str = DEFAULT_REMEDY):
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy

    def without_traceback(self) -> "UnreadableError":
        """Returns the same error without its traceback, which holds all bytes of the file, to be stored."""
        return UnreadableError(self.reason, self.remedy)


class ForeignFormat(NamedTuple):
    """A kind of file that may bear an image's name and is not an image that can be read.

    Attributes:
        beginning: its first bytes, in any case, behind blanks.
        description: what such a file is.
        remedy: what the user can do.
    """

    beginning: bytes
    description: str
    remedy: str


WEB_PAGE = "an HTML page, perhaps what a server answered instead"
AS_PNG = "export it as PNG or JPEG"
COMPRESSED = "compressed by {}"
FOREIGN_FORMATS = (
    ForeignFormat(b"version https://git-lfs", "a Git LFS pointer, not the image", "run git lfs pull"),
    ForeignFormat(b"/annex/objects/", "a git-annex pointer, not the image", "run git annex get"),
    ForeignFormat(b"%PDF", "a PDF", "export its pages as PNG or JPEG"),
    ForeignFormat(b"%!PS", "PostScript", AS_PNG),
    ForeignFormat(b"<!doctype html", WEB_PAGE, "download it again"),
    ForeignFormat(b"<html", WEB_PAGE, "download it again"),
    ForeignFormat(b"<svg", "a vector drawing (SVG)", "export it as PNG"),
    ForeignFormat(b"<?xml", "XML, perhaps a vector drawing (SVG)", "export it as PNG"),
    ForeignFormat(b"PK\3\4", "a zip archive", "unpack it"),
    ForeignFormat(b"8BPS", "a Photoshop file", AS_PNG),
    ForeignFormat(b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "convert it to PNG or JPEG"),
    ForeignFormat(b"\xff\x4f\xff\x51", "JPEG 2000", "convert it to PNG or JPEG"),  # a bare codestream
    ForeignFormat(b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "convert it to PNG or JPEG"),
    ForeignFormat(b"\xff\x0a", "JPEG XL", "convert it to PNG or JPEG"),  # a bare codestream
    ForeignFormat(b"\xff\xd8\xff\xf7", "JPEG-LS", "convert it to PNG or JPEG"),
    ForeignFormat(b"\x1f\x8b", COMPRESSED.format("gzip"), "unpack it (gunzip)"),
    ForeignFormat(b"BZh", COMPRESSED.format("bzip2"), "unpack it (bunzip2)"),
    ForeignFormat(b"\xfd7zXZ\0", COMPRESSED.format("xz"), "unpack it (unxz)"),
    ForeignFormat(b"\x28\xb5\x2f\xfd", COMPRESSED.format("zstd"), "unpack it (unzstd)"),
    ForeignFormat(b"7z\xbc\xaf\x27\x1c", "a 7-zip archive", "unpack it"),
    ForeignFormat(b"Rar!\x1a\7", "a rar archive", "unpack it"),
    ForeignFormat(b"\x93NUMPY", "a NumPy array", "put the arrays into an npz, for data.name=arrays"),
    ForeignFormat(b"\x89HDF\r\n\x1a\n", "an HDF5 file", AS_PNG),
    ForeignFormat(b"SIMPLE  =", "a FITS file", AS_PNG),
    ForeignFormat(b"\x76\x2f\x31\1", "an OpenEXR image", AS_PNG),
)
DICOM_MARK, DICOM_START = b"DICM", 128  # behind a preamble of any bytes; PS3.10, 7.1
JPEG_START = b"\xff\xd8\xff"
ANNEX = b"/annex/objects/"  # also inside the target of a link, which a zip stores as text


def unknown_format_error(content: bytes) -> UnreadableError:
    """Returns the error for bytes that no reader knows, by what they begin with."""
    start = content[:BEGINNING].lstrip().lower()
    if content[4:8] == b"ftyp":  # the box that begins any file of the ISO base media format
        return UnreadableError("HEIC, AVIF or a video", "convert it to JPEG or PNG")
    for foreign in FOREIGN_FORMATS:
        if start.startswith(foreign.beginning.lower()):
            return UnreadableError(foreign.description, foreign.remedy)
    if content[DICOM_START : DICOM_START + len(DICOM_MARK)] == DICOM_MARK:
        return UnreadableError("a DICOM image", "export it as PNG of 16 bits")
    if ANNEX in start and start.startswith((b".", b"/")):
        return UnreadableError("a git-annex link, not the image", "run git annex get")
    if content.startswith(JPEG_START):
        bits = jpeg.count_bits(content)
        if bits not in (None, 8):
            return UnreadableError(f"a JPEG of {bits} bits", "save it with 8 bits")
    description = tiff.describe(content)
    if description is not None:
        return UnreadableError(description, tiff.REMEDY)
    return UnreadableError(f"not an image of a kind that is read ({', '.join(FORMATS)}), or its beginning is damaged")
