"""The laboratory: verdicts follow from intervals, an experiment is measured once, and its pages from its results."""

import dataclasses
import hashlib
import itertools
import json
import re
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cnn_vit.errors import StoppedError, SurroundingsError, UserError
from cnn_vit.reports import evidence, lab_facts, lab_page, lab_readme
from cnn_vit.reports.evidence import at_least, at_most, decide
from cnn_vit.studies import lab, lab_checks, trials
from cnn_vit.studies.lab import Options, OtherData
from cnn_vit.studies.lab_folders import (
    SKELETON,
    find_experiment,
    find_experiments,
    locked,
    refresh_readmes,
    write_skeleton,
)

TOP = Path(__file__).parents[2]
EXPERIMENT = Path("experiments") / "mine" / "experiment.py"

# Verdicts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        # The interval of 1, 2, 3 is 2 +- 4.303 / sqrt(3) = 2 +- 2.484, from Student's table for 2 degrees of freedom.
        ((1, 2, 3), {4.5: "true", 4.4: "not resolved", -0.4: "not resolved", -0.5: "false"}),
        ((2, 2, 2), {2: "true", 1.9: "false"}),
        ((2, 2), {2: "not resolved", 1: "not resolved"}),  # two seeds decide nothing
    ],
)
def test_an_interval_decides_a_part(values, outcome):
    for bound, expected in outcome.items():
        assert at_most("a number", values, bound).outcome == expected
        # -x is at least -b where x is at most b
        assert at_least("a number", [-value for value in values], -bound).outcome == expected


@pytest.mark.parametrize("value", [0.1, 0.7, 0.3, 5])
def test_a_bound_that_all_seeds_meet_exactly_is_met(value):
    """As floats 0.1 + 0.1 + 0.1 is more than 0.3, and 0.7 + 0.7 + 0.7 less than 2.1."""
    for count in (3, 5, 6):
        for evidence_of in (at_most, at_least):
            part = evidence_of("a number", [value] * count, value)
            assert part.interval == (value, value, value)
            assert part.outcome == "true"


TRUE, FALSE = at_most("small", (0, 0, 0), 1), at_most("small", (2, 2, 2), 1)
OPEN = at_most("small", (0, 2, 1), 1)
OPEN_CONTROL = at_most("zero", (0, 2, 1), 1, is_control=True)
CONTROL, FAILED_CONTROL = (at_most("zero", (value,) * 3, 0, is_control=True) for value in (0, 1))


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([TRUE, TRUE], "true"),
        ([FALSE, FALSE, CONTROL], "false"),
        ([TRUE, FALSE, CONTROL], "conditional"),
        ([TRUE, OPEN], "not resolved"),
        ([FALSE, OPEN], "not resolved"),
        ([TRUE, FAILED_CONTROL], "not resolved"),
        ([TRUE, OPEN_CONTROL], "not resolved"),
        ([FALSE, OPEN_CONTROL], "not resolved"),
    ],
)
def test_the_parts_decide_a_sentence_unless_a_control_fails(parts, verdict):
    assert decide(parts) == verdict


def test_controls_alone_decide_nothing():
    with pytest.raises(UserError, match="a sentence without any part that is measured has no verdict"):
        decide([CONTROL])


@pytest.mark.parametrize(("value", "text"), [(1143466, "1,143,466"), (0.21022, "0.21"), (1e-6, "1e-06"), (0.0, "0")])
def test_numbers_are_written_shortly(value, text):
    assert evidence.number(value) == text


# An experiment --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The example of `lab new` in an empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    write_skeleton("mine")
    return tmp_path


def change(path, old, new):
    """Replaces a text of a file, which has to be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def contents(folder):
    """The bytes of each file of a folder, by name, but for what a clock decides."""
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in ("timing.json", "README.md")]
    return {path.name: path.read_bytes() for path in files}


def test_the_example_runs_and_its_verdict_is_the_one_by_hand(mine):
    """At stride 1 there are n - 2 pixels; at stride 2 of 8, 9, 10 there are 3, 4, 4, which is 3, 3, 4 too few."""
    facts = lab.run_experiment("mine", Options())
    assert facts.verdict_summary == "conditional"
    (judgement,) = facts.results["judgements"]
    assert [part["values"] for part in judgement["evidence"]] == [[0, 0, 0], [3, 3, 4]]
    readme = (EXPERIMENT.parent / "README.md").read_text()
    assert "Verdict: **conditional**" in readme
    assert "| 10 | 2 | 4 |" in readme
    assert "conditional" in Path("experiments/README.md").read_text()


def stop_after_two_seeds(monkeypatch, options):
    """Runs the example until two seeds are measured; returns the list of the seeds, which later runs add to."""
    seeds = []

    def measure_some(experiment, seed, runs, options, measure=lab.measure_seed):
        if len(seeds) == 2:
            raise StoppedError(15, "stopped by SIGTERM")
        seeds.append(seed)
        return measure(experiment, seed, runs, options)

    monkeypatch.setattr(lab, "measure_seed", measure_some)
    with pytest.raises(StoppedError):
        lab.run_experiment("mine", options)
    return seeds


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(mine, monkeypatch):
    lab.run_experiment("mine", Options())
    undisturbed = contents(EXPERIMENT.parent)
    shutil.rmtree("runs")
    for name in ("results.json", "sizes.svg"):
        (EXPERIMENT.parent / name).unlink()
    seeds = stop_after_two_seeds(monkeypatch, Options())
    assert not (EXPERIMENT.parent / "results.json").exists()
    seeds.clear()
    lab.run_experiment("mine", Options())
    assert seeds == [2]
    assert contents(EXPERIMENT.parent) == undisturbed


def test_texts_change_without_measuring_and_code_does_not(mine, monkeypatch):
    lab.run_experiment("mine", Options())
    seeds = []

    def watch(experiment, seed, runs, options, measure=lab.measure_seed):
        seeds.append(seed)
        return measure(experiment, seed, runs, options)

    monkeypatch.setattr(lab, "measure_seed", watch)
    change(EXPERIMENT, "What nobody had expected.", "Nothing at all.")
    lab.run_experiment("mine", Options())
    assert seeds == []
    assert "Nothing at all." in (EXPERIMENT.parent / "README.md").read_text()
    change(EXPERIMENT, "pixels = 8 + seed", "pixels = 9 + seed")
    lab.run_experiment("mine", Options())
    assert seeds == [0, 1, 2]
    lab.run_experiment("mine", Options(is_again=True))
    assert seeds == [0, 1, 2] * 2


SOURCE = """
ORDER = 90  # a text
import os; SURPRISE = "\u00e9"; SIDE = 3

