"""Runs that are trained in parts, each up to an evaluation, runs that leave the test split unread, and rungs."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import PlantedError, plant_file_fault
from running import (
    call_at_step,
    committed_steps,
    evaluation_lines,
    find_leftovers,
    hash_files,
    load_settings,
    read_outcome,
    read_result,
    send_signal,
    train,
    undisturbed_outcome,
)

from cnn_vit import data, stops
from cnn_vit.__main__ import main
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.reports import report, several
from cnn_vit.training import evaluation, loop, plan, trained
from cnn_vit.training.run import Run

# Changes of the settings of tiny runs, which evaluate after steps 5, 10 and 12
STAGED = ("pretrained.stages=head 5 steps, all", "ema_decay=0.9")  # the first part ends where the first stage does
SCHEDULE_FREE = ("optimizer.name=schedule_free_adamw", "schedule.name=constant", "test_weights=best")
# With a rate of 0 in float32 no evaluation is better than the first: the run stops at step 6, after the third
STILL = ("optimizer.learning_rate=1e-60", "evaluate_every=2", "early_stop=2")
STILL_BEST = ("optimizer.learning_rate=1e-60", "test_weights=best")  # no evaluation is better than that at step 5
UNFINISHED = ("result.json", "predictions", "samples.npz", "test_reads.jsonl")  # what a paused run has not


pytestmark = pytest.mark.usefixtures("_compiled_quickly")


@pytest.fixture(autouse=True)
def _no_echo(monkeypatch):
    """Here a signal has no echo to wait for."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that was never paused. To be read, not changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train("mlp", folder)
    return folder


def expect_answer(evaluations, step):
    """What a run that was trained to an evaluation at a step answers, but for the time.

    Args:
        evaluations: lines of metrics.jsonl of the run.
        step: of one of them.
    """
    numbers = [{name: line[name] for name in ("accuracy", "loss", "n", "step")} for line in evaluations]
    earlier = [line for line in numbers if line["step"] <= step]
    best = max(earlier, key=lambda line: (line["accuracy"], -line["loss"], -line["step"]))
    return {"steps": step, "validation": earlier[-1], "best": best, "is_finished": False}


def without_timing(answer):
    """An answer without the time, which has seconds and CPU-seconds."""
    assert answer["timing"].keys() == {"seconds", "cpu_seconds"}
    return {name: value for name, value in answer.items() if name != "timing"}


# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *(("mlp", ()), ("mlp", STAGED), ("mlp", SCHEDULE_FREE)),
        *(pytest.param(name, (), marks=pytest.mark.slow) for name in ("cnn", "vit", "frozen", "staged")),
    ],
)
def test_parts_of_a_run_make_the_bits_of_the_whole(name, changes, tmp_path):
    expected = undisturbed_outcome(name, *changes)
    lines = expected["metrics"].splitlines(keepends=True)
    evaluations = [line for line in map(json.loads, lines) if line["kind"] == "evaluation"]
    for until, step in ((1, 5), (6, 10)):
        answer = train(name, tmp_path, *changes, until=until)
        assert without_timing(answer) == expect_answer(evaluations, step)
        assert committed_steps(tmp_path)[-1] == step
        # no line that the whole run does not have: all of its lines up to that step
        assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(
            line for line in lines if json.loads(line)["step"] <= step
        )
        assert not any((tmp_path / made_at_the_end).exists() for made_at_the_end in UNFINISHED)
    result = train(name, tmp_path, *changes)
    assert result["is_finished"]
    assert read_outcome(tmp_path) == expected
    assert not find_leftovers(tmp_path)


def test_the_time_of_a_run_counts_on_over_its_parts(tmp_path):
    """With no step logged, only the pauses write down how long it took."""
    answers = [train("mlp", tmp_path, "log_every=100", until=step) for step in (5, 10)]
    timing = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert [line["step"] for line in timing] == [5, 10]
    for name in ("seconds", "cpu_seconds"):
        first, second = (answer["timing"][name] for answer in answers)
        assert [line[name] for line in timing] == [first, second]
        assert 0 < first < second
        assert train("mlp", tmp_path, "log_every=100")["timing"][name] > second


