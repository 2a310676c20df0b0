"""Calculates where a sliding window fits along one side of an image, and compares that with what others would say.

    calculate("conv", n=32, k=3, s=2, padding=1).output         16

The letters are those of the commands `describe conv` and `describe pool`. Along a side of n pixels slides a window of k
taps, d pixels apart; s pixels lie between two of its positions, and padding stands before and after the side. Each
position gives one output. For the line above:

    n + before + after = 32 + 1 + 1 = 34 pixels to stand on; the window spans d * (k - 1) + 1 = 3 of them
    floor((34 - 3) / 2) + 1 = 16 outputs
    output 0 reads the pixels -1 0 1, of which -1 is padding; output 15 reads 29 30 31

"SAME" is the padding of JAX and TensorFlow: it gives ceil(n / s) outputs and takes as much padding as that needs, an
odd pixel of it behind. The textbook's n/s - k + 1 is right at stride 1 without padding or dilation, and elsewhere only
by accident.

Sources: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, relationships 6 and
15; `jax.lax.padtype_to_pads`; PyTorch's MaxPool2d for `ceil_mode`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.nn.windows import output_size

KINDS = ("conv", "pool")
LARGEST = 10_000  # for each number; a larger one is a slip of the finger
MEANINGS = {"n": "pixels of the side", "k": "taps of the window", "s": "stride", "d": "dilation"}


class BorderOutput(NamedTuple):
    """What the first or last output reads.

    Attributes:
        output: the number of the output, from 0.
        reads: the pixels that it reads; those below 0 or from n on are padding.
        padding: how many of them are padding.
    """

    output: int
    reads: list[int]
    padding: int


class PaddedOutput(NamedTuple):
    """How many outputs a rule for padding gives, and the pixels of padding (before, after) with which it does."""

    output: int
    padding: tuple[int, int]


@dataclass(frozen=True)
class Calculation:
    """One side of a convolution or pooling.

    Attributes:
        kind: "conv" or "pool".
        n: pixels of the side.
        k: taps of the window.
        s: stride, the pixels between two positions of the window.
        d: dilation, the pixels between two taps.
        padding: pixels of padding (before, after).
        output: how many outputs there are, one for each position of the window.
        first: what the first output reads.
        last: what the last output reads.
        unread: the pixels that no window reads.
        same: what "SAME" would give.
        valid: how many outputs there would be without padding; 0 where the window does not fit.
        textbook: the number n/s - k + 1.
        ceil_mode: what PyTorch's pooling with `ceil_mode` would give, which also reads the pixels at the end that fill
            no window; None for a convolution.
    """

    kind: str
    n: int
    k: int
    s: int
    d: int
    padding: tuple[int, int]
    output: int
    first: BorderOutput
    last: BorderOutput
    unread: list[int]
    same: PaddedOutput
    valid: int
    textbook: Fraction
    ceil_mode: PaddedOutput | None

    @property
    def span(self) -> int:
        """The pixels from the first tap of the window to the last, both included."""
        return window_span(self.k, self.d)

    def to_json(self) -> dict[str, Any]:
        """Returns the calculation as plain values; `right` says whether the textbook's number is the output."""
        ceil_mode = None
        if self.ceil_mode is not None:
            ceil_mode = {"output": self.ceil_mode.output, "padding": list(self.ceil_mode.padding)}
        return {
            **{name: getattr(self, name) for name in ("kind", "n", "k", "s", "d", "output", "unread", "valid")},
            "padding": list(self.padding),
            "first": self.first._asdict(),
            "last": self.last._asdict(),
            "same": {
                "output": self.same.output,
                "padding": list(self.same.padding),
                "equal": self.same.padding == self.padding,
            },
            "textbook": {"value": float(self.textbook), "right": self.textbook == self.output},
            "ceil_mode": ceil_mode,
        }


