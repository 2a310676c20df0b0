"""Fuzz: files of every reader after accidents. Nothing but our errors, no hang, no label beyond the classes."""

import gzip
import importlib
import itertools
import signal
from pathlib import Path

import numpy as np
import pytest
import spoiled
from archives import archive, packed
from image_files import filled, noise, zipped

from cnn_vit import data
from cnn_vit.data.base.parts import SourceOptions
from cnn_vit.data.decode import images
from cnn_vit.data.sources import cifar, mnist
from cnn_vit.errors import UserError
from cnn_vit.files import cache, downloads

LONGEST = 60  # seconds that so many mutants may take, on a busy machine
FAST, SLOW = 200, 2000


@pytest.fixture(autouse=True)
def _limited(tmp_path):
    """No memory of other tests' files, and an end for what hangs."""

    def over(number, frame):
        raise TimeoutError("a mutant hangs")

    cache.configure(folder=tmp_path / "cache")
    signal.signal(signal.SIGALRM, over)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def mutant(whole, rng):
    """A file after one to four accidents."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        at, kind = int(rng.integers(0, max(1, len(content)))), rng.integers(0, 7)
        length = int(rng.integers(1, 17))
        if kind == 0:
            content[at : at + 1] = bytes([content[at] ^ 1 << int(rng.integers(0, 8))]) if content else b""
        elif kind == 1:
            content[at : at + length] = rng.bytes(length)
        elif kind == 2:
            content[at : at + length] = bytes(length)
        elif kind == 3:
            content[at : at + length] = b"\xff" * length
        elif kind == 4:
            del content[at:]
        elif kind == 5:
            content[at:at] = content[at // 2 : at // 2 + length]
        else:
            del content[at : at + length]
    return bytes(content)


def fuzzed(name, folder, patch, count):
    """So many mutants of the files of a reader, always the same, each with what reads it."""
    wholes = list(READERS[name](folder, patch))
    rng = np.random.default_rng(len(name))
    for at, (content, read) in zip(range(count), itertools.cycle(wholes)):
        yield at, mutant(content, rng), read


def instead(path, read):
    """A reader of bytes that puts them into a file for as long as it takes."""
    whole = path.read_bytes()

    def reader(content):
        path.write_bytes(content)
        try:
            return read()
        finally:
            path.write_bytes(whole)

    return reader


def loaded(name, path):
    """The labels and classes of a data set's splits."""
    found = data.load({"name": name, "path": str(path), "workers": 0, "image_size": 8, "channels": 3})
    return [one.labels for one in found.splits.values()], len(found.classes)


def parts_of(found):
    """The same of what a source gives, whose images are all read."""
    for part in found.parts.values():
        if hasattr(part, "content"):
            for index in range(len(part.labels)):
                part.content(index, None)
    return [part.labels for part in found.parts.values()], len(found.classes)


# Readers: files, and how each is read ---------------------------------------------------------------------------------


def pictures(folder, patch):
    """An image of every kind."""
    for kind in spoiled.KINDS:
        yield spoiled.whole(kind), lambda content: images.inspect_file(content) and ([], 0)


def arrays(folder, patch):
    """Arrays as pixels and as files, in an .npz."""
    path = folder / "a.npz"
    labels, jpegs = np.arange(20) % 2, [spoiled.encoded(noise(8, 8, 3, seed=at), "JPEG") for at in range(20)]
    joined = np.frombuffer(b"".join(jpegs), np.uint8)
    ends = np.cumsum([0, *map(len, jpegs)])
    for save in (np.savez, np.savez_compressed):
        for arrays in (
            dict(train_x=noise(20, 4, 4), train_y=labels, class_names=np.array(["a", "b"])),
            dict(train_jpeg=joined, train_offsets=ends, train_labels=labels),
        ):
            save(path, **arrays)
            yield path.read_bytes(), instead(path, lambda: loaded("arrays", path))


def zips(folder, patch):
    """A folder of images in a zip."""
    filled(folder / "zipped", {"cats": 6, "dogs": 6})
    path = zipped(folder / "zipped", folder / "a.zip")
    yield path.read_bytes(), instead(path, lambda: loaded("folder", path))


