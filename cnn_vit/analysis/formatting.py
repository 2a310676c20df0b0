"""Formats descriptions as text: a table that fits a terminal, and a table of what differs between two networks."""

from collections.abc import Sequence
from typing import Any

from cnn_vit.analysis import flops
from cnn_vit.analysis.receptive import Field
from cnn_vit.analysis.table import Description, Row, field_size
from cnn_vit.analysis.windows import find_windows

NOTES = {
    "MACs": "multiply-accumulates of convolutions, matrices, attention; padding counts",
    "bytes": "size of the outputs, for one image in evaluation",
    "field": "side of the receptive field in pixels, in an image that is large enough",
}
COLUMNS = ("layer", "kind", "output", "parameters", "MACs", "bytes", "field", "stride")
RIGHT_ALIGNED = {"parameters", "MACs", "bytes", "field", "stride", "A", "B"}
DROPPED_FIRST = ("bytes", "kind")  # columns that a narrow terminal goes without, in this order
GAP = "  "


def format_table(description: Description, *, width: int) -> str:
    """Returns a description as a table that fits into `width` columns of a terminal, as far as it can.

    Where the full paths do not fit, layers stand under the path of the block that they share; where that is still too
    wide, columns are dropped.
    """
    rows = [row_cells(row, description) for row in description.rows]
    total = {
        "layer": "total",
        "kind": "",
        "parameters": f"{description.parameters:,}",
        "MACs": f"{description.macs:,}",
        "bytes": f"{description.activation_bytes:,}",
    }
    columns = list(COLUMNS)
    lines = align_columns([*rows, total], columns)
    for dropped in ("", *DROPPED_FIRST):  # "" drops none: the shorter paths may be enough
        if max(map(len, lines)) <= width:
            break
        columns = [name for name in columns if name != dropped]
        lines = align_columns([*group_by_block(rows), total], columns)
    notes = [f"{name:<7}{note}" for name, note in NOTES.items() if name in columns]
    return "\n".join([title(description), "", *lines, "", *notes])


def title(description: Description) -> str:
    """The network, its classes, and the images and dtype that it is described for, on one line."""
    image = shape_text(description.image_shape)
    return f"{description.model}: {description.num_classes} classes, image {image}, {description.dtype}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as `224x224x3`."""
    return "x".join(map(str, shape))


def row_cells(row: Row, description: Description) -> dict[str, str]:
    """Returns the cells of a row as text, by column."""
    strides = ["" if field is None or field.stride is None else str(field.stride) for field in row.field]
    return {
        "layer": row.path,
        "kind": layer_label(row, description),
        "output": shape_text(row.output or ()),
        "parameters": f"{flops.compute_formula(row.parameters):,}",
        "MACs": f"{flops.compute_formula(row.macs):,}",
        "bytes": f"{row.activation_bytes:,}" if row.output else "",
        "field": join_sides([field_text(field) for field in row.field]),
        "stride": join_sides(strides),
    }


def layer_label(row: Row, description: Description) -> str:
    """A layer's kind, with the size and stride of its window if it has one: "Conv 3x3/2"."""
    windows = None if row.call is None else find_windows(description.program.calls[row.call])
    if windows is None:
        return row.kind
    size = shape_text([window.k for window in windows])
    return f"{row.kind} {size}/{join_sides([str(window.s) for window in windows])}"


def field_text(field: Field | None) -> str:
    """The size of a receptive field for a cell: its pixels, "all", "none", or "?" where it is not known."""
    size = field_size(field)
    if size is None:
        return "?"
    return "none" if size == 0 else str(size)


def join_sides(texts: Sequence[str]) -> str:
    """Joins the texts for rows and columns as "3x5"; one stands for both where they are equal."""
    return "x".join(texts) if len(set(texts)) > 1 else "".join(texts[:1])


def group_by_block(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Puts rows under a line for the block that they share: the path up to its last number."""
    grouped: list[dict[str, str]] = []
    last_block = ""
    for row in rows:
        parts = row["layer"].split("/")
        # Blocks are the numbered entries of lists: of "stages/1/blocks/0/conv2" the block is "stages/1/blocks/0".
        numbers = [i for i, part in enumerate(parts[:-1]) if part.isdigit()]
        block = "/".join(parts[: numbers[-1] + 1]) if numbers else ""
        if block and block != last_block:
            grouped.append({"layer": block})
        if block:
            row = {**row, "layer": f"  {row['layer'].removeprefix(f'{block}/')}"}
        grouped.append(row)
        last_block = block
    return grouped


def align_columns(rows: Sequence[dict[str, str]], columns: Sequence[str]) -> list[str]:
    """Returns the lines of a table, its head first. A row of a single cell is a line of its own, of any length."""
    head = dict(zip(columns, columns, strict=True))
    full_rows = [row for row in (head, *rows) if len(row) > 1]
    # A row may lack some columns, as the totals do; its cells there are empty.
    widths = {name: max(len(row.get(name, "")) for row in full_rows) for name in columns}
    lines = []
    for row in (head, *rows):
        if len(row) == 1:
            lines.append("".join(row.values()))
            continue
        cells = []
        for name in columns:
            cell = row.get(name, "")
            cells.append(cell.rjust(widths[name]) if name in RIGHT_ALIGNED else cell.ljust(widths[name]))
        lines.append(GAP.join(cells).rstrip())
    return lines


def format_differences(differences: dict[str, Any]) -> str:
    """Returns what `table.find_differences` found as text: totals, then the quantities that differ in each layer."""
    networks = zip("AB", differences["models"], differences["classes"], differences["images"], strict=True)
    heads = [
        f"{letter}: {model}, {num_classes} classes, image {shape_text(image)}"
        for letter, model, num_classes, image in networks
    ]
    totals = {key: differences[key] for key in ("parameters", "macs", "activation_bytes")}
    rows = [{"layer": "total"}, *quantity_rows(totals)]
    for layer in differences["layers"]:
        in_first, in_second = layer["in"]
        only = "" if in_first and in_second else f"  only in {'A' if in_first else 'B'}"
        rows += [{"layer": f"{layer['path']}{only}"}, *quantity_rows(layer["differs"])]
    lines = align_columns(rows, ("layer", "A", "B"))
    if not differences["layers"]:
        lines += ["", "no layer differs"]
    return "\n".join([*heads, "", *lines])


def quantity_rows(quantities: dict[str, list[Any]]) -> list[dict[str, str]]:
    """Returns a row for each quantity, with its values in A and B."""
    return [
        {"layer": f"  {key.replace('_', ' ')}", "A": json_cell(first), "B": json_cell(second)}
        for key, (first, second) in quantities.items()
    ]


def json_cell(value: Any) -> str:
    """A value of JSON as the text of a cell: lists as `3x5`, or once where both of two are equal, and null as "-"."""
    if isinstance(value, list):
        texts = [json_cell(entry) for entry in value]
        if len(texts) == 2 and texts[0] == texts[1]:
            return texts[0]
        return "x".join(texts)
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
