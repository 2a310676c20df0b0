"""What the words behind `cnn-vit sweep` ask for: what is to be done, with which folder, and what is swept."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli
from cnn_vit.errors import UserError, nearest, unknown

if TYPE_CHECKING:
    from cnn_vit.studies.sweeping.definition import SweepDefinition

RUN = "run"
HOW = ("workers", "slurm", "hours", "max_failures", "keep", "isolate")  # flags that say how trials are done
WHAT = ("config", "grid", "seeds", "sampler", "trials", "metric")  # flags that say what is swept
# Each word that may stand behind `sweep`, and the flags that it takes beside --out, --json and --debug.
ACTIONS: dict[str, tuple[str, ...]] = {
    RUN: (*WHAT, *HOW, "dry"),
    "status": ("once",),
    "retry": ("state", *HOW),
    "cancel": (),
    "report": ("to",),
    "best": ("test", "again"),
}
FLAGS = tuple(dict.fromkeys(flag for flags in ACTIONS.values() for flag in flags))
CHANGES = ("seeds", "sampler", "trials", "metric", "max_failures")  # flags that are keys of a sweep's file, too
CHANGES_OF_BEGUN = ("trials", "max_failures")  # those that a sweep which has begun still takes


def read_action(words: Sequence[str]) -> tuple[str, list[str]]:
    """Returns what is to be done, and the words behind it; a file or a folder alone is to be run.

    Raises:
        UserError: the first word is neither a file nor one of ACTIONS.
    """
    if not words:
        return RUN, []
    first = words[0]
    if first in ACTIONS:
        return first, list(words[1:])
    looks_like_path = "/" in first or "." in first or Path(first).exists()
    if looks_like_path or "=" in first:
        return RUN, list(words)
    if nearest(first, ACTIONS):
        raise unknown("sweep command", first, ACTIONS)
    raise UserError(
        f"{first!r} is neither a file nor a command of sweep; write cnn-vit sweep FILE.toml --out=DIR, or one of "
        f"{', '.join(ACTIONS)}"
    )


def refuse_other_flags(args: argparse.Namespace, action: str) -> None:
    """Raises UserError for a flag, or a setting, that belongs to another word behind `sweep`."""
    for flag in FLAGS:
        is_given = getattr(args, flag) not in (None, False)
        if is_given and flag not in ACTIONS[action]:
            owners = " and ".join(f"sweep {name}" for name, flags in ACTIONS.items() if flag in flags)
            raise UserError(f"--{flag} belongs to {owners}; leave it out of sweep {action}")
    if args.overrides and action != RUN:
        raise UserError(f"sweep {action} takes no settings; leave out --config.{args.overrides[0]}")


def refuse_swallowed_word(args: argparse.Namespace) -> None:
    """Raises UserError where --slurm, whose options may be left out, took a word that is none."""
    if args.slurm and not args.slurm.lstrip().startswith("-"):
        raise UserError(
            f'--slurm is {args.slurm!r}; it takes options of sbatch in one word, --slurm="--partition=gpu --time=2:00"'
        )


# The folder -----------------------------------------------------------------------------------------------------------


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep."""
    from cnn_vit.studies.sweeping import definition

    try:
        return (path / definition.SPACE).is_file()
    except OSError:  # such as a name that is too long
        return False


def suggest_out(definition: "SweepDefinition") -> str:
    """Returns a folder for a sweep that none was named for."""
    return f"runs/{definition.name.replace(':', '-').replace(',', '-')}"


def take_folder(args: argparse.Namespace, action: str, names: Sequence[str]) -> tuple[Path, list[str]]:
    """Returns the folder of the sweep, and the words behind it.

    Args:
        args: the parsed words.
        action: what is to be done, one of ACTIONS but "run".
        names: the words behind it: the folder first, unless --out names it.

    Raises:
        UserError: no folder is named, or two, or it is not that of a sweep.
    """
    rest = list(names)
    if args.out is None:
        if not rest:
            raise UserError(
                f"sweep {action} needs the folder of a sweep; write cnn-vit sweep {action} DIR, the --out of its "
                "`cnn-vit sweep`"
            )
        out = Path(rest.pop(0))
    else:
        out = Path(args.out)
        if rest and Path(rest[0]) == out:  # named twice, which is one folder all the same
            rest.pop(0)
    if not is_sweep(out):
        raise UserError(not_a_sweep(out, action))
    return out, rest


def not_a_sweep(out: Path, action: str) -> str:
    """Says that a path is not the folder of a sweep, and which is probably meant."""
    if out.is_file():
        reason = f"{out} is a file; sweep {action} takes the folder of a sweep"
    elif not out.exists():
        reason = f"there is no folder {out}"
    else:
        reason = f"{out} holds no sweep (no space.json)"
    siblings = find_sweeps(out.parent)
    near = nearest(out.name, siblings)
    if near:
        return f"{reason}; did you mean {' or '.join(str(out.parent / name) for name in near)}?"
    return f"{reason}; name the --out of a `cnn-vit sweep`"


