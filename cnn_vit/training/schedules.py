"""How the learning rate goes over a run: a multiplier in [0, 1] of the base rate, for each step.

Steps count from 0; the last update of a run of T steps is step T - 1. With a warm-up of W steps the multiplier rises
in a straight line, t / W at step t: 0 at step 0, 1 at step W. For an optimizer that cannot take a rate of 0 it is
(t + 1) / W: 1 / W at step 0, 1 at step W - 1. From step W on (without warm-up: from step 0), with L = T - W steps left
and s = t - W of them gone:

    constant     1
    linear       1 - s/L, from 1 to `final`:  f + (1 - f) (1 - s/L)
    cosine       f + (1 - f) (1 + cos(pi s/L)) / 2
    polynomial   f + (1 - f) (1 - s/L)^power
    step         factor^n, where n boundaries lie at or before t, counted from step 0 and in the warm-up too
    rsqrt        1 / sqrt(1 + s / timescale):  1/2 after three timescales, whatever T is
    wsd          1 until a last part of the run, in which it falls to f in a straight line, or as 1 - sqrt
    onecycle     half a cosine up from `start` to 1, half a cosine down to f; it has no other warm-up
    restarts     half a cosine from 1 to f, again and again, each time so many times as long

The `final` f would come at step T, one after the last. Each schedule is a function; its keywords are settings,
`schedule.final`, as `settings.rules` reads them. Lengths in steps are fixed when the step is compiled; other numbers
are its arguments.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from cnn_vit.errors import UserError, unknown
from cnn_vit.training.rules import RuleSpec, Steps

Multiplier = Callable[[jax.Array], jax.Array]  # from a step (int, may be traced) to the multiplier
MOST_RESTARTS = 1000  # each is a term of the compiled program


@dataclass(frozen=True)
class Span:
    """The steps of a run.

    Attributes:
        total: length of the run.
        warmup: length of the rise at its beginning.
    """

    total: int
    warmup: int

    @property
    def length(self) -> int:
        """The steps behind the warm-up."""
        return self.total - self.warmup

    def steps_gone(self, step: jax.Array) -> jax.Array:
        """How many steps behind the warm-up come before a step; 0 in the warm-up."""
        return jnp.maximum(step - self.warmup, 0)


def build_schedule(
    rule: RuleSpec, numbers: dict[str, Any], *, total: int, warmup: int = 0, starts_above_zero: bool = False
) -> Multiplier:
    """Builds the function from a step (int, may be traced) to the multiplier (float32).

    Args:
        rule: a schedule with its options.
        numbers: its numbers by keyword, which may be traced.
        total: length of the run in steps.
        warmup: length of the linear rise in steps, shorter than the run.
        starts_above_zero: whether the rise begins at 1 / warmup instead of 0.

    Raises:
        UserError: there is no such schedule, the warm-up is as long as the run, or the schedule cannot be.
    """
    if rule.name not in SCHEDULES:
        raise unknown("schedule", rule.name, SCHEDULES)
    if warmup and warmup >= total:
        raise UserError(f"schedule.warmup is {warmup} steps of a run of {total}; make it shorter than duration, or 0")
    schedule = SCHEDULES[rule.name]
    after_warmup = schedule(Span(total, warmup), **rule.keywords(schedule, numbers))

    def multiplier(step):
        rise = jnp.minimum((step + 1 if starts_above_zero else step) / warmup, 1) if warmup else 1
        # each schedule stays at 1 during the warm-up, but for `step`, whose early boundaries count there too
        return jnp.asarray(rise * after_warmup(step), jnp.float32)

    return multiplier


# Each schedule below makes, from the steps of a run and its keywords, the function of a step that follows the warm-up.


def constant(span: Span) -> Multiplier:
    """The full rate at every step."""
    return lambda step: jnp.ones(jnp.shape(step), jnp.float32)


def linear(span: Span, *, final: float = 0.0) -> Multiplier:
    """A straight line from 1 at the end of the warm-up to the end of the run.

    Source: optax.linear_schedule.

    Args:
        final: multiplier at the end of the run, in [0, 1].
    """
    return optax.linear_schedule(1.0, final, span.length, transition_begin=span.warmup)


def cosine(span: Span, *, final: float = 0.0) -> Multiplier:
    """Half a cosine from 1 at the end of the warm-up to the end of the run.

    Loshchilov and Hutter, arXiv:1608.03983, without restarts; optax.cosine_decay_schedule.

    Args:
        final: multiplier at the end of the run, in [0, 1].
    """
    half_cosine = optax.cosine_decay_schedule(1.0, span.length, alpha=final)
    return lambda step: half_cosine(span.steps_gone(step))


def polynomial(span: Span, *, power: float = 2.0, final: float = 0.0) -> Multiplier:
    """A power of a straight line, from 1 at the end of the warm-up to the end of the run.

    Liu et al., ParseNet, arXiv:1506.04579, section 3.3 (they take the power 0.9); optax.polynomial_schedule.

    Args:
        power: exponent of the falling line, 1 is linear, in (0, 100].
        final: multiplier at the end of the run, in [0, 1].
    """
    return optax.polynomial_schedule(1.0, final, power, span.length, transition_begin=span.warmup)


def step_decay(span: Span, *, boundaries: tuple[Steps, ...], factor: float = 0.1) -> Multiplier:
    """A fall by a factor at each boundary; two boundaries at the same step make it fall twice.

    The schedule of He et al., arXiv:1512.03385, section 4.2.

    Args:
        boundaries: the times at which the rate falls, those beyond the run are never met, in (0, 1e15].
        factor: what each boundary multiplies the rate by, in (0, 1].
    """
    if not boundaries:
        raise UserError("schedule.name is step without schedule.boundaries; give some, such as ('80 epochs',)")

    def multiplier(step):
        boundaries_passed = sum(jnp.int32(step >= boundary) for boundary in boundaries)
        return jnp.float32(factor) ** boundaries_passed

    return multiplier


def rsqrt(span: Span, *, timescale: Steps = 10_000) -> Multiplier:
    """The reciprocal of a square root that is 1 at the end of the warm-up.

    Zhai et al., arXiv:2106.04560, as big_vision writes it. With timescale = warm-up it is that of Vaswani et al.,
    arXiv:1706.03762, equation 3.

    Args:
        timescale: the time at the full rate before it falls as 1/sqrt(step), in (0, 1e15].
    """
    return lambda step: jax.lax.rsqrt(1 + span.steps_gone(step) / timescale)


def warmup_stable_decay(
    span: Span, *, decay: float = 0.2, final: float = 0.0, shape: Literal["linear", "sqrt"] = "linear"
) -> Multiplier:
    """The full rate, then a fall in the last part of the run: warm-up, stable, decay.

    Hu et al., MiniCPM, arXiv:2404.06395, section 4; the shape sqrt is that of Haegele et al., arXiv:2405.18392.

    Args:
        decay: share of the whole run in which the rate falls, at most what the warm-up leaves, in (0, 1].
        final: multiplier at the end of the run, in [0, 1].
        shape: of the fall, a straight line or 1 - sqrt.
    """

    def multiplier(step):
        decay_steps = jnp.minimum(decay * span.total, span.length)
        share_gone = jnp.clip((step - (span.total - decay_steps)) / decay_steps, 0, 1)
        fall = jnp.sqrt(share_gone) if shape == "sqrt" else share_gone
        return 1 - (1 - final) * fall

    return multiplier


def onecycle(span: Span, *, rise: float = 0.3, start: float = 0.04, final: float = 4e-6) -> Multiplier:
    """Half a cosine up to the full rate and half a cosine down, over the whole run.

    Smith and Topin, arXiv:1708.07120; the defaults are those of PyTorch's OneCycleLR.

    Args:
        rise: share of the run in which the rate rises, in (0, 1).
        start: multiplier at the first step, in (0, 1].
        final: multiplier at the end of the run, in [0, 1].

    Raises:
        UserError: the run has a warm-up beside the schedule's own rise.
    """
    if span.warmup:
        raise UserError("schedule.name is onecycle, which rises by itself; set schedule.warmup=0")

    def multiplier(step):
        share = step / span.total
        up = start + (1 - start) * half_cosine(share / rise)
        down = 1 - (1 - final) * half_cosine((share - rise) / (1 - rise))
        return jnp.where(share < rise, up, down)

    return multiplier


def half_cosine(share: jax.Array) -> jax.Array:
    """Rises from 0 at 0 to 1 at 1 as half a cosine."""
    return (1 - jnp.cos(jnp.pi * share)) / 2


def restarts(span: Span, *, period: Steps = 1000, growth: int = 2, final: float = 0.0) -> Multiplier:
    """Half a cosine from the full rate, again and again.

    Loshchilov and Hutter, SGDR, arXiv:1608.03983, equation 5; optax.cosine_decay_schedule, joined.

    Args:
        period: length of the first half cosine, in (0, 1e15].
        growth: how many times as long each half cosine is as the one before, in [1, 100].
        final: multiplier at the end of each half cosine, in [0, 1].

    Raises:
        UserError: there are more than MOST_RESTARTS half cosines in the run.
    """
    lengths = [max(period, 1)]
    while sum(lengths) < span.length:
        lengths.append(lengths[-1] * growth)
        if len(lengths) > MOST_RESTARTS:
            raise UserError(
                f"schedule.period of {period} steps restarts more than {MOST_RESTARTS} times in {span.length} steps; "
                "make it longer, or schedule.growth larger"
            )
    cycles = [optax.cosine_decay_schedule(1.0, length, alpha=final) for length in lengths]
    joined = optax.join_schedules(cycles, list(itertools.accumulate(lengths[:-1])))
    return lambda step: joined(span.steps_gone(step))


SCHEDULES: dict[str, Callable[..., Multiplier]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "step": step_decay,
    "rsqrt": rsqrt,
    "polynomial": polynomial,
    "wsd": warmup_stable_decay,
    "onecycle": onecycle,
    "restarts": restarts,
}
