"""A signal at any moment of a run, from its first line to after its report, ends it with its code and one sentence.

Real processes are started. The fast tests wait for a cause, such as the lock of the run, and send a signal then; the
slow ones send it at moments spread over the start-up, and over the rest. These are counted in CPU-seconds of the
process: other than those of a clock, they say how far it is, however many others want the cores.
"""

import re
import signal

import pytest
from running import COMMON, RECIPES, committed_steps, find_leftovers, read_outcome, train, undisturbed_outcome
from signaling import (
    STARTS_AGAIN,
    cpu_seconds,
    end_by_signal,
    handles_signals,
    imports_jax,
    measure_life,
    start,
    wait_until,
)

from cnn_vit.runs import folder as run_folder

BEFORE = "stopped by {} before this start trained a step; the same command starts again"
AT_STEP = r"stopped at step \d+ by {}; the same command resumes"
AFTER = "stopped after its last step by {}; the same command tests the network and writes the result"
IN_REPORT = "the run is finished, but its report was stopped by {}; the same command makes it"
STARTS = 60  # signals in the start-up
LATER_STARTS = 12  # signals from the first step on


def start_run(folder, **environment):
    """Starts a tiny run in a process of its own; keywords are variables of its environment."""
    recipe, *recipe_changes = RECIPES["mlp"]
    overrides = [f"--config.{setting}" for setting in (*recipe_changes, *COMMON)]
    return start(["train", f"--config={recipe}", *overrides, f"--workdir={folder}"], **environment)


def check_state(ending, folder):
    """Checks that a run folder holds what the last sentence of its run says."""
    is_finished = (folder / "result.json").exists()
    if ending.code == 0:
        assert (folder / "report.html").exists()
        assert "next: cnn-vit predict" in ending.stdout
    elif ending.says(STARTS_AGAIN):
        assert not folder.exists()
    elif ending.says(BEFORE):
        assert not run_folder.has_begun(folder)
    elif ending.says(AT_STEP):
        assert committed_steps(folder)[-1] == int(re.search(r"step (\d+)", ending.lines[-1])[1])
        assert not is_finished
    elif ending.says(AFTER):
        assert committed_steps(folder)[-1] == 12
        assert not is_finished
    else:
        assert ending.says(IN_REPORT), ending
        assert is_finished
        assert "next: cnn-vit predict" in ending.stdout  # the result is printed nevertheless


# Six moments, by their causes -----------------------------------------------------------------------------------------

CAUSES = {
    "first line": (signal.SIGINT, handles_signals, (STARTS_AGAIN,)),
    "import of jax": (signal.SIGTERM, imports_jax, (STARTS_AGAIN,)),
    "lock": (signal.SIGINT, "lock", (BEFORE,)),
    # the step is compiled next; the signal may be late, and come in the first step or another
    "environment": (signal.SIGTERM, "environment.json", (BEFORE, AT_STEP)),
}


@pytest.mark.parametrize(("number", "cause", "sentences"), CAUSES.values(), ids=CAUSES)
def test_a_signal_at_a_moment_of_a_start_ends_it_with_its_code_and_one_sentence(number, cause, sentences, tmp_path):
    folder = tmp_path / "run"
    process = start_run(folder)
    if isinstance(cause, str):
        wait_until(process, (folder / cause).exists)
    else:
        wait_until(process, lambda: cause(process))
    ending = end_by_signal(process, number)
    assert ending.says(*sentences), ending
    check_state(ending, folder)
    assert not find_leftovers(tmp_path)


def test_a_signal_while_the_report_is_made_ends_a_run_that_is_finished(tmp_path):
    process = start_run(tmp_path)
    wait_until(process, (tmp_path / "result.json").exists)
    ending = end_by_signal(process, signal.SIGINT)
    assert ending.code == 0 or ending.says(IN_REPORT), ending  # the signal may be late
    check_state(ending, tmp_path)
    assert not find_leftovers(tmp_path)


def test_a_signal_after_the_report_changes_nothing(tmp_path):
    process = start_run(tmp_path)
    wait_until(process, (tmp_path / "report.html").exists)
    ending = end_by_signal(process, signal.SIGTERM)
    assert ending.code == 0
    check_state(ending, tmp_path)
    assert not find_leftovers(tmp_path)


# Sixty moments, by the CPU-seconds of the process ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """CPU-seconds that an undisturbed run has used at its first line, at its first logged step, and at its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start_run(folder)
    marks, _ = measure_life(process, lambda: handles_signals(process), (folder / "metrics.jsonl").exists)
    return marks


def check_moment(folder, moment, number, **environment):
    """Sends a run a signal once it has used so many CPU-seconds, and checks its end and its outcome when resumed."""
    process = start_run(folder, **environment)
    wait_until(process, lambda: handles_signals(process) and cpu_seconds(process) >= moment)
    ending = end_by_signal(process, number)
    check_state(ending, folder)
    train("mlp", folder)
    assert read_outcome(folder) == undisturbed_outcome("mlp")
    assert not find_leftovers(folder)
    return ending


# Every third of them is a slow test, with both signals, and with and without a compiler at work.
ALL_PLACES = [
    pytest.param(place, marks=pytest.mark.slow if place % 9 < 3 else pytest.mark.exhaustive) for place in range(STARTS)
]


@pytest.mark.parametrize("place", ALL_PLACES)
def test_a_signal_at_any_of_sixty_moments_of_a_start_ends_it(place, tmp_path, life):
    first_line, first_step, _ = life
    moment = first_line + (first_step - first_line) * place / STARTS
    number = (signal.SIGTERM, signal.SIGINT)[place % 2]
    # In every third start the compiler works, instead of a cache that holds what it made before.
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "false"} if place % 3 == 0 else {}
    ending = check_moment(tmp_path / "run", moment, number, **environment)
    assert ending.code, ending  # none of them comes to its end


@pytest.mark.slow
@pytest.mark.parametrize("place", range(LATER_STARTS))
def test_a_signal_at_any_moment_from_the_first_step_on_ends_a_run_or_comes_too_late(place, tmp_path, life):
    _, first_step, end = life
    moment = first_step + (end - first_step) * place / (LATER_STARTS - 1)
    check_moment(tmp_path / "run", moment, (signal.SIGTERM, signal.SIGINT)[place % 2])
