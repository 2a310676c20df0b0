"""Signals: nothing is raised out of a handler, a safe point obeys, and a thread ends what comes to none in time.

The processes here import `cnn_vit.stops` alone, as a command does before anything else.
"""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from cnn_vit import stops
from cnn_vit.data.base.threads import IMAGES_PER_TASK, map_ranges
from cnn_vit.errors import StoppedError

PATIENCE = 600  # seconds until a process that does not end fails its test

# The main thread is busy outside of Python and runs no handler, as while it compiles: no signal wakes it.
BUSY = "signal.pthread_sigmask(signal.SIG_BLOCK, stops.SIGNALS); time.sleep({})"
A_SECOND = BUSY.format(1)
FOR_EVER = BUSY.format(10 * PATIENCE)
BEGINNING = """
import atexit, os, signal, sys, threading, time
from cnn_vit import stops
from cnn_vit.errors import StoppedError
"""


def start_program(lines, *, hangup=signal.SIG_DFL):
    """Starts lines of Python in a process of their own, and returns it once it has printed "ready".

    `hangup` is what the process does by itself at a SIGHUP. It must not be inherited: under `nohup` it is ignored.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINNING + lines],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
    )
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def end_program(process, *numbers, pause=0.0):
    """Sends a process signals, with a pause of so many seconds between them; returns exit code and stderr's lines."""
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    try:
        _, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # does nothing to a process that has ended
    return process.returncode, stderr.splitlines()


def command(body, *, first="", grace=2.0, owns_process=True, options=""):
    """Lines of a program that does `first` and `body` while it handles signals, and prints "ready" between them.

    It has `grace` seconds to come to a safe point; `options` are further keywords of `handle_signals`.
    """
    indented = body.replace("\n", "\n    ")
    return f"""
stops.GRACE_SECONDS = {grace}
with stops.handle_signals(owns_process={owns_process}, {options}) as stop:
    {first}
    print("ready", flush=True)
    {indented}
"""


# A safe point ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_echo(monkeypatch):
    """Here a signal has no echo to wait for."""
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_echo")
def test_code_of_a_users_is_interrupted_and_behind_it_a_signal_is_only_noted():
    with stops.handle_signals(heeds_second=False) as stop:
        with (
            pytest.raises(StoppedError, match="stopped by SIGINT; the same command starts again"),
            stops.interrupting(),
        ):
            signal.raise_signal(signal.SIGINT)
        stop.requested = None
        signal.raise_signal(signal.SIGINT)
        assert stop.requested == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.usefixtures("_no_echo")
def test_a_signal_in_a_callback_of_the_garbage_collection_is_not_lost(number, monkeypatch):
    """As in jax's: what a handler raises there, Python prints and forgets."""
    forgotten = []
    monkeypatch.setattr(sys, "unraisablehook", forgotten.append)

    def collect(phase, info):
        if phase == "start":
            os.kill(os.getpid(), number)

    with stops.handle_signals() as stop:
        stops.raise_if_requested()  # no signal yet
        gc.callbacks.append(collect)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(collect)
        assert stop.requested == number
        with pytest.raises(StoppedError) as error:
            stops.raise_if_requested()
    assert forgotten == []
    assert error.value.code == 128 + number
    assert str(error.value) == f"stopped by {number.name}; the same command starts again"


@pytest.mark.usefixtures("_no_echo")
def test_while_a_run_trains_no_safe_point_raises_and_its_end_does():
    with stops.handle_signals() as stop, stop.saying(stops.STOPPED_BEFORE):
        stop.begin_training()
        os.kill(os.getpid(), signal.SIGTERM)
        stops.raise_if_requested()
        with pytest.raises(StoppedError, match="stopped after its last step by SIGTERM"):
            stop.end_training()


@pytest.mark.usefixtures("_no_echo")
def test_a_signal_before_training_is_obeyed_where_training_would_begin():
    with stops.handle_signals() as stop, stop.saying(stops.STOPPED_BEFORE):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(StoppedError, match="stopped by SIGTERM before this start trained a step"):
            stop.begin_training()


@pytest.mark.usefixtures("_no_echo")
def test_a_signal_that_nothing_obeyed_goes_to_the_handler_from_before():
    numbers = []
    before = signal.signal(signal.SIGINT, lambda number, frame: numbers.append(number))
    try:
        with stops.handle_signals():
            os.kill(os.getpid(), signal.SIGINT)
            assert numbers == []
        assert numbers == [signal.SIGINT]
        with stops.handle_signals():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(StoppedError):
                stops.raise_if_requested()
        assert numbers == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.usefixtures("_no_echo")
def test_work_on_many_images_ends_at_a_signal(workers):
    done = []

    def work(rows):
        done.append(rows)
        if rows.start == IMAGES_PER_TASK:
            os.kill(os.getpid(), signal.SIGTERM)
            while stops.StopSignals.active.requested is None:  # the main thread handles it
                time.sleep(0.001)

    with stops.handle_signals(), pytest.raises(StoppedError):
        list(map_ranges(work, 1000 * IMAGES_PER_TASK, workers))
    assert len(done) < 100


