"""Run a recipe: train, evaluate, save checkpoints, test at the end, and report.

    cnn-vit train                                                handwritten digits, about a minute
    cnn-vit train --config=configs/cifar_resnet.py:56 --workdir=runs/r56
    cnn-vit train --config=configs/cifar_resnet.py:56 \\
        --config.data.name=arrays --config.data.path=cifar10.npz
    cnn-vit train --config=configs/cifar_resnet.py:56 --help     each setting: value, range, meaning
    cnn-vit train --config=configs/cifar_resnet.py:56 --show     final settings and their origins
    cnn-vit train --show --compile                               and the memory of a step

The same command again resumes a run that was stopped, to the same bits, and leaves a finished run
as it is. A recipe is looked for under the current folder, then beside the package (in the
repository, where the package is installed with `pip install -e`). It is a Python program: run only
those you trust. The words of a recipe follow a colon; the word `smoke` makes any run tiny.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_vit import cli, stops
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.settings import Settings, to_json
from cnn_vit.settings import load as load_settings

if TYPE_CHECKING:
    from cnn_vit.training.starting_values import StageRow
    from cnn_vit.transfer.adapt.rows import GroupRow
    from cnn_vit.transfer.weights import Weights

DEFAULT_RECIPE = "configs/digits_resnet.py"
# settings by which parts of the network may begin or learn in different ways
ADAPTING = (
    *("pretrained.weights", "pretrained.freeze", "pretrained.multipliers", "pretrained.layer_decay"),
    *("pretrained.lora", "pretrained.stages"),
)
STOPPED_IN_REPORT = "the run is finished, but its report was stopped by {}; the same command makes it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--config",
        default=DEFAULT_RECIPE,
        help=f"the recipe to run, configs/NAME.py[:word,word] (default: {DEFAULT_RECIPE})",
    )
    parser.add_argument("--workdir", help="the folder that the run is written to (default: runs/RECIPE[-words])")
    parser.add_argument("--fork_from", metavar="DIR", help="start a new run from the checkpoint of the run in DIR")
    parser.add_argument(
        "--show", action="store_true", help="train nothing; print the final settings and where each comes from"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="with --show: also read the data, compile the training step and print the memory that it needs",
    )


def run(args: argparse.Namespace) -> int:
    """Trains and prints the result, or prints the settings alone; a finished run gets its report.

    Returns:
        The exit code: 3 where the run is finished but its report is not, else 0.
    """
    if args.compile and not args.show:
        raise UserError("--compile belongs to --show, which trains nothing; add --show, or leave --compile out")
    settings = load_settings(args.config, args.overrides)
    for note in settings.notes:
        cli.print_note(cli.as_one_line(note))
    if args.workdir is None:
        args.workdir = str(Path("runs", "-".join((settings.recipe, *settings.words))))
    if args.show:
        show_settings(args, settings)
        return 0
    from cnn_vit.training import loop

    fork_from = None if args.fork_from is None else Path(args.fork_from)
    result = loop.train(settings, Path(args.workdir), fork_from=fork_from, command=train_command(args))
    try:
        with stops.saying(STOPPED_IN_REPORT):
            problems = write_report(args.workdir)
    finally:
        # The run is finished, so its result is printed even where making the report is stopped.
        next_command = f"cnn-vit predict {cli.shell_quote(f'--workdir={args.workdir}')} IMAGE ..."
        table = as_table(result, Path(args.workdir))
        cli.print_answer(args, result, table, next_command=next_command, even_if_stopped=True)
    for sentence in problems:
        cli.print_note(cli.as_one_line(sentence))
    return SurroundingsError.code if problems else 0


def train_command(args: argparse.Namespace) -> str:
    """Returns the command that trains with these settings, ready for a shell; it names no run folder."""
    words = [f"--config={args.config}", *(f"--config.{override}" for override in args.overrides)]
    return " ".join(["cnn-vit", "train", *map(cli.shell_quote, words)])


def write_report(workdir: str) -> tuple[str, ...]:
    """Writes the report of a finished run, or leaves it where nothing changed; returns its problems as sentences."""
    from cnn_vit.reports import report

    try:
        record, _ = report.write(workdir)
    except UserError as error:
        return (f"the run is finished and saved, but its report cannot be written: {error}",)
    return record.problems


def show_settings(args: argparse.Namespace, settings: Settings) -> None:
    """Prints the final settings and where each comes from, and the memory of a step where `--compile` asks for it.

    Nothing is trained, and no run folder is written. The settings are checked as `train` checks them before it reads
    the data. Of a run from pretrained weights, or one that freezes something, a table says what becomes of each part
    of the network; its data are looked at for the number of classes.

    Raises:
        UserError: a setting is wrong, or the named model or data source does not take one of its keywords.
    """
    from cnn_vit.cli import _settings

    _settings.refuse_unknown_keywords(settings)
    from cnn_vit.training import plan, pretrained_settings

    settings, weights = pretrained_settings.complete_settings(settings)
    plan.check(settings)
    answer, text = to_json(settings), _settings.settings_table(settings)
    defaults = _settings.unset_keywords(settings)
    answer["values"] |= defaults
    answer["origin"] |= dict.fromkeys(defaults, "default")
    if any(settings[key] for key in ADAPTING):
        described = describe_start(settings, weights)
        answer["groups"] = [asdict(group) for group in described.groups]
        answer["stages"] = [asdict(stage) for stage in described.stages]
        answer["macs"] = described.macs
        text += f"\n\n{groups_table(described.groups)}; {described.macs:,} MACs an image"
        if described.stages:
            text += f"\n\n{stages_table(described.stages)}"
    if args.compile:
        step_memory, line = measure_step(settings)
        answer["step_memory"] = step_memory
        text += f"\n\n{line}"
    cli.print_answer(args, answer, text, next_command=train_command(args))


@dataclass(frozen=True)
class DescribedStart:
    """What a run begins with, and what of it is trained.

    Attributes:
        groups: the parts of the network, with what becomes of each.
        stages: of the run; () where everything begins at once.
        macs: multiply-accumulates of a forward pass of an image.
    """

    groups: "tuple[GroupRow, ...]"
    stages: "tuple[StageRow, ...]"
    macs: int


def describe_start(settings: Settings, weights: "Weights | None") -> DescribedStart:
    """Describes what a run begins with.

    Args:
        settings: of the run, completed by its weights.
        weights: that it starts from; None for initial values.
    """
    from cnn_vit import data
    from cnn_vit.training import adapting, plan, starting_values

    section = settings.section("data")
    info = data.about(section)
    classes, image_shape = info.classes, info.image_shape
    if classes is None:
        classes = data.read_source(section).classes
    if image_shape is None:
        image_shape = data.load(section).image_shape
    spec = plan.network_spec(settings, classes=len(classes), image_shape=image_shape)
    adapting.check_parts(settings, spec)
    plan.refuse_idle_decay(settings, spec)
    start = starting_values.make_start(settings, weights, spec, tuple(classes))
    macs = plan.count_macs(settings, classes=len(classes), image_shape=image_shape)
    groups, stages = starting_values.list_groups(settings, start, spec), starting_values.list_stages(settings, spec)
    return DescribedStart(groups, stages, macs)


def stages_table(stages: tuple["StageRow", ...]) -> str:
    """Returns the table of the stages of a run: what each trains, for how long, and how many numbers."""
    rows = [("stage", "also trained", "duration", "parameters trained")]
    for number, stage in enumerate(stages, start=1):
        rows.append((str(number), stage.pattern, stage.duration or "until the end", f"{stage.trained:,}"))
    return cli.format_table(rows)


def groups_table(groups: tuple["GroupRow", ...]) -> str:
    """Returns the table of a network's parts: how many of their numbers come from where, and which are trained.

    Factors of adapters and multipliers of the learning rate have a column where there are some.
    """
    names = ["part", "parameters", "loaded", "resized", "new", "frozen", "decayed", "statistics"]
    has_factors = any(group.factors for group in groups)
    has_rates = any((group.least_multiplier, group.most_multiplier) != (1, 1) for group in groups)
    rows: list[tuple[str, ...]] = [(*names, *(["adapters"] * has_factors), *(["learning rate"] * has_rates))]
    for group in groups:
        statistics = ""
        if group.statistics:
            statistics = f"{group.statistics:,} {'frozen' if group.frozen_statistics else 'follow the batches'}"
        counts = (group.count, group.loaded, group.resized, group.new, group.frozen, group.decayed)
        row = [group.path, *(f"{count:,}" if count else "" for count in counts), statistics]
        if has_factors:
            row.append(f"{group.factors:,}" if group.factors else "")
        if has_rates:
            row.append(rates_text(group))
        rows.append(tuple(row))
    factors = sum(group.factors for group in groups)
    trained = sum(group.count - group.frozen for group in groups) + factors
    total = sum(group.count for group in groups)
    of_them = f", {factors:,} of them in adapters beside the {total:,} of the network" if factors else ""
    counted = (
        f"{trained:,} parameters are trained{of_them}"
        if factors
        else f"{trained:,} of {total:,} parameters are trained"
    )
    return f"{cli.format_table(rows)}\n\n{counted}"


def rates_text(group: "GroupRow") -> str:
    """Returns what the learning rate of a part is multiplied by, "x 0.32 to 0.56"; "" where it does not learn."""
    if group.frozen == group.count and not group.factors:
        return ""
    least, most = (f"{multiplier:.3g}" for multiplier in (group.least_multiplier, group.most_multiplier))
    return f"x {least}" if least == most else f"x {least} to {most}"


def measure_step(settings: Settings) -> tuple[dict[str, int | None] | None, str]:
    """Compiles the training step of settings, with their data; nothing is trained, and no run folder is written.

    Returns:
        The memory of the step in bytes by kind, with what is free, or None where this jaxlib does not say; and a line
        about it.
    """
    from cnn_vit import data
    from cnn_vit.runs.description import make_preprocessing
    from cnn_vit.training import devices, memory, program

    dataset = data.load(settings.section("data"))
    program.check_network(settings, dataset)  # before mean and std are measured, which reads images
    run_program = program.Program(settings, dataset, make_preprocessing(settings, dataset))
    run_program.stage = len(run_program.stage_ends)  # the last one trains most, and needs the most memory
    step_memory = run_program.compile_step()
    if step_memory is None:
        return None, "memory of a step: this jaxlib does not say"
    free = devices.free_memory(run_program.mesh)
    return {**step_memory.as_json(), "free": free}, memory.memory_line(step_memory, free)


def as_table(result: dict[str, Any], workdir: Path) -> str:
    """Returns the result of a run as two short tables: a row for each split that was measured, then facts."""
    rows = []
    for split in ("test", "validation"):
        metrics = result.get(split)
        if metrics:
            accuracy, loss = f"accuracy {100 * metrics['accuracy']:.2f} %", f"loss {metrics['loss']:.4f}"
            rows.append((split, accuracy, loss, f"n {metrics['n']}"))
    facts = [
        ("steps", result["steps"]),
        ("parameters", f"{result['parameters']:,}"),
        *list_frozen(result),
        *list_adapters(result),
        *list_timings(result),
        ("run folder", workdir),
    ]
    from cnn_vit.runs import folder

    report = workdir / folder.REPORT
    if report.exists():
        facts.append(("report", report))
    return f"{cli.format_table(rows)}\n\n{cli.format_table(facts)}" if rows else cli.format_table(facts)


def list_frozen(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns what of the network was frozen and whether it stayed; no row where all was trained."""
    frozen = result.get("frozen")
    if not frozen:
        return []
    stayed = f"did not move: sha256 {frozen['digest'][:12]}... as before"
    if frozen["moved"]:
        stayed = f"MOVED: {', '.join(frozen['moved'][:3])}"
    when = " in the first stage" if frozen.get("stages") else ""
    return [("frozen", f"{frozen['parameters']:,} ({frozen['pattern']}){when}, {stayed}")]


def list_adapters(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns how many numbers were trained in adapters; no row where there are none."""
    lora = result.get("lora")
    if not lora:
        return []
    kernels = f"{lora['kernels']} kernel{'' if lora['kernels'] == 1 else 's'}"
    return [
        (
            "adapters",
            f"{lora['parameters']:,} on {kernels} (rank {lora['rank']}, alpha {lora['alpha']:g})",
        )
    ]


def list_timings(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the name and the seconds of each clock time of a run: all of it first, then its parts by name."""
    timing = result.get("timing", {})
    rows = []
    for name in sorted(timing, key=lambda name: (name != "seconds", name)):
        if timing[name] is not None:
            rows.append((name.replace("_", " "), f"{timing[name]:.1f}"))
    return rows
