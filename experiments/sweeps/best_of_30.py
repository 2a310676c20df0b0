"""Does TPE find better settings than random points do? Sweeps of 30 trials with each sampler, over seeds.

    python experiments/sweeps/best_of_30.py --seeds=20 [--out=runs/best_of_30]
    python experiments/sweeps/best_of_30.py                trains nothing, makes the table anew from results.json

A sweep is one of `cnn_vit.sweep` with its defaults (lag 4, so that a suggestion does not know the last three results).
A trial trains a small CNN on 400 digits for 60 steps and is measured on the 893 others that are not of the test split:
on few validation images most settings would be equally good. The best trial of a sweep is the one with the highest
accuracy there. Sweeps of one seed have the same initial values and order of images, and the first ten points of TPE are
those of the random sampler, so the differences are paired over seeds.

When a sweep is over, its best trial reads the test split, once; nothing is chosen by that. A sweep that was stopped
goes on. The table is also written into the README.md beside this file.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import cnn_vit
from cnn_vit import files, process
from cnn_vit.reports.intervals import student_interval
from cnn_vit.runs.environment import git_commit
from cnn_vit.settings import Settings, load

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- best of 30 -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"

SAMPLERS = ("random", "sobol", "tpe")
TRIALS = 30
MARKS = (10, 20, 30)  # after so many trials the best so far is compared
RECIPE = "configs/digits_cnn.py"
FIXED = (
    "data.train=train[:400]",
    "data.validation=train[400:]",
    "data.batch_size=64",  # images
    "model.name=cnn/test",
    "duration=60 steps",
    "schedule.warmup=10 steps",
    "evaluate_every=60 steps",
    "checkpoint_every=60 steps",
    "log_every=60 steps",
)
SPACE = {
    "optimizer.name": ["adamw", "sgd"],
    "optimizer.learning_rate": {"log": (1e-4, 1.0)},
    "optimizer.weight_decay": {"log": (1e-5, 1.0)},
    "optimizer.momentum": {"uniform": (0.0, 0.99), "when": {"optimizer.name": ["sgd"]}},
    "optimizer.b2": {"uniform": (0.8, 0.999), "when": {"optimizer.name": ["adamw"]}},
    "loss.smoothing": {"uniform": (0.0, 0.4)},
    "model.filters": ["(4, 8)", "(8, 16)", "(16, 32)"],
}


class SilentDisplay:
    """Shows nothing of a run."""

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Does nothing with the number of steps done."""

    def say(self, sentence: str) -> None:
        """Does nothing with a sentence."""

    def close(self) -> None:
        """Nothing is to be given back."""


def make_settings(values: dict[str, Any], seed: int) -> Settings:
    """Returns the checked settings of a point."""
    overrides = [*FIXED, f"seed={seed}"]
    for key, value in values.items():
        overrides.append(f"{key}={value}")
    return load(RECIPE, overrides)


def train_point(values: dict[str, Any], *, seed: int, folder: Path) -> float:
    """Trains with the values of a point and returns the validation accuracy; the test split stays unread."""
    settings = make_settings(values, seed)
    result = cnn_vit.train(settings, folder / "run", progress=SilentDisplay(), evaluates_test=False)
    return result["validation"]["accuracy"]


def run_sweep(sampler: str, seed: int, out: Path) -> dict[str, Any]:
    """Does a sweep, reads the test split with its best trial, and returns its row of results.json."""
    began = time.process_time()
    found = cnn_vit.sweep(
        train_point, SPACE, out=out, sampler=sampler, trials=TRIALS, seed=seed, metric="value", mode="max"
    )
    accuracies = [row["value"] for row in found["rows"]]
    best = accuracies.index(max(number for number in accuracies if number is not None))
    row = found["rows"][best]
    point = {key: row[key] for key in SPACE if row.get(key) is not None}
    settings = make_settings(point, seed)
    workdir = out / "trials" / row["id"] / "files" / "run"
    result = cnn_vit.train(settings, workdir, progress=SilentDisplay())
    return {
        "sampler": sampler,
        "seed": seed,
        "accuracies": accuracies,
        "n": result["validation"]["n"],
        "best": point,
        "best_number": best,
        "test_accuracy": result["test"]["accuracy"],
        "test_n": result["test"]["n"],
        "aliases": sum(row["alias_of"] is not None for row in found["rows"]),
        "fingerprint": result["fingerprint"],
        "commit": git_commit(),
        "cpu_seconds": time.process_time() - began,
    }