# No safe point --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)]
)
def test_a_process_that_comes_to_no_safe_point_ends_with_one_sentence(number, code):
    process = start_program(command(FOR_EVER))
    sentence = f"stopped by {number.name}; the same command starts again"
    assert end_program(process, number) == (code, [sentence])


def test_a_process_has_two_seconds_to_come_to_a_safe_point():
    process = start_program(command(f"{A_SECOND}\nprint('done', file=sys.stderr)\nos._exit(7)"))
    assert end_program(process, signal.SIGTERM) == (7, ["done"])
    process = start_program(command(FOR_EVER))
    began = time.monotonic()
    assert end_program(process, signal.SIGTERM)[0] == 143
    assert time.monotonic() - began > 1.9


def test_a_second_signal_ends_a_process_at_once():
    process = start_program(command(FOR_EVER, grace=10 * PATIENCE))
    sentence = "stopped by SIGINT; the same command starts again"
    assert end_program(process, signal.SIGTERM, signal.SIGINT, pause=1.0) == (130, [sentence])


def test_the_echo_of_a_signal_is_not_a_second_one():
    process = start_program(command(f"{A_SECOND}\nos._exit(7)", grace=10 * PATIENCE))
    assert end_program(process, signal.SIGTERM, signal.SIGTERM, pause=0.05) == (7, [])


def test_a_second_signal_ends_no_process_that_no_person_watches():
    body = f"{BUSY.format(1.5)}\nprint(stop.stopped_error(3), file=sys.stderr)"
    process = start_program(command(body, first="stop.begin_training()", grace=0.6, options="heeds_second=False"))
    lines = [
        "SIGUSR1: finishing the step and saving",
        "stopped at step 3 by SIGUSR1; the same command resumes",
    ]
    assert end_program(process, signal.SIGUSR1, signal.SIGTERM, pause=0.8) == (0, lines)


def test_what_a_command_does_last_of_all_is_done_before_its_process_is_ended():
    options = "before_end=lambda number: print('requeued after', number, file=sys.stderr)"
    process = start_program(command(FOR_EVER, grace=0.6, options=options))
    sentence = "stopped by SIGUSR1; the same command starts again"
    assert end_program(process, signal.SIGUSR1) == (138, [sentence, "requeued after 10"])
    process = start_program(command(FOR_EVER, grace=0.6, options="before_end=lambda number: 1 / 0"))
    assert end_program(process, signal.SIGUSR1) == (138, [sentence])


def test_a_step_under_way_is_not_ended():
    body = f"{BUSY.format(1.5)}\nprint(stop.stopped_error(3), file=sys.stderr)"
    process = start_program(command(body, first="stop.begin_training()", grace=0.6))
    lines = [
        "SIGTERM: finishing the step and saving; a second one stops at once",
        "stopped at step 3 by SIGTERM; the same command resumes",
    ]
    assert end_program(process, signal.SIGTERM) == (0, lines)


def test_a_process_that_only_uses_the_package_is_not_ended():
    body = (
        f"{BUSY.format(1.5)}\ntry: stops.raise_if_requested()\nexcept StoppedError as error: os._exit(error.code + 1)"
    )
    process = start_program(command(body, grace=0.6, owns_process=False))
    assert end_program(process, signal.SIGTERM) == (144, [])


def test_under_nohup_a_closed_terminal_ends_nothing():
    process = start_program(command(f"{A_SECOND}\nos._exit(7)", grace=0.6), hangup=signal.SIG_IGN)
    assert end_program(process, signal.SIGHUP) == (7, [])


# After the command ----------------------------------------------------------------------------------------------------

SIGNAL_AT_THE_VERY_END = """
class Sender:
    kill, getpid = os.kill, os.getpid  # modules are taken down before the last objects

    def __del__(self):
        for number in (15, 2):
            self.kill(self.getpid(), number)

sys.modules["sender"] = Sender()
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
stops.end_command(0)
"""


def test_a_signal_after_the_command_changes_no_exit_code_while_python_shuts_down():
    process = start_program(command(SIGNAL_AT_THE_VERY_END))
    assert end_program(process) == (0, [])


STOPPED_COMMAND = """
os.kill(os.getpid(), signal.SIGTERM)
try:
    stops.raise_if_requested()
except StoppedError as error:
    stops.end_command(error.code)
"""


def test_a_stopped_command_does_not_take_python_down_around_the_threads_of_libraries():
    process = start_program(command(STOPPED_COMMAND, first="atexit.register(os._exit, 99)"))
    assert end_program(process) == (143, [])


def test_a_shutdown_that_hangs_is_ended_by_a_signal_with_the_commands_own_code():
    body = "stops.end_command(4)\nthreading.Thread(target=time.sleep, args=(600,)).start()\nsys.exit(4)"
    process = start_program(command(body, grace=0.6))
    assert end_program(process, signal.SIGTERM) == (4, [])


def test_a_signal_finds_a_process_without_stderr():
    process = start_program(command("sys.stderr = None\n" + FOR_EVER, grace=0.6))
    assert end_program(process, signal.SIGTERM) == (143, [])
