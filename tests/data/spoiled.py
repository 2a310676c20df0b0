"""Images and folders that go wrong, with real bytes: what each is, and what is to be said of it.

`images()` are files; `places(folder)` what stands where a file should; `folders()` whole data sets.
"""

import io
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from image_files import filled, noise, png
from PIL import Image

KINDS = {
    "jpg": ("JPEG", {}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "interlaced.png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "ppm": ("PPM", {}),
}  # by ending
CUTS = (0.05, 0.3, 0.6, 0.9)
FOREIGN = {
    "ICO": "RGB", "PCX": "RGB", "TGA": "RGB", "SGI": "RGB", "XBM": "1", "DDS": "RGB", "IM": "RGB", "MSP": "1",
    "QOI": "RGB", "ICNS": "RGB", "SPIDER": "F",
}  # fmt: skip  # what Pillow could read and we do not, and a mode that it writes
NO_PICTURE = "no image of a kind that is read (JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM), or its beginning is damaged"
REPLACE = "replace it or take it away"
SMALLER = "make it smaller"


class Bad(NamedTuple):
    """A file, the reason that must be given, and the remedy."""

    name: str
    content: bytes
    reason: str
    remedy: str = REPLACE


def encoded(image, kind, **options):
    """A file's bytes."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def whole(ending, pixels=None):
    """A good file of the kind that an ending stands for."""
    kind, options = KINDS[ending]
    pixels = noise(40, 40, 3) if pixels is None else pixels
    return interlaced(pixels) if ending == "interlaced.png" else encoded(pixels, kind, **options)


# PNG by hand


def chunk(name, content):
    """A piece of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width, height, packed, *, depth=8, color=2, interlace=0, before=b""):
    """A PNG of these numbers, with packed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + (chunk(b"IDAT", packed) if packed is not None else b"")
        + chunk(b"IEND", b"")
    )


def interlaced(pixels):
    """An Adam7 PNG, which Pillow reads and cannot write: seven passes, each a small image. ISO/IEC 15948, 8.2."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    rows = []
    for top, down, left, across in passes:
        part = pixels[top::down, left::across]
        rows += [b"\0" + row.tobytes() for row in part] if part.size else []
    height, width, _ = pixels.shape
    return png_of(width, height, zlib.compress(b"".join(rows)), interlace=1)


def zeros(count):
    """`count` zeros packed by zlib, in no time: a block of a megabyte over and over. The Adler-32 counts them."""
    block, rest = divmod(count, 2**20)
    first = zlib.compressobj(9)
    piece = first.compress(bytes(2**20)) + first.flush(zlib.Z_FULL_FLUSH)
    again = zlib.compressobj(9, zlib.DEFLATED, -15)
    more = again.compress(bytes(2**20)) + again.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = end.compress(bytes(rest)) + end.flush()
    return piece + more * (block - 1) + last + struct.pack(">I", (count % 65521) << 16 | 1)


