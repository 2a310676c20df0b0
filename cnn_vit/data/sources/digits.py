"""1,797 handwritten digits of 8x8 gray pixels that come with scikit-learn: real data without a download.

From the UCI "Optical recognition of handwritten digits" (Alpaydin and Kaynak 1998), its test half, by 13 writers. Each
writer is on both sides of the split below, so accuracies say nothing about a new hand.

The split is `splits.stratified_order` of all 1,797: first 360 for test, next 144 for validation, the other 1,293 for
train. Their indices stand in digits_test.txt and digits_validation.txt beside this file. The rule was not chosen by its
accuracy. Levels 0 to 16 become round(level * 255 / 16).
"""

import importlib.util
from pathlib import Path

import numpy as np

from cnn_vit.data.base.parts import SourceData, SourceInfo, SourceOptions, pixel_part, refuse_path
from cnn_vit.errors import UserError

CLASSES = tuple("0123456789")
SHAPE = (8, 8, 1)
COUNT = 1797  # images of all parts together
MOST_MARGIN = 64  # pixels
HELD_OUT = {"test": 360, "validation": 144}  # images that are not trained on


def about(options: SourceOptions, *, margin: int = 0) -> SourceInfo:
    """Returns the classes, the image shape and the counts; reads no image.

    Raises:
        UserError: the margin is out of its range.
    """
    refuse_path("digits", options)
    if not 0 <= margin <= MOST_MARGIN:
        raise UserError(f"data.margin is {margin}; it takes an int in [0, {MOST_MARGIN}]")
    counts = {"train": COUNT - sum(HELD_OUT.values()), **HELD_OUT}
    height, width, channels = SHAPE
    return SourceInfo(CLASSES, len(CLASSES), (height + 2 * margin, width + 2 * margin, channels), counts)


def load(options: SourceOptions, *, margin: int = 0) -> SourceData:
    """Reads the three parts into memory.

    Args:
        options: the common settings.
        margin: black pixels around each digit: those of MNIST stand in the middle of their images, and with 2 these do
            so as well.

    Raises:
        UserError: the margin is out of its range.
    """
    about(options, margin=margin)
    levels, labels = read_table()
    pixels = np.rint(levels.reshape(-1, *SHAPE) * 255 / 16).astype(np.uint8)  # (N, 8, 8, 1)
    pixels = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    parts = {part: pixel_part(pixels[rows], labels[rows]) for part, rows in read_part_indices().items()}
    return SourceData(CLASSES, parts)


def read_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the levels (N, 64), 0 to 16, and the labels (N,) of all digits in scikit-learn's order."""
    # The file is read directly where it is found: importing scikit-learn takes 1.5 s longer
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin:
        path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            rows = np.loadtxt(path, delimiter=",")
            return rows[:, :-1], rows[:, -1].astype(np.int32)
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def read_part_indices() -> dict[str, np.ndarray]:
    """Returns the row numbers of each part in scikit-learn's order, ascending."""
    held_out: dict[str, np.ndarray] = {}
    for part in HELD_OUT:
        text = Path(__file__).with_name(f"digits_{part}.txt").read_text()
        held_out[part] = np.array(text.split(), np.int64)
    train = np.setdiff1d(np.arange(COUNT), np.concatenate(list(held_out.values())))
    return {"train": train, **held_out}
