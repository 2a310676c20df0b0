"""Shows on stderr how far a run is: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import math
import sys
from collections import deque
from typing import Any, NamedTuple, TextIO

from cnn_vit.runs.journal import now

SPEED_WINDOW = 30.0  # seconds over which the speed is averaged
BAR_PERIOD = 0.2  # seconds between two drawings of the bar


class Mark(NamedTuple):
    """A moment at which the progress was shown.

    Attributes:
        time: seconds of `journal.now`.
        step: steps done by then.
    """

    time: float
    step: int


class Progress:
    """Shows how far a run is: a bar on a terminal, elsewhere a line now and then.

    A stream that fails, such as a closed pipe, stops no run: what cannot be shown is left out.

    Args:
        total: steps of the run.
        step: the step that it starts from.
        batch_size: images in the batch of a step; None where steps have different batches, and no speed is shown.
        stream: where to show it; by default stderr.
        every: least number of seconds between two lines where there is no terminal.
    """

    def __init__(
        self,
        total: int,
        *,
        step: int = 0,
        batch_size: int | None = 1,
        stream: TextIO | None = None,
        every: float = 10.0,
    ):
        self._stream = stream or sys.stderr
        self._total, self._step, self._batch_size = total, step, batch_size
        self._accuracy: float | None = None
        self._is_first_step = True
        self._bar = make_bar(self._stream, total, step) if self._stream.isatty() else None
        self._period = BAR_PERIOD if self._bar else every
        self._marks = deque([Mark(now(), step)])
        self._due = self._marks[0].time + self._period
        self._shown_step: int | None = step

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Takes the number of steps done, and a new validation accuracy if there is one; shows them now and then."""
        time, self._step = now(), step
        if accuracy is not None:
            self._accuracy = accuracy
        if self._is_first_step:  # it included the compilation, so its time says nothing of the others
            self._is_first_step = False
            self._marks[0] = Mark(time, step)
        if time >= self._due:
            self._show(time)

    def set_total(self, total: int) -> None:
        """Takes another number of steps that there will be in all, and shows it with the next ones."""
        if total != self._total:
            self._total = total
            self._shown_step = None  # what is shown is no longer so

    def say(self, sentence: str) -> None:
        """Shows a sentence at once, above the bar."""
        with contextlib.suppress(OSError, ValueError):
            if self._bar:
                self._bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
            else:
                print(sentence, file=self._stream, flush=True)

    def close(self) -> None:
        """Shows the last step and gives the terminal back."""
        if self._step != self._shown_step:
            self._show(now())
        if self._bar:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show(self, time: float) -> None:
        self._due = time + self._period
        self._shown_step = self._step
        self._marks.append(Mark(time, self._step))
        # the first mark is the last one from before the window, so that the speed is over the whole window
        while len(self._marks) > 2 and time - self._marks[1].time > SPEED_WINDOW:
            self._marks.popleft()
        summary = self._summary()
        if self._bar:
            with contextlib.suppress(OSError, ValueError):
                beside_bar = summary.removeprefix(", ")  # no step stands before it that a comma would part it from
                self._bar.update(self._bar.task_ids[0], completed=self._step, total=self._total, summary=beside_bar)
                self._bar.refresh()
        else:
            self.say(f"step {self._step} of {self._total}{summary}")

    def _summary(self) -> str:
        """Speed, time left and last accuracy as text: `, 1,234 images/s, 0:00:12 left, accuracy 0.9876`."""
        first, last = self._marks[0], self._marks[-1]
        text = ""
        if last.step > first.step and last.time > first.time:
            steps_per_second = (last.step - first.step) / (last.time - first.time)
            seconds_left = (self._total - last.step) / steps_per_second
            if self._batch_size is not None:
                text += f", {steps_per_second * self._batch_size:,.0f} images/s"
            text += f", {time_left_text(seconds_left)} left"
        if self._accuracy is not None:
            text += f", accuracy {self._accuracy:.4f}"
        return text


def time_left_text(seconds: float) -> str:
    """Seconds as the text h:mm:ss, rounded up."""
    whole_seconds = math.ceil(seconds)
    return f"{whole_seconds // 3600}:{whole_seconds // 60 % 60:02}:{whole_seconds % 60:02}"


def make_bar(stream: TextIO, total: int, step: int) -> Any:
    """Makes a progress bar of rich, without a thread of its own: it is drawn by `refresh`.

    None for a terminal that cannot draw a bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as RichProgress

    console = Console(file=stream, stderr=True)
    if console.is_dumb_terminal:  # TERM=dumb, as in an editor's shell: rich would show nothing until the end
        return None
    bar = RichProgress(
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[summary]}"),
        console=console,
        auto_refresh=False,
        transient=False,
    )
    bar.add_task("", total=total, completed=step, summary="")
    bar.start()
    return bar
