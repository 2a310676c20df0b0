"""Fuzz tests: files of every reader after accidents give our own errors, never a hang or a label beyond the classes."""

import gzip
import importlib
import itertools
import signal
from pathlib import Path

import numpy as np
import pytest
import spoiled
from archives import compress_idx, compress_tar
from image_files import noise, write_images, write_zip

from cnn_vit import data
from cnn_vit.data.base.parts import SourceOptions
from cnn_vit.data.decode import images
from cnn_vit.data.sources import cifar, mnist
from cnn_vit.errors import UserError
from cnn_vit.files import cache, downloads

LONGEST = 60  # seconds that FAST mutants may take, on a busy machine
FAST, SLOW = 200, 2000  # mutants of each reader


@pytest.fixture(autouse=True)
def _limited(tmp_path):
    """An empty cache, and an end for whatever hangs."""

    def stop(number, frame):
        raise TimeoutError("a mutant hangs")

    cache.configure(folder=tmp_path / "cache")
    signal.signal(signal.SIGALRM, stop)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def mutate(original, rng):
    """The bytes of a file after one to four accidents."""
    content = bytearray(original)
    for _ in range(rng.integers(1, 5)):
        start, kind = int(rng.integers(0, max(1, len(content)))), rng.integers(0, 7)
        length = int(rng.integers(1, 17))
        if kind == 0:  # a flipped bit
            content[start : start + 1] = bytes([content[start] ^ 1 << int(rng.integers(0, 8))]) if content else b""
        elif kind == 1:  # random bytes
            content[start : start + length] = rng.bytes(length)
        elif kind == 2:  # zeros
            content[start : start + length] = bytes(length)
        elif kind == 3:  # ones
            content[start : start + length] = b"\xff" * length
        elif kind == 4:  # the rest is lost
            del content[start:]
        elif kind == 5:  # bytes from elsewhere come in between
            content[start:start] = content[start // 2 : start // 2 + length]
        else:  # some bytes are lost
            del content[start : start + length]
    return bytes(content)


def generate_mutants(name, folder, patch, count):
    """Yields `count` mutants of the files of a reader, always the same: (number, content, function that reads it)."""
    originals = list(READERS[name](folder, patch))
    rng = np.random.default_rng(len(name))
    for number, (content, read) in zip(range(count), itertools.cycle(originals)):
        yield number, mutate(content, rng), read


def read_through_file(path, read):
    """A function that puts bytes into a file, calls `read`, and puts the file's own bytes back."""
    original = path.read_bytes()

    def read_content(content):
        path.write_bytes(content)
        try:
            return read()
        finally:
            path.write_bytes(original)

    return read_content


def load_labels(name, path):
    """The labels of each split of a data set, and its number of classes."""
    dataset = data.load({"name": name, "path": str(path), "workers": 0, "image_size": 8, "channels": 3})
    return [split.labels for split in dataset.splits.values()], len(dataset.classes)


def labels_of_parts(source_data):
    """The same of what a source has, all of whose images are read."""
    for part in source_data.parts.values():
        if hasattr(part, "content"):
            for index in range(len(part.labels)):
                part.content(index, None)
    return [part.labels for part in source_data.parts.values()], len(source_data.classes)


# Readers: each yields the bytes of files, and how each is read --------------------------------------------------------


def image_files(folder, patch):
    """An image of every kind."""

    def inspect(content):
        images.inspect_file(content)
        return [], 0

    for kind in spoiled.KINDS:
        yield spoiled.good_file(kind), inspect


def arrays(folder, patch):
    """Arrays as pixels and as files, in an .npz."""
    path = folder / "a.npz"
    labels, jpegs = np.arange(20) % 2, [spoiled.encode(noise(8, 8, 3, seed=seed), "JPEG") for seed in range(20)]
    joined_jpegs = np.frombuffer(b"".join(jpegs), np.uint8)
    offsets = np.cumsum([0, *map(len, jpegs)])
    as_pixels = dict(train_x=noise(20, 4, 4), train_y=labels, class_names=np.array(["a", "b"]))
    as_files = dict(train_jpeg=joined_jpegs, train_offsets=offsets, train_labels=labels)
    for save in (np.savez, np.savez_compressed):
        for contents in (as_pixels, as_files):
            save(path, **contents)
            yield path.read_bytes(), read_through_file(path, lambda: load_labels("arrays", path))


def zips(folder, patch):
    """A folder of images in a zip."""
    write_images(folder / "zipped", {"cats": 6, "dogs": 6})
    path = write_zip(folder / "zipped", folder / "a.zip")
    yield path.read_bytes(), read_through_file(path, lambda: load_labels("folder", path))


def idx_files(folder, patch):
    """MNIST's files, with images of 2x2 pixels, damaged after they were compressed or before."""
    paths = {remote: folder / Path(remote.name).name for remote in mnist.REMOTES}
    patch.setattr(downloads, "fetch", paths.get)  # the checksum is not looked at
    patch.setattr(mnist, "SHAPE", (2, 2, 1))
    patch.setattr(mnist, "COUNTS", {"train": 300, "test": 200})
    for part, count in mnist.COUNTS.items():
        images_remote, labels_remote = mnist.FILES[part]
        paths[images_remote].write_bytes(compress_idx(2051, count, 2, 2, content=bytes(4 * count)))
        paths[labels_remote].write_bytes(compress_idx(2049, count, content=b"\x09" * count))
    for path in paths.values():
        yield from compressed_and_inside(path, lambda: labels_of_parts(mnist.load(SourceOptions())))


def tars(folder, patch):
    """CIFAR-10's archive, with 40 images of 2x2 pixels in a batch, damaged after it was compressed or before."""
    path = folder / "cifar.tar.gz"
    patch.setattr(downloads, "fetch", lambda remote: path)  # as above
    for name, value in {"SHAPE": (2, 2, 3), "AREA": 4, "PIXELS": 12}.items():
        patch.setattr(cifar, name, value)
    layout = cifar.LAYOUTS[10]
    contents = {}
    for part, batch_names in list(layout.records.items()):
        patch.setitem(layout.records, part, dict.fromkeys(batch_names, 40))
        for name in batch_names:
            contents[f"{layout.folder}/{name}"] = 40 * (b"\x09" + bytes(12))
    contents[f"{layout.folder}/{layout.names_file}"] = cifar.TEN.encode()
    path.write_bytes(compress_tar(contents))
    yield from compressed_and_inside(path, lambda: labels_of_parts(cifar.load(SourceOptions())))


def compressed_and_inside(path, read):
    """A compressed file, and what is in it."""
    read_compressed = read_through_file(path, read)
    yield path.read_bytes(), read_compressed
    yield gzip.decompress(path.read_bytes()), lambda content: read_compressed(gzip.compress(content, 1))


def records(folder, patch):
    """A prepared set of the catalogue: its descriptions, its files of records, and a record in a file that is whole."""
    from prepared import Tiny  # which skips the test where the extra is not installed

    from cnn_vit.data.sources import tfds

    def read():
        return labels_of_parts(tfds.load(SourceOptions(str(folder)), dataset="tiny"))

    Tiny(data_dir=folder, file_format="array_record", version="1.2.0").download_and_prepare()
    for path in sorted(folder.rglob("*.*")):
        if path.is_file():
            yield path.read_bytes(), read_through_file(path, read)
    (shard,) = folder.rglob("*-test.*")
    array_record = importlib.import_module("array_record.python.array_record_module")
    first_record, *other_records = array_record.ArrayRecordReader(str(shard)).read_all()

    def write_shard(content):
        writer = array_record.ArrayRecordWriter(str(folder / "shard"), "group_size:1")
        for record in (content, *other_records):
            writer.write(record)
        writer.close()
        return (folder / "shard").read_bytes()

    yield first_record, lambda content: read_through_file(shard, read)(write_shard(content))


READERS = {
    "images": image_files, "arrays": arrays, "folder": zips, "idx": idx_files, "cifar": tars, "tfds": records,
}  # fmt: skip


@pytest.mark.parametrize("count", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"])
@pytest.mark.parametrize("reader", READERS)
def test_no_mutant_raises_anything_but_our_errors_or_hangs(tmp_path, monkeypatch, reader, count, capfd):
    signal.setitimer(signal.ITIMER_REAL, LONGEST * count / FAST)
    readable, sentences = 0, []
    for number, content, read in generate_mutants(reader, tmp_path, monkeypatch, count):
        try:
            labels_of_splits, classes = read(content)
        except UserError as error:
            sentences.append(str(error))
        except (Exception, SystemExit) as error:
            pytest.fail(f"mutant {number} raised {error!r}")
        else:
            readable += 1
            for labels in labels_of_splits:
                assert ((labels >= 0) & (labels < classes)).all(), f"mutant {number}"
    assert 0 < readable < count / 2
    assert all(sentence.strip() and "\n" not in sentence for sentence in sentences)
    assert "Traceback" not in capfd.readouterr().err
