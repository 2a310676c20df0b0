"""What a card or an entry of the catalogue may say of how images become a network's input. Nothing is imported for it.

The keys are those of a run's preprocessing.json: mean and std of each channel (of values in 0..1), image_size (height,
width), channels, fit, interpolation. A key that is missing is not known.
"""

from typing import Any

from cnn_vit.settings import KEYS
from cnn_vit.settings.values import is_own_form, quote_value

LARGEST_SIDE = 8192  # pixels, as of data.image_size


def find_fault(preprocessing: dict[str, Any]) -> str:
    """Says what is impossible in it, "mean is [0.5]"; "" where nothing is."""
    channels = preprocessing.get("channels", 3)
    if not is_whole(channels) or channels not in (1, 3):
        return f"channels is {quote_value(channels)}, expected 1 or 3"
    for key in ("mean", "std"):
        numbers = preprocessing.get(key)
        if key in preprocessing and not are_numbers(numbers, channels, positive=key == "std"):
            return f"{key} is {quote_value(numbers)}"
    if "image_size" in preprocessing and not is_image_size(preprocessing["image_size"]):
        return f"image_size is {quote_value(preprocessing['image_size'])}"
    for key in ("fit", "interpolation"):
        if key in preprocessing and not is_own_form(KEYS[f"data.{key}"], preprocessing[key]):
            return f"{key} is {quote_value(preprocessing[key])}"
    return ""


def is_whole(value: Any) -> bool:
    """Whether a value of a JSON file is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_image_size(value: Any) -> bool:
    """Whether a value of a JSON file is a list of height and width in pixels."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(is_whole(side) and 1 <= side <= LARGEST_SIDE for side in value)


def are_numbers(values: Any, count: int, *, positive: bool) -> bool:
    """Whether a value of a JSON file is a list of `count` finite numbers, above 0 where `positive`."""
    if not isinstance(values, list) or len(values) != count:
        return False
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if not abs(value) <= 1e300:  # put so that it refuses nan too, and whole numbers that no float holds
            return False
        if positive and value <= 0:
            return False
    return True
