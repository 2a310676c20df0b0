"""What does a training step cost with a frozen body, as a share of one that trains everything?

    python experiments/speed/frozen.py [--rounds=7] [--seconds=3] [--json] [cifar_resnet/20 vit/Ti16]

The arms, `all` (everything is trained) and `head` (all but the head is frozen), run in turn in windows of some seconds,
so that a busy machine troubles both; the ratio is taken in each round. Each is the compiled step of a run on one batch
that stays on the device, with drawn images; the optimizer is SGD with momentum.
"""

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable

import jax

from cnn_vit import data
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.settings import load
from cnn_vit.training import devices, plan
from cnn_vit.training.program import Program

IMAGES = {"cifar_resnet/20": (32, 128), "vit/Ti16": (224, 8)}  # side in pixels, and images of a batch
DEFAULT_IMAGES = (32, 32)
ARMS = {"all": "none", "head": "all but head"}  # the setting pretrained.freeze


def prepare_arm(model: str, freeze: str) -> Callable[[float], float]:
    """Compiles the step of an arm; returns a function that runs it for some seconds and gives its seconds a step."""
    side, batch_size = IMAGES.get(model, DEFAULT_IMAGES)
    settings = load(
        "configs/cifar_resnet.py:20",
        [
            *("data.name=shapes", f"data.image_size={side}", "data.channels=3", f"data.batch_size={batch_size}"),
            *(f"data.train_count={max(batch_size, 256)}", "data.augment=()", "data.validation=none", "data.train=none"),
            *(f"model.name={model}", f"pretrained.freeze={freeze}"),
        ],
    )
    plan.check(settings)
    dataset = data.load(settings.section("data"))
    program = Program(settings, dataset, make_preprocessing(settings, dataset))
    with contextlib.closing(program.batches(0)) as batches:
        # on a CPU, batches stay in the memory of the host until they are put on the device
        batch = jax.device_put(next(batches), devices.batch_sharding(program.mesh))
    state, measures = program.learn(program.initial_state(), batch)  # compiles
    jax.block_until_ready(measures)

    def run_window(seconds: float) -> float:
        nonlocal state
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            state, window_measures = program.learn(state, batch)
            jax.block_until_ready(window_measures)
            steps += 1
        return (time.perf_counter() - began) / steps

    return run_window


def measure(model: str, *, rounds: int, seconds: float) -> dict:
    """Returns the milliseconds a step of each arm, round by round, and their ratios."""
    arms = {name: prepare_arm(model, freeze) for name, freeze in ARMS.items()}
    milliseconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, run_window in arms.items():
            milliseconds[name].append(1e3 * run_window(seconds))
    ratios = [head / whole for head, whole in zip(milliseconds["head"], milliseconds["all"], strict=True)]
    return {"model": model, "milliseconds": milliseconds, "ratios": ratios, "ratio": statistics.median(ratios)}


def main() -> None:
    """Measures each network and prints a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(IMAGES), help=f"(default: {' '.join(IMAGES)})")
    parser.add_argument("--rounds", type=int, default=7, help="windows of each arm (default: 7)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a window (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    rows = [measure(model, rounds=args.rounds, seconds=args.seconds) for model in args.models]
    if args.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        whole, head = (statistics.median(row["milliseconds"][name]) for name in ARMS)
        print(
            f"{row['model']}: {whole:.1f} ms with all trained, {head:.1f} ms with the head alone, ratio "
            f"{row['ratio']:.2f} ({min(row['ratios']):.2f} to {max(row['ratios']):.2f} in {args.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
