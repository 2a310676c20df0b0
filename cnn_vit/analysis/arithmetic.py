"""Writes arithmetic out: how the numbers of one row of a table, or of one calculated window, come about.

Every line is a name and a text, such as ("parameters", "84 (inputs) * 10 (outputs) + 10 (biases) = 850").
"""

import math
import textwrap
from collections.abc import Sequence

from cnn_vit.analysis import flops, receptive
from cnn_vit.analysis.calculator import BorderOutput, Calculation, PaddedOutput
from cnn_vit.analysis.formatting import layer_label, shape_text, title
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import Description, Row
from cnn_vit.analysis.windows import Window, find_windows

MAX_LISTED = 12  # pixels that are written one by one; of more than these the middle is left out

Lines = list[tuple[str, str]]  # name and text of each line


def explain_row(description: Description, row: Row) -> Lines:
    """Explains a row: its output, parameters, MACs, bytes and receptive field, each as its formula with the numbers."""
    lines = [("layer", f"{row.path}, {layer_label(row, description)}"), ("of", title(description))]
    if row.call is not None:
        call = description.program.calls[row.call]
        input_shapes = [value.shape[1:] for value in call.inputs.values() if hasattr(value, "shape")]
        lines.append(("takes", shape_text(input_shapes[0] if input_shapes else ())))
        lines.append(("gives", shape_text(row.output or ())))
        windows = find_windows(call)
        if windows is not None:
            # The output's first two sizes are its rows and columns; its channels have no window.
            sizes = zip(windows, row.output or (), strict=False)
            lines += lines_for_sides([f"{output_size_formula(window)} = {size}" for window, size in sizes], "pixels")
    lines.append(("parameters", flops.formula_text(row.parameters)))
    lines.append(("MACs", flops.formula_text(row.macs)))
    if row.output is not None:
        bytes_per_number = row.activation_bytes // max(1, math.prod(row.output))
        lines.append(("bytes", f"{' * '.join(map(str, row.output))} * {bytes_per_number} = {row.activation_bytes:,}"))
    lines += lines_for_sides(explain_field(description, row), "field")
    return lines


def definition_list(lines: Sequence[tuple[str, str]], *, width: int) -> str:
    """Returns lines as text in two columns, names and texts, with the texts folded to fit into `width`."""
    name_width = max(len(name) for name, _ in lines) + 2
    paragraphs = []
    for name, text in lines:
        first_indent, indent = f"{name:<{name_width}}", " " * name_width
        # Below 40 columns a folded text could not be read; it may then be wider than the terminal.
        paragraphs.append(textwrap.fill(text, max(width, 40), initial_indent=first_indent, subsequent_indent=indent))
    return "\n".join(paragraphs)


def lines_for_sides(texts: Sequence[str], name: str) -> Lines:
    """Returns a line for the rows and one for the columns; one for both where their texts are equal."""
    if len(set(texts)) == 1:
        return [(name, texts[0])]
    return [(f"{name}, {side}", text) for side, text in zip(("rows", "columns"), texts, strict=False)]


def output_size_formula(window: Window) -> str:
    """The formula for the output size of a window, with the numbers in it."""
    padded = f"{window.n} + {window.before} + {window.after}"
    return f"floor(({padded} - {window.d} * ({window.k} - 1) - 1) / {window.s}) + 1"


def explain_field(description: Description, row: Row) -> list[str]:
    """Returns for the rows and for the columns how a layer's receptive field comes from that of its input."""
    if row.call is None:
        return []
    windows = find_windows(description.program.calls[row.call])
    texts = []
    for side in receptive.SIDES:
        input_reach = description.reaches[row.call].inputs[side]
        input_field = receptive.summarize_field(input_reach, description.image_shape[side])
        texts.append(field_growth(input_field, row.field[side], windows[side] if windows else None))
    return texts


def field_growth(before: Field | None, after: Field | None, window: Window | None) -> str:
    """How a receptive field grows along one side: field + (k - 1) * d * stride, stride * s in numbers, else in words.

    Args:
        before: the field of the layer's input; None where it is not known.
        after: the field of the layer's output; None where it is not known.
        window: the layer's window; None where it has none.
    """
    if after is None:
        return "not known"
    if after.size == 0:
        return "none: it reads learned parameters only"
    size = "all of the image" if after.size is None else f"{after.size} pixels"
    if before == after:
        stride = "" if after.stride is None else f", stride {after.stride}"
        return f"{size}{stride}, the same as its input"
    # Behind a global sum, as of attention or an average over all pixels, no index moves the field any more.
    if after.stride is None:
        return f"{size}: each output sums over all positions of the image, or reads one that did"
    if window is None or before is None or before.size is None or before.stride is None:
        return f"{size}, stride {after.stride}"
    return (
        f"{before.size} + ({window.k} - 1) * {window.d} * {before.stride} = {size}, "
        f"stride {before.stride} * {window.s} = {after.stride}"
    )


# Windows by themselves


