"""What does the loop add to the compiled step? Milliseconds a step of a whole run, less those of the jitted call alone.

    python experiments/speed/overhead.py [--steps=2000] [--runs=5] [--log_every=50] [--json] [recipe] [key=value ...]

Two arms run in turn, so that a busy machine troubles both. `loop` is a run as `cnn-vit train` makes it, from step 100
to its last: with order, batches, their way to the device, journal and progress, but without evaluation and saving.
`call` is the same compiled step on one batch that stays on the device. Each arm waits for the device only once, at its
end. The network is tiny, because the time of a large one would hide that of the loop. Only a temporary folder is
written to.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax

from cnn_vit import data
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.settings import Settings, load
from cnn_vit.stops import handle_signals
from cnn_vit.training import devices, loop, plan
from cnn_vit.training.program import Program
from cnn_vit.training.run import Run

WARM_STEPS = 100  # before the clock starts: compilation and the first batches
TINY = ["model.name=mlp/test", "data.batch_size=32"]


class ClockedRun(Run):
    """A run that reads the clock when step WARM_STEPS and when its last step are finished.

    Attributes:
        finish_times: `time.perf_counter` at the end of the two steps, in seconds, by step.
    """

    def __init__(self, settings: Settings, workdir: Path, dataset: data.Dataset):
        super().__init__(settings, workdir, dataset)
        self.finish_times: dict[int, float] = {}

    def queue_measures(self, step: int, measures: dict) -> None:
        """Does what every run does; at the two steps it also waits for the device and reads the clock."""
        super().queue_measures(step, measures)
        if step in (WARM_STEPS, self.times.total):
            jax.block_until_ready(measures)
            self.finish_times[step] = time.perf_counter()


def time_loop(settings: Settings, workdir: Path) -> float:
    """Trains in a new run folder and returns the seconds a step, from step WARM_STEPS to the last one."""
    dataset = data.load(settings.section("data"))
    run = ClockedRun(settings, workdir, dataset)
    with handle_signals() as stop, run:
        run.open_folder(None)
        step, state = run.restore_or_init(None)
        loop.learn(run, step, state, stop)
        stop.end_training()
    total = run.times.total
    return (run.finish_times[total] - run.finish_times[WARM_STEPS]) / (total - WARM_STEPS)


def time_call(settings: Settings) -> float:
    """Calls the compiled step again and again on one batch on the device, and returns the seconds a call."""
    dataset = data.load(settings.section("data"))
    program = Program(settings, dataset, make_preprocessing(settings, dataset))
    with contextlib.closing(program.batches(0)) as batches:
        # on a CPU, batches stay in the memory of the host until they are put on the device
        batch = jax.device_put(next(batches), devices.batch_sharding(program.mesh))
    state = program.initial_state()
    for _ in range(WARM_STEPS):
        state, measures = program.step.learn(state, program.frozen, batch, program.hyperparameters)
    jax.block_until_ready(measures)
    calls = program.times.total - WARM_STEPS
    began = time.perf_counter()
    for _ in range(calls):
        state, measures = program.step.learn(state, program.frozen, batch, program.hyperparameters)
    jax.block_until_ready((state, measures))
    return (time.perf_counter() - began) / calls


def measure_arms(args: argparse.Namespace) -> dict[str, list[float]]:
    """Returns the milliseconds a step of each arm, run by run, and those that the loop took beyond the call."""
    overrides = [
        f"duration={args.steps}",
        f"log_every={args.log_every}",
        "evaluate_every=1e9",
        "checkpoint_every=1e9",
        *args.settings,
    ]
    settings = load(args.recipe, overrides)
    plan.check(settings)
    milliseconds: dict[str, list[float]] = {"loop": [], "call": [], "beyond": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.runs):
            loop_milliseconds = 1e3 * time_loop(settings, Path(folder, f"loop{number}"))
            call_milliseconds = 1e3 * time_call(settings)
            milliseconds["loop"].append(loop_milliseconds)
            milliseconds["call"].append(call_milliseconds)
            milliseconds["beyond"].append(loop_milliseconds - call_milliseconds)
    return milliseconds


def main() -> None:
    """Measures both arms and prints a line for each, and their difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="configs/digits_mlp.py", help="(default: %(default)s)")
    parser.add_argument("settings", nargs="*", default=TINY, help=f"over the recipe's (default: {' '.join(TINY)})")
    parser.add_argument(
        "--steps", type=int, default=2000, help=f"steps of a run; the first {WARM_STEPS} are not timed (default: 2000)"
    )
    parser.add_argument("--runs", type=int, default=5, help="runs of each arm, in turn (default: 5)")
    parser.add_argument("--log_every", type=int, default=50, help="steps between two logged lines (default: 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.steps <= 2 * WARM_STEPS or args.runs < 1:
        parser.error(f"--steps must be above {2 * WARM_STEPS} and --runs at least 1")
    milliseconds = measure_arms(args)
    medians = {name: statistics.median(times) for name, times in milliseconds.items()}
    if args.json:
        facts = {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)), "steps": args.steps}
        print(json.dumps({"ms": milliseconds, "median_ms": medians, **facts}))
        return
    for name in ("loop", "call"):
        spread = f"{min(milliseconds[name]):.3f} to {max(milliseconds[name]):.3f}"
        print(f"{name:6} {medians[name]:.3f} ms a step (median of {args.runs}; {spread})")
    spread = f"{min(milliseconds['beyond']):.3f} to {max(milliseconds['beyond']):.3f}"
    print(f"beyond {medians['beyond']:.3f} ms ({spread}), ratio {medians['loop'] / medians['call']:.2f}")


if __name__ == "__main__":
    main()
