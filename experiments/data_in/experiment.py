"""Ways of images into batches: a Python generator, a list of files read by none or several threads, and memory.

Drawn shapes are written as JPEG files into a temporary folder. Each way reads them in batches, brings them to one size,
moves and mirrors them at random, and is timed: images a second, memory, and the time to the first batch.
"""

import io
import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cnn_vit import data, files, plots
from cnn_vit.data.batches import build_transform
from cnn_vit.data.feed import stream
from cnn_vit.files import cache
from cnn_vit.reports.evidence import Evidence, at_least, number
from cnn_vit.reports.intervals import student_interval
from cnn_vit.reports.lab_facts import Table
from cnn_vit.runs.journal import cpu_seconds, now
from cnn_vit.studies.lab import Measured

ORDER = 90
QUESTION = "How should images get from files into a training step?"
CLAIM = (
    "Decoding a file costs far more than anything that is done with its pixels afterwards. So it pays to decode each "
    "image once and to keep the pixels, as long as they fit into memory; threads help only as far as there are cores."
)
SENTENCES = {
    "generator": (
        "A Python generator that opens one image after another is fast enough.",
        "It gives two thirds as many images a CPU-second as a list of files, for Pillow decodes them and Python works "
        "on each single image, and 4 % of what memory gives, for it decodes each image anew in every epoch. "
        "Whether that is fast enough depends on the step: a loader must give images as fast as the step takes them.",
    ),
    "workers": (
        "More workers load data faster.",
        "More threads than cores gained nothing: 8 threads were no faster than 2 on two cores. Whether the second "
        "thread gains a fifth of the pace is not resolved here, for other programs used the same cores. Decoding is "
        "work for a processor, so a thread gains only what a core has left; and on a CPU the step needs those too.",
    ),
    "memory": (
        "Reading all images into memory first is the best way.",
        "It is by far the fastest way once training runs, for each image is decoded once and not once an epoch. The "
        "price is paid before the first batch, when all images are decoded, and in memory: n H W C bytes must fit, "
        "which are 193 GB for ImageNet at 224 pixels. Where decoded pixels are kept on the disk, only the first start "
        "waits.",
    ),
    "order": (
        "With several workers chance decides which images come together in a batch.",
        "Not where order and random changes follow from the seed and the number of the batch, as here: each worker "
        "computes which image it reads. The batches are the same bit for bit, whoever reads them.",
    ),
}
FORMULAS = (
    (
        r"n H W C",
        "The bytes of n decoded images of H x W pixels and C colors. What is read anew each time holds only the images "
        "of the batches that are under way.",
        "cnn-vit lab run data_in --quick",
    ),
    (
        r"\frac{E n}{r} > \frac{n}{r} + \frac{E n}{m}",
        "When decoding once pays: E epochs of n images at r images a second from files take longer than decoding all "
        "once and then reading m a second from memory. That is so for E > m / (m - r): from the second epoch on, where "
        "m is many times r.",
        "cnn-vit lab run data_in --quick",
    ),
    (
        r"x_{k} = f(s, k)",
        "Batch k follows from the seed s and k alone, so that neither the number of threads nor a stop changes it.",
        "pytest tests/data/feed/test_stream.py",
    ),
)
FIGURES = {
    "pace": "CPU time that each way takes for an image, in microseconds: to read and decode it, to bring it to 64 "
    "pixels, and to move and mirror it at random, which all but the generator do for a whole batch on the device.",
}
SURPRISE = (
    "Random changes cost next to nothing: moving and mirroring a whole batch on the device is part of the 22 "
    "microseconds that an image from memory takes, where decoding it takes 400. And the wait before the first batch is "
    "mostly caution: looking at each of the 640 files first takes two thirds of the time of decoding all of them for "
    "good. The clock on the wall says less than the CPU time, for other programs used these two cores too. No GPU was "
    "measured, where the step is faster and waits for files sooner."
)
CHOSEN = "The bounds were fixed before the first full run; that had three seeds, the results have five."
SEEDS = (0, 1, 2, 3, 4)  # five, because clocks of a busy machine spread

