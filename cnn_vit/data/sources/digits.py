"""1,797 handwritten digits of 8x8 gray pixels that come with scikit-learn: real data without a download.

From the UCI "Optical recognition of handwritten digits" (Alpaydin and Kaynak 1998), its test half, by 13 writers. Each
writer is on both sides of the split below, so accuracies say nothing about a new hand.

The split is `splits.stratified_order` of all 1,797: first 360 for test, next 144 for validation, the other 1,293 for train. Their
indices stand in digits_test.txt and digits_validation.txt beside this file. The rule was not chosen by its accuracy.
Levels 0 to 16 become round(level * 255 / 16).
"""

import importlib.util
from pathlib import Path

import numpy as np

from cnn_vit.data.base.parts import SourceData, SourceInfo, SourceOptions, pixel_part, refuse_path

CLASSES = tuple("0123456789")
SHAPE = (8, 8, 1)
COUNT = 1797
HELD_OUT = {"test": 360, "validation": 144}


def about(given: SourceOptions) -> SourceInfo:
    """Classes, image shape and counts."""
    refuse_path("digits", given)
    counts = {"train": COUNT - sum(HELD_OUT.values()), **HELD_OUT}
    return SourceInfo(CLASSES, len(CLASSES), SHAPE, counts)


def load(given: SourceOptions) -> SourceData:
    """The three parts, in memory."""
    refuse_path("digits", given)
    levels, labels = table()
    pixels = np.rint(levels.reshape(-1, *SHAPE) * 255 / 16).astype(np.uint8)  # (N, 8, 8, 1)
    return SourceData(CLASSES, {name: pixel_part(pixels[at], labels[at]) for name, at in indices().items()})


def table() -> tuple[np.ndarray, np.ndarray]:
    """Levels (N, 64) and labels (N,), of scikit-learn's own file: to import scikit-learn takes 1.5 s longer."""
    found = importlib.util.find_spec("sklearn")
    path = Path(found.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if found else Path()
    if path.is_file():
        rows = np.loadtxt(path, delimiter=",")
        return rows[:, :-1], rows[:, -1].astype(np.int32)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def indices() -> dict[str, np.ndarray]:
    """Rows of each part in scikit-learn's order, ascending."""
    held = {
        name: np.array(Path(__file__).with_name(f"digits_{name}.txt").read_text().split(), np.int64)
        for name in HELD_OUT
    }
    rest = np.setdiff1d(np.arange(COUNT), np.concatenate(list(held.values())))
    return {"train": rest, **held}