def measure(seed):
    # a comment
    name = f"{seed:>{SIDE}} of {os.name!r}" + 'b'

    return f\'\'\'{name}
    and {f"{seed + 1}"}\'\'\'
"""
TOKENS = """import os ; ; SIDE = 3 NEWLINE
def measure ( seed ) : NEWLINE INDENT name = f"{seed:>{SIDE}}_of_{os.name!r}" + 'b' NEWLINE
return f\'\'\'{name}|____and_{f"{seed_+_1}"}\'\'\' NEWLINE DEDENT"""


def test_the_code_is_its_tokens_which_are_those_of_each_version_of_python(tmp_path):
    """From Python 3.12 on an f-string is several tokens, and from 3.13 on `ast.unparse` writes it with other quotes."""
    path = tmp_path / "experiment.py"
    path.write_text(SOURCE)
    tokens = [token.replace("_", " ").replace("|", "\n") for token in TOKENS.split()]
    digest = hashlib.sha256("\0".join(tokens).encode()).hexdigest()
    assert lab_facts.hash_code(path) == digest
    path.write_text(
        SOURCE.replace("90", "91").replace("a comment", "another").replace("SIDE = 3\n", "SIDE  =  3 # pixels\n")
    )
    assert lab_facts.hash_code(path) == digest
    path.write_text(SOURCE.replace("SIDE = 3", "SIDE = 4"))
    assert lab_facts.hash_code(path) != digest
    path.write_text(SOURCE.replace("seed + 1", "seed + 2"))
    assert lab_facts.hash_code(path) != digest


def test_what_other_code_measured_is_said_to_be_so(mine):
    lab.run_experiment("mine", Options())
    (facts,) = lab_facts.read_all(Path("experiments"))
    assert facts.verdict_text("size") == "conditional"
    change(EXPERIMENT, "What nobody had expected.", "Nothing.")
    (facts,) = lab_facts.read_all(Path("experiments"))
    assert not facts.is_outdated
    change(EXPERIMENT, "pixels = 8 + seed", "pixels = 9 + seed")
    (facts,) = lab_facts.read_all(Path("experiments"))
    assert facts.verdict_text("size") == "conditional (measured before the code changed)"
    assert facts.verdict_summary == "conditional (measured before the code changed)"
    refresh_readmes(Path("experiments"))
    assert "Measured before the code changed" in (EXPERIMENT.parent / "README.md").read_text()
    assert "conditional (measured before the code changed)" in Path("experiments/README.md").read_text()
    assert "Measured before the code changed" in lab_page.write_chapter([facts])
    lab.run_experiment("mine", Options())
    assert "before the code changed" not in (EXPERIMENT.parent / "README.md").read_text()
    # a file from before this key was written
    path = EXPERIMENT.parent / "timing.json"
    times = json.loads(path.read_text())
    del times["code"]
    path.write_text(json.dumps(times))
    (facts,) = lab_facts.read_all(Path("experiments"))
    assert not facts.is_outdated


def measure_on(monkeypatch, *machines, commits=(None, None, None)):
    """Has the seeds measured on these machines, one after the other, at these commits."""
    machines, commits = iter(machines), iter(commits)
    monkeypatch.setattr(lab, "describe_machine", lambda: next(machines))
    monkeypatch.setattr(lab.environment, "git_commit", lambda: next(commits))


def test_all_machines_and_commits_are_named_in_the_order_of_the_seeds(mine, monkeypatch):
    measure_on(monkeypatch, "b", "a", "b", commits=("2", "1", "1"))
    facts = lab.run_experiment("mine", Options())
    assert (facts.times["machine"], facts.times["commit"]) == ("b; a", "2; 1")
    assert "Machine: b; a, commit 2; 1." in (EXPERIMENT.parent / "README.md").read_text()


def test_no_commit_is_named_outside_of_git(mine, monkeypatch):
    measure_on(monkeypatch, "a", "a", "a")
    facts = lab.run_experiment("mine", Options())
    assert "Machine: a.\n" in (EXPERIMENT.parent / "README.md").read_text()
    chapter = lab_page.write_chapter([facts])
    assert "None" not in (EXPERIMENT.parent / "README.md").read_text() + chapter
    assert "a; 0" in chapter


def test_a_verdict_by_the_clock_is_not_one_of_two_machines(mine, monkeypatch):
    add_clock(key="size", bound=6)
    measure_on(monkeypatch, "b", "a", "b")
    with pytest.raises(UserError, match="a clock decides size, and the seeds were measured on b; a; --again measures"):
        lab.run_experiment("mine", Options())
    assert not (EXPERIMENT.parent / "results.json").exists()


