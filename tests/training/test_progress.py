"""The progress display: a bar on a terminal, lines elsewhere, and it never stops a run."""

import io
import time

import pytest

from cnn_vit.training import progress as progress_display
from cnn_vit.training.progress import Progress


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock as a list of one number, its time in seconds, which a test sets."""
    time_now = [100.0]
    monkeypatch.setattr(progress_display, "now", lambda: time_now[0])
    return time_now


def test_without_a_terminal_there_is_a_line_every_ten_seconds_and_a_last_one(clock):
    stream = io.StringIO()
    with Progress(100, batch_size=8, stream=stream) as progress:
        for step in range(1, 101):
            clock[0] += 60.0 if step == 1 else 0.5  # the first step compiles
            progress.update(step, accuracy=0.875 if step == 30 else None)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "step 1 of 100"
    assert lines[1] == "step 21 of 100, 16 images/s, 0:00:40 left"  # 2 steps of 8 images a second, 79 steps to go
    assert lines[2] == "step 41 of 100, 16 images/s, 0:00:30 left, accuracy 0.8750"
    assert lines[-1] == "step 100 of 100, 16 images/s, 0:00:00 left, accuracy 0.8750"
    assert len(lines) == 6


def test_speed_is_that_of_the_last_half_minute(clock):
    stream = io.StringIO()
    progress = Progress(1000, stream=stream)
    for step in range(1, 201):
        clock[0] += 1.0 if step <= 100 else 0.5
        progress.update(step)
    assert "2 images/s, 0:06:40 left" in stream.getvalue().splitlines()[-1]  # 800 steps at 2 a second


def test_a_resumed_run_counts_the_steps_before_but_not_their_time(clock):
    stream = io.StringIO()
    progress = Progress(100, step=50, stream=stream)
    for step in range(51, 75):
        clock[0] += 1.0
        progress.update(step)
    assert stream.getvalue().splitlines()[0] == "step 60 of 100, 1 images/s, 0:00:40 left"


def test_on_a_terminal_a_bar_shows_step_speed_time_left_and_accuracy(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(100, batch_size=8, stream=stream) as progress:
        for step in range(1, 101):
            clock[0] += 0.5
            progress.update(step, accuracy=0.875)
        progress.say("a sentence with [brackets]")
    output = stream.getvalue()
    assert "50/100" in output
    assert ", 16 images/s" not in output  # nothing but the bar stands before it
    assert "16 images/s, 0:00:25 left, accuracy 0.8750" in output
    assert "a sentence with [brackets]" in output
    assert "\x1b[?25h" in output  # the cursor is back


def test_a_terminal_that_cannot_draw_gets_lines(clock, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress(100, stream=stream) as progress:
        for step in range(1, 51):
            clock[0] += 0.5
            progress.update(step)
        progress.say("a sentence")
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("step 20 of 100")
    assert lines[-2:] == ["a sentence", "step 50 of 100, 2 images/s, 0:00:25 left"]


def test_a_total_that_becomes_another_one_is_shown_at_the_end(clock, monkeypatch):
    stream = io.StringIO()
    with Progress(100, stream=stream) as progress:
        progress.update(40)
        progress.set_total(40)
    assert stream.getvalue().splitlines()[-1].startswith("step 40 of 40")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Progress(100, stream=terminal) as progress:
        progress.update(40)
        progress.set_total(40)
    assert "40/40" in terminal.getvalue()


def test_a_stream_that_is_gone_does_not_stop_the_run(clock):
    class ClosedPipe(io.StringIO):
        def write(self, _):
            raise BrokenPipeError

    with Progress(2, stream=ClosedPipe(), every=0) as progress:
        progress.update(1)
        progress.say("nobody reads this")


def test_an_update_takes_microseconds():
    progress = Progress(10**6, stream=io.StringIO())
    start = time.process_time()
    for step in range(20_000):
        progress.update(step)
    assert (time.process_time() - start) / 20_000 < 20e-6