def bombs():
    """Small files of huge images; all must be refused by what their headers say, or before much is unpacked."""
    jpeg = bytearray(whole("jpg"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65500, 65500)
    gif = bytearray(whole("gif"))
    gif[6:10] = struct.pack("<HH", 65500, 65500)
    bmp = bytearray(whole("bmp"))
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    tif = encoded(Image.new("1", (30000, 30000)), "TIFF", compression="group4")
    webp = b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0" * 2
    small = png_of(2, 2, zlib.compress(bytes(14)))
    note = chunk(b"zTXt", b"Comment\0\0" + zeros(80_000_000))
    profile = chunk(b"iCCP", b"icc\0\0" + zeros(80_000_000))
    pixels = "{:,} x {:,} pixels, more than 50,000,000".format
    return [
        Bad("gigapixels.png", png_of(40000, 40000, zeros(5001 * 40000), depth=1, color=0), "pixels", SMALLER),
        Bad("colors.png", png_of(16000, 16000, zeros(48001 * 16000)), "pixels", SMALLER),
        Bad("jpeg.jpg", bytes(jpeg), "pixels", SMALLER),
        Bad("gif.gif", bytes(gif), "pixels", SMALLER),
        Bad("bmp.bmp", bytes(bmp), "pixels", SMALLER),
        Bad("tiff.tif", tif, "pixels", SMALLER),
        Bad("webp.webp", webp, "pixels", SMALLER),
        Bad("ppm.ppm", b"P6 30000 30000 255\n" + bytes(99), "pixels", SMALLER),
        Bad("just.png", png_of(7100, 7100, b""), pixels(7100, 7100), SMALLER),
        Bad("note.png", small[:33] + note + small[33:], "damaged (Decompressed data too large"),
        Bad("profile.png", small[:33] + profile + small[33:], "damaged (Decompressed data too large"),
    ]


# Files


def pictures():
    """Files that cannot be read, each for its own reason."""
    return [*cut(), *others(), *wrong(), *foreign()]


def cut():
    """Every kind cut short: by then a beginning is a beginning, or none."""
    return [
        Bad(f"cut{int(100 * share)}.{ending}", whole(ending)[: int(share * len(whole(ending)))], "damaged")
        for ending in KINDS
        for share in CUTS
    ]


def others():
    """What is no image and bears an image's name."""
    page = "a page of HTML, perhaps what a server answered instead"
    return [
        Bad("empty.jpg", b"", "empty, 0 bytes"),
        Bad("text.png", b"a cat on a mat\n", NO_PICTURE),
        Bad("json.jpg", b'{"message": "Not Found"}', NO_PICTURE),
        Bad("zeros.jpg", bytes(5000), NO_PICTURE),
        Bad("noise.gif", noise(5000).tobytes(), NO_PICTURE),
        Bad("page.jpg", b"<!DOCTYPE html>\n<html><body>404</body></html>", page, "download it again"),
        Bad("page.png", b"\r\n <HTML><head>", page, "download it again"),
        Bad("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a pointer of git-lfs, not the image", "run git lfs pull"),
        Bad("xml.png", b'<?xml version="1.0"?><svg/>', "XML, perhaps a drawing of vectors (SVG)", "export it as PNG"),
        Bad("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            "a drawing of vectors (SVG)", "export it as PNG"),
        Bad("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n", "PostScript",
            "export it as PNG or JPEG"),
        Bad("pdf.png", b"%PDF-1.7\n1 0 obj\n", "a PDF", "export its pages as PNG or JPEG"),
        Bad("pickle.png", pickle.dumps({"a": Path("/")}), NO_PICTURE),
        Bad("zip.jpg", b"PK\3\4\x14\0", "a zip archive", "unpack it"),
        Bad("photoshop.jpg", b"8BPS\0\1", "a Photoshop file", "export it as PNG or JPEG"),
        Bad("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, AVIF or a film", "convert it to JPEG or PNG"),
        Bad("film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0", "HEIC, AVIF or a film", "convert it to JPEG or PNG"),
        *(Bad(f"beginning.{ending}", whole(ending)[:length], "damaged")
          for ending, length in (("jpg", 3), ("png", 8), ("gif", 6), ("bmp", 2), ("webp", 12), ("tif", 8), ("ppm", 2))),
    ]  # fmt: skip


def changed(ending, find, offset, to):
    """A good file with some bytes changed, `offset` behind those that are found."""
    content = bytearray(whole(ending))
    at = content.index(find) + offset
    content[at : at + len(to)] = to
    return bytes(content)


def wrong():
    """Files whose insides do not fit together."""
    rows = zlib.compress(bytes(40 * 121))
    return [
        Bad("checksum.png", changed("png", b"IDAT", 60, b"\0\1\2"), "damaged ("),
        Bad("header_checksum.png", changed("png", b"IHDR", 5, b"\x77"), "damaged"),
        Bad("depth.png", png_of(40, 40, rows, depth=3), "damaged"),
        Bad("color.png", png_of(40, 40, rows, color=5), "damaged"),
        Bad("no_pixels.png", png_of(40, 40, None), "damaged"),
        Bad("no_width.png", png_of(0, 40, rows), "damaged"),
        Bad("packed_wrong.png", png_of(40, 40, b"no zlib"), "damaged ("),
        Bad("too_few_rows.png", png_of(40, 80, rows), "damaged (rows are missing)"),
        Bad("passes.png", png_of(40, 41, zlib.compress(bytes(3063)), interlace=1), "damaged (rows are missing)"),
        Bad("pass.png", png_of(4, 41, zlib.compress(bytes(232)), color=0, interlace=1), "damaged (rows are missing)"),
        Bad("no_header.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "damaged"),
        Bad("no_tables.jpg", whole("jpg").replace(b"\xff\xdb", b"\xff\xfe"), "damaged"),
        Bad("no_scan.jpg", whole("jpg").replace(b"\xff\xda", b"\xff\xfe"), "damaged"),
        Bad("bits.bmp", changed("bmp", b"BM", 28, b"\7\0"), "damaged"),
        Bad("beyond.tif", b"II*\0\xff\xff\xff\0", "damaged"),
        Bad("compression.tif", changed("tif", b"\x03\x01\x03\0", 8, b"\x77\x77"), "damaged"),
        Bad("float.tif", encoded(np.float32(noise(4, 4)), "TIFF"),
            "floating-point pixels, whose range nobody states", "save it with 8 bits"),
        Bad("deep.tif", encoded(np.int32(noise(4, 4)) * 10**6, "TIFF"),
            "pixels of 32 bits, whose range nobody states", "save it with 8 or 16 bits"),
        Bad("maximum.ppm", b"P6 4 4 0\n" + bytes(48), "damaged"),
        Bad("letters.ppm", b"P6 4 four 255\n" + bytes(48), "damaged"),
        Bad("words.ppm", b"P3 2 2 255\n1 2 three 4 5 6 7 8 9 10 11 12\n", "damaged ("),
        Bad("comments.ppm", b"P3 1000 1000 255\n" + b"#a\n7 " * 500_000, "damaged ("),
        Bad("long.ppm", b"P2 3000 2000 255\n" + b"7 " * 5_000_001, "10,000,019 bytes of pixels as text, more than",
            "save it as PNG"),
        Bad("no_image.gif", whole("gif")[:13] + b";", "damaged"),
        Bad("chunk.webp", changed("webp", b"VP8", 0, b"VPX"), "damaged"),
    ]  # fmt: skip


def foreign():
    """Images of kinds that are not read: no reader but the allowed ones is ever asked."""
    made = [
        Bad(f"{kind.lower()}.png", encoded(Image.fromarray(noise(32, 32)).convert(mode), kind), NO_PICTURE)
        for kind, mode in FOREIGN.items()
    ]
    return [*made, Bad("avif.png", b"\0\0\0\x1cftypavif\0\0\0\0", "HEIC, AVIF or a film", "convert it to JPEG or PNG")]


# What stands where a file should


class Place(NamedTuple):
    """How to make it at a path, and what is said of it."""

    name: str
    make: Callable[[Path], object]
    reason: str
    remedy: str = REPLACE


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(20 * 2**30)


def listening(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def locked(path):
    path.write_bytes(whole("png"))
    path.chmod(0)


def places():
    """Everything but a regular file that can have an image's name."""
    device = "no regular file but a pipe, a socket or a device"
    found = [
        Place("pipe.jpg", os.mkfifo, device),
        Place("socket.png", listening, device),
        Place("zero.jpg", lambda path: path.symlink_to("/dev/zero"), device),
        Place("null.jpg", lambda path: path.symlink_to("/dev/null"), device),
        Place("nothing.png", lambda path: path.symlink_to("nowhere.png"), "a link to nothing"),
        Place("circle.png", lambda path: path.symlink_to(path.name), "a link to nothing"),
        Place("folder.jpg", os.mkdir, "a folder with an image's name", "rename it or take it away"),
        Place("sparse.png", sparse, "21,474,836,480 bytes, more than 100,000,000", SMALLER),
        Place("up", lambda path: path.symlink_to(".."), "a link to a folder that is read already", "take it away"),
        Place("here", lambda path: path.symlink_to("."), "a link to a folder that is read already", "take it away"),
    ]
    readable_anyway = os.geteuid() == 0
    return found if readable_anyway else [*found, Place("locked.png", locked, "no permission to read it", "change its")]


# Folders


class Folder(NamedTuple):
    """How to fill a root, and what is said of it; None: it is read, and so many examples are in train."""

    name: str
    make: Callable[[Path], object]
    sentence: str | None
    train: int = 0


def filling(counts, then=lambda root: None):
    return lambda root: (filled(root, counts, size=(4, 4)), then(root))


def folders():
    """Data sets whose layout goes wrong, or only looks so."""
    layout = "put each class's images in a folder of its own"
    pair, two = {"cats": 20, "dogs": 20}, {"train/cats": 9, "train/dogs": 9}
    return [
        Folder("missing", lambda root: root.rmdir(), "is not there"),
        Folder("a file", lambda root: (root.rmdir(), root.write_bytes(b"x")), "is no folder and no zip archive"),
        Folder("empty", lambda root: None, f"holds no images; {layout}"),
        Folder("only junk", lambda root: (root / ".DS_Store").write_bytes(b"x"), f"holds no images; {layout}"),
        Folder("no classes", filling({".": 3}), f"has 3 images right in it, there are no classes; {layout}"),
        Folder("splits without classes", filling({"train": 3, "val": 3}), f"/train has no class folders; {layout}"),
        Folder("stray images", filling({**pair, ".": 1}), "lies outside the class folders"),
        Folder("an empty class", filling({**pair, "fish": 0}), "/fish holds no images; fill it or remove it"),
        Folder("a class of junk", filling(pair, lambda root: junk(root / "fish")), "/fish holds no images"),
        Folder("an empty class of a split", filling({**two, "val/cats": 0}), "/val/cats holds no images; fill it or"),
        Folder("no train", filling({"val/cats": 9, "test/cats": 9}), "has test and val but no train folder"),
        Folder("two validations", filling({**two, "val/cats": 1, "valid/cats": 1}), "two folders for validation"),
        Folder("one class", filling({"cats": 20}), "the data has one class, cats; there must be two at least"),
        Folder("a class only in val", filling({**two, "val/birds": 1}), "class 'birds' is in val"),
        Folder("a class spelled otherwise in val", filling({**two, "val/dosg": 1}), "did you mean 'dogs'?"),
        Folder("a class only in test", filling({**two, "val/cats": 1, "test/emus": 1}), "class 'emus' is in test"),
        Folder("names equal but for case", filling({**pair, "Cats": 2}), "has the classes 'Cats' and 'cats'"),
        Folder("names equal but for a blank", filling({**pair, "cats ": 2}), "give them names apart"),
        Folder("names equal but for Unicode's form", filling({**pair, "é": 2, "e\u0301": 2}), "give them names apart"),
        Folder("splits inside classes", filling({"cats/train": 9, "dogs/train": 9}), "is a split inside a class"),
        Folder("a class beside the splits", filling({**two, "fish": 3}), "/fish has images and lies beside train"),
        Folder("too few", filling({"cats": 2, "dogs": 2}), "4 images are too few to set a tenth apart"),
        Folder("a pipe for a class", filling(pair, lambda root: os.mkfifo(root / "fish")), None, 32),
        Folder("a link in a circle for a class",
               filling(pair, lambda root: (root / "fish").symlink_to("fish")), None, 32),
        Folder("a class that links to the root",
               filling(pair, lambda root: (root / "fish").symlink_to(".")), None, 32),
        Folder("what systems leave", filling(pair, junk), None, 32),
        Folder("notes beside the classes", filling(pair, lambda root: (root / "a.txt").write_text("x")), None, 32),
        Folder("a note in a class", filling(pair, lambda root: (root / "cats/a.txt").write_text("x")),
               "cats/a.txt cannot be read: no image of a kind"),
        Folder("a linked class", lambda root: (filled(root.parent / "away", {"cats": 20}, size=(4, 4)),
                                               filled(root, {"dogs": 20}, size=(4, 4)),
                                               (root / "cats").symlink_to(root.parent / "away" / "cats")), None, 32),
        Folder("nested in a class", filling({"cats/a/b/c": 20, "dogs": 20}), None, 32),
        Folder("wrapped", filling({"x/y/cats": 20, "x/y/dogs": 20}), None, 32),
        Folder("a class called train", filling({"train": 20, "bus": 20}), None, 32),
        Folder("classes that val lacks", filling({**two, "val/cats": 2}), None, 18),
    ]  # fmt: skip


def junk(root):
    """What operating systems leave in folders."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "__MACOSX/a.png", "@eaDir/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(noise(2, 2, 3)))


ODD = (
    "a b.png", "line\nbreak.png", "tab\t.png", 'quo"te.png', "quo'te.png", "-rf.png", "--json.png", "$(id).png",
    "%s{0}.png", "back\\slash.png", "\x1b[31mred.png", "ünï\N{COMBINING DIAERESIS}.png", "\u202egnp.exe.png",
    "\N{CAT FACE}.png", "x" * 246 + ".png", "*.png", "#.png", "a;b&c|d.png", "\udcff\udcfe.png",
)  # fmt: skip  # names of files; the last is not UTF-8
