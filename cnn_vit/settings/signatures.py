"""Reads the keywords of a function or a class from the text of its file, which is never imported.

`list`, `--help` and the checks of settings show what a network or a data source takes without importing jax. Each
keyword is described once, where it is written: its default and its type in the signature, its meaning in the
docstring's section `Args:`.
"""

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REQUIRED = inspect.Parameter.empty  # the default of a keyword that every call must give
ARGUMENT = re.compile(r" {4}(?P<name>\w+): (?P<meaning>.*)")  # the first line about an argument under `Args:`


@dataclass(frozen=True)
class Keyword:
    """A keyword-only parameter of a function or a class, as its file writes it.

    Attributes:
        name: what a call writes before the equals sign.
        default: the value where a call gives none; REQUIRED where each call must give one.
        annotation: the type as written, such as `int | tuple[int, int]`; "" where none is written.
        meaning: what the docstring says of it under `Args:`, on one line; "" where it says nothing.
    """

    name: str
    default: Any
    annotation: str
    meaning: str

    @property
    def is_required(self) -> bool:
        """Whether each call must give a value."""
        return self.default is REQUIRED


def parse_file(path: Path) -> ast.Module:
    """Parses a Python file without running it."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def read_summary(path: Path) -> str:
    """Reads the first line of a file's docstring; "" where the file has none."""
    docstring = ast.get_docstring(parse_file(path)) or ""
    return docstring.partition("\n")[0]


def read_keywords(module: ast.Module, name: str) -> dict[str, Keyword]:
    """Reads the keyword-only parameters of a function or a class, in the order in which its signature writes them.

    The parameters of a class are those of its own `__init__`; their meanings stand in the docstring of the class.

    Args:
        module: the parsed file.
        name: a function or a class of the file's top level.

    Raises:
        LookupError: the file has no such function or class, or the class has no `__init__` of its own.
        ValueError: a default is not a literal.
    """
    definition = find_definition(module.body, name)
    function = definition
    if isinstance(definition, ast.ClassDef):
        function = find_definition(definition.body, "__init__")
    if not isinstance(function, ast.FunctionDef):
        raise LookupError(f"{name}.__init__ is not a function")
    meanings = read_meanings(ast.get_docstring(definition) or "")
    keywords = {}
    for parameter, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True):
        keywords[parameter.arg] = Keyword(
            name=parameter.arg,
            default=REQUIRED if default is None else ast.literal_eval(default),
            annotation=ast.unparse(parameter.annotation) if parameter.annotation else "",
            meaning=meanings.get(parameter.arg, ""),
        )
    return keywords


def read_entries(module: ast.Module, name: str) -> dict[str, ast.expr]:
    """Reads the dict that a file assigns as `name = {...}`: its keys are texts, its values stay code.

    Raises:
        LookupError: the file assigns no dict of that name.
    """
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if ast.unparse(target) == name and isinstance(statement.value, ast.Dict):
            entries = {}
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                if key is not None:  # None stands for a `**` in the dict
                    entries[ast.literal_eval(key)] = value
            return entries
    raise LookupError(f"no dict is called {name}")


def find_definition(statements: list[ast.stmt], name: str) -> ast.FunctionDef | ast.ClassDef:
    """Finds the function or the class that some statements define under a name; LookupError where none does."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef) and statement.name == name:
            return statement
    raise LookupError(f"no function and no class is called {name}")


def read_meanings(docstring: str) -> dict[str, str]:
    """Reads the section `Args:` of a docstring in Google's style: the meaning of each argument, on one line.

    The section ends at the first line that is blank or not indented.
    """
    lines = docstring.splitlines()
    if "Args:" not in lines:
        return {}
    meanings: dict[str, str] = {}
    name = ""
    for line in lines[lines.index("Args:") + 1 :]:
        if not line.startswith("    "):
            break
        start = ARGUMENT.fullmatch(line)
        if start:
            name = start["name"]
            meanings[name] = start["meaning"].strip()
        elif not line.startswith("     "):
            name = ""  # another kind of argument, such as `**names`
        elif name:  # the text goes on from the line above
            meanings[name] += f" {line.strip()}"
    return meanings