SIDE = 64  # pixels that images are brought to
DRAWN = 120  # pixels a side of the files
QUALITY = 90  # of the JPEG files
CLASSES = 4
TRAINED, VALIDATED = 640, 16  # files
BATCH = 32  # images
BATCHES, QUICK_BATCHES = 8, 2  # of a timing
ROUNDS = 5  # in which the ways are timed in turn; the median counts
AHEAD = 2  # batches made before they are asked for
PADDING = 4  # pixels that an image is moved by at most
AUGMENT = (f"pad_crop({PADDING})", "flip")
EXACT = 1e-6  # of a pixel in 0 to 1
LIKE = 0.8  # of another pace: nearly as fast
FASTER = 1.2  # times another pace
LARGE_SET, LARGE_SIDE = 1_281_167, 224  # images and pixels of ImageNet's training set as networks take it
ANY_BOX = (1.0, 1.0)  # data.random_crop that takes the whole of a square image, and decodes it anew each time


@dataclass(frozen=True)
class Way:
    """A way of images into batches.

    Attributes:
        name: as tables have it.
        settings: of the data, over those that all have.
        workers: threads that decode.
    """

    name: str
    settings: tuple[tuple[str, object], ...] = ()
    workers: int = 0


UNCHECKED = (("random_crop", ANY_BOX), ("check", "none"))
GENERATOR = "generator"
WAYS = {
    GENERATOR: Way("Python generator"),
    "files": Way("files, no thread", UNCHECKED),
    "2 threads": Way("files, 2 threads", UNCHECKED, workers=2),
    "8 threads": Way("files, 8 threads", UNCHECKED, workers=8),
    "memory": Way("memory", workers=2),
}
# Ways to start, which differ in what is done before the first batch.
STARTS = {
    GENERATOR: Way("Python generator"),
    "files": Way("list of files", UNCHECKED, workers=2),
    "checked": Way("list of files, each looked at first", (("random_crop", ANY_BOX), ("check", "all")), workers=2),
    "memory": Way("memory", workers=2),
    "again": Way("memory, decoded by an earlier start", workers=2),
}


# Files and batches ----------------------------------------------------------------------------------------------------


def write_images(folder: Path, seed: int, *, quick: bool) -> None:
    """Writes drawn shapes as JPEG files, train/CLASS/NUMBER.jpg and val/CLASS/NUMBER.jpg."""
    counts = {"train": TRAINED // 4 if quick else TRAINED, "val": VALIDATED}
    section = {"name": "shapes", "image_size": DRAWN, "classes": CLASSES, "shapes_seed": seed}
    section |= {"train_count": counts["train"], "validation_count": VALIDATED, "test_count": 0}
    dataset = data.load(section)
    for split, part in (("train", "train"), ("validation", "val")):
        images = dataset.splits[split]
        for row, pixels in enumerate(images.read(np.arange(counts[part]))):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "JPEG", quality=QUALITY)
            name = dataset.classes[images.labels[row]]
            files.write(folder / part / name / f"{row:04}.jpg", content.getvalue())


def generate_batches(folder: Path, seed: int, count: int) -> Iterator[np.ndarray]:
    """Yields batches as a first program would: each image is opened, resized, moved and mirrored by itself."""
    rng = np.random.default_rng(seed)
    paths = sorted((folder / "train").rglob("*.jpg"))
    for _ in range(count):
        images = []
        for index in rng.integers(len(paths), size=BATCH):
            with Image.open(paths[index]) as opened:
                pixels = np.asarray(opened.convert("RGB").resize((SIDE, SIDE)))
            padded = np.pad(pixels, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)))
            down, right = rng.integers(2 * PADDING + 1, size=2)
            pixels = padded[down : down + SIDE, right : right + SIDE]
            if rng.uniform() < 0.5:
                pixels = pixels[:, ::-1]
            images.append(pixels.astype(np.float32) / 255)
        yield np.stack(images)


def open_split(folder: Path, way: Way) -> data.Split:
    """Reads what a way reads before the first batch: all pixels, or only the list of files."""
    section = {"name": "folder", "path": str(folder), "image_size": SIDE, "channels": 3, "batch_size": BATCH}
    return data.load(section | {"workers": way.workers} | dict(way.settings)).splits["train"]


def read_batches(split: data.Split, way: Way, seed: int, count: int) -> Iterator[np.ndarray]:
    """Yields the batches of a training run, changed at random on the device."""
    transform = build_transform(AUGMENT, seed)
    batches = stream.batches(
        split, batch_size=BATCH, seed=seed, start=0, stop=count, workers=way.workers, batches_ahead=AHEAD
    )
    for update, batch in enumerate(batches):
        yield transform(batch["image"], update)


