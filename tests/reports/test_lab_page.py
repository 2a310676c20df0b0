"""The chapter of the laboratory: what is true stands beside each sentence, and each part has its own outcome."""

import re
from pathlib import Path

from cnn_vit.reports import lab_page
from cnn_vit.reports.evidence import at_least, at_most
from cnn_vit.reports.lab_facts import ExperimentFacts, ExperimentTexts, Sentence

SAID = Sentence("size", "The output is smaller.", "It is smaller without padding.")
PARTS = (
    at_most("pixels without padding", (6, 6, 6), 7),
    at_least("pixels with padding, less than before", (0, 0, 0), 1),
)
TABLE = {"title": "sizes", "columns": ["padding", "pixels"], "rows": [["0", "6"]]}
TIME_TABLE = {"title": "seconds", "columns": ["padding", "time"], "rows": [["0", "11 ms"]]}


def make_facts(**changes):
    """An experiment of one sentence, one part of which is true and one false, with a table and a table of times."""
    words = {"order": 1, "question": "How large?", "claim": "Small.", "surprise": "Nothing.", "chosen": "By hand."}
    words |= {"sentences": (SAID,), "formulas": (), "figures": (), "also_on": {}} | changes
    judgement = {"key": "size", "verdict": "conditional", "evidence": [part.to_json() for part in PARTS]}
    results = {"judgements": [judgement], "tables": [TABLE], "rows": []}
    times = {"machine": "a laptop", "commit": "abc", "cpu_seconds": 3.0, "tables": [TIME_TABLE]}
    return ExperimentFacts(ExperimentTexts(Path("mine"), **words), results, times, Path("mine"))


def texts_of_cells(text):
    """The cells of each row of a table, without their marks."""
    rows = []
    for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL):
        rows.append([re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)])
    return [row for row in rows if row]


def test_a_sentence_has_its_verdict_and_its_truth_and_each_part_its_own_outcome():
    chapter = lab_page.write_chapter([make_facts()])
    _, _, section = chapter.partition("<section")
    assert '<span class="outcome">conditional</span> It is smaller without padding.' in section
    evidence = texts_of_cells(section)[:2]
    assert [(row[0], row[1]) for row in evidence] == [
        ("true", "pixels without padding"),
        ("false", "pixels with padding, less than before"),
    ]
    assert [row[-1] for row in evidence] == ["at most 7", "at least 1"]


def test_what_stands_between_backticks_is_code_and_all_else_stays_text():
    said = Sentence("size", "It is `a < b`.", "It is `a < b`, as `describe` says, and <b>no more</b>.")
    chapter = lab_page.write_chapter([make_facts(sentences=(said,), surprise="Of `pool`: one ` alone.")])
    code = "It is <code>a &lt; b</code>, as <code>describe</code> says, and &lt;b&gt;no more&lt;/b&gt;."
    assert code in chapter
    assert "Of <code>pool</code>: one ` alone." in chapter


def test_on_a_phone_a_number_and_its_bound_stand_below_what_was_measured():
    """The page's own rule for narrow screens has a name for each cell, so that none lies beyond the edge."""
    chapter = lab_page.write_chapter([make_facts()])
    assert '<table class="evidence">' in chapter
    narrow = "".join(re.findall(r"@media \(max-width: 600px\) \{(.*?)\n\}", chapter, re.DOTALL))
    for rule in ("table.evidence td.measured { flex: 1 0 100%", "table.evidence td.bound::before"):
        assert rule in narrow
    assert '<td class="bound">at most 7</td>' in chapter
    assert '<td class="measured">pixels without padding</td>' in chapter


def test_the_tables_of_the_results_and_those_of_a_clock_are_in_the_chapter():
    chapter = lab_page.write_chapter([make_facts()])
    assert "<h3>Sizes</h3>" in chapter
    assert "<h3>Seconds</h3>" in chapter
    assert texts_of_cells(chapter)[-2:] == [["0", "6"], ["0", "11 ms"]]
