"""CIFAR, MNIST and Fashion-MNIST from small files of their exact layout, and the errors over damaged ones."""

import dataclasses
import gzip
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from archives import compress_idx, compress_tar

from cnn_vit import data
from cnn_vit.data.base.parts import SourceOptions
from cnn_vit.data.sources import cifar, fashion_mnist, mnist
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.files import cache
from cnn_vit.files.downloads import Remote

CLASSES_OF_SUPERCLASS = {  # a few rows of the table on CIFAR-100's page
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "flowers": "orchid poppy rose sunflower tulip",
    "people": "baby boy girl man woman",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}


@pytest.fixture(autouse=True)
def mirror(tmp_path):
    """The folder of a mirror, the only place from which files come; the cache is empty."""
    cache.configure(folder=tmp_path / "cache", mirror=str(tmp_path / "mirror"), offline=True)
    yield tmp_path / "mirror"
    cache.configure()


def mirror_path(mirror, remote):
    """Returns where a mirror has a file: HOST/PATH of its first address."""
    return mirror / remote.addresses[0].partition("://")[2]


def publish(mirror, remote, content):
    """Puts a file where a mirror has it; returns the file as the source would have to know it."""
    path = mirror_path(mirror, remote)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return Remote(remote.addresses, remote.name, size=len(content), sha256=sha256, md5=remote.md5)


# MNIST and Fashion-MNIST


