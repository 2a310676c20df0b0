"""What `cnn-vit convert SOURCE --to=PROGRAM` answers: weights under names of another program, and how to load them."""

import argparse
import os
from pathlib import Path

from cnn_vit import cli, stops
from cnn_vit.cli import _model
from cnn_vit.cli._out_file import refuse_other_file
from cnn_vit.errors import UserError


def run(args: argparse.Namespace, out: Path) -> None:
    """Writes the file, and prints the Python that loads it.

    Raises:
        UserError: the program has no such network, or the flags say a network that the source says itself.
    """
    from cnn_vit import files
    from cnn_vit.training import run_weights
    from cnn_vit.transfer import backwards
    from cnn_vit.transfer.convert import describe_network, open_weights

    if out.exists():
        refuse_other_file(out)
    keywords = _model.read_model_keywords(args)
    if os.path.isdir(args.source):
        if args.model is not None or keywords:
            raise UserError(f"{args.source} is a run folder, which says its own network; leave --model out")
        exported = run_weights.describe_export(run_weights.weights_of_run(args.source), args.source)
    else:
        exported = open_weights(args.source, model=args.model, keywords=keywords)
    written = backwards.write_for(exported, args.to, out)
    files.ensure_writable(out.parent)
    stops.raise_if_requested()
    backwards.save(out, written)
    answer = {
        "out": str(out),
        "program": written.rule.source,
        "arrays": len(written.arrays),
        "digest": exported.digest,
        "load": list(written.lines),
        "untold": written.untold,
    }
    width = cli.terminal_width()
    rows = [
        ("network", describe_network(exported.card)),
        ("names", written.rule.source),
        ("file", f"{out}, {len(written.arrays):,} arrays"),
    ]
    load = "\n".join(f"    {line}" for line in written.lines)
    text = f"{cli.format_table(rows, width=width)}\n\nto load it in Python:\n\n{load}\n"
    words = [str(out), *(f"--model.{key}={value}" for key, value in written.untold.items()), "--out=back.safetensors"]
    next_command = f"cnn-vit convert {' '.join(map(cli.shell_quote, words))}"
    cli.print_answer(args, answer, text, next_command=next_command, even_if_stopped=True)
