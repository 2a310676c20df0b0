"""What does `cnn-vit new --transfer` gain on a folder of photos, beside `cnn-vit new`?

    python experiments/transfer/first_recipes.py --data=hymenoptera_256.zip
        --weights=mobilenet_v1_0.25_224_imagenet.npz --weights=runs/cifar_small@64
    python experiments/transfer/first_recipes.py      trains nothing, makes the table anew from first_recipes.json

Each arm is what a newcomer types: `new` writes a recipe for the images, `train` runs it as it stands, here with several
seeds. The arms are a small CNN from scratch, and for each --weights the recipe of `new --transfer` and the same recipe
from initial values, which shows what the weights themselves gain; its learning rate is that which `new` gives a network
from scratch. Behind an @ stands the size of the images in pixels, where it is not to be that of the weights.

A recipe that is written is not written again, a run that is finished is not repeated, and one that was stopped is
resumed. Rows of other data in first_recipes.json stay. The table is also written into the README.md beside this file.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.reports.intervals import difference_of_runs

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "first_recipes.json"
README = FOLDER / "README.md"
TABLE_BEGIN = "<!-- table of first recipes -->\n"  # the lines of README.md that the table stands between
TABLE_END = "<!-- end of first recipes -->"
SCRATCH = "new"
UNTRAINED = ", no weights"  # behind the name of an arm
FROM_SCRATCH_RATE = "2e-3"  # what `new` gives a CNN


def call(*words: str) -> dict[str, Any]:
    """Runs a command of cnn-vit, and returns the object that it prints.

    Raises:
        SystemExit: the command failed; it has said why.
    """
    process = subprocess.run([sys.executable, "-m", "cnn_vit", *words, "--json"], stdout=subprocess.PIPE, text=True)
    if process.returncode:
        sys.exit(process.returncode)
    return json.loads(process.stdout)


def name_of_weights(source: str) -> str:
    """Returns the name of the arm of some weights: that of their file, with the size of the images behind an @."""
    path, at, side = source.partition("@")
    return f"{Path(path).stem}{at}{side}"


def write_recipe(source: str | None, args: argparse.Namespace) -> Path:
    """Writes the recipe of an arm, if that is not done yet; returns its path.

    Args:
        source: weights as --weights names them; None for a network from scratch.
        args: of the command line.
    """
    recipe = args.runs / f"{args.data.stem}-{name_of_weights(source) if source else SCRATCH}.py"
    if recipe.exists():
        return recipe
    words = []
    if source:
        path, _, side = source.partition("@")
        words = ["--transfer", f"--weights={path}", *([f"--image_size={side}"] if side else [])]
    call("new", str(args.data), f"--minutes={args.minutes}", f"--out={recipe}", *words)
    return recipe


def train_seed(
    source: str | None, seed: int, args: argparse.Namespace, *, is_untrained: bool = False
) -> dict[str, Any]:
    """Trains the recipe of an arm with a seed, if that is not done yet, and returns the run's row.

    Args:
        source: weights as --weights names them; None for a network from scratch.
        seed: of the run.
        args: of the command line.
        is_untrained: whether the recipe is trained without its weights.
    """
    recipe = write_recipe(source, args)
    arm = (name_of_weights(source) if source else SCRATCH) + (UNTRAINED if is_untrained else "")
    workdir = args.runs / f"{args.data.stem}-{arm.replace(', ', '-').replace(' ', '_')}-{seed}"
    settings = [f"--config.seed={seed}"]
    if is_untrained:
        given = call("train", f"--config={recipe}", "--show")["values"]
        for key in ("image_size", "channels", "fit", "interpolation"):
            settings.append(f"--config.data.{key}={as_word(given[f'data.{key}'])}")
        settings += ["--config.pretrained.weights=none", "--config.pretrained.freeze=none"]
        settings += [f"--config.optimizer.learning_rate={FROM_SCRATCH_RATE}"]
    result = call("train", f"--config={recipe}", f"--workdir={workdir}", *settings)
    split = "test" if result["test"] else "validation"
    return {
        "data": args.data.stem,
        "arm": arm,
        "seed": seed,
        "split": split,
        "model": result["model"],
        "accuracy": result[split]["accuracy"],
        "n": result[split]["n"],
        "steps": result["steps"],
        "seconds": result["timing"]["seconds"],
        "cpu_seconds": result["timing"]["cpu_seconds"],
        "fingerprint": result["fingerprint"],
    }


def as_word(value: Any) -> str:
    """Returns a value as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def format_table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table with a line for each data set and arm."""
    lines = [
        "| data | n | arm | network | seeds | accuracy | more than `new`, points | more than without weights | steps "
        "| CPU-minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
            minutes = statistics.fmean(row["cpu_seconds"] for row in arm_rows) / 60
            more_than_new = format_gain(accuracies, arm, SCRATCH) if arm != SCRATCH else ""
            lines.append(
                f"| {name}, {first['split']} | {first['n']} | {arm} | `{first['model']}` | {len(arm_rows)} | "
                f"{100 * mean:.1f} % | {more_than_new} | {format_gain(accuracies, arm, arm + UNTRAINED)} | "
                f"{first['steps']:,} | {minutes:.1f} |"
            )
    return "\n".join(lines)


def format_gain(accuracies: dict[str, dict[int, float]], arm: str, baseline: str) -> str:
    """Returns by how many points an arm is better than another, with its interval over seeds; "" without the other."""
    if baseline not in accuracies:
        return ""
    difference = difference_of_runs(accuracies[baseline], accuracies[arm])
    gain = difference.interval
    verdict = "" if difference.is_resolved else ", not resolved"
    return f"{100 * gain.estimate:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f}{verdict})"


def main() -> None:
    """Trains all arms with each seed, then writes and prints the table of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or zip of photos")
    parser.add_argument(
        "--weights", action="append", default=[], metavar="FILE[@SIDE]", help="of a further arm; may be repeated"
    )
    parser.add_argument("--seeds", type=int, default=3, help="train with the seeds 0 to SEEDS - 1 (default: 3)")
    parser.add_argument("--minutes", type=float, default=1.5, help="that `new` plans a run for (default: 1.5)")
    parser.add_argument("--runs", type=Path, default=Path("runs/first_recipes"), help="where recipes and runs go")
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds={args.seeds}: an interval over runs takes at least 2")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if args.data:
        args.runs.mkdir(parents=True, exist_ok=True)
        new_rows = []
        for seed in range(args.seeds):
            new_rows.append(train_seed(None, seed, args))
            for source in args.weights:
                new_rows.append(train_seed(source, seed, args))
                new_rows.append(train_seed(source, seed, args, is_untrained=True))
        rows = [row for row in rows if row["data"] != args.data.stem] + new_rows
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    table = format_table(rows)
    files.replace_between(README, f"{table}\n", begin=TABLE_BEGIN, end=TABLE_END)
    print(table)


if __name__ == "__main__":
    main()
