"""What does a trial cost beyond its steps? Seconds, for the first trial of a worker's process and for those after it.

    python experiments/speed/trials.py [--steps=200] [--rounds=5] [--json] [recipe] [key=value ...]

A round is two trials, done in this process as a worker does them: a short one of so many steps, and a long one of twice
as many. Twice the time of the short one less that of the long one is what a trial costs beyond its steps: planning is
over, but the run folder, initial values, the last evaluation, checkpoints, test and result are in it, and all that is
loaded or compiled. Each trial has another seed and another learning rate. The first round, in which the process reads
the data and compiles, stands apart. Only a temporary folder is written to.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax

from cnn_vit import process
from cnn_vit.studies import trials, worker
from cnn_vit.studies.trials import DataCache, PlannedTrial, Trial

DEFAULT_RECIPE = "configs/digits_cnn.py"


class SilentDisplay:
    """Shows nothing of a trial."""

    def update(self, step: int, *, accuracy: float | None = None) -> None:
        """Does nothing with the number of steps done."""

    def say(self, sentence: str) -> None:
        """Does nothing with a sentence."""

    def close(self) -> None:
        """Nothing is to be given back."""


def plan_rounds(args: argparse.Namespace, out: Path, cache: DataCache) -> list[tuple[PlannedTrial, PlannedTrial]]:
    """Plans for each round a short and a long trial."""
    list_of_trials = []
    for number in range(args.rounds + 1):
        for steps in (args.steps, 2 * args.steps):
            settings = [
                f"duration={steps} steps",
                "evaluate_every=1e9",
                "checkpoint_every=1e9",
                f"optimizer.learning_rate={1e-3 * (1 + number / 10)}",
                *args.settings,
            ]
            list_of_trials.append(Trial("train", args.recipe, tuple(settings), seed=number))
    planned = trials.plan_trials(list_of_trials, out, cache)
    return list(zip(planned[::2], planned[1::2], strict=True))


def time_trial(planned: PlannedTrial, cache: DataCache) -> float:
    """Does a trial and returns its seconds.

    Raises:
        SystemExit: the trial has failed, so that its time means nothing.
    """
    began = time.perf_counter()
    worker.do_trial(planned, cache, SilentDisplay(), keep="best")
    seconds = time.perf_counter() - began
    record = trials.read_record(planned)
    if record.state != trials.COMPLETE:
        raise SystemExit(f"the trial has failed: {record.reason}")
    return seconds


def main() -> None:
    """Does the rounds and prints what a trial costs beyond its steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default=DEFAULT_RECIPE, help="(default: %(default)s)")
    parser.add_argument("settings", nargs="*", default=[], help="over the recipe's, key=value")
    parser.add_argument("--steps", type=int, default=200, help="of a short trial (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="after the first (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.steps < 1 or args.rounds < 1:
        parser.error("--steps and --rounds must be at least 1")
    process.prepare()
    with tempfile.TemporaryDirectory() as folder:
        # Planning reads the data for their fingerprint; the trials of a worker read them into a cache of their own.
        planned = plan_rounds(args, Path(folder), DataCache())
        cache = DataCache()
        beyond, short_seconds = [], []
        for short, long in planned:
            short_seconds.append(time_trial(short, cache))
            beyond.append(2 * short_seconds[-1] - time_trial(long, cache))
    first, later = beyond[0], beyond[1:]
    if args.json:
        facts = {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)), "steps": args.steps}
        print(json.dumps({"first_s": first, "later_s": later, "short_s": short_seconds, **facts}))
        return
    print(f"first round  {first:.2f} s beyond its steps")
    spread = f"{min(later):.2f} to {max(later):.2f}"
    print(f"later        {statistics.median(later):.2f} s (median of {len(later)}; {spread})")
    print(f"a trial of {args.steps} steps takes {statistics.median(short_seconds[1:]):.2f} s")


if __name__ == "__main__":
    main()
