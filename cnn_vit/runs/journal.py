"""What a run writes down as it goes, and the clock it does so by.

`metrics.jsonl` holds what the seed decides and nothing else: the same run writes the same bytes. `timing.jsonl` holds
what a clock decides. Both have one JSON object a line, keys sorted, steps ascending.
"""

import contextlib
import json
import math
import time
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import SurroundingsError

METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"


def now() -> float:
    """Seconds of a clock that only goes forward, whatever is done to the time of day."""
    return time.monotonic()


def cpu_seconds() -> float:
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
        kept = [truncate_journal(Path(workdir) / name, at) for name in (METRICS, TIMING)]
        self._evaluations = evaluation_lines(kept[0])
        self._before = kept[1][-1] if kept[1] else {}
        self._began = now(), cpu_seconds()
        self._metrics, self._timing = (files.open_append(Path(workdir) / name) for name in (METRICS, TIMING))

    def write_train(self, step: int, *, loss: Any, accuracy: Any, learning_rate: Any, gradient_norm: Any) -> None:
        """Writes that step's own numbers, not an average over steps."""
        self._metrics.write(
            format_line(
                step,
                kind="train",
                loss=loss,
                accuracy=accuracy,
                learning_rate=learning_rate,
                gradient_norm=gradient_norm,
            )
        )

    def write_evaluation(self, step: int, split: str, accuracy: Any, loss: Any, n: int) -> None:
        """Writes the result of an evaluation on `n` examples of a split."""
        text = format_line(step, kind="evaluation", split=split, accuracy=accuracy, loss=loss, n=int(n))
        self._metrics.write(text)
        self._evaluations.append(json.loads(text))

    def write_timing(self, step: int, **facts: Any) -> None:
        """Writes what a clock says."""
        self._timing.write(format_line(step, **facts))

    def elapsed(self) -> dict[str, float]:
        """Seconds and CPU-seconds since the journal was opened, added to those that the last line of timing tells."""
        pairs = zip(("seconds", "cpu_seconds"), (now(), cpu_seconds()), self._began, strict=True)
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


def format_line(step: int, **facts: Any) -> str:
    """One line. A float is written with the digits that give it back; one that is not finite as null, as JSON must."""
    plain = {key: value if isinstance(value, str | int | None) else json_number(value) for key, value in facts.items()}
    return json.dumps({"step": int(step), **plain}, sort_keys=True, allow_nan=False) + "\n"


def json_number(value: Any) -> float | None:
    """A number, or an array of one, as a float; None where it is not finite."""
    value = float(value)
    return value if math.isfinite(value) else None


def read_until(path: Path, at: int) -> tuple[list[dict], bytes]:
    """The lines of a file up to step `at`, as facts and as bytes. A last line without its end is dropped.

    Raises:
        SurroundingsError: the file cannot be read, or a line before that is no line of a journal.
    """
    with files.os_errors(path):
        data = path.read_bytes() if path.exists() else b""
    kept: list[dict] = []
    size = 0
    for text in data.splitlines(keepends=True):
        facts = parse_line(text)
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


def truncate_journal(path: Path, at: int) -> list[dict]:
    """Cuts a file to its lines of step `at` and before, and gives those."""
    kept, data = read_until(path, at)
    if path.exists() and len(data) < path.stat().st_size:
        files.truncate(path, len(data))
    return kept


def evaluation_lines(lines: list[dict]) -> list[dict]:
    """Those of the lines that tell an evaluation."""
    return [facts for facts in lines if facts.get("kind") == "evaluation"]


def best_evaluation(evaluations: list[dict]) -> dict:
    """The best of some evaluations, one at least: highest accuracy, then lowest loss, then the earliest."""

    def rank(found: dict) -> tuple[float, float, int]:
        loss = math.inf if found["loss"] is None else found["loss"]
        return found["accuracy"], -loss, -found["step"]

    return max(evaluations, key=rank)


def parse_line(text: bytes) -> dict | None:
    """The facts of a line; None where it is not one."""
    with contextlib.suppress(ValueError, RecursionError):
        facts = json.loads(text)
        if isinstance(facts, dict) and isinstance(facts.get("step"), int):
            return facts
    return None
