"""Windows that slide over an image: their sides, strides and padding, and the places they fit."""

from cnn_vit.errors import UserError

IntOrPair = int | tuple[int, int]
Padding = int | tuple[tuple[int, int], tuple[int, int]]


def height_and_width(value: IntOrPair, what: str) -> tuple[int, int]:
    """(height, width) in pixels of one number, or of two; each at least 1. `what` names them in the error."""
    both = value if isinstance(value, tuple) else (value, value)
    if len(both) != 2 or not all(is_whole_number(side) and side >= 1 for side in both):
        raise UserError(f"{what} {value!r} is neither a whole number of pixels above 0 nor two of them (height, width)")
    return both


def normalize_padding(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) in pixels of a padding; words such as "SAME" are refused: they hide numbers."""
    edges = padding if isinstance(padding, tuple) else ((padding, padding), (padding, padding))
    if isinstance(padding, str) or [len(pair) if isinstance(pair, tuple) else 0 for pair in edges] != [2, 2]:
        raise UserError(f"padding {padding!r} is neither one number of pixels nor ((top, bottom), (left, right))")
    if not all(is_whole_number(edge) and edge >= 0 for pair in edges for edge in pair):
        raise UserError(f"padding {padding!r} holds something that is no whole number of pixels from 0 up")
    return edges


def is_whole_number(number: object) -> bool:
    """Whether it is a whole number; True is none."""
    return isinstance(number, int) and not isinstance(number, bool)


def output_size(pixels: int, window: int, *, stride: int, padding: tuple[int, int], dilation: int = 1) -> int:
    """How many windows fit along one side: floor((pixels + padding - dilation * (window - 1) - 1) / stride) + 1.

    Raises UserError where none does: XLA would answer with an empty image.
    """
    room = pixels + sum(padding) - dilation * (window - 1) - 1
    if room < 0:
        reach = dilation * (window - 1) + 1
        raise UserError(f"a window of {reach} pixels does not fit into {pixels} with {sum(padding)} of padding")
    return room // stride + 1
