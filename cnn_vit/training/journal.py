"""What a run writes down as it goes, and the clock it does so by.

`metrics.jsonl` holds what the seed decides and nothing else: the same run writes the same bytes. `timing.jsonl` holds
what a clock decides. Both have one JSON object a line, keys sorted, steps ascending. On the terminal, `Progress`.
"""

import contextlib
import json
import math
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, TextIO

from cnn_vit import files
from cnn_vit.errors import SurroundingsError

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
WINDOW = 30.0  # seconds over which the speed is taken


def now() -> float:
    """Seconds of a clock that only goes forward, whatever is done to the time of day."""
    return time.monotonic()


def worked() -> float:
    """CPU-seconds of this process, all its threads together."""
    return time.process_time()


class Journal:
    """The two files of a run folder, open for growing.

    Args:
        workdir: the run folder.
        at: the step that the run goes on from; lines of later steps are cut off, with a last line torn by a kill.

    Raises:
        SurroundingsError: a file cannot be read or written, or is not a journal.
    """

    def __init__(self, workdir: Path, *, at: int):
        kept = [cut(Path(workdir) / name, at) for name in (METRICS, TIMING)]
        self._evaluations = evaluations_of(kept[0])
        self._before = kept[1][-1] if kept[1] else {}
        self._began = now(), worked()
        self._metrics, self._timing = (files.append(Path(workdir) / name) for name in (METRICS, TIMING))

    def train(self, step: int, *, loss: Any, accuracy: Any, learning_rate: Any, gradient_norm: Any) -> None:
        """Writes that step's own numbers, not an average over steps."""
        self._metrics.write(
            line(
                step,
                kind="train",
                loss=loss,
                accuracy=accuracy,
                learning_rate=learning_rate,
                gradient_norm=gradient_norm,
            )
        )

    def evaluation(self, step: int, split: str, accuracy: Any, loss: Any, n: int) -> None:
        """Writes the result of an evaluation on `n` examples of a split."""
        text = line(step, kind="evaluation", split=split, accuracy=accuracy, loss=loss, n=int(n))
        self._metrics.write(text)
        self._evaluations.append(json.loads(text))

    def timing(self, step: int, **facts: Any) -> None:
        """Writes what a clock says."""
        self._timing.write(line(step, **facts))

    def taken(self) -> dict[str, float]:
        """Seconds and CPU-seconds since the journal was opened, added to those that the last line of timing tells."""
        pairs = zip(("seconds", "cpu_seconds"), (now(), worked()), self._began, strict=True)
        return {name: round(self._before.get(name, 0) + later - began, 3) for name, later, began in pairs}

    def evaluations(self) -> list[dict]:
        """All evaluations so far, of this process and those before, in the order they were made."""
        return list(self._evaluations)

    def flush(self) -> None:
        """Returns once every line is on the disk; may be called from another thread than the one that writes."""
        self._metrics.flush()
        self._timing.flush()

    def close(self) -> None:
        """Flushes and closes both files."""
        for file in (self._metrics, self._timing):
            file.close()


def line(step: int, **facts: Any) -> str:
    """One line. A float is written with the digits that give it back; one that is not finite as null, as JSON must."""
    plain = {key: value if isinstance(value, str | int | None) else number(value) for key, value in facts.items()}
    return json.dumps({"step": int(step), **plain}, sort_keys=True, allow_nan=False) + "\n"


def number(value: Any) -> float | None:
    """A number, or an array of one, as a float; None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def until(path: Path, at: int) -> tuple[list[dict], bytes]:
    """The lines of a file up to step `at`, as facts and as bytes. A last line without its end is dropped.

    Raises:
        SurroundingsError: the file cannot be read, or a line before that is no line of a journal.
    """
    with files.named(path):
        data = path.read_bytes() if path.exists() else b""
    kept: list[dict] = []
    size = 0
    for text in data.splitlines(keepends=True):
        facts = read(text)
        if not text.endswith(b"\n") or (facts and facts["step"] > at):
            break
        if facts is None:
            raise SurroundingsError(
                f"line {len(kept) + 1} of {path} is not a line of a journal; "
                "put the file back from a copy, or start again in another --workdir"
            )
        kept.append(facts)
        size += len(text)
    return kept, data[:size]


def cut(path: Path, at: int) -> list[dict]:
    """Cuts a file to its lines of step `at` and before, and gives those."""
    kept, data = until(path, at)
    if path.exists() and len(data) < path.stat().st_size:
        files.cut(path, len(data))
    return kept


def evaluations_of(lines: list[dict]) -> list[dict]:
    """Those of the lines that tell an evaluation."""
    return [facts for facts in lines if facts.get("kind") == "evaluation"]


def best(evaluations: list[dict]) -> dict:
    """The best of some evaluations, one at least: highest accuracy, then lowest loss, then the earliest."""

    def rank(found: dict) -> tuple[float, float, int]:
        loss = math.inf if found["loss"] is None else found["loss"]
        return found["accuracy"], -loss, -found["step"]

    return max(evaluations, key=rank)


def read(text: bytes) -> dict | None:
    """The facts of a line; None where it is not one."""
    with contextlib.suppress(ValueError, RecursionError):
        facts = json.loads(text)
        if isinstance(facts, dict) and isinstance(facts.get("step"), int):
            return facts
    return None


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
        self._bar = bar(self._stream, total, at) if self._stream.isatty() else None
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
            text = f", {pace * self._batch_size:,.0f} images/s, {clock((self._total - step) / pace)} left"
        return text + (f", accuracy {self._accuracy:.4f}" if self._accuracy is not None else "")


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, rounded up."""
    whole = math.ceil(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def bar(stream: TextIO, total: int, at: int) -> Any:
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
