"""Writes the README.md of an experiment, and that of all experiments, from what was measured."""

import textwrap
from collections.abc import Sequence
from typing import Any

from cnn_vit.reports import evidence
from cnn_vit.reports.lab_facts import OUTDATED, SUFFIX, ExperimentFacts, Formula, Sentence
from cnn_vit.reports.page import duration_text

WIDTH = 120
HEAD_OF_ALL = """\
# Sentences of textbooks, and what was measured

Written by `cnn-vit lab report`; `cnn-vit lab run NAME` measures one experiment again. A verdict is true, false,
conditional (true of some parts, false of others) or not resolved, by 95 % intervals over at least 3 seeds.
"""
CLOCK_NOTE = "A clock measured part of this: the verdict is one of the machine named below."
CLOCK_NOTE_OF_ALL = """
Where a verdict says "by the clock", times are part of its evidence, and another machine may come to another one."""
OUTDATED_NOTE = f"{OUTDATED.capitalize()}: the command measures it again."
QUICK_NOTE = (
    "Made small (--quick): these verdicts are no result, and the numbers in the prose are those of the full run."
)
FORMULAS_OF_ALL = """
## Formulas, and the command that checks each
"""
FOOT_OF_ALL = """
Folders that the table does not name (`recipes`, `speed`, `sweeps`, `transfer`) hold scripts of another kind, each with
a README of its own: what recipes reach, how long things take, how sweeps do, and what pretrained weights bring.
"""


def write_readme(facts: ExperimentFacts) -> str:
    """Returns the README.md of an experiment, or of what was measured of it on other data."""
    if facts.data:
        return write_readme_on_other_data(facts)
    texts = facts.texts
    parts = [f"# {texts.question}", f"Claim: {texts.claim}", describe_command(facts)]
    if facts.results is None:
        parts.append("Nothing was measured yet.")
        return join_parts(parts)
    if facts.results["is_quick"]:
        parts.append(QUICK_NOTE)
    if facts.is_outdated:
        parts.append(OUTDATED_NOTE)
    for sentence in texts.sentences:
        parts += judge_sentence(sentence, facts.judgement(sentence.key), sentence.truth)
    for name, caption in texts.figures:
        parts.append(f"![{caption}]({name}{SUFFIX})")
        parts.append(caption)
    parts += write_tables(facts)
    if texts.formulas:
        parts.append("## Formulas")
        parts += [describe_formula(formula) for formula in texts.formulas]
    parts += describe_cost(facts)
    parts.append(f"What surprised us: {texts.surprise}")
    parts.append(f"How it was chosen: {texts.chosen}")
    for other in facts.others:
        parts += compare_data(facts, other)
    return join_parts(parts)


def write_readme_on_other_data(facts: ExperimentFacts) -> str:
    """Returns the README.md of what was measured of an experiment on data that it was given."""
    texts = facts.texts
    parts = [f"# {texts.question} The same on {facts.data}"]
    parts.append(describe_command(facts))
    if facts.results is None:
        parts.append("Nothing was measured yet.")
        return join_parts(parts)
    parts.append(QUICK_NOTE if facts.results["is_quick"] else texts.also_on[facts.data])
    if facts.is_outdated:
        parts.append(OUTDATED_NOTE)
    parts.append("What the experiment asks, and what it finds on its own data, stands in [its page](../README.md).")
    for sentence in texts.sentences:
        parts += judge_sentence(sentence, facts.judgement(sentence.key), "")
    return join_parts([*parts, *write_tables(facts), *describe_cost(facts)])


def describe_command(facts: ExperimentFacts) -> str:
    """Returns the command that measures the same again."""
    words = ["cnn-vit lab run", facts.texts.name]
    words += [f"--data={facts.data}"] if facts.data else []
    words += ["--quick"] if facts.results is not None and facts.results["is_quick"] else []
    return f"```bash\n{' '.join(words)}\n```"


