"""Finds the sliding window of a call of a convolution or pooling: its size, stride, dilation and padding."""

from dataclasses import dataclass

from cnn_vit.analysis.record import Call
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.local import LocalConv
from cnn_vit.nn.windows import height_and_width, normalize_padding


@dataclass(frozen=True)
class Window:
    """A window that slides along one side of an image.

    Attributes:
        n: pixels of the side.
        k: taps of the window.
        s: stride, the pixels between two positions of the window.
        d: dilation, the pixels between two taps.
        before: pixels of padding before the first pixel.
        after: pixels of padding after the last pixel.
    """

    n: int
    k: int
    s: int
    d: int
    before: int
    after: int


def find_windows(call: Call) -> tuple[Window, Window] | None:
    """Returns a call's window along the rows and along the columns; None where the layer has no window."""
    if isinstance(call.layer, Conv | LocalConv):
        taps, strides, padding = call.layer.kernel.shape[-4:-2], call.layer.stride, call.layer.padding
        dilations = call.layer.dilation if isinstance(call.layer, Conv) else (1, 1)
    elif {"size", "stride", "padding"} <= call.inputs.keys():
        taps = height_and_width(call.inputs["size"], "size")
        strides = height_and_width(call.inputs["stride"], "stride")
        dilations, padding = (1, 1), normalize_padding(call.inputs["padding"])  # a pooling's window has no holes
    else:
        return None
    height, width = call.inputs["x"].shape[1:3]
    rows = Window(height, taps[0], strides[0], dilations[0], *padding[0])
    columns = Window(width, taps[1], strides[1], dilations[1], *padding[1])
    return rows, columns