# Measuring ------------------------------------------------------------------------------------------------------------


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """Everything of one seed: the files are drawn from it."""
    count = QUICK_BATCHES if quick else BATCHES
    places = cache.current_places()
    with files.temporary_folder() as folder:
        # A cache of its own, so that nothing is known of the files from before
        cache.configure(folder=folder / "cache", offline=places.offline, mirror=places.mirror)
        try:
            write_images(folder / "images", seed, quick=quick)
            times = time_starts(folder / "images", seed)
            splits = {key: open_split(folder / "images", way) for key, way in WAYS.items() if key != GENERATOR}
            times += trace_memory(folder / "images", seed, count)
            times += time_ways(folder / "images", splits, seed, count, rounds=1 if quick else ROUNDS)
            rows = compare_batches(splits, seed, count)
        finally:
            cache.configure(folder=places.folder, offline=places.offline, mirror=places.mirror)
    return Measured(rows, times)


def time_starts(folder: Path, seed: int) -> list[dict]:
    """Seconds from nothing but the path to the first batch."""
    next(iter(read_batches(open_split(folder, WAYS["files"]), WAYS["files"], seed, 1)))  # imports and compiles
    times = []
    for key, way in STARTS.items():
        began, cpu_began = now(), cpu_seconds()
        split = None if key == GENERATOR else open_split(folder, way)
        batches = generate_batches(folder, seed, 1) if split is None else read_batches(split, way, seed, 1)
        next(iter(batches))
        seconds, cpu = now() - began, cpu_seconds() - cpu_began
        times.append({"what": "start", "way": key, "seconds": seconds, "cpu_seconds": cpu})
    return times


def trace_memory(folder: Path, seed: int, count: int) -> list[dict]:
    """The bytes that Python and NumPy hold when the last batch is out."""
    rows = []
    for key, way in WAYS.items():
        tracemalloc.start()
        if key == GENERATOR:
            batches = generate_batches(folder, seed, count)
        else:
            batches = read_batches(open_split(folder, way), way, seed, count)
        for _ in itertools.islice(batches, count):
            held, _ = tracemalloc.get_traced_memory()
        rows.append({"what": "memory", "way": key, "bytes": held})
        tracemalloc.stop()
    return rows


def time_ways(folder: Path, splits: dict[str, data.Split], seed: int, count: int, *, rounds: int) -> list[dict]:
    """Images a second of wall time and of CPU time, each the median of some rounds in turn."""
    walls: dict[str, list[float]] = {key: [] for key in WAYS}
    cpus: dict[str, list[float]] = {key: [] for key in WAYS}
    for _ in range(rounds):
        for key, way in WAYS.items():
            began, cpu_began = now(), cpu_seconds()
            if key == GENERATOR:
                batches = generate_batches(folder, seed, count)
            else:
                batches = read_batches(splits[key], way, seed, count)
            images = sum(len(batch) for batch in batches)
            walls[key].append(images / (now() - began))
            cpus[key].append(images / (cpu_seconds() - cpu_began))
    times = []
    for key in WAYS:
        times.append({"what": "pace", "way": key, "wall": np.median(walls[key]), "cpu": np.median(cpus[key])})
    return [{name: value if isinstance(value, str) else float(value) for name, value in row.items()} for row in times]


def compare_batches(splits: dict[str, data.Split], seed: int, count: int) -> list[dict]:
    """How far the batches of each way are from those that no thread reads, and the bytes of pixels that it holds."""
    expected = np.concatenate(list(read_batches(splits["files"], WAYS["files"], seed, count)))
    rows = []
    for key, split in splits.items():
        batches = np.concatenate(list(read_batches(split, WAYS[key], seed, count)))
        held = len(split) if split.in_memory else min(AHEAD + 1, count) * BATCH
        difference = float(np.abs(batches - expected).max())
        rows.append({"what": "batches", "way": key, "difference": difference, "held": held * SIDE * SIDE * 3})
    return rows


# What the rows say ----------------------------------------------------------------------------------------------------


def values(rows, key: str, **match) -> np.ndarray:
    """The numbers of the rows that match, one a seed."""
    return np.array([row[key] for row in rows if all(row.get(name) == value for name, value in match.items())])


