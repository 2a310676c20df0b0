"""`cnn-vit sweep`: what its words ask for, what it prints, and that it starts nothing where nothing is left to do."""

import contextlib
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import sweep_folders
from sweep_folders import DECAY, RATE

from cnn_vit import files
from cnn_vit.__main__ import main
from cnn_vit.cli import _sweep_tables, _sweep_words
from cnn_vit.reports import sweep_facts
from cnn_vit.studies import sweep, trials, workers
from cnn_vit.studies.sweeping import ledger, outcome

# Half of these runs diverge: kernels grow 100,000-fold a step with the large rate.
FIXED = (
    "duration=20 steps", "evaluate_every=20 steps", "log_every=5 steps", "schedule.warmup=0", "schedule.name=constant",
    "optimizer.name=sgd", "optimizer.weight_decay=100", "optimizer.clip=1",
)  # fmt: skip
REAL = [
    "sweep", "--config=configs/digits_mlp.py:smoke", *(f"--config.{setting}" for setting in FIXED),
    "--grid", f"{RATE}=1e-5,1000", "--seeds=2",
]  # fmt: skip


def ask(*words):
    """Runs a command; returns its exit code, and what it printed to stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return SimpleNamespace(code=code, out=out.getvalue(), err=err.getvalue())


def ask_json(*words):
    """Runs a command that must succeed; returns the JSON object that it prints."""
    answer = ask(*words, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def cause(*words):
    """Runs a command that must fail for its words, and print nothing else; returns its one line on stderr."""
    answer = ask(*words)
    assert answer.code == 2, answer.err
    assert answer.out == ""
    (line,) = answer.err.splitlines()
    return line


@pytest.fixture
def starts_no_process(monkeypatch):
    """Whatever would start a process fails the test."""

    def fail(*words, **_):
        pytest.fail(f"a process was started: {words}")

    monkeypatch.setattr(subprocess, "Popen", fail)


# A real sweep ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep of four trials, two of which diverge: its folder, and what the command answered."""
    out = tmp_path_factory.mktemp("swept") / "it's a sweep"
    return out, ask(*REAL, f"--out={out}")


def test_a_sweep_prints_leaderboard_failures_and_counts_and_ends_with_the_code_of_the_first_failure(swept):
    out, answer = swept
    assert answer.code == 4
    lines = answer.out.splitlines()
    assert re.fullmatch(r"rank  suggestion  validation\.accuracy +learning_rate", lines[0])
    assert re.fullmatch(r"1     0           [\d.]+ % \([\d.]+ to [\d.]+, (n = 64|2 seeds)\) +1e-05", lines[1])
    assert re.search(rf"^2 diverged  step \d+ is not finite .*{RATE} smaller", answer.out, re.M)
    assert "trials   2 complete, 2 diverged" in lines
    assert lines[-1] == f'next: cnn-vit sweep best "{out}"'
    assert answer.err.splitlines()[-1] == f'2 trials have failed; `cnn-vit sweep retry "{out}"` does them again'


def test_the_same_sweep_again_does_nothing_and_answers_the_same(swept, starts_no_process):
    out, answer = swept
    results = (out / "results.csv").read_bytes()
    again = ask(*REAL, f"--out={out}", "--workers=1")
    assert (again.code, again.out) == (answer.code, answer.out)
    assert ask("sweep", out).out == answer.out  # the folder alone says what is swept
    assert (out / "results.csv").read_bytes() == results


def test_a_sweep_of_another_definition_is_refused_in_its_folder(swept):
    out, _ = swept
    words = [word.replace("1e-5,1000", "1e-5,100") for word in REAL]
    line = cause(*words, f"--out={out}")
    assert line.startswith(f"{out} holds a sweep of another definition: space.{RATE}: ")
    assert cause(*words, f"--out={out}", "--dry") == line
    assert cause("sweep", out, "--seeds=3") == (
        f"{out} holds a sweep that was begun without --seeds; leave it out, or begin another one"
    )
    assert cause("sweep", out, "--trials=3") == (
        f"{out} holds a grid of 2 points, all of which are tried; leave --trials out"
    )


def test_status_tells_states_best_and_failures_as_text_and_as_one_json_object(swept, starts_no_process):
    out, _ = swept
    answer = ask("sweep", "status", out)
    lines = answer.out.splitlines()
    assert lines[2] == "trials     4 of 4 over: 2 complete, 2 diverged"
    assert lines[3] == "time left  none, all trials are over"
    assert lines[4].startswith("best       validation.accuracy ")
    assert lines[5] == "           learning_rate=1e-05"
    record = ask_json("sweep", "status", "--once", out)  # words may stand behind a flag
    assert ask_json("sweep", "status", f"--out={out}") == record
    assert record["states"] == {"complete": 2, "diverged": 2}
    assert (record["over"], record["total"], record["is_running"], record["running"]) == (4, 4, False, [])
    assert record["best"]["values"] == {RATE: 1e-5}
    assert [failed["state"] for failed in record["failed"]] == ["diverged", "diverged"]


