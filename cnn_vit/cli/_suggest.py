"""What `cnn-vit convert FILE --suggest` answers: the arrays, the network that they may be of, and first rules."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.cli import _model
from cnn_vit.cli._out_file import check_out
from cnn_vit.errors import UserError

if TYPE_CHECKING:
    from cnn_vit.transfer.suggesting.suggest import Suggestion

SUFFIX = ".toml"


def run(args: argparse.Namespace) -> None:
    """Proposes a network and rules, and writes the rules where --out says."""
    if os.path.isdir(args.source):
        raise UserError(f"{args.source} is a folder; --suggest takes a file of weights")
    from cnn_vit import files
    from cnn_vit.transfer import readers, weights
    from cnn_vit.transfer.suggesting.suggest import suggest

    out = Path(args.out) if args.out is not None else None
    if out is not None:
        check_out(out, Path(args.source), suffix=SUFFIX, force=args.force)
        if out.exists():
            refuse_other_toml(out)
        files.ensure_writable(out.parent)
    named = readers.read(Path(args.source))
    if weights.is_own(named):
        raise UserError(f"{args.source} is a file of cnn_vit, whose card says all; --suggest takes those of others")
    suggestion = suggest(args.source, named, model=args.model, keywords=_model.read_model_keywords(args))
    stops.raise_if_requested()
    if out is not None:
        files.write(out, suggestion.toml)
    rules = str(out) if out is not None else f"RULES{SUFFIX}"
    cli.print_answer(
        args,
        as_json(suggestion, out),
        as_text(suggestion, out),
        next_command=next_command(args.source, suggestion, rules),
        even_if_stopped=out is not None,
    )


def refuse_other_toml(out: Path) -> None:
    """Raises UserError where --force would write over a file that this command did not write.

    Raises:
        SurroundingsError: it cannot be read.
    """
    from cnn_vit import files
    from cnn_vit.transfer.suggesting.proposal import TABLE_BEGINS

    beginning = TABLE_BEGINS.encode()
    with files.os_errors(out), open(out, "rb") as file:
        is_own = file.read(len(beginning)) == beginning
    if not is_own:
        raise UserError(f"{out} is there and is not a table of --suggest; name another with --out=FILE{SUFFIX}")


def next_command(source: str, suggestion: "Suggestion", rules: str) -> str:
    """Returns the conversion by the rules; a question mark stands for what the user has to say."""
    words = [source, *suggestion.proposal.model_flags, f"--rules={rules}"]
    size = suggestion.proposal.image_size
    if size is not None:
        words.append(f"--image_size={size[0]},{size[1]}")
    out = Path(f"{Path(source).stem}.safetensors")
    if out.exists():  # perhaps the source itself
        out = Path(f"{out.stem}_converted.safetensors")
    words.append(f"--out={out}")
    return f"cnn-vit convert {' '.join(map(cli.shell_quote, words))}"


def as_json(suggestion: "Suggestion", out: Path | None) -> dict[str, Any]:
    """Returns what is proposed, as --json prints it."""
    proposal = suggestion.proposal
    lines = []
    for line in proposal.lines:
        lines.append({"theirs": line.theirs, "ours": line.ours, "axes": line.axes, "guessed": line.unknown})
    return {
        "out": str(out) if out is not None else None,
        "model": proposal.model,
        "keywords": proposal.keywords,
        "open_keywords": {key: list(values) for key, values in proposal.choices.items()},
        "recognized": list(proposal.facts),
        "open": list(proposal.doubts),
        "prefix": proposal.prefix,
        "lines": lines,
        "no_place": list(proposal.unplaced),
        "misfits": list(suggestion.problems),
        "rules": suggestion.toml,
    }


def as_text(suggestion: "Suggestion", out: Path | None) -> str:
    """Returns the answer for people: what is recognized, what is open, the arrays, and the rules or their file."""
    width = cli.terminal_width()
    proposal = suggestion.proposal
    rows = [("recognized" if i == 0 else "", fact) for i, fact in enumerate(proposal.facts)]
    rows += [("open" if i == 0 else "", doubt) for i, doubt in enumerate(proposal.doubts)]
    for key, values in proposal.choices.items():
        if values:
            rows.append((f"--model.{key}", f"one of {', '.join(map(str, values))}"))
    rows += [("does not fit" if i == 0 else "", problem) for i, problem in enumerate(suggestion.problems)]
    arrays = [("array", "shape", "ours", "mark")]
    for line in proposal.lines:
        name = proposal.prefix + line.theirs
        mark = f"guessed: {line.unknown}" if line.unknown else "sure"
        arrays.append((name, shape_text(name, suggestion.shapes), line.ours, mark))
    for unplaced in proposal.unplaced:
        name = proposal.prefix + unplaced
        arrays.append((name, shape_text(name, suggestion.shapes), "-", "no place"))
    parts = [cli.format_table(rows, width=width), "", cli.format_table(arrays, width=width), ""]
    parts.append(f"rules: {out}" if out is not None else suggestion.toml.rstrip())
    return "\n".join(parts)


def shape_text(pattern: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Returns the shape of the first array that a pattern names."""
    for number in ("0", "1"):
        name = pattern.replace("{i}", number).replace("{i+1}", number)
        if name in shapes:
            return "x".join(map(str, shapes[name]))
    return ""