def test_quick_leaves_the_full_results_as_they_are(mine):
    lab.run_experiment("mine", Options())
    before = {path: path.read_bytes() for path in Path("experiments").rglob("*") if path.is_file()}
    change(EXPERIMENT, "pixels = 8 + seed", "pixels = 8 + seed + quick")
    before[EXPERIMENT] = EXPERIMENT.read_bytes()
    facts = lab.run_experiment("mine", Options(is_quick=True))
    assert facts.results["is_quick"]
    assert facts.results["rows"][0]["pixels"] == 9
    readme = Path("runs/lab/mine/quick/README.md").read_text()
    assert "Made small (--quick): these verdicts are no result" in readme
    assert "\ncnn-vit lab run mine --quick\n" in readme
    assert readme.count(facts.texts.question) == 1  # the title
    assert "\ncnn-vit lab run mine\n" in (EXPERIMENT.parent / "README.md").read_text()
    assert "Made small" not in (EXPERIMENT.parent / "README.md").read_text()
    assert {path: path.read_bytes() for path in Path("experiments").rglob("*") if path.is_file()} == before


def test_rows_of_a_quick_run_are_not_those_of_a_full_one_in_the_same_folder(mine):
    change(EXPERIMENT, "pixels = 8 + seed", "pixels = 8 + seed + 100 * quick")
    out = Path("o")
    assert lab.run_experiment("mine", Options(is_quick=True, out=out)).results["rows"][0]["pixels"] == 108
    facts = lab.run_experiment("mine", Options(out=out))
    assert [row["pixels"] for row in facts.results["rows"]] == [8, 8, 9, 9, 10, 10]
    take_mnist()
    assert lab.run_experiment("mine", Options(out=out)).results["rows"][0]["pixels"] == 8
    facts = lab.run_experiment("mine", Options(data=OtherData("mnist"), out=out))
    assert [row["pixels"] for row in facts.results["rows"]] == [28] * 6


@pytest.mark.parametrize("out", ["experiments/mine", "experiments/mine/mnist", "experiments/../experiments"])
@pytest.mark.parametrize("is_quick", [True, False])
def test_no_folder_of_results_is_the_out_of_a_run(mine, out, is_quick):
    lab.run_experiment("mine", Options())
    before = {path: path.read_bytes() for path in Path("experiments").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"--out={out} lies in experiments, which holds the full results"):
        lab.run_experiment("mine", Options(is_quick=is_quick, out=Path(out)))
    assert {path: path.read_bytes() for path in Path("experiments").rglob("*") if path.is_file()} == before


def test_a_readme_of_the_users_is_not_overwritten_by_a_quick_run(mine):
    Path("README.md").write_text("mine")
    with pytest.raises(UserError, match=r"--out=\. has a README.md that is not of an experiment"):
        lab.run_experiment("mine", Options(is_quick=True, out=Path()))
    assert Path("README.md").read_text() == "mine"


TRIALS = """

from cnn_vit.studies.trials import Trial


def list_trials(*, quick):
    return [Trial("train", "configs/digits_mlp.py:smoke", seed=seed, name=f"run {seed}") for seed in NUMBERS]
"""


def add_trials(numbers=(0, 1)):
    """Gives the example trials of these seeds, and rows with their accuracies."""
    with EXPERIMENT.open("a") as stream:
        stream.write(TRIALS.replace("NUMBERS", str(numbers)))
    change(
        EXPERIMENT, '"counted": counted}', '"counted": counted, "runs": [run.result["test"] for run in runs.values()]}'
    )


