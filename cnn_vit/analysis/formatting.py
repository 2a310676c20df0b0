"""Descriptions as text: a table that fits a terminal, and what differs between two."""

from collections.abc import Sequence
from typing import Any

from cnn_vit.analysis import flops
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import Description, Row, size_of
from cnn_vit.analysis.windows import window

NOTES = {
    "MACs": "products of convolutions, matrices and attention; padding's count too",
    "bytes": "of the outputs, one image in evaluation",
    "field": "side of what a number can see, in pixels, were the image large enough",
}
FULL = ("layer", "kind", "output", "parameters", "MACs", "bytes", "field", "stride")
RIGHT = {"parameters", "MACs", "bytes", "field", "stride", "A", "B"}  # columns written to the right
SPARE = ("bytes", "kind")  # columns that go first where there is no room
GAP = "  "


def format_table(found: Description, *, width: int) -> str:
    """A description as a table that fits in so many columns, as far as it can.

    Where the full paths do not fit, layers stand under the path of the block they share.
    """
    rows = [columns(row, found) for row in found.rows]
    total = {
        "layer": "total",
        "kind": "",
        "parameters": f"{found.parameters:,}",
        "MACs": f"{found.macs:,}",
        "bytes": f"{found.activation_bytes:,}",
    }
    shown = list(FULL)
    text = align_columns([*rows, total], shown)
    for spare in ("", *SPARE):
        if max(map(len, text)) <= width:
            break
        shown = [name for name in shown if name != spare]
        text = align_columns([*group_by_block(rows), total], shown)
    notes = [f"{name:<7}{note}" for name, note in NOTES.items() if name in shown]
    return "\n".join([title(found), "", *text, "", *notes])


def title(found: Description) -> str:
    """What was described."""
    return f"{found.model}: {found.num_classes} classes, image {shape_text(found.image_shape)}, {found.dtype}"


def shape_text(sides: Sequence[int]) -> str:
    """A shape as `224x224x3`."""
    return "x".join(map(str, sides))


def columns(row: Row, found: Description) -> dict[str, str]:
    """A row as text by column."""
    strides = ["" if field is None or field.stride is None else str(field.stride) for field in row.field]
    return {
        "layer": row.path,
        "kind": label(row, found),
        "output": shape_text(row.output or ()),
        "parameters": f"{flops.value(row.parameters):,}",
        "MACs": f"{flops.value(row.macs):,}",
        "bytes": f"{row.activation_bytes:,}" if row.output else "",
        "field": pair([field_in_words(field) for field in row.field]),
        "stride": pair(strides),
    }


def label(row: Row, found: Description) -> str:
    """A layer's kind, with side and stride of its window if it has one: "Conv 3x3/2"."""
    sides = None if row.call is None else window(found.program.calls[row.call])
    if sides is None:
        return row.kind
    return f"{row.kind} {shape_text([side['k'] for side in sides])}/{pair([str(side['s']) for side in sides])}"


def field_in_words(field: Field | None) -> str:
    """A field's size in words."""
    size = size_of(field)
    return "?" if size is None else "none" if size == 0 else str(size)


def pair(sides: Sequence[str]) -> str:
    """Rows and columns, as one where they are the same."""
    return "x".join(sides) if len(set(sides)) > 1 else "".join(sides[:1])


def group_by_block(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Rows under a line for the block they share: the path up to its last number."""
    found: list[dict[str, str]] = []
    last = ""
    for row in rows:
        parts = row["layer"].split("/")
        numbers = [place for place, part in enumerate(parts[:-1]) if part.isdigit()]
        block = "/".join(parts[: numbers[-1] + 1]) if numbers else ""
        if block and block != last:
            found.append({"layer": block})
        last = block
        found.append({**row, "layer": f"  {row['layer'].removeprefix(f'{block}/')}"} if block else row)
    return found


def align_columns(rows: Sequence[dict[str, str]], shown: Sequence[str]) -> list[str]:
    """Lines of a table with its head; a row of one cell is a line by itself, as long as it likes."""
    full = [dict(zip(shown, shown, strict=True)), *rows]
    widths = {name: max(len(row.get(name, "")) for row in full if len(row) > 1) for name in shown}

    def line(row: dict[str, str]) -> str:
        cells = [(name, row.get(name, "")) for name in shown]
        return GAP.join(cell.rjust(widths[name]) if name in RIGHT else cell.ljust(widths[name]) for name, cell in cells)

    return [line(row).rstrip() if len(row) > 1 else "".join(row.values()) for row in full]


def format_differences(found: dict[str, Any]) -> str:
    """What `table.differences` found: totals, then under each layer the quantities that differ."""
    heads = [
        f"{letter}: {model}, {classes} classes, image {shape_text(image)}"
        for letter, model, classes, image in zip("AB", found["models"], found["classes"], found["images"], strict=True)
    ]
    totals = {key: found[key] for key in ("parameters", "macs", "activation_bytes")}
    rows = [{"layer": "total"}, *quantities(totals)]
    for layer in found["layers"]:
        one, other = layer["in"]
        only = "" if one and other else f"  only in {'A' if one else 'B'}"
        rows += [{"layer": f"{layer['path']}{only}"}, *quantities(layer["differs"])]
    lines = align_columns(rows, ("layer", "A", "B"))
    return "\n".join([*heads, "", *lines, *(() if found["layers"] else ["", "no layer differs"])])


def quantities(differs: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each quantity: its values in A and B."""
    return [
        {"layer": f"  {key.replace('_', ' ')}", "A": json_cell(values[0]), "B": json_cell(values[1])}
        for key, values in differs.items()
    ]


def json_cell(value: Any) -> str:
    """A value of JSON as a cell."""
    if isinstance(value, list):
        texts = [json_cell(one) for one in value]
        return texts[0] if len(texts) == 2 and texts[0] == texts[1] else "x".join(texts)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
