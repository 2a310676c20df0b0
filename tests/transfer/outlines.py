"""Outlines: the names and shapes of a file of weights without its values, for weights that have a name.

They lie in tests/tables/outlines/, one file for each entry of the catalogue, `resnet-50@torchvision_v2.json.gz` of
resnet/50@torchvision_v2: {"NAME": [shape]} in JSON, compressed. `write_outlines.py` writes them.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from converted import as_named

from cnn_vit.transfer.catalog import NamedWeights
from cnn_vit.transfer.readers import NamedArrays

FOLDER = Path(__file__).parents[1] / "tables" / "outlines"
SUFFIX = ".json.gz"
TIMM_RESULTS = FOLDER.parent / "timm_results.csv"  # rows of timm's table of accuracies
SOURCE = re.compile(r"(torchvision|timm|transformers) [\d.]+, ([\w./-]*\w)")


def outline_path(name: str) -> Path:
    """Returns where the outline of weights lies."""
    return FOLDER / f"{name.replace('/', '-')}{SUFFIX}"


def read_outline(name: str) -> dict[str, tuple[int, ...]]:
    """Reads the shape of each array of weights by its name in their file."""
    shapes = json.loads(gzip.decompress(outline_path(name).read_bytes()))
    return {array: tuple(shape) for array, shape in shapes.items()}


def write_outline(name: str, shapes: Mapping[str, Sequence[int]]) -> Path:
    """Writes the outline of weights, the same bytes for the same shapes, and returns its path."""
    lines = [f"{json.dumps(array)}:{json.dumps(list(shape), separators=(',', ':'))}" for array, shape in shapes.items()]
    text = "{" + ",\n".join(lines) + "}\n"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = outline_path(name)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path


def as_arrays(shapes: Mapping[str, tuple[int, ...]], **facts) -> NamedArrays:
    """Returns arrays of these shapes as a reader would; each is one number that is seen everywhere, so that nothing is
    allocated."""
    return as_named({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}, **facts)


def read_source(weights: NamedWeights) -> tuple[str, str]:
    """Returns the program that weights are of and what it calls them: ("timm", "resnet50.a1_in1k"); "" for others."""
    match = SOURCE.match(weights.source)
    return (match[1], match[2]) if match else ("", "")
