"""How much does a pretrained network help on few images? The same network, its body frozen, beside it from scratch.

    python experiments/transfer/run.py --weights=mobilenet_v1_0.25_224_imagenet.npz --data=hymenoptera_256.zip
    python experiments/transfer/run.py --weights=... --data=flowers5_224.zip --seeds=3
    python experiments/transfer/run.py             trains nothing, makes the table anew from results.json

Both arms are recipes as they stand in configs/: linear_probe trains a new head on the frozen body at the image size of
the weights, and mobilenet_v1 trains all of it from initial values at 128 pixels for longer. The table is also written
into the README.md beside this file.

A run that is finished is not repeated, and one that was stopped is resumed. Rows of other data in results.json stay.
The interval of a difference is Student's over pairs of runs with the same seed, 95 %.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import cnn_vit
from cnn_vit import files
from cnn_vit.reports.intervals import difference_of_runs
from cnn_vit.settings import load

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- table -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end -->"
FROZEN, SCRATCH = "linear_probe", "mobilenet_v1"  # the recipes


def train_seed(recipe: str, seed: int, *, weights: str, data_path: Path, runs_folder: Path) -> dict[str, Any]:
    """Trains a recipe with a seed, if that is not done yet, and returns the run's row of results.json."""
    overrides = [f"seed={seed}", f"data.path={data_path}"]
    if recipe == FROZEN:
        overrides += [f"pretrained.weights={weights}"]
    workdir = runs_folder / f"{data_path.stem}-{recipe}-{seed}"
    result = cnn_vit.train(load(f"configs/{recipe}.py", overrides), workdir)
    environment = json.loads((workdir / "environment.json").read_text())
    split = "test" if result["test"] else "validation"
    return {
        "data": data_path.stem,
        "recipe": recipe,
        "seed": seed,
        "split": split,
        "accuracy": result[split]["accuracy"],
        "n": result[split]["n"],
        "parameters": result["parameters"],
        "trained_parameters": result["trained_parameters"],
        "frozen": result["frozen"],
        "cpu_seconds": result["timing"]["cpu_seconds"],
        "fingerprint": result["fingerprint"],
        "commit": environment["commit"],
        "machine": f"{environment['cores']} cores {environment['machine']}, {environment['devices']['kind']}",
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with a line for each data set, from the rows of results.json."""
    lines = ["| data | n | seeds | frozen body, new head | CPU-minutes | from scratch | CPU-minutes | difference |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name in sorted({row["data"] for row in rows}):
        accuracies, minutes, first = {}, {}, {}
        for recipe in (FROZEN, SCRATCH):
            of_recipe = [row for row in rows if (row["data"], row["recipe"]) == (name, recipe)]
            accuracies[recipe] = {row["seed"]: row["accuracy"] for row in of_recipe}
            minutes[recipe] = statistics.fmean(row["cpu_seconds"] for row in of_recipe) / 60
            first[recipe] = of_recipe[0]
        difference = difference_of_runs(accuracies[SCRATCH], accuracies[FROZEN])
        gain = difference.interval
        means = {recipe: statistics.fmean(of_seed.values()) for recipe, of_seed in accuracies.items()}
        interval = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
        verdict = "" if difference.is_resolved else ", not resolved"
        lines.append(
            f"| {name}, {first[FROZEN]['split']} | {first[FROZEN]['n']} | {len(accuracies[FROZEN])} | "
            f"{100 * means[FROZEN]:.1f} % | {minutes[FROZEN]:.1f} | {100 * means[SCRATCH]:.1f} % | "
            f"{minutes[SCRATCH]:.1f} | {100 * (means[FROZEN] - means[SCRATCH]):+.1f} points ({interval}{verdict}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Trains both arms with each seed, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="of mobilenet_v1/0.25: a file of `cnn-vit convert`, or of Keras as npz")
    parser.add_argument("--data", type=Path, help="folder or zip of images with train and validation splits")
    parser.add_argument("--seeds", type=int, default=3, help="train with the seeds 0 to SEEDS - 1 (default: 3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="where the run folders go")
    args = parser.parse_args()
    if bool(args.weights) != bool(args.data):
        parser.error("--weights and --data belong together; give both, or none")
    if args.seeds < 2:
        parser.error(f"--seeds={args.seeds}: an interval over runs takes at least 2")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if args.data:
        words: dict[str, Any] = {"weights": args.weights, "data_path": args.data, "runs_folder": args.runs}
        new_rows = []
        for recipe in (FROZEN, SCRATCH):
            new_rows += [train_seed(recipe, seed, **words) for seed in range(args.seeds)]
        rows = [row for row in rows if row["data"] != args.data.stem] + new_rows
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
