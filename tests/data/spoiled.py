"""Files and folders that go wrong, made of real bytes: what each is, and what an error must say of it.

`unreadable_files()` and `bombs()` are files, `obstacles()` is what stands where a file should, `folders()` are whole
data sets.
"""

import io
import os
import pickle
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from image_files import encode_png, noise, write_images
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
}  # ending -> Pillow's format, and options for writing it
CUTS = (0.05, 0.3, 0.6, 0.9)  # shares of a file that are left of it
FOREIGN = {
    "ICO": "RGB", "PCX": "RGB", "TGA": "RGB", "SGI": "RGB", "XBM": "1", "DDS": "RGB", "IM": "RGB", "MSP": "1",
    "QOI": "RGB", "ICNS": "RGB", "SPIDER": "F",
}  # fmt: skip  # formats that Pillow could read and we do not, and a mode that it writes
NO_IMAGE = "not an image of a kind that is read (JPEG, PNG, GIF, BMP, WEBP, TIFF, PPM), or its beginning is damaged"
REPLACE = "replace it or remove it"
SMALLER = "make it smaller, or train with a larger data.max_pixels"


@dataclass(frozen=True)
class SpoiledFile:
    """A file that cannot be read.

    Attributes:
        name: its name.
        content: its bytes.
        reason: the reason that an error must give, or its beginning.
        remedy: the remedy that an error must give.
    """

    name: str
    content: bytes
    reason: str
    remedy: str = REPLACE


def encode(image, format, **options):
    """The bytes of a file of one of Pillow's formats, of pixels or of an image."""
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def good_file(ending, pixels=None):
    """The bytes of a good file of the kind that an ending stands for."""
    format, options = KINDS[ending]
    pixels = noise(40, 40, 3) if pixels is None else pixels
    return interlaced_png(pixels) if ending == "interlaced.png" else encode(pixels, format, **options)


# PNG by hand


def png_chunk(name, content):
    """A chunk of a PNG: length, name, content, checksum."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_png(width, height, compressed_rows, *, depth=8, color=2, interlace=0):
    """A PNG whose header has these numbers, with compressed rows; None: without any."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    chunks = [png_chunk(b"IHDR", header)]
    if compressed_rows is not None:
        chunks.append(png_chunk(b"IDAT", compressed_rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, png_chunk(b"IEND", b"")])


def interlaced_png(pixels):
    """An Adam7 PNG, which Pillow reads and cannot write: seven passes, each a small image. ISO/IEC 15948, 8.2."""
    passes = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
    rows = []
    for top, row_step, left, column_step in passes:
        pass_pixels = pixels[top::row_step, left::column_step]
        if pass_pixels.size:
            rows += [b"\0" + row.tobytes() for row in pass_pixels]  # filter 0
    height, width, _ = pixels.shape
    return make_png(width, height, zlib.compress(b"".join(rows)), interlace=1)


def compressed_zeros(count):
    """`count` zeros compressed by zlib, in no time: a block of a megabyte over and over. The Adler-32 counts them."""
    blocks, rest = divmod(count, 2**20)
    first = zlib.compressobj(9)
    first_block = first.compress(bytes(2**20)) + first.flush(zlib.Z_FULL_FLUSH)
    repeated = zlib.compressobj(9, zlib.DEFLATED, -15)
    repeated_block = repeated.compress(bytes(2**20)) + repeated.flush(zlib.Z_FULL_FLUSH)
    end = zlib.compressobj(9, zlib.DEFLATED, -15)
    last_block = end.compress(bytes(rest)) + end.flush()
    adler = struct.pack(">I", (count % 65521) << 16 | 1)
    return first_block + repeated_block * (blocks - 1) + last_block + adler


