"""Which settings are better? Cross-validation on the training and validation images; the test split is never read.

    python experiments/recipes/choose.py digits_resnet "" ema_decay=0.99 "data.augment=affine(10,1,0.15) ema_decay=0.99"

Each argument after the recipe is one candidate: settings that replace those of the recipe, separated by blanks and
quoted as in a shell ("" is the recipe itself). The images of the two splits are cut into five stratified folds. Each
candidate is trained five times, with the same seeds as the others, and evaluated each time on the fold that it was not
trained on. Prints the error on all these held-out images together, and how it differs from the first candidate's:
McNemar's exact test on the images that only one of the two gets wrong.
"""

import argparse
import shlex
import tempfile
from pathlib import Path

import numpy as np
import scipy.stats

from cnn_vit import data
from cnn_vit.settings import load
from cnn_vit.training.loop import train

FOLDS = 5


def write_folds(dataset: data.Dataset, folder: Path) -> list[Path]:
    """Cuts the training and validation images into stratified folds and returns a data file for each of them.

    In the file of a fold its own images are the validation split, and all others are the training split. The test split
    is left out.
    """
    splits = [dataset.splits["train"], dataset.splits["validation"]]
    images = np.concatenate([split.read(np.arange(len(split.labels))) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    fold_of_image = np.empty(len(labels), int)
    for label in np.unique(labels):  # class by class, so that each fold has the same share of every class
        indices = np.flatnonzero(labels == label)
        shuffled = np.random.default_rng(label).permutation(indices)
        fold_of_image[shuffled] = np.arange(len(indices)) % FOLDS
    paths = []
    for fold in range(FOLDS):
        path = folder / f"fold{fold}.npz"
        in_fold = fold_of_image == fold
        np.savez(
            path,
            train_x=images[~in_fold],
            train_y=labels[~in_fold],
            validation_x=images[in_fold],
            validation_y=labels[in_fold],
        )
        paths.append(path)
    return paths


def cross_validate(
    recipe: str, overrides: list[str], fold_paths: list[Path], folder: Path
) -> tuple[np.ndarray, float]:  # -> (images,), seconds
    """Trains a candidate once for each fold.

    Args:
        recipe: the name of a recipe in configs/.
        overrides: the candidate's settings, "key=value".
        fold_paths: the data files that `write_folds` made.
        folder: where the run folders go.

    Returns:
        Whether each held-out image was predicted wrongly, fold after fold, and the CPU-seconds of a run on average.
    """
    errors_by_fold = []
    cpu_seconds = 0.0
    for fold, path in enumerate(fold_paths):
        fold_overrides = ["data.name=arrays", f"data.path={path}", "data.classes=none", f"seed={fold}"]
        workdir = folder / f"fold{fold}"
        result = train(load(f"configs/{recipe}.py", [*fold_overrides, *overrides]), workdir)
        predictions = np.load(workdir / "predictions" / "validation.npz")
        errors_by_fold.append(predictions["predicted"] != predictions["label"])
        cpu_seconds += result["timing"]["cpu_seconds"] / len(fold_paths)
    return np.concatenate(errors_by_fold), cpu_seconds


def mcnemar_p(only_ours: int, only_first: int) -> float:
    """Returns the p-value of McNemar's exact test, from how many images only one of two candidates gets wrong.

    Source: McNemar, Psychometrika 12 (1947). Under its hypothesis either candidate is the one at fault with
    probability 1/2.
    """
    discordant = only_ours + only_first
    if discordant == 0:
        return 1.0
    return scipy.stats.binomtest(only_ours, discordant).pvalue


def describe_candidate(errors: np.ndarray, first_errors: np.ndarray, cpu_seconds: float) -> str:
    """Returns a candidate's error and its difference from the first candidate's as a line of text.

    Args:
        errors: (images,) bool, whether the candidate predicts each held-out image wrongly.
        first_errors: the same of the first candidate, in the same order.
        cpu_seconds: CPU-seconds of a run.
    """
    only_ours = int((errors & ~first_errors).sum())
    only_first = int((first_errors & ~errors).sum())
    p = mcnemar_p(only_ours, only_first)
    verdict = ", not resolved" if p > 0.05 else ""
    return (
        f"error {100 * errors.mean():.2f} % ({errors.sum()} of {len(errors)}), {cpu_seconds:.0f} CPU-seconds a run; "
        f"against the first {only_ours - only_first:+d} (p {p:.3f}{verdict})"
    )


def main() -> None:
    """Cross-validates the candidates and prints a line for each as soon as it is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="name of a recipe in configs/")
    parser.add_argument("candidates", nargs="+", metavar="candidate", help='settings over the recipe\'s, or ""')
    parser.add_argument("--data", help="data.path of a recipe that needs one")
    args = parser.parse_args()
    data_overrides = [f"data.path={args.data}"] if args.data else []
    settings = load(f"configs/{args.recipe}.py", data_overrides)
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        fold_paths = write_folds(data.load(settings.section("data")), folder)
        first_errors = None
        for number, candidate in enumerate(args.candidates):
            overrides = shlex.split(candidate)
            errors, cpu_seconds = cross_validate(args.recipe, overrides, fold_paths, folder / f"candidate{number}")
            if first_errors is None:
                first_errors = errors
            line = describe_candidate(errors, first_errors, cpu_seconds)
            print(line, candidate or "the recipe", flush=True)


if __name__ == "__main__":
    main()