class StubTrials:
    """Stands for `workers.do_trials`: records each trial that has no result, and writes one.

    Attributes:
        done: names of the trials that were done.
        options: what it was called with last.
        failing: names of trials that fail.
        stop_before: the name of a trial before which the study is stopped; "" for none.
    """

    def __init__(self):
        self.done, self.options, self.failing, self.stop_before = [], None, (), ""

    def __call__(self, planned, out, options):
        self.options = options
        records = []
        for one in planned:
            path = one.folder / trials.RESULT
            if not path.exists():
                if one.trial.name == self.stop_before:
                    raise StoppedError(15, "stopped by SIGTERM")
                self.done.append(one.trial.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("{}")
            state = trials.CRASHED if one.trial.name in self.failing else trials.COMPLETE
            result = {"test": one.trial.seed, "timing": {"cpu_seconds": 1000}}
            records.append(trials.TrialRecord(one, state, "it broke" if state == trials.CRASHED else "", result, None))
        return records


@pytest.fixture
def stub(mine, monkeypatch):
    """The example with two trials, which a stub does."""
    add_trials()
    stub_trials = StubTrials()
    monkeypatch.setattr(lab.workers, "do_trials", stub_trials)
    return stub_trials


def test_again_does_the_trials_again_and_goes_on_where_it_was_stopped(stub):
    lab.run_experiment("mine", Options())
    lab.run_experiment("mine", Options())
    assert stub.done == ["run 0", "run 1"]
    before = (EXPERIMENT.parent / "results.json").read_bytes()
    other = Path("runs/lab/mine/full/trials/of_another_study/result.json")
    other.parent.mkdir()
    other.write_text("{}")
    stub.stop_before = "run 1"
    stub.done.clear()
    with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command without --again goes on"):
        lab.run_experiment("mine", Options(is_again=True))
    assert stub.done == ["run 0"]
    assert not list(Path("runs/lab/mine/full/measured").iterdir())
    assert (EXPERIMENT.parent / "results.json").read_bytes() == before  # until there are others
    stub.stop_before = ""
    lab.run_experiment("mine", Options())
    assert stub.done == ["run 0", "run 1"]
    assert (EXPERIMENT.parent / "results.json").read_bytes() == before
    assert other.exists()


def test_seeds_that_again_has_measured_are_there_after_a_stop(mine, monkeypatch):
    lab.run_experiment("mine", Options())
    seeds = stop_after_two_seeds(monkeypatch, Options(is_again=True))
    assert seeds == [0, 1]
    seeds.clear()
    lab.run_experiment("mine", Options())
    assert seeds == [2]


def test_trials_reach_measure_by_name_and_their_cost_counts(stub, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(lab, "cpu_seconds", lambda: float(next(clock)))  # of a seed: 1 s
    facts = lab.run_experiment("mine", Options(workers=3))
    assert stub.options.workers == 3
    assert facts.results["rows"][0]["runs"] == [0, 1]
    assert facts.times["cpu_seconds"] == 2 * 1000 + 3 * 1


def test_a_trial_that_fails_ends_the_run_and_again_has_it_done_again(stub):
    stub.failing = ("run 1",)
    with pytest.raises(UserError, match=r"1 of 2 trials have failed, the first run 1 .* crashed: it broke; --again"):
        lab.run_experiment("mine", Options())
    assert not (EXPERIMENT.parent / "results.json").exists()
    stub.failing = ()
    lab.run_experiment("mine", Options(is_again=True))
    assert stub.done == ["run 0", "run 1"] * 2
    assert stub.options.retries == ()  # nothing is left to retry


def test_two_trials_of_one_name_are_refused(stub):
    change(EXPERIMENT, 'f"run {seed}"', '"run"')
    with pytest.raises(UserError, match="each trial of list_trials needs a name of its own"):
        lab.run_experiment("mine", Options())
    assert stub.done == []


def test_a_folder_in_which_another_process_works_is_refused(stub):
    out = Path("runs/lab/mine/full")
    with lab.workers.locked(out), pytest.raises(SurroundingsError, match="is in use by process"):
        lab.run_experiment("mine", Options())
    assert stub.done == []
    lab.run_experiment("mine", Options())


CLOCK = """

def weigh_times(times):
    # The seconds of the seeds are 4, 5 and 6: 5 +- 2.484.
    return {"KEY": [at_most("seconds", [row["seconds"] for row in times], BOUND)]}


def tabulate_times(times):
    return [Table("what it took", ("seconds",), tuple((str(row["seconds"]),) for row in times))]


def draw_times(times):
    return {"clock": plots.draw_bars([row["seconds"] for row in times], ["a", "b", "c"], title="Seconds")}
"""


def add_clock(*, key, bound):
    """Makes the example measure times, and judges a sentence by them."""
    change(EXPERIMENT, "return Measured(rows)", 'return Measured(rows, [{"seconds": 4 + seed}])')
    change(EXPERIMENT, 'FIGURES = {"sizes"', 'FIGURES = {"clock": "Seconds by the clock.", "sizes"')
    with EXPERIMENT.open("a") as stream:
        stream.write(CLOCK.replace("KEY", key).replace("BOUND", str(bound)))


def test_a_verdict_by_the_clock_lies_with_the_times_and_every_page_says_so(mine):
    add_clock(key="fast", bound=8)
    change(EXPERIMENT, "SENTENCES = {", 'SENTENCES = {"fast": ("It is fast.", "It takes five seconds."),')
    facts = lab.run_experiment("mine", Options())
    assert [judgement["key"] for judgement in facts.results["judgements"]] == ["size"]
    (judgement,) = facts.times["judgements"]
    assert (judgement["key"], judgement["verdict"]) == ("fast", "true")
    assert [part["values"] for part in judgement["evidence"]] == [[4, 5, 6]]
    assert facts.verdict_text("fast") == "true (by the clock)"
    assert facts.verdict_text("size") == "conditional"
    readme = (EXPERIMENT.parent / "README.md").read_text()
    assert "| true | part, by the clock | seconds | 5 (2.52 to 7.48, 3 seeds) | at most 8 |" in readme
    assert readme.count("the verdict is one of the machine named below") == 1
    assert "clock.svg" in readme
    assert "| true (by the clock) |" in Path("experiments/README.md").read_text()
    chapter = lab_page.write_chapter([facts])
    assert chapter.count("the verdict is one of the machine named below") == 1
    assert '<span class="soft">(part, by the clock)</span>' in chapter
    summary, _ = chapter.split("<section", 1)
    # Two lines, for the column is narrow.
    assert '<span class="outcome">true</span><br> <span class="soft">(by the clock)</span>' in summary


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [(8, "conditional"), (6, "not resolved"), (2, "conditional")],  # seeds alone: one part true, one false
)
def test_a_sentence_may_have_parts_by_the_clock_and_parts_by_the_seeds(mine, bound, verdict):
    add_clock(key="size", bound=bound)
    facts = lab.run_experiment("mine", Options())
    assert facts.results["judgements"] == []
    (judgement,) = facts.times["judgements"]
    assert judgement["verdict"] == verdict
    assert [evidence.role_of(part) for part in judgement["evidence"]] == ["part", "part", "part, by the clock"]


def test_results_json_is_the_same_bytes_whatever_the_clock_says(mine):
    add_clock(key="size", bound=6)
    lab.run_experiment("mine", Options())
    before = (EXPERIMENT.parent / "results.json").read_bytes()
    change(EXPERIMENT, "4 + seed", "40 + seed")
    facts = lab.run_experiment("mine", Options())
    assert facts.times["times"][0]["seconds"] == 40
    assert (EXPERIMENT.parent / "results.json").read_bytes() == before


COUNTED = '"counted": counted'
MEASURED = "return Measured(rows)"
WEIGHED = 'return {"size": evidence}'
MISSES = 'at_most(f"pixels too many or too few at stride {stride}", misses, 0)'


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (WEIGHED, 'return {"sise": evidence}', "weigh gives evidence for sise, and SENTENCES"),
        (MEASURED, "return rows", ":28: measure returned a list; it returns a Measured"),
        ('return {"sizes": ', 'return {"size": ', "draw gives size, and FIGURES has a caption for sizes"),
        ('("pixels", "stride", "left")', '("pixels",)', "has 3 cells for 1 columns"),
        ("pixels = 8 + seed", "pixels = 8 // 0", ":32: ZeroDivisionError"),
        ("def weigh", "def wiegh", "has no function weigh"),
        # rows
        (MEASURED, 'return Measured({"a": 1})', ":28: rows of Measured are a dict; give a list of dicts"),
        (MEASURED, "return Measured([3])", ":28: rows of Measured: row 0 is an int; give a dict"),
        (
            MEASURED,
            'return Measured(rows, [{"a": float("inf")}])',
            ":28: times, row 0, key 'a' is inf; rows hold finite",
        ),
        (COUNTED, '"counted": float("nan")', ":28: row 0, key 'counted' is nan; rows hold finite numbers, or None"),
        (
            COUNTED,
            '"counted": __import__("numpy").ones(2)',
            "row 0, key 'counted' is an array; give a number or a text",
        ),
        (COUNTED, '"counted": [{"a": {1}}]', "row 0, key 'counted', key 'a' is a set; give a number or a text"),
        (COUNTED, "3: counted", "row 0 has the key 3; a key is a text"),
        ("pixels = 8 + seed", "exit()", ":32: an experiment cannot end the program; return, or raise an error"),
        ("FILTER = 3  # pixels", "exit()", ":25: an experiment cannot end the program; return, or raise an error"),
        # evidence
        (WEIGHED, "return None", "weigh returned a NoneType; it returns {key of SENTENCES: [Evidence, ...]}"),
        (WEIGHED, 'return {"size": evidence[0]}', "weigh gives 'size' something else than a list of Evidence"),
        (WEIGHED, 'return {"size": [1, 2]}', "weigh gives 'size' something else than a list of Evidence"),
        (MISSES, 'at_most("none", [], 0)', "the evidence 'none' has 0 values for 3 seeds; give one a seed"),
        (MISSES, 'at_most("six", misses * 2, 0)', "the evidence 'six' has 6 values for 3 seeds; give one a seed"),
        (MISSES, 'at_most("a", [0, float("nan"), 0], 0)', "the evidence 'a' has the value nan for seed number 2; give"),
        (MISSES, 'at_most("a", misses, float("inf"))', "the evidence 'a' has the bound inf; give a finite number"),
        (
            MISSES,
            '__import__("cnn_vit").reports.evidence.Evidence("a", "atmost", 0, tuple(misses))',
            "did you mean at most",
        ),
        # tables and figures
        ("return [Table", "[Table", "tabulate returned a NoneType; it returns a list of Table"),
        ("cells = [(str(row", "cells = [((row", "the cell 8 is an int; write it as text, str(8)"),
        (
            'return {"sizes": ',
            'return {"sizes": None and ',
            "draw: the figure 'sizes' is a NoneType; give an SVG as text",
        ),
        ('return {"sizes": ', 'return {"sizes": "a bar"} or {"sizes": ', "draw: the figure 'sizes' is no SVG"),
        ('return {"sizes": ', '{"sizes": ', "draw returned a NoneType; it returns {name of FIGURES: SVG}"),
        # texts and seeds
        ("SEEDS = (0, 1, 2)", "SEEDS = (0, 0, 2)", ":23: SEEDS is (0, 0, 2); it takes different whole numbers"),
        ("SEEDS = (0, 1, 2)", "SEEDS = 3", ":23: SEEDS is 3; it takes different whole numbers"),
        ("SEEDS = (0, 1, 2)", "SEEDS = ()", ":23: SEEDS is (); it takes different whole numbers"),
        ("SEEDS = (0, 1, 2)", "SEEDS = (0.0, 1.0)", ":23: SEEDS is (0.0, 1.0); it takes different whole numbers"),
        ("SEEDS = (0, 1, 2)", 'SEEDS = ("../../../a",)', ":23: SEEDS is ('../../../a',); it takes different whole"),
        ('SURPRISE = "', 'SURPRISE = "" + "', ":21: SURPRISE is not a literal"),
        ("SURPRISE = ", "SUPRISE = ", "has no SURPRISE"),
        ('    "size": (', '    "size": [], "b": (', "SENTENCES is {key: "),
        ('FIGURES = {"sizes"', 'FIGURES = {["sizes"]', ":20: FIGURES is not a literal"),
        ('FIGURES = {"sizes"', 'FIGURES = {"../sizes"', "'../sizes' is no name of a figure or data set"),
        ('QUESTION = "', 'QUESTION = 3 # "', ":11: QUESTION is 3; give a text"),
        ("ORDER = 90", "ORDER = 9.5", ":10: ORDER is 9.5; give a whole number"),
        ("(n - k) / s) + 1.", '(n - k) / s) + 1.", "', "SENTENCES is {key: "),
        ("\\lfloor", "\\flooor", ":19: the formula m = \\flooor "),
        ("FILTER = 3  # pixels", "FILTER = = 3", "experiment.py:25: invalid syntax; an experiment is a Python file"),
    ],
)
def test_a_mistake_in_an_experiment_is_one_sentence(mine, old, new, sentence):
    change(EXPERIMENT, old, new)
    with pytest.raises(UserError, match=re.escape(sentence)) as raised:
        lab.run_experiment("mine", Options())
    assert str(raised.value).count("experiment.py") == 1 or "did you mean" in sentence
    files = [path.name for path in Path().rglob("*") if path.is_file()]
    assert set(files) <= {"experiment.py", "lock", "0.json", "1.json", "2.json"}