def bombs():
    """Small files of huge images, to be refused by what their headers say, or before much is decompressed."""
    jpeg = bytearray(good_file("jpg"))
    start = jpeg.index(b"\xff\xc0") + 5  # in the frame header
    jpeg[start : start + 4] = struct.pack(">HH", 65500, 65500)
    gif = bytearray(good_file("gif"))
    gif[6:10] = struct.pack("<HH", 65500, 65500)
    bmp = bytearray(good_file("bmp"))
    bmp[18:26] = struct.pack("<ii", 30000, 30000)
    tif = encode(Image.new("1", (30000, 30000)), "TIFF", compression="group4")
    webp = b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xfe\x3f\0" * 2
    small = make_png(2, 2, zlib.compress(bytes(14)))
    note = png_chunk(b"zTXt", b"Comment\0\0" + compressed_zeros(80_000_000))
    profile = png_chunk(b"iCCP", b"icc\0\0" + compressed_zeros(80_000_000))
    with_note, with_profile = small[:33] + note + small[33:], small[:33] + profile + small[33:]  # behind the header
    gigapixels = make_png(40000, 40000, compressed_zeros(5001 * 40000), depth=1, color=0)
    in_colors = make_png(16000, 16000, compressed_zeros(48001 * 16000))
    just_too_large = f"{7100:,} x {7100:,} pixels, more than 50,000,000"
    return [
        SpoiledFile("gigapixels.png", gigapixels, "pixels", SMALLER),
        SpoiledFile("colors.png", in_colors, "pixels", SMALLER),
        SpoiledFile("jpeg.jpg", bytes(jpeg), "pixels", SMALLER),
        SpoiledFile("gif.gif", bytes(gif), "pixels", SMALLER),
        SpoiledFile("bmp.bmp", bytes(bmp), "pixels", SMALLER),
        SpoiledFile("tiff.tif", tif, "pixels", SMALLER),
        SpoiledFile("webp.webp", webp, "pixels", SMALLER),
        SpoiledFile("ppm.ppm", b"P6 30000 30000 255\n" + bytes(99), "pixels", SMALLER),
        SpoiledFile("just.png", make_png(7100, 7100, b""), just_too_large, SMALLER),
        SpoiledFile("note.png", with_note, "damaged (Decompressed data too large"),
        SpoiledFile("profile.png", with_profile, "damaged (Decompressed data too large"),
    ]


# Files


def unreadable_files():
    """Files that cannot be read, each for its own reason."""
    return [*files_cut_short(), *files_of_other_kinds(), *inconsistent_files(), *images_of_other_formats()]


def files_cut_short():
    """Files of every kind, cut short behind what makes them known."""
    files = []
    for ending in KINDS:
        content = good_file(ending)
        for share in CUTS:
            files.append(
                SpoiledFile(f"cut{int(100 * share)}.{ending}", content[: int(share * len(content))], "damaged")
            )
    return files


def files_of_other_kinds():
    """Files that are not images and have an image's name, and beginnings of files that could be."""
    page = "an HTML page, perhaps what a server answered instead"
    files = [
        SpoiledFile("empty.jpg", b"", "empty, 0 bytes"),
        SpoiledFile("text.png", b"a cat on a mat\n", NO_IMAGE),
        SpoiledFile("json.jpg", b'{"message": "Not Found"}', NO_IMAGE),
        SpoiledFile("zeros.jpg", bytes(5000), NO_IMAGE),
        SpoiledFile("noise.gif", noise(5000).tobytes(), NO_IMAGE),
        SpoiledFile("page.jpg", b"<!DOCTYPE html>\n<html><body>404</body></html>", page, "download it again"),
        SpoiledFile("page.png", b"\r\n <HTML><head>", page, "download it again"),
        SpoiledFile("lfs.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
                    "a Git LFS pointer, not the image", "run git lfs pull"),
        SpoiledFile("xml.png", b'<?xml version="1.0"?><svg/>', "XML, perhaps a vector drawing (SVG)",
                    "export it as PNG"),
        SpoiledFile("svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
                    "a vector drawing (SVG)", "export it as PNG"),
        SpoiledFile("eps.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n", "PostScript",
                    "export it as PNG or JPEG"),
        SpoiledFile("pdf.png", b"%PDF-1.7\n1 0 obj\n", "a PDF", "export its pages as PNG or JPEG"),
        SpoiledFile("pickle.png", pickle.dumps({"a": Path("/")}), NO_IMAGE),
        SpoiledFile("zip.jpg", b"PK\3\4\x14\0", "a zip archive", "unpack it"),
        SpoiledFile("photoshop.jpg", b"8BPS\0\1", "a Photoshop file", "export it as PNG or JPEG"),
        SpoiledFile("phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, AVIF or a video", "convert it to JPEG or PNG"),
        SpoiledFile("film.jpg", b"\0\0\0\x18ftypmp42\0\0\0\0", "HEIC, AVIF or a video", "convert it to JPEG or PNG"),
    ]  # fmt: skip
    signatures = (("jpg", 3), ("png", 8), ("gif", 6), ("bmp", 2), ("webp", 12), ("tif", 8), ("ppm", 2))
    for ending, length in signatures:
        files.append(SpoiledFile(f"beginning.{ending}", good_file(ending)[:length], "damaged"))
    return files