def test_best_prints_the_command_that_trains_the_same_run_again(swept, starts_no_process):
    """The settings that the shell would pass on are those of the trial's run, each one."""
    out, _ = swept
    commands = ask_json("sweep", "best", out)["commands"]
    words = shlex.split(commands["train"])
    assert words[:2] == ["cnn-vit", "train"]
    assert words[-1] == "--workdir=runs/digits_mlp-smoke-best"
    again = ask_json(*words[1:], "--show")["values"]
    (run,) = {word.removeprefix("--workdir=") for word in shlex.split(commands["evaluate"]) if "workdir" in word}
    stored = json.loads((out / run / "config.json").read_text())["values"]
    assert {key: again[key] for key in stored} == stored
    assert (stored["seed"], stored[RATE]) == (0, 1e-5)
    text = ask("sweep", "best", out).out
    assert f"\n{commands['train']}\n" in text  # on one line, to be copied
    assert text.splitlines()[-1] == f'next: cnn-vit sweep best "{out}" --test'


def test_the_best_run_can_be_evaluated_and_predicts(swept):
    out, _ = swept
    answer = ask_json("sweep", "best", out)
    evaluated = ask_json(*shlex.split(answer["commands"]["evaluate"])[1:])
    first = next(trial for trial in answer["best"]["trials"] if trial["seed"] == 0)
    assert evaluated["accuracy"] == first["metric"]


def test_the_test_split_is_read_once_for_the_best_setting_and_then_only_said(swept, tmp_path, monkeypatch):
    out = tmp_path / "copy"
    shutil.copytree(swept[0], out)
    assert not list(out.rglob("test_reads.jsonl"))  # no trial has read it
    measured = ask_json("sweep", "best", out, "--test")["test"]
    assert (measured["is_new"], measured["settings"]) == (True, 1)
    assert [trial["test_reads"] for trial in measured["trials"]] == [1, 1]
    mean = sum(trial["accuracy"] for trial in measured["trials"]) / 2
    assert measured["accuracy"] == pytest.approx(mean)
    files_of_reads = sorted(out.rglob("test_reads.jsonl"))
    assert [len(path.read_text().splitlines()) for path in files_of_reads] == [1, 1]

    monkeypatch.setattr("cnn_vit.training.loop.train", lambda *_, **__: pytest.fail("the test split was read again"))
    said = ask_json("sweep", "best", out, "--test")["test"]
    assert said == measured | {"is_new": False}
    assert "stored, nothing was read" in ask("sweep", "best", out).out


# Nothing is left to do ------------------------------------------------------------------------------------------------

# Asks about a finished sweep, and prints the exit codes and the heavy modules that were imported for it.
LIGHT = """
import subprocess, sys
from cnn_vit.__main__ import main
from cnn_vit import data

def fail(*words, **_):
    raise AssertionError(f"a process was started: {words}")

subprocess.Popen = fail
data.load = data.read_source = fail
out, words = sys.argv[1], sys.argv[2:]
codes = []
for line in (words, [out], [out, "--dry"], ["status", out], ["best", out], ["cancel", out], ["retry", out]):
    codes.append(main(["sweep", *line, "--json"]))
heavy = {"jax", "flax", "orbax", "optax", "sklearn", "matplotlib"} & sys.modules.keys()
sys.stderr.write(f"codes {set(codes)} heavy {heavy}")
"""


