"""Does the trials of a small study, as a command does: python study_process.py OUT TRIALS WORKERS STEPS [unlocked].

The trials differ in their learning rate. With `unlocked`, workers do not lock their trials: for a test that sees what
comes of that.
"""

import sys
from pathlib import Path

from cnn_vit import stops
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.studies import trials, workers
from cnn_vit.studies.trials import Trial

FOLDER = Path(__file__).parent


def make_trials(count: int, steps: int) -> list[Trial]:
    """So many short runs of an MLP on drawn shapes, with a checkpoint at every tenth step."""
    settings = (f"duration={steps} steps", "log_every=1", "evaluate_every=20", "checkpoint_every=10")
    rates = [f"optimizer.learning_rate={(number + 1) * 1e-3}" for number in range(count)]
    return [Trial("train", "configs/digits_mlp.py:smoke", (*settings, rate)) for rate in rates]


def main(out: Path, count: int, number_of_workers: int, steps: int, *, unlocked: bool) -> int:
    """Does the study; returns the exit code, as a command would."""
    if unlocked:
        workers.WORKER_COMMAND = (sys.executable, str(FOLDER / "unlocked_worker.py"))
    with stops.handle_signals(owns_process=True):
        try:
            planned = trials.plan_trials(make_trials(count, steps), out, trials.DataCache())
            records = workers.run_trials(planned, out, workers.StudyOptions(workers=number_of_workers))
        except (UserError, StoppedError) as error:
            print(error, file=sys.stderr)
            stops.end_command(error.code)
            return error.code
        stops.end_command(0)
    for record in records:
        print(record.planned.id, record.state, record.result["validation"])
    return 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:] if word != "unlocked"]
    count, number_of_workers, steps = numbers
    sys.exit(main(Path(sys.argv[1]), count, number_of_workers, steps, unlocked="unlocked" in sys.argv))
