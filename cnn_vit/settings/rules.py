"""The rules of training, read from the text of their files: optimizers, schedules and losses, each with its keywords.

A rule is a function of `training/optimizers.py`, `schedules.py` or `losses.py`, and an entry of the dict at the end of
that file. Its keywords are the function's keyword-only parameters. Each is described once, where it is written: default
and type in the signature, meaning under `Args:`. The meaning of a number ends with the interval that it lies in:

    b1: decay of the gradient's average, in [0, 1).

From these texts the keywords become rows of the table of settings, so that the checks, the help and the lists show
them as they show the common settings, and nothing is imported. The default of `learning_rate` is the rule's own.
"""

import ast
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnn_vit.errors import unknown
from cnn_vit.settings import durations, signatures
from cnn_vit.settings.keys import KEYS, REQUIRED, Key
from cnn_vit.settings.signatures import Keyword

FOLDER = Path(__file__).parents[1] / "training"
# The section of the settings -> the file of its rules, and the dict at the end of that file.
TABLES = {
    "loss": ("losses.py", "LOSSES"),
    "optimizer": ("optimizers.py", "OPTIMIZERS"),
    "schedule": ("schedules.py", "SCHEDULES"),
}
COMMON_KEYWORDS = ("learning_rate",)  # parameters of every rule of a section that are common settings
TYPES = {"float": "float", "int": "int", "bool": "bool", "Steps": "duration", "tuple[Steps, ...]": "durations"}
RANGE = re.compile(r"(?P<meaning>.*), in (?P<range>[\[(][^\[\]()]*[\])])\.?")


@dataclass(frozen=True)
class Rule:
    """A rule, as its file describes it.

    Attributes:
        name: as settings name it.
        meaning: the first line of its docstring.
        keys: its keywords as rows of the table of settings, by name ("momentum").
        learning_rate: the base learning rate where nobody sets one; None for a rule without.
    """

    name: str
    meaning: str
    keys: dict[str, Key]
    learning_rate: float | None = None


def rule_names(section: str) -> list[str]:
    """Lists the rules of a section: "loss", "optimizer" or "schedule"."""
    return list(read_section(section))


def read_rule(section: str, name: str) -> Rule:
    """Returns a rule of a section.

    Raises:
        UserError: there is no such rule; the sentence names the nearest.
    """
    rules = read_section(section)
    if name not in rules:
        raise unknown(section, name, rules)
    return rules[name]


def rules_that_take(section: str, keyword: str) -> list[str]:
    """Lists the rules of a section that have a keyword."""
    return [name for name, rule in read_section(section).items() if keyword in rule.keys]


def run_keys(values: Mapping[str, Any]) -> dict[str, Key]:
    """Returns the table of a run: the common settings, and behind each rule's name the keywords of that rule.

    Args:
        values: settings by dotted name. Only the names of the rules are read; one that is not set is the default, and
            one that is missing altogether has no keywords.

    Raises:
        UserError: there is no such rule.
    """
    table = {}
    for key, row in KEYS.items():
        section, _, last_part = key.rpartition(".")
        table[key] = row
        name = rule_name(section, values)
        if name is None:
            continue
        if last_part == "name":
            for keyword, keyword_row in read_rule(section, name).keys.items():
                table[f"{section}.{keyword}"] = keyword_row
        elif last_part == "learning_rate":
            table[key] = replace(row, default=read_rule(section, name).learning_rate)
    return table


def rule_name(section: str, values: Mapping[str, Any]) -> str | None:
    """Returns the rule that settings name in a section; None for a section without rules, or where none is named."""
    if section not in TABLES:
        return None
    default = KEYS[f"{section}.name"].default
    name = values.get(f"{section}.name")
    if name is None:
        name = None if default is REQUIRED else default
    return name


# Reading the files


@functools.cache
def read_section(section: str) -> dict[str, Rule]:
    """Reads every rule of a section, by name, in the order of the file's dict."""
    file, table = TABLES[section]
    module = signatures.parse_file(FOLDER / file)
    rules = {}
    for name, entry in signatures.read_entries(module, table).items():
        # an entry is the function itself, or a call whose first argument it is: `Loss(softmax_cross_entropy, ...)`
        function = ast.unparse(entry.args[0] if isinstance(entry, ast.Call) else entry)
        docstring = ast.get_docstring(signatures.find_definition(module.body, function)) or ""
        keywords = signatures.read_keywords(module, function)
        learning_rate = keywords["learning_rate"].default if "learning_rate" in keywords else None
        keys = {}
        for keyword in keywords.values():
            if keyword.name not in COMMON_KEYWORDS:
                keys[keyword.name] = keyword_row(keyword)
        rules[name] = Rule(name, docstring.partition("\n")[0], keys, learning_rate)
    return rules


def keyword_row(keyword: Keyword) -> Key:
    """Makes the row of a keyword in the table of settings.

    Raises:
        LookupError: settings have no such type.
    """
    annotation = keyword.annotation.removesuffix(" | None")
    mark = "?" if annotation != keyword.annotation else ""
    default = REQUIRED if keyword.is_required else keyword.default
    if annotation.startswith("Literal["):
        choices = ast.literal_eval(f"({annotation.removeprefix('Literal[').removesuffix(']')},)")
        return Key(f"text{mark}", default, "", keyword.meaning.rstrip("."), choices=choices)
    kind = TYPES[annotation]
    if kind == "duration" and default is not REQUIRED:
        default = durations.canonicalize_duration(default)
    match = RANGE.fullmatch(keyword.meaning)
    if match is None:
        return Key(f"{kind}{mark}", default, "", keyword.meaning.rstrip("."))
    return Key(f"{kind}{mark}", default, match["range"], match["meaning"])