def weigh(rows) -> dict:
    """What the seed decides: whether threads change the batches."""
    order = []
    for key in ("2 threads", "8 threads"):
        differences = values(rows, "difference", what="batches", way=key)
        order.append(
            at_least(f"largest difference of pixels from the batches without threads, {key}", differences, EXACT)
        )
    return {"order": order}


def weigh_times(times) -> dict:
    """What a clock decides."""

    def paces(key: str, clock: str) -> np.ndarray:
        return values(times, clock, what="pace", way=key)

    def starts(key: str) -> np.ndarray:
        return values(times, "cpu_seconds", what="start", way=key)

    def part(statement: str, numbers: np.ndarray, others: np.ndarray, bound: float) -> Evidence:
        return at_least(statement, numbers / others, bound)

    generator, files_alone, memory = paces(GENERATOR, "cpu"), paces("files", "cpu"), paces("memory", "cpu")
    walls = {key: paces(key, "wall") for key in ("files", "2 threads", "8 threads")}
    return {
        "generator": [
            part("images a CPU-second, over those of a list of files", generator, files_alone, LIKE),
            part("images a CPU-second, over those from memory", generator, memory, LIKE),
        ],
        "workers": [
            part("images a second with 2 threads, over those without", walls["2 threads"], walls["files"], FASTER),
            part("images a second with 8 threads, over those with 2", walls["8 threads"], walls["2 threads"], FASTER),
        ],
        "memory": [
            part("images a CPU-second from memory, over those of a list of files", memory, files_alone, FASTER),
            part("CPU time to the first batch of a list, over that from memory", starts("files"), starts("memory"), 1),
            part("the same where the images were decoded once before", starts("files"), starts("again"), 1),
        ],
    }


def mean_text(numbers) -> str:
    """The mean of the seeds and half the width of its interval."""
    estimate, low, high = student_interval([float(value) for value in numbers])
    half = 0.0 if low is None or high is None else (high - low) / 2
    return f"{number(float(f'{estimate:.3g}'))} \u00b1 {number(float(f'{half:.2g}'))}"


def tabulate(rows) -> list[Table]:
    """What each way holds in memory, here and for a large set."""
    cells = []
    for key, way in WAYS.items():
        if key != GENERATOR:
            (held,) = set(values(rows, "held", what="batches", way=key).tolist())
            large = LARGE_SET if key == "memory" else (AHEAD + 1) * BATCH
            cells.append((way.name, f"{held / 1e6:.1f} MB", f"{large * LARGE_SIDE**2 * 3 / 1e9:.2f} GB"))
    columns = ("way", f"{TRAINED} images of {SIDE} pixels", f"1.28 million images of {LARGE_SIDE} pixels")
    return [Table("decoded pixels that each way holds", columns, tuple(cells))]


def tabulate_times(times) -> list[Table]:
    """Paces, memory and starts."""
    paces, starts = [], []
    for key, way in WAYS.items():
        match = {"what": "pace", "way": key}
        cells = [way.name, mean_text(values(times, "wall", **match)), mean_text(values(times, "cpu", **match))]
        held = values(times, "bytes", what="memory", way=key) / 1e6
        paces.append((*cells, f"{mean_text(held)} MB"))
    for key, way in STARTS.items():
        match = {"what": "start", "way": key}
        seconds = [f"{mean_text(values(times, clock, **match))} s" for clock in ("seconds", "cpu_seconds")]
        starts.append((way.name, *seconds))
    columns = ("way", "images a second", "images a CPU-second", "held by Python and NumPy")
    tables = [Table("pace and memory", columns, tuple(paces))]
    tables.append(Table("time to the first batch", ("way", "on the wall clock", "CPU time"), tuple(starts)))
    return tables


def draw(rows) -> dict[str, str]:
    """No figure is made of what the seed decides."""
    return {}


def draw_times(times) -> dict[str, str]:
    """How long each way works on an image."""
    microseconds = []
    for key in WAYS:
        paces = values(times, "cpu", what="pace", way=key)
        microseconds.append(round(float(1e6 / paces.mean())))
    names = [way.name for way in WAYS.values()]
    return {"pace": plots.draw_bars(microseconds, names, title="CPU microseconds an image")}
