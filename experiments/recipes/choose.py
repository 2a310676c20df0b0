"""Which settings are better? Cross-validation on the training and validation images; the test split is never read.

    python experiments/recipes/choose.py digits_resnet "" "ema_decay=0.99" "data.augment=affine(10,1,0.15) ema_decay=0.99"

Each argument behind the recipe is one candidate: settings over the recipe's, apart by blanks and quoted as in a shell
("" is the recipe itself). The images that are not for testing are cut into five stratified folds; each candidate is
trained five times, each time judged on the fold it did not see, with the same seeds. Prints the error of all held-out
images together, and how it differs from the first candidate's: McNemar's exact test on the images that only one of
the two gets wrong.
"""

import argparse
import shlex
import tempfile
from pathlib import Path

import numpy as np
import scipy.stats

from cnn_vit import data
from cnn_vit.settings import load
from cnn_vit.training import loop

FOLDS = 5


def folds(dataset: data.Dataset, away: Path) -> list[Path]:
    """Writes a file for each fold: its images are validation, the others train. Test is left out."""
    parts = [dataset.splits[split] for split in ("train", "validation")]
    pixels = np.concatenate([part.read(np.arange(len(part.labels))) for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    fold = np.empty(len(labels), int)
    for kind in np.unique(labels):
        where = np.flatnonzero(labels == kind)
        fold[np.random.default_rng(kind).permutation(where)] = np.arange(len(where)) % FOLDS
    paths = []
    for number in range(FOLDS):
        held, kept = fold == number, fold != number
        paths.append(away / f"fold{number}.npz")
        np.savez(
            paths[-1],
            train_x=pixels[kept],
            train_y=labels[kept],
            validation_x=pixels[held],
            validation_y=labels[held],
        )
    return paths


def wrong(recipe: str, words: list[str], paths: list[Path], away: Path) -> tuple[np.ndarray, float]:
    """Whether each held-out image is got wrong, fold behind fold; and CPU-seconds a run."""
    found, seconds = [], 0.0
    for number, path in enumerate(paths):
        arrays = ["data.name=arrays", f"data.path={path}", "data.classes=none", f"seed={number}"]
        workdir = away / f"run-{number}-{abs(hash(tuple(words)))}"
        result = loop.train(load(f"configs/{recipe}.py", [*arrays, *words]), workdir)
        kept = np.load(workdir / "predictions" / "validation.npz")
        found.append(kept["predicted"] != kept["label"])
        seconds += result["timing"]["cpu_seconds"] / len(paths)
    return np.concatenate(found), seconds


def main() -> None:
    """Judges the candidates and prints a line for each as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("candidates", nargs="+")
    parser.add_argument("--data", help="data.path of a recipe that needs one")
    given = parser.parse_args()
    first = None
    with tempfile.TemporaryDirectory() as name:
        away = Path(name)
        final = load(f"configs/{given.recipe}.py", [f"data.path={given.data}"] if given.data else [])
        paths = folds(data.load(final.section("data")), away)
        for candidate in given.candidates:
            bad, seconds = wrong(given.recipe, shlex.split(candidate), paths, away)
            first = bad if first is None else first
            ours, theirs = int((bad & ~first).sum()), int((first & ~bad).sum())
            p = scipy.stats.binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
            print(
                f"error {100 * bad.mean():.2f} % ({bad.sum()} of {len(bad)}), {seconds:.0f} CPU-seconds a run; against "
                f"the first {ours - theirs:+d} (p {p:.3f}{', not resolved' if p > 0.05 else ''})",
                candidate or "the recipe",
                flush=True,
            )


if __name__ == "__main__":
    main()
