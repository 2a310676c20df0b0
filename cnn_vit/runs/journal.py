"""The journal of a run, which it writes as it goes, and the clock of the package.

`metrics.jsonl` holds only what the seed decides, so that the same run writes the same bytes; `timing.jsonl` holds what
a clock decides. Each line of both is a JSON object with sorted keys; the steps of the lines ascend.
"""

import contextlib
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError
from cnn_vit.runs.folder import METRICS, TIMING

TEXTS = ("kind", "split")  # the keys of a line whose values are texts; all other values are numbers or null


def now() -> float:
    """Seconds of a clock that only goes forward, even where the time of day is changed."""
    return time.monotonic()


def cpu_seconds() -> float:
    """CPU-seconds that this process has used, all its threads together."""
    return time.process_time()


class Journal:
    """The two files of a run folder, open for appending lines.

    Args:
        workdir: the run folder.
        step: the training step that the run goes on from. Lines of later steps are cut off, and so is a last line that
            a kill has torn, because the run will write them again.
        size: bytes of `metrics.jsonl` that the checkpoint of that step has sealed. All that stands behind them is cut
            off unread: nothing says whether it is as it was written. None: that file too is cut by its lines' steps.

    Raises:
        SurroundingsError: a file cannot be read or written, or is not a journal.
    """

    def __init__(self, workdir: Path, *, step: int, size: int | None = None):
        workdir = Path(workdir)
        metrics, content = truncate_journal(workdir / METRICS, step, size)
        timing, _ = truncate_journal(workdir / TIMING, step)
        self._size, self._sha256 = len(content), hashlib.sha256(content)
        self._evaluations = evaluation_lines(metrics)
        self._timing_before: dict[str, float] = timing[-1] if timing else {}
        self._opened_seconds, self._opened_cpu_seconds = now(), cpu_seconds()
        self._metrics = files.open_append(workdir / METRICS)
        self._timing = files.open_append(workdir / TIMING)

    def write_train(self, step: int, **measures: Any) -> None:
        """Writes the measures of one training step: that step's own numbers, not an average over steps."""
        self._write_metrics(format_line(step, kind="train", **measures))

    def write_evaluation(self, step: int, split: str, accuracy: Any, loss: Any, n: int) -> None:
        """Writes the result of an evaluation on `n` examples of a split."""
        text = format_line(step, kind="evaluation", split=split, accuracy=accuracy, loss=loss, n=int(n))
        self._write_metrics(text)
        self._evaluations.append(json.loads(text))

    def _write_metrics(self, text: str) -> None:
        """Writes a line to metrics.jsonl, and counts it in the seal."""
        line = text.encode()
        self._metrics.write(line)
        self._size += len(line)
        self._sha256.update(line)

    def seal(self) -> dict[str, Any]:
        """Returns the seal, {"bytes", "sha256"}, of all lines of `metrics.jsonl` so far.

        It is of what was written, and no file is read for it: a bit that has changed on the disk since then breaks it.
        """
        return {"bytes": self._size, "sha256": self._sha256.hexdigest()}

    def write_timing(self, step: int, **seconds: Any) -> None:
        """Writes the time that the run has taken up to a step."""
        self._timing.write(format_line(step, **seconds))

    def elapsed(self) -> dict[str, float]:
        """Seconds and CPU-seconds of the run so far: in earlier processes, and since this one opened the journal."""
        seconds = self._timing_before.get("seconds", 0) + now() - self._opened_seconds
        cpu = self._timing_before.get("cpu_seconds", 0) + cpu_seconds() - self._opened_cpu_seconds
        return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3)}

    def evaluations(self) -> list[dict]:
        """All evaluations so far, of this process and earlier ones, in the order in which they were made."""
        return list(self._evaluations)

    def flush(self) -> None:
        """Returns once every line is on the disk. Another thread than the one that writes may call it."""
        self._metrics.flush()
        self._timing.flush()

    def close(self) -> None:
        """Flushes and closes both files."""
        for file in (self._metrics, self._timing):
            file.close()


def format_line(step: int, **values: Any) -> str:
    """Formats one line of a journal.

    A float is written with enough digits to read back the same bits; one that is not finite becomes null, since JSON
    has no nan.
    """
    plain: dict[str, Any] = {"step": int(step)}
    for name, value in values.items():
        plain[name] = value if isinstance(value, str | int | None) else json_number(value)
    return json.dumps(plain, sort_keys=True, allow_nan=False) + "\n"


def json_number(value: Any) -> float | None:
    """Converts a number, or an array of one, to a float; None where it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def read_until(path: Path, step: int, size: int | None = None) -> tuple[list[dict], bytes]:
    """Reads the lines of a journal up to a step, as dicts and as the bytes of these lines.

    A last line without its line break was torn by a kill and is left out. A file that does not exist has no lines.

    Args:
        path: the file.
        step: the last step whose lines are read.
        size: bytes from the start of the file, behind which nothing is read; None for the whole file.

    Raises:
        SurroundingsError: the file cannot be read, or another line is not a line of a journal.
    """
    with files.os_errors(path):
        content = path.read_bytes()[:size] if path.exists() else b""
    lines: list[dict] = []
    size = 0
    for text in content.splitlines(keepends=True):
        line = parse_line(text)
        if not text.endswith(b"\n"):
            break
        if line is None:
            raise SurroundingsError(
                f"line {len(lines) + 1} of {path} is not a line of a journal; "
                "put the file back from a copy, or start again in another --workdir"
            )
        if line["step"] > step:
            break
        lines.append(line)
        size += len(text)
    return lines, content[:size]


def truncate_journal(path: Path, step: int, size: int | None = None) -> tuple[list[dict], bytes]:
    """Cuts a journal to what `read_until` gives, and returns that."""
    lines, content = read_until(path, step, size)
    if path.exists() and len(content) < path.stat().st_size:
        files.truncate(path, len(content))
    return lines, content


def parse_line(text: bytes) -> dict | None:
    """Parses a line of a journal as a dict; None where it is not a line of a journal."""
    with contextlib.suppress(ValueError, RecursionError):
        line = json.loads(text)
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            return line
    return None


def evaluation_lines(lines: list[dict]) -> list[dict]:
    """Selects the lines of a journal that hold an evaluation."""
    return [line for line in lines if line.get("kind") == "evaluation"]


def best_evaluation(evaluations: list[dict]) -> dict:
    """Returns the best of one or more evaluations: highest accuracy, then lowest loss, then the earliest."""

    def rank(evaluation: dict) -> tuple[float, float, int]:
        loss = math.inf if evaluation["loss"] is None else evaluation["loss"]
        return evaluation["accuracy"], -loss, -evaluation["step"]

    return max(evaluations, key=rank)
