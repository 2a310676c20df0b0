"""Reads the folder of an experiment: what its author says, as text, and what was measured. Nothing of it is run.

    experiments/NAME/experiment.py    the texts below as literals, and the functions that `studies/lab.py` calls
    experiments/NAME/results.json     rows, tables and verdicts; the same bytes whenever it is made
    experiments/NAME/timing.json      times, machine and commit, and the verdicts that a clock has a part in
    experiments/NAME/FIGURE.svg      made from results.json alone, or from the times alone
    experiments/NAME/README.md        made from all of these
    experiments/NAME/DATA/            results.json, timing.json and README.md of the same on other data, stated apart

A folder of experiments/ without an experiment.py is a script of another kind, and no part of the laboratory.
"""

import ast
import hashlib
import io
import re
import token
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.reports import evidence, mathml
from cnn_vit.runs import reader

EXPERIMENT = "experiment.py"
RESULTS = "results.json"
TIMES = "timing.json"
README = "README.md"
SUFFIX = ".svg"  # of a figure
# The literals of an experiment.py that are text: they may change without anything being measured again.
TEXTS = ("ORDER", "QUESTION", "CLAIM", "SENTENCES", "FORMULAS", "FIGURES", "SURPRISE", "CHOSEN")
ALSO_ON = "ALSO_ON"  # a text as well, which may be left out
OUTDATED = "measured before the code changed"
FORMS = (
    "SENTENCES is {key: (sentence, truth)}, FORMULAS is ((tex, meaning, command), ...), FIGURES is {name: caption} and "
    f"{ALSO_ON} is {{data set: paragraph}}"
)
FILE_NAME = re.compile(r"\w[\w-]*")


@dataclass(frozen=True)
class Sentence:
    """A sentence as people read it in textbooks.

    Attributes:
        key: its name in the experiment.
        text: the sentence.
        truth: what is true instead, or more precisely.
    """

    key: str
    text: str
    truth: str


@dataclass(frozen=True)
class Formula:
    """A formula with what it says.

    Attributes:
        tex: as `mathml.formula` takes it.
        meaning: a sentence about it.
        command: that checks it; "" for none.
    """

    tex: str
    meaning: str
    command: str


@dataclass(frozen=True)
class ExperimentTexts:
    """What the author of an experiment says.

    Attributes:
        folder: of the experiment; its name is the experiment's.
        order: the place in the chapter, ascending.
        question: one sentence.
        claim: what is expected, and why.
        sentences: what textbooks say.
        formulas: that the experiment is about.
        figures: (name, caption) of each.
        surprise: what nobody had expected, a paragraph.
        chosen: how settings, seeds and bounds were chosen, a paragraph: what was looked at before, and what after.
        also_on: the data sets that the experiment can be given instead of its own, by name; each with what was found
            there, a paragraph.
    """

    folder: Path
    order: int
    question: str
    claim: str
    sentences: tuple[Sentence, ...]
    formulas: tuple[Formula, ...]
    figures: tuple[tuple[str, str], ...]
    surprise: str
    chosen: str
    also_on: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.folder.name


