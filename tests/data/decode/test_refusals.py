"""Files that bear an image's name and are something else: the first bytes tell what, and the error what to do."""

import bz2
import gzip
import io
import lzma

import numpy as np
import pytest
from image_files import noise
from PIL import Image
from tiff_files import BLACK_IS_ZERO, KIND, RGB, write_tiff

from cnn_vit.data.decode import images, tiff
from cnn_vit.data.reading import listing


def encode(pixels, kind="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_of_twelve_bits():
    """A JPEG whose frame header states 12 bits."""
    content = encode(noise(8, 8), "JPEG")
    assert b"\xff\xc0\0\x0b\x08" in content  # the frame's mark, 11 bytes, 8 bits
    return content.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c")


CONVERT = "convert it to PNG or JPEG"
EXPORT = "export it as PNG or JPEG"
ANNEX_LINK = b"../.git/annex/objects/g7/W9/SHA256E-s12--ab.jpg/SHA256E-s12--ab.jpg"
FILES = {
    "jpeg 2000": (encode(noise(4, 4, 3), "JPEG2000"), "JPEG 2000", CONVERT),
    "jpeg 2000 without its box": (encode(noise(4, 4, 3), "JPEG2000", no_jp2=True), "JPEG 2000", CONVERT),
    "jpeg xl": (b"\0\0\0\x0cJXL \r\n\x87\n\0\0", "JPEG XL", CONVERT),  # ISO/IEC 18181-2
    "jpeg xl without its box": (b"\xff\x0a\xfa\x7f", "JPEG XL", CONVERT),
    "jpeg-ls": (b"\xff\xd8\xff\xf7\0\x0b\x08\0", "JPEG-LS", CONVERT),
    "jpeg of 12 bits": (jpeg_of_twelve_bits(), "a JPEG of 12 bits", "save it with 8 bits"),
    "dicom": (bytes(128) + b"DICM\x02\0", "a DICOM image", "export it as PNG of 16 bits"),  # PS3.10, 7.1
    "gzip": (gzip.compress(encode(noise(4, 4))), "compressed by gzip", "unpack it (gunzip)"),
    "bzip2": (bz2.compress(encode(noise(4, 4))), "compressed by bzip2", "unpack it (bunzip2)"),
    "xz": (lzma.compress(encode(noise(4, 4))), "compressed by xz", "unpack it (unxz)"),
    "zstd": (b"\x28\xb5\x2f\xfd\x24", "compressed by zstd", "unpack it (unzstd)"),
    "7-zip": (b"7z\xbc\xaf\x27\x1c\0", "a 7-zip archive", "unpack it"),
    "rar": (b"Rar!\x1a\7\0", "a rar archive", "unpack it"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer, not the image",
                    "run git lfs pull"),
    "annex pointer": (b"/annex/objects/SHA256E-s12--ab.jpg\n", "a git-annex pointer, not the image",
                      "run git annex get"),
    "annex link in a zip": (ANNEX_LINK, "a git-annex link, not the image", "run git annex get"),
    "numpy": (b"\x93NUMPY\1\0", "a NumPy array", "put the arrays into an npz, for data.name=arrays"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file", EXPORT),
    "fits": (b"SIMPLE  =                    T", "a FITS file", EXPORT),
    "openexr": (b"\x76\x2f\x31\1\2", "an OpenEXR image", EXPORT),
    "bands": (write_tiff(noise(4, 5, 5), photometric=BLACK_IS_ZERO),
              "a TIFF of 5 bands of 8-bit integers, which is not read", tiff.REMEDY),
    "bands of 16 bits": (write_tiff(np.uint16(noise(4, 5, 8)), photometric=BLACK_IS_ZERO, order=">"),
                         "a TIFF of 8 bands of 16-bit integers, which is not read", tiff.REMEDY),
    "bands of floats": (write_tiff(np.float32(noise(4, 5, 3)), photometric=RGB),
                        "a TIFF of 3 bands of 32-bit floating-point numbers, which is not read", tiff.REMEDY),
    "doubles": (write_tiff(np.float64(noise(4, 5, 1)), photometric=BLACK_IS_ZERO),
                "a TIFF of one band of 64-bit floating-point numbers, which is not read", tiff.REMEDY),
    "floats": (encode(np.float32(noise(4, 5)), "TIFF"), "floating-point pixels of unknown range",
               "save it with 8 bits"),
    "preview": (write_tiff(noise(4, 5, 3), photometric=RGB, tags=[(KIND, [1])]),
                "a TIFF that begins with a small preview, as raw files of cameras do", tiff.REMEDY),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_the_kind_is_named_with_the_remedy_by_header_and_by_decoding(name):
    content, reason, remedy = FILES[name]
    for read in (images.read_header, images.inspect_file):
        with pytest.raises(images.UnreadableError) as caught:
            read(content)
        assert (caught.value.reason, caught.value.remedy) == (reason, remedy)


def test_a_tiff_that_is_damaged_is_not_taken_for_one_of_another_kind():
    content = write_tiff(noise(4, 5, 1), photometric=BLACK_IS_ZERO)
    with pytest.raises(images.UnreadableError, match="its beginning is damaged"):
        images.read_header(content[:12])


def test_a_link_of_git_annex_without_its_content_is_named_in_a_folder(tmp_path):
    (tmp_path / "x.jpg").symlink_to(ANNEX_LINK.decode())
    [entry] = listing.open_listing(str(tmp_path)).tree.files
    with pytest.raises(images.UnreadableError, match="a git-annex link whose content is not here; run git annex get"):
        listing.read_file(entry, None)