def calculate(kind: str, *, n: int, k: int, s: int, padding: int | tuple[int, int], d: int = 1) -> Calculation:
    """Calculates one side of a convolution or pooling.

    Args:
        kind: "conv" or "pool".
        n: pixels of the side.
        k: taps of the window.
        s: pixels between two positions of the window.
        padding: pixels before and after, one number for both or two.
        d: pixels between two taps.

    Raises:
        UserError: a number is out of its range, the window does not fit, or a pooling could read padding alone.
    """
    edges = padding if isinstance(padding, tuple) else (padding, padding)
    refuse_numbers(kind, dict(n=n, k=k, s=s, d=d), edges)
    output = output_size(n, k, stride=s, padding=edges, dilation=d)
    span = window_span(k, d)
    before, after = edges
    is_read = np.zeros(before + n + after, bool)
    for tap in range(k):
        # Over all positions of the window, one tap reads every s-th pixel.
        is_read[tap * d : tap * d + (output - 1) * s + 1 : s] = True
    return Calculation(
        kind=kind, n=n, k=k, s=s, d=d, padding=edges, output=output,
        first=read_border(0, n=n, k=k, s=s, d=d, before=before),
        last=read_border(output - 1, n=n, k=k, s=s, d=d, before=before),
        unread=np.flatnonzero(~is_read[before : before + n]).tolist(),
        same=pad_same(n, span, s),
        valid=max(0, ceil_divide(n - span + 1, s)),
        textbook=Fraction(n, s) - k + 1,
        ceil_mode=pad_for_ceil_mode(n, span, s, edges) if kind == "pool" else None,
    )  # fmt: skip


def refuse_numbers(kind: str, numbers: dict[str, int], padding: tuple[int, int]) -> None:
    """Raises UserError for numbers with which there is no window."""
    for name, number in numbers.items():
        if not 1 <= number <= LARGEST:
            raise UserError(f"{name}={number} ({MEANINGS[name]}) is not from 1 to {LARGEST:,}")
    for number in padding:
        if not 0 <= number <= LARGEST:
            raise UserError(f"padding={number} is not from 0 to {LARGEST:,} pixels")
    if kind == "pool" and numbers["d"] != 1:
        raise UserError(f"d={numbers['d']} spreads the taps of a convolution; a pooling's window has no holes")
    if kind == "pool" and max(padding) >= numbers["k"]:
        raise UserError(
            f"padding={max(padding)} is as large as the pooling's window of {numbers['k']} pixels, "
            "which could see nothing else; make it smaller"
        )


def read_border(output: int, *, n: int, k: int, s: int, d: int, before: int) -> BorderOutput:
    """Returns what one output reads; `output` is its number, the other letters are those of `calculate`."""
    pixels = [output * s - before + tap * d for tap in range(k)]
    return BorderOutput(output, pixels, padding=sum(not 0 <= pixel < n for pixel in pixels))


def pad_same(n: int, span: int, s: int) -> PaddedOutput:
    """Returns the outputs and padding of "SAME" in JAX and TensorFlow: an odd pixel of padding comes last."""
    output = ceil_divide(n, s)
    total = max((output - 1) * s + span - n, 0)
    return PaddedOutput(output, (total // 2, total - total // 2))


def pad_for_ceil_mode(n: int, span: int, s: int, padding: tuple[int, int]) -> PaddedOutput:
    """Returns the outputs of PyTorch's `ceil_mode`, and the padding that makes as many here."""
    before, after = padding
    output = ceil_divide(n + before + after - span, s) + 1
    if (output - 1) * s >= n + before:
        output -= 1  # no window of PyTorch begins in the padding after the side
    return PaddedOutput(output, (before, max(after, (output - 1) * s + span - n - before)))


def window_span(k: int, d: int) -> int:
    """The pixels from the first to the last of k taps that are d pixels apart, both included."""
    return d * (k - 1) + 1


def ceil_divide(number: int, divisor: int) -> int:
    """Divides whole numbers and rounds up."""
    return -(-number // divisor)
