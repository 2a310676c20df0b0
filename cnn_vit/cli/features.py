"""Write the features of images, as a trained network computes them, to an npz file for other programs.

    cnn-vit features --workdir=runs/flowers --out=flowers.npz                    the run's own data
    cnn-vit features --workdir=runs/flowers --data=birds/ --out=birds.npz        any classes
    cnn-vit features --workdir=runs/flowers --out=new.npz new.jpg photos/        images without labels
    cnn-vit features --workdir=runs/flowers --out=maps.npz --layer=stages/1 --pool=none --split=test

Features are what the head sees, or with --layer the output of any layer that `cnn-vit describe` lists.
What a layer gives for each pixel or token is averaged to one vector of an image (ViT's class token
included); --pool=none leaves it as it is. Images are brought to the size that the network takes. What
was computed once is kept in the cache. The file holds

    features  (N, D) float32, a row for each image; with --pool=none (N, ..., D)
    label     (N,) int32, which count `classes`, a list of names: those of the data, not of the network
    split     (N,) train, validation or test
    index     (N,) int32, the position of the image in its split
    path      (N,) where the images are files

and is read by `numpy.load(FILE)["features"]`. Of images without labels it holds features and path. An
image that cannot be read is then named with its reason and left out, and the exit code is 2. To write
features reads no accuracy off a test split, so that nothing is added to test_reads.jsonl.
"""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import cli
from cnn_vit.cli import _network
from cnn_vit.errors import UserError

UNREADABLE = 2  # exit code where an image cannot be read
ENDING = ".npz"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    _network.add_network_arguments(parser)
    _network.add_data_arguments(parser)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="without labels: a file, a folder or a zip archive")
    parser.add_argument("--split", help="train, validation or test (default: all that the data have)")
    parser.add_argument("--layer", metavar="PATH", default="features", help="layer (default: what the head sees)")
    parser.add_argument(
        "--pool", default="mean", help="mean over pixels or tokens, or none (default: mean, one vector an image)"
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the npz file to write")


def run(args: argparse.Namespace) -> int:
    """Writes the features and prints what is in the file.

    Returns:
        The exit code: 2 where an image cannot be read, else 0.

    Raises:
        UserError: images and data are both named, or the file has another ending.
    """
    out = Path(args.out)
    if out.suffix.lower() != ENDING:
        raise UserError(f"--out={args.out} does not end with {ENDING}, which is what is written; add that")
    if args.images:
        for flag in ("config", "data", "split", "layout"):
            if getattr(args, flag):
                raise UserError(
                    f"--{flag} belongs to data with labels, and {args.images[0]} has none; give one of them"
                )
    from cnn_vit import files

    network = _network.load_network(args)
    files.ensure_writable(out.parent)
    return write_images(args, network, out) if args.images else write_splits(args, network, out)


def write_splits(args: argparse.Namespace, network: Any, out: Path) -> int:
    """Writes the features of data with labels; returns the exit code."""
    from cnn_vit import files
    from cnn_vit.errors import unknown
    from cnn_vit.training import features

    features.check_layer(network.spec, args.layer, args.pool, has_several_sizes=False)  # before data that may be large
    dataset = features.load_dataset(network, _network.choose_data(args, network), layout=args.layout)
    if args.split is not None and args.split not in dataset.splits:
        raise unknown("split", args.split, dataset.splits)
    splits = [args.split] if args.split else list(dataset.splits)
    arrays = features.collect_arrays(
        network, dataset, splits, layer=args.layer, pool=args.pool, batch_size=args.batch_size
    )
    files.write_npz(out, arrays)
    counts = {split: len(dataset.splits[split]) for split in splits}
    answer = describe_file(args, network, arrays) | {
        "classes": list(dataset.classes),
        "counts": counts,
        "notes": dataset.warnings(),
    }
    rows = file_rows(answer)
    rows.append(("splits", ", ".join(f"{count:,} {split}" for split, count in counts.items())))
    rows.append(("classes", f"{len(dataset.classes):,}"))
    rows += [("note", note) for note in answer["notes"]]
    words = [f"--data={args.data}"] if args.data else []
    words += [f"--layer={args.layer}"] if args.layer != features.FEATURES else []
    next_command = " ".join(["cnn-vit probe", _network.network_words(args), *map(cli.shell_quote, words)])
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
    return 0


def write_images(args: argparse.Namespace, network: Any, out: Path) -> int:
    """Writes the features of images without labels; returns the exit code, 2 where one cannot be read."""
    import numpy as np

    from cnn_vit import files
    from cnn_vit.training import features, prediction

    images = prediction.read_images(network, args.images)
    extracted = features.extract_images(network, images, layer=args.layer, pool=args.pool, batch_size=args.batch_size)
    broken = [{"path": image.path, "error": str(image.error)} for image in extracted.broken]
    if not extracted.paths:
        raise UserError(f"{broken[0]['path']} could not be read: {broken[0]['error']}")
    arrays = {"features": extracted.rows, "path": np.array(extracted.paths)}
    files.write_npz(out, arrays)
    answer = describe_file(args, network, arrays) | {"broken": broken}
    rows = file_rows(answer) + [(entry["path"], f"not read: {entry['error']}") for entry in broken]
    next_command = f"cnn-vit predict {_network.network_words(args)} {cli.shell_quote(args.images[0])}"
    cli.print_answer(args, answer, cli.format_table(rows), next_command=next_command, even_if_stopped=True)
    if not broken:
        return 0
    first = f"{broken[0]['path']} could not be read: {broken[0]['error']}"
    count = len(broken) + len(extracted.paths)
    cli.print_note(cli.as_one_line(f"{len(broken)} of {count} images are left out; {first}"))
    return UNREADABLE


def describe_file(args: argparse.Namespace, network: Any, arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns what the answers for programs have in common: the file, the network, the layer and the shape."""
    return {
        "out": args.out,
        "model": network.spec.model,
        "layer": args.layer,
        "pool": args.pool,
        "n": len(arrays["features"]),
        "shape": list(arrays["features"].shape[1:]),
        "arrays": list(arrays),
    }


def file_rows(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the rows of the table that tell the file, the network, the layer and the shape."""
    shape = " x ".join(f"{size:,}" for size in answer["shape"])
    return [
        ("file", f"{answer['out']}, with {', '.join(answer['arrays'])}"),
        ("network", answer["model"]),
        ("layer", answer["layer"]),
        ("features", f"{shape} numbers for each of {answer['n']:,} images"),
    ]
