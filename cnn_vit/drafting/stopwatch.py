"""How long things take: a few compiled training steps on the very data, and an evaluation, by the wall clock."""

import contextlib
from dataclasses import dataclass

import jax
import numpy as np

from cnn_vit import data
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.runs.journal import cpu_seconds, now
from cnn_vit.settings import Settings
from cnn_vit.training import evaluation
from cnn_vit.training.program import Program
from cnn_vit.transfer.weights import Weights

TIMED_SECONDS = 3.0  # for which steps are timed
LEAST_STEPS = 3  # that are timed, however long they take


@dataclass(frozen=True)
class Pace:
    """What the clock said, in seconds.

    Attributes:
        step: a training step, the mean of those timed; making its batch ready is part of it.
        steps: how many were timed; the first, which compiles, is left out.
        evaluation: one evaluation of the whole validation split.
        start: compiling step and evaluation, with the first batches.
        step_cpu: CPU-seconds of a training step, of all threads together; 0 where they were not measured.
        state_bytes: of the state that a checkpoint holds; 0 where it was not measured.
    """

    step: float
    steps: int
    evaluation: float
    start: float
    step_cpu: float = 0.0
    state_bytes: int = 0


def measure_pace(settings: Settings, dataset: data.Dataset, *, weights: Weights | None = None) -> Pace:
    """Times a run's steps from its start for TIMED_SECONDS, and an evaluation; nothing is kept.

    Args:
        settings: of the run, completed by its weights.
        dataset: its data.
        weights: that it starts from; None for initial values.
    """
    program = Program(settings, dataset, make_preprocessing(settings, dataset), weights=weights)
    state = program.initial_state()
    laps = [now()]  # when each step began; the first one compiles
    cpu_laps = [cpu_seconds()]
    with contextlib.closing(program.batches(0)) as batches:
        for batch in batches:
            state, measures = program.learn(state, batch)
            jax.block_until_ready(measures["finite"])
            laps.append(now())
            cpu_laps.append(cpu_seconds())
            if len(laps) > LEAST_STEPS + 1 and laps[-1] - laps[1] > TIMED_SECONDS:
                break

    validation = dataset.splits["validation"]
    sample = validation.select(np.arange(min(len(validation), evaluation.BATCH_SIZE)))

    def evaluation_seconds() -> float:
        began = now()
        evaluation.per_example(program.evaluator, program.whole(state), sample, workers=settings["data.workers"])
        return now() - began

    first, second = evaluation_seconds(), evaluation_seconds()  # the first one compiles
    samples_in_split = -(-len(validation) // len(sample))
    return Pace(
        step=(laps[-1] - laps[1]) / (len(laps) - 2),
        steps=len(laps) - 2,
        evaluation=second * samples_in_split,
        start=laps[1] - laps[0] + first - second,
        step_cpu=(cpu_laps[-1] - cpu_laps[1]) / (len(laps) - 2),
        state_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(state)),
    )
