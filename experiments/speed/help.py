"""How fast is the help? CPU and wall seconds of whole processes such as `cnn-vit --help`.

python experiments/speed/help.py [--runs=7] [--json]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

# What each line of the table is called, and the words behind `python`.
COMMANDS = {
    "nothing, python -c pass": ["-c", "pass"],
    "cnn-vit --help": ["-m", "cnn_vit", "--help"],
    "cnn-vit train --help": ["-m", "cnn_vit", "train", "--help"],
    "cnn-vit train --config=... --help": ["-m", "cnn_vit", "train", "--config=configs/digits_vit.py", "--help"],
    "cnn-vit list": ["-m", "cnn_vit", "list"],
}


def child_cpu_seconds() -> float:
    """Returns the CPU-seconds, user and system, of all child processes that have ended so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_process(words: list[str]) -> tuple[float, float]:
    """Runs Python once with these words and returns the wall seconds and the CPU-seconds that it took."""
    cpu_before = child_cpu_seconds()
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    return wall, child_cpu_seconds() - cpu_before


def main() -> None:
    """Times the commands in turn, so that a disturbance meets all of them, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes of each command (default: 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    wall_seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.runs):
        for name, words in COMMANDS.items():
            wall, cpu = time_process(words)
            wall_seconds[name].append(wall)
            cpu_seconds[name].append(cpu)
    rows = {}
    for name in COMMANDS:
        rows[name] = {
            "wall_median": statistics.median(wall_seconds[name]),
            "wall_least": min(wall_seconds[name]),
            "cpu_median": statistics.median(cpu_seconds[name]),
        }
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{f'seconds, n={args.runs}':36} {'wall median':>11} {'wall least':>11} {'CPU median':>11}")
    for name, row in rows.items():
        print(f"{name:36} {row['wall_median']:11.3f} {row['wall_least']:11.3f} {row['cpu_median']:11.3f}")


if __name__ == "__main__":
    main()
