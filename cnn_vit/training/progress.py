"""How far a run is, shown on stderr: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import math
import sys
from collections import deque
from typing import Any, TextIO

from cnn_vit.runs.journal import now

WINDOW = 30.0  # seconds over which the speed is taken


class Progress:
    """How far the run is, on stderr: a bar on a terminal, elsewhere a line now and then.

    Args:
        total: steps of the run.
        at: the step it starts from.
        batch_size: images a step.
        stream: where to; stderr by default.
        every: least seconds between two lines where there is no terminal.
    """

    def __init__(
        self, total: int, *, at: int = 0, batch_size: int = 1, stream: TextIO | None = None, every: float = 10.0
    ):
        self._stream = stream or sys.stderr
        self._total, self._step, self._batch_size = total, at, batch_size
        self._accuracy: float | None = None
        self._compiling = True
        self._bar = make_bar(self._stream, total, at) if self._stream.isatty() else None
        self._every = 0.2 if self._bar else every
        self._marks = deque([(now(), at)])
        self._due = self._marks[0][0] + self._every
        self._shown = at

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Takes the number of steps done, and a new validation accuracy where there is one; shows them seldom."""
        time, self._step = now(), step
        if accuracy is not None:
            self._accuracy = accuracy
        if self._compiling:  # the first step's time is no measure of those to come
            self._compiling, self._marks[0] = False, (time, step)
        if time >= self._due:
            self._show(time)

    def say(self, sentence: str) -> None:
        """Shows a sentence at once, above the bar."""
        with contextlib.suppress(OSError, ValueError):
            if self._bar:
                self._bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
            else:
                print(sentence, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last step and gives the terminal back."""
        if self._step != self._shown:
            self._show(now())
        if self._bar:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, time: float) -> None:
        self._due = time + self._every
        self._shown = self._step
        self._marks.append((time, self._step))
        while len(self._marks) > 2 and time - self._marks[1][0] > WINDOW:
            self._marks.popleft()
        facts = self._facts()
        if self._bar:
            with contextlib.suppress(OSError, ValueError):
                self._bar.update(self._bar.task_ids[0], completed=self._step, facts=facts)
                self._bar.refresh()
        else:
            self.say(f"step {self._step} of {self._total}{facts}")

    def _facts(self) -> str:
        """Speed, time left and last accuracy: `, 1,234 images/s, 0:00:12 left, accuracy 0.9876`."""
        (then, before), (time, step) = self._marks[0], self._marks[-1]
        text = ""
        if step > before and time > then:
            pace = (step - before) / (time - then)
            text = f", {pace * self._batch_size:,.0f} images/s, {time_left_text((self._total - step) / pace)} left"
        return text + (f", accuracy {self._accuracy:.4f}" if self._accuracy is not None else "")


def time_left_text(seconds: float) -> str:
    """Seconds as h:mm:ss, rounded up."""
    whole = math.ceil(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def make_bar(stream: TextIO, total: int, at: int) -> Any:
    """A bar of rich, drawn when told to, without a thread of its own; None on a terminal that cannot draw one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Rich

    console = Console(file=stream, stderr=True)
    if console.is_dumb_terminal:  # TERM=dumb, as in an editor's shell: rich would show nothing before the end
        return None
    columns = TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=30), TextColumn("{task.fields[facts]}")
    shown = Rich(*columns, console=console, auto_refresh=False, transient=False)
    shown.add_task("", total=total, completed=at, facts="")
    shown.start()
    return shown
