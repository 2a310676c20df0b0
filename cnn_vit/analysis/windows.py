"""The window of a convolution or pooling call: its numbers, side by side of the image."""

from cnn_vit.analysis.record import Call
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.windows import height_and_width, normalize_padding


def window(call: Call) -> list[dict[str, int]] | None:
    """Of rows, of columns: pixels n, taps k, stride s, dilation d, padding before and after; None without a window."""
    if isinstance(call.layer, Conv):
        layer = call.layer
        taps, steps, spread, edges = layer.kernel.shape[:2], layer.stride, layer.dilation, layer.padding
    elif {"size", "stride", "padding"} <= call.inputs.keys():
        taps, steps = (height_and_width(call.inputs[name], name) for name in ("size", "stride"))
        spread, edges = (1, 1), normalize_padding(call.inputs["padding"])
    else:
        return None
    pixels = call.inputs["x"].shape[1:3]
    return [
        dict(n=pixels[i], k=taps[i], s=steps[i], d=spread[i], before=edges[i][0], after=edges[i][1]) for i in (0, 1)
    ]
