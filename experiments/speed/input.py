"""From file to step: images a second of each stage, and the share of a step that is spent waiting for data.

    python experiments/speed/input.py digits [--rounds=5] [--seconds=2] [--threads=0,2] [--json]
    python experiments/speed/input.py digits mnist cifar --mnist=mnist.npz --cifar=cifar.npz
    python experiments/speed/input.py folder --folder=photos/ --over=data.batch_size=16 --seconds=20

Stages are timed one after the other on the same batches, alone, in CPU time of one core: read (the file's bytes),
decode, fit (center and size), cut (decode and a random box instead of both), gather (a batch from memory), augment
(compiled, all cores), copy (to the device), step (the compiled step on batches that lie on the device; augmentation is
within). A stage that a data set does not have is left out. simplejpeg decodes where it is installed, unless `--pillow`.

Waiting is measured in rounds with the arms in turn, so that a busy machine troubles all of them. `at the door` is the
loop's time inside `next(batches)` over all of its time; most of it passes while the device still computes, for the host
is some steps ahead. `waiting` counts of it only the turns after which the device had nothing left to do: it may have
waited for the batch, at most that long. `CPU there` is the time at the door in CPU time, of this thread over all.
`lost` is how much less a step takes when its batches lie on the device (1 - fed / resident), in CPU and in wall time;
on a CPU it holds what decoding threads take from the step as well. A turn should last many steps: the first few find
batches that were made before. Where a file is not given, shapes of the set's size and colors, drawn before and kept in
memory, stand for it.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnn_vit import process

process.prepare()  # memory as the command line has it: before jax is imported

import jax  # noqa: E402
import numpy as np  # noqa: E402

from cnn_vit import data  # noqa: E402
from cnn_vit.data import sections  # noqa: E402
from cnn_vit.data.base.parts import EncodedPart  # noqa: E402
from cnn_vit.data.decode import crops, images, jpeg  # noqa: E402
from cnn_vit.data.feed import prefetch, stream  # noqa: E402
from cnn_vit.settings import Settings, load  # noqa: E402
from cnn_vit.training import devices, plan, step  # noqa: E402
from cnn_vit.training.run import STEPS_AHEAD, Run  # noqa: E402

WARM = 4  # steps before the clock starts: compilation, first batches
RESIDENT = 4  # batches that lie on the device
MOST = 256  # files that the stages read

RECIPES = {
    "digits": ("configs/digits_resnet.py", ()),
    "mnist": ("configs/mnist_lenet.py", ("data.image_size=28", "data.channels=1")),
    "cifar": ("configs/cifar_resnet.py:20", ("data.image_size=32", "data.channels=3")),
    "folder": ("configs/folder_resnet.py:224", ()),
}
STAND_IN = ("data.name=shapes", "data.path=none", "data.train=none", "data.validation=none", "data.classes=10")


class Clock(NamedTuple):
    """Seconds of wall, and of CPU in all threads of this process."""

    wall: float
    cpu: float


def now() -> Clock:
    """Both clocks."""
    return Clock(time.perf_counter(), time.process_time())


def since(began: Clock) -> Clock:
    """Seconds on both."""
    ended = now()
    return Clock(ended.wall - began.wall, ended.cpu - began.cpu)


def pace(work: Callable[[int], object], images_each: int, seconds: float) -> dict[str, float]:
    """Images a second of something done again and again, once unclocked: by wall, and for each CPU-second."""
    jax.block_until_ready(work(0))
    began, turns = now(), 0
    while since(began).wall < seconds:
        jax.block_until_ready(work(turns))
        turns += 1
    taken = since(began)
    return {"wall": turns * images_each / taken.wall, "cpu": turns * images_each / max(taken.cpu, 1e-9)}


# Stages


def of_files(settings: Settings, seconds: float) -> dict[str, dict[str, float]]:
    """read, decode, fit and cut of training files, in one thread; nothing where the data are no files."""
    found, _, _ = data.load_readable(sections.complete_section(settings.section("data")))
    part = found.parts["train"]
    if not isinstance(part, EncodedPart):
        return {}
    size, channels = sections.height_and_width(settings["data.image_size"]), settings["data.channels"]
    low, high = settings["data.random_crop"] or (0.08, 1.0)
    some = np.arange(min(MOST, len(part.labels))) * len(part.labels) // min(MOST, len(part.labels))
    contents = [part.content(int(index), None) for index in some]
    pixels = [images.decode(content, channels=channels) for content in contents]
    numbers = crops.crop_numbers(0, 0, len(some))

    def cut(turn: int) -> np.ndarray:
        at = turn % len(some)
        return crops.read_crop(
            contents[at], size, channels=channels,
            choose_box=lambda height, width: crops.crop_box(height, width, numbers[at], min_area=low, max_area=high),
        )  # fmt: skip

    return {
        "read": pace(lambda turn: part.content(int(some[turn % len(some)]), None), 1, seconds),
        "decode": pace(lambda turn: images.decode(contents[turn % len(some)], channels=channels), 1, seconds),
        "fit": pace(lambda turn: images.fit_image(pixels[turn % len(some)], size, settings["data.fit"]), 1, seconds),
        "cut": pace(cut, 1, seconds),
    }


def of_batches(run: Run, seconds: float) -> dict[str, dict[str, float]]:
    """gather, augment and copy of whole batches."""
    size, split = run.batch_size, run.dataset.splits["train"]
    some = list(itertools.islice(host_batches(run), RESIDENT))
    resident = [on_device(batch, run) for batch in some]
    augment = jax.jit(lambda batch, numbers, at: step.augment_batch(run.spec, at, batch, numbers)[:2])
    batches = host_batches(run)
    return {
        **({"gather": pace(lambda _: next(batches)["label"], size, seconds)} if split.in_memory else {}),
        "augment": pace(lambda turn: augment(resident[turn % RESIDENT], run.hyperparameters, turn), size, seconds),
        "copy": pace(lambda turn: on_device(some[turn % RESIDENT], run), size, seconds),
    }


def on_device(batch: dict[str, np.ndarray], run: Run) -> dict[str, jax.Array]:
    """A batch on the devices, of a CPU too, where the loop leaves it to the compiled call."""
    return jax.device_put(batch, devices.batch_sharding(run.mesh))


# Arms


def host_batches(run: Run, workers: int = 0, place: Callable[[dict], Any] = prefetch.keep_on_host) -> Iterator[Any]:
    """The run's batches from the first one, as the loop has them."""
    found = stream.batches(
        run.dataset.splits["train"],
        batch_size=run.batch_size,
        seed=run.settings["seed"],
        first=0,
        workers=workers,
        batches_ahead=run.settings["data.prefetch"],
        place=place,
    )
    with contextlib.closing(found):
        yield from found


