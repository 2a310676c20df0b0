"""plan.jsonl: whatever a kill leaves of its last line, no other line is lost."""

import json
from dataclasses import asdict

import pytest

from cnn_vit.errors import UserError
from cnn_vit.studies.sweeping.ledger import Ledger, PlanRow, RungRow, read_plan

LONG_VALUES = {"optimizer.learning_rate": 0.001, "data.augment": ["affine(10, 0.1, 0.1)"], "note": "naïve ✓"}


def make_row(number, **changes):
    """A row of a plan with one seed a suggestion."""
    words = {
        "row": number,
        "suggestion": number,
        "seed": 0,
        "values": LONG_VALUES,
        "id": f"{number:016x}",
        "alias_of": None,
        "steps": 90,
        "rungs": (10, 30, 90),
        "data_fingerprint": "",
        "error": "",
    }
    return PlanRow(**{**words, **changes})


@pytest.fixture
def three_rows(tmp_path):
    """The folder of a plan of three trials."""
    Ledger(tmp_path).append([make_row(0), make_row(1, alias_of=0), make_row(2, error="no such optimizer")])
    return tmp_path


def test_a_plan_is_read_as_it_was_written(three_rows):
    Ledger(three_rows).append([RungRow(0, (2, 0))])
    plan, size = read_plan(three_rows)
    assert plan.rows == [make_row(0), make_row(1, alias_of=0), make_row(2, error="no such optimizer")]
    assert plan.rungs == [RungRow(0, (2, 0))]
    assert plan.trials_of(1) == [plan.rows[1]]
    assert size == (three_rows / "plan.jsonl").stat().st_size


def test_a_plan_that_is_cut_at_any_byte_of_its_last_row_loses_no_other_and_grows_on(three_rows):
    path = three_rows / "plan.jsonl"
    whole = path.read_bytes()
    last_row = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last_row, len(whole)):  # also where the line lacks its end alone
        path.write_bytes(whole[:cut])
        plan, size = read_plan(three_rows)
        assert (len(plan.rows), size) == (2, last_row), cut
        assert path.read_bytes() == whole[:cut]  # reading writes nothing
        Ledger(three_rows).append([make_row(2, error="no such optimizer")])
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"kind": "trial"}', b'{"kind": "else"}', b"\xff\xfe"])
def test_a_damaged_line_before_the_last_is_named(three_rows, damage):
    path = three_rows / "plan.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2], b""]))
    with pytest.raises(UserError, match=r"line 2 of .*plan\.jsonl is not one of a plan"):
        read_plan(three_rows)


def test_lines_are_plain_json_that_other_programs_read(three_rows):
    lines = (three_rows / "plan.jsonl").read_text(encoding="utf-8").splitlines()
    first = json.loads(lines[0])
    assert list(first) == sorted(first)
    assert (first["kind"], first["values"]) == ("trial", LONG_VALUES)


def test_a_trial_that_could_not_be_run_is_replaced_by_a_later_line_of_its_number(three_rows):
    mended = make_row(2, id="ab" * 8)
    Ledger(three_rows).append([mended])
    plan, _ = read_plan(three_rows)
    assert plan.rows == [make_row(0), make_row(1, alias_of=0), mended]
    assert plan.trials_of(2) == [mended]


@pytest.mark.parametrize(
    "line",
    [
        make_row(0),  # a line that is there twice
        make_row(2, seed=1),  # another trial in the place of one that could not be run
        make_row(4),  # one before it is lost
        make_row(3, suggestion=4),
        make_row(3, suggestion=1),
        RungRow(1, (0,)),
        RungRow(0, (3,)),
    ],
)
def test_a_line_that_cannot_follow_those_before_it_is_named(three_rows, line):
    kind = "rung" if isinstance(line, RungRow) else "trial"
    with (three_rows / "plan.jsonl").open("a") as file:
        file.write(json.dumps({"kind": kind, **asdict(line)}) + "\n")
    with pytest.raises(UserError, match=r"line 4 of .*plan\.jsonl is not one of a plan"):
        read_plan(three_rows)
