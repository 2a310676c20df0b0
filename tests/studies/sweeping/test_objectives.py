"""Objectives: functions of the user's own, whatever they do and return, whose numbers sweeps compare."""

import functools
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cnn_vit
from cnn_vit import stops
from cnn_vit.errors import DivergedError, StoppedError, SurroundingsError, UserError
from cnn_vit.runs import reader
from cnn_vit.studies import objectives, trials
from cnn_vit.studies.sweeping.definition import from_call
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


def test_an_objective_imports_modules_beside_its_file_also_while_it_is_called(tmp_path):
    (tmp_path / "beside_me.py").write_text("two = 2\n")
    (tmp_path / "later.py").write_text("three = 3\n")
    path_before = list(sys.path)
    text = "import beside_me\ndef f(values):\n    import later\n    return beside_me.two + later.three\n"
    assert call(tmp_path, text)["value"] == 5.0
    assert sys.path == path_before
    del sys.modules["beside_me"], sys.modules["later"]


MODES = """
import os, sys
def f(values, folder):
    os.chdir("/")
    if values["mode"] == "input":
        return input()
    if values["mode"] == "exit":
        sys.exit(3)
    if values["mode"] == "bytes":
        open(b"/nothing/\\xff")
    if values["mode"] == "other":
        return {"value_": 1}
    (folder / "mine").write_text("here")
    return 1.0
"""


def test_workers_bear_functions_that_change_the_folder_read_the_standard_input_or_end_the_process(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MODES)
    modes = {"mode": ["good", "input", "other", "exit", "bytes", "good too"]}
    table = cnn_vit.sweep("mine.py:f", modes, out="out", mode="max")
    assert [row["state"] for row in table["rows"]] == [
        "complete",
        "crashed",
        "bad config",
        "crashed",
        "crashed",
        "complete",
    ]
    assert table["rows"][1]["reason"].startswith("EOFError")
    assert "what is compared is value" in table["rows"][2]["reason"]
    assert table["rows"][3]["reason"] == "SystemExit: 3"
    assert table["rows"][4]["reason"].endswith("No such file or directory: b'/nothing/\\xff'")
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


# The call -------------------------------------------------------------------------------------------------------------


def plain(values):
    """A function that has a text."""
    return values["x"]


class Called:
    """An object that can be called, and has no text of its own."""

    def __call__(self, values):
        """Returns the value."""
        return values["x"]


@pytest.mark.parametrize(
    ("space", "choices"),
    [
        (range(3), (0, 1, 2)),
        (np.linspace(0, 1, 3), (0.0, 0.5, 1.0)),
        ([np.float64(0.5), np.int32(2), "a"], (0.5, 2, "a")),
        ({"choice": (1, 2)}, (1, 2)),
    ],
)
def test_a_space_may_be_made_of_ranges_and_of_arrays_and_numbers_of_numpy(space, choices):
    (dimension,) = from_call(plain, {"x": space}, mode="max").space.dimensions
    assert dimension.choices == choices
    assert [type(choice) for choice in dimension.choices] == [type(choice) for choice in choices]


def test_a_range_of_a_space_may_have_ends_of_numpy():
    (dimension,) = from_call(
        plain, {"x": {"uniform": (np.float64(0), np.float32(1))}}, mode="max", trials=3
    ).space.dimensions
    assert (dimension.low, dimension.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (functools.partial(plain), "the text of functools.partial.* cannot be found.*give FILE.py:NAME"),
        (Called(), "the text of .*Called object.* cannot be found"),
        (Path("nothing/of.that/name.toml"), "name.toml"),
        (5, "sweeps a recipe, a file or a function, and 5 is none of them"),
    ],
)
def test_what_cannot_be_swept_is_a_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        from_call(settings, None if isinstance(settings, Path) else {"x": [1, 2]}, mode="max")


def test_a_path_names_a_recipe():
    assert from_call(Path("configs/digits_mlp.py"), {"optimizer.learning_rate": [0.1]}).name == "digits_mlp"


