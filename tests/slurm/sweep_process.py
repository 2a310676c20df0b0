"""Does a small sweep at SLURM, as a command does: python sweep_process.py OUT TRIALS STEPS OPTIONS [halving]

Its trials differ in their learning rate. OPTIONS are those of sbatch; "" does the trials here. With `halving` one trial
in three goes on beyond a third of the steps.
"""

import sys
from pathlib import Path

from cnn_vit import stops
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.studies import sweep
from cnn_vit.studies.sweeping import definition, slurm

slurm.LOOK_EVERY = 0.4  # seconds: nobody else asks this SLURM
slurm.LOOKS_PER_QUESTION = 2


def main(out: Path, count: int, steps: int, options: str, *, is_halved: bool) -> int:
    """Does the sweep; returns the exit code, as a command would."""
    settings = [f"duration={steps} steps", "log_every=1", "evaluate_every=20 steps", "checkpoint_every=50 steps"]
    rates = [(number + 1) * 1e-3 for number in range(count)]
    with stops.handle_signals(owns_process=True):
        try:
            defined = definition.from_call(
                "configs/digits_mlp.py:smoke",
                {"optimizer.learning_rate": rates},
                overrides=settings,
                metric="validation.loss",
                halving={"eta": 3, "first": f"{steps // 3} steps"} if is_halved else None,
            )
            here = sweep.SweepOptions(workers=2)
            facts = sweep.run_sweep(defined, out, sweep.SweepOptions(slurm=options) if options else here)
        except (UserError, StoppedError) as error:
            print(error, file=sys.stderr)
            stops.end_command(error.code)
            return error.code
        stops.end_command(0)
    for trial in facts.trials:
        print(trial.id, trial.state, trial.metric)
    return 0


if __name__ == "__main__":
    _, out, count, steps, options, *words = sys.argv
    sys.exit(main(Path(out), int(count), int(steps), options, is_halved="halving" in words))