@dataclass(frozen=True)
class Table:
    """A table of an experiment, as it is printed.

    Attributes:
        title: what it shows, a phrase.
        columns: the head of each column.
        rows: the cells of each row, as text.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ExperimentFacts:
    """An experiment with what was measured.

    Attributes:
        texts: what its author says.
        results: the content of results.json; None where nothing was measured.
        times: the content of timing.json; {} where nothing was measured.
        source: the folder that the results and figures lie in.
        data: the data set that was given instead of the experiment's own; "" for its own.
        others: what was measured on other data, where these are the facts on its own.
        is_outdated: whether the code has changed since that was measured, as far as timing.json tells.
    """

    texts: ExperimentTexts
    results: dict[str, Any] | None
    times: dict[str, Any]
    source: Path
    data: str = ""
    others: tuple["ExperimentFacts", ...] = ()
    is_outdated: bool = False

    def verdict(self, key: str) -> str:
        """Returns the verdict on a sentence."""
        judgement = self.judgement(key)
        return judgement["verdict"] if judgement else evidence.NOT_MEASURED

    def judgement(self, key: str) -> dict[str, Any]:
        """Returns what was found about a sentence, with its evidence; {} where nothing was measured."""
        return next((judgement for judgement in self.judgements if judgement["key"] == key), {})

    def verdict_text(self, key: str) -> str:
        """Returns the verdict on a sentence, and what to know of it: "true", "true (by the clock)"."""
        notes = [evidence.BY_CLOCK] if evidence.is_by_clock(self.judgement(key)) else []
        notes += [OUTDATED] if self.is_outdated else []
        return self.verdict(key) + (f" ({', '.join(notes)})" if notes else "")

    @property
    def judgements(self) -> list[dict[str, Any]]:
        """What was found about each sentence: those that the seeds decide, then those that a clock has a part in."""
        decided_by_seeds = self.results["judgements"] if self.results else []
        return [*decided_by_seeds, *self.times.get("judgements", [])]

    @property
    def verdict_summary(self) -> str:
        """The verdicts on all sentences, in one phrase."""
        summary = evidence.join_verdicts([self.verdict(sentence.key) for sentence in self.texts.sentences])
        return f"{summary} ({OUTDATED})" if self.is_outdated else summary

    @property
    def origin(self) -> str:
        """Machine and commit that it was measured with, as far as that is known."""
        commit = self.times.get("commit")
        return self.times["machine"] + (f", commit {commit}" if commit else "")

    @property
    def tables(self) -> list[Table]:
        """The tables of the results."""
        return tables_from_json(self.results["tables"]) if self.results else []

    @property
    def time_tables(self) -> list[Table]:
        """The tables of what a clock said."""
        return tables_from_json(self.times.get("tables", []))


def list_folders(experiments: Path) -> list[Path]:
    """Lists the folders of the laboratory's experiments, by name."""
    return sorted(path.parent for path in experiments.glob(f"*/{EXPERIMENT}"))


def read_all(experiments: Path) -> list[ExperimentFacts]:
    """Reads all experiments of a folder, in the order of the chapter.

    Raises:
        UserError: a file is not as it was written.
    """
    return in_order([read_facts(folder) for folder in list_folders(experiments)])


def read_readable(folders: Sequence[Path]) -> tuple[list[ExperimentFacts], dict[str, str]]:
    """Reads experiments, in the order of the chapter, and says why the others cannot be read, by their names."""
    readable, broken = [], {}
    for folder in folders:
        try:
            readable.append(read_facts(folder))
        except UserError as error:
            broken[folder.name] = str(error)
    return in_order(readable), broken


def in_order(experiments: Sequence[ExperimentFacts]) -> list[ExperimentFacts]:
    """Returns experiments in the order of the chapter."""
    return sorted(experiments, key=lambda experiment: (experiment.texts.order, experiment.texts.name))


def read_facts(folder: Path, *, source: Path | None = None, data: str = "") -> ExperimentFacts:
    """Reads an experiment, and its results.

    Args:
        folder: of the experiment.
        source: the folder that the results lie in; None for the experiment's own.
        data: the data set that was given instead of the experiment's own; "" for its own.

    Raises:
        UserError: a file is not as it was written.
    """
    source = source or folder / data
    results, times = None, {}
    if (source / RESULTS).exists():
        results = reader.read_object(source / RESULTS, judgements=list, tables=list, rows=list, is_quick=bool)
        times = reader.read_object(source / TIMES, machine=str, cpu_seconds=float, tables=list)
        refuse_other_content(source / RESULTS, results)
        refuse_other_content(source / TIMES, times)
    texts = read_texts(folder)
    others = []
    if source == folder:
        for name in texts.also_on:
            if (folder / name / RESULTS).exists():
                others.append(read_facts(folder, data=name))
    is_outdated = "code" in times and times["code"] != hash_code(folder / EXPERIMENT)
    return ExperimentFacts(texts, results, times, source, data, tuple(others), is_outdated)


