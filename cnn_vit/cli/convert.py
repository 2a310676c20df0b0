"""Make weights of another program usable here: PyTorch, Keras and safetensors files become a file with a card.

    cnn-vit convert resnet20.th --out=resnet20.safetensors          names and shapes tell the network
    cnn-vit convert runs/flowers --out=flowers.safetensors          the network of a run, to share as one file
    cnn-vit convert cifar_resnet/20@akamaster --out=r20.safetensors weights of a name, cnn-vit list weights
    cnn-vit convert runs/flowers --to=timm --out=timm.safetensors   the same under the names of timm, to load in PyTorch
    cnn-vit convert vit.pt --model.heads=4 --out=vit.safetensors    what no shape tells is asked for
    cnn-vit convert net.npz --mean=0.5 --std=0.25 --image_size=28 --class_names=names.txt --out=net.safetensors
    cnn-vit convert my.pt --suggest --out=my_rules.toml             a first table for a file that no rule knows
    cnn-vit convert my.pt --model=vit/Ti4 --model.width=64 --rules=my_rules.toml --out=my.safetensors
    cnn-vit convert net.npz --value_range=0,255 --channel_order=BGR --mean=104,117,124 --std=1,1,1 --out=net.safetensors

Every array of the file and of the network needs its partner of the right shape: one left over on either side is an
error, and all of them are listed. The answer says by what the file was recognized, which arrays became which part of
the network, and what the card says: network, classes, how images were prepared, source, licence. Flags replace what is
known of the source. Value range and channel order are worked into the weights and the card: the network then sees RGB
images in 0..1 like every other, and gives the same scores. Of Hugging Face's folders give the file of tensors: what
its config.json and preprocessor_config.json say beside it (heads, epsilon, activation, classes, images) is read too.

A file of rules is TOML with a line for each kind of array, their name and ours; {i} stands for any number:

    layout = "torch"
    [arrays]
    "pos_embed" = { ours = "pos_embed/embedding", axes = "1 t d -> t d" }
    "transformer.{i}.attn.qkv.weight" = "blocks/{i}/attention/{query,key,value}/kernel"

--suggest writes a first one: it marks each line as sure or guessed, and says what no array tells.
"""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.cli import _model, _suggest, _to_program
from cnn_vit.cli._out_file import check_out, refuse_other_file
from cnn_vit.errors import UserError, unknown

if TYPE_CHECKING:
    from cnn_vit.transfer.convert import Conversion
    from cnn_vit.transfer.source_facts import SourceFacts

SUFFIX = ".safetensors"
MAX_NAMES_BYTES = 2**22  # of a file of class names
SAID_BY_RUNS = (
    "model", "mean", "std", "value_range", "channel_order", "image_size", "fit", "interpolation", "class_names",
)  # fmt: skip
# What --suggest and --to do not take, beside the source and the network.
NOT_OF_OTHERS = (*SAID_BY_RUNS[1:], "trained_on", "licence")
# Of a folder that Hugging Face's code wrote, as it calls them; an index is given in place of its shards.
FILES_OF_TENSORS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
NAMED = 6  # classes that the answer names, at most


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the words of the command."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a file of weights: .pth .pt .th, .npz, .safetensors, .h5; a name of `cnn-vit list weights`; a run folder",
    )
    _model.add_model_arguments(parser)
    parser.add_argument("--out", metavar=f"FILE{SUFFIX}", help="the file that is written; FILE.toml of --suggest")
    parser.add_argument("--rules", metavar="FILE.toml", help="rules of your own for a file that no rule knows")
    parser.add_argument("--suggest", action="store_true", help="say what the file may hold, and write first rules")
    parser.add_argument(
        "--to", metavar="PROGRAM", help="write the names of another program: timm, torchvision, hf, or what a rule says"
    )
    parser.add_argument("--force", action="store_true", help="write over a file of this kind that is there already")
    parser.add_argument("--mean", metavar="M,M,M", help="mean of each channel, in the unit of the value range")
    parser.add_argument("--std", metavar="S,S,S", help="standard deviation of each channel, in the same unit")
    parser.add_argument(
        "--value_range", metavar="LOW,HIGH", help="what black and white are before mean and std (default: 0,1)"
    )
    parser.add_argument("--channel_order", metavar="ORDER", help="RGB, or BGR as Caffe and OpenCV have it")
    parser.add_argument("--image_size", metavar="SIZE", help="side in pixels, or HEIGHT,WIDTH")
    parser.add_argument("--fit", help="how images are brought to that size: crop, stretch, pad, crop(0.875) ...")
    parser.add_argument("--interpolation", metavar="KIND", help="bilinear or bicubic")
    parser.add_argument("--class_names", metavar="FILE", help="text file with a line for each class, in their order")
    parser.add_argument(
        "--trained_on", metavar="NAME", help="of a run folder: its data set, where it has a better name"
    )
    parser.add_argument("--licence", metavar="TEXT", help="of the weights, to be kept in the card")