@pytest.mark.parametrize(("until", "is_finished"), [(10, False), (11, True), (1000, True)])
def test_a_part_that_reaches_the_end_finishes_the_run(until, is_finished, tmp_path):
    """There is no evaluation between step 10 and the last, 12."""
    answer = train("mlp", tmp_path, until=until)
    assert answer["is_finished"] is is_finished
    assert (tmp_path / "result.json").exists() is is_finished
    if is_finished:
        assert answer == read_result(tmp_path)
        assert read_outcome(tmp_path) == undisturbed_outcome("mlp")


def refuse_to_learn(monkeypatch):
    """Has every further training step fail the test."""

    def learn(self, state, batch):
        pytest.fail("a step is trained")

    monkeypatch.setattr(Run, "learn", learn)


def test_a_part_that_is_done_is_answered_the_same_and_not_trained_again(tmp_path, monkeypatch):
    first, second = train("mlp", tmp_path, *STILL_BEST, until=5), train("mlp", tmp_path, *STILL_BEST, until=10)
    with monkeypatch.context() as patch:
        refuse_to_learn(patch)
        assert train("mlp", tmp_path, *STILL_BEST, until=5) == first
        assert train("mlp", tmp_path, *STILL_BEST, until=7) == second
    result = train("mlp", tmp_path, *STILL_BEST)
    files_before = hash_files(tmp_path)
    refuse_to_learn(monkeypatch)
    for until, expected in ((1, first), (5, first), (6, second), (11, result), (12, result), (99, result)):
        assert train("mlp", tmp_path, *STILL_BEST, until=until) == expected
    assert second["best"] == first["best"] == first["validation"]
    assert hash_files(tmp_path) == files_before


def test_a_run_that_stops_early_pauses_before_that_and_finishes_at_it(tmp_path):
    expected = undisturbed_outcome("mlp", *STILL)
    assert expected["result"]["steps"] == 6
    answers = {until: train("mlp", tmp_path, *STILL, until=until) for until in (1, 3, 5)}
    assert [(answer["steps"], answer["is_finished"]) for answer in answers.values()] == [
        (2, False),
        (4, False),
        (6, True),
    ]
    assert read_outcome(tmp_path) == expected
    # as if it had been killed before its result
    (tmp_path / "result.json").unlink()
    assert without_timing(train("mlp", tmp_path, *STILL, until=3)) == without_timing(answers[3])
    assert not (tmp_path / "result.json").exists()
    assert train("mlp", tmp_path, *STILL, until=9)["is_finished"]
    assert read_outcome(tmp_path) == expected


def test_a_run_of_which_all_but_the_result_is_there_answers_for_a_part_and_finishes_for_the_end(whole, tmp_path):
    train("mlp", tmp_path)
    (tmp_path / "result.json").unlink()
    answer = train("mlp", tmp_path, until=7)
    assert without_timing(answer) == expect_answer(evaluation_lines(whole), 10)
    assert not (tmp_path / "result.json").exists()
    assert train("mlp", tmp_path, until=11)["steps"] == 12
    assert read_outcome(tmp_path) == read_outcome(whole)


def test_a_part_goes_on_from_where_a_signal_stopped_it(whole, tmp_path, monkeypatch):
    """At a step of the part, and at the very step that it ends at, which is saved then."""
    for step, message in ((3, "stopped at step 3 by SIGTERM"), (5, "stopped at step 5 by SIGTERM")):
        with monkeypatch.context() as patch:
            call_at_step(patch, step, send_signal)
            with pytest.raises(StoppedError, match=message):
                train("mlp", tmp_path, until=5)
    assert committed_steps(tmp_path)[-1] == 5
    refuse_to_learn(monkeypatch)
    assert without_timing(train("mlp", tmp_path, until=5)) == expect_answer(evaluation_lines(whole), 5)


