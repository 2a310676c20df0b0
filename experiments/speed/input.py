"""Does a step wait for its data? Images a second of each stage, and the share of a step spent waiting for data.

    python experiments/speed/input.py digits [--rounds=5] [--seconds=2] [--threads=0,2] [--json]
    python experiments/speed/input.py digits mnist cifar --mnist=mnist.npz --cifar=cifar.npz
    python experiments/speed/input.py folder --folder=photos/ --over=data.batch_size=16 --seconds=20

Stages are timed one after the other on the same batches, each alone, in CPU time of one core: read (the bytes of a
file), decode, fit (center and resize), cut (decode and a random box, in place of both), gather (a batch from memory),
augment (compiled, all cores), copy (to the device), step (the compiled step on batches that lie on the device;
augmentation is part of it). A stage that a data set does not have is left out. simplejpeg decodes where it is
installed, unless there is `--pillow`.

Waiting is measured in rounds, with the arms in turn, so that a busy machine troubles all of them:

    at the door   time of the loop inside `next(batches)` over all of its time. Most of it passes while the device still
                  computes, because the host is some steps ahead.
    waiting       the same, but only of the steps before which the device had nothing left to do: it may have waited for
                  the batch, at most that long.
    CPU there     the time at the door in CPU time, of this thread over all threads.
    lost          how much less a step takes when its batches lie on the device (1 - fed / resident), in CPU time and in
                  wall time. On a CPU it includes what decoding threads take away from the step.

A turn of an arm should last many steps, because the first few find batches that were made before. A data set whose file
is not given is replaced by `shapes` of the same size and colors, which are drawn beforehand and held in memory.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from cnn_vit import process

process.prepare()  # memory as the command line has it: before jax is imported

import jax  # noqa: E402
import numpy as np  # noqa: E402

from cnn_vit import compilation, data  # noqa: E402
from cnn_vit.data import sections  # noqa: E402
from cnn_vit.data.base.parts import EncodedPart  # noqa: E402
from cnn_vit.data.decode import crops, images, jpeg  # noqa: E402
from cnn_vit.data.feed import stream  # noqa: E402
from cnn_vit.runs.description import make_preprocessing  # noqa: E402
from cnn_vit.settings import Settings, load  # noqa: E402
from cnn_vit.training import devices, forward, plan, step  # noqa: E402
from cnn_vit.training.program import Program  # noqa: E402
from cnn_vit.training.run import STEPS_AHEAD  # noqa: E402

WARM_STEPS = 4  # before the clock starts: compilation and the first batches
RESIDENT_BATCHES = 4  # that lie on the device
MOST_FILES = 256  # that the stages read
DEFAULT_CROP = (0.08, 1.0)  # shares of an image's area, for the stage `cut` where the recipe does not cut

# The recipe of each data set, and settings over the recipe's.
RECIPES = {
    "digits": ("configs/digits_resnet.py", ()),
    "mnist": ("configs/mnist_lenet.py", ("data.image_size=28", "data.channels=1")),
    "cifar": ("configs/cifar_resnet.py:20", ("data.image_size=32", "data.channels=3")),
    "folder": ("configs/folder_resnet.py:224", ()),
}
STAND_IN = ("data.name=shapes", "data.path=none", "data.train=none", "data.validation=none", "data.classes=10")


class Seconds(NamedTuple):
    """Seconds of wall time, and of CPU time in all threads of this process."""

    wall: float
    cpu: float


def read_clocks() -> Seconds:
    """Reads both clocks."""
    return Seconds(time.perf_counter(), time.process_time())


def seconds_since(began: Seconds) -> Seconds:
    """Returns the seconds that have passed on both clocks."""
    ended = read_clocks()
    return Seconds(ended.wall - began.wall, ended.cpu - began.cpu)


def measure_rate(work: Callable[[int], object], images_per_call: int, seconds: float) -> dict[str, float]:
    """Calls a function again and again for so many seconds of wall time, after one call that is not timed.

    Args:
        work: takes the number of the call, from 0.
        images_per_call: how many images it works on.
        seconds: after which the last call is made.

    Returns:
        Images a second of wall time and images a CPU-second: {"wall": ..., "cpu": ...}.
    """
    jax.block_until_ready(work(0))
    calls = 0
    began = read_clocks()
    while seconds_since(began).wall < seconds:
        jax.block_until_ready(work(calls))
        calls += 1
    passed = seconds_since(began)
    count = calls * images_per_call
    return {"wall": count / passed.wall, "cpu": count / max(passed.cpu, 1e-9)}


# Stages ---------------------------------------------------------------------------------------------------------------


def measure_file_stages(settings: Settings, seconds: float) -> dict[str, dict[str, float]]:
    """Measures read, decode, fit and cut of training files in one thread; {} where the data are not files."""
    source_data, _, _ = data.load_readable(sections.complete_section(settings.section("data")))
    part = source_data.parts["train"]
    if not isinstance(part, EncodedPart):
        return {}
    size, channels = sections.height_and_width(settings["data.image_size"]), settings["data.channels"]
    min_area, max_area = settings["data.random_crop"] or DEFAULT_CROP
    interpolation = settings["data.interpolation"]
    count = min(MOST_FILES, len(part.labels))
    indices = np.arange(count) * len(part.labels) // count  # evenly spread: a folder is sorted by class
    contents = [part.content(int(index), None) for index in indices]
    pixels = [images.decode(content, channels=channels) for content in contents]
    crop_numbers = crops.crop_numbers(0, 0, count)

    def read(call: int) -> bytes:
        return part.content(int(indices[call % count]), None)

    def decode(call: int) -> np.ndarray:
        return images.decode(contents[call % count], channels=channels)

    def fit(call: int) -> np.ndarray:
        return images.fit_image(pixels[call % count], size, settings["data.fit"], interpolation)

    def cut(call: int) -> np.ndarray:
        numbers = crop_numbers[call % count]

        def choose_box(height: int, width: int) -> crops.Box:
            return crops.crop_box(height, width, numbers, min_area=min_area, max_area=max_area)

        content = contents[call % count]
        return crops.read_crop(content, size, channels=channels, choose_box=choose_box, interpolation=interpolation)

    stages = {"read": read, "decode": decode, "fit": fit, "cut": cut}
    return {name: measure_rate(stage, 1, seconds) for name, stage in stages.items()}


def measure_batch_stages(program: Program, seconds: float) -> dict[str, dict[str, float]]:
    """Measures gather (only of a split in memory), augment and copy of whole batches."""
    on_host = list(itertools.islice(host_batches(program), RESIDENT_BATCHES))
    on_devices = [put_on_devices(batch, program) for batch in on_host]
    batches = host_batches(program)

    def augment_images(batch, hyperparameters, number):
        images, target, _ = step.augment_batch(program.spec, number, batch, hyperparameters)
        return images, target

    # with the options of the step, inside which a run augments
    augment_batch = compilation.jit(augment_images, forward.program_kind(program.spec.network, program.mesh))

    def gather(call: int) -> np.ndarray:
        return next(batches)["label"]

    def augment(call: int) -> tuple[jax.Array, jax.Array]:
        return augment_batch(on_devices[call % RESIDENT_BATCHES], program.hyperparameters, call)

    def copy(call: int) -> dict[str, jax.Array]:
        return put_on_devices(on_host[call % RESIDENT_BATCHES], program)

    stages = {"gather": gather, "augment": augment, "copy": copy}
    if not program.dataset.splits["train"].in_memory:
        del stages["gather"]
    return {name: measure_rate(stage, program.batch_size, seconds) for name, stage in stages.items()}


def host_batches(program: Program) -> Iterator[dict[str, np.ndarray]]:
    """The run's training batches from the first one on, without end, read by this thread and left on the host."""
    batches = stream.batches(
        program.dataset.splits["train"],
        batch_size=program.batch_size,
        seed=program.settings["seed"],
        start=0,
        batches_ahead=program.settings["data.prefetch"],
    )
    with contextlib.closing(batches):
        yield from batches