def refuse_other_content(path: Path, content: Mapping[str, Any]) -> None:
    """Raises UserError where the tables or judgements of a file lack something that pages show."""
    try:
        tables_from_json(content["tables"])
        for judgement in content.get("judgements", []):
            evidence.is_by_clock(judgement)
            _ = judgement["key"], judgement["verdict"]
            for part in judgement["evidence"]:
                evidence.describe(part)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise reader.not_as_written(path) from error


def read_texts(folder: Path) -> ExperimentTexts:
    """Reads what the author of an experiment says, without running the file.

    Raises:
        UserError: a text is missing, is not a literal or is of another kind.
    """
    path = folder / EXPERIMENT
    values = read_literals(path)
    missing = [name for name in TEXTS if name not in values]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}; `cnn-vit lab new NAME` writes an example of each")
    for name in ("QUESTION", "CLAIM", "SURPRISE", "CHOSEN"):
        if not isinstance(values[name], str):
            raise UserError(f"{path}:{line_of(path, name)}: {name} is {values[name]!r}; give a text")
    if type(values["ORDER"]) is not int:
        raise UserError(f"{path}:{line_of(path, 'ORDER')}: ORDER is {values['ORDER']!r}; give a whole number")
    try:
        sentences = tuple(Sentence(key, text, truth) for key, (text, truth) in values["SENTENCES"].items())
        formulas = tuple(Formula(tex, meaning, command) for tex, meaning, command in values["FORMULAS"])
        figures = tuple(values["FIGURES"].items())
        also_on = dict(values.get(ALSO_ON, {}))
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {FORMS}; one of them is not ({error})") from error
    parts: list[Any] = [*figures, *also_on.items()]
    parts += [(sentence.key, sentence.text, sentence.truth) for sentence in sentences]
    parts += [(formula.tex, formula.meaning, formula.command) for formula in formulas]
    for part in parts:
        for text in part:
            if not isinstance(text, str):
                raise UserError(f"{path}: {FORMS}, all of texts; {text!r} is not one")
    for name in (*dict(figures), *also_on):  # each is the name of a file or folder
        if not FILE_NAME.fullmatch(name):
            raise UserError(f"{path}: {name!r} is no name of a figure or data set; take letters, digits, _ and -")
    for formula in formulas:
        try:
            mathml.formula(formula.tex)
        except ValueError as error:
            raise UserError(
                f"{path}:{line_of(path, 'FORMULAS')}: the formula {formula.tex} cannot be set: {error}"
            ) from error
    return ExperimentTexts(
        folder=folder,
        order=values["ORDER"],
        question=values["QUESTION"],
        claim=values["CLAIM"],
        sentences=sentences,
        formulas=formulas,
        figures=figures,
        surprise=values["SURPRISE"],
        chosen=values["CHOSEN"],
        also_on=also_on,
    )


def read_literals(path: Path) -> dict[str, Any]:
    """Reads the literals that a file assigns to the names of TEXTS and to ALSO_ON.

    Raises:
        UserError: the file is not Python, or a value is not a literal.
    """
    module = parse(path)
    values = {}
    for statement in module.body:
        name = assigned_name(statement)
        if name in (*TEXTS, ALSO_ON) and isinstance(statement, ast.Assign):
            try:
                values[name] = ast.literal_eval(statement.value)
            except (ValueError, TypeError) as error:  # TypeError: a list is a key, which cannot be
                raise UserError(
                    f"{path}:{statement.lineno}: {name} is not a literal; write its value out, for it is read without "
                    "running the file"
                ) from error
    return values


