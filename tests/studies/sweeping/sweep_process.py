"""Does a sweep, as a command does: python sweep_process.py OUT FILE.toml WORKERS [delayed].

With `delayed`, workers wait for a random while before each trial, so that trials end in another order.
"""

import sys
from pathlib import Path

from cnn_vit import stops
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.studies import workers
from cnn_vit.studies.sweep import SweepOptions, run_sweep
from cnn_vit.studies.sweeping.definition import read_toml


def main(out: Path, file: str, number_of_workers: int) -> int:
    """Does the sweep and prints the states of its trials; returns the exit code, as a command would."""
    with stops.handle_signals(owns_process=True):
        try:
            facts = run_sweep(read_toml(file), out, SweepOptions(workers=number_of_workers))
        except (UserError, StoppedError) as error:
            print(error, file=sys.stderr)
            stops.end_command(error.code)
            return error.code
        stops.end_command(0)
    print(*(trial.state for trial in facts.trials))
    print("jax" in sys.modules)
    return 0


if __name__ == "__main__":
    if "delayed" in sys.argv:
        workers.WORKER_COMMAND = (sys.executable, str(Path(__file__).with_name("delayed_worker.py")))
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
