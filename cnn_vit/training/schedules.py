"""How the learning rate goes over a run: a multiplier in [0, 1] of the base rate, for each step.

Steps count from 0; the last update of a run of T steps is step T - 1. With a warm-up of W steps the multiplier rises
in a straight line, t / W at step t: 0 at step 0, 1 at step W. From there (without warm-up: from step 0)

    constant   1
    linear     1 - (t - W) / (T - W):  1 at step W, 1 / (T - W) at the last step; 0 would come at step T
    cosine     (1 + cos(pi (t - W) / (T - W))) / 2:  1 at step W, 0 would come at step T
    step       factor^n, where n boundaries lie at or before t, counted from step 0 and in the warm-up too
    rsqrt      1 / sqrt(1 + (t - W) / timescale):  1 at step W, 1/2 after three timescales, whatever T is

With W = timescale, rsqrt is the schedule of Vaswani et al., arXiv:1706.03762, equation 3; with another timescale that
of Zhai et al., arXiv:2106.04560, as big_vision writes it. The shape is fixed when the step is compiled.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_vit.errors import UserError, unknown


class ScheduleSteps(NamedTuple):
    """What a schedule may depend on, in steps.

    Attributes:
        total: of the run.
        warmup: of the rise from 0.
        boundaries: where `step` falls.
        factor: what each boundary multiplies by.
        timescale: of `rsqrt`.
    """

    total: int
    warmup: int
    boundaries: tuple[int, ...]
    factor: float
    timescale: int


def shape(
    name: str,
    *,
    total: int,
    warmup: int = 0,
    boundaries: tuple[int, ...] = (),
    factor: float = 0.1,
    timescale: int = 10_000,
) -> Callable[[jax.Array], jax.Array]:
    """Makes the function from a step (int, may be traced) to the multiplier (float32).

    Args:
        name: a key of SCHEDULES.
        total: length of the run in steps.
        warmup: length of the linear rise in steps, shorter than the run.
        boundaries: steps at which `step` falls; those beyond the run are never met.
        factor: what `step` multiplies by at each boundary.
        timescale: of `rsqrt`, in steps.

    Raises:
        UserError: no such schedule; a warm-up as long as the run; `step` without boundaries.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if warmup and warmup >= total:
        raise UserError(f"schedule.warmup is {warmup} steps of a run of {total}; make it shorter than duration, or 0")
    if name == "step" and not boundaries:
        raise UserError("schedule.name is step without schedule.boundaries; give some, such as ('80 epochs',)")
    after = SCHEDULES[name](ScheduleSteps(total, warmup, tuple(boundaries), factor, timescale))

    def multiplier(step):
        rise = jnp.minimum(step / warmup, 1) if warmup else 1
        return jnp.asarray(rise * after(step), jnp.float32)

    return multiplier


def constant(plan: ScheduleSteps) -> Callable:
    """1 at every step."""
    return lambda step: jnp.ones(jnp.shape(step), jnp.float32)


def linear(plan: ScheduleSteps) -> Callable:
    """A straight line from 1 at the end of the warm-up to 0 at the end of the run."""
    return optax.linear_schedule(1.0, 0.0, plan.total - plan.warmup, transition_begin=plan.warmup)


def cosine(plan: ScheduleSteps) -> Callable:
    """Half a cosine from 1 at the end of the warm-up to 0 at the end of the run.

    Loshchilov and Hutter, arXiv:1608.03983, without restarts.
    """
    falling = optax.cosine_decay_schedule(1.0, plan.total - plan.warmup)
    return lambda step: falling(jnp.maximum(step - plan.warmup, 0))


def stairs(plan: ScheduleSteps) -> Callable:
    """A fall by the factor at each boundary; two at the same step fall twice."""
    return lambda step: jnp.float32(plan.factor) ** sum(jnp.int32(step >= boundary) for boundary in plan.boundaries)


def rsqrt(plan: ScheduleSteps) -> Callable:
    """The reciprocal of a square root that is 1 at the end of the warm-up."""
    return lambda step: jax.lax.rsqrt(1 + jnp.maximum(step - plan.warmup, 0) / plan.timescale)


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": stairs,
    "rsqrt": rsqrt,
}