def test_a_fork_of_a_paused_run_is_trained_in_parts_as_it_is_in_one(tmp_path):
    """With another rate from step 5 on; the evaluation there is that of the first run, whose part is done."""
    train("mlp", tmp_path / "origin", until=5)
    options = {"fork_from": tmp_path / "origin"}
    train("mlp", tmp_path / "one", "optimizer.learning_rate=1e-3", **options)
    for until, step in ((1, 5), (6, 10)):
        answer = train("mlp", tmp_path / "parts", "optimizer.learning_rate=1e-3", until=until, **options)
        assert (answer["steps"], answer["is_finished"]) == (step, False)
    train("mlp", tmp_path / "parts", "optimizer.learning_rate=1e-3", **options)
    assert read_outcome(tmp_path / "parts") == read_outcome(tmp_path / "one")


@pytest.mark.parametrize("until", [0, -3])
def test_a_part_without_a_step_is_refused(until, tmp_path):
    with pytest.raises(UserError, match=f"until={until} trains nothing; give a step from 1 on"):
        train("mlp", tmp_path / "run", until=until)
    assert not (tmp_path / "run").exists()


# Kills ----------------------------------------------------------------------------------------------------------------

PATIENCE = 600  # seconds until a process that does not end fails its test
TRAIN_PART = """
from running import train
train("{name}", sys.argv[1], until={until})
"""


def start_part(name, folder, until):
    """Starts a process of its own that trains a part of a run."""
    program = "import sys\n" + TRAIN_PART.format(name=name, until=until)
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent)


def finish_part(name, folder, until):
    """Trains a part of a run in a process of its own."""
    process = start_part(name, folder, until)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr


def kill_part(name, folder, until, delay):
    """Kills a process that trains a part so many seconds after it has written to the journal.

    Returns:
        Whether the kill fell before the process was over.
    """
    metrics = folder / "metrics.jsonl"
    size_before = metrics.stat().st_size if metrics.exists() else 0
    process = start_part(name, folder, until)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > size_before):
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_parts_that_are_killed_again_and_again_make_the_bits_of_the_whole(tmp_path):
    """The same call does a part that was killed; each kill falls a bit further behind a new line of the journal."""
    finish_part("cnn", tmp_path / "whole", None)
    kills = []
    for until, step in ((5, 5), (10, 10), (None, 12)):
        kills += [kill_part("cnn", tmp_path / "run", until, delay) for delay in (0.0, 0.03)]
        finish_part("cnn", tmp_path / "run", until)
        assert committed_steps(tmp_path / "run")[-1] == step
    assert sum(kills) >= 4
    assert read_outcome(tmp_path / "run") == read_outcome(tmp_path / "whole")
    assert not find_leftovers(tmp_path / "run")


@pytest.mark.slow
def test_a_part_that_dies_at_a_call_of_the_file_door_goes_on_to_the_same_bits(tmp_path):
    """At every third call from the step that it ends at: its evaluation, its save, and what comes behind it."""
    expected = train("mlp", tmp_path / "part", until=5)
    failing_call = 0
    while True:
        folder = tmp_path / str(failing_call)
        with pytest.MonkeyPatch.context() as patch:

            def plant_fault(patch=patch, failing_call=failing_call):
                plant_file_fault(patch, failing_call, dead=True)

            call_at_step(patch, 5, plant_fault)
            try:
                train("mlp", folder, until=5)
                break  # this part has fewer calls
            except PlantedError:
                pass
        assert without_timing(train("mlp", folder, until=5)) == without_timing(expected), failing_call
        train("mlp", folder)
        assert read_outcome(folder) == undisturbed_outcome("mlp"), failing_call
        failing_call += 3
    assert failing_call > 10