def explain_window(calculation: Calculation) -> Lines:
    """Explains a calculation: output size, what is read at the borders, and what SAME, VALID and the textbook say."""
    n, k, s, d = calculation.n, calculation.k, calculation.s, calculation.d
    before, after = calculation.padding
    room = n + before + after - calculation.span  # the pixels by which the window can move from its first position
    formula = output_size_formula(Window(n, k, s, d, before, after))
    setting = f"n = {n} pixels, k = {k} taps, stride {s}, dilation {d}, padding {before} before, {after} after"
    lines = [
        (calculation.kind, setting),
        ("output", "floor((n + before + after - d * (k - 1) - 1) / s) + 1"),
        ("", f"{formula} = floor({room} / {s}) + 1 = {calculation.output}"),
        ("first", border_text(calculation.first, n)),
        ("last", border_text(calculation.last, n)),
        ("unread", unread_text(calculation)),
        ("SAME", same_text(calculation)),
        ("VALID", valid_text(calculation)),
        ("textbook", textbook_text(calculation)),
    ]
    if calculation.ceil_mode is not None:
        lines.append(("ceil_mode", ceil_mode_text(calculation.ceil_mode, calculation.output)))
    return lines


def pixels_text(pixels: Sequence[int]) -> str:
    """Pixels by number; of many the middle is left out."""
    if len(pixels) > MAX_LISTED:
        first, last = " ".join(map(str, pixels[:4])), " ".join(map(str, pixels[-4:]))
        return f"pixels {first} ... {last} ({len(pixels)} of them)"
    return f"pixel{'s' if len(pixels) > 1 else ''} {' '.join(map(str, pixels))}"


def border_text(border: BorderOutput, n: int) -> str:
    """What the first or last output reads, on a side of n pixels, and which of that is padding."""
    reads = f"output {border.output} reads {pixels_text(border.reads)}"
    outside = [pixel for pixel in border.reads if not 0 <= pixel < n]
    if not outside:
        return f"{reads}; none is padding"
    return f"{reads}; padding is {' '.join(map(str, outside[:MAX_LISTED]))} ({len(outside)} of {len(border.reads)})"


def unread_text(calculation: Calculation) -> str:
    """Which pixels no window reads."""
    if not calculation.unread:
        return "none: windows read every pixel"
    return f"{pixels_text(calculation.unread)}: no window reads {'them' if len(calculation.unread) > 1 else 'it'}"


def same_text(calculation: Calculation) -> str:
    """What "SAME" would do, and whether that differs from the padding of the calculation."""
    n, k, s, d = calculation.n, calculation.k, calculation.s, calculation.d
    output, (before, after) = calculation.same
    total = f"max(({output} - 1) * {s} + {d} * ({k} - 1) + 1 - {n}, 0) = {before + after}"
    text = f"ceil({n} / {s}) = {output} outputs, padding {total}: {before} before, {after} after (JAX, TensorFlow)"
    if calculation.same.padding == calculation.padding:
        return f"{text}; the same as here"
    if output != calculation.output:
        return f"{text}; here there are {calculation.output} outputs"
    # As many outputs: they read the same pixels where the first windows begin at the same one.
    if before == calculation.padding[0]:
        return f"{text}; the same values as here, for no window reads the padding that differs"
    shift = calculation.padding[0] - before
    distance = f"{abs(shift)} {'pixel' if abs(shift) == 1 else 'pixels'} further {'right' if shift > 0 else 'left'}"
    return f"{text}; as many outputs as here, but each reads {distance}, so their values differ"


def valid_text(calculation: Calculation) -> str:
    """How many outputs there would be without padding."""
    if not calculation.valid:
        return f"does not fit: the window spans {calculation.span} pixels"
    numbers = f"ceil(({calculation.n} - {calculation.d} * ({calculation.k} - 1)) / {calculation.s})"
    return f"ceil((n - d * (k - 1)) / s) = {numbers} = {calculation.valid} outputs"


def textbook_text(calculation: Calculation) -> str:
    """Whether the textbook's n/s - k + 1 is right here, and why not."""
    n, k, s = calculation.n, calculation.k, calculation.s
    textbook = calculation.textbook
    is_whole = textbook.denominator == 1
    text = f"n/s - k + 1 = {n}/{s} - {k} + 1 = {textbook if is_whole else f'{float(textbook):.4g}'}"
    mistakes = []
    if s > 1 and k > 1:
        mistakes.append("it subtracts all k - 1 taps after dividing by the stride")
    if any(calculation.padding):
        mistakes.append("it ignores padding")
    if calculation.d > 1 and k > 1:
        mistakes.append("it ignores dilation")
    if not is_whole:
        mistakes.append("it does not round down")
    if textbook != calculation.output:
        return f"{text}: wrong, {calculation.output} is right; {'; '.join(mistakes)}"
    if s == 1 and not mistakes:
        return f"{text}: right, as always at stride 1 without padding"
    return f"{text}: right by accident; {'; '.join(mistakes) or 'one tap takes no pixel away'}"


def ceil_mode_text(ceil_mode: PaddedOutput, output: int) -> str:
    """What PyTorch's `ceil_mode` would give, where there are `output` outputs without it."""
    if ceil_mode.output == output:
        return f"{output} outputs, as here: no pixels are left that fill no window (PyTorch)"
    before, after = ceil_mode.padding
    return f"{ceil_mode.output} outputs, as padding {before} before and {after} after here (PyTorch)"
