"""What does the scheduler itself cost? A sweep of many trials that do nothing, and the same command again.

    python experiments/sweeps/scheduler.py [--trials=1000] [--workers=2] [--rounds=3]

A trial calls a function that returns at once, so that what remains is planning, locks, folders and files. Each start is
a process of its own. Its CPU-seconds and its memory are those of the scheduler; workers are counted apart. The second
start finds everything finished. The table is also written into the README.md beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from cnn_vit import files

README = Path(__file__).with_name("README.md")
TABLE_BEGIN = "<!-- scheduler -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"

OBJECTIVE = "def nothing(values):\n    return values['x'] + values['y']\n"
PROGRAM = """
import json, resource, sys, time
began = time.monotonic()
import cnn_vit
space = {"x": {"uniform": (0.0, 1.0)}, "y": {"log": (1e-4, 1.0)}}
table = cnn_vit.sweep(sys.argv[1] + "/mine.py:nothing", space, sampler=sys.argv[2], trials=int(sys.argv[3]),
                      workers=int(sys.argv[4]), mode="max", out=sys.argv[1] + "/out")
own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({"seconds": time.monotonic() - began, "cpu": own.ru_utime + own.ru_stime, "mb": own.ru_maxrss / 1024,
                  "workers": children.ru_utime + children.ru_stime, "has_jax": "jax" in sys.modules,
                  "complete": table["counts"].get("complete", 0)}))
"""


def start(folder: Path, sampler: str, trials: int, workers: int) -> dict[str, Any]:
    """Starts the sweep in a process of its own; returns what that says of itself."""
    command = [sys.executable, "-c", PROGRAM, str(folder), sampler, str(trials), str(workers)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(sampler: str, trials: int, workers: int) -> list[dict[str, Any]]:
    """Does a sweep in a new folder, and again; returns what both starts say."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "mine.py").write_text(OBJECTIVE)
        return [start(Path(folder), sampler, trials, workers) for _ in range(2)]


def main() -> None:
    """Measures each sampler in turn, round by round, and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    samplers = ("random", "sobol", "tpe")
    starts: dict[str, list[list[dict[str, Any]]]] = {sampler: [] for sampler in samplers}
    for _ in range(args.rounds):
        for sampler in samplers:
            starts[sampler].append(measure(sampler, args.trials, args.workers))
    lines = [
        f"| {args.trials:,} trials, median of {args.rounds} | scheduler, CPU-ms a trial | all, ms a trial | most MB | "
        "again: seconds | again: CPU-seconds |",
        "|---|---|---|---|---|---|",
    ]
    for sampler, rounds in starts.items():
        first, again = ([pair[number] for pair in rounds] for number in (0, 1))
        for record in (*first, *again):
            if record["has_jax"] or record["complete"] != args.trials:
                raise SystemExit(f"{sampler}: not the sweep that was to be measured: {record}")
        cpu = 1000 * statistics.median(record["cpu"] for record in first) / args.trials
        seconds = 1000 * statistics.median(record["seconds"] for record in first) / args.trials
        memory = max(record["mb"] for record in (*first, *again))
        again_seconds, again_cpu = (statistics.median(record[key] for record in again) for key in ("seconds", "cpu"))
        lines.append(
            f"| {sampler} | {cpu:.1f} | {seconds:.1f} | {memory:.0f} | {again_seconds:.2f} | {again_cpu:.2f} |"
        )
    table = "\n".join(lines)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