def test_workers_cannot_call_a_function_of_this_process():
    with pytest.raises(UserError, match=r"workers=4 cannot call a function of this process; .*leave workers out"):
        from_call(plain, {"x": [1, 2]}, mode="max", workers=4)


# In this process ------------------------------------------------------------------------------------------------------


def test_a_path_that_is_no_text_is_written_into_tables(tmp_path):
    def fail(values):
        raise ValueError(os.fsdecode(b"/nothing/\xff"))

    table = cnn_vit.sweep(fail, {"x": [1]}, out=tmp_path, mode="max")
    assert table["rows"][0]["reason"] == r"ValueError: /nothing/\udcff"
    assert r"/nothing/\udcff" in (tmp_path / "results.csv").read_text()


def test_a_function_here_that_fails_too_often_is_not_called_again(tmp_path):
    calls = []

    def fail(values):
        calls.append(values["x"])
        if values["x"] == 2:
            sys.exit("enough")
        raise RuntimeError("so it was")

    table = cnn_vit.sweep(fail, {"x": [1, 2, 3, 4]}, out=tmp_path, mode="max", max_failures=2)
    assert calls == [1, 2]
    assert [row["state"] for row in table["rows"]] == ["crashed", "crashed", "queued", "queued"]
    assert table["rows"][1]["reason"] == "SystemExit: enough"


def test_a_function_here_that_ended_its_process_three_times_is_not_called_again(tmp_path):
    calls = []

    def die(values):
        calls.append(values["x"])
        if values["x"] == 1 and len(calls) < 3:
            raise GeneratorExit  # like the end of a process, nothing here notes it
        return 1.0

    for _ in range(2):
        with pytest.raises(GeneratorExit):
            cnn_vit.sweep(die, {"x": [1, 2]}, out=tmp_path / "twice", mode="max")
    assert cnn_vit.sweep(die, {"x": [1, 2]}, out=tmp_path / "twice", mode="max")["counts"] == {"complete": 2}

    def die_always(values):
        raise GeneratorExit

    for _ in range(3):
        with pytest.raises(GeneratorExit):
            cnn_vit.sweep(die_always, {"x": [1]}, out=tmp_path / "always", mode="max")
    table = cnn_vit.sweep(die_always, {"x": [1]}, out=tmp_path / "always", mode="max")
    assert [(row["state"], row["reason"]) for row in table["rows"]] == [
        ("crashed", "the process that did it ended 3 times before it had a result")
    ]


def test_ctrl_c_interrupts_a_function_here_and_a_second_one_does_not_end_the_process(tmp_path, monkeypatch):
    ends = []
    monkeypatch.setattr(stops.StopSignals, "_end_process", lambda *_: ends.append("ended"))
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.01)
    is_interrupted = True

    def interrupted(values):
        if is_interrupted:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)
            except KeyboardInterrupt:
                time.sleep(0.1)  # no echo any more
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(60)
        return values["x"]

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="stopped by SIGINT; the same command goes on"):
        cnn_vit.sweep(interrupted, {"x": [1, 2]}, out=tmp_path, mode="max")
    assert not ends
    assert signal.getsignal(signal.SIGINT) == handler
    (attempts,) = tmp_path.glob("trials/*/attempts.jsonl")
    assert [line["event"] for line in reader.read_object_lines(attempts)] == ["start", "stop"]
    is_interrupted = False
    assert cnn_vit.sweep(interrupted, {"x": [1, 2]}, out=tmp_path, mode="max")["counts"] == {"complete": 2}


def test_what_is_in_the_way_of_a_function_here_is_no_fault_of_the_caller(tmp_path):
    def block(values):
        raise SurroundingsError("the disk is full")

    with pytest.raises(SurroundingsError, match="the disk is full"):
        cnn_vit.sweep(block, {"x": [1]}, out=tmp_path, mode="max")