def idx(folder, patch):
    """MNIST's files, with images of 2x2 pixels, damaged after they were packed or before."""
    paths = {remote: folder / Path(remote.name).name for remote in mnist.REMOTES}
    patch.setattr(downloads, "fetch", paths.get)  # without a look at the checksum
    patch.setattr(mnist, "SHAPE", (2, 2, 1))
    patch.setattr(mnist, "COUNTS", {"train": 300, "test": 200})
    for part, count in mnist.COUNTS.items():
        images_remote, labels_remote = mnist.FILES[part]
        paths[images_remote].write_bytes(packed(2051, count, 2, 2, content=bytes(4 * count)))
        paths[labels_remote].write_bytes(packed(2049, count, content=b"\x09" * count))
    for path in paths.values():
        yield from both(path, lambda: parts_of(mnist.load(SourceOptions())))


def tars(folder, patch):
    """CIFAR-10's archive, with 40 images of 2x2 pixels in a batch, damaged after it was packed or before."""
    path = folder / "cifar.tar.gz"
    patch.setattr(downloads, "fetch", lambda remote: path)  # as above
    for name, value in {"SHAPE": (2, 2, 3), "AREA": 4, "PIXELS": 12}.items():
        patch.setattr(cifar, name, value)
    layout = cifar.LAYOUTS[10]
    counts = {part: dict.fromkeys(files, 40) for part, files in layout.records.items()}
    patch.setitem(cifar.LAYOUTS, 10, layout._replace(records=counts))
    files = {name: 40 * (b"\x09" + bytes(12)) for part in counts.values() for name in part}
    files[layout.names] = cifar.TEN.encode()
    path.write_bytes(archive({f"{layout.folder}/{name}": content for name, content in files.items()}))
    yield from both(path, lambda: parts_of(cifar.load(SourceOptions())))


def both(path, read):
    """A packed file, and what is in it."""
    packed_again = instead(path, read)
    yield path.read_bytes(), packed_again
    yield gzip.decompress(path.read_bytes()), lambda content: packed_again(gzip.compress(content, 1))


def records(folder, patch):
    """A prepared set of the catalogue: its descriptions, its files of records, and a record in a file that is whole."""
    from prepared import Tiny  # which skips the test where the extra is not installed

    from cnn_vit.data.sources import tfds

    def read():
        return parts_of(tfds.load(SourceOptions(str(folder)), dataset="tiny"))

    Tiny(data_dir=folder, file_format="array_record", version="1.2.0").download_and_prepare()
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            yield path.read_bytes(), instead(path, read)
    (shard,) = folder.rglob("*-test.*")
    array_record = importlib.import_module("array_record.python.array_record_module")
    first, *others = array_record.ArrayRecordReader(str(shard)).read_all()

    def as_shard(content):
        writer = array_record.ArrayRecordWriter(str(folder / "shard"), "group_size:1")
        for one in (content, *others):
            writer.write(one)
        writer.close()
        return (folder / "shard").read_bytes()

    yield first, lambda content: instead(shard, read)(as_shard(content))


READERS = {"images": pictures, "arrays": arrays, "folder": zips, "idx": idx, "cifar": tars, "tfds": records}


@pytest.mark.parametrize("count", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"])
@pytest.mark.parametrize("reader", READERS)
def test_no_mutant_raises_anything_but_ours_or_hangs(tmp_path, monkeypatch, reader, count, capfd):
    signal.setitimer(signal.ITIMER_REAL, LONGEST * count / FAST)
    kept, said = 0, []
    for at, content, read in fuzzed(reader, tmp_path, monkeypatch, count):
        try:
            labels, classes = read(content)
        except UserError as error:
            said.append(str(error))
        except (Exception, SystemExit) as error:
            pytest.fail(f"mutant {at} raised {error!r}")
        else:
            kept += 1
            assert all(((one >= 0) & (one < classes)).all() for one in labels), f"mutant {at}"
    assert 0 < kept < count / 2
    assert all(sentence.strip() and "\n" not in sentence for sentence in said)
    assert "Traceback" not in capfd.readouterr().err