def best_after(row: dict[str, Any], trials: int) -> float:
    """Returns the highest accuracy among the first trials of a sweep; one that failed has none."""
    return max(accuracy for accuracy in row["accuracies"][:trials] if accuracy is not None)


def format_difference(first: list[float], second: list[float]) -> str:
    """Returns how many points the second has more than the first, paired, with its interval and whether it says so."""
    differences = [100 * (b - a) for a, b in zip(first, second, strict=True)]
    interval = student_interval(differences)
    text = f"{interval.estimate:+.2f}"
    if interval.low is None or interval.high is None:
        return text
    verdict = "" if interval.low > 0 or interval.high < 0 else ", not resolved"
    return f"{text} ({interval.low:+.2f} to {interval.high:+.2f}{verdict})"


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the tables of the samplers and of their differences in Markdown, from the rows of results.json."""
    rows_by_sampler = {}
    for sampler in SAMPLERS:
        rows_by_sampler[sampler] = sorted(
            (row for row in rows if row["sampler"] == sampler), key=lambda row: row["seed"]
        )
    seeds = len(rows_by_sampler["random"])
    header = " | ".join(f"best of {mark}" for mark in MARKS)
    lines = [
        f"| validation accuracy, mean over {seeds} seeds | {header} | lowest best of {TRIALS} | its test accuracy |",
        f"|---|{'---|' * (len(MARKS) + 2)}",
    ]
    for sampler, sweeps in rows_by_sampler.items():
        means = [f"{100 * statistics.fmean(best_after(row, mark) for row in sweeps):.2f} %" for mark in MARKS]
        lowest = min(best_after(row, TRIALS) for row in sweeps)
        test = statistics.fmean(row["test_accuracy"] for row in sweeps)
        lines.append(f"| {sampler} | {' | '.join(means)} | {100 * lowest:.2f} % | {100 * test:.2f} % |")
    lines += ["", f"| points more, paired over {seeds} seeds | {header} | test |", f"|---|{'---|' * (len(MARKS) + 1)}"]
    for first, second in (("random", "tpe"), ("sobol", "tpe"), ("random", "sobol")):
        cells = []
        for mark in MARKS:
            numbers = [[best_after(row, mark) for row in rows_by_sampler[sampler]] for sampler in (first, second)]
            cells.append(format_difference(*numbers))
        tests = [[row["test_accuracy"] for row in rows_by_sampler[sampler]] for sampler in (first, second)]
        cells.append(format_difference(*tests))
        lines.append(f"| {second} over {first} | {' | '.join(cells)} |")
    better = [
        best_after(learned, TRIALS) - best_after(random, TRIALS)
        for random, learned in zip(rows_by_sampler["random"], rows_by_sampler["tpe"], strict=True)
    ]
    wins, ties = sum(number > 0 for number in better), better.count(0)
    cpu_minutes = sum(row["cpu_seconds"] for row in rows) / 60
    lines += ["", f"Of {seeds} seeds TPE's best of {TRIALS} is higher than random's in {wins}, the same in {ties}. "
              f"All sweeps took {cpu_minutes:.0f} CPU-minutes."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Does the sweeps of the command line, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=0, help="do the sweeps of the seeds 0 to SEEDS - 1 (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/best_of_30"), help="where the sweeps' folders go")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if args.seeds > 0:
        process.prepare()
    for seed in range(args.seeds):
        for sampler in SAMPLERS:
            if any(row["seed"] == seed and row["sampler"] == sampler for row in rows):
                continue
            rows.append(run_sweep(sampler, seed, args.out / f"{sampler}-{seed}"))
            files.write_json(RESULTS, rows)  # after each sweep: what is measured is not lost
    if not rows:
        parser.error("there are no results yet; give --seeds")
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