def test_numbers_of_numpy_and_jax_are_numbers_in_rows_and_evidence(mine):
    import jax.numpy as jnp
    import numpy as np

    assert lab_checks.check_rows(
        [
            {
                "a": np.int64(3),
                "b": np.float32(0.5),
                "c": jnp.float32(0.25),
                "d": np.bool_(True),
                "e": (np.float64(2), "x"),
            }
        ],
        name="rows",
    ) == [{"a": 3, "b": 0.5, "c": 0.25, "d": True, "e": [2.0, "x"]}]
    change(EXPERIMENT, '"counted": counted', '"counted": jnp.float32(counted)')
    change(EXPERIMENT, "misses, 0)", "jnp.array(misses), jnp.float32(0))")
    change(EXPERIMENT, "from cnn_vit import plots", "import jax.numpy as jnp\n\nfrom cnn_vit import plots")
    change(EXPERIMENT, 'draw_bars([row["counted"]', 'draw_bars([float(row["counted"])')
    facts = lab.run_experiment("mine", Options())
    (judgement,) = facts.results["judgements"]
    assert [part["values"] for part in judgement["evidence"]] == [[0, 0, 0], [3, 3, 4]]


def test_a_fresh_run_sees_the_same_rows_as_one_that_goes_on(mine):
    change(EXPERIMENT, '"counted": counted', '"counted": counted, "place": (1, {2: 3})')
    seen = []
    weigh = lab.judge_sentences

    def watch(experiment, rows, times):
        seen.append(rows)
        return weigh(experiment, rows, times)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(lab, "judge_sentences", watch)
        lab.run_experiment("mine", Options())
        lab.run_experiment("mine", Options())
    assert seen[0] == seen[1]
    assert seen[0][0]["place"] == [1, {"2": 3}]