# The test split -------------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluated_splits(monkeypatch):
    """The names of the splits that a run evaluates, as they are evaluated."""
    evaluated = []
    evaluate_split = Run.evaluate_split

    def note_and_evaluate(self, split, values):
        evaluated.append(split)
        return evaluate_split(self, split, values)

    monkeypatch.setattr(Run, "evaluate_split", note_and_evaluate)
    return evaluated


@pytest.fixture(scope="module")
def unread(tmp_path_factory):
    """A finished run that has left its test split unread. To be read, not changed."""
    folder = tmp_path_factory.mktemp("unread") / "run"
    train("mlp", folder, evaluates_test=False)
    return folder


def test_a_run_may_leave_the_test_split_unread(whole, tmp_path):
    """Not an image of it, as a data set shows of which none can be read."""

    def refuse_to_read(indices):
        raise UserError("an image of the test split is read")

    dataset = data.load(load_settings("mlp").section("data"))
    unreadable = dataclasses.replace(dataset.splits["test"], read=refuse_to_read)
    dataset = dataclasses.replace(dataset, splits=dataset.splits | {"test": unreadable})
    result = loop.train(load_settings("mlp"), tmp_path, dataset=dataset, evaluates_test=False)
    assert result["test"] is None
    assert result["is_finished"]
    expected = read_outcome(whole)
    assert read_outcome(tmp_path) == expected | {
        "result": expected["result"] | {"test": None},
        "predictions": {"validation.npz": expected["predictions"]["validation.npz"]},
    }
    assert not (tmp_path / "test_reads.jsonl").exists()
    files_before = hash_files(tmp_path)
    assert loop.train(load_settings("mlp"), tmp_path, dataset=dataset, evaluates_test=False) == result
    assert hash_files(tmp_path) == files_before
    with pytest.raises(UserError, match="an image of the test split is read"):
        loop.train(load_settings("mlp"), tmp_path, dataset=dataset)


def test_the_plain_call_reads_the_test_split_of_a_finished_run_once_and_says_so(whole, tmp_path, monkeypatch, capsys):
    unread = train("mlp", tmp_path, evaluates_test=False)
    refuse_to_learn(monkeypatch)
    capsys.readouterr()
    result = train("mlp", tmp_path)
    assert "this run has finished without reading the test split, which is read now" in capsys.readouterr().err
    assert result == read_result(tmp_path)
    assert result["timing"] == unread["timing"]
    assert read_outcome(tmp_path) == read_outcome(whole)
    assert (tmp_path / "test_reads.jsonl").read_bytes() == (whole / "test_reads.jsonl").read_bytes()
    files_before = hash_files(tmp_path)
    for evaluates_test in (True, False):
        assert train("mlp", tmp_path, evaluates_test=evaluates_test) == result
    assert hash_files(tmp_path) == files_before


def test_the_test_split_is_read_with_the_best_values_where_only_their_checkpoint_is_left(tmp_path, monkeypatch):
    expected = undisturbed_outcome("mlp", *STILL_BEST)["result"]
    train("mlp", tmp_path, *STILL_BEST, evaluates_test=False)
    for step in committed_steps(tmp_path):
        if step != 5:
            shutil.rmtree(tmp_path / "checkpoints" / str(step))
    refuse_to_learn(monkeypatch)
    result = train("mlp", tmp_path, *STILL_BEST)
    assert result["tested"] == {"step": 5, "values": "trained", "with": "best"}
    assert result["test"] == expected["test"]


def test_a_finished_run_makes_samples_and_test_numbers_that_it_lacks(whole, tmp_path):
    train("mlp", tmp_path, evaluates_test=False)
    (tmp_path / "samples.npz").unlink()
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == read_outcome(whole)


def test_numbers_of_the_test_split_stay_where_a_later_call_does_not_read_it(whole, tmp_path, evaluated_splits):
    """Also where predictions have gone: those of the test split are left missing, the others are made again."""
    train("mlp", tmp_path)
    evaluated_splits.clear()
    for split in ("test", "validation"):
        (tmp_path / "predictions" / f"{split}.npz").unlink()
        train("mlp", tmp_path, evaluates_test=False)
        assert read_result(tmp_path)["test"] == read_result(whole)["test"]
    assert evaluated_splits == ["validation"]
    assert len((tmp_path / "test_reads.jsonl").read_text().splitlines()) == 1
    train("mlp", tmp_path)
    assert read_outcome(tmp_path) == read_outcome(whole)


