"""Makes the chapter of the laboratory: all experiments on one page, without a script and with all it needs in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn_vit.reports import evidence, lab_facts, page
from cnn_vit.reports.evidence import EvidenceRow
from cnn_vit.reports.lab_facts import SUFFIX, ExperimentFacts, Formula, Sentence, Table
from cnn_vit.reports.mathml import formula

TITLE = "What CNNs and Vision Transformers do, measured"
MARK = '<meta name="generator" content="cnn-vit lab report">'
WIDE = 700  # CSS pixels of a figure from which on a phone scrolls it, for its letters would be too small


@dataclass(frozen=True)
class SetFormula:
    """A formula as the page shows it.

    Attributes:
        mathml: the <math> element.
        meaning: a sentence about it.
        command: that checks it; "" for none.
    """

    mathml: str
    meaning: str
    command: str


@dataclass(frozen=True)
class JudgedSentence:
    """A sentence with its verdict.

    Attributes:
        text: as textbooks say it.
        truth: what is true.
        verdict: on the sentence.
        rows: its evidence.
        is_by_clock: whether a clock measured part of it.
    """

    text: str
    truth: str
    verdict: str
    rows: tuple[EvidenceRow, ...]
    is_by_clock: bool


@dataclass(frozen=True)
class Figure:
    """A figure in its place.

    Attributes:
        svg: an <svg> element in the colors of the page.
        caption: a sentence.
        is_wide: whether a narrow page scrolls it.
    """

    svg: str
    caption: str
    is_wide: bool


@dataclass(frozen=True)
class OtherData:
    """What was measured of an experiment on data that it was given.

    Attributes:
        name: of the data set.
        found: what was found, a paragraph.
        sentences: with their verdicts there; the truth of each is "", for it is about the experiment's own data.
        tables: of the results.
        cost: machine, commit and CPU time in a sentence.
    """

    name: str
    found: str
    sentences: tuple[JudgedSentence, ...]
    tables: tuple[Table, ...]
    cost: str


@dataclass(frozen=True)
class Section:
    """The part of the chapter about one experiment; the attributes are those of `ExperimentTexts`, made ready.

    Attributes:
        name, question, claim, surprise, chosen: of the experiment.
        is_measured: whether there are results.
        cost: machine, commit and CPU time in a sentence.
        formulas, sentences, figures, tables: what the section shows.
        others: the same on other data.
    """

    name: str
    question: str
    claim: str
    surprise: str
    chosen: str
    is_measured: bool
    cost: str
    formulas: tuple[SetFormula, ...]
    sentences: tuple[JudgedSentence, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    others: tuple[OtherData, ...]


def write_chapter(experiments: Sequence[ExperimentFacts]) -> str:
    """Returns the page of all experiments, in their order.

    Raises:
        UserError: a formula or a figure is not as it should be.
    """
    sections = [make_section(facts) for facts in experiments]
    return page.render("lab.html", title=TITLE, mark=MARK, sections=sections)


def make_section(facts: ExperimentFacts) -> Section:
    """Returns the section about an experiment."""
    texts = facts.texts
    figures = []
    for name, caption in texts.figures:
        path = facts.source / f"{name}{SUFFIX}"
        if path.exists():
            figures.append(read_figure(path.read_text(encoding="utf-8"), caption))
    return Section(
        name=texts.name,
        question=texts.question,
        claim=texts.claim,
        surprise=texts.surprise,
        chosen=texts.chosen,
        is_measured=facts.results is not None,
        cost=describe_cost(facts),
        formulas=tuple(map(set_formula, texts.formulas)),
        sentences=tuple(
            set_sentence(sentence, facts.judgement(sentence.key), sentence.truth) for sentence in texts.sentences
        ),
        figures=tuple(figures),
        tables=(*facts.tables, *facts.time_tables),
        others=tuple(map(make_other, facts.others)),
    )


def make_other(facts: ExperimentFacts) -> OtherData:
    """Returns what was measured on other data, for the section of the experiment."""
    return OtherData(
        name=facts.data,
        found=facts.texts.also_on[facts.data],
        sentences=tuple(
            set_sentence(sentence, facts.judgement(sentence.key), "") for sentence in facts.texts.sentences
        ),
        tables=(*facts.tables, *facts.time_tables),
        cost=describe_cost(facts),
    )


def describe_cost(facts: ExperimentFacts) -> str:
    """Returns machine, commit and CPU time in a sentence; "" where nothing was measured."""
    if not facts.times:
        return ""
    duration = page.duration_text(facts.times["cpu_seconds"])
    note = f" {lab_facts.OUTDATED.capitalize()}." if facts.is_outdated else ""
    return f"{facts.origin}; {duration} of CPU time, all seeds together.{note}"


def set_formula(written: Formula) -> SetFormula:
    """Returns a formula as MathML."""
    return SetFormula(formula(written.tex), written.meaning, written.command)


def set_sentence(sentence: Sentence, judgement: dict[str, Any], truth: str) -> JudgedSentence:
    """Returns a sentence with what is true, its verdict and its evidence as text."""
    rows = [evidence.describe(part) for part in judgement.get("evidence", [])]
    verdict = judgement.get("verdict", evidence.NOT_MEASURED)
    return JudgedSentence(sentence.text, truth, verdict, tuple(rows), evidence.is_by_clock(judgement))


def read_figure(text: str, caption: str) -> Figure:
    """Returns a figure, a file of `plots.standalone`, as a part of a page: without colors and size of its own."""
    svg = re.sub(r"<style>.*?</style>\n?", "", text, count=1, flags=re.DOTALL)
    width = float(re.findall(r'viewBox="0 0 (\S+) ', svg)[0])
    svg = re.sub(r'<svg width="[^"]*" height="[^"]*" ', "<svg ", svg, count=1)
    return Figure(svg, caption, is_wide=width > WIDE)
