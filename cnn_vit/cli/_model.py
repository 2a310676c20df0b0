"""What commands share that build a network without a recipe: its name and its keywords.

This file imports no jax, so that the help of these commands answers at once.
"""

import argparse
from typing import Any

from cnn_vit.errors import UserError
from cnn_vit.settings.values import parse_any


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares --model=NAME and --model.KEY=VALUE."""
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="the network, family/variant, where the file does not tell it; --model.KEY=VALUE sets a keyword of it",
    )
    parser.set_defaults(model_keywords=[])


def read_model_keywords(args: argparse.Namespace) -> dict[str, Any]:
    """Reads the values of --model.KEY=VALUE as a recipe's settings are read.

    Raises:
        UserError: a keyword is given twice.
    """
    keywords: dict[str, Any] = {}
    for word in args.model_keywords:
        key, _, text = word.partition("=")
        if key in keywords:
            raise UserError(f"--model.{key} is given twice; keep one of them")
        keywords[key] = parse_any(text)
    return keywords
