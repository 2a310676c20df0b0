"""How much of a pretrained network should learn, and how fast? Adapters and layer-wise decay beside everything at once.

    python experiments/transfer/adapting.py --weights=mobilenet_v1_0.25_224_imagenet.npz --data=hymenoptera_256.zip
    python experiments/transfer/adapting.py        trains nothing, makes the table anew from adapting.json

All arms train configs/finetune_folder.py with AdamW at 96 pixels for the same number of epochs; they differ in what is
trained, and at which rate. The first three ways have two rates, and both stand in the table, so that none is chosen by
these images: there are too few for a test split. The first arm, all of it at the rate that `cnn-vit new --transfer`
takes, is what the others are compared with. The interval is Student's over pairs of runs with the same seed, 95 %.

A run that is finished is not repeated, and one that was stopped is resumed. Rows of other data in adapting.json stay.
The table is also written into the README.md beside this file.
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
RESULTS = FOLDER / "adapting.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- table of adapting -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end of adapting -->"
RECIPE = "configs/finetune_folder.py"
COMMON = ("data.image_size=96", "optimizer.name=adamw", "schedule.warmup=1 epoch")
WAYS = {
    "all of it": (),
    "layer decay 0.75": ("pretrained.layer_decay=0.75",),
    "adapters of rank 8": ("pretrained.lora=8",),
    "head, then all": ("pretrained.stages=head 3 epochs, all",),
    "head alone": ("pretrained.freeze=all but head",),
}
RATES = {
    "all of it": ("3e-4", "1e-3"),
    "layer decay 0.75": ("1e-3", "3e-3"),
    "adapters of rank 8": ("1e-3", "3e-3"),
    "head, then all": ("1e-3",),
    "head alone": ("3e-3",),
}
BASELINE = "all of it, 3e-4"


def train_seed(way: str, rate: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains an arm with a seed, if that is not done yet, and returns the run's row of adapting.json."""
    overrides = [f"seed={seed}", f"data.path={args.data}", f"pretrained.weights={args.weights}", *COMMON, *WAYS[way]]
    overrides += [f"optimizer.learning_rate={rate}", f"duration={args.epochs} epochs"]
    name = f"{way} {rate}".replace(",", "").replace(" ", "_")
    workdir = args.runs / f"{args.data.stem}-{name}-{seed}"
    result = cnn_vit.train(load(RECIPE, overrides), workdir)
    environment = json.loads((workdir / "environment.json").read_text())
    split = "test" if result["test"] else "validation"
    return {
        "data": args.data.stem,
        "arm": f"{way}, {rate}",
        "seed": seed,
        "split": split,
        "accuracy": result[split]["accuracy"],
        "loss": result[split]["loss"],
        "n": result[split]["n"],
        "parameters": result["parameters"],
        "trained_parameters": result["trained_parameters"],
        "moved": result["frozen"]["moved"] if result["frozen"] else [],
        "steps": result["steps"],
        "cpu_seconds": result["timing"]["cpu_seconds"],
        "fingerprint": result["fingerprint"],
        "machine": f"{environment['cores']} cores {environment['machine']}, {environment['devices']['kind']}",
    }


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with a line for each data set and arm."""
    lines = [
        f"| data | n | what is trained, rate | trained parameters | seeds | accuracy | more than `{BASELINE}`, points "
        "| loss | CPU-minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted({row["data"] for row in rows}):
        of_arm: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["data"] == name:
                of_arm.setdefault(row["arm"], []).append(row)
        accuracies = {arm: {row["seed"]: row["accuracy"] for row in arm_rows} for arm, arm_rows in of_arm.items()}
        for arm, arm_rows in of_arm.items():
            first = arm_rows[0]
            mean = statistics.fmean(accuracies[arm].values())
            loss = statistics.fmean(row["loss"] for row in arm_rows)
            minutes = statistics.fmean(row["cpu_seconds"] for row in arm_rows) / 60
            gain = "" if arm == BASELINE else format_gain(accuracies[BASELINE], accuracies[arm])
            lines.append(
                f"| {name}, {first['split']} | {first['n']} | {arm} | {first['trained_parameters']:,} "
                f"| {len(arm_rows)} | {100 * mean:.1f} % | {gain} | {loss:.3f} | {minutes:.2f} |"
            )
    return "\n".join(lines)


def format_gain(baseline: dict[int, float], accuracies: dict[int, float]) -> str:
    """Returns by how many points runs are better than others with the same seeds, with the interval."""
    difference = difference_of_runs(baseline, accuracies)
    gain = difference.interval
    verdict = "" if difference.is_resolved else ", not resolved"
    return f"{100 * gain.estimate:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}{verdict})"


def main() -> None:
    """Trains all arms with each seed, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or zip of photos")
    parser.add_argument("--weights", help="file of pretrained weights, a run or a name")
    parser.add_argument("--seeds", type=int, default=3, help="train with the seeds 0 to SEEDS - 1 (default: 3)")
    parser.add_argument("--epochs", type=int, default=10, help="of each run (default: 10)")
    parser.add_argument("--runs", type=Path, default=Path("runs/adapting"), help="where runs go")
    args = parser.parse_args()
    if bool(args.data) != bool(args.weights):
        parser.error("--data and --weights belong together")
    if args.seeds < 2:
        parser.error(f"--seeds={args.seeds}: an interval over runs takes at least 2")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if args.data:
        rows = [row for row in rows if row["data"] != args.data.stem]
        for way in WAYS:
            for rate in RATES[way]:
                for seed in range(args.seeds):
                    rows.append(train_seed(way, rate, seed, args))
                    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
