"""Measures how long a run's parts take: a few compiled steps on its own data, and an evaluation, by the wall clock."""

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

TIMED_SECONDS = 3.0  # for which steps are timed
LEAST_STEPS = 3  # that are timed, however long they take


class Pace(NamedTuple):
    """How long the parts of a run take.

    Attributes:
        step: seconds of a step with making its batch ready; the mean of `steps`.
        steps: number of steps that were timed, the first left out.
        evaluation: seconds of one evaluation of the whole validation split.
        start: seconds of compiling both, with the first batches.
    """

    step: float
    steps: int
    evaluation: float
    start: float


def measure_pace(settings: Settings, dataset: data.Dataset) -> Pace:
    """Times a run's steps from its initial values for TIMED_SECONDS, and an evaluation; keeps nothing of either."""
    mesh = devices.mesh()
    classes, train, validation = len(dataset.classes), dataset.splits["train"], dataset.splits["validation"]
    network_spec = plan.network_spec(settings, classes=classes, image_shape=dataset.image_shape)
    train_step = step.build_step(plan.step_spec(settings, network_spec, examples=len(train)), mesh)
    preprocessing = folder.make_preprocessing(settings, dataset)
    hyperparameters = plan.hyperparameters(settings, preprocessing, labels=train.labels, classes=classes)
    hyperparameters = jax.device_put(hyperparameters, devices.replicated(mesh))
    state = devices.place(train_step.init_state(*initial_values(train_step.network, settings["seed"])), mesh)
    times = [now()]
    for batch in batches(settings, train, mesh):
        state, measures = train_step.learn(state, dict(params={}, stats={}), batch, hyperparameters)
        jax.block_until_ready(measures["finite"])
        times.append(now())
        # The first step compiles: times[1] is when it ended, and the steps after it are the ones that are timed
        if len(times) > LEAST_STEPS + 1 and times[-1] - times[1] > TIMED_SECONDS:
            break
    eval_step = step.eval_step(network_spec, mesh)

    def time_evaluation(rows: np.ndarray) -> float:
        """Returns the seconds of an evaluation of some rows of the validation split."""
        start = now()
        evaluation.per_example(
            lambda batch: eval_step(state["params"], state["stats"], batch, hyperparameters),
            validation.select(rows),
            batch_size=evaluation.BATCH_SIZE,
            on=mesh,
            workers=settings["data.workers"],
        )
        return now() - start

    # One batch, twice: the first evaluation compiles; the second tells how long all batches take
    rows = np.arange(min(len(validation), evaluation.BATCH_SIZE))
    with_compiling, without_compiling = time_evaluation(rows), time_evaluation(rows)
    return Pace(
        step=(times[-1] - times[1]) / (len(times) - 2),
        steps=len(times) - 2,
        evaluation=without_compiling * -(-len(validation) // len(rows)),
        start=times[1] - times[0] + with_compiling - without_compiling,
    )


def batches(settings: Settings, train: data.Split, mesh: jax.sharding.Mesh):
    """Yields the run's batches from the first, without end; they are closed with the generator."""
    endless_batches = stream.batches(
        train,
        batch_size=settings["data.batch_size"],
        seed=settings["seed"],
        first=0,
        workers=settings["data.workers"],
        prefetch=settings["data.prefetch"],
        place=lambda batch: devices.place_batch(batch, mesh),
    )
    with contextlib.closing(endless_batches):
        yield from endless_batches