# Other data -----------------------------------------------------------------------------------------------------------


def take_mnist():
    """Makes the example one that can be given MNIST, of which it keeps what it was given."""
    change(EXPERIMENT, "SEEDS = (0, 1, 2)", 'ALSO_ON = {"mnist": "On MNIST it is no other."}\nSEEDS = (0, 1, 2, 3)')
    change(EXPERIMENT, "runs, *, quick: bool)", "runs, *, quick: bool, data=None)")
    text = EXPERIMENT.read_text()
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith("pixels = "))
    change(EXPERIMENT, line, f"{line} if data is None else 28")
    change(EXPERIMENT, "return Measured(rows)", "return Measured(rows, [data.section] if data else [])")


def test_what_other_data_give_is_stated_apart(mine):
    take_mnist()
    own = lab.run_experiment("mine", Options())
    before = contents(EXPERIMENT.parent)
    given = lab.run_experiment("mine", Options(data=OtherData("mnist")))
    assert contents(EXPERIMENT.parent) == before  # the results on its own data
    assert own.results["seeds"] == [0, 1, 2, 3]
    assert given.results["seeds"] == [0, 1, 2]  # three are enough
    assert (own.results["data"], given.results["data"]) == ("", "mnist")
    # 28 pixels leave 26 at stride 1, which is n - k + 1, and 13 at stride 2, which is 13 too few.
    (judgement,) = given.results["judgements"]
    assert [part["values"] for part in judgement["evidence"]] == [[0, 0, 0], [13, 13, 13]]
    folder = EXPERIMENT.parent / "mnist"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "results.json", "timing.json"]
    page = (folder / "README.md").read_text()
    assert "cnn-vit lab run mine --data=mnist" in page
    assert "On MNIST it is no other." in page
    assert "13 (the same with all 3 seeds)" in page
    readme = (EXPERIMENT.parent / "README.md").read_text()
    assert "| \u201cThe output of a convolution has n - k + 1 pixels.\u201d | conditional | conditional |" in readme
    chapter = lab_page.write_chapter(lab_facts.read_all(Path("experiments")))
    summary, _, rest = chapter.partition("<section")
    assert summary.count("n - k + 1 pixels") == 1  # the contents are about the experiment's own data
    assert "<h3>The same on mnist</h3>" in rest
    assert "13 (the same with all 3 seeds)" in rest
    assert refresh_readmes(Path("experiments")) == []
    (folder / "README.md").write_text("edited by hand")
    assert refresh_readmes(Path("experiments")) == [folder / "README.md"]


def test_other_data_come_from_the_published_files_or_from_a_file_of_arrays(mine, monkeypatch):
    take_mnist()
    facts = lab.run_experiment("mine", Options(data=OtherData("mnist"), is_quick=True))
    assert facts.times["times"][0] == {"seed": 0, "name": "mnist"}
    assert facts.source == Path("runs/lab/mine/mnist-quick")
    facts = lab.run_experiment("mine", Options(data=OtherData("mnist", Path("a.npz")), is_quick=True, is_again=True))
    path = str(Path("a.npz").absolute())
    assert facts.times["times"][0] == {"seed": 0, "name": "arrays", "path": path}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mnits", "no data set that mine can be given 'mnits'; did you mean mnist?"),
        ("cifar10", "no data set that mine can be given 'cifar10'; there is mnist"),
    ],
)
def test_data_that_an_experiment_cannot_be_given_are_a_sentence(mine, name, sentence):
    with pytest.raises(UserError, match=f"mine is measured on its own data alone; leave --data={name} out"):
        lab.run_experiment("mine", Options(data=OtherData(name)))
    take_mnist()
    with pytest.raises(UserError, match=re.escape(sentence)):
        lab.run_experiment("mine", Options(data=OtherData(name)))
    assert not Path("runs").exists()