def parse(path: Path) -> ast.Module:
    """Parses the file of an experiment.

    Raises:
        UserError: the file is not Python.
        SurroundingsError: it cannot be read.
    """
    return ast.parse(read_source(path))


def read_source(path: Path) -> str:
    """Reads the file of an experiment, whose lines end with a line feed.

    Raises:
        UserError: the file is not Python.
        SurroundingsError: it cannot be read.
    """
    with files.os_errors(path):
        content = path.read_bytes()
    try:
        source = content.decode("utf-8").replace("\r\n", "\n").replace("\f", " ")
        ast.parse(source)
        return source
    except (SyntaxError, ValueError) as error:  # ValueError: bytes that are no text
        line = getattr(error, "lineno", None) or 1
        message = getattr(error, "msg", None) or str(error)
        raise UserError(f"{path}:{line}: {message}; an experiment is a Python file") from error


def line_of(path: Path, name: str) -> int | None:
    """Returns the line on which a file assigns a name first; None where it does not."""
    for statement in parse(path).body:
        if assigned_name(statement) == name:
            return statement.lineno
    return None


def hash_code(path: Path) -> str:
    """Returns the sha256 of a file's code: of its tokens without comments, blank lines and the texts.

    Raises:
        UserError: the file is not Python.
    """
    texts = []
    source = read_source(path)
    for statement in ast.parse(source).body:
        if assigned_name(statement) in (*TEXTS, ALSO_ON):
            texts.append(place_of(statement, source))
    tokens: list[str] = []
    for text, place in read_tokens(source):
        is_empty_line = text == "NEWLINE" and (not tokens or tokens[-1] == "NEWLINE")
        if not is_empty_line and not any(start <= place < end for start, end in texts):
            tokens.append(text)
    return hashlib.sha256("\0".join(tokens).encode()).hexdigest()


def place_of(statement: ast.stmt, source: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns line and column of the start of a statement, and of its end; a column counts letters."""
    lines = source.split("\n")
    end_line, end_column = statement.end_lineno or 0, statement.end_col_offset or 0  # a parsed statement has both
    start = len(lines[statement.lineno - 1].encode()[: statement.col_offset].decode())
    end = len(lines[end_line - 1].encode()[:end_column].decode())
    return (statement.lineno, start), (end_line, end)


def read_tokens(source: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields the tokens of Python's grammar in a source, each with line and column; an f-string is one token.

    Before Python 3.12 the tokenizer gives it as one, and then as its start, parts and end.
    """
    lines = source.split("\n")
    f_start, f_end = getattr(token, "FSTRING_START", None), getattr(token, "FSTRING_END", None)
    depth, start = 0, (0, 0)
    for part in tokenize.generate_tokens(io.StringIO(source).readline):
        if part.type == f_start:
            start = part.start if not depth else start
            depth += 1
        elif part.type == f_end:
            depth -= 1
            if not depth:
                (first, begin), (last, end) = start, part.end
                inside = lines[first - 1 : last]
                inside[-1] = inside[-1][:end]
                inside[0] = inside[0][begin:]
                yield "\n".join(inside), start
        elif depth or part.type in (token.COMMENT, token.NL, token.ENDMARKER):
            continue
        elif part.type in (token.NEWLINE, token.INDENT, token.DEDENT):
            yield token.tok_name[part.type], part.start
        else:
            yield part.string, part.start


def assigned_name(statement: ast.stmt) -> str:
    """Returns the name that a statement assigns; "" where it does something else."""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return ""


def tables_to_json(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Returns tables as plain values."""
    plain = []
    for table in tables:
        plain.append({"title": table.title, "columns": list(table.columns), "rows": [list(row) for row in table.rows]})
    return plain


def tables_from_json(plain: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Returns the tables that `tables_to_json` made plain values of."""
    tables = []
    for table in plain:
        tables.append(Table(table["title"], tuple(table["columns"]), tuple(map(tuple, table["rows"]))))
    return tables
