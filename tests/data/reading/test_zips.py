"""Zip archives as people make them: the data of the folder that unpacking makes of them, or one sentence for all."""

import stat
import struct
import unicodedata
import zipfile
import zlib

import numpy as np
import pytest
from image_files import encode_png, noise, write_images, write_zip

from cnn_vit import data
from cnn_vit.data.reading import zips
from cnn_vit.errors import UserError

DOS, UNIX, NTFS = 0, 3, 10
UTF8_FLAG = 0x800
CLASSES = {"Größe": 12, "naïve café": 12}


def write_raw_zip(path, contents, *, system=UNIX, flags=0, extra=lambda raw: b""):
    """Writes a zip whose names are bytes, none of which zipfile may change.

    Args:
        path: of the zip.
        contents: name as bytes -> content; None for a folder.
        system: that claims to have written it.
        flags: general purpose flags of each member.
        extra: name -> extra fields of its member.
    """
    local, directory = b"", b""
    for raw, content in contents.items():
        fields, content = extra(raw), content or b""
        common = struct.pack(
            "<HHHHLLLHH", flags, 0, 0, 33, zlib.crc32(content), len(content), len(content), len(raw), len(fields)
        )
        central = struct.pack("<BBH", 20, system, 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, len(local))
        directory += b"PK\1\2" + central + raw + fields
        local += b"PK\3\4" + struct.pack("<H", 20) + common + raw + fields + content
    end = struct.pack("<HHHHLLH", 0, 0, len(contents), len(contents), len(directory), len(local), 0)
    path.write_bytes(local + directory + b"PK\5\6" + end)
    return path


def read_contents(root, *, form="NFC"):
    """Returns the files of a folder: path in it, with accents in a form of Unicode -> content."""
    contents = {}
    for path in sorted(root.rglob("*.png")):
        contents[unicodedata.normalize(form, str(path.relative_to(root)))] = path.read_bytes()
    return contents


def load_dataset(path):
    return data.load({"name": "folder", "path": str(path)})


def check_equal(packed, unpacked):
    """Checks that two data sets are the same, in every split and pixel."""
    assert (packed.classes, packed.fingerprint) == (unpacked.classes, unpacked.fingerprint)
    for name, split in unpacked.splits.items():
        assert list(packed.splits[name].names) == list(split.names)
        rows = np.arange(len(split))
        np.testing.assert_array_equal(packed.splits[name].read(rows), split.read(rows))


@pytest.fixture
def root(tmp_path):
    """A folder of images whose classes have accents, and some of their files."""
    root = tmp_path / "root"
    write_images(root, CLASSES)
    for name in CLASSES:
        for number in range(0, CLASSES[name], 2):
            (root / name / f"{number:03}.png").rename(root / name / f"{number:03} ä é.png")
    return root


def unicode_path_field(raw, name):
    """The extra field that repeats a name in UTF-8."""
    content = struct.pack("<BL", 1, zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(content)) + content


