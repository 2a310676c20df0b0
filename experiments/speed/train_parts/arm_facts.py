"""What a row's arms start from, and what the machine can do: initial values, operations, environment, matmul peak."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cnn_vit import trees
from cnn_vit.analysis import table
from cnn_vit.nn.values import initial_values
from cnn_vit.runs.environment import current_environment, installed_version
from cnn_vit.training import forward
from train_parts.arm_ours import network_spec
from train_parts.rows import CLASS_FOLDERS, Row

MATMUL_SIDE = 2048
ACCELERATOR_SIDE = 8192  # a smaller product would measure how long it takes to start one
JPEG_QUALITY = 90
COARSE = 8  # pixels of a drawn image are made from so many times fewer, so that its JPEG is about as large as a photo's
NOISE = 0.02  # standard deviation of what is added to values that are all alike


def write_values(row: Row, path: Path) -> None:
    """Writes the network's initial values of seed 0, by path.

    Values that start all alike (biases, scales, statistics, the head of a ViT) get some noise, without which two of
    them could be exchanged unseen.
    """
    network = forward.get_network(network_spec(row, "float32"))
    params, stats = initial_values(network, 0)
    rng = np.random.default_rng(0)
    arrays = {}
    for keys, array in jax.tree_util.tree_leaves_with_path(dict(params=params, stats=stats)):
        if array.min() == array.max():
            array = array + rng.normal(0, NOISE, array.shape).astype(np.float32)
        arrays[trees.path_text(keys)] = array
    np.savez(path, **arrays)


def write_images(row: Row, folder: Path) -> None:
    """Draws the JPEG files of a row, FOLDER/train/CLASS/*, and one of each class for validation, FOLDER/val/CLASS/*."""
    rng = np.random.default_rng(0)
    for split, count in (("train", row.files), ("val", CLASS_FOLDERS)):
        for number in range(count):
            coarse = rng.integers(0, 256, (row.file_side // COARSE, row.file_side // COARSE, 3), dtype=np.uint8)
            path = folder / split / f"class{number % CLASS_FOLDERS}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (row.file_side, row.file_side)
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=JPEG_QUALITY)


def count_macs(row: Row) -> int:
    """Counts the multiply-accumulates of the forward pass for one image."""
    height, width, channels = row.image_shape
    description = table.describe(
        row.model, (height, width), num_classes=row.num_classes, channels=channels, **row.keywords
    )
    return description.macs


def measure_matmul(product: Callable[[], Any], seconds: float) -> float:
    """Returns the seconds of the fastest of the products that so many seconds have time for."""
    product()
    best = float("inf")
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        began = time.perf_counter()
        product()
        best = min(best, time.perf_counter() - began)
    return best


def measure_peaks(seconds: float) -> dict[str, float]:
    """Returns the GFLOP/s of a float32 matrix product, by what computes it; on an accelerator also of bfloat16."""
    is_cpu = jax.default_backend() == "cpu"
    side = MATMUL_SIDE if is_cpu else ACCELERATOR_SIDE
    a, b = np.random.default_rng(0).standard_normal((2, side, side), np.float32)
    multiply = jax.jit(jnp.matmul)

    def measure_jax(dtype: str) -> float:
        x, y = jnp.asarray(a, dtype), jnp.asarray(b, dtype)
        return measure_matmul(lambda: multiply(x, y).block_until_ready(), seconds)

    shortest = {"jax": measure_jax("float32")}
    if is_cpu:
        shortest["numpy"] = measure_matmul(lambda: a @ b, seconds)
    else:
        shortest["jax bfloat16"] = measure_jax("bfloat16")
    return {name: 2 * side**3 / product_seconds / 1e9 for name, product_seconds in shortest.items()}


def collect_facts(row: Row, values: Path, images: Path | None, seconds: float) -> dict[str, Any]:
    """Writes the initial values, and the images where there shall be some; returns what does not depend on the arm."""
    write_values(row, values)
    if images:
        write_images(row, images)
    environment = current_environment(None)
    environment["versions"]["torch"] = installed_version("torch")
    return {"macs": count_macs(row), "environment": environment, "peaks": measure_peaks(seconds)}
