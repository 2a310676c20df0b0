"""Published facts by topic, and networks described cheaply for their tests."""

import csv
from functools import cache
from pathlib import Path

from cnn_vit.analysis.table import describe

TABLES = Path(__file__).parents[1] / "tables"


@cache
def rows(name: str) -> list[dict[str, str]]:
    """Rows of a table."""
    return list(csv.DictReader((TABLES / f"{name}.csv").open(newline="", encoding="utf-8")))


def checks(topic: str) -> dict[str, str]:
    """What the numeric checks of a topic expect, by their id."""
    return {row["id"]: row["expected"] for row in rows("checks") if row["topic"] == topic}


@cache
def described(name, image_size=None, **changes):
    """A description that several tests read."""
    return describe(name, image_size, **changes)