def run(args: argparse.Namespace) -> None:
    """Converts the file and prints what became of it."""
    refuse_mixture(args)
    if args.suggest:
        _suggest.run(args)
        return
    if args.out is None:
        raise UserError(f"nothing says which file is written; add --out=FILE{SUFFIX}")
    out = Path(args.out)
    check_out(out, Path(args.source), suffix=SUFFIX, force=args.force)
    if os.path.isdir(args.source):
        refuse_folder_of_tensors(Path(args.source))
    if args.to is not None:
        _to_program.run(args, out)
        return
    if os.path.isdir(args.source):
        export_run(args, out)
        return
    if args.trained_on:
        raise UserError(f"--trained_on={args.trained_on} belongs to a run folder, and {args.source} is none")
    facts = read_facts(args)
    from cnn_vit import files
    from cnn_vit.transfer import weights
    from cnn_vit.transfer.convert import convert_file
    from cnn_vit.transfer.rules_file import read as read_rules

    if out.exists():
        refuse_other_file(out)
    files.ensure_writable(out.parent)
    conversion = convert_file(
        args.source,
        model=args.model,
        keywords=_model.read_model_keywords(args),
        facts=facts,
        rules_file=read_rules(args.rules) if args.rules is not None else None,
    )
    stops.raise_if_requested()
    weights.save(out, conversion.weights)
    answer = as_json(conversion, out)
    next_command = f"cnn-vit predict {cli.shell_quote(f'--weights={out}')} IMAGE ..."
    cli.print_answer(args, answer, as_text(conversion, out), next_command=next_command, even_if_stopped=True)


def export_run(args: argparse.Namespace, out: Path) -> None:
    """Writes the network of a run folder to a file, with a card of what the run says of itself.

    Raises:
        UserError: the folder holds no run, or flags say what its files say already.
    """
    said = [name for name in SAID_BY_RUNS if getattr(args, name) is not None]
    if said or args.model_keywords:
        what = f"--{said[0]}" if said else "--model.KEY"
        raise UserError(f"{args.source} is a run folder, which says its own network and images; leave {what} out")
    from cnn_vit import files, trees
    from cnn_vit.training import run_weights
    from cnn_vit.transfer import weights

    if out.exists():
        refuse_other_file(out)
    files.ensure_writable(out.parent)
    exported = run_weights.describe_export(
        run_weights.weights_of_run(args.source), args.source, licence=args.licence, trained_on=args.trained_on
    )
    stops.raise_if_requested()
    weights.save(out, exported)
    answer = {
        "out": str(out),
        "model": exported.card.model,
        "parameters": trees.count(exported.params),
        "statistics": trees.count(exported.stats),
        "digest": exported.digest,
        "card": asdict(exported.card),
    }
    table = cli.format_table([*card_rows(exported.card), ("file", str(out))], width=cli.terminal_width())
    next_command = f"cnn-vit predict {cli.shell_quote(f'--weights={out}')} IMAGE ..."
    cli.print_answer(args, answer, table, next_command=next_command, even_if_stopped=True)


def refuse_folder_of_tensors(source: Path) -> None:
    """Raises UserError for a folder as Hugging Face's code writes one, with the file in it that is to be given."""
    from cnn_vit.runs import folder
    from cnn_vit.transfer import hub_config

    if (source / folder.CLASSES).exists():
        return
    present = [name for name in FILES_OF_TENSORS if (source / name).is_file()]
    if present:
        raise UserError(
            f"{source} is no run folder, but one of Hugging Face's; give the file of tensors in it: "
            f"{source / present[0]}"
        )
    if "model_type" in hub_config.read_object(source / hub_config.CONFIG):  # the settings of a run have no such key
        raise UserError(
            f"{source} is no run folder: its {hub_config.CONFIG} is one of Hugging Face's, but {FILES_OF_TENSORS[0]} "
            "is not there; give a file of tensors"
        )


def refuse_mixture(args: argparse.Namespace) -> None:
    """Raises UserError for flags that belong to different answers of this command."""
    answers = [name for name in ("suggest", "rules", "to") if getattr(args, name)]
    if len(answers) > 1:
        raise UserError(f"--{answers[0]} and --{answers[1]} do not go together; give one of them")
    said = [name for name in NOT_OF_OTHERS if getattr(args, name) is not None]
    if said and (args.suggest or args.to is not None):
        raise UserError(f"--{said[0]} says nothing to --{answers[0]}; leave it out")


# What the flags say ---------------------------------------------------------------------------------------------------


