"""What does successive halving save, and what does it cost? The same 27 points with and without it, over seeds.

    python experiments/sweeps/halving.py --seeds=5 [--out=runs/halving] [--workers=2]
    python experiments/sweeps/halving.py              trains nothing, makes the table anew from halving.json

Each sweep takes 27 random points of a very small CNN on 400 of scikit-learn's digits, of at most 27 epochs: once all of
them to their end, once with rungs at 1, 3 and 9 epochs, after each of which the best third goes on. Both choose by the
accuracy on the 893 other digits that are not of the test split (with more images to train on, most points would end at
100 %), and the two choices of a seed are compared there at the end of their runs. When a sweep is over, its choice
reads the test split once; nothing is chosen by that. A sweep that was stopped goes on.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import cnn_vit
from cnn_vit import files, process
from cnn_vit.reports.intervals import student_interval
from cnn_vit.runs.environment import git_commit

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "halving.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- halving -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"

RECIPE = "configs/digits_cnn.py"
TRIALS, EPOCHS, ETA = 27, 27, 3
FIXED = (
    "data.train=train[:400]",
    "data.validation=train[400:]",
    "data.batch_size=32",  # images
    "model.name=cnn/test",
    f"duration={EPOCHS} epochs",
    "evaluate_every=1 epochs",
    "checkpoint_every=27 epochs",
    "log_every=1 epochs",
    "schedule.warmup=0",
)
SPACE = {
    "optimizer.learning_rate": {"log": (1e-4, 1.0)},
    "optimizer.weight_decay": {"log": (1e-4, 1.0)},
    "loss.smoothing": {"uniform": (0.0, 0.4)},
    "model.filters": [(4, 8), (8, 16), (16, 32)],
}
ARMS = ("all", "halving")


def run_sweep(arm: str, seed: int, out: Path, workers: int) -> dict[str, Any]:
    """Does a sweep and returns its row of halving.json."""
    halving = {"eta": ETA, "first": "1 epochs"} if arm == "halving" else None
    table = cnn_vit.sweep(
        RECIPE, SPACE, sampler="random", trials=TRIALS, seed=seed, out=out, overrides=FIXED, halving=halving,
        workers=workers,
    )  # fmt: skip
    best = next(row for row in table["rows"] if row["suggestion"] == table["best"]["suggestion"])
    workdir = out / "trials" / best["id"] / "run"
    test = cnn_vit.evaluate(cnn_vit.load(workdir), "digits", "test")
    finished = {row["id"]: row for row in table["rows"]}  # an alias counts once
    timing = [line.split(",") for line in (out / "timing.csv").read_text().splitlines()[1:]]
    cpu_seconds = {trial: float(cpu) for _, trial, _, cpu in timing}
    return {
        "arm": arm,
        "seed": seed,
        "steps": sum(row["steps"] for row in finished.values()),
        "cpu_seconds": round(sum(cpu_seconds.values()), 1),
        "validation": best["validation.accuracy"],
        "test": test["accuracy"],
        "n": test["n"],
        "best": {key: best[key] for key in SPACE},
        "commit": git_commit(),
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns the table in Markdown, from the rows of halving.json."""
    by_arm = {arm: sorted((row for row in rows if row["arm"] == arm), key=lambda row: row["seed"]) for arm in ARMS}
    seeds = len(by_arm["all"])
    lines = [
        f"| {TRIALS} points, mean of {seeds} seeds | epochs trained | CPU-seconds of trials | validation | test |",
        "|---|---|---|---|---|",
    ]
    steps_of_epoch = statistics.fmean(row["steps"] for row in by_arm["all"]) / (TRIALS * EPOCHS)
    for arm, sweeps in by_arm.items():
        epochs = statistics.fmean(row["steps"] for row in sweeps) / steps_of_epoch
        cpu_seconds = statistics.fmean(row["cpu_seconds"] for row in sweeps)
        validation, test = (100 * statistics.fmean(row[key] for row in sweeps) for key in ("validation", "test"))
        lines.append(f"| {arm} | {epochs:.0f} | {cpu_seconds:.0f} | {validation:.2f} % | {test:.2f} % |")
    for key, place in (("validation", "validation"), ("test", "the test split")):
        differences = []
        for halved, whole in zip(by_arm["halving"], by_arm["all"], strict=True):
            differences.append(100 * (halved[key] - whole[key]))
        interval = student_interval(differences)
        text = f"{interval.estimate:+.2f} points"
        if interval.low is not None and interval.high is not None:
            verdict = "resolved" if interval.low > 0 or interval.high < 0 else "not resolved"
            text += f" ({interval.low:+.2f} to {interval.high:+.2f} at 95 %, paired over seeds; {verdict})"
        lines += ["", f"Halving over all, on {place}: {text}."]
    share = sum(row["steps"] for row in by_arm["halving"]) / sum(row["steps"] for row in by_arm["all"])
    lines += ["", f"Halving trained {100 * share:.1f} % of the steps."]
    return "\n".join(lines)


def main() -> None:
    """Does the sweeps of the command line, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=0, help="do the sweeps of the seeds 0 to SEEDS - 1 (default: 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes that work at the same time (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/halving"), help="where the sweeps' folders go")
    args = parser.parse_args()
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if args.seeds > 0:
        process.prepare()
    for seed in range(args.seeds):
        for arm in ARMS:
            if any(row["seed"] == seed and row["arm"] == arm for row in rows):
                continue
            rows.append(run_sweep(arm, seed, args.out / f"{arm}-{seed}", args.workers))
            files.write_json(RESULTS, rows)  # after each sweep: what is measured is not lost
    if not rows:
        parser.error("there are no results yet; give --seeds")
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