def put_on_devices(batch: dict[str, np.ndarray], program: Program) -> dict[str, jax.Array]:
    """Copies a batch to the devices, also to a CPU, where the loop leaves this to the compiled call."""
    return jax.device_put(batch, devices.batch_sharding(program.mesh))


# Arms -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """What one turn of an arm measured: training over its batches for some seconds.

    Attributes:
        wall: images a second of wall time.
        cpu: images a CPU-second, of all threads.
        waited: share of the wall time inside `next(batches)` while the device had nothing left to do.
        door: share of the wall time inside `next(batches)`.
        busy: share of the CPU time of all threads that this thread spent inside `next(batches)`.
    """

    wall: float
    cpu: float
    waited: float
    door: float
    busy: float


def train_turn(program: Program, batches: Iterator[Any], seconds: float) -> Turn:
    """Trains from the initial values over some batches, as the loop of a run does, and measures its pace."""
    state = program.initial_state()
    for batch in itertools.islice(batches, WARM_STEPS):
        state, measures = program.learn(state, batch)
    jax.block_until_ready(measures)
    steps = 0
    queued = []
    wall_at_door, cpu_at_door, waited = 0.0, 0.0, 0.0
    began = read_clocks()
    while seconds_since(began).wall < seconds:
        asked_wall, asked_cpu = time.perf_counter(), time.thread_time()
        batch = next(batches)
        passed = time.perf_counter() - asked_wall
        cpu_at_door += time.thread_time() - asked_cpu
        wall_at_door += passed
        if measures["finite"].is_ready():  # the device has finished the step before: it may have waited for the batch
            waited += passed
        state, measures = program.learn(state, batch)
        steps += 1
        queued.append(measures["finite"])
        if len(queued) > STEPS_AHEAD:  # the host of a run is no further ahead of the device
            jax.block_until_ready(queued.pop(0))
    jax.block_until_ready(measures)
    total = seconds_since(began)
    count = steps * program.batch_size
    return Turn(
        wall=count / total.wall,
        cpu=count / total.cpu,
        waited=waited / total.wall,
        door=wall_at_door / total.wall,
        busy=cpu_at_door / total.cpu,
    )


def measure_arms(program: Program, thread_counts: list[int], rounds: int, seconds: float) -> dict[str, list[Turn]]:
    """Trains fed by each number of threads, and on batches that lie on the device; round by round, in turn."""
    on_devices = [put_on_devices(batch, program) for batch in itertools.islice(host_batches(program), RESIDENT_BATCHES)]
    if program.dataset.splits["train"].in_memory:
        thread_counts = thread_counts[:1]  # no thread is started for images in memory: the arms would be the same
    arms: dict[str, list[Turn]] = {f"fed, {workers} threads": [] for workers in thread_counts}
    arms["resident"] = []
    for _ in range(rounds):
        for workers in thread_counts:
            with contextlib.closing(program.batches(0, workers=workers)) as batches:
                arms[f"fed, {workers} threads"].append(train_turn(program, batches, seconds))
        arms["resident"].append(train_turn(program, itertools.cycle(on_devices), seconds))
    return arms


def compare_with_resident(arms: dict[str, list[Turn]]) -> dict[str, dict[str, list[float]]]:
    """Returns for each fed arm the shares that the docstring of this file explains, round by round."""
    resident_turns = arms["resident"]
    shares = {}
    for name, turns in arms.items():
        if name == "resident":
            continue
        pairs = list(zip(turns, resident_turns, strict=True))
        shares[name] = {
            "waiting": [turn.waited for turn in turns],
            "at the door": [turn.door for turn in turns],
            "CPU there": [turn.busy for turn in turns],
            "lost, CPU": [1 - turn.cpu / resident.cpu for turn, resident in pairs],
            "lost, wall": [1 - turn.wall / resident.wall for turn, resident in pairs],
        }
    return shares


# All of it ------------------------------------------------------------------------------------------------------------


def measure_data_set(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measures stages and arms of one data set, a key of RECIPES, as the command line asks for."""
    path = getattr(args, name, None)
    recipe, recipe_overrides = RECIPES[name]
    overrides = list(recipe_overrides)
    if path:
        overrides.append(f"data.path={path}")
        if path.endswith(".npz"):
            overrides.append("data.name=arrays")
    elif name != "digits":
        overrides += STAND_IN
        path = "shapes"
    settings = load(recipe, [*overrides, *args.over])
    plan.check(settings)
    dataset = data.load(settings.section("data"))
    program = Program(settings, dataset, make_preprocessing(settings, dataset))
    stages = measure_file_stages(settings, args.seconds) | measure_batch_stages(program, args.seconds)
    arms = measure_arms(program, args.threads, args.rounds, args.seconds)
    stages["step"] = {
        "wall": statistics.median(turn.wall for turn in arms["resident"]),
        "cpu": statistics.median(turn.cpu for turn in arms["resident"]),
    }
    return {
        "path": path or "",
        "batch_size": program.batch_size,
        "image_shape": dataset.image_shape,
        "model": settings["model.name"],
        "images_a_second": stages,
        "arms": {arm: [asdict(turn) for turn in turns] for arm, turns in arms.items()},
        "waiting": compare_with_resident(arms),
    }


