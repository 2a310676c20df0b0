"""Numbers with how they come about: a row of a table, a window along a side of an image."""

import textwrap
from collections.abc import Sequence

from cnn_vit.analysis import flops, receptive
from cnn_vit.analysis.calculator import Border, Calculation
from cnn_vit.analysis.formatting import label, shape_text, title
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import Description, Row
from cnn_vit.analysis.windows import window

LISTED = 12  # pixels written one by one


def explain_row(found: Description, row: Row) -> list[tuple[str, str]]:
    """A row: output, parameters, products, bytes and field, each with its formula and the numbers in it."""
    lines = [("layer", f"{row.path}, {label(row, found)}"), ("of", title(found))]
    if row.call is not None:
        call = found.program.calls[row.call]
        taken = next((value.shape[1:] for value in call.inputs.values() if hasattr(value, "shape")), ())
        lines += [("takes", shape_text(taken)), ("gives", shape_text(row.output or ()))]
        sides = window(call)
        if sides is not None:
            texts = [
                f"{output_size_formula(**side)} = {given}" for side, given in zip(sides, row.output or (), strict=False)
            ]
            lines += lines_per_side(texts, "pixels")
    lines += [("parameters", flops.written(row.parameters)), ("MACs", flops.written(row.macs))]
    if row.output is not None:
        numbers = flops.value((tuple(flops.Factor(side, "") for side in row.output),))
        each = row.activation_bytes // max(1, numbers)
        lines.append(("bytes", f"{' * '.join(map(str, row.output))} * {each} = {row.activation_bytes:,}"))
    lines += lines_per_side(field_growth(found, row), "field")
    return lines


def definition_list(lines: Sequence[tuple[str, str]], *, width: int) -> str:
    """Names and their texts, broken to fit so many columns."""
    broad = max(len(name) for name, _ in lines) + 2
    return "\n".join(
        textwrap.fill(text, max(width, 40), initial_indent=f"{name:<{broad}}", subsequent_indent=" " * broad)
        for name, text in lines
    )


def lines_per_side(texts: Sequence[str], name: str) -> list[tuple[str, str]]:
    """A line for rows and one for columns, or one for both."""
    if len(set(texts)) == 1:
        return [(name, texts[0])]
    return [(f"{name}, {side}", text) for side, text in zip(("rows", "columns"), texts, strict=False)]


def output_size_formula(*, n: int, k: int, s: int, d: int, before: int, after: int) -> str:
    """The places of a window with their numbers."""
    return f"floor(({n} + {before} + {after} - {d} * ({k} - 1) - 1) / {s}) + 1"


def field_growth(found: Description, row: Row) -> list[str]:
    """How the field of rows, and of columns, comes from that of what a layer takes."""
    if row.call is None:
        return []
    sides = window(found.program.calls[row.call])
    taken = [
        receptive.field(seen, pixels)
        for seen, pixels in zip(found.seen[row.call].before, found.image_shape, strict=False)
    ]
    return [grown_side(taken[i], row.field[i], sides[i] if sides else None) for i in (0, 1)]


def grown_side(before: Field | None, after: Field | None, side: dict[str, int] | None) -> str:
    """field + (k - 1) * d * stride, stride * s with their numbers; or in words."""
    if after is None:
        return "not known"
    if after.size == 0:
        return "none: it reads learned numbers alone"
    size = "all of the image" if after.size is None else f"{after.size} pixels"
    if before == after:
        return f"{size}{'' if after.stride is None else f', stride {after.stride}'}, as what it takes"
    if after.stride is None:
        return f"{size}: each output sums over all places of what it takes, or reads one that did"
    if side is None or before is None or before.size is None or before.stride is None:
        return f"{size}, stride {after.stride}"
    return (
        f"{before.size} + ({side['k']} - 1) * {side['d']} * {before.stride} = {size}, "
        f"stride {before.stride} * {side['s']} = {after.stride}"
    )


# Windows by themselves


