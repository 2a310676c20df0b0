"""CIFAR-10 and CIFAR-100: 60,000 color images of 32x32 pixels; downloads 170 MB.

50,000 to train on, 10,000 to test on. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
`data.classes` chooses: 10 (or nothing) is CIFAR-10, 100 is CIFAR-100 with its fine labels, 20 the same images with
their coarse labels.

From the binary archives of https://www.cs.toronto.edu/~kriz/cifar.html, where each md5 stands too; each sha256 and size
as tensorflow_datasets publishes it (url_checksums/cifar10.txt, cifar100.txt). The archives with pickled batches are not
read. A record is the label, 1 byte, then the red, the green and the blue plane of 32x32 bytes, row after row; CIFAR-100
has the coarse label before the fine one.
"""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_vit.data.base.parts import Part, SourceData, SourceInfo, SourceOptions, pixel_part
from cnn_vit.data.sources._published import damaged_error, file_facts, refuse_large_labels, refuse_path_of_published
from cnn_vit.errors import UserError
from cnn_vit.files import downloads
from cnn_vit.files.downloads import Remote

SHAPE = (32, 32, 3)
AREA, COLORS = 32 * 32, 3
PIXELS = AREA * COLORS  # bytes of the pixels of a record
LONGEST_NAMES = 64 * 2**10  # bytes of a list of class names, at most

CIFAR_10 = Remote(
    addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    name="data/cifar-10-binary.tar.gz",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)
CIFAR_100 = Remote(
    addresses=("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    name="data/cifar-100-binary.tar.gz",
    size=168_513_733,
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    md5="03b5dce01913d631647c71ecec9e9cb8",
)

TEN = "airplane automobile bird cat deer dog frog horse ship truck"
FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple motorcycle mountain mouse mushroom oak orange orchid otter palm pear pickup_truck pine plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
    turtle wardrobe whale willow wolf woman worm
"""
COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2
"""


@dataclass(frozen=True)
class Layout:
    """Where an archive holds what, for one choice of labels.

    Attributes:
        remote: the archive.
        folder: of its files, inside the archive.
        records: part -> file -> number of records in it, in the order in which they are read.
        label_byte: which byte of a record is the label.
        label_bytes: how many bytes of labels a record begins with.
        names_file: file with the names of the classes.
        classes: the names that it must hold.
    """

    remote: Remote
    folder: str
    records: Mapping[str, Mapping[str, int]]
    label_byte: int
    label_bytes: int
    names_file: str
    classes: tuple[str, ...]

    @property
    def record_bytes(self) -> int:
        """The size of a record, its labels and pixels, in bytes."""
        return self.label_bytes + PIXELS

    def file_sizes(self) -> dict[str, int]:
        """Returns the size of each file of records in bytes."""
        sizes: dict[str, int] = {}
        for files in self.records.values():
            for name, count in files.items():
                sizes[name] = count * self.record_bytes
        return sizes


CIFAR_10_RECORDS = {
    "train": {f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    "test": {"test_batch.bin": 10_000},
}
CIFAR_100_RECORDS = {"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}}
LAYOUTS = {  # by the number of classes
    10: Layout(
        remote=CIFAR_10,
        folder="cifar-10-batches-bin",
        records=CIFAR_10_RECORDS,
        label_byte=0,
        label_bytes=1,
        names_file="batches.meta.txt",
        classes=tuple(TEN.split()),
    ),
    100: Layout(
        remote=CIFAR_100,
        folder="cifar-100-binary",
        records=CIFAR_100_RECORDS,
        label_byte=1,
        label_bytes=2,
        names_file="fine_label_names.txt",
        classes=tuple(FINE.split()),
    ),
    20: Layout(
        remote=CIFAR_100,
        folder="cifar-100-binary",
        records=CIFAR_100_RECORDS,
        label_byte=0,
        label_bytes=2,
        names_file="coarse_label_names.txt",
        classes=tuple(COARSE.split()),
    ),
}


def about(options: SourceOptions) -> SourceInfo:
    """Returns the classes, the image shape and the counts, which are known without the archive."""
    layout = choose_layout(options)
    counts = {part: sum(files.values()) for part, files in layout.records.items()}
    return SourceInfo(layout.classes, len(layout.classes), SHAPE, counts)


def load(options: SourceOptions) -> SourceData:
    """Reads both parts into memory; the examples keep the order of the batches.

    Raises:
        UserError: `data.classes` is not 10, 20 or 100, or a path is set.
        SurroundingsError: the archive cannot be had, or is damaged; the sentence says where to put it.
    """
    layout = choose_layout(options)
    path = downloads.fetch(layout.remote)
    contents = dict(read_members(path, layout))
    missing = [name for name in (layout.names_file, *layout.file_sizes()) if name not in contents]
    if missing:
        raise damaged_error(path, f"lacks {', '.join(missing)} in {layout.folder}")
    names = tuple(contents[layout.names_file].decode("utf-8", "replace").split())
    if names != layout.classes:
        problem = f"names the classes {' '.join(names)[:200]}, expected {' '.join(layout.classes)[:200]}"
        raise damaged_error(path, problem)
    parts: dict[str, Part] = {}
    for part, files in layout.records.items():
        # A file's bytes are given up as its part is made, so that memory holds few of them twice
        parts[part] = decode_records(path, layout, [contents.pop(name) for name in files])
    return SourceData(layout.classes, parts, facts=file_facts([layout.remote]))


def choose_layout(options: SourceOptions) -> Layout:
    """Returns the layout for a number of classes.

    Raises:
        UserError: there is none for this number, or a path is set.
    """
    classes = options.classes or 10
    if classes not in LAYOUTS:
        raise UserError(
            f"data.classes is {options.classes}; cifar has 10 (CIFAR-10), 100 (CIFAR-100) or 20 (its coarse labels)"
        )
    layout = LAYOUTS[classes]
    refuse_path_of_published("cifar", options, [layout.remote])
    return layout


def read_members(path: Path, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the content of each file that is read from an archive; nothing is written to the disk.

    Raises:
        SurroundingsError: a file has another size than expected, or the archive does not unpack.
    """
    expected_sizes = layout.file_sizes()
    wanted = {f"{layout.folder}/{name}": name for name in (*expected_sizes, layout.names_file)}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                if name is None or not member.isfile():
                    continue
                # The list of names may have any size that is not absurd
                expected = expected_sizes.get(name, min(member.size, LONGEST_NAMES))
                if member.size != expected:
                    raise damaged_error(path, f"has {name} of {member.size:,} bytes, expected {expected:,}")
                content = archive.extractfile(member)
                yield name, content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged_error(path, f"does not unpack ({error})") from error


def decode_records(path: Path, layout: Layout, contents: list[bytes]) -> Part:
    """Makes a part of the records of its files.

    Raises:
        SurroundingsError: a label is not below the number of classes.
    """
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, layout.record_bytes)
    labels = records[:, layout.label_byte]
    refuse_large_labels(path, labels, len(layout.classes))
    pixels = np.empty((len(records), AREA, COLORS), np.uint8)
    for color, plane in enumerate(np.split(records[:, layout.label_bytes :], COLORS, axis=1)):
        pixels[:, :, color] = plane  # plane by plane: 7 times as fast as a copy of the transposed array
    return pixel_part(pixels.reshape(-1, *SHAPE), labels)
