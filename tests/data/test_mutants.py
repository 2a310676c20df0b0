"""Fuzz: files of every reader after accidents. Nothing but our errors, no hang, no label beyond the classes."""

import gzip
import io
import itertools
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import spoiled
from archives import archive, packed
from pictures import filled, noise, zipped

from cnn_vit import data
from cnn_vit.data import images
from cnn_vit.data.parts import Given
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

    cache.settle(folder=tmp_path / "cache")
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


def written(path, then):
    """A reader of bytes that writes them to a file first."""

    def read(content):
        path.write_bytes(content)
        return then()

    return read


def loaded(name, path):
    """The labels and classes of a data set's splits."""
    found = data.load({"name": name, "path": str(path), "workers": 0, "image_size": 8, "channels": 3})
    return [one.labels for one in found.splits.values()], len(found.classes)


def parts_of(found):
    """The same of what a source gives, whose pictures are all read."""
    for part in found.parts.values():
        if hasattr(part, "content"):
            for index in range(len(part.labels)):
                part.content(index, None)
    return [part.labels for part in found.parts.values()], len(found.classes)


# Readers: files, and how each is read ---------------------------------------------------------------------------------


def pictures(folder, patch):
    """A picture of every kind."""
    for kind in spoiled.KINDS:
        yield spoiled.whole(kind), lambda content: images.inspected(content) and ([], 0)


def arrays(folder, patch):
    """Arrays as pixels and as files, in an .npz."""
    path = folder / "a.npz"
    read = written(path, lambda: loaded("arrays", path))
    labels, jpegs = np.arange(20) % 2, [spoiled.encoded(noise(8, 8, 3, seed=at), "JPEG") for at in range(20)]
    for save in (np.savez, np.savez_compressed):
        save(path, train_x=noise(20, 4, 4), train_y=labels, class_names=np.array(["a", "b"]))
        yield path.read_bytes(), read
        joined = np.frombuffer(b"".join(jpegs), np.uint8)
        ends = np.cumsum([0, *map(len, jpegs)])
        save(path, train_jpeg=joined, train_offsets=ends, train_labels=labels)
        yield path.read_bytes(), read


def zips(folder, patch):
    """A folder of pictures in a zip."""
    path = folder / "a.zip"
    filled(folder / "zipped", {"cats": 6, "dogs": 6})
    yield zipped(folder / "zipped", path).read_bytes(), written(path, lambda: loaded("folder", path))


def idx(folder, patch):
    """MNIST's four files with pictures of 2x2 pixels: one of them packed as it was or damaged before it was packed."""
    files = {"train": mnist.FILES["train"], "test": mnist.FILES["test"]}
    paths = {remote: folder / Path(remote.name).name for pair in files.values() for remote in pair}
    patch.setattr(downloads, "fetch", paths.__getitem__)  # without a look at the checksum
    patch.setattr(mnist, "COUNTS", {"train": 5, "test": 3})
    patch.setattr(mnist, "SHAPE", (2, 2, 1))
    for part, count in mnist.COUNTS.items():
        wholes = packed(2051, count, 2, 2, content=bytes(4 * count)), packed(2049, count, content=bytes([9] * count))
        for remote, whole in zip(files[part], wholes, strict=True):
            paths[remote].write_bytes(whole)
    for path in paths.values():
        whole = path.read_bytes()

        def read(content, path=path, whole=whole):
            try:
                return written(path, lambda: parts_of(mnist.load(Given())))(content)
            finally:
                path.write_bytes(whole)

        yield whole, read
        yield gzip.decompress(whole), lambda content, read=read: read(gzip.compress(content, 1))


def tars(folder, patch):
    """CIFAR-10's archive with pictures of 2x2 pixels, packed as it was or damaged before it was packed."""
    layout = cifar.LAYOUTS[10]
    counts = {"train": {f"data_batch_{n}.bin": 2 for n in range(1, 6)}, "test": {"test_batch.bin": 2}}
    patch.setitem(cifar.LAYOUTS, 10, layout._replace(records=counts))
    for name, value in {"SHAPE": (2, 2, 3), "AREA": 4, "PIXELS": 12}.items():
        patch.setattr(cifar, name, value)
    path = folder / "cifar.tar.gz"
    patch.setattr(downloads, "fetch", lambda remote: path)  # as above
    batches = {f"{layout.folder}/{name}": 2 * (b"\x09" + bytes(12)) for name in cifar.sizes(cifar.LAYOUTS[10])}
    whole = archive(batches | {f"{layout.folder}/{layout.names}": cifar.TEN.encode()})
    read = written(path, lambda: parts_of(cifar.load(Given())))
    yield whole, read
    yield gzip.decompress(whole), lambda content: read(gzip.compress(content, 1))


def records(folder, patch):
    """A prepared data set of the catalogue: its descriptions, a file of records, and records in a file that is whole."""
    from prepared import Tiny

    from cnn_vit.data.sources import tfds

    Tiny(data_dir=folder, file_format="array_record", version="1.2.0").download_and_prepare()
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and "unsupervised" not in path.name]
    reader = importlib.import_module("array_record.python.array_record_module")
    for path in paths:
        whole = path.read_bytes()

        def read(content, path=path, whole=whole):
            try:
                return written(path, lambda: parts_of(tfds.load(Given(str(folder)), dataset="tiny")))(content)
            finally:
                path.write_bytes(whole)

        yield whole, read
    shard = next(path for path in paths if "train" in path.name)
    kept = reader.ArrayRecordReader(str(shard)).read_all()

    def again(content):
        pass
