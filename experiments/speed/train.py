"""How fast is a training step beside plain flax NNX and PyTorch? Images a second of each, in turn on one machine.

    python experiments/speed/train.py [ROW ...] [--arms=ours,nnx+keep,torch+keep] [--work=step,inference,end_to_end]
        [--rounds=5] [--seconds=8] [--retries=3] [--batch_size=N] [--out=FILE] [--warm] [--json]
    python experiments/speed/train.py --table       measures nothing, makes table and plot anew from the results
    python experiments/speed/train.py --check       measures nothing, only checks that the arms compute the same

An arm is FRAMEWORK[:OPTIONS][+MODIFIER...]:

    ours              the step that a run compiles, with the memory of a run (freed pages are kept)
    ours:OPTIONS      the same step, compiled as OPTIONS say: default (XLA's own), none, or what YNN may fuse, as a list
                      of D, E, R, INDIVIDUAL_DOT, INDIVIDUAL_CONVOLUTION; with +onednn oneDNN takes what is left
    nnx               the network of flax's own layers, with nnx.jit and nnx.Optimizer, as a tutorial writes it
    torch             PyTorch, eager, channels last, fused optimizer; where it is not installed the others run
    compile           the same through torch.compile
    +keep             with the allocator settings of `ours`
    +bf16             computes in bfloat16 (not nnx)
    +workers          reads files in two processes, where torch otherwise has none; for end_to_end alone

A work is what is timed: `step` is a training step with its optimizer, `inference` the scores of a batch, both on one
batch of uint8 images in the memory of the host; `end_to_end` is an epoch from JPEG files on the disk, decoded by Pillow
in every arm, with what a run does before its first step (but no compilation).

Each arm is a process of its own, and everything compiles anew. All arms of a row start from the same values; that they
have as many parameters, the same scores and, over three steps, the same losses is checked before anything is timed.
Then they are measured in turn, the idle ones stopped, each in as many steps as fit in --seconds, after a warm-up. A
window during which other processes had more than a tenth of the cores, or the arm much less of them than in its best
window, is measured again, up to --retries times; what is never quiet is marked by ~ and left out of the medians. A
ratio's range is from its least to its largest round.

The results go to train_results.json, and the table of all of them into the README.md beside this file; with --out they
go elsewhere, and README.md stays. Arms that lie in memory together must fit: measure many options in several calls,
each with the arm that they are compared with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from train_parts import checks, tables, windows
from train_parts.rows import DEFAULT_ARMS, END_TO_END, ROWS, WORKS, Arm, Row, read_arms

from cnn_vit import files

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "train_results.json"
PLOT = FOLDER / "train.svg"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- speed table -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"
PEAK_SECONDS = 1.0  # of each kind of matrix product


def arm_environment(cache: Path | None = None) -> dict[str, str]:
    """Returns the variables of an arm's process.

    Args:
        cache: folder of compiled programs; None for an arm that compiles everything anew.
    """
    python_path = [str(FOLDER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # arms share the memory of a GPU
        "PYTHONPATH": os.pathsep.join(python_path),
    }
    if cache is None:
        variables["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    else:
        variables["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        variables["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    return os.environ | variables


def is_installed(distribution: str) -> bool:
    """Whether a distribution is installed; it is not imported."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def drop_missing(arms: list[Arm]) -> list[Arm]:
    """Returns the arms whose framework is installed, and says which are left out."""
    if is_installed("torch"):
        return arms
    present = [arm for arm in arms if arm.framework not in ("torch", "compile")]
    if len(present) < len(arms):
        say("torch is not installed: its arms are left out; pip install -e '.[torch]' brings it")
    return present