def find_sweeps(folder: Path) -> list[str]:
    """Lists the names of the sweeps in a folder; none where it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if is_sweep(path))
    except OSError:
        return []


def refuse_more_words(action: str, rest: Sequence[str]) -> None:
    """Raises UserError for words behind the folder."""
    if rest:
        raise UserError(f"sweep {action} takes one folder; leave out {rest[0]}")


# What is swept --------------------------------------------------------------------------------------------------------


def read_definition(args: argparse.Namespace, names: Sequence[str]) -> tuple["SweepDefinition", Path | None]:
    """Returns what is to be swept, and the folder that was named for it.

    It is what a TOML file says, or --config with --grid or its recipe's own `sweep(add)`, or what a folder holds that
    was begun.

    Args:
        args: the parsed words.
        names: the words behind `sweep` or `sweep run`.

    Raises:
        UserError: nothing is named, or two things, or what is named is wrong.
        SurroundingsError: a file cannot be read.
    """
    from cnn_vit.studies.sweeping import definition as definitions

    name = refuse_wrong_names(args, names)
    out = None if args.out is None else Path(args.out)
    changes = {key: getattr(args, key) for key in CHANGES if getattr(args, key) is not None}
    if name is not None and is_sweep(Path(name)):
        if out is not None and out != Path(name):
            raise UserError(f"{name} is the folder of a sweep, and --out={out} names another; give one of them")
        return change_begun(args, Path(name), changes), Path(name)
    if name is not None:
        if args.grid:
            raise UserError(f"--grid belongs to --config=RECIPE; {name} says itself what varies, under [space]")
        return definitions.read_toml(name, changes=changes, overrides=args.overrides), out
    if args.config is not None and args.grid:
        seeds = changes.pop("seeds", 1)
        return definitions.from_grid_words(args.config, args.grid, args.overrides, seeds, changes=changes), out
    if args.config is not None:
        return definitions.from_recipe(args.config, overrides=args.overrides, changes=changes), out
    if args.grid or args.overrides:
        word = f"--grid {args.grid[0]}" if args.grid else f"--config.{args.overrides[0]}"
        raise UserError(f"{word} belongs to a recipe; add --config=RECIPE")
    if out is not None and is_sweep(out):
        return change_begun(args, out, changes), out
    raise UserError(
        "nothing says what to sweep; give a file, cnn-vit sweep FILE.toml --out=DIR, or a recipe and what varies, "
        "--config=RECIPE --grid KEY=VALUE,VALUE"
    )


def refuse_wrong_names(args: argparse.Namespace, names: Sequence[str]) -> str | None:
    """Returns the file or folder that is to be run; None where none is named.

    Raises:
        UserError: there are several, or it is a recipe, or a word of --grid.
    """
    for name in names:
        if name.partition(":")[0].endswith(".py"):
            raise UserError(f"{name} is a recipe; did you mean --config={name}?")
        if "=" in name and not Path(name).exists():
            raise UserError(f"sweep does not take {name}; did you mean --grid {cli.shell_quote(name)}?")
    if len(names) > 1:
        raise UserError(f"sweep run takes one file; leave out {names[1]}")
    if not names:
        return None
    name = names[0]
    if args.config is not None:
        raise UserError(f"{name} and --config={args.config} both say what is swept; give one of them")
    path = Path(name)
    if path.is_dir() and not is_sweep(path):
        raise UserError(
            f"{name} is a folder without a sweep in it; name the TOML file of a sweep, and where it goes with --out=DIR"
        )
    return name


def change_begun(args: argparse.Namespace, out: Path, changes: dict[str, Any]) -> "SweepDefinition":
    """Returns the definition of a sweep that was begun, with more trials where the command line asks for them.

    Raises:
        UserError: the command line changes what makes it another sweep.
    """
    from cnn_vit.studies.sweeping import claims
    from cnn_vit.studies.sweeping import definition as definitions

    other = [f"--{key}" for key in changes if key not in CHANGES_OF_BEGUN]
    other += [f"--config.{override}" for override in args.overrides]
    other += [f"--grid {word}" for word in args.grid or ()]
    if other:
        raise UserError(f"{out} holds a sweep that was begun without {other[0]}; leave it out, or begin another one")
    definition = claims.read_claimed(out)
    for key, value in changes.items():
        if value < 1:
            raise UserError(f"--{key}={value} is less than 1; make it at least 1")
    is_grid = definition.sampler == definitions.GRID
    if is_grid and changes.get("trials", definition.trials) != definition.trials:
        raise UserError(f"{out} holds a grid of {definition.trials} points, all of which are tried; leave --trials out")
    return replace(definition, **changes)


def choose_states(text: str | None) -> tuple[str, ...]:
    """Returns the states of trials that `retry` does again, from what stands behind --state; by default all of them.

    Raises:
        UserError: there is no such state, or it is none that is done again.
    """
    from cnn_vit.studies import trials

    states = trials.RETRIABLE
    if text is None:
        return states
    chosen = []
    for word in text.split(","):
        name = word.strip().replace("_", " ").replace("-", " ")
        if name not in states:
            raise unknown("state of trials that are retried", name, states)
        chosen.append(name)
    return tuple(chosen)
