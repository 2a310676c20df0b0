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
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cnn_vit.data.base.parts import Part, SourceData, SourceInfo, SourceOptions, pixel_part
from cnn_vit.data.sources._published import damaged_error, file_facts, refuse_labels, without_path
from cnn_vit.errors import UserError
from cnn_vit.files import downloads
from cnn_vit.files.downloads import Remote

SHAPE = (32, 32, 3)
AREA, COLORS = 32 * 32, 3
PIXELS = AREA * COLORS  # bytes of a record
MOST = 64 * 2**10  # bytes of a list of names

CIFAR_10 = Remote(
    ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
    "data/cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "c32a1d4ab5d03f1284b67883e8d87530",
)
CIFAR_100 = Remote(
    ("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",),
    "data/cifar-100-binary.tar.gz",
    168_513_733,
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    "03b5dce01913d631647c71ecec9e9cb8",
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


class Layout(NamedTuple):
    """What is where in an archive.

    Attributes:
        remote: the archive.
        folder: of its files.
        records: part -> file -> records in it, in order.
        label: which byte of a record is the label.
        labels: label bytes of a record.
        names: file with the names of the classes.
        classes: these names.
    """

    remote: Remote
    folder: str
    records: Mapping[str, Mapping[str, int]]
    label: int
    labels: int
    names: str
    classes: tuple[str, ...]


BATCHES = {
    "train": {f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    "test": {"test_batch.bin": 10_000},
}
HALVES = {"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}}
LAYOUTS = {  # by the number of classes
    10: Layout(CIFAR_10, "cifar-10-batches-bin", BATCHES, 0, 1, "batches.meta.txt", tuple(TEN.split())),
    100: Layout(CIFAR_100, "cifar-100-binary", HALVES, 1, 2, "fine_label_names.txt", tuple(FINE.split())),
    20: Layout(CIFAR_100, "cifar-100-binary", HALVES, 0, 2, "coarse_label_names.txt", tuple(COARSE.split())),
}


def about(given: SourceOptions) -> SourceInfo:
    """Classes, image shape and counts."""
    layout = choose_layout(given)
    counts = {part: sum(records.values()) for part, records in layout.records.items()}
    return SourceInfo(layout.classes, len(layout.classes), SHAPE, counts)


def load(given: SourceOptions) -> SourceData:
    """Both parts, in memory, in the order of the batches.

    Raises:
        UserError: `data.classes` is none of 10, 20 and 100.
        SurroundingsError: the archive cannot be had, or is damaged; the sentence says where to put it.
    """
    layout = choose_layout(given)
    path = downloads.fetch(layout.remote)
    contents = dict(members(path, layout))
    if lost := [name for name in (layout.names, *record_sizes(layout)) if name not in contents]:
        raise damaged_error(path, f"lacks {', '.join(lost)} in {layout.folder}")
    names = tuple(contents[layout.names].decode("utf-8", "replace").split())
    if names != layout.classes:
        raise damaged_error(
            path, f"names the classes {' '.join(names)[:200]}, expected {' '.join(layout.classes)[:200]}"
        )
    parts: dict[str, Part] = {}
    for part, records in layout.records.items():
        parts[part] = decode_records(path, layout, [contents.pop(name) for name in records])
    return SourceData(layout.classes, parts, facts=file_facts([layout.remote]))


def choose_layout(given: SourceOptions) -> Layout:
    """The layout for a number of classes."""
    if (given.classes or 10) not in LAYOUTS:
        raise UserError(
            f"data.classes is {given.classes}; cifar has 10 (CIFAR-10), 100 (CIFAR-100) or 20 (its coarse labels)"
        )
    layout = LAYOUTS[given.classes or 10]
    without_path("cifar", given, [layout.remote])
    return layout


def record_sizes(layout: Layout) -> dict[str, int]:
    """Bytes of each file of records."""
    record = layout.labels + PIXELS
    return {name: count * record for records in layout.records.values() for name, count in records.items()}


def members(path: Path, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of an archive that are read, once their sizes are right; nothing is unpacked."""
    expected = record_sizes(layout)
    wanted = {f"{layout.folder}/{name}": name for name in (*expected, layout.names)}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = wanted.get(member.name.removeprefix("./"))
                if name is None or not member.isfile():
                    continue
                size = expected.get(name, min(member.size, MOST))
                if member.size != size:
                    raise damaged_error(path, f"has {name} of {member.size:,} bytes, expected {size:,}")
                content = archive.extractfile(member)
                yield name, content.read() if content else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise damaged_error(path, f"does not unpack ({error})") from error


def decode_records(path: Path, layout: Layout, contents: list[bytes]) -> Part:
    """A part from the records of its files."""
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, layout.labels + PIXELS)
    labels = records[:, layout.label]
    refuse_labels(path, labels, len(layout.classes))
    pixels = np.empty((len(records), AREA, COLORS), np.uint8)
    for color, plane in enumerate(np.split(records[:, layout.labels :], COLORS, axis=1)):
        pixels[:, :, color] = plane  # plane by plane: 7 times as fast as a copy of the transposed array
    return pixel_part(pixels.reshape(-1, *SHAPE), labels)