def trained(run: Run, batches: Iterator[Any], seconds: float) -> dict[str, float]:
    """Images a second of the loop over batches, and the shares of its time inside `next` and waiting there."""
    state, ahead = run.initial_state(), []
    for batch in itertools.islice(batches, WARM):
        state, measures = run.step.learn(state, run.frozen, batch, run.hyperparameters)
    jax.block_until_ready(measures)
    began, steps, inside, busy, waited = now(), 0, 0.0, 0.0, 0.0
    while since(began).wall < seconds:
        asked, used = time.perf_counter(), time.thread_time()
        batch = next(batches)
        there, busy = time.perf_counter() - asked, busy + time.thread_time() - used
        inside, waited = inside + there, waited + there * measures["finite"].is_ready()
        state, measures = run.step.learn(state, run.frozen, batch, run.hyperparameters)
        steps += 1
        ahead.append(measures["finite"])
        if len(ahead) > STEPS_AHEAD:  # the host of a run is no further ahead of the device
            jax.block_until_ready(ahead.pop(0))
    jax.block_until_ready(measures)
    taken = since(began)
    count = steps * run.batch_size
    shares = {"waited": waited / taken.wall, "door": inside / taken.wall, "busy": busy / taken.cpu}
    return {"wall": count / taken.wall, "cpu": count / taken.cpu, **shares}