def test_a_finished_sweep_again_starts_no_process_imports_no_jax_and_reads_no_data(tmp_path):
    """What makes it quick: a thousand trials are told from plan.jsonl and results alone (60 here)."""
    out = tmp_path / "many"
    sweep_folders.write_sweep(out, [0.5 + number / 200 for number in range(60)], has_real_ids=True)
    outcome.write_tables(outcome.read_sweep(out))
    (out / "report.html").write_text("the page that was made at its end")
    toml = tmp_path / "many.toml"
    toml.write_text(
        'config = "configs/digits_mlp.py"\nwords = ["smoke"]\nsampler = "random"\ntrials = 60\n[space]\n'
        f"{RATE} = {{log = [1e-4, 1e-1]}}\n{DECAY} = {{uniform = [0, 0.1]}}\n"
    )
    command = [sys.executable, "-c", LIGHT, str(out), str(toml), f"--out={out}", "--workers=2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr.endswith("codes {0} heavy set()"), done.stderr
    assert [len(json.loads(line)) > 0 for line in done.stdout.splitlines()] == [True] * 7
    locked = [path for path in (out / "trials").rglob("lock") if path.read_text()]
    assert locked == []  # not one lock was taken


# How it stands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def halfway(tmp_path):
    """The folder of a sweep of ten trials: three finished, one diverged, one interrupted, the others to come."""
    out = tmp_path / "halfway"
    sweep_folders.write_sweep(out, [0.9, 0.95, "diverged", 0.8, "interrupted", "queued"], planned=10)
    return out


def test_time_left_is_that_of_the_steps_left_at_the_pace_of_the_finished_trials(halfway):
    """Three trials took 30 s for 20 steps each, so six that are left take 180 s one after another."""
    record = ask_json("sweep", "status", halfway)
    assert record["states"] == {"complete": 3, "interrupted": 1, "queued": 5, "diverged": 1}
    assert (record["over"], record["total"], record["steps_left"]) == (4, 10, 120)
    assert record["seconds_left"] == pytest.approx(180)
    assert record["basis"] == "at the pace of 3 finished before the last start, 1 at a time"
    text = ask("sweep", "status", halfway).out
    assert "time left  3 min at the pace of 3 finished before the last start, 1 at a time; nobody works on it" in text
    assert text.splitlines()[-1] == f"next: cnn-vit sweep {halfway}"


def test_trials_under_way_are_shown_with_their_step_while_others_hold_the_locks(halfway):
    """Two trials run at once, so that time left is halved; the sweep's own lock is written after what was finished."""
    folder = halfway / "trials" / f"{4:04x}{'ab' * 6}"
    (folder / "run").mkdir()
    (folder / "run" / "timing.jsonl").write_text('{"seconds": 9.0, "step": 5}\n{"seconds": 10.0, "st')
    with files.Lock(halfway / "lock"), files.Lock(folder / "lock"):
        record = ask_json("sweep", "status", halfway)
        text = ask("sweep", "status", halfway).out
        sweep_folders.write_trial(planned_at(halfway, 5), 0.85)
        later = ask_json("sweep", "status", halfway)
    (running,) = record["running"]
    assert (running["id"], running["step"], running["steps"]) == (folder.name, 5, 20)
    assert (record["is_running"], record["steps_left"]) == (True, 115)
    assert re.search(rf"^{folder.name}  5 of 20  25 %  learning_rate=0.005 weight_decay=0.01 seed=0$", text, re.M)
    assert text.splitlines()[-1] == f"next: cnn-vit sweep status {halfway}"  # nothing that would end what runs
    assert later["basis"] == "at the pace of 1 finished since the last start, 1 at a time"


def test_a_sweep_over_seeds_alone_has_no_values_to_show(tmp_path):
    sweep_folders.write_sweep(
        tmp_path / "seeds", [0.5, 0.75], planned=2, space={"seed": [0, 1]}, sampler="grid", trials=2
    )
    plan = tmp_path / "seeds" / "plan.jsonl"
    plan.write_text(re.sub(r'"values": \{[^}]*\}', '"values": {"seed": 0}', plan.read_text()))
    lines = ask("sweep", "status", tmp_path / "seeds").out.splitlines()
    assert lines[4].startswith("best       validation.accuracy 62.50 % (")
    assert lines[5] == f"next: cnn-vit sweep best {tmp_path / 'seeds'}"


def test_slurms_words_stand_beside_the_trials_that_it_has(halfway, monkeypatch):
    """SLURM runs one trial, and another one waits there; nobody holds the sweep itself."""
    running, waiting = (halfway / "trials" / f"{row:04x}{'ab' * 6}" for row in (4, 5))
    words = {running.name: "RUNNING", waiting.name: "PENDING (Resources)"}
    slurm = SimpleNamespace(queue_states=lambda out: words, cancel=lambda out: len(words))
    monkeypatch.setitem(sys.modules, "cnn_vit.studies.sweeping.slurm", slurm)
    monkeypatch.setattr("cnn_vit.studies.sweeping.slurm", slurm, raising=False)
    (halfway / "slurm").mkdir()
    with files.Lock(running / "lock"):
        record = ask_json("sweep", "status", halfway)
        text = ask("sweep", "status", halfway).out
    assert (record["queue"], record["is_running"]) == (words, True)
    lines = [line.split() for line in text.splitlines() if line.startswith("000")]
    assert lines[0][:6] == [running.name, "0", "of", "20", "0", "%"]
    assert lines[0][6] == "RUNNING"
    assert lines[1][:3] == [waiting.name, "PENDING", "(Resources)"]
    assert ask("sweep", "cancel", halfway).out.startswith("2 tasks at SLURM were asked to end: the trials save what ")


def planned_at(out, row):
    """The trial of a row of a sweep's plan."""
    from cnn_vit.studies.sweeping.claims import read_claimed
    from cnn_vit.studies.sweeping.ledger import read_plan
    from cnn_vit.studies.sweeping.planner import planned_trial

    plan, _ = read_plan(out)
    return planned_trial(read_claimed(out), out, plan.rows[row])


def test_a_terminal_watches_until_ctrl_c_which_leaves_the_sweep_alone(halfway):
    """The command runs in a terminal of its own, 80 characters wide; the test holds the sweep's lock meanwhile."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    with files.Lock(halfway / "lock"):
        process = subprocess.Popen(
            [sys.executable, "-m", "cnn_vit", "sweep", "status", str(halfway)],
            stdout=theirs, stderr=subprocess.PIPE, stdin=theirs, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"4 of 10 over" not in shown:
            shown += os.read(ours, 1000)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
        assert process.wait() == 130
        assert files.is_locked(halfway / "lock")
    assert err == "the watching was ended by SIGINT; the sweep itself goes on\n"
    os.close(ours)


def test_a_sweep_without_numbers_has_no_best_setting(tmp_path):
    sweep_folders.write_sweep(tmp_path / "new", ["diverged", "queued"])
    line = cause("sweep", "best", tmp_path / "new")
    assert line.startswith(
        "No trial is complete, so that there is no best setting: 1 diverged, 1 queued. `cnn-vit sweep"
    )
    status = ask("sweep", "status", tmp_path / "new").out
    assert "time left  not known before a trial has logged a step; nobody works on it" in status


# The test split of another best setting -------------------------------------------------------------------------------


def test_another_best_setting_is_tested_only_where_that_is_asked_for(tmp_path, monkeypatch):
    """Each reading is made up; after the first another trial becomes the best."""
    from cnn_vit.studies.sweeping import tested_best

    out = tmp_path / "sweep"
    sweep_folders.write_sweep(out, [0.9, 0.8, "queued"])
    reads = []

    def read_test(trial):
        reads.append(trial.row)
        return tested_best.SplitReading(trial.id, trial.suggestion, trial.seed, dict(trial.values), 0.75, 1.0, 100, 1)

    monkeypatch.setattr(tested_best, "read_test", read_test)
    early = ask("sweep", "best", out, "--test")
    assert early.code == 0
    assert early.err == (
        "1 trial is not over: where one of them becomes the best, the test split was read for another one\n"
    )
    # of 75 of 100, Wilson's interval is 65.7 to 82.5 %
    assert "test.accuracy            75.00 % (65.7 to 82.5, n = 100); read just now" in early.out
    assert "1 by 1 run, of no other setting of this sweep" in early.out
    sweep_folders.write_trial(planned_at(out, 2), 0.95)
    line = cause("sweep", "best", out, "--test")
    assert line.startswith(f"the test split was read for another setting, {RATE}=0.001, {DECAY}=0.01 (75.00 % with ")
    assert f"and the best one is now {RATE}=0.003, {DECAY}=0.01: " in line
    assert reads == [0]
    record = ask_json("sweep", "best", out, "--test", "--again")["test"]
    assert (reads, record["settings"], record["is_new"]) == ([0, 2], 2, True)
    said = ask("sweep", "best", out).out
    assert "it was read for 2 settings of this sweep, so that the best of them is too good" in said
    assert reads == [0, 2]


# What comes before and after ------------------------------------------------------------------------------------------


def test_dry_lists_trials_and_measures_by_finished_ones_and_writes_nothing(halfway, starts_no_process):
    before = {path: path.stat().st_mtime_ns for path in halfway.rglob("*")}
    record = ask_json("sweep", halfway, "--dry", "--workers=1")
    assert (record["suggestions"], record["trials"], record["over"]) == (10, 10, 4)
    assert record["points"][0] == {RATE: 0.001, DECAY: 0.01}
    assert len(record["points"]) == 10
    assert (record["trial_seconds"], record["seconds"]) == (pytest.approx(30), pytest.approx(180))
    assert record["basis"] == "measured: what the 3 finished trials of this sweep took"
    text = ask("sweep", halfway, "--dry").out
    assert re.search(r"^trials    10 of configs/digits_mlp\.py:smoke; 4 are over$", text, re.M)
    assert re.search(r"^time  3 min: 6 trials of 30 s each at full length, one after another$", text, re.M)
    assert {path: path.stat().st_mtime_ns for path in halfway.rglob("*")} == before


@pytest.mark.slow
def test_dry_times_the_first_trial_where_none_is_finished(tmp_path):
    """The folder is not made. The state of 20 numbers or more takes some bytes; a worker of Python more than 50 MB."""
    words = [*REAL, f"--out={tmp_path / 'new'}", "--dry", "--workers=2"]
    record = ask_json(*words)
    assert record["trials"] == 4
    assert record["trial_seconds"] > 0
    assert record["seconds"] > 2 * record["trial_seconds"]  # four trials, two at a time, and their compilation
    assert record["disk_bytes"] > 4 * 2 * 4 * 20
    assert record["memory_bytes"] > 2 * 50e6
    assert record["basis"].startswith(
        "measured: some steps and an evaluation of the first trial, with its data, on 1 core"
    )
    text = ask(*words).out
    command = text.splitlines()[-1].removeprefix("next: ")
    again = shlex.split(command)[1:]
    assert "--dry" not in again
    assert ask_json(*again, "--dry")["definition"] == record["definition"]
    assert not (tmp_path / "new").exists()


def test_dry_counts_points_that_repeat_others_as_no_runs(tmp_path):
    """Of six random points over two values, with two seeds each, the runs are those of the distinct points."""
    from cnn_vit.cli import _sweep_dry
    from cnn_vit.studies.sweeping import forecast

    definition = sweep_folders.define(6, space={RATE: [0.1, 0.2]}, seeds=2)
    listed = forecast.list_trials(definition, None)
    distinct = {point[RATE] for point in listed.points}
    assert distinct == {0.1, 0.2}
    assert (listed.trials, listed.runs, listed.repeats) == (12, 4, 8)
    text = _sweep_dry.trials_text(definition, listed)
    assert "4 of configs/digits_mlp.py:smoke; 0 are over; 8 more are the same runs as another, and not done" in text
    assert len(re.findall(r"the same as \d$", text, re.M)) == 4
    later = [number for number, point in enumerate(listed.points) if point == listed.points[0]][1]
    assert re.search(rf"^{later} .*the same as 0$", text, re.M)


def test_dry_knows_from_the_plan_which_trials_are_the_same_run(tmp_path):
    from cnn_vit.studies.sweeping import forecast

    definition = sweep_folders.write_sweep(tmp_path / "out", [0.9, "queued"], planned=4, space={RATE: [0.001, 0.002]})
    plan = tmp_path / "out" / "plan.jsonl"
    plan.write_text(plan.read_text().replace('"alias_of": null, "data_fingerprint": "' + "f" * 64 + '", "error": "", '
        '"id": "0001', '"alias_of": 0, "data_fingerprint": "' + "f" * 64 + '", "error": "", "id": "0001'))  # fmt: skip
    facts = outcome.read_sweep(tmp_path / "out")
    assert [trial.alias_of for trial in facts.trials] == [None, 0]
    listed = forecast.list_trials(definition, tmp_path / "out")
    ahead = forecast.find_repeated(forecast.known_points(definition, facts)).keys() - {0, 1}
    assert listed.repeats == 1 + len(ahead)


def test_dry_gives_the_start_words_of_its_own_so_that_its_times_add_up():
    from cnn_vit.cli import _sweep_dry
    from cnn_vit.studies.sweeping import forecast

    definition = sweep_folders.define(3)
    nothing = {"is_from_finished": False, "disk_bytes": 10**6, "memory_bytes": None, "at_once": 1, "basis": "measured"}
    nothing |= {"free_disk_bytes": None, "free_memory_bytes": None}
    expected = forecast.Forecast(trial_seconds=1.04, seconds=19.1, start_seconds=16.0, **nothing)
    text = _sweep_dry.forecast_text(definition, forecast.TrialList(3, 3, 0, (), None), expected, 1)
    sentence = "19 s: 16 s to start and compile, then 3 trials of 1.0 s each at full length, one after another"
    assert text.splitlines()[0] == f"time  {sentence}"
    text = _sweep_dry.forecast_text(definition, forecast.TrialList(1, 1, 0, (), None), expected, 1)
    assert text.splitlines()[0] == "time  19 s: 16 s to start and compile, then 1 trial of 1.0 s"


def test_points_of_a_sampler_that_learns_are_shown_as_far_as_no_result_decides_them(tmp_path):
    from cnn_vit.studies.sweeping import forecast

    definition = sweep_folders.define(30, sampler="tpe", lag=3)
    assert len(forecast.list_trials(definition, None).points) == 3
    assert len(forecast.list_trials(sweep_folders.define(30), None).points) == 10


@pytest.fixture
def asked(monkeypatch):
    """Replaces the doing of a sweep: returns what it was called with, and lets a sweep of two trials be its end."""
    calls = []

    def run_sweep(definition, out, options):
        calls.append(SimpleNamespace(definition=definition, out=out, options=options))
        return outcome.read_sweep(out)

    monkeypatch.setattr(sweep, "run_sweep", run_sweep)
    return calls


def test_retry_does_failed_and_cancelled_trials_again_or_those_of_one_state(halfway, asked):
    assert ask("sweep", "retry", halfway).code == 4
    assert ask("sweep", "retry", "--state=out-of-memory,diverged", f"--out={halfway}", "--workers=3").code == 4
    assert asked[0].options.retries == ("diverged", "out of memory", "bad config", "crashed", "cancelled")
    assert asked[1].options.retries == ("out of memory", "diverged")
    assert (asked[1].options.workers, asked[1].out) == (3, halfway)
    assert cause("sweep", "retry", halfway, "--state=divergd") == (
        "no state of trials that are retried 'divergd'; did you mean diverged?"
    )


def test_the_flags_of_a_run_become_its_options(halfway, asked):
    words = ["--keep=all", "--isolate", "--hours=1.5", "--max-failures=4", "--trials=12", "--slurm=--partition=gpu"]
    assert ask("sweep", "run", halfway, *words).code == 4
    (call,) = asked
    assert call.options == sweep.SweepOptions(keep="all", is_isolated=True, hours=1.5, slurm="--partition=gpu")
    assert (call.definition.trials, call.definition.max_failures) == (12, 4)


def test_what_is_left_when_the_time_is_over_is_what_the_next_command_does(halfway, asked):
    answer = ask("sweep", halfway, "--hours=1")
    assert answer.out.splitlines()[-1] == f"next: cnn-vit sweep {halfway}"


def test_a_sweep_that_too_many_failures_have_ended_goes_on_with_more_of_them(tmp_path, asked):
    out = tmp_path / "ended"
    sweep_folders.write_sweep(out, ["diverged", 0.5, "diverged", "queued"], max_failures=2)
    answer = ask("sweep", out)
    assert answer.err.splitlines()[-2:] == [
        f"1 of 4 trials is left; `cnn-vit sweep {out} --max_failures=4` goes on",
        f"2 trials have failed; `cnn-vit sweep retry {out}` does them again",
    ]
    assert answer.out.splitlines()[-1] == f"next: cnn-vit sweep {out} --max_failures=4"


def test_a_trial_whose_rung_is_decided_is_not_to_be_done_again(tmp_path, asked):
    out = tmp_path / "halved"
    sweep_folders.write_sweep(out, ["diverged", 0.5, "cancelled"], halving={"first": "5 steps"})
    ledger.Ledger(out).append([ledger.RungRow(0, (1,))])
    answer = ask("sweep", "retry", out)
    assert (answer.code, answer.err.splitlines()[-1]) == (
        4,
        "2 trials have no numbers, and the rung of the halving is decided without them; a sweep in another folder does "
        "them again",
    )


def test_a_run_that_was_cancelled_from_elsewhere_does_not_end_well(tmp_path, asked):
    sweep_folders.write_sweep(tmp_path / "ended", [0.5, "queued"])
    answer = ask("sweep", tmp_path / "ended")
    assert (answer.code, answer.err.splitlines()[-1]) == (
        3, f"1 of 2 trials is left; `cnn-vit sweep {tmp_path / 'ended'}` goes on",
    )  # fmt: skip
    assert ask("sweep", tmp_path / "ended", "--hours=1").code == 0  # as it was asked to


def test_report_makes_tables_and_page_of_what_is_there(halfway, monkeypatch):
    pages = []
    page = SimpleNamespace(write=lambda path, facts: pages.append((path, len(facts.trials))))
    monkeypatch.setitem(sys.modules, "cnn_vit.reports.sweep_page", page)
    monkeypatch.setattr("cnn_vit.reports.sweep_page", page, raising=False)
    record = ask_json("sweep", "report", halfway)
    assert pages == [(halfway / "report.html", 6)]
    assert (record["report"], record["results"]) == (str(halfway / "report.html"), str(halfway / "results.csv"))
    rows = (halfway / "results.csv").read_text().splitlines()
    assert rows[0] == f"row,suggestion,seed,id,state,alias_of,validation.accuracy,steps,{RATE},{DECAY},reason"
    assert rows[3].endswith(",diverged,,,0,0.003,0.01,step 7 is not finite")
    assert len(rows) == 7


def test_a_trial_that_diverged_has_the_steps_that_it_logged(halfway):
    run = halfway / "trials" / f"{2:04x}{'ab' * 6}" / "run"
    run.mkdir()
    (run / "timing.jsonl").write_text('{"seconds": 1.0, "step": 5}\n{"seconds": 2.0, "step": 6}\n')
    assert [trial.steps for trial in outcome.read_sweep(halfway).trials] == [20, 20, 6, 20, 0, 0]
    outcome.write_tables(outcome.read_sweep(halfway))
    assert ",diverged,,,6,0.003," in (halfway / "results.csv").read_text()


def test_a_reason_of_several_lines_is_one_line_in_cells_and_tables(halfway):
    planned = planned_at(halfway, 2)
    trials.write_result(planned, trials.CRASHED, reason="ValueError: first\nsecond")
    facts = outcome.read_sweep(halfway)
    assert facts.trials[2].reason == "ValueError: first\nsecond"
    outcome.write_tables(facts)
    lines = (halfway / "results.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[3].endswith(r",ValueError: first\nsecond")
    assert _sweep_tables.failures_table(facts, width=None).startswith(r"1 crashed  ValueError: first\nsecond (")


def test_report_copies_the_trials_to_a_service(halfway, monkeypatch):
    from cnn_vit.reports import sweep_mirror

    monkeypatch.setitem(sweep_mirror.SERVICES, "tensorboard", lambda facts: f"tensorboard of {len(facts.trials)}")
    assert ask("sweep", "report", halfway, "--to=tensorboard").out.splitlines() == [
        f"{halfway}  tensorboard of 6",
        "next: tensorboard of 6",
    ]


def test_tables_are_written_only_where_results_are_new(halfway):
    assert outcome.write_tables(outcome.read_sweep(halfway))
    assert not outcome.write_tables(outcome.read_sweep(halfway))
    sweep_folders.write_trial(planned_at(halfway, 5), 0.5)
    assert outcome.write_tables(outcome.read_sweep(halfway))


def test_why_a_sweep_ended_before_all_was_done_stands_among_its_notes(halfway):
    facts = sweep.write_outcome(halfway, "the time is over", is_here=False)
    assert facts.notes == ("ended before all was done: the time is over",)
    assert sweep.write_outcome(halfway, "", is_here=False).notes == ()


def test_cancel_asks_a_sweep_that_runs_to_end_and_says_where_none_runs(halfway):
    record = ask_json("sweep", "cancel", halfway)
    assert record == {"out": str(halfway), "was_running": False, "tasks": 0}
    assert not (halfway / "cancel").exists()
    with files.Lock(halfway / "lock"):
        assert ask_json("sweep", "cancel", halfway)["was_running"]
    assert (halfway / "cancel").exists()


def test_what_follows_cancel_where_nothing_runs_is_the_rest_or_the_best(halfway, tmp_path):
    assert ask("sweep", "cancel", halfway).out.splitlines()[-1] == f"next: cnn-vit sweep {halfway}"
    done = tmp_path / "done"
    sweep_folders.write_sweep(done, [0.5, 0.75])
    assert ask("sweep", "cancel", done).out.splitlines()[-1] == f"next: cnn-vit sweep best {done}"


def test_single_trials_are_called_off_unless_they_are_over_or_under_way(halfway):
    names = [path.name for path in sorted((halfway / "trials").iterdir())]
    queued = f"{5:04x}{'ab' * 6}"
    assert ask_json("sweep", "cancel", halfway, "0004", queued)["cancelled"] == [names[4], queued]
    states = ask_json("sweep", "status", halfway)["states"]
    assert states == {"complete": 3, "queued": 4, "cancelled": 2, "diverged": 1}
    assert cause("sweep", "cancel", halfway, "0000") == f"trial {names[0]} is over (complete); leave it out"
    assert cause("sweep", "cancel", halfway, "00ff").startswith(f"{halfway} has planned no trial '00ff'; ")
    assert cause("sweep", "cancel", halfway, "0004", "0001") == f"trial {names[4]} is over (cancelled); leave it out"


def test_a_trial_under_way_is_not_called_off_and_no_other_with_it(halfway):
    folder = halfway / "trials" / f"{4:04x}{'ab' * 6}"
    with files.Lock(folder / "lock"):
        answer = ask("sweep", "cancel", halfway, f"{5:04x}", folder.name)
    assert answer.code == 3
    assert answer.err.startswith(
        f"trial {folder.name} is under way; end the sweep with `cnn-vit sweep cancel {halfway}`"
    )
    assert not (halfway / "trials" / f"{5:04x}{'ab' * 6}").exists()


# Tables ---------------------------------------------------------------------------------------------------------------


def test_the_leaderboard_has_a_column_for_each_setting_where_they_fit_else_one_for_all(halfway):
    facts = outcome.read_sweep(halfway)
    rows = sweep_facts.leaderboard(facts)
    wide = _sweep_tables.leaderboard_table(facts, rows, width=120).splitlines()
    assert wide[0].split() == ["rank", "suggestion", "validation.accuracy", "learning_rate", "weight_decay"]
    assert wide[1].split()[-2:] == ["0.002", "0.01"]
    narrow = _sweep_tables.leaderboard_table(facts, rows, width=64).splitlines()
    assert narrow[0].split() == ["rank", "suggestion", "validation.accuracy"]
    assert narrow[2].strip() == "learning_rate=0.002 weight_decay=0.01"  # under its row


def test_trials_that_fail_alike_are_one_reason_though_it_names_their_folders(tmp_path):
    sweep_folders.write_sweep(tmp_path / "failed", [0.5, 0.5])
    facts = outcome.read_sweep(tmp_path / "failed")
    failed = []
    for trial, name in zip(facts.trials, ("cafe", "babe"), strict=True):
        folder = tmp_path / name
        reason = f"step {trial.row} is not finite; its examples are in {folder}/run/crash"
        failed.append(replace(trial, state="diverged", metric=None, reason=reason, folder=folder))
    table = _sweep_tables.failures_table(replace(facts, trials=tuple(failed)), width=None)
    assert table.startswith("2 diverged  step 0 is not finite; ")
    assert len(table.splitlines()) == 1


def test_keys_are_shortened_unless_two_end_alike():
    assert _sweep_tables.short_names(["optimizer.name", "model.name", "model.depth"]) == {
        "optimizer.name": "optimizer.name", "model.name": "model.name", "model.depth": "depth",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0004, "less than 0.001 s"),
        (0.00123, "0.0012 s"),
        (0.0449, "0.045 s"),
        (0.0951, "0.1 s"),
        (1.26, "1.3 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h 0 min"),
        (5400, "1 h 30 min"),
        (200_000, "2 d 8 h"),
    ],
)
def test_a_time_is_written_as_its_two_largest_units(seconds, text):
    assert _sweep_tables.duration_text(seconds) == text


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["statsu"], "no sweep command 'statsu'; did you mean status?"),
        (
            ["everything"],
            "'everything' is neither a file nor a command of sweep; write cnn-vit sweep FILE.toml --out=DIR, or one of "
            "run, status, retry, cancel, report, best",
        ),
        ([], "nothing says what to sweep; give a file, "),
        (["configs/sweeps/smok.toml", "--out=x"], "no sweep 'configs/sweeps/smok.toml' here or beside the package; di"),
        (["configs", "--out=x"], "configs is a folder without a sweep in it; name the TOML file of a sweep, and where"),
        (["configs/digits_mlp.py"], "configs/digits_mlp.py is a recipe; did you mean --config=configs/digits_mlp.py?"),
        (["configs/sweeps/smoke.toml"], "--out is missing, the folder that the sweep is written to; add --out=runs/sm"),
        (["configs/sweeps/smoke.toml", "b.toml"], "sweep run takes one file; leave out b.toml"),
        (["configs/sweeps/smoke.toml", "--config=a.py"], "configs/sweeps/smoke.toml and --config=a.py both say what i"),
        (["configs/sweeps/smoke.toml", "--grid=seed=0..4"], "--grid belongs to --config=RECIPE; configs/sweeps/smoke."),
        (["--grid", "a=1,2", "b=1,2"], "sweep does not take b=1,2; did you mean --grid b=1,2?"),
        (["--grid", "a=1,2"], "--grid a=1,2 belongs to a recipe; add --config=RECIPE"),
        (["--config.seed=1"], "--config.seed=1 belongs to a recipe; add --config=RECIPE"),
        (["--config=configs/digits_mlp.py"], "configs/digits_mlp.py says nothing of a sweep; add --grid KEY=VALUE,VAL"),
        (
            ["--config=configs/digits_mlp.py", "--grid", "optimizer.leraning_rate=1,2"],
            "--grid optimizer.leraning_rate: no setting 'optimizer.leraning_rate'; did you mean optimizer.learning_rat",
        ),
        (
            ["configs/sweeps/smoke.toml", "--metric=test.accuracy"],
            "configs/sweeps/smoke.toml: metric is test.accuracy, and a sweep chooses by validation; ",
        ),
        (
            ["--config=configs/digits_mlp.py:smoke", "--grid", "seed=0,1"],
            "--out is missing, the folder that the sweep is written to; add --out=runs/digits_mlp-smoke, or --dry to",
        ),
        (["configs/sweeps/smoke.toml", "--out=setup.cfg"], "setup.cfg is a file, and a sweep is written to a folder;"),
        (["status"], "sweep status needs the folder of a sweep; write cnn-vit sweep status DIR, the --out of its `cnn"),
        (["status", "configs"], "configs holds no sweep (no space.json); name the --out of a `cnn-vit sweep`"),
        (["status", "setup.cfg"], "setup.cfg is a file; sweep status takes the folder of a sweep; name the --out of a"),
        (["best", "nowhere/x"], "there is no folder nowhere/x; name the --out of a `cnn-vit sweep`"),
        (["status", "x", "--workers=2"], "--workers belongs to sweep run and sweep retry; leave it out of sweep statu"),
        (["best", "x", "--once"], "--once belongs to sweep status; leave it out of sweep best"),
        (["status", "x", "--config.seed=1"], "sweep status takes no settings; leave out --config.seed=1"),
        (["configs/sweeps/smoke.toml", "--wrokers=2"], "no sweep argument '--wrokers'; did you mean --workers?"),
        (["configs/sweeps/smoke.toml", "--hours=long"], "cnn-vit sweep: argument --hours: 'long' is not a number; "),
        (["configs/sweeps/smoke.toml", "--dry", "--workers=0"], "--workers=0 do nothing; make it at least 1"),
    ],
)  # fmt: skip
def test_words_that_mean_nothing_are_refused_with_their_remedy(words, line):
    assert cause("sweep", *words).startswith(line)


def test_words_that_do_not_go_with_a_begun_sweep_are_refused(halfway):
    assert cause("sweep", halfway, "--out=other") == (
        f"{halfway} is the folder of a sweep, and --out=other names another; give one of them"
    )
    assert cause("sweep", "status", halfway, "more") == "sweep status takes one folder; leave out more"
    assert cause("sweep", "best", halfway, "--again") == "--again belongs to --test; add it, or leave --again out"
    assert cause("sweep", "report", halfway, "--to=tensorbord") == "no service 'tensorbord'; did you mean tensorboard?"
    assert cause("sweep", "--slurm", halfway).startswith(
        f"--slurm is '{halfway}'; it takes options of sbatch in one word"
    )
    assert cause("sweep", "status", halfway.parent / "halfwya") == (
        f"there is no folder {halfway.parent / 'halfwya'}; did you mean {halfway}?"
    )


def test_every_flag_belongs_to_a_word_and_the_help_teaches_each_word():
    answer = ask("sweep", "--help")
    assert answer.code == 0
    for flag in _sweep_words.FLAGS:
        assert f"--{flag}" in answer.out
    for action in _sweep_words.ACTIONS:
        assert action == "run" or f"cnn-vit sweep {action} " in answer.out


def test_the_file_in_the_help_is_a_sweep(tmp_path):
    """What stands there can be copied into a file."""
    from cnn_vit.cli import sweep as command
    from cnn_vit.studies.sweeping import definition as definitions

    text = command.__doc__.partition("A file of a sweep:\n")[2].partition("\nBehind --grid")[0]
    path = tmp_path / "sweep.toml"
    path.write_text(re.sub(r"(?m)^    ", "", text))
    definition = definitions.read_toml(path)
    assert (definition.trials, len(definition.space.dimensions), definition.sampler) == (30, 3, "random")


def test_the_function_in_the_help_makes_a_recipe_a_sweep(tmp_path):
    from cnn_vit.cli import sweep as command
    from cnn_vit.studies.sweeping import definition as definitions

    text = "    def sweep(add):" + command.__doc__.partition("    def sweep(add):")[2].partition("\nA sweep chooses")[0]
    recipe = tmp_path / "recipe.py"
    base = Path("configs/digits_mlp.py").read_text(encoding="utf-8")
    recipe.write_text(f"{base}\n\n{re.sub(r'(?m)^    ', '', text)}", encoding="utf-8")
    definition = definitions.from_recipe(str(recipe))
    assert (definition.trials, len(definition.space.dimensions), definition.sampler) == (30, 3, "random")


def test_states_are_those_of_trials():
    assert set(_sweep_tables.STATES) == {
        trials.COMPLETE, trials.PRUNED, trials.RUNNING, trials.INTERRUPTED, trials.QUEUED, trials.CANCELLED,
        *trials.FAILED,
    }  # fmt: skip
    assert set(sweep_facts.FAILED) == set(trials.FAILED)
    assert workers.StudyOptions().retries == ()


@pytest.mark.parametrize(
    ("slurm", "words"),
    [(None, ""), ("", " --slurm"), ("--partition=gpu --time=1:00", " --slurm='--partition=gpu --time=1:00'")],
)
def test_the_next_command_of_a_cluster_s_sweep_goes_to_the_cluster_again(slurm, words):
    from cnn_vit.cli.sweep import place_words

    assert place_words(SimpleNamespace(slurm=slurm)) == words
