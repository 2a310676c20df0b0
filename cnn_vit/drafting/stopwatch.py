"""How long things take: a few compiled steps on the very data, and an evaluation, by the wall clock."""

import contextlib
from typing import NamedTuple

import jax
import numpy as np

from cnn_vit import data
from cnn_vit.data.feed import stream
from cnn_vit.nn.values import initial_values
from cnn_vit.runs import folder
from cnn_vit.runs.journal import now
from cnn_vit.settings import Settings
from cnn_vit.training import devices, evaluation, plan, step

SECONDS = 3.0  # for which steps are timed
LEAST = 3  # steps, however long they take


class Pace(NamedTuple):
    """What the clock said, in seconds.

    Attributes:
        step: a step, the mean of `steps`; with making its batch ready.
        steps: how many were timed, the first left out.
        evaluation: all of the validation split, judged once.
        start: compiling both, with the first batches.
    """

    step: float
    steps: int
    evaluation: float
    start: float


def measure_pace(final: Settings, dataset: data.Dataset) -> Pace:
    """Times a run's steps from its first values for SECONDS, and an evaluation; nothing is kept."""
    mesh = devices.mesh()
    classes, train, validation = len(dataset.classes), dataset.splits["train"], dataset.splits["validation"]
    form = plan.network_spec(final, classes=classes, image_shape=dataset.image_shape)
    built = step.build_step(plan.step_spec(final, form, examples=len(train)), mesh)
    preprocessing = folder.make_preprocessing(final, dataset)
    hyperparameters = plan.hyperparameters(final, preprocessing, labels=train.labels, classes=classes)
    hyperparameters = jax.device_put(hyperparameters, devices.replicated(mesh))
    state = devices.place(built.init_state(*initial_values(built.network, final["seed"])), mesh)
    laps = [now()]
    for batch in batches(final, train, mesh):
        state, measures = built.learn(state, dict(params={}, stats={}), batch, hyperparameters)
        jax.block_until_ready(measures["finite"])
        laps.append(now())
        if len(laps) > LEAST + 1 and laps[-1] - laps[1] > SECONDS:
            break
    judge = step.eval_step(form, mesh)

    def judged(rows: np.ndarray) -> float:
        began = now()
        evaluation.per_example(
            lambda batch: judge(state["params"], state["stats"], batch, hyperparameters),
            validation.select(rows),
            batch_size=evaluation.BATCH_SIZE,
            on=mesh,
            workers=final["data.workers"],
        )
        return now() - began

    some = np.arange(min(len(validation), evaluation.BATCH_SIZE))
    first, again = judged(some), judged(some)
    return Pace(
        step=(laps[-1] - laps[1]) / (len(laps) - 2),
        steps=len(laps) - 2,
        evaluation=again * -(-len(validation) // len(some)),
        start=laps[1] - laps[0] + first - again,
    )


def batches(final: Settings, train: data.Split, mesh: jax.sharding.Mesh):
    """The run's batches from the first, without end; closed with the generator."""
    found = stream.batches(
        train,
        batch_size=final["data.batch_size"],
        seed=final["seed"],
        first=0,
        workers=final["data.workers"],
        prefetch=final["data.prefetch"],
        place=lambda batch: devices.place_batch(batch, mesh),
    )
    with contextlib.closing(found):
        yield from found