def read_facts(args: argparse.Namespace) -> "SourceFacts":
    """Reads what the flags say of the source.

    Raises:
        UserError: a flag has a value that it does not take, or the file of class names cannot be used.
    """
    from cnn_vit.settings import KEYS
    from cnn_vit.settings.values import check_value
    from cnn_vit.transfer.source_facts import BGR, RGB, SourceFacts

    size, fit = args.image_size, args.fit
    if size is not None:
        size = check_value("--image_size", KEYS["data.image_size"], size, where="command line", is_text=True)
    if fit is not None:
        fit = check_value("--fit", KEYS["data.fit"], fit, where="command line", is_text=True)
    interpolation = args.interpolation
    if interpolation is not None:
        row = KEYS["data.interpolation"]
        interpolation = check_value("--interpolation", row, interpolation, where="command line", is_text=True)
    if args.channel_order not in (None, RGB, BGR):
        raise unknown("channel order", args.channel_order, (RGB, BGR))
    value_range = read_numbers("--value_range", args.value_range)
    if value_range is not None and len(value_range) != 2:
        raise UserError(f"--value_range={args.value_range} takes two numbers, black and white: --value_range=0,255")
    return SourceFacts(
        mean=read_numbers("--mean", args.mean),
        std=read_numbers("--std", args.std),
        value_range=(value_range[0], value_range[1]) if value_range else None,
        channel_order=args.channel_order,
        image_size=(size, size) if isinstance(size, int) else size,
        fit=fit,
        interpolation=interpolation,
        classes=read_class_names(Path(args.class_names)) if args.class_names else None,
        licence=args.licence,
    )


def read_numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Reads numbers with commas between them; None where the flag is not given.

    Raises:
        UserError: there is something else.
    """
    from cnn_vit.settings.values import KINDS, quote_value

    if text is None:
        return None
    kind = KINDS["floats"]
    try:
        numbers = kind.fit(kind.read(text))
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{flag} is {quote_value(text)}; it takes numbers with commas between them") from error
    if not numbers:
        raise UserError(f"{flag} is {quote_value(text)}; it takes numbers with commas between them")
    return numbers


def read_class_names(path: Path) -> tuple[str, ...]:
    """Reads the names of classes: a line for each, or a list in JSON as a run's classes are.

    Raises:
        SurroundingsError: the file cannot be read.
        UserError: it is not UTF-8, too large, or a name is missing, stands twice or has control characters.
    """
    from cnn_vit import files
    from cnn_vit.transfer import class_names

    with files.os_errors(path), open(path, "rb") as file:
        content = file.read(MAX_NAMES_BYTES + 1)
    if len(content) > MAX_NAMES_BYTES:
        raise UserError(f"--class_names={path} has more than {MAX_NAMES_BYTES:,} bytes; give a line for each class")
    try:
        text = content.decode("utf-8-sig")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (ValueError, RecursionError) as error:
        raise UserError(f"--class_names={path} is neither text in UTF-8 nor a list in JSON ({error})") from error
    fault = class_names.find_fault(names)
    if fault:
        raise UserError(f"--class_names={path}: {fault}; give a line for each class, another name on each")
    if not names:
        raise UserError(f"--class_names={path} is empty; give a line for each class")
    return class_names.strip(names)


# What is answered -----------------------------------------------------------------------------------------------------


def as_json(conversion: "Conversion", out: Path) -> dict[str, Any]:
    """Returns what became of the file, as --json prints it."""
    from cnn_vit import trees

    converted = conversion.weights
    card = asdict(converted.card)
    return {
        "out": str(out),
        "model": card["model"],
        "parameters": trees.count(converted.params),
        "statistics": trees.count(converted.stats),
        "digest": converted.digest,
        "recognized": {"source": conversion.source, "reasons": list(conversion.reasons)},
        "notes": list(conversion.notes),
        "groups": [asdict(group) for group in conversion.groups],
        "card": card,
    }


def as_text(conversion: "Conversion", out: Path) -> str:
    """Returns the answer for people: what it is and why, the parts of the network, the card, and notes."""
    from cnn_vit import trees

    width = cli.terminal_width()
    converted = conversion.weights
    rows = [("recognized", conversion.source)]
    rows += [("", reason) for reason in conversion.reasons]
    parts = [("part", "arrays", "numbers", "from")]
    for group in conversion.groups:
        parts.append((group.ours, f"{group.arrays:,}", f"{group.numbers:,}", group.theirs))
    card = card_rows(converted.card)
    count = f"{trees.count(converted.params):,} parameters"
    if converted.stats:
        count += f" and {trees.count(converted.stats):,} statistics"
    card.append(("file", f"{out}, {count}"))
    lines = [cli.format_table(rows, width=width), ""]
    lines += [cli.format_table(parts, width=width), "", cli.format_table(card, width=width)]
    if conversion.notes:
        lines.append("")
    for note in conversion.notes:
        lines.append(cli.wrap_paragraphs(f"note: {cli.as_one_line(note)}", width))
    return "\n".join(lines)


def card_rows(card: Any) -> list[tuple[str, str]]:
    """Returns a row for each thing that a card says."""
    words = [card.model, *(f"{key}={value}" for key, value in card.keywords.items())]
    rows = [("network", " ".join(words)), ("classes", class_names_text(card))]
    for key, value in sorted(card.preprocessing.items()):
        text = value
        if isinstance(value, list):
            text = ", ".join(f"{number:.6g}" for number in value)
        rows.append((key.replace("_", " "), str(text)))
    for key, value in card.origin.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append((key.replace("_", " "), text))
    return rows


def class_names_text(card: Any) -> str:
    """Returns the number of classes and the first names."""
    if card.classes is None:
        return f"{card.num_classes:,}, without names"
    text = f"{card.num_classes:,}: {', '.join(card.classes[:NAMED])}"
    return f"{text} ..." if card.num_classes > NAMED else text
