"""What the loop costs beyond the compiled step: ms a step of a whole run, less those of the jitted call alone.

    python experiments/speed/overhead.py [--steps=2000] [--runs=5] [--log_every=50] [--json] [recipe] [key=value ...]

Two arms in turn, so that a busy machine troubles both: `loop` is `cnn-vit train` from step 100 to its last, with order,
batches, their way to the device, journal and progress, but without evaluation and saving; `call` is the same compiled
step on one batch that stays on the device. Each is waited for once, at its end. The network is tiny, else its own time
would hide the loop's. Nothing is written but to a temporary folder.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from cnn_vit import data
from cnn_vit.data.feed import stream
from cnn_vit.settings import Settings, load
from cnn_vit.training import devices, loop
from cnn_vit.training.run import Run

WARM = 100  # steps before the clock starts: compilation, first batches


class Clocked(Run):
    """A run that notes when the step WARM and the last one were finished."""

    stamps: dict[int, float]

    def take(self, done: int, measures: dict) -> None:
        """As a run does; waits for the two steps that the clock is read at."""
        super().take(done, measures)
        if done in (WARM, self.times.total):
            jax.block_until_ready(measures)
            Clocked.stamps[done] = time.perf_counter()


def in_the_loop(settings: Settings, workdir: Path) -> float:
    """Seconds a step of a whole run, from WARM to its last."""
    Clocked.stamps = {}
    loop.train(settings, workdir)
    (first, began), (last, ended) = sorted(Clocked.stamps.items())
    return (ended - began) / (last - first)


def the_call_alone(settings: Settings, workdir: Path) -> float:
    """Seconds a call of the same step on a resident batch, waited for once."""
    dataset = data.load(settings.section("data"))
    with Run(settings, workdir, dataset) as run:
        batch = jax.device_put(next(host_batches(run)), devices.batch_sharding(run.mesh))
        state = run.initial_state()
        for _ in range(WARM):
            state, measures = run.step.learn(state, run.frozen, batch, run.hyperparameters)
        jax.block_until_ready(measures)
        began = time.perf_counter()
        for _ in range(run.times.total - WARM):
            state, measures = run.step.learn(state, run.frozen, batch, run.hyperparameters)
        jax.block_until_ready((state, measures))
        return (time.perf_counter() - began) / (run.times.total - WARM)


def host_batches(run: Run) -> Iterator[dict[str, np.ndarray]]:
    """The run's batches, on the host."""
    seed = run.settings["seed"]
    return stream.batches(run.dataset.splits["train"], batch_size=run.batch_size, seed=seed, first=0, batches_ahead=0)


def measured(given: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds a step of each arm, run by run."""
    long = [f"{key}=1e9" for key in ("evaluate_every", "checkpoint_every")]
    words = [f"duration={given.steps}", f"log_every={given.log_every}", *long, *given.settings]
    settings = load(given.recipe, words)
    loop.Run = Clocked  # type: ignore[misc]
    found: dict[str, list[float]] = {"loop": [], "call": []}
    with tempfile.TemporaryDirectory() as away:
        for number in range(given.runs):
            for name, arm in (("loop", in_the_loop), ("call", the_call_alone)):
                found[name].append(1e3 * arm(settings, Path(away, f"{name}{number}")))
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tiny = ["model.name=mlp/test", "data.batch_size=32"]
    parser.add_argument("recipe", nargs="?", default="configs/digits_mlp.py", help="(default: %(default)s)")
    parser.add_argument("settings", nargs="*", default=tiny, help=f"over the recipe's (default: {' '.join(tiny)})")
    parser.add_argument("--steps", type=int, default=2000, help=f"of a run, the first {WARM} not timed (default: 2000)")
    parser.add_argument("--runs", type=int, default=5, help="of each arm, in turn (default: 5)")
    parser.add_argument("--log_every", type=int, default=50, help="steps between two lines (default: 50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.steps <= 2 * WARM or given.runs < 1:
        parser.error(f"--steps must be above {2 * WARM} and --runs at least 1")
    found = measured(given)
    extra = [one - other for one, other in zip(found["loop"], found["call"], strict=True)]
    medians = {name: statistics.median(times) for name, times in (*found.items(), ("beyond", extra))}
    if given.json:
        facts = {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)), "steps": given.steps}
        print(json.dumps({"ms": found | {"beyond": extra}, "median_ms": medians, **facts}))
        return
    for name, times in found.items():
        print(f"{name:6} {medians[name]:.3f} ms a step (median of {given.runs}; {min(times):.3f} to {max(times):.3f})")
    spread = f"{min(extra):.3f} to {max(extra):.3f}"
    print(f"beyond {medians['beyond']:.3f} ms ({spread}), ratio {medians['loop'] / medians['call']:.2f}")


if __name__ == "__main__":
    main()
