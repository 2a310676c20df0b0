"""What an arm has to do, and what all arms do alike: its job, its batch, the cores and threads that it counts."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train_parts.rows import Arm, Row, read_arm


@dataclass(frozen=True)
class Job:
    """What a process has to get ready.

    Attributes:
        row: the network and its batch.
        arm: how it is run.
        values: npz of the initial values, by path.
        images: folder of JPEG files; None where none are read.
        began: `time.perf_counter` of the parent, in seconds, when it started the process.
    """

    row: Row
    arm: Arm
    values: Path
    images: Path | None
    began: float


def read_job(line: str) -> Job:
    """Reads the parent's first line."""
    fields = json.loads(line)
    return Job(
        row=read_row(fields["row"]),
        arm=read_arm(fields["arm"]),
        values=Path(fields["values"]),
        images=Path(fields["images"]) if fields["images"] else None,
        began=fields["began"],
    )


def read_row(fields: dict[str, Any]) -> Row:
    """Reads a row that was written as JSON, which has no tuples."""
    tuples = {}
    for key in ("image_shape", "keywords", "sizes"):
        value = fields[key]
        if isinstance(value, list):
            tuples[key] = tuple(value)
        else:
            tuples[key] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
    return Row(**fields | tuples)


def draw_batch(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Draws the batch on which every arm works: images (B, H, W, C) uint8 and labels (B,) int32."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (row.batch_size, *row.image_shape), dtype=np.uint8)
    return images, rng.integers(0, row.num_classes, row.batch_size, dtype=np.int32)


def mean_and_std(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each color, of images in 0..1; those of the drawn batch, nearly."""
    channels = row.image_shape[2]
    return np.full(channels, 0.5, np.float32), np.full(channels, 0.29, np.float32)


def usable_cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_threads(name: str) -> int | None:
    """Counts the threads of this process that have a name; None where that cannot be told, outside of Linux."""
    tasks = list(Path("/proc/self/task").glob("*/comm"))
    return sum(task.read_text().strip() == name for task in tasks) if tasks else None
