"""What accuracy do the recipes reach, over seeds? Trains each for several seeds; prints and writes a table.

    python experiments/recipes/run.py digits_resnet digits_vit digits_mlp --seeds=5
    python experiments/recipes/run.py mnist_lenet --seeds=3 --data=mnist.npz
    python experiments/recipes/run.py folder_resnet folder_vit --seeds=1 --data=flowers.zip
    python experiments/recipes/run.py                          the table again from results.json, nothing is run

The table goes into README.md beside this file too.

A run that is finished is not run again, one that was stopped goes on. Rows of other recipes in results.json stay.
The interval is Student's, for the mean over seeds, 95 %; with one seed it is Wilson's, for the images tested.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import scipy.stats

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
README = HERE / "README.md"


def trained(recipe: str, seed: int, *, path: str | None, runs: Path) -> dict[str, Any]:
    """One run's row."""
    import cnn_vit
    from cnn_vit import data
    from cnn_vit.settings import load

    overrides = [f"seed={seed}"]
    if path:
        name = data.section_for_path(path, image_size=None, channels=None, fit="crop")["name"]
        overrides += [f"data.name={name}", f"data.path={path}"]
    settings = load(f"configs/{recipe}.py", overrides)
    result = cnn_vit.train(settings, runs / f"{recipe}-{seed}")
    environment = json.loads((runs / f"{recipe}-{seed}" / "environment.json").read_text())
    judged = result["test"] or result["validation"]
    return {
        "recipe": recipe,
        "seed": seed,
        "split": "test" if result["test"] else "validation",
        **{key: judged[key] for key in ("accuracy", "loss", "n")},
        "validation": result["validation"]["accuracy"],
        "parameters": result["parameters"],
        "steps": result["steps"],
        "cpu_seconds": result["timing"]["cpu_seconds"],
        "fingerprint": result["fingerprint"],
        "commit": environment["commit"],
        "machine": f"{environment['cores']} cores {environment['machine']}, {environment['devices']['kind']}",
    }


def interval(accuracies: list[float], n: int) -> tuple[float, float]:
    """Of the mean over seeds; of the share of n images where there is one seed."""
    mean = statistics.fmean(accuracies)
    if len(accuracies) > 1:
        student = scipy.stats.t.ppf(0.975, len(accuracies) - 1)
        half = float(student) * statistics.stdev(accuracies) / math.sqrt(len(accuracies))
        return mean - half, mean + half
    z = 1.959964
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of each recipe together, as Markdown."""
    lines = ["| recipe | split, n | seeds | mean | 95 % interval | lowest | parameters | CPU-seconds a run |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for recipe in sorted({row["recipe"] for row in rows}):
        own = [row for row in rows if row["recipe"] == recipe]
        found = [row["accuracy"] for row in own]
        low, high = interval(found, own[0]["n"])
        lines.append(
            f"| `{recipe}` | {own[0]['split']}, {own[0]['n']} | {len(own)} | {100 * statistics.fmean(found):.2f} % | "
            f"{100 * low:.2f} to {100 * min(high, 1):.2f} % | {100 * min(found):.2f} % | {own[0]['parameters']:,} | "
            f"{statistics.fmean(row['cpu_seconds'] for row in own):.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs what is asked for and is not there, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="names of configs/")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to SEEDS - 1, (default: 5)")
    parser.add_argument("--data", help="folder, zip or npz that the recipes read")
    parser.add_argument("--runs", type=Path, default=Path("runs/recipes"), help="where the run folders go")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds={given.seeds}: at least 1")
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for recipe in given.recipes:
        new = [trained(recipe, seed, path=given.data, runs=given.runs) for seed in range(given.seeds)]
        rows = sorted([row for row in rows if row["recipe"] != recipe] + new, key=lambda r: (r["recipe"], r["seed"]))
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    found = table(rows)
    before, _, rest = README.read_text().partition("<!-- table -->\n")
    README.write_text(f"{before}<!-- table -->\n{found}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
    print(found)


if __name__ == "__main__":
    main()