def test_a_part_of_a_run_with_an_unread_test_split_leaves_it_unread(tmp_path):
    train("mlp", tmp_path, evaluates_test=False)
    files_before = hash_files(tmp_path)
    assert not train("mlp", tmp_path, until=5)["is_finished"]
    assert hash_files(tmp_path) == files_before


# What others make of such folders -------------------------------------------------------------------------------------


def ask(capsys, *words):
    """The JSON object that a command prints, and what it prints without --json."""
    assert main([*map(str, words)]) == 0
    text = capsys.readouterr().out
    assert main([*map(str, words), "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line), text


def test_the_page_of_a_run_says_that_its_test_split_was_not_read(unread, tmp_path, capsys):
    run = shutil.copytree(unread, tmp_path / "run")
    answer, text = ask(capsys, "report", run)
    assert (answer["test"], answer["test_reads"], answer["problems"]) == (None, 0, [])
    assert answer["validation"]["n"] == 64
    assert "test accuracy        not read by the run" in text
    page = (run / "report.html").read_text()
    assert "The test split was not read." in page
    assert "<span>test accuracy</span><b>not read</b><span>n 64, left unread by the run</span>" in page


def test_the_commands_that_read_runs_take_one_whose_test_split_is_unread(unread, tmp_path, capsys):
    run = shutil.copytree(unread, tmp_path / "run")
    validation, _ = ask(capsys, "evaluate", f"--workdir={run}", "--split=validation")
    assert validation["accuracy"] == read_result(run)["validation"]["accuracy"]
    assert not (run / "test_reads.jsonl").exists()
    described, _ = ask(capsys, "describe", f"--workdir={run}")
    assert described["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    assert main(["evaluate", f"--workdir={run}", "--split=test", "--json"]) == 0
    test = json.loads(capsys.readouterr().out)
    assert test["accuracy"] == undisturbed_outcome("mlp")["result"]["test"]["accuracy"]
    assert len((run / "test_reads.jsonl").read_text().splitlines()) == 1
    # the user's reading is counted, and the run itself still has no numbers
    report.write(run)
    assert "The test split was read 1 time (by evaluate)" in (run / "report.html").read_text()
    assert trained.load(run).run == run


def test_several_runs_show_which_have_not_read_the_test_split(unread, whole, tmp_path, capsys):
    train("mlp", tmp_path / "paused", "optimizer.learning_rate=1e-3", until=5)
    train("mlp", tmp_path / "fast", "optimizer.learning_rate=1e-2", evaluates_test=False)
    runs = [whole, tmp_path / "fast", tmp_path / "paused"]
    assert main(["report", *map(str, runs), f"--out={tmp_path / 'page.html'}"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if " test " in line]
    assert [row[:5] for row in rows[1:3]] == [["B", "1", "test", "not", "read"], ["C", "1", "test", "not", "finished"]]
    assert rows[0][:3] == ["A", "1", "test"]
    page = (tmp_path / "page.html").read_text()
    assert page.count(">not read</td>") == 1
    assert page.count(">not finished</td>") == 2  # on either split
    groups = several.read_groups(runs)
    assert [comparison.split for comparison in several.compare_groups(groups)] == ["validation"]
    # where none has read it, the tables have the split all the same
    assert several.evaluated_splits(several.read_groups([unread, tmp_path / "fast"])) == ["test", "validation"]


def test_a_paused_run_is_read_as_one_that_is_under_way(tmp_path, capsys):
    answer = train("mlp", tmp_path, "ema_decay=0.9", until=10)
    shown, _ = ask(capsys, "report", tmp_path)
    assert (shown["status"], shown["step"]) == ("not finished: step 10 of 12", 10)
    assert shown["problems"] == []
    assert (shown["test"], shown["validation"]) == (None, None)
    assert "best validation so far" in (tmp_path / "report.html").read_text()
    network = trained.load(tmp_path)  # the average, which validation reads
    metrics = evaluation.evaluate(network, load_settings("mlp").section("data"), "validation")
    full = {name: answer["validation"][name] for name in ("accuracy", "n")}
    assert {name: metrics[name] for name in ("accuracy", "n")} == full
    assert metrics["loss"] == pytest.approx(answer["validation"]["loss"], rel=1e-6)


# Rungs ----------------------------------------------------------------------------------------------------------------


def load_rung_settings(*changes):
    """Settings of a run of 27 epochs in batches of 32, which evaluates once in an epoch."""
    return load_settings("mlp", "duration=27 epochs", "evaluate_every=1 epochs", *changes)


@pytest.mark.parametrize(
    ("changes", "first", "eta", "steps"),
    [
        # 256 examples in batches of 32 are 8 steps an epoch: 1, 3, 9 and 27 epochs
        ((), "1 epochs", 3, (8, 24, 72, 216)),
        # 9 epochs are 72 steps: of 216 / 9 = 24 steps the first rung would be shorter than 25
        ((), "25 steps", 3, (72, 216)),
        ((), "24 steps", 3, (24, 72, 216)),
        # 216, 54, 13.5, which is 14, and 3.375; the evaluations after 16 and 56 steps are the next
        ((), "10 steps", 4, (16, 56, 216)),
        # rungs of 0.33, 0.11 ... epochs all end at the first evaluation, as that of one epoch does
        ((), "1 steps", 3, (8, 24, 72, 216)),
        # evaluations after 40, 80, 120, 160, 200 and 216 steps
        (("evaluate_every=5 epochs",), "1 epochs", 3, (40, 80, 216)),
        # batches of 30: an epoch is 8.53 steps; 27 are 230.4, 9 are 76.8, 3 are 25.6
        (("data.batch_size=30", "evaluate_every=1 steps"), "1 epochs", 3, (9, 26, 77, 231)),
    ],
)
def test_rungs_are_each_an_eta_th_of_the_next_and_end_at_an_evaluation(changes, first, eta, steps):
    assert plan.rung_steps(load_rung_settings(*changes), 256, first, eta) == steps


@pytest.mark.parametrize(
    ("changes", "first", "eta", "message"),
    [
        ((), "28 epochs", 3, "halving.first of 28 epochs is longer than the run, whose duration is 27 epochs; make it"),
        (
            (),
            "10 epochs",
            3,
            "no rung ends before the run: duration is 27 epochs, halving.first 10 epochs, halving.eta",
        ),
        (
            ("evaluate_every=30 epochs",),
            "1 epochs",
            3,
            "halving.eta 3 and evaluate_every 30 epochs; make halving.first",
        ),
        ((), "0 epochs", 3, "halving.first of 0 epochs trains nothing; make it longer than 0"),
        ((), "a while", 3, "halving.first: 'a while' is not a duration; write it with its unit, such as '1 epochs'"),
        ((), "1 epochs", 1, "halving.eta=1 makes no rung longer than the one before; make it at least 2"),
    ],
)
def test_rungs_that_cannot_be_are_refused(changes, first, eta, message):
    with pytest.raises(UserError, match=message):
        plan.rung_steps(load_rung_settings(*changes), 256, first, eta)


def test_rungs_are_steps_that_a_run_pauses_at(tmp_path):
    rungs = plan.rung_steps(load_settings("mlp"), 256, "3 steps", 2)
    assert rungs == (5, 10, 12)  # 12, 6 and 3, each moved up to an evaluation
    answers = [train("mlp", tmp_path, until=step) for step in rungs]
    assert [(answer["steps"], answer["is_finished"]) for answer in answers] == [(5, False), (10, False), (12, True)]
