"""Windows that slide over an image: their sides, strides and padding, and how many of them fit."""

import itertools

from cnn_vit.errors import UserError

IntOrPair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def height_and_width(value: IntOrPair, what: str) -> tuple[int, int]:
    """Reads one number for both sides, or (height, width), as (height, width) in pixels.

    Args:
        value: one number or a pair.
        what: what the numbers are, for the error.

    Raises:
        UserError: if they are not whole numbers of at least 1.
    """
    pair = value if isinstance(value, tuple) else (value, value)
    if len(pair) != 2 or not all(is_whole_number(side) and side >= 1 for side in pair):
        raise UserError(f"{what} {value!r} is neither a whole number of pixels above 0 nor two of them (height, width)")
    return pair


def normalize_padding(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Reads one number for every side, or both pairs, as ((top, bottom), (left, right)) in pixels.

    Raises:
        UserError: if it is something else, such as the word "SAME", which hides the numbers that it stands for.
    """
    pairs = padding if isinstance(padding, tuple) else ((padding, padding), (padding, padding))
    are_two_pairs = len(pairs) == 2 and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
    if isinstance(padding, str) or not are_two_pairs:
        raise UserError(f"padding {padding!r} is neither one number of pixels nor ((top, bottom), (left, right))")
    if not all(is_whole_number(edge) and edge >= 0 for edge in itertools.chain(*pairs)):
        raise UserError(f"padding {padding!r} holds something that is not a whole number of pixels from 0 up")
    return pairs


def is_whole_number(number: object) -> bool:
    """Whether something is a whole number; True and False are not, though Python counts them as 1 and 0."""
    return isinstance(number, int) and not isinstance(number, bool)


def output_size(pixels: int, window: int, *, stride: int, padding: tuple[int, int], dilation: int = 1) -> int:
    """Counts the windows along one side: floor((pixels + padding - dilation * (window - 1) - 1) / stride) + 1.

    Raises:
        UserError: if none fits; XLA would answer with an empty image.
    """
    reach = dilation * (window - 1) + 1  # pixels from a window's first to its last, both counted
    room = pixels + sum(padding) - reach
    if room < 0:
        raise UserError(f"a window of {reach} pixels does not fit into {pixels} with {sum(padding)} of padding")
    return room // stride + 1
