"""How many places a window has along one side of an image, which pixels it reads at the borders, and what others say.

    calculate("conv", n=32, k=3, s=2, padding=1)

The window has k taps, d pixels apart, and moves by s. "SAME" is JAX's and TensorFlow's: ceil(n / s) places, the padding
that takes, its odd pixel behind. The textbook's n/s - k + 1 is right at stride 1 without padding or dilation, elsewhere
by accident.
Sources: Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285, relationships 6 and
15; `jax.lax.padtype_to_pads`; PyTorch's MaxPool2d for `ceil_mode`.
"""

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.nn.windows import output_size

KINDS = ("conv", "pool")
MOST = 10_000  # pixels of a side; larger ones are a slip of the finger
NAMES = {"n": "pixels of the side", "k": "taps of the window", "s": "stride", "d": "dilation"}


class Border(NamedTuple):
    """One output at the border: its number and the pixels it reads; those below 0 or from n on are padding."""

    output: int
    reads: list[int]
    padding: int


class Calculation(NamedTuple):
    """One side of a convolution or pooling.

    Attributes:
        kind: "conv" or "pool".
        n, k, s, d: pixels, taps, stride, dilation.
        padding: pixels before and after.
        output: places of the window.
        first, last: what the outputs at the borders read.
        unread: pixels that no window reads.
        same: what "SAME" gives: (output, (before, after)).
        valid: what no padding gives; 0 where the window does not fit.
        textbook: n/s - k + 1.
        ceil_mode: PyTorch's pooling that keeps what fills no window: (output, padding that gives the same); None of a
            convolution.
    """

    kind: str
    n: int
    k: int
    s: int
    d: int
    padding: tuple[int, int]
    output: int
    first: Border
    last: Border
    unread: list[int]
    same: tuple[int, tuple[int, int]]
    valid: int
    textbook: Fraction
    ceil_mode: tuple[int, tuple[int, int]] | None

    @property
    def span(self) -> int:
        """Pixels from the first tap to the last."""
        return self.d * (self.k - 1) + 1

    def to_json(self) -> dict[str, Any]:
        """As plain values; `right` says whether the textbook's number is the output."""
        return {
            **{name: getattr(self, name) for name in ("kind", "n", "k", "s", "d", "output", "unread", "valid")},
            "padding": list(self.padding),
            "first": self.first._asdict(),
            "last": self.last._asdict(),
            "same": {"output": self.same[0], "padding": list(self.same[1]), "equal": self.same[1] == self.padding},
            "textbook": {"value": float(self.textbook), "right": self.textbook == self.output},
            "ceil_mode": self.ceil_mode and {"output": self.ceil_mode[0], "padding": list(self.ceil_mode[1])},
        }


def calculate(kind: str, *, n: int, k: int, s: int, padding: int | tuple[int, int], d: int = 1) -> Calculation:
    """One side of a convolution or pooling.

    Args:
        kind: "conv" or "pool".
        n: pixels of the side.
        k: taps of the window.
        s: pixels between two places of the window.
        padding: pixels before and after, one number for both or two.
        d: pixels between two taps.

    Raises:
        UserError: a number out of its range, a window that does not fit, a pooling that could see padding alone.
    """
    before, after = edges = padding if isinstance(padding, tuple) else (padding, padding)
    refuse_numbers(kind, dict(n=n, k=k, s=s, d=d), edges)
    output = output_size(n, k, stride=s, padding=edges, dilation=d)
    span = d * (k - 1) + 1
    read = np.zeros(before + n + after, bool)
    for tap in range(k):
        read[tap * d : tap * d + (output - 1) * s + 1 : s] = True
    return Calculation(
        kind, n, k, s, d, edges, output,
        first=border_output(0, n=n, k=k, s=s, d=d, before=before),
        last=border_output(output - 1, n=n, k=k, s=s, d=d, before=before),
        unread=np.flatnonzero(~read[before : before + n]).tolist(),
        same=same(n, span, s),
        valid=max(0, -(-(n - span + 1) // s)),
        textbook=Fraction(n, s) - k + 1,
        ceil_mode=ceil_mode(n, span, s, edges) if kind == "pool" else None,
    )  # fmt: skip


def refuse_numbers(kind: str, numbers: dict[str, int], padding: tuple[int, int]) -> None:
    """Raises UserError for numbers that make no window."""
    for name, number in numbers.items():
        if not 1 <= number <= MOST:
            raise UserError(f"{name}={number} ({NAMES[name]}) is not from 1 to {MOST:,}")
    for number in padding:
        if not 0 <= number <= MOST:
            raise UserError(f"padding={number} is not from 0 to {MOST:,} pixels")
    if kind == "pool" and numbers["d"] != 1:
        raise UserError(f"d={numbers['d']} spreads the taps of a convolution; a pooling's window has no holes")
    if kind == "pool" and max(padding) >= numbers["k"]:
        raise UserError(
            f"padding={max(padding)} is as large as the pooling's window of {numbers['k']} pixels, "
            "which could see nothing else; make it smaller"
        )


def border_output(output: int, *, n: int, k: int, s: int, d: int, before: int) -> Border:
    """What one output reads."""
    reads = [output * s - before + tap * d for tap in range(k)]
    return Border(output, reads, sum(not 0 <= pixel < n for pixel in reads))


def same(n: int, span: int, s: int) -> tuple[int, tuple[int, int]]:
    """Output and padding of "SAME" in JAX and TensorFlow: the odd pixel comes last."""
    output = -(-n // s)
    total = max((output - 1) * s + span - n, 0)
    return output, (total // 2, total - total // 2)


def ceil_mode(n: int, span: int, s: int, padding: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Output of PyTorch's `ceil_mode`, and the padding that makes it here; no window begins in the padding behind."""
    before, after = padding
    output = -(-(n + before + after - span) // s) + 1
    output -= (output - 1) * s >= n + before
    return output, (before, max(after, (output - 1) * s + span - n - before))
