"""What accuracy do the recipes reach over seeds? Trains each recipe with several seeds; prints and writes a table.

    python experiments/recipes/run.py digits_resnet digits_vit digits_mlp --seeds=5
    python experiments/recipes/run.py mnist_lenet --seeds=3 --data=mnist.npz
    python experiments/recipes/run.py folder_resnet folder_vit --seeds=1 --data=flowers.zip
    python experiments/recipes/run.py                          trains nothing, makes the table anew from results.json

The table is also written into the README.md beside this file.

A run that is finished is not repeated, and one that was stopped is resumed. Rows of other recipes in results.json stay.
The interval is Student's for the mean over seeds, 95 %; where there is one seed, it is Wilson's for the images tested.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import cnn_vit
from cnn_vit import data, files
from cnn_vit.reports.intervals import Interval, student_interval, wilson_interval
from cnn_vit.settings import load

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- table -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"


def train_seed(recipe: str, seed: int, *, data_path: str | None, runs_folder: Path) -> dict[str, Any]:
    """Trains a recipe with a seed, if that is not done yet, and returns the run's row of results.json."""
    overrides = [f"seed={seed}"]
    if data_path:
        section = data.section_for_path(data_path, image_size=None, channels=None, fit="crop")
        overrides += [f"data.name={section['name']}", f"data.path={data_path}"]
    settings = load(f"configs/{recipe}.py", overrides)
    workdir = runs_folder / f"{recipe}-{seed}"
    result = cnn_vit.train(settings, workdir)
    environment = json.loads((workdir / "environment.json").read_text())
    split = "test" if result["test"] else "validation"
    metrics = result[split]
    return {
        "recipe": recipe,
        "seed": seed,
        "split": split,
        "accuracy": metrics["accuracy"],
        "loss": metrics["loss"],
        "n": metrics["n"],
        "validation": result["validation"]["accuracy"],
        "parameters": result["parameters"],
        "steps": result["steps"],
        "cpu_seconds": result["timing"]["cpu_seconds"],
        "fingerprint": result["fingerprint"],
        "commit": environment["commit"],
        "machine": f"{environment['cores']} cores {environment['machine']}, {environment['devices']['kind']}",
    }


def accuracy_interval(accuracies: list[float], n: int) -> Interval:
    """Returns the 95 % interval of the mean accuracy over seeds or, for one seed, of its share of n images."""
    if len(accuracies) > 1:
        return student_interval(accuracies)
    return wilson_interval(round(accuracies[0] * n), n)


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with a line for each recipe, from the rows of results.json."""
    lines = ["| recipe | split, n | seeds | mean | 95 % interval | lowest | parameters | CPU-seconds a run |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for recipe in sorted({row["recipe"] for row in rows}):
        seed_rows = [row for row in rows if row["recipe"] == recipe]
        first = seed_rows[0]
        accuracies = [row["accuracy"] for row in seed_rows]
        cpu_seconds = statistics.fmean(row["cpu_seconds"] for row in seed_rows)
        interval = accuracy_interval(accuracies, first["n"])
        high = min(interval.high, 1)  # Student's interval does not know that an accuracy ends at 1
        lines.append(
            f"| `{recipe}` | {first['split']}, {first['n']} | {len(seed_rows)} | "
            f"{100 * statistics.fmean(accuracies):.2f} % | {100 * interval.low:.2f} to {100 * high:.2f} % | "
            f"{100 * min(accuracies):.2f} % | {first['parameters']:,} | {cpu_seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Trains the recipes of the command line, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="names of recipes in configs/")
    parser.add_argument("--seeds", type=int, default=5, help="train with the seeds 0 to SEEDS - 1 (default: 5)")
    parser.add_argument("--data", help="folder, zip or npz that the recipes read")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"), help="where the run folders go")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds={args.seeds}: it must be at least 1")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for recipe in args.recipes:
        new_rows = [train_seed(recipe, seed, data_path=args.data, runs_folder=args.runs) for seed in range(args.seeds)]
        other_rows = [row for row in rows if row["recipe"] != recipe]
        rows = sorted(other_rows + new_rows, key=lambda row: (row["recipe"], row["seed"]))
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")  # after each recipe: what is measured is not lost
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