# Pages ----------------------------------------------------------------------------------------------------------------


def test_the_chapter_needs_nothing_else_and_sets_its_formulas(mine):
    lab.run_experiment("mine", Options())
    chapter = lab_page.write_chapter(lab_facts.read_all(Path("experiments")))
    assert chapter.count("<math") == 1
    assert "<svg" in chapter
    assert not re.search(r"<script|<link|@import|url\(http|src=\"http", chapter)
    assert "conditional" in chapter
    assert chapter.count("<style>") == 2  # of the page and of its block: figures bring none


def test_a_text_in_an_experiment_is_escaped(mine):
    change(EXPERIMENT, "What nobody had expected.", "<b>x</b> & y")
    lab.run_experiment("mine", Options())
    assert "&lt;b&gt;x&lt;/b&gt; &amp; y" in lab_page.write_chapter(lab_facts.read_all(Path("experiments")))


def test_readmes_are_brought_up_to_date_and_only_those(mine):
    lab.run_experiment("mine", Options())
    assert refresh_readmes(Path("experiments")) == []
    (EXPERIMENT.parent / "README.md").write_text("edited by hand")
    assert refresh_readmes(Path("experiments")) == [EXPERIMENT.parent / "README.md"]


def test_a_readme_of_all_that_is_the_users_own_stays(mine):
    path = Path("experiments/README.md")
    path.write_text("# My laboratory\n")
    lab.run_experiment("mine", Options())
    assert path.read_text() == "# My laboratory\n"
    path.unlink()
    assert refresh_readmes(Path("experiments")) == [path]
    assert "`recipes`" not in path.read_text()  # such folders are of this repository
    path.write_text(path.read_text() + "by hand")
    assert refresh_readmes(Path("experiments")) == [path]


def break_other():
    """Writes an experiment that cannot be read beside the example."""
    write_skeleton("other")
    change(EXPERIMENT.parents[1] / "other" / "experiment.py", "FILTER = 3", "FILTER = = 3")


def test_an_experiment_that_cannot_be_read_keeps_no_other_from_being_measured(mine):
    lab.run_experiment("mine", Options())
    overview = Path("experiments/README.md").read_bytes()
    break_other()
    change(EXPERIMENT, "What nobody had expected.", "Nothing at all.")
    lab.run_experiment("mine", Options())
    assert "Nothing at all." in (EXPERIMENT.parent / "README.md").read_text()
    assert Path("experiments/README.md").read_bytes() == overview
    readable, broken = lab_facts.read_readable(lab_facts.list_folders(Path("experiments")))
    assert [facts.texts.name for facts in readable] == ["mine"]
    assert broken == {"other": "experiments/other/experiment.py:25: invalid syntax; an experiment is a Python file"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [("results.json", '"verdict"', '"verdikt"'), ("timing.json", '"machine"', '"masheen"'), ("results.json", "{", "[")],
)
def test_a_file_of_results_that_lacks_something_is_a_sentence(mine, name, old, new):
    lab.run_experiment("mine", Options())
    change(EXPERIMENT.parent / name, old, new)
    readable, broken = lab_facts.read_readable([EXPERIMENT.parent])
    assert readable == []
    assert f"experiments/mine/{name} is not " in broken["mine"]


def test_two_runs_do_not_write_the_same_results(mine):
    with locked(EXPERIMENT.parent / ".lock", waits=False):
        with pytest.raises(SurroundingsError, match="experiments/mine is in use by process"):
            lab.run_experiment("mine", Options(out=Path("o")))
        lab.run_experiment("mine", Options(is_quick=True))
    lab.run_experiment("mine", Options(out=Path("o")))
    assert list(Path("experiments").rglob(".lock*")) == []


def test_readmes_are_read_and_written_under_a_lock(mine):
    """The second process reads what the first has written, and so has nothing to write."""
    lab.run_experiment("mine", Options())
    path = EXPERIMENT.parent / "README.md"
    text = path.read_text()
    path.write_text("edited by hand")
    with ThreadPoolExecutor(1) as pool:
        with locked(Path("experiments/.lock"), waits=False):
            written = pool.submit(refresh_readmes, Path("experiments"))
            with pytest.raises(TimeoutError):
                written.result(timeout=0.5)
            path.write_text(text)
        assert written.result(timeout=30) == []


def test_experiments_here_and_those_of_the_package_are_found_and_a_name_is_taken_once(mine):
    folders = find_experiments()
    assert Path("experiments/mine") in folders
    assert TOP / "experiments" / "padding" in folders
    with pytest.raises(UserError, match="padding is an experiment that comes with the package; take another name"):
        write_skeleton("padding")
    shutil.copytree("experiments/mine", "experiments/padding")
    assert find_experiment("padding") == Path("experiments/padding")


def test_an_experiment_that_was_not_measured_says_so(mine):
    (facts,) = lab_facts.read_all(Path("experiments"))
    assert facts.verdict_summary == "not measured"
    assert "Nothing was measured yet." in lab_readme.write_readme(facts)
    assert "Nothing was measured yet." in lab_page.write_chapter([facts])


# The experiments of this repository -----------------------------------------------------------------------------------


def test_the_readmes_of_the_repository_are_those_that_results_json_gives():
    everything = lab_facts.read_all(TOP / "experiments")
    assert everything
    assert (TOP / "experiments" / "README.md").read_text() == lab_readme.write_overview(everything, has_scripts=True)
    for facts in everything:
        measured_on = [other.data for other in facts.others]
        for name, found in facts.texts.also_on.items():
            assert (name in measured_on) == (found != "Not measured yet.")
        for measured in (facts, *facts.others):
            assert (measured.source / "README.md").read_text() == lab_readme.write_readme(measured)
            assert measured.results is not None
            assert not measured.results["is_quick"]
            assert len(measured.results["seeds"]) >= evidence.LEAST_SEEDS


