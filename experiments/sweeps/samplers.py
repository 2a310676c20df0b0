"""What does a suggestion cost, and how often does a sampler repeat itself? Times, memory and repeated points.

    python experiments/sweeps/samplers.py [--rounds=5] [--seeds=20] [--json]

A suggestion is asked for behind a history of 10, 100, 300 and 1,000 trials in a space of five settings; CPU time is the
least of the rounds. Memory and CPU-seconds are those of a new process that has imported what a sweep's process imports,
and then asks once. Repeated points are counted in a space of 64, of which 64 are suggested; a sampler that learns knows
all results but the last three. The tables are also written into the README.md beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.studies.sweeping.samplers import SAMPLERS, Observation
from cnn_vit.studies.sweeping.space import CHOICE, INT, LOG, UNIFORM, Dimension, Space

README = Path(__file__).parent / "README.md"
TABLE_BEGIN = "<!-- samplers -->\n"  # the lines of README.md that the tables stand between
TABLE_END = "<!-- end -->"

HISTORIES = (10, 100, 300, 1000)
SPACE = Space(
    (
        Dimension("optimizer.name", CHOICE, choices=("sgd", "adamw")),
        Dimension("optimizer.learning_rate", LOG, low=1e-5, high=1.0),
        Dimension("optimizer.weight_decay", LOG, low=1e-5, high=1.0),
        Dimension("optimizer.momentum", UNIFORM, low=0.0, high=0.99, when=(("optimizer.name", ("sgd",)),)),
        Dimension("model.filters", INT, low=4, high=64),
    )
)
CELLS = Space(tuple(Dimension(key, INT, low=0, high=3) for key in ("x", "y", "z")))  # 4 x 4 x 4 points
LAG = 4
IN_A_NEW_PROCESS = """
import json, pathlib, sys, time
from cnn_vit.studies import workers
from cnn_vit.studies.sweeping.samplers import SAMPLERS, Observation
from cnn_vit.studies.sweeping.space import Dimension, Space
began = time.process_time()
for name in sys.argv[1].split():
    space = Space((Dimension("x", "int", low=0, high=99),))
    history = [Observation({"x": number % 100}, number) for number in range(20)]
    SAMPLERS[name].suggest(space, index=20, seed=0, history=history)
seconds = time.process_time() - began
most_kilobytes = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
print(json.dumps([seconds, most_kilobytes / 1000]))
"""


def time_suggestion(name: str, history: int, rounds: int) -> float:
    """Returns the CPU-milliseconds of a suggestion behind so many trials: the least of some rounds."""
    suggest = SAMPLERS[name].suggest
    observations = []
    for index in range(history):
        point = SAMPLERS["random"].suggest(SPACE, index=index, seed=0)
        metric = None if index % 10 == 9 else float(index * 7919 % 1000)  # one of ten has failed
        observations.append(Observation(point, metric))
    pending = [SAMPLERS["random"].suggest(SPACE, index=history + number, seed=0) for number in range(LAG - 1)]
    times = []
    for _ in range(rounds):
        began = time.process_time()
        suggest(SPACE, index=history + LAG - 1, seed=0, history=observations, pending=pending)
        times.append(time.process_time() - began)
    return 1000 * min(times)


def measure_process(names: str, rounds: int) -> dict[str, float]:
    """Returns CPU-seconds and megabytes of a process that asks these samplers once: the least of some rounds."""
    answers = []
    for _ in range(rounds):
        command = [sys.executable, "-c", IN_A_NEW_PROCESS, names]
        answers.append(json.loads(subprocess.check_output(command)))
    return {
        "seconds": min(seconds for seconds, _ in answers),
        "megabytes": min(megabytes for _, megabytes in answers),
    }


def count_repeated(name: str, seed: int) -> int:
    """Returns how many of 64 suggestions in the space of 64 points repeat an earlier one."""
    observations: list[Observation] = []
    for index in range(64):
        seen = max(0, index - LAG + 1)
        pending = [observation.point for observation in observations[seen:]]
        point = SAMPLERS[name].suggest(CELLS, index=index, seed=seed, history=observations[:seen], pending=pending)
        observations.append(Observation(point, -float(sum((value - 2) ** 2 for value in point.values()))))
    return 64 - len({json.dumps(observation.point) for observation in observations})


def measure(rounds: int, seeds: int) -> dict[str, Any]:
    """Measures all tables."""
    milliseconds: dict[str, list[float]] = {}
    for name in SAMPLERS:
        if name != "grid":
            milliseconds[name] = [time_suggestion(name, history, rounds) for history in HISTORIES]
    processes = {}
    for names in ("random", "sobol", "tpe", "random sobol halton tpe"):
        processes[names] = measure_process(names, rounds)
    repeated = {}
    for name in SAMPLERS:
        repeated[name] = statistics.fmean(count_repeated(name, seed) for seed in range(seeds))
    return {"milliseconds": milliseconds, "processes": processes, "repeated": repeated}


def format_tables(answer: dict[str, Any], seeds: int) -> str:
    """Returns the tables in Markdown."""
    header = " | ".join(f"{history:,}" for history in HISTORIES)
    lines = [f"| CPU-milliseconds a suggestion, behind so many trials | {header} |", f"|---|{'---|' * len(HISTORIES)}"]
    for name, row in answer["milliseconds"].items():
        lines.append(f"| {name} | {' | '.join(f'{number:.3g}' for number in row)} |")
    lines += ["", "| a new process that asks | CPU-seconds until the answer | most MB |", "|---|---|---|"]
    for names, row in answer["processes"].items():
        lines.append(f"| {names.replace(' ', ', ')} | {row['seconds']:.2f} | {row['megabytes']:.0f} |")
    lines += ["", f"| of 64 suggestions in 64 points | repeated, mean of {seeds} seeds |", "|---|---|"]
    for name, number in answer["repeated"].items():
        lines.append(f"| {name} | {number:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, and prints the tables or one JSON object; the tables also go into README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of each time (default: 5)")
    parser.add_argument("--seeds", type=int, default=20, help="over which repeated points are counted (default: 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and leave README.md as it is")
    args = parser.parse_args()
    if args.rounds < 1 or args.seeds < 1:
        parser.error("--rounds and --seeds must be at least 1")
    answer = measure(args.rounds, args.seeds)
    if args.json:
        print(json.dumps(answer))
        return
    tables = format_tables(answer, args.seeds)
    files.replace_between(README, f"{tables}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(tables)


if __name__ == "__main__":
    main()
