"""How long `cnn-vit --help` and `cnn-vit COMMAND --help` take: CPU and wall seconds of whole processes.

python experiments/speed/help.py [--runs=7] [--json]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "nothing, python -c pass": ["-c", "pass"],
    "cnn-vit --help": ["-m", "cnn_vit", "--help"],
    "cnn-vit train --help": ["-m", "cnn_vit", "train", "--help"],
    "cnn-vit train --config=... --help": ["-m", "cnn_vit", "train", "--config=configs/digits_vit.py", "--help"],
    "cnn-vit list": ["-m", "cnn_vit", "list"],
}


def once(words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures the commands in turn, so that a disturbance meets them all, and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes of each command (default: 7)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(given.runs):
        for name, words in COMMANDS.items():
            found[name].append(once(words))
    rows = {
        name: {"wall_median": statistics.median(wall), "wall_least": min(wall), "cpu_median": statistics.median(cpu)}
        for name, (wall, cpu) in ((name, tuple(zip(*pairs, strict=True))) for name, pairs in found.items())
    }
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{'seconds, n=' + str(given.runs):36} {'wall median':>11} {'wall least':>11} {'CPU median':>11}")
    for name, row in rows.items():
        print(f"{name:36} {row['wall_median']:11.3f} {row['wall_least']:11.3f} {row['cpu_median']:11.3f}")


if __name__ == "__main__":
    main()