def publish_small_idx(module, mirror, monkeypatch, **replaced):
    """Publishes five images to train on and three to test on, and tells the source of them.

    `replaced` holds the content of files to publish instead, such as `train_labels`. Returns the images and the labels
    of each part.
    """
    images = {
        "train": np.arange(5 * 784).astype(np.uint8).reshape(5, 28, 28),
        "test": (np.arange(3 * 784) // 7).astype(np.uint8).reshape(3, 28, 28),
    }
    labels = {"train": bytes([5, 0, 4, 9, 9]), "test": bytes([7, 2, 1])}
    files = {}
    for part, (images_remote, labels_remote) in module.FILES.items():
        count = len(labels[part])
        images_file = compress_idx(2051, count, 28, 28, content=images[part].tobytes())
        labels_file = compress_idx(2049, count, content=labels[part])
        files[part] = (
            publish(mirror, images_remote, replaced.get(f"{part}_images", images_file)),
            publish(mirror, labels_remote, replaced.get(f"{part}_labels", labels_file)),
        )
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setattr(module, "COUNTS", {"train": 5, "test": 3})
    return images, labels


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_idx_files_are_read_in_their_order(mirror, monkeypatch, module):
    images, labels = publish_small_idx(module, mirror, monkeypatch)
    source_data = module.load(SourceOptions())
    assert source_data.classes == module.CLASSES
    for name, expected in images.items():
        part = source_data.parts[name]
        rows = np.arange(len(expected))[::-1]
        np.testing.assert_array_equal(part.read(rows), expected[rows][..., None])
        assert part.labels.tolist() == list(labels[name])
        assert part.labels.dtype == np.int32
    assert len(source_data.facts["files"]) == 4


HEADER = (2051, 5, 28, 28)  # of IDX images, five of 28x28 pixels


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (
            "train_images",
            compress_idx(*HEADER, content=bytes(3920))[:-20],
            "does not unpack (Compressed file ended before",
        ),
        (
            "train_images",
            compress_idx(*HEADER, content=bytes(3920))[:-8] + bytes(8),
            "does not unpack (CRC check failed",
        ),
        ("train_images", b"<html>no such page</html>", "does not unpack (Not a gzipped file (b'<h'))"),
        ("train_images", b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff", "does not unpack ("),
        (
            "train_images",
            compress_idx(2049, 5, content=bytes(5)),
            "begins with 0x00000801, expected 0x00000803 (IDX, bytes",
        ),
        (
            "train_labels",
            compress_idx(*HEADER, content=bytes(3920)),
            "begins with 0x00000803, expected 0x00000801 (IDX, bytes",
        ),
        ("train_images", compress_idx(), "is empty, expected 0x00000803"),
        ("train_images", compress_idx(2051, 5), "holds 5 bytes, expected 5x28x28"),
        ("train_images", compress_idx(2051, 6, 28, 28, content=bytes(4704)), "holds 6x28x28 bytes, expected 5x28x28"),
        ("train_images", compress_idx(2051, 5, 32, 32, content=bytes(5120)), "holds 5x32x32 bytes, expected 5x28x28"),
        ("test_labels", compress_idx(2049, 5, content=bytes(5)), "holds 5 bytes, expected 3"),
        ("train_images", compress_idx(*HEADER, content=bytes(3919)), "unpacks to 3,935 bytes, expected 3,936"),
        (
            "train_images",
            compress_idx(*HEADER, content=bytes(9999)),
            "unpacks to more than 3,936 bytes, expected 3,936",
        ),
        ("test_labels", compress_idx(2049, 3, content=bytes([0, 10, 1])), "has the label 10, expected 0 to 9"),
    ],
)
def test_a_damaged_idx_file_is_one_sentence(mirror, monkeypatch, name, content, problem):
    publish_small_idx(mnist, mirror, monkeypatch, **{name: content})
    with pytest.raises(SurroundingsError) as caught:
        mnist.load(SourceOptions())
    part, kind = name.split("_")
    images_remote, labels_remote = mnist.FILES[part]
    path = mirror_path(mirror, labels_remote if kind == "labels" else images_remote)
    assert str(caught.value).startswith(f"{path} {problem}")
    assert str(caught.value).endswith("; remove it and give the same command again, which downloads it again")
    assert "\n" not in str(caught.value)


# CIFAR


def make_record(*labels, seed):
    """Returns a record: labels, then the planes of an image of a known pattern, color by color."""
    color, row, column = np.ogrid[:3, :32, :32]
    return bytes(labels) + (80 * color + row + column // 2 + seed).astype(np.uint8).tobytes()


def make_image(seed):  # -> (H, W, C)
    """Returns the image of `make_record` as it must be read, colors last."""
    row, column, color = np.ogrid[:32, :32, :3]
    return (80 * color + row + column // 2 + seed).astype(np.uint8)


def cifar_10_files(**replaced):
    """Returns the files of CIFAR-10's archive with two records a batch, in the order in which tar has them.

    `replaced` holds other contents by the file's name with "_dot_" for its point; False leaves a file out.
    """
    folder = "cifar-10-batches-bin"
    files = {folder: None, f"{folder}/data_batch_1.bin": make_record(6, seed=0) + make_record(9, seed=1)}
    files[f"{folder}/batches.meta.txt"] = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"
    for number in (3, 4, 5, 2):  # not in their order
        seed = 2 * number - 2
        files[f"{folder}/data_batch_{number}.bin"] = make_record(number, seed=seed) + make_record(0, seed=seed + 1)
    files[f"{folder}/test_batch.bin"] = make_record(3, seed=20) + make_record(8, seed=21)
    files[f"{folder}/readme.html"] = b"<html>"
    for name, content in replaced.items():
        files[f"{folder}/{name.replace('_dot_', '.')}"] = content
    return {name: content for name, content in files.items() if content is not False}


def cifar_100_files():
    """Returns the files of CIFAR-100's archive with three and two records: coarse label, fine label, planes."""
    folder = "cifar-100-binary"
    train = make_record(11, 19, seed=0) + make_record(15, 29, seed=1) + make_record(4, 0, seed=2)
    return {
        f"{folder}/coarse_label_names.txt": "\n".join(cifar.COARSE.split()).encode() + b"\n",
        f"{folder}/fine_label_names.txt": "\n".join(cifar.FINE.split()).encode() + b"\n",
        f"{folder}/train.bin": train,
        f"{folder}/test.bin": make_record(10, 49, seed=3) + make_record(19, 99, seed=4),
    }


def publish_small_cifar(mirror, monkeypatch, classes, content):
    """Publishes an archive, its bytes or its files, and tells the source of it and of its counts; returns its path."""
    layout = cifar.LAYOUTS[classes]
    records = {"train": {"train.bin": 3}, "test": {"test.bin": 2}}
    if classes == 10:
        batches = {f"data_batch_{number}.bin": 2 for number in range(1, 6)}
        records = {"train": batches, "test": {"test_batch.bin": 2}}
    remote = publish(mirror, layout.remote, content if isinstance(content, bytes) else compress_tar(content))
    monkeypatch.setitem(cifar.LAYOUTS, classes, dataclasses.replace(layout, remote=remote, records=records))
    return mirror_path(mirror, layout.remote)


@pytest.mark.parametrize("classes", [None, 10])
def test_cifar_10_is_read_batch_by_batch_with_colors_last(mirror, monkeypatch, classes):
    publish_small_cifar(mirror, monkeypatch, 10, cifar_10_files())
    source_data = cifar.load(SourceOptions(classes=classes))
    assert source_data.parts["train"].labels.tolist() == [6, 9, 2, 0, 3, 0, 4, 0, 5, 0]
    assert source_data.parts["test"].labels.tolist() == [3, 8]
    assert source_data.parts["train"].labels.dtype == np.int32
    for part, seeds in {"train": range(10), "test": (20, 21)}.items():
        images = source_data.parts[part].read(np.arange(len(seeds)))
        np.testing.assert_array_equal(images, np.stack([make_image(seed) for seed in seeds]))
    assert source_data.classes[6] == "frog"


@pytest.mark.parametrize(
    ("classes", "train", "test", "names"),
    [(100, [19, 29, 0], [49, 99], ["cattle", "dinosaur", "apple", "mountain", "worm"]),
     (20, [11, 15, 4], [10, 19], ["large_omnivores_and_herbivores", "reptiles", "fruit_and_vegetables",
                                  "large_natural_outdoor_scenes", "vehicles_2"])],
)  # fmt: skip
def test_cifar_100_has_fine_and_coarse_labels(mirror, monkeypatch, classes, train, test, names):
    publish_small_cifar(mirror, monkeypatch, classes, cifar_100_files())
    source_data = cifar.load(SourceOptions(classes=classes))
    assert source_data.parts["train"].labels.tolist() == train
    assert source_data.parts["test"].labels.tolist() == test
    assert [source_data.classes[label] for label in train + test] == names
    np.testing.assert_array_equal(source_data.parts["test"].read(np.array([1])), make_image(4)[None])


def cifar_10_archive(**replaced):
    """Returns CIFAR-10's small archive, packed, with some files replaced as in `cifar_10_files`."""
    return compress_tar(cifar_10_files(**replaced))


BATCH = make_record(6, seed=0) + make_record(9, seed=1)


@pytest.mark.parametrize(
    ("contents", "problem"),
    [
        (cifar_10_archive()[:-300], "does not unpack ("),
        (cifar_10_archive()[:20], "does not unpack ("),
        (b"<html>no such page</html>", "does not unpack (not a gzip file)"),
        (gzip.compress(b"no tar at all"), "does not unpack ("),
        (cifar_10_archive(data_batch_3_dot_bin=False), "lacks data_batch_3.bin in cifar-10-batches-bin"),
        (compress_tar({"other/test_batch.bin": b""}), "lacks batches.meta.txt, data_batch_1.bin, data_batch_2.bin, "),
        (cifar_10_archive(data_batch_3_dot_bin=BATCH[:-1]), "has data_batch_3.bin of 6,145 bytes, expected 6,146"),
        (cifar_10_archive(data_batch_3_dot_bin=BATCH * 2), "has data_batch_3.bin of 12,292 bytes, expected 6,146"),
        (cifar_10_archive(data_batch_3_dot_bin=b"\x0a" + BATCH[1:]), "has the label 10, expected 0 to 9"),
        (
            cifar_10_archive(batches_dot_meta_dot_txt=b"cat\ndog\n"),
            "names the classes cat dog, expected airplane automob",
        ),
        (
            cifar_10_archive(batches_dot_meta_dot_txt=b" " * 10**6),
            "has batches.meta.txt of 1,000,000 bytes, expected 65,",
        ),
        (cifar_10_archive(data_batch_3_dot_bin=None), "lacks data_batch_3.bin"),
    ],
    ids=range(12),  # an archive's bytes hold the time, and the workers of a test run must agree on names
)
def test_a_damaged_archive_is_one_sentence(mirror, monkeypatch, contents, problem):
    path = publish_small_cifar(mirror, monkeypatch, 10, contents)
    with pytest.raises(SurroundingsError) as caught:
        cifar.load(SourceOptions())
    assert str(caught.value).startswith(f"{path} {problem}")
    assert str(caught.value).endswith("; remove it and give the same command again, which downloads it again")
    assert "\n" not in str(caught.value)


def test_cifar_is_chosen_by_its_classes():
    assert cifar.about(SourceOptions()).num_classes == 10
    assert cifar.about(SourceOptions(classes=20)).classes == tuple(cifar.COARSE.split())
    with pytest.raises(UserError, match=r"data\.classes is 50; cifar has 10 \(CIFAR-10\), 100 \(CIFAR-100\) or 20"):
        cifar.about(SourceOptions(classes=50))


# What all of them agree on


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [("cifar", 10, (32, 32, 3)), ("cifar", 100, (32, 32, 3)), ("mnist", 10, (28, 28, 1)),
     ("fashion_mnist", 10, (28, 28, 1))],
)  # fmt: skip
def test_the_published_counts_are_known_without_a_file(name, classes, shape):
    info = data.about({"name": name, "classes": classes})
    assert (len(info.classes), info.num_classes, info.image_shape) == (classes, classes, shape)
    train = 50_000 if name == "cifar" else 60_000
    assert info.counts == {"train": train * 9 // 10, "validation": train // 10, "test": 10_000}


def all_remotes():
    """Returns every file of these sources; CIFAR-100's archive is there twice."""
    return [layout.remote for layout in cifar.LAYOUTS.values()] + mnist.REMOTES + fashion_mnist.REMOTES


def test_every_file_has_its_address_size_and_hashes():
    for remote in all_remotes():
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)
        assert re.fullmatch("[0-9a-f]{32}", remote.md5)
        assert all(Path(address).name == Path(remote.name).name for address in remote.addresses)
        assert remote.name.startswith("data/")
    assert len({remote.sha256 for remote in all_remotes()}) == 10
    assert len({remote.name for remote in all_remotes()}) == 10


def test_the_labels_of_cifar_100_are_those_of_its_page():
    fine, coarse = cifar.FINE.split(), cifar.COARSE.split()
    assert (len(fine), len(coarse)) == (100, 20)
    assert fine == sorted(fine)
    assert coarse == sorted(coarse)
    for superclass, classes in CLASSES_OF_SUPERCLASS.items():
        assert superclass in coarse
        assert set(classes.split()) <= set(fine)


@pytest.mark.parametrize("name", ["cifar", "mnist", "fashion_mnist"])
def test_a_path_is_refused_with_where_the_files_come_from(name):
    with pytest.raises(UserError, match=rf"data\.name={name} takes no path, data\.path is 'x'; unset it .*\.gz"):
        data.check({"name": name, "path": "x"})


@pytest.mark.parametrize("name", ["cifar", "mnist", "fashion_mnist"])
def test_without_the_files_the_sentence_says_where_they_belong(name, tmp_path):
    with pytest.raises(SurroundingsError, match=rf"put it at {tmp_path}/cache/data/.*md5 [0-9a-f]{{32}}\)") as caught:
        data.load({"name": name})
    assert caught.value.code == 3


def test_the_parts_of_a_source_become_the_splits_of_a_data_set(mirror, monkeypatch):
    images, labels = publish_small_idx(
        mnist,
        mirror,
        monkeypatch,
        train_labels=compress_idx(2049, 20, content=bytes(range(10)) * 2),
        train_images=compress_idx(2051, 20, 28, 28, content=bytes(20 * 784)),
    )
    monkeypatch.setattr(mnist, "COUNTS", {"train": 20, "test": 3})
    dataset = data.load({"name": "mnist", "train": "train[:10]", "validation": "train[10:]"})
    assert dataset.image_shape == (28, 28, 1)
    counts = {name: len(split) for name, split in dataset.splits.items()}
    assert counts == {"train": 10, "validation": 10, "test": 3}
    np.testing.assert_array_equal(dataset.splits["test"].read(np.arange(3)), images["test"][..., None])
    assert dataset.splits["test"].labels.tolist() == list(labels["test"])
    assert list(dataset.facts["files"]) == [Path(remote.name).name for remote in mnist.REMOTES]
