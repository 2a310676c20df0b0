"""Writes the outlines of weights that have a name, and the rows of timm's results that they quote.

    python tests/transfer/write_outlines.py                    of all that have none
    python tests/transfer/write_outlines.py resnet vit/B16     of those whose names begin so, anew
    python tests/transfer/write_outlines.py --results=results-imagenet.csv --commit=aa4b5850    timm's rows

The networks are built by the classes of the program that an entry's `source` names, torchvision or timm, on torch's
meta device, where nothing is allocated; akamaster's and Keras' by the references of these tests, which have their
names. An outline of another program, {"NAME": [shape]} in a file NAME-WITH-DASHES.json, is packed as it is.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from outlines import FOLDER, TIMM_RESULTS, outline_path, read_source, write_outline
from outlines_of_transformers import find_shapes
from torch_libraries import import_timm, import_torchvision
from torch_references import CifarResNet, mobilenet_shapes

from cnn_vit.transfer import catalog
from cnn_vit.transfer.catalog import NamedWeights

COLUMNS = ("model", "top1", "img_size", "crop_pct", "interpolation")


def main() -> None:
    """Writes what is asked for and prints the path of each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of the names (default: all that have no outline)")
    parser.add_argument("--results", type=Path, help="timm's results/results-imagenet.csv")
    parser.add_argument("--commit", help="the commit of timm's repository that it is of")
    args = parser.parse_args()
    if args.results:
        write_timm_results(args.results, args.commit)
        return
    for plain in sorted(FOLDER.glob("*.json")):
        shapes = json.loads(plain.read_text())
        packed = plain.with_name(f"{plain.name}.gz")
        name = next(name for name in catalog.read_catalog() if outline_path(name) == packed)
        print(write_outline(name, shapes))
        plain.unlink()
    for name, weights in catalog.read_catalog().items():
        is_asked_for = name.startswith(tuple(args.names)) if args.names else not outline_path(name).exists()
        if weights.is_shipped or not is_asked_for:
            continue
        try:
            shapes = shapes_of(weights)
        except LookupError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        megabytes = 4 * sum(math.prod(shape) for shape in shapes.values()) / 1e6
        print(f'{write_outline(name, shapes)}  "megabytes": {megabytes:.1f}')


def shapes_of(weights: NamedWeights) -> dict[str, Sequence[int]]:
    """Returns the shape of each array of weights by its name, from the program that they are of.

    Raises:
        LookupError: no program here builds them.
    """
    shapes = find_shapes(weights)
    if shapes is not None:
        return shapes
    program, name = read_source(weights)
    family, _, variant = weights.model.partition("/")
    with torch.device("meta"):
        if program == "torchvision":
            return state_shapes(torchvision_network(name))
        if program == "timm":
            return state_shapes(import_timm().create_model(name, pretrained=False))
        if family == "cifar_resnet":
            network = CifarResNet((int(variant) - 2) // 6, 10)
            shapes = {f"state_dict.module.{name}": shape for name, shape in state_shapes(network).items()}
            # the files were written by a torch that had no such counters yet
            return {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}
    if family == "mobilenet_v1":
        return keras_hdf5_shapes(mobilenet_shapes(float(variant), 1000))
    raise LookupError(f"nothing here builds {weights.source!r}; write {outline_path(weights.name).stem} by hand")


def torchvision_network(member: str) -> torch.nn.Module:
    """Builds the network of a member of one of torchvision's enumerations of weights."""
    models = import_torchvision().models
    enumeration = type(models.get_weight(member))
    builder = next(name for name in models.list_models() if models.get_model_weights(name) is enumeration)
    return models.get_model(builder, weights=None)


def state_shapes(network: torch.nn.Module) -> dict[str, Sequence[int]]:
    """Returns the shape of each array of a network's state dict."""
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def keras_hdf5_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Sequence[int]]:
    """Names arrays as Keras 2 does in HDF5: a group in a group of the same name, `conv1/conv1/kernel:0`."""
    nested = {}
    for name, shape in shapes.items():
        layer, _, array = name.partition("/")
        nested[f"{layer}/{layer}/{array}:0"] = shape
    return nested


def write_timm_results(results: Path, commit: str) -> None:
    """Writes the rows of timm's results that are about weights of the catalogue, with their commit."""
    sources = [read_source(weights) for weights in catalog.read_catalog().values()]
    wanted = {name for program, name in sources if program == "timm"}
    with open(results, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in wanted]
    with open(TIMM_RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*COLUMNS, "source"), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: row["model"]):
            source = f"huggingface/pytorch-image-models results/results-imagenet.csv at {commit}"
            writer.writerow({**row, "source": source})
    print(TIMM_RESULTS)


if __name__ == "__main__":
    main()
