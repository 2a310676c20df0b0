"""What the commands that read a trained network share: where the network comes from, and the data beside it.

This file imports no jax, so that the help of these commands answers at once.
"""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import cli, settings
from cnn_vit.cli import _model
from cnn_vit.data.sections import READING_KEYS
from cnn_vit.errors import UserError


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that name the network: a run folder, or a file of weights."""
    parser.add_argument("--workdir", metavar="RUN", help="the run folder of a `cnn-vit train`")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="a file of weights instead: of `cnn-vit convert`, somebody else's, or a name of `cnn-vit list weights`",
    )
    _model.add_model_arguments(parser)


def load_network(args: argparse.Namespace) -> Any:
    """Loads the network that the flags name, as `training.trained.Trained`.

    Raises:
        UserError: no network is named, or two; --model stands without --weights; or there is no network.
    """
    if args.workdir and args.weights:
        raise UserError("--workdir and --weights both name a network; give one of them")
    if not args.workdir and not args.weights:
        raise UserError("no network is named; give --workdir=RUN, or --weights=FILE")
    keywords = _model.read_model_keywords(args)
    if not args.weights and (args.model or keywords):
        raise UserError("--model belongs to --weights=FILE; a run folder says its own model")
    from cnn_vit.training import trained

    if args.workdir:
        return trained.load_run(args.workdir)
    return trained.load(args.weights, model=args.model, keywords=keywords)


def refuse_run_folder(path: str, remedy: str) -> None:
    """Raises UserError for a run folder that is named as a file of weights, where the command takes it in another way.

    Args:
        path: text of --weights.
        remedy: how the command takes a run folder.
    """
    from cnn_vit.runs import folder

    if (Path(path) / folder.CONFIG).is_file():
        raise UserError(f"--weights={path} is a run folder, which {remedy}")


def network_words(args: argparse.Namespace) -> str:
    """Returns the flags that name the network, ready for a shell, for the command that comes next."""
    words = []
    for name in ("workdir", "weights", "model"):
        if getattr(args, name, None):  # `report` has no --workdir
            words.append(f"--{name}={getattr(args, name)}")
    words += [f"--model.{word}" for word in args.model_keywords]
    return " ".join(map(cli.shell_quote, words))


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags that name the data; without any, the data of the run are read."""
    parser.add_argument(
        "--config",
        help="the recipe whose data section is read instead of the run's; --config.data.key=value changes it",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a folder, zip or npz file, or FILE.py:FUNCTION, that is read instead of the run's data",
    )
    parser.add_argument(
        "--layout",
        metavar="KIND",
        help="what the folders of --data are: classes, or splits with class folders (default: their names tell)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=256,
        help="how many images are computed at once; it changes no result (default: 256)",
    )


def choose_data(args: argparse.Namespace, network: Any) -> str | dict[str, Any]:
    """Returns the path or the data section that a command was asked to read; a section is at the network's image size.

    Args:
        args: the parsed words, with what both functions above declare.
        network: the trained network, as `training.trained.load` returns it.

    Raises:
        UserError: the data are named twice, settings are given without --config, the batch size is not positive, or
            the run's own data come from a program, which no run folder may start.
    """
    from cnn_vit.runs import reader
    from cnn_vit.training import evaluation

    if args.config and args.data:
        raise UserError("--config and --data both name data; give one of them")
    if args.overrides and not args.config:
        raise UserError(
            f"--config.{args.overrides[0]} sets something of a recipe that is not named; add --config=RECIPE"
        )
    if args.layout and not args.data:
        raise UserError(f"--layout={args.layout} belongs to --data=PATH; a recipe says --config.data.layout")
    if args.batch_size < 1:
        raise UserError(f"--batch_size={args.batch_size} must be at least 1")
    if args.data:
        return args.data
    if args.config:
        recipe = settings.load(args.config, args.overrides)
        section = recipe.section("data")
        for key in READING_KEYS:  # what the recipe leaves open is the network's, not a default
            if recipe.origin[f"data.{key}"] == "default":
                del section[key]
        return evaluation.section_as_seen(network, section)
    if network.run is None:
        raise UserError("weights have no data of their own; name some, --data=PATH or --config=RECIPE")
    section = reader.read_settings(network.run).section("data")
    if section["name"] == "generator":
        # A run folder may come from anybody: only a user may decide that a program which it names is executed.
        raise UserError(
            f"the data of {network.run} come from a program, {section['path']}, and cnn-vit runs no program that only "
            f"a run folder names; if you trust it, name it yourself: --data={section['path']}"
        )
    return section