def say(sentence: str) -> None:
    """Prints a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)


# Measuring ------------------------------------------------------------------------------------------------------------


def ask_facts(row: Row, values: Path, images: Path | None) -> dict[str, Any]:
    """Draws the row's values and images in a process of its own, which also says what the machine can do.

    Raises:
        ArmError: the process failed.
    """
    request = {
        "row": asdict(row),
        "values": str(values),
        "images": str(images) if images else None,
        "seconds": PEAK_SECONDS,
    }
    command = [sys.executable, str(Path(__file__)), "--facts", json.dumps(request)]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=arm_environment(), check=False)
    if process.returncode:
        raise windows.ArmError(f"the initial values could not be drawn (exit code {process.returncode})")
    return json.loads(process.stdout.splitlines()[-1])


def measure_row(row: Row, arms: list[Arm], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Starts all arms of a row, checks that they compute the same, and measures them in each work.

    Returns:
        What `make_result` returns, for each work; nothing where there is only the check to be made.

    Raises:
        ArmError: an arm failed, or computes something else than the first one.
    """
    works = [work for work in args.work if any(arm.measures(work, row) for arm in arms)]
    arms = [arm for arm in arms if any(arm.measures(work, row) for work in works)]
    with tempfile.TemporaryDirectory() as folder, windows.running_arms([]) as processes:
        values = Path(folder, "values.npz")
        images = Path(folder, "images") if END_TO_END in works else None
        facts = ask_facts(row, values, images)
        for arm in arms:
            windows.refuse_full_memory(processes)
            say(f"{row.name}: {arm.name} gets ready")
            environment = arm_environment(Path(folder, arm.name) if args.warm else None)
            process = windows.ArmProcess(arm, row, values=values, images=images, env=environment)
            processes.append(process)
            process.get_ready()
            is_bfloat16 = "bf16" in (*arm.modifiers, *arms[0].modifiers)
            difference = checks.find_difference(process.ready, processes[0].ready, is_bfloat16=is_bfloat16)
            if difference:
                raise windows.ArmError(f"{arm.name} does not compute what {arms[0].name} does: {difference}")
        if args.check:
            return []
        if args.warm:
            for process in processes:
                process.ready["warm_first_step_seconds"] = time_warm_start(process, row, values, Path(folder))
        results = []
        for work in works:
            able = [process for process in processes if process.arm.measures(work, row)]
            measured = windows.measure_rounds(
                able, work, rounds=args.rounds, seconds=args.seconds, retries=args.retries
            )
            results.append(make_result(row, work, facts, able, measured))
        return results


def time_warm_start(process: windows.ArmProcess, row: Row, values: Path, folder: Path) -> float | None:
    """Starts an arm once more, with its compiled programs in a cache; returns the seconds to its first step.

    Arms of torch keep none: None.
    """
    if process.arm.framework in ("torch", "compile"):
        return None
    environment = arm_environment(folder / process.arm.name)
    with windows.running_arms([]) as processes:
        processes.append(windows.ArmProcess(process.arm, row, values=values, images=None, env=environment))
        processes[0].get_ready()
        return processes[0].ready["first_step_seconds"]