def print_data_set(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures of one data set, as `measure_data_set` gives them."""
    shape = "x".join(map(str, figures["image_shape"]))
    path = figures["path"] or "packaged"
    print(f"{name} ({path}), {shape}, batches of {figures['batch_size']}, {figures['model']}")
    for stage, rate in figures["images_a_second"].items():
        print(f"  {stage:8} {rate['cpu']:12,.0f} images a CPU-second  {rate['wall']:12,.0f} a second of wall")
    for arm, shares in figures["waiting"].items():
        texts = []
        for kind, by_round in shares.items():
            spread = f"{100 * min(by_round):.2f} to {100 * max(by_round):.2f}"
            texts.append(f"{kind} {100 * statistics.median(by_round):.2f} % ({spread})")
        print(f"  {arm}: {'; '.join(texts)}")


def main() -> None:
    """Measures the data sets of the command line and prints their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)} (default: all)")
    for name in ("mnist", "cifar", "folder"):
        parser.add_argument(f"--{name}", help="its file or folder (default: shapes of the same size)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each arm (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each stage and each turn (default: 2)")
    parser.add_argument("--threads", default="0,2", help="numbers of decoding threads, each an arm (default: 0,2)")
    parser.add_argument("--over", action="append", default=[], metavar="KEY=VALUE", help="setting over the recipe's")
    parser.add_argument("--pillow", action="store_true", help="decode without simplejpeg")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    args.threads = [int(count) for count in args.threads.split(",")]
    if args.rounds < 1 or set(args.sets) - set(RECIPES):
        parser.error(f"--rounds must be at least 1, and sets are {', '.join(RECIPES)}")
    decoder = jpeg.use_decoder("pillow" if args.pillow else "fastest")
    load_averages = [os.getloadavg()[0]]  # before the first data set and after each: how busy the machine was
    figures = {}
    for name in args.sets:
        figures[name] = measure_data_set(name, args)
        load_averages.append(os.getloadavg()[0])
        if not args.json:
            print_data_set(name, figures[name])
    facts = {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "decoder": decoder,
        "load": load_averages,
    }
    if args.json:
        print(json.dumps({"sets": figures, **facts}))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