def explain_window(found: Calculation) -> list[tuple[str, str]]:
    """A calculation: formula and number, what is read at the borders, and what SAME, VALID and the textbook say."""
    n, k, s, d, (before, after) = found.n, found.k, found.s, found.d, found.padding
    room = n + before + after - found.span
    lines = [
        (found.kind, f"n = {n} pixels, k = {k} taps, stride {s}, dilation {d}, padding {before} before, {after} after"),
        ("output", "floor((n + before + after - d * (k - 1) - 1) / s) + 1"),
        ("", f"{output_size_formula(n=n, k=k, s=s, d=d, before=before, after=after)} = floor({room} / {s}) + 1 = {found.output}"),
        ("first", pixels_read(found.first, n)),
        ("last", pixels_read(found.last, n)),
        ("unread", f"{pixel_list(found.unread)}: no window reads {'them' if len(found.unread) > 1 else 'it'}"
                   if found.unread else "no pixel: windows read them all"),
        ("SAME", same_padding_text(found)),
        ("VALID", f"ceil((n - d * (k - 1)) / s) = ceil(({n} - {d} * ({k} - 1)) / {s}) = {found.valid} outputs"
                  if found.valid else f"does not fit: the window spans {found.span} pixels"),
        ("textbook", textbook_failure(found)),
    ]  # fmt: skip
    if found.ceil_mode is not None:
        lines.append(("ceil_mode", ceil_mode_text(found)))
    return lines


def pixel_list(numbers: Sequence[int]) -> str:
    """Pixels by number, the middle of many left out."""
    if len(numbers) > LISTED:
        return (
            f"pixels {' '.join(map(str, numbers[:4]))} ... {' '.join(map(str, numbers[-4:]))} ({len(numbers)} of them)"
        )
    return f"pixel{'s' if len(numbers) > 1 else ''} {' '.join(map(str, numbers))}"


def pixels_read(border: Border, n: int) -> str:
    """What an output at the border reads."""
    outside = [pixel for pixel in border.reads if not 0 <= pixel < n]
    padding = f"padding is {' '.join(map(str, outside[:LISTED]))} ({len(outside)} of {len(border.reads)})"
    return f"output {border.output} reads {pixel_list(border.reads)}; {padding if outside else 'none is padding'}"


def same_padding_text(found: Calculation) -> str:
    """What "SAME" would do."""
    n, s = found.n, found.s
    output, (before, after) = found.same
    total = f"max(({output} - 1) * {s} + {found.d} * ({found.k} - 1) + 1 - {n}, 0) = {before + after}"
    text = f"ceil({n} / {s}) = {output} outputs, padding {total}: {before} before, {after} after"
    if found.same[1] == found.padding:
        return f"{text} (JAX, TensorFlow); the same as here"
    if output != found.output:
        return f"{text} (JAX, TensorFlow); another number of outputs than here"
    if before == found.padding[0]:
        return f"{text} (JAX, TensorFlow); the same numbers as here: padding behind that is not read"
    moved = found.padding[0] - before
    where = f"{abs(moved)} {'pixel' if abs(moved) == 1 else 'pixels'} further {'right' if moved > 0 else 'left'}"
    return f"{text} (JAX, TensorFlow); as many outputs as here, but each reads {where}: other numbers"


def textbook_failure(found: Calculation) -> str:
    """Where n/s - k + 1 fails, and why."""
    value = found.textbook
    number = str(value) if value.denominator == 1 else f"{float(value):.4g}"
    text = f"n/s - k + 1 = {found.n}/{found.s} - {found.k} + 1 = {number}"
    why = [
        *(["it takes all k - 1 taps away after dividing by the stride"] if found.s > 1 and found.k > 1 else []),
        *(["it knows no padding"] if any(found.padding) else []),
        *(["it knows no dilation"] if found.d > 1 and found.k > 1 else []),
        *(["it does not round down"] if value.denominator != 1 else []),
    ]
    if value == found.output and found.s == 1 and not why:
        return f"{text}: right, as always at stride 1 without padding"
    if value == found.output:
        return f"{text}: right by accident; {'; '.join(why) or 'one tap takes no pixel away'}"
    return f"{text}: wrong, {found.output} is right; {'; '.join(why)}"


def ceil_mode_text(found: Calculation) -> str:
    """What PyTorch's `ceil_mode` would give."""
    output, (before, after) = found.ceil_mode or (found.output, found.padding)  # every pooling has one
    if output == found.output:
        return f"{output} outputs, as here: nothing is left that fills no window (PyTorch)"
    return f"{output} outputs, as padding {before} before and {after} after here (PyTorch)"