def make_result(
    row: Row,
    work: str,
    facts: dict[str, Any],
    processes: list[windows.ArmProcess],
    measured: dict[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Returns what the results hold of one work on one row.

    Args:
        row: with its batch size.
        work: of WORKS.
        facts: macs, environment and peaks (GFLOP/s of matrix products by what computes them).
        processes: the arms that did this work.
        measured: their windows, by the arm's name.
    """
    arms = {}
    for process in processes:
        ready = {key: value for key, value in process.ready.items() if key != "scores"}
        arm_windows = measured[process.arm.name]
        arms[process.arm.name] = ready | windows.summarize_windows(arm_windows) | {"windows": arm_windows}
    return {"row": row.name, "work": work, "batch_size": row.batch_size, **facts, "arms": arms}


def format_lines(result: dict[str, Any]) -> str:
    """Returns a line for each arm of a result."""
    lines = []
    for name, arm in result["arms"].items():
        lines.append(
            f"{result['row']:9} {result['work']:10} {name:22} {tables.format_rate(arm)} images/s, "
            f"{arm['cpu_ms_per_image']:.3g} CPU-ms an image; windows: {arm['noisy_windows']} noisy, "
            f"{arm['refused_windows']} measured again"
        )
    return "\n".join(lines)


# Results --------------------------------------------------------------------------------------------------------------


def read_results(path: Path) -> list[dict[str, Any]]:
    """Reads the results of earlier measurements; none where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def replace_results(results: list[dict[str, Any]], new_results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the results with new ones in place of those of the same row, work, batch size and versions."""
    new_keys = [tables.key_of(result) for result in new_results]
    return [result for result in results if tables.key_of(result) not in new_keys] + new_results


def is_published(path: Path) -> bool:
    """Whether a file of results is the one that README.md and the plot show."""
    return path.resolve() == RESULTS.resolve()


def publish(results: list[dict[str, Any]]) -> None:
    """Puts the table into README.md in place of the one that stands there, and draws the plot."""
    files.replace_between(README, f"{tables.format_results(results)}\n", begin=TABLE_BEGIN, end=TABLE_END)
    plot = tables.draw_shares(results)
    if plot:
        PLOT.write_text(plot)


def measure_all(args: argparse.Namespace) -> int:
    """Measures the rows of the command line, keeps and prints their results; returns the exit code."""
    results = read_results(args.out)
    all_new: list[dict[str, Any]] = []
    code = 0
    for name in args.rows:
        row = replace(ROWS[name], batch_size=args.batch_size or ROWS[name].batch_size)
        try:
            new_results = measure_row(row, args.arms, args)
        except windows.ArmError as error:
            say(f"{name} is not measured: {error}")
            code = 1
            continue
        if args.check and not args.json:
            print(f"{name}: {', '.join(arm.name for arm in args.arms)} compute the same", flush=True)
        all_new += new_results
        results = replace_results(results, new_results)
        if new_results:
            args.out.write_text(json.dumps(results, indent=1) + "\n")  # after each row: what is measured is not lost
        if not args.json:
            for result in new_results:
                print(format_lines(result), flush=True)
    if args.json:
        print(json.dumps({"results": all_new}))
    elif all_new:
        print(tables.format_results(all_new))
    if all_new and is_published(args.out):
        publish(results)
    return code


def read_arguments() -> argparse.Namespace:
    """Reads the command line; what is wrong with it ends the program with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=f"of {', '.join(ROWS)} (default: all)")
    parser.add_argument("--arms", default=DEFAULT_ARMS, help="(default: %(default)s)")
    parser.add_argument("--work", default="step", help=f"of {', '.join(WORKS)} (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each arm (default: 5)")
    parser.add_argument("--seconds", type=float, default=8, help="of a window (default: 8)")
    parser.add_argument("--retries", type=int, default=3, help="of a window that is not quiet (default: 3)")
    parser.add_argument("--batch_size", type=int, help="images of a batch (default: the row's own)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of the results (default: beside this script)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--table", action="store_true", help="measure nothing; make table and plot from the results")
    parser.add_argument("--check", action="store_true", help="measure nothing; check that the arms compute the same")
    parser.add_argument("--warm", action="store_true", help="time also a start with the compiled programs in a cache")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)  # this process is an arm
    parser.add_argument("--facts", help=argparse.SUPPRESS)  # this process prepares a row
    args = parser.parse_args()
    try:
        args.arms = read_arms(args.arms)
    except ValueError as error:
        parser.error(str(error))
    args.rows = args.rows or list(ROWS)
    args.work = args.work.split(",")
    for word, choices in (*((row, ROWS) for row in args.rows), *((work, WORKS) for work in args.work)):
        if word not in choices:
            parser.error(f"there is no {word!r}; there are {', '.join(choices)}")
    if args.rounds < 1 or args.seconds <= 0 or args.retries < 0 or (args.batch_size or 1) < 1:
        parser.error("--rounds and --batch_size must be at least 1, --seconds above 0, and --retries not negative")
    return args


def main() -> int:
    """Does what the command line says; returns the exit code, 1 where a row could not be measured."""
    args = read_arguments()
    if args.serve or args.facts:
        from train_parts import child

        if args.serve:
            child.serve()
        else:
            print(json.dumps(child.answer_facts(args.facts)))
        return 0
    if args.table:
        results = read_results(args.out)
        print(tables.format_results(results))
        if is_published(args.out):
            publish(results)
        return 0
    args.arms = drop_missing(args.arms)
    if not args.arms:
        say("no arm is left to measure")
        return 1
    return measure_all(args)


if __name__ == "__main__":
    sys.exit(main())
