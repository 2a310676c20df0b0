"""A mistake that learners make: what it gives, and the sentences that explain it."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from cnn_vit.studies.homework.exercises import as_outputs, reference


@dataclass(frozen=True)
class Mistake:
    """A known way of getting one output of a function wrong.

    Attributes:
        name: a few words, the same for all ways of making the mistake.
        output: which output is wrong, as `exercises.OUTPUTS` calls it.
        message: what happened, why it is wrong, and what to do.
        compute: what the mistake gives for the arguments of a case, which are its attributes. It may raise ValueError
            or IndexError where arrays do not fit, as the learner's own function would.
    """

    name: str
    output: str
    message: str
    compute: Callable[[SimpleNamespace], np.ndarray]


def right(function: str, inputs: SimpleNamespace, output: int = 0, **changes: object) -> np.ndarray:
    """What the right function gives for the arguments of a case, of which some are changed.

    Args:
        function: the name of the function.
        inputs: the arguments.
        output: the number of the output.
        changes: other values for some arguments.
    """
    return as_outputs(reference(function)(**{**vars(inputs), **changes}))[output]
