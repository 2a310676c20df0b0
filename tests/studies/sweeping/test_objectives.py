"""Objectives: functions of the user's own, whatever they do and return, whose numbers sweeps compare."""

import os
from dataclasses import replace

import pytest

import cnn_vit
from cnn_vit.errors import DivergedError, SurroundingsError, UserError
from cnn_vit.studies import objectives, trials
from cnn_vit.studies.sweeping.scheduler import read_metric
from cnn_vit.studies.trials import Trial


def call(tmp_path, text, *, later_text=None, metric=""):
    """Calls the function `f` of a file with this text, as a worker does; the file may change in between."""
    file = tmp_path / "mine.py"
    file.write_text(text)
    options = (("values", {"x": 2}),)
    planned = objectives.plan_objective(Trial(trials.OBJECTIVE, f"{file}:f", (), 3, options), tmp_path)
    if later_text is not None:
        file.write_text(later_text)
    return objectives.call_objective(replace(planned, metric=metric))


def test_an_objective_returns_a_number_or_several_and_gets_what_it_asks_for(tmp_path):
    assert call(tmp_path, "def f(values):\n    return 2 * values['x']\n") == {"value": 4.0, "steps": 1}
    text = "def f(values, seed, folder):\n    (folder / 'a').write_text('b')\n    return {'loss': seed, 'n': 1}\n"
    assert call(tmp_path, text) == {"loss": 3.0, "n": 1.0, "steps": 1}
    assert [path.read_text() for path in tmp_path.glob("trials/*/files/a")] == ["b"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("def f(values):\n    return 'good'\n", UserError, "returned str as value; return a number"),
        ("def f(values):\n    return {'a': None}\n", UserError, "returned NoneType as a"),
        ("def f(values):\n    return float('nan')\n", DivergedError, "returned nan as value"),
        ("def f(values):\n    return {'steps': 7}\n", UserError, "by the name steps, which .* such as my_steps"),
        ("def f(values):\n    return {'timing': 7}\n", UserError, "by the name timing"),
        ("def f(values):\n    return {'validation': 7}\n", UserError, "by the name validation"),
        ("def f(values):\n    return {'is_finished': False}\n", UserError, "by the name is_finished"),
        ("def g(values):\n    return 1\n", UserError, r"mine\.py: no function 'f'; there is g"),
    ],
)
def test_what_an_objective_does_wrong_is_a_sentence(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        call(tmp_path, text)


def test_an_objective_that_has_changed_is_refused(tmp_path):
    with pytest.raises(SurroundingsError, match="has changed since this was planned"):
        call(tmp_path, "def f(values):\n    return 1\n", later_text="def f(values):\n    return 2\n")


def test_the_number_that_is_compared_has_to_be_returned_and_may_have_a_dotted_name(tmp_path):
    text = "def f(values):\n    return {'a.b': 3, 'n': 1}\n"
    assert read_metric(call(tmp_path, text, metric="a.b"), "a.b") == 3.0
    with pytest.raises(UserError, match=r"returned a\.b, n, and what is compared is value; return a number of that"):
        call(tmp_path, text, metric="value")


MODES = """
import os, sys
def f(values, folder):
    os.chdir("/")
    if values["mode"] == "input":
        return input()
    if values["mode"] == "other":
        return {"value_": 1}
    (folder / "mine").write_text("here")
    return 1.0
"""


def test_workers_bear_functions_that_change_the_folder_or_read_the_standard_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODES)
    modes = {"mode": ["good", "input", "other", "good too"]}
    table = cnn_vit.sweep("mine.py:f", modes, out="out", mode="max")
    assert [row["state"] for row in table["rows"]] == ["complete", "crashed", "bad config", "complete"]
    assert table["rows"][1]["reason"].startswith("EOFError")
    assert "what is compared is value" in table["rows"][2]["reason"]
    assert len(list(tmp_path.glob("out/trials/*/files/mine"))) == 2
    assert table["report"] == "out/report.html"  # as it was asked for


def test_a_function_here_may_change_the_folder_and_its_values_and_the_next_trial_begins_as_it_did(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def change(values, folder):
        assert os.getcwd() == str(tmp_path)
        os.chdir("/")
        (folder / "mine").write_text("here")
        values["layers"].append(9)
        return float(len(values["layers"]))

    table = cnn_vit.sweep(change, {"layers": [[1], [2, 3]]}, out="out", mode="max", seeds=2)
    assert [row["value"] for row in table["rows"]] == [1.0 + len(row["layers"]) for row in table["rows"]]
    assert {tuple(row["layers"]) for row in table["rows"]} == {(1,), (2, 3)}
