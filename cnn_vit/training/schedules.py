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
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from cnn_vit.errors import UserError, unknown


@dataclass(frozen=True)
class ScheduleOptions:
    """What the shape of a schedule may depend on; each schedule reads what it needs.

    Attributes:
        total: length of the run in steps.
        warmup: length of the linear rise from 0 in steps.
        boundaries: steps at which the schedule `step` falls.
        factor: what `step` multiplies by at each boundary.
        timescale: of `rsqrt`, in steps.
    """

    total: int
    warmup: int
    boundaries: tuple[int, ...]
    factor: float
    timescale: int


def build_schedule(
    name: str,
    *,
    total: int,
    warmup: int = 0,
    boundaries: tuple[int, ...] = (),
    factor: float = 0.1,
    timescale: int = 10_000,
) -> Callable[[jax.Array], jax.Array]:
    """Builds the function from a step (int, may be traced) to the multiplier (float32).

    Args:
        name: a key of SCHEDULES.
        total: length of the run in steps.
        warmup: length of the linear rise in steps, shorter than the run.
        boundaries: steps at which `step` falls; those beyond the run are never met.
        factor: what `step` multiplies by at each boundary.
        timescale: of `rsqrt`, in steps.

    Raises:
        UserError: there is no such schedule, the warm-up is as long as the run, or `step` has no boundaries.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if warmup and warmup >= total:
        raise UserError(f"schedule.warmup is {warmup} steps of a run of {total}; make it shorter than duration, or 0")
    if name == "step" and not boundaries:
        raise UserError("schedule.name is step without schedule.boundaries; give some, such as ('80 epochs',)")
    options = ScheduleOptions(total, warmup, tuple(boundaries), factor, timescale)
    after_warmup = SCHEDULES[name](options)

    def multiplier(step):
        rise = jnp.minimum(step / warmup, 1) if warmup else 1
        # each schedule stays at 1 during the warm-up, but for `step`, whose early boundaries count there too
        return jnp.asarray(rise * after_warmup(step), jnp.float32)

    return multiplier


# Each schedule below makes, from its options, the function of a step that follows the warm-up.


def constant(options: ScheduleOptions) -> Callable:
    """1 at every step."""
    return lambda step: jnp.ones(jnp.shape(step), jnp.float32)


def linear(options: ScheduleOptions) -> Callable:
    """A straight line from 1 at the end of the warm-up to 0 at the end of the run."""
    return optax.linear_schedule(1.0, 0.0, options.total - options.warmup, transition_begin=options.warmup)


def cosine(options: ScheduleOptions) -> Callable:
    """Half a cosine from 1 at the end of the warm-up to 0 at the end of the run.

    Loshchilov and Hutter, arXiv:1608.03983, without restarts.
    """
    half_cosine = optax.cosine_decay_schedule(1.0, options.total - options.warmup)
    return lambda step: half_cosine(jnp.maximum(step - options.warmup, 0))


def step_decay(options: ScheduleOptions) -> Callable:
    """A fall by the factor at each boundary; two boundaries at the same step make it fall twice."""

    def multiplier(step):
        boundaries_passed = sum(jnp.int32(step >= boundary) for boundary in options.boundaries)
        return jnp.float32(options.factor) ** boundaries_passed

    return multiplier


def rsqrt(options: ScheduleOptions) -> Callable:
    """The reciprocal of a square root that is 1 at the end of the warm-up."""
    return lambda step: jax.lax.rsqrt(1 + jnp.maximum(step - options.warmup, 0) / options.timescale)


SCHEDULES = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step_decay,
    "rsqrt": rsqrt,
}