@pytest.mark.parametrize("flags", [0, UTF8_FLAG], ids=["without the flag", "with the flag"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("system", [UNIX, DOS])
def test_names_in_utf8_are_read_whether_or_not_a_flag_says_so(tmp_path, root, flags, form, system):
    """macOS packs UTF-8 without the flag, with accents taken apart (NFD)."""
    contents = {name.encode(): content for name, content in read_contents(root, form=form).items()}
    packed = write_raw_zip(tmp_path / "a.zip", contents, system=system, flags=flags)
    check_equal(load_dataset(packed), load_dataset(root))


def test_names_of_an_old_code_page_are_read(tmp_path, root):
    contents = {name.encode("cp437"): content for name, content in read_contents(root).items()}
    check_equal(load_dataset(write_raw_zip(tmp_path / "a.zip", contents, system=DOS)), load_dataset(root))


def test_a_name_in_the_unicode_field_counts_where_it_belongs_to_the_member(tmp_path, root):
    names = {f"{number}.png".encode(): name for number, name in enumerate(read_contents(root))}
    contents = {raw: read_contents(root)[name] for raw, name in names.items()}
    packed = write_raw_zip(tmp_path / "a.zip", contents, extra=lambda raw: unicode_path_field(raw, names[raw]))
    check_equal(load_dataset(packed), load_dataset(root))
    of_other = write_raw_zip(tmp_path / "b.zip", contents, extra=lambda raw: unicode_path_field(raw + b"?", names[raw]))
    with pytest.raises(UserError, match=r"24 images right in it, there are no classes"):
        load_dataset(of_other)


@pytest.mark.parametrize("system", [DOS, NTFS])
@pytest.mark.parametrize("with_folders", [True, False], ids=["with folders", "files alone"])
def test_backslashes_part_folders_where_windows_wrote_them(tmp_path, root, system, with_folders):
    """The Compress-Archive of PowerShell writes them, for folders too."""
    contents = {"set\\": None, "set\\Größe\\": None} if with_folders else {}
    contents |= {f"set\\{name}".replace("/", "\\"): content for name, content in read_contents(root).items()}
    packed = write_raw_zip(
        tmp_path / "a.zip", {name.encode(): content for name, content in contents.items()}, system=system
    )
    check_equal(load_dataset(packed), load_dataset(root))


def test_a_backslash_of_unix_is_a_part_of_the_name(tmp_path, root):
    contents = {f"{name}": content for name, content in read_contents(root).items()}
    contents["naïve café/a\\b.png"] = encode_png(noise(6, 8, 3, seed=99))
    packed = write_raw_zip(tmp_path / "a.zip", {name.encode(): content for name, content in contents.items()})
    (root / "naïve café" / "a\\b.png").write_bytes(contents["naïve café/a\\b.png"])
    check_equal(load_dataset(packed), load_dataset(root))


def test_names_that_are_no_text_are_those_of_the_unpacked_files(tmp_path):
    """Bytes that are not UTF-8 in an archive of Unix become file names of the same bytes."""
    contents = {}
    for number in range(24):
        contents[b"%s/\xff%d.png" % (b"dogs" if number % 2 else b"cats", number)] = encode_png(
            noise(6, 8, 3, seed=number)
        )
    for raw, content in contents.items():
        path = tmp_path / "root" / raw.decode("utf-8", "surrogateescape")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    check_equal(load_dataset(write_raw_zip(tmp_path / "a.zip", contents)), load_dataset(tmp_path / "root"))


def test_names_that_lead_out_of_the_archive_stay_inside(tmp_path, root):
    contents = {f"../../{name}".encode(): content for name, content in read_contents(root).items()}
    check_equal(load_dataset(write_raw_zip(tmp_path / "a.zip", contents)), load_dataset(root))


# What no member can be read of ----------------------------------------------------------------------------------------


def change_members(path, offset, value):
    """Puts two bytes into each member's record in the directory of an archive."""
    content = bytearray(path.read_bytes())
    position = content.find(b"PK\1\2")
    while position >= 0:
        content[position + offset : position + offset + 2] = struct.pack("<H", value)
        position = content.find(b"PK\1\2", position + 4)
    path.write_bytes(content)


def test_an_encrypted_archive_is_refused_in_one_sentence(tmp_path, root):
    path = write_zip(root, tmp_path / "a.zip")
    change_members(path, 8, 1)
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    sentence = f"{path} is encrypted, 24 of its 24 images; unpack it with the password and give the folder"
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (93, "Zstandard"), (99, "AES"), (77, "method 77")])
def test_an_archive_of_an_unknown_compression_is_refused_by_its_name(tmp_path, root, method, name):
    path = write_zip(root, tmp_path / "a.zip")
    change_members(path, 10, method)
    with pytest.raises(UserError) as caught:
        load_dataset(path)
    assert str(caught.value).startswith(
        f"{path} is compressed by {name}, 24 of its 24 images, which is not read; unpack"
    )


@pytest.mark.parametrize("method", zips.METHODS)
def test_the_compressions_that_are_read_give_the_folder(tmp_path, root, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for name, content in read_contents(root).items():
            archive.writestr(name, content)
    check_equal(load_dataset(tmp_path / "a.zip"), load_dataset(root))


def test_a_link_in_an_archive_is_named(tmp_path, root):
    path = write_zip(root, tmp_path / "a.zip")
    link = zipfile.ZipInfo("Größe/link.png")
    link.create_system, link.external_attr = UNIX, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "001.png")
    with pytest.raises(UserError, match=r"link\.png cannot be read: a link inside an archive; pack the file that it"):
        load_dataset(path)


# What a file is -------------------------------------------------------------------------------------------------------


def test_the_first_bytes_decide_what_a_file_is(tmp_path, root):
    """An image with an archive behind it is an image, whatever its name."""
    image = encode_png(noise(6, 8, 3))
    path = tmp_path / "both.zip"
    path.write_bytes(image + write_zip(root, tmp_path / "a.zip").read_bytes())
    assert zipfile.is_zipfile(path)
    assert not zips.is_zip(str(path))
    with pytest.raises(UserError, match=r"both\.zip is neither a folder nor a zip archive"):
        load_dataset(path)
    (tmp_path / "box").mkdir()
    path.rename(tmp_path / "box" / "both.zip")
    with pytest.raises(UserError, match=r"both\.zip is not a zip archive by its first bytes"):
        load_dataset(tmp_path / "box")
