"""What the commands that read a network share: where it comes from, and the data beside it. Imports no jax."""

import argparse
from pathlib import Path
from typing import Any

from cnn_vit import files, settings
from cnn_vit.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where the network comes from."""
    parser.add_argument("--workdir", metavar="RUN", required=True, help="run folder of a `cnn-vit train`")


def data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the data come from; the run's own where nothing is said."""
    parser.add_argument("--config", help="recipe whose data section is read; settings of it as --config.data.key=value")
    parser.add_argument(
        "--data", metavar="PATH", help="folder, zip, npz or FILE.py:FUNCTION read instead of the run's data"
    )
    parser.add_argument("--batch_size", type=int, default=256, help="images at once; changes no result (default: 256)")


def data_section(given: argparse.Namespace, network: Any) -> dict[str, Any]:
    """The data section that a command was asked to read, seen as the network sees images.

    Raises:
        UserError: data are named twice, or settings without --config.
    """
    from cnn_vit.training import evaluation

    if given.config and given.data:
        raise UserError("--config and --data both name data; give one of them")
    if given.overrides and not given.config:
        raise UserError(
            f"--config.{given.overrides[0]} sets something of a recipe that is not named; add --config=RECIPE"
        )
    if given.batch_size < 1:
        raise UserError(f"--batch_size={given.batch_size} must be at least 1")
    if given.data:
        return evaluation.section_for(network, given.data)
    if given.config:
        return evaluation.section_as_seen(network, settings.load(given.config, given.overrides).section("data"))
    own = settings.from_json(files.read_json(Path(given.workdir) / "config.json")).section("data")
    if own["name"] == "generator":
        raise UserError(
            f"the data of {given.workdir} come from a program, {own['path']}, and nothing that a run folder names is "
            f"run; if you trust it, say it again: --data={own['path']}"
        )
    return own
