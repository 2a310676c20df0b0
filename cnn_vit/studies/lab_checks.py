"""What the functions of an experiment return, checked before anything of it is written: a mistake is one sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cnn_vit.errors import UserError, unknown
from cnn_vit.reports.evidence import RELATIONS, Evidence
from cnn_vit.reports.lab_facts import Table


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Returns the seeds of an experiment.

    Raises:
        UserError: they are not different whole numbers, or there are none.
    """
    is_right = isinstance(seeds, list | tuple | range) and len(seeds) > 0
    if is_right:
        is_right = all(type(seed) is int and seed >= 0 for seed in seeds) and len(set(seeds)) == len(seeds)
    if not is_right:
        raise UserError(f"SEEDS is {seeds!r}; it takes different whole numbers from 0 on, such as (0, 1, 2)")
    return tuple(seeds)


def check_rows(rows: Any, *, name: str) -> list[dict[str, Any]]:
    """Returns rows whose values are plain: numbers, texts, True, False, None, and lists and dicts of them.

    Args:
        rows: as `measure` gave them.
        name: "rows" or "times", as sentences name them.

    Raises:
        UserError: a row is not a dict, or holds something else, nan or infinity.
    """
    if not is_list(rows):
        raise UserError(f"{name} of Measured are {kind(rows)}; give a list of dicts")
    plain = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise UserError(f"{name} of Measured: row {number} is {kind(row)}; give a dict")
        place = f"row {number}" if name == "rows" else f"{name}, row {number}"
        plain.append({key: plain_value(value, f"{place}, key {key!r}") for key, value in named(row, place)})
    return plain


def named(row: Mapping[Any, Any], place: str) -> list[tuple[str, Any]]:
    """Returns the items of a row.

    Raises:
        UserError: a key is not a text.
    """
    for key in row:
        if not isinstance(key, str):
            raise UserError(f"{place} has the key {key!r}; a key is a text")
    return list(row.items())


def plain_value(value: Any, place: str) -> Any:
    """Returns a value of a row as JSON holds it; a number of numpy or JAX becomes one of Python.

    Raises:
        UserError: it is an array, nan or infinity, or nothing that JSON holds.
    """
    if not isinstance(value, bool | int | float | str) and hasattr(value, "ndim") and hasattr(value, "item"):
        if value.ndim:
            raise UserError(f"{place} is an array; give a number or a text")
        value = value.item()
    if isinstance(value, float):
        value = float(value)  # float64 of numpy is a float, but prints as one of numpy
        if not math.isfinite(value):
            raise UserError(f"{place} is {value}; rows hold finite numbers, or None where there is no number")
        return value
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        return [plain_value(part, place) for part in value]
    if isinstance(value, Mapping):
        # JSON's keys are texts
        return {str(key): plain_value(part, f"{place}, key {key!r}") for key, part in value.items()}
    raise UserError(f"{place} is {kind(value)}; give a number or a text")


def check_weights(evidence: Any, function: str, count: int) -> dict[str, list[Evidence]]:
    """Returns the evidence for each sentence.

    Args:
        evidence: as `weigh` or `weigh_times` gave it.
        function: the name of that function.
        count: of seeds.

    Raises:
        UserError: it is not {key: [Evidence, ...]}, or a part has no finite number, or more than one a seed.
    """
    if not isinstance(evidence, Mapping):
        raise UserError(f"{function} returned {kind(evidence)}; it returns {{key of SENTENCES: [Evidence, ...]}}")
    checked = {}
    for key, parts in evidence.items():
        if not is_list(parts) or not all(isinstance(part, Evidence) for part in parts):
            raise UserError(f"{function} gives {key!r} something else than a list of Evidence; write [at_most(...)]")
        for part in parts:
            check_part(part, count)
        checked[key] = list(parts)
    return checked


def check_part(part: Evidence, count: int) -> None:
    """Raises UserError for a part of the evidence without a finite number, or with more than one a seed, or no bound.

    More would make an interval narrower than the seeds do. Fewer make it wider, as in a quick run that trains one seed.
    """
    statement = f"the evidence {part.statement!r}"
    if not isinstance(part.statement, str):
        raise UserError(f"{statement} has no text that says what was measured")
    if part.relation not in RELATIONS:
        raise unknown("relation of evidence", str(part.relation), RELATIONS)
    if not is_finite(part.bound):
        raise UserError(f"{statement} has the bound {part.bound}; give a finite number")
    if not is_list(part.values):
        raise UserError(f"{statement} has {kind(part.values)} for its values; give a tuple of numbers")
    if not 1 <= len(part.values) <= count:
        raise UserError(f"{statement} has {len(part.values)} values for {count} seeds; give one a seed")
    for number, value in enumerate(part.values):
        if not is_finite(value):
            raise UserError(f"{statement} has the value {value} for seed number {number + 1}; give a finite number")


def is_finite(value: Any) -> bool:
    """Whether a value is a number of Python that is neither nan nor infinity."""
    return isinstance(value, int | float) and math.isfinite(value)


def check_tables(tables: Any, function: str) -> list[Table]:
    """Returns the tables of an experiment.

    Raises:
        UserError: they are not a list of tables, a cell is no text, or a row has not one for each column.
    """
    if not is_list(tables) or not all(isinstance(table, Table) for table in tables):
        raise UserError(f"{function} returned {kind(tables)}; it returns a list of Table")
    for table in tables:
        title = f"the table {table.title!r}"
        for row in (table.columns, *table.rows):
            if not is_list(row):
                raise UserError(f"{title}: a row is {kind(row)}; give a tuple of texts")
            for cell in row:
                if not isinstance(cell, str):
                    raise UserError(f"{title}: the cell {cell!r} is {kind(cell)}; write it as text, str({cell!r})")
            if len(row) != len(table.columns):
                raise UserError(
                    f"a row of {title} has {len(row)} cells for {len(table.columns)} columns; give each column one"
                )
        if not isinstance(table.title, str):
            raise UserError(f"{title} has no text as its title")
    return list(tables)


def check_figures(figures: Any, function: str) -> dict[str, str]:
    """Returns the figures of an experiment by name.

    Raises:
        UserError: they are not {name of FIGURES: SVG}.
    """
    if not isinstance(figures, Mapping):
        raise UserError(f"{function} returned {kind(figures)}; it returns {{name of FIGURES: SVG}}")
    for name, svg in figures.items():
        if not isinstance(svg, str):
            raise UserError(f"{function}: the figure {name!r} is {kind(svg)}; give an SVG as text, by cnn_vit.plots")
        if not svg.startswith("<svg") or "viewBox=" not in svg:
            raise UserError(f"{function}: the figure {name!r} is no SVG; give one as text, by cnn_vit.plots")
    return dict(figures)


def is_list(value: Any) -> bool:
    """Whether a value is a sequence of things, not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def kind(value: Any) -> str:
    """Returns what a value is, such as "a list" or "an int"."""
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