def arms(run: Run, threads: list[int], rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    """The loop fed by so many threads, and on batches that lie on the device; round by round, in turn."""
    resident = [on_device(batch, run) for batch in itertools.islice(host_batches(run), RESIDENT)]
    if run.dataset.splits["train"].in_memory:
        threads = threads[:1]  # no thread is started for them
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for workers in threads:
            batches = host_batches(run, workers, lambda batch: devices.place_batch(batch, run.mesh))
            with contextlib.closing(batches):
                found.setdefault(f"fed, {workers} threads", []).append(trained(run, batches, seconds))
        found.setdefault("resident", []).append(trained(run, itertools.cycle(resident), seconds))
    return found


# All of it


def measured(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything of one data set."""
    path = getattr(given, name, None)
    recipe, words = RECIPES[name]
    if path:
        words = (*words, f"data.path={path}", *(["data.name=arrays"] if path.endswith(".npz") else []))
    elif name != "digits":
        words = (*words, *STAND_IN)
    settings = load(recipe, [*words, *given.over])
    plan.check(settings)
    with tempfile.TemporaryDirectory() as away, Run(settings, Path(away), data.load(settings.section("data"))) as run:
        stages = {**of_files(settings, given.seconds), **of_batches(run, given.seconds)}
        rounds = arms(run, given.threads, given.rounds, given.seconds)
        found = {"path": path or ("" if name == "digits" else "shapes"), "batch_size": run.batch_size}
        found |= {"image_shape": run.dataset.image_shape, "model": settings["model.name"]}
    stages["step"] = {key: statistics.median(one[key] for one in rounds["resident"]) for key in ("wall", "cpu")}
    return {**found, "images_a_second": stages, "arms": rounds, "waiting": waiting(rounds)}


def waiting(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Of each fed arm: the shares waiting, at the door and lost, round by round."""
    shares = {}
    for name, fed in rounds.items():
        if name != "resident":
            pairs = list(zip(fed, rounds["resident"], strict=True))
            shares[name] = {
                "waiting": [one["waited"] for one in fed],
                "at the door": [one["door"] for one in fed],
                "CPU there": [one["busy"] for one in fed],
                "lost, CPU": [1 - one["cpu"] / other["cpu"] for one, other in pairs],
                "lost, wall": [1 - one["wall"] / other["wall"] for one, other in pairs],
            }
    return shares


def printed(name: str, found: dict[str, Any]) -> None:
    """The figures of one data set."""
    shape = "x".join(map(str, found["image_shape"]))
    print(f"{name} ({found['path'] or 'packaged'}), {shape}, batches of {found['batch_size']}, {found['model']}")
    for stage, rate in found["images_a_second"].items():
        print(f"  {stage:8} {rate['cpu']:12,.0f} images a CPU-second  {rate['wall']:12,.0f} a second of wall")
    for arm, shares in found["waiting"].items():
        texts = (
            f"{kind} {100 * statistics.median(share):.2f} % ({100 * min(share):.2f} to {100 * max(share):.2f})"
            for kind, share in shares.items()
        )
        print(f"  {arm}: {'; '.join(texts)}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)} (default: all)")
    for name in ("mnist", "cifar", "folder"):
        parser.add_argument(f"--{name}", help="its file or folder (default: shapes of the same size)")
    parser.add_argument("--rounds", type=int, default=5, help="of each arm, in turn (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each stage and each turn (default: 2)")
    parser.add_argument("--threads", default="0,2", help="that decode, each an arm (default: 0,2)")
    parser.add_argument("--over", action="append", default=[], metavar="KEY=VALUE", help="over the recipe's settings")
    parser.add_argument("--pillow", action="store_true", help="decode without simplejpeg")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    given.threads = [int(count) for count in given.threads.split(",")]
    if given.rounds < 1 or set(given.sets) - set(RECIPES):
        parser.error(f"--rounds must be at least 1, and sets are {', '.join(RECIPES)}")
    if given.pillow:
        jpeg.simplejpeg = None
    decoder = f"simplejpeg {jpeg.simplejpeg.__version__}" if jpeg.simplejpeg else "Pillow"
    facts = {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)), "decoder": decoder}
    facts["load"] = [os.getloadavg()[0]]
    sets = {}
    for name in given.sets:
        sets[name] = measured(name, given)
        facts["load"].append(os.getloadavg()[0])
        if not given.json:
            printed(name, sets[name])
    if given.json:
        print(json.dumps({"sets": sets, **facts}))
        return
    print(", ".join(f"{key} {value}" for key, value in facts.items()))


if __name__ == "__main__":
    main()