def change_bytes(ending, mark, offset, replacement):
    """A good file with some bytes replaced, `offset` bytes after the first place where `mark` stands."""
    content = bytearray(good_file(ending))
    start = content.index(mark) + offset
    content[start : start + len(replacement)] = replacement
    return bytes(content)


def inconsistent_files():
    """Files whose insides do not fit together."""
    rows = zlib.compress(bytes(40 * 121))
    too_few_rows = "damaged (rows are missing)"
    two_passes = make_png(40, 41, zlib.compress(bytes(3063)), interlace=1)
    one_pass = make_png(4, 41, zlib.compress(bytes(232)), color=0, interlace=1)
    return [
        SpoiledFile("checksum.png", change_bytes("png", b"IDAT", 60, b"\0\1\2"), "damaged ("),
        SpoiledFile("header_checksum.png", change_bytes("png", b"IHDR", 5, b"\x77"), "damaged"),
        SpoiledFile("depth.png", make_png(40, 40, rows, depth=3), "damaged"),
        SpoiledFile("color.png", make_png(40, 40, rows, color=5), "damaged"),
        SpoiledFile("no_pixels.png", make_png(40, 40, None), "damaged"),
        SpoiledFile("no_width.png", make_png(0, 40, rows), "damaged"),
        SpoiledFile("packed_wrong.png", make_png(40, 40, b"no zlib"), "damaged ("),
        SpoiledFile("too_few_rows.png", make_png(40, 80, rows), too_few_rows),
        SpoiledFile("passes.png", two_passes, too_few_rows),
        SpoiledFile("pass.png", one_pass, too_few_rows),
        SpoiledFile("no_header.png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b""), "damaged"),
        SpoiledFile("no_tables.jpg", good_file("jpg").replace(b"\xff\xdb", b"\xff\xfe"), "damaged"),
        SpoiledFile("no_scan.jpg", good_file("jpg").replace(b"\xff\xda", b"\xff\xfe"), "damaged"),
        SpoiledFile("bits.bmp", change_bytes("bmp", b"BM", 28, b"\7\0"), "damaged"),
        SpoiledFile("beyond.tif", b"II*\0\xff\xff\xff\0", "damaged"),
        SpoiledFile("compression.tif", change_bytes("tif", b"\x03\x01\x03\0", 8, b"\x77\x77"), "damaged"),
        SpoiledFile("float.tif", encode(np.float32(noise(4, 4)), "TIFF"),
                    "floating-point pixels of unknown range", "save it with 8 bits"),
        SpoiledFile("deep.tif", encode(np.int32(noise(4, 4)) * 10**6, "TIFF"),
                    "32-bit pixels of unknown range", "save it with 8 or 16 bits"),
        SpoiledFile("maximum.ppm", b"P6 4 4 0\n" + bytes(48), "damaged"),
        SpoiledFile("letters.ppm", b"P6 4 four 255\n" + bytes(48), "damaged"),
        SpoiledFile("words.ppm", b"P3 2 2 255\n1 2 three 4 5 6 7 8 9 10 11 12\n", "damaged ("),
        SpoiledFile("comments.ppm", b"P3 1000 1000 255\n" + b"#a\n7 " * 500_000, "damaged ("),
        SpoiledFile("long.ppm", b"P2 3000 2000 255\n" + b"7 " * 5_000_001,
                    "10,000,019 bytes of pixels as text, more than", "save it as PNG"),
        SpoiledFile("no_image.gif", good_file("gif")[:13] + b";", "damaged"),
        SpoiledFile("chunk.webp", change_bytes("webp", b"VP8", 0, b"VPX"), "damaged"),
    ]  # fmt: skip


def images_of_other_formats():
    """Images of formats that are not read: no reader but the allowed ones is ever asked."""
    files = []
    for format, mode in FOREIGN.items():
        content = encode(Image.fromarray(noise(32, 32)).convert(mode), format)
        files.append(SpoiledFile(f"{format.lower()}.png", content, NO_IMAGE))
    avif = b"\0\0\0\x1cftypavif\0\0\0\0"
    return [*files, SpoiledFile("avif.png", avif, "HEIC, AVIF or a video", "convert it to JPEG or PNG")]


# What stands where a file should


@dataclass(frozen=True)
class Obstacle:
    """Something that is not a regular file and stands where one should.

    Attributes:
        name: its name.
        make: makes it at a path.
        reason: the reason that an error must give.
        remedy: the remedy that an error must give.
    """

    name: str
    make: Callable[[Path], object]
    reason: str
    remedy: str = REPLACE


def make_sparse_file(path):
    """Makes a file of 20 GB that takes no room."""
    with open(path, "wb") as file:
        file.truncate(20 * 2**30)


def make_socket(path):
    """Makes a socket that a server has listened at."""
    previous_folder = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(previous_folder)


def make_locked_file(path):
    """Makes a good file that nobody has the right to read."""
    path.write_bytes(good_file("png"))
    path.chmod(0)


def obstacles():
    """Everything but a regular file that can have an image's name."""
    device = "not a regular file but a pipe, a socket or a device"
    inner_link = "a link to a folder that is read already"
    cases = [
        Obstacle("pipe.jpg", os.mkfifo, device),
        Obstacle("socket.png", make_socket, device),
        Obstacle("zero.jpg", lambda path: path.symlink_to("/dev/zero"), device),
        Obstacle("null.jpg", lambda path: path.symlink_to("/dev/null"), device),
        Obstacle("nothing.png", lambda path: path.symlink_to("nowhere.png"), "a link to nothing"),
        Obstacle("circle.png", lambda path: path.symlink_to(path.name), "a link to nothing"),
        Obstacle("folder.jpg", os.mkdir, "a folder with an image's name", "rename it or take it away"),
        Obstacle("sparse.png", make_sparse_file, "21,474,836,480 bytes, more than 100,000,000", "make it smaller"),
        Obstacle("up", lambda path: path.symlink_to(".."), inner_link, "take it away"),
        Obstacle("here", lambda path: path.symlink_to("."), inner_link, "take it away"),
    ]
    if os.geteuid() != 0:  # root reads every file
        cases.append(Obstacle("locked.png", make_locked_file, "no permission to read it", "change its"))
    return cases


# Folders


@dataclass(frozen=True)
class FolderCase:
    """A folder whose layout goes wrong, or only seems to.

    Attributes:
        name: what is odd about it.
        make: fills a root.
        sentence: a part of the error; None: the folder is read.
        train: number of training examples, where it is read.
    """

    name: str
    make: Callable[[Path], object]
    sentence: str | None
    train: int = 0


def fill_with(counts, add=lambda root: None):
    """The function that fills a root with small images, and then adds something to it."""

    def fill(root):
        write_images(root, counts, size=(4, 4))
        add(root)

    return fill


def replace_by_file(root):
    """Makes a file where the root was."""
    root.rmdir()
    root.write_bytes(b"x")


def fill_with_linked_class(root):
    """Makes one class in the root, and another one elsewhere to which the root links."""
    write_images(root.parent / "away", {"cats": 20}, size=(4, 4))
    write_images(root, {"dogs": 20}, size=(4, 4))
    (root / "cats").symlink_to(root.parent / "away" / "cats")


def folders():
    """Data sets whose layout goes wrong, or only seems to."""
    layout = "put each class's images in a folder of its own"
    pair, two = {"cats": 20, "dogs": 20}, {"train/cats": 9, "train/dogs": 9}
    return [
        FolderCase("missing", lambda root: root.rmdir(), "is not there"),
        FolderCase("a file", replace_by_file, "is neither a folder nor a zip archive"),
        FolderCase("empty", lambda root: None, f"holds no images; {layout}"),
        FolderCase("only junk", lambda root: (root / ".DS_Store").write_bytes(b"x"), f"holds no images; {layout}"),
        FolderCase("no classes", fill_with({".": 3}), f"has 3 images right in it, there are no classes; {layout}"),
        FolderCase("splits without classes", fill_with({"train": 3, "val": 3}),
                   f"/train has no class folders; {layout}"),
        FolderCase("stray images", fill_with({**pair, ".": 1}), "lies outside the class folders"),
        FolderCase("an empty class", fill_with({**pair, "fish": 0}), "/fish holds no images; fill it or remove it"),
        FolderCase("a class of junk", fill_with(pair, lambda root: add_junk(root / "fish")), "/fish holds no images"),
        FolderCase("an empty class of a split", fill_with({**two, "val/cats": 0}),
                   "/val/cats holds no images; fill it or"),
        FolderCase("no train", fill_with({"val/cats": 9, "test/cats": 9}), "has test and val but no train folder"),
        FolderCase("two validations", fill_with({**two, "val/cats": 1, "valid/cats": 1}),
                   "two folders for validation"),
        FolderCase("one class", fill_with({"cats": 20}), "the data has one class, cats; there must be two at least"),
        FolderCase("a class only in val", fill_with({**two, "val/birds": 1}), "class 'birds' is in val"),
        FolderCase("a class spelled otherwise in val", fill_with({**two, "val/dosg": 1}), "did you mean 'dogs'?"),
        FolderCase("a class only in test", fill_with({**two, "val/cats": 1, "test/emus": 1}),
                   "class 'emus' is in test"),
        FolderCase("names equal but for case", fill_with({**pair, "Cats": 2}), "has the classes 'Cats' and 'cats'"),
        FolderCase("names equal but for a blank", fill_with({**pair, "cats ": 2}), "give them names apart"),
        FolderCase("names equal but for Unicode's form", fill_with({**pair, "é": 2, "e\u0301": 2}),
                   "give them names apart"),
        FolderCase("splits inside classes", fill_with({"cats/train": 9, "dogs/train": 9}),
                   "is a split inside a class"),
        FolderCase("a class beside the splits", fill_with({**two, "fish": 3}),
                   "/fish has images and lies beside train"),
        FolderCase("too few", fill_with({"cats": 2, "dogs": 2}), "4 images are too few to set a tenth apart"),
        FolderCase("a pipe for a class", fill_with(pair, lambda root: os.mkfifo(root / "fish")), None, 32),
        FolderCase("a link in a circle for a class",
                   fill_with(pair, lambda root: (root / "fish").symlink_to("fish")),
                   "/fish is a link to nothing, where a class or a split may have been"),
        FolderCase("a class that links to the root",
                   fill_with(pair, lambda root: (root / "fish").symlink_to(".")), None, 32),
        FolderCase("what systems leave", fill_with(pair, add_junk), None, 32),
        FolderCase("notes beside the classes",
                   fill_with(pair, lambda root: (root / "a.txt").write_text("x")), None, 32),
        FolderCase("a note in a class", fill_with(pair, lambda root: (root / "cats/a.txt").write_text("x")),
                   "cats/a.txt cannot be read: not an image of a kind"),
        FolderCase("a linked class", fill_with_linked_class, None, 32),
        FolderCase("nested in a class", fill_with({"cats/a/b/c": 20, "dogs": 20}), None, 32),
        FolderCase("wrapped", fill_with({"x/y/cats": 20, "x/y/dogs": 20}), None, 32),
        FolderCase("a class called train", fill_with({"train": 20, "bus": 20}), None, 32),
        FolderCase("classes that val lacks", fill_with({**two, "val/cats": 2}), None, 18),
    ]  # fmt: skip


def add_junk(root):
    """Adds what operating systems leave in folders."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "__MACOSX/a.png", "@eaDir/a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_png(noise(2, 2, 3)))


ODD_NAMES = (
    "a b.png", "line\nbreak.png", "tab\t.png", 'quo"te.png', "quo'te.png", "-rf.png", "--json.png", "$(id).png",
    "%s{0}.png", "back\\slash.png", "\x1b[31mred.png", "ünï\N{COMBINING DIAERESIS}.png", "\u202egnp.exe.png",
    "\N{CAT FACE}.png", "x" * 246 + ".png", "*.png", "#.png", "a;b&c|d.png", "\udcff\udcfe.png",
)  # fmt: skip  # names of files; the last is not UTF-8
