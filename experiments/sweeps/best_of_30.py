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
from collections.abc import Callable
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
RANDOM_TRIALS = 10  # the first of TPE, as its option `startup` has it
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


def mean_of_later(row: dict[str, Any]) -> float:
    """Returns the mean accuracy of the trials behind the first ten, which TPE draws at random; failed ones count 0."""
    return statistics.fmean(accuracy or 0.0 for accuracy in row["accuracies"][RANDOM_TRIALS:])


# The columns of both tables: a title, and the number that a row of results.json has there.
COLUMNS: dict[str, Callable[[dict[str, Any]], float]] = {
    "best of 10": lambda row: best_after(row, 10),
    "best of 20": lambda row: best_after(row, 20),
    "best of 30": lambda row: best_after(row, 30),
    "test, of the best of 30": lambda row: row["test_accuracy"],
    "mean of trials 11 to 30": mean_of_later,
}


def format_difference(first: list[float], second: list[float]) -> str:
    """Returns how many points the second has more than the first, paired, with its interval and whether it says so."""
    differences = [100 * (b - a) for a, b in zip(first, second, strict=True)]
    if not any(differences):
        return "the same"
    interval = student_interval(differences)
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:+.2f}"
    verdict = ", not resolved" if interval.low <= 0 <= interval.high else ""
    return f"{interval.estimate:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}{verdict})"


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the tables of the samplers and of their differences in Markdown, from the rows of results.json."""
    sweeps: dict[str, list[dict[str, Any]]] = {}
    for sampler in SAMPLERS:
        sweeps[sampler] = sorted((row for row in rows if row["sampler"] == sampler), key=lambda row: row["seed"])
    seeds = len(sweeps["tpe"])
    titles = " | ".join(COLUMNS)
    lines = [f"| accuracy, mean over {seeds} seeds | {titles} |", f"|---|{'---|' * len(COLUMNS)}"]
    for sampler in SAMPLERS:
        cells = [f"{100 * statistics.fmean(map(column, sweeps[sampler])):.2f} %" for column in COLUMNS.values()]
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    lines += ["", f"| points more, paired over {seeds} seeds | {titles} |", f"|---|{'---|' * len(COLUMNS)}"]
    for first, second in (("random", "tpe"), ("sobol", "tpe"), ("random", "sobol")):
        cells = []
        for column in COLUMNS.values():
            cells.append(format_difference(list(map(column, sweeps[first])), list(map(column, sweeps[second]))))
        lines.append(f"| {second} over {first} | {' | '.join(cells)} |")
    wins = ties = 0
    for random, learned in zip(sweeps["random"], sweeps["tpe"], strict=True):
        difference = best_after(learned, TRIALS) - best_after(random, TRIALS)
        wins += difference > 0
        ties += difference == 0
    cpu_minutes = sum(row["cpu_seconds"] for row in rows) / 60
    lines += [
        "",
        f"TPE's best of {TRIALS} is higher than random's with {wins} of {seeds} seeds, and the same with {ties}. The "
        f"{len(rows)} sweeps took {cpu_minutes:.0f} CPU-minutes.",
    ]
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
