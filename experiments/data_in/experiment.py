"""Ways of images into batches: a Python generator, a list of files read by none or several threads, and memory.

Drawn shapes are written as JPEG files into a temporary folder. Each way reads them in batches, brings them to one size,
moves and mirrors them at random, and is timed: images a second, memory, and the time to the first batch. Reading,
decoding, resizing and the random changes are timed apart too, and so is a training step that would take the images.
"""

import functools
import io
import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from cnn_vit import compilation, data, files, plots
from cnn_vit.compilation import ProgramKind
from cnn_vit.data.batches import build_transform
from cnn_vit.data.decode.images import decode, fit_image
from cnn_vit.data.feed import stream
from cnn_vit.files import cache
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.reports import lab_rows
from cnn_vit.reports.evidence import Evidence, at_least, number
from cnn_vit.reports.intervals import student_interval
from cnn_vit.reports.lab_facts import Table
from cnn_vit.runs.journal import cpu_seconds, now
from cnn_vit.studies.lab import Measured

ORDER = 90
QUESTION = "How should images get from files into a training step?"
CLAIM = (
    "Getting an image's pixels (reading, decoding, resizing) costs far more than moving and mirroring them. So it pays "
    "to do it once and to keep the pixels, as long as they fit into memory."
)
SENTENCES = {
    "generator": (
        "A Python generator that opens one image after another is fast enough.",
        "It depends on the step that takes the images. Here that is one of cnn/small with 32 images of 64 pixels on "
        "two cores: the generator gives 8.2 times as many images a CPU-second as the step takes, so that an image "
        "costs it 12 % (1 / 8.2) of the CPU time that the step takes for one. The two were timed one after the other; "
        "together, on the same cores, they were not, and neither was a GPU.",
    ),
    "pace": (
        "A Python generator that opens one image after another is as fast as any other way.",
        "It gives 5 % of the images a CPU-second that memory gives, for it decodes each image anew in every epoch. "
        "Beside a list of files it gives 0.74 times as many, and that this is less than the bound of 0.8 is open. The "
        "list of files decodes JPEG by simplejpeg, where it is installed as here, in 139 microseconds an image; the "
        "generator by Pillow in 176.",
    ),
    "workers": (
        "More workers load data faster.",
        "Not such small images on two cores: 2 threads give 0.80 times as many a second as none, and 8 threads 0.75 "
        "times as many as 2. An image takes less than 0.4 milliseconds, and with more threads more of the CPU time "
        "goes into anything but images: 383 CPU-microseconds each without a thread, 650 with 2, 829 with 8. On the "
        "same machine, while other programs used its cores too, 2 threads gave 1.6 times as many (1.1 to 2.0).",
    ),
    "memory": (
        "Reading all images into memory first is the best way.",
        "It is by far the fastest way once training runs, for each image is decoded once and not once an epoch. The "
        "price is paid before the first batch, when all images are decoded, and in memory: n H W C bytes must fit, "
        "which are 193 GB for ImageNet at 224 pixels. Where decoded pixels are kept on the disk, only the first start "
        "decodes; that the next ones wait less than a list of files does is open by this clock.",
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
        "The bytes of n decoded images of H x W pixels and C colors, which memory holds. What is read anew each time "
        "holds only the images of the batches that are under way.",
        "pytest tests/studies/test_lab_data.py -k decoded_images",
    ),
    (
        r"\frac{E n}{r} > \frac{n}{r} + \frac{E n}{m}",
        "When decoding once pays: E epochs of n images at r images a second from files take longer than decoding all "
        "once and then reading m a second from memory. That is so for E > m / (m - r): from the second epoch on, where "
        "m is many times r.",
        "pytest tests/studies/test_lab_data.py -k decoding_once",
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
    "Random changes cost next to nothing: moving and mirroring a whole batch on the device is part of the 26 "
    "microseconds that an image from memory takes; with reading, decoding and resizing it takes 383. Timed apart, "
    "resizing (136) costs as much as decoding (139), and reading the file 14. The wait of a list of files that are "
    "looked at first is mostly that look (three quarters), and looking at each of the 640 files takes more than half "
    "of the time of reading all their pixels."
)
CHOSEN = (
    "The bounds were fixed before the first full run; that had three seeds, the results have five. The training step "
    "and the parts of the work on an image were timed later: the bound of the step is 1, as fast as it, and was fixed "
    "before it was timed. All was measured once more, with the code as it was, on an idle machine: before, the "
    "sentence on workers was open, that on the pace of a generator false, and that on memory conditional."
)
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
TIMED = 96  # images, each of whose steps are timed apart
MODEL = "cnn/small"  # whose training step takes the images
PARTS = {
    "read": "reading the file",
    "decode": "decoding it, as the list of files does",
    "pillow": "decoding it by Pillow, as the generator does",
    "resize": f"resizing it from {DRAWN} to {SIDE} pixels",
    "change": "moving and mirroring it in a batch on the device",
}
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
            times += time_parts(folder / "images", seed, rounds=1 if quick else ROUNDS)
            times.append({"what": "step", "cpu": time_step(seed, rounds=1 if quick else ROUNDS)})
            rows = compare_batches(splits, seed, count)
            rows.append({"what": "images", "count": len(splits["memory"])})
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


def time_parts(folder: Path, seed: int, *, rounds: int) -> list[dict]:
    """CPU-seconds of each thing that is done with an image, each the median of some rounds in turn."""
    paths = sorted((folder / "train").rglob("*.jpg"))[:TIMED]
    contents = [path.read_bytes() for path in paths]
    decoded = [decode(content, channels=3) for content in contents]
    fitted = np.stack([fit_image(pixels, (SIDE, SIDE), "stretch") for pixels in decoded])
    transform = build_transform(AUGMENT, seed)
    parts = {
        "read": lambda: [path.read_bytes() for path in paths],
        "decode": lambda: [decode(content, channels=3) for content in contents],
        "pillow": lambda: [np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents],
        "resize": lambda: [fit_image(pixels, (SIDE, SIDE), "stretch") for pixels in decoded],
        "change": lambda: jax.block_until_ready(
            [transform(fitted[start : start + BATCH], start) for start in range(0, TIMED, BATCH)]
        ),
    }
    parts["change"]()  # compiles
    seconds: dict[str, list[float]] = {key: [] for key in PARTS}
    for _ in range(rounds):
        for key, part in parts.items():
            began = cpu_seconds()
            part()
            seconds[key].append((cpu_seconds() - began) / TIMED)
    return [{"what": "part", "part": key, "cpu_seconds": float(np.median(seconds[key]))} for key in PARTS]


def time_step(seed: int, *, rounds: int) -> float:
    """The images a CPU-second that a training step takes (its loss and gradients), the median of some rounds."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(CLASSES, size=BATCH)
    parts, step = build_step()
    run = functools.partial(step, *initial_values(parts, seed), images, labels)
    jax.block_until_ready(run())  # compiles
    paces = []
    for _ in range(rounds):
        began = cpu_seconds()
        jax.block_until_ready(run())
        paces.append(BATCH / (cpu_seconds() - began))
    return float(np.median(paces))


@functools.cache
def build_step() -> tuple:
    """The network, and its loss with gradients as one compiled program."""
    parts = functional(build(MODEL, CLASSES, image_size=SIDE))

    def compute_loss(params, stats, images, labels):
        scores, _ = parts.apply(params, stats, images, train=True)
        right = jax.numpy.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
        return -right.mean()

    kind = ProgramKind(jax.default_backend(), convolutional=True, dtype="float32")
    return parts, compilation.jit(jax.value_and_grad(compute_loss), kind)


def compare_batches(splits: dict[str, data.Split], seed: int, count: int) -> list[dict]:
    """How far the batches of each way are from those that no thread reads."""
    expected = np.concatenate(list(read_batches(splits["files"], WAYS["files"], seed, count)))
    rows = []
    for key, split in splits.items():
        batches = np.concatenate(list(read_batches(split, WAYS[key], seed, count)))
        rows.append({"what": "batches", "way": key, "difference": float(np.abs(batches - expected).max())})
    return rows


# Formulas -------------------------------------------------------------------------------------------------------------


def decoded_bytes(count: int, side: int) -> int:
    """The bytes of square images in color, decoded."""
    return count * side**2 * 3


def least_epochs(files_pace: float, memory_pace: float) -> float:
    """The epochs from which on decoding once pays; infinite where memory is not faster than files."""
    return memory_pace / (memory_pace - files_pace) if memory_pace > files_pace else float("inf")


# What the rows say ----------------------------------------------------------------------------------------------------


def values(rows, key: str, **match) -> np.ndarray:
    """The numbers of the rows that match, one a seed."""
    return np.array(lab_rows.values(rows, key, **match))


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
    step = values(times, "cpu", what="step")
    return {
        "generator": [
            part(f"images a CPU-second, over those that a training step of {MODEL} takes", generator, step, 1)
        ],
        "pace": [
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
    """What decoded images hold in memory, here and of a large set."""
    (count,) = set(values(rows, "count", what="images").tolist())
    cells = []
    for name, images, side in (
        ("a batch", BATCH, SIDE),
        ("all images of this experiment", count, SIDE),
        ("the training images of ImageNet", LARGE_SET, LARGE_SIDE),
    ):
        cells.append((name, f"{images:,}", str(side), f"{decoded_bytes(images, side) / 1e6:,.1f} MB"))
    columns = ("of", "images", "pixels a side", "decoded")
    return [Table("decoded pixels, by the formula", columns, tuple(cells))]


def tabulate_times(times) -> list[Table]:
    """Paces, memory, starts, the parts of the work on an image, and when memory pays."""
    paces, starts, parts, epochs = [], [], [], []
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
    for key, name in PARTS.items():
        seconds = values(times, "cpu_seconds", what="part", part=key)
        parts.append((name, mean_text(1e6 * seconds)))
    parts.append((f"the training step of {MODEL} that takes it", mean_text(1e6 / values(times, "cpu", what="step"))))
    tables.append(Table("CPU microseconds an image", ("part", "CPU microseconds"), tuple(parts)))
    for key in ("files", "2 threads", "8 threads"):
        pairs = zip(*(values(times, "cpu", what="pace", way=way) for way in (key, "memory")), strict=True)
        epochs.append((WAYS[key].name, mean_text([least_epochs(*pair) for pair in pairs])))
    tables.append(Table("epochs that memory needs to be ahead, by the formula", ("beside", "epochs"), tuple(epochs)))
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