def compare_data(facts: ExperimentFacts, other: ExperimentFacts) -> list[str]:
    """Returns the paragraphs about what was measured on other data, beside the verdicts on the experiment's own."""
    rows = []
    for sentence in facts.texts.sentences:
        own, given = facts.verdict_text(sentence.key), other.verdict_text(sentence.key)
        rows.append((f"\u201c{sentence.text}\u201d", own, given))
    evidence_link = f"The evidence stands in [{other.data}/README.md]({other.data}/README.md)."
    return [
        f"## The same on {other.data}",
        describe_command(other),
        f"{facts.texts.also_on[other.data]} {evidence_link}",
        markdown_table(("what is said", "verdict above", f"verdict on {other.data}"), rows),
    ]


def write_tables(facts: ExperimentFacts) -> list[str]:
    """Returns the tables of the rows and of the times, each below its title."""
    parts = []
    for table in [*facts.tables, *facts.time_tables]:
        parts.append(f"## {table.title[:1].upper()}{table.title[1:]}")
        parts.append(markdown_table(table.columns, table.rows))
    return parts


def judge_sentence(sentence: Sentence, judgement: dict[str, Any], truth: str) -> list[str]:
    """Returns the paragraphs about a sentence: what is said, the verdict, what is true, and the evidence."""
    verdict = judgement.get("verdict", evidence.NOT_MEASURED)
    rows = []
    for row in map(evidence.describe, judgement.get("evidence", [])):
        rows.append((row.outcome, row.role, row.statement, row.interval, row.bound))
    columns = ("outcome", "", "measured", "mean and 95 % interval", "holds where it is")
    paragraphs = [f"## \u201c{sentence.text}\u201d", f"Verdict: **{verdict}**. {truth}".rstrip()]
    if evidence.is_by_clock(judgement):
        paragraphs.append(CLOCK_NOTE)
    return [*paragraphs, markdown_table(columns, rows)]


def describe_formula(formula: Formula) -> str:
    """Returns a formula with its meaning, and the command that checks it."""
    command = f" Checked by `{formula.command}`." if formula.command else ""
    return f"$${formula.tex}$$\n\n{formula.meaning}{command}"


def describe_cost(facts: ExperimentFacts) -> list[str]:
    """Returns the paragraphs about machine and cost."""
    cost = f"Cost: {duration_text(facts.times['cpu_seconds'])} of CPU time"
    return [f"Machine: {facts.origin}.", f"{cost}, all seeds together."]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    texts = []
    for line in lines:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in line]
        texts.append(f"| {' | '.join(cells)} |")
    return "\n".join(texts)


def join_parts(parts: Sequence[str]) -> str:
    """Returns paragraphs as one text; prose is folded, and what begins with a sign of Markdown stays as it is."""
    folded = []
    for part in parts:
        is_prose = part[:1] not in "#`|!$"
        folded.append(textwrap.fill(part, WIDTH, break_long_words=False, break_on_hyphens=False) if is_prose else part)
    return "\n\n".join(folded) + "\n"


def write_overview(experiments: Sequence[ExperimentFacts], *, has_scripts: bool = False) -> str:
    """Returns the README.md of all experiments.

    It has each sentence of a textbook with its verdict and its experiment, and each formula with the command that
    checks it.

    Args:
        experiments: in the order of the chapter.
        has_scripts: whether folders of scripts lie beside them, which the foot tells of.
    """
    sentences, formulas = [], []
    for facts in experiments:
        link = f"[{facts.texts.name}]({facts.texts.name}/README.md)"
        for sentence in facts.texts.sentences:
            quoted = f"\u201c{sentence.text}\u201d"
            sentences.append((quoted, facts.verdict_text(sentence.key), sentence.truth, link))
        for formula in facts.texts.formulas:
            command = f"`{formula.command}`" if formula.command else ""
            formulas.append((f"${formula.tex}$", formula.meaning, command, link))
    parts = [markdown_table(("what textbooks say", "verdict", "what is true", "experiment"), sentences)]
    if any(evidence.is_by_clock(judgement) for facts in experiments for judgement in facts.judgements):
        parts.append(CLOCK_NOTE_OF_ALL)
    if formulas:
        parts += [FORMULAS_OF_ALL, markdown_table(("formula", "what it says", "checked by", "experiment"), formulas)]
    return "\n".join([HEAD_OF_ALL, *parts, FOOT_OF_ALL if has_scripts else ""])
