"""Published facts by topic, and networks that several tests describe only once."""

import csv
from functools import cache
from pathlib import Path

from cnn_vit.analysis.table import describe

TABLES = Path(__file__).parents[1] / "tables"


@cache
def read_table(name: str) -> list[dict[str, str]]:
    """Returns the rows of a table of published facts."""
    with (TABLES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected_by_check(topic: str) -> dict[str, str]:
    """Returns what the numeric checks of a topic expect, by their id."""
    return {row["id"]: row["expected"] for row in read_table("checks") if row["topic"] == topic}


@cache
def describe_once(name, image_size=None, **changes):
    """Returns a description that several tests read."""
    return describe(name, image_size, **changes)