def test_the_verdicts_of_the_repository_follow_from_their_rows():
    """Judged again from the rows alone, as `lab run` does."""
    for experiment_facts in lab_facts.read_all(TOP / "experiments"):
        experiment = lab.load_experiment(experiment_facts.texts.folder)
        for facts in (experiment_facts, *experiment_facts.others):
            experiment = dataclasses.replace(experiment, seeds=tuple(facts.results["seeds"]))
            judgements = lab.judge_sentences(experiment, facts.results["rows"], facts.times["times"])
            judged_again = {judgement["key"]: judgement for judgement in json.loads(json.dumps(judgements))}
            assert judged_again == {judgement["key"]: judgement for judgement in facts.judgements}
            tables = lab_facts.tables_to_json(experiment.module.tabulate(facts.results["rows"]))
            assert json.loads(json.dumps(tables)) == facts.results["tables"]


def is_pytest_command(command):
    """Whether a command of pytest names a file that is there, and tests that the file has: behind `::` or `-k`."""
    _, target, *flags = shlex.split(command)
    path, *names = target.split("::")
    if not (TOP / path).is_file():
        return False
    text = (TOP / path).read_text()
    words = re.findall(r"\w+", flags[flags.index("-k") + 1]) if "-k" in flags else []
    patterns = [rf"^ *(def|class) {name.partition('[')[0]}\b" for name in names]
    patterns += [rf"^ *def test_\w*{word}" for word in words if word not in ("and", "or", "not")]
    return all(re.search(pattern, text, re.MULTILINE) for pattern in patterns)


@pytest.mark.parametrize(
    ("rest", "is_there"),
    [
        ("test_shift.py", True),
        ("test_shifd.py", False),
        ("test_attention_cost.py::test_each_form_of_attention_is_attention", True),
        ("test_attention_cost.py::test_each_form_of_attention_is", False),
        ("test_attention_cost.py -k 'memory and not half'", True),
        ("test_attention_cost.py -k 'memory and not quarter'", False),
    ],
)
def test_a_command_of_pytest_names_tests_that_are_there(rest, is_there):
    assert is_pytest_command(f"pytest tests/analysis/{rest}") == is_there


def test_each_formula_of_the_repository_names_a_command_that_is_there():
    commands = [path.stem for path in (TOP / "cnn_vit" / "cli").glob("[a-z]*.py")]
    for facts in lab_facts.read_all(TOP / "experiments"):
        assert facts.texts.formulas
        for formula in facts.texts.formulas:
            program, first, *_ = shlex.split(formula.command)
            if program == "pytest":
                assert is_pytest_command(formula.command), formula.command
            else:
                assert (program, first in commands) == ("cnn-vit", True), formula.command


@pytest.mark.slow
@pytest.mark.parametrize("name", [facts.texts.name for facts in lab_facts.read_all(TOP / "experiments")])
def test_the_quick_mode_of_each_experiment_runs_and_its_controls_hold(name, tmp_path):
    facts = lab.run_experiment(name, Options(is_quick=True, out=tmp_path))
    assert facts.results["is_quick"]
    for judgement in facts.judgements:
        controls = [part for part in judgement["evidence"] if evidence.role_of(part) == "control"]  # of no clock
        for part in controls:  # a quick run may train one seed, which decides nothing: each value itself has to hold
            signs = {"at most": 1, "at least": -1}
            assert all(signs[part["relation"]] * (value - part["bound"]) <= 0 for value in part["values"])


@pytest.mark.slow
def test_the_quick_mode_on_mnist_runs_and_its_controls_hold_on_made_up_images(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 1100), ("test", 300)):  # as many as the quick mode reads
        arrays[f"{split}_x"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_y"] = rng.integers(0, 10, count, dtype=np.int32)
    np.savez(tmp_path / "digits.npz", **arrays)
    data = OtherData("mnist", tmp_path / "digits.npz")
    facts = lab.run_experiment("why_convolution", Options(is_quick=True, out=tmp_path / "out", data=data))
    assert (facts.data, facts.results["is_quick"]) == ("mnist", True)
    assert {row["accuracy"] for row in facts.results["rows"] if row["what"] == "run"} <= {n / 300 for n in range(301)}
    controls = [part for judgement in facts.judgements for part in judgement["evidence"] if part["is_control"]]
    assert [part["outcome"] for part in controls] == ["true", "true"]


def test_the_example_is_a_file_of_the_house():
    assert "TITLE" in SKELETON.splitlines()[0]
    compile(SKELETON, "experiment.py", "exec")


def test_the_chapter_ends_with_commands_that_are_there():
    chapter = lab_page.write_chapter(lab_facts.read_all(TOP / "experiments"))
    assert 'href="#by_hand"' in chapter
    commands = chapter.partition('id="by_hand"')[2].partition("<pre>")[2].partition("</pre>")[0].splitlines()
    assert len(commands) == 5
    for command in commands:
        assert (TOP / "cnn_vit" / "cli" / f"{command.split()[1]}.py").is_file()


def test_the_verdicts_that_the_readme_tells_are_those_of_the_experiments():
    rows = re.findall(
        r"^\| (.+) \| \[(.+)\]\(experiments/(\w+)/README\.md\) \|$", (TOP / "README.md").read_text(), re.M
    )
    assert len(rows) >= 7
    for text, verdict, name in rows:
        facts = lab_facts.read_facts(TOP / "experiments" / name)
        (key,) = [sentence.key for sentence in facts.texts.sentences if sentence.text.startswith(text.rstrip("."))]
        assert facts.verdict(key) == verdict
