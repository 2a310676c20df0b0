"""What a run that was trained up to a step answers: its evaluation there, from the journal in its folder.

The answer follows from the lines up to that step alone. So it is the same whenever it is asked for, also of a run that
has gone on since, or has finished.
"""

from pathlib import Path
from typing import Any

from cnn_vit.runs import folder, journal

NUMBERS = ("accuracy", "loss", "n", "step")  # of an evaluation


def read_pause(workdir: Path, until: int, *, before: int) -> dict[str, Any] | None:
    """Reads the first evaluation at or after a step; None where it has not been made before another step.

    Args:
        workdir: the run folder.
        until: the step.
        before: the step that the evaluation must lie before: that of the end, where the run has ended.

    Returns:
        A dict of steps (of the evaluation), validation and best (accuracy, loss, n and step, of this evaluation and of
        the best one up to it), is_finished (False) and timing (what the run had taken by then, as far as written down).

    Raises:
        SurroundingsError: the journal cannot be read.
    """
    lines, _ = journal.read_until(workdir / folder.METRICS, before - 1)
    evaluations = journal.evaluation_lines(lines)
    later = [line for line in evaluations if line["step"] >= until]
    if not later:
        return None
    step = later[0]["step"]
    best = journal.best_evaluation([line for line in evaluations if line["step"] <= step])
    timing, _ = journal.read_until(workdir / folder.TIMING, step)
    seconds = timing[-1] if timing else {}
    return {
        "steps": step,
        "validation": {name: later[0][name] for name in NUMBERS},
        "best": {name: best[name] for name in NUMBERS},
        "is_finished": False,
        "timing": {name: seconds.get(name, 0.0) for name in ("seconds", "cpu_seconds")},
    }
