"""Schedules by hand arithmetic, and against optax where it has the same one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.errors import UserError
from cnn_vit.training import schedules

few_examples = settings(max_examples=15, deadline=None, derandomize=True, database=None)


def multipliers(name, steps, **options):
    """The multiplier of a schedule at each step."""
    schedule = schedules.build_schedule(name, **options)
    return np.asarray(schedule(jnp.asarray(steps, jnp.int32)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # at steps 0 2 4 6 8 11 of 12 with 4 of warm-up
        ("constant", [0, 0.5, 1, 1, 1, 1]),
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.125]),
        ("cosine", [0, 0.5, 1, 0.853553, 0.5, 0.038060]),
        ("step", [0, 0.5, 1, 0.2, 0.2, 0.04]),
        ("rsqrt", [0, 0.5, 1, 0.816497, 0.707107, 0.603023]),
    ],
)
def test_values_by_hand_at_the_start_in_the_warm_up_at_its_end_and_at_the_last_step(name, expected):
    options = dict(total=12, warmup=4, boundaries=(6, 9), factor=0.2, timescale=4)
    np.testing.assert_allclose(multipliers(name, [0, 2, 4, 6, 8, 11], **options), expected, atol=1e-6)


@pytest.mark.parametrize("name", list(schedules.SCHEDULES))
def test_without_warm_up_the_first_step_has_the_full_rate(name):
    assert multipliers(name, [0], total=1, boundaries=(5,)).tolist() == [1]
    assert multipliers(name, [0], total=50, boundaries=(5,)).tolist() == [1]


@few_examples
@given(
    name=st.sampled_from(list(schedules.SCHEDULES)),
    total=st.integers(2, 3000),
    warmup_share=st.floats(0, 0.99),
    boundaries=st.lists(st.integers(1, 4000), min_size=1, max_size=4),
    factor=st.floats(0.01, 1),
    timescale=st.integers(1, 5000),
)
def test_a_multiplier_is_float32_between_0_and_1_and_falls_after_the_warm_up(
    name, total, warmup_share, boundaries, factor, timescale
):
    warmup = int(warmup_share * total)
    curve = multipliers(
        name, range(total), total=total, warmup=warmup, boundaries=tuple(boundaries), factor=factor, timescale=timescale
    )
    assert curve.dtype == np.float32
    assert curve.min() >= 0
    assert curve.max() <= 1
    assert (np.diff(curve[warmup:]) <= 1e-7).all()


def test_cosine_with_warm_up_is_optaxs():
    reference = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=7, decay_steps=30, end_value=0.0)
    curve = multipliers("cosine", range(30), total=30, warmup=7)
    np.testing.assert_allclose(curve, [reference(step) for step in range(30)], atol=1e-6)


def test_linear_with_warm_up_is_optaxs_two_lines_joined():
    parts = optax.linear_schedule(0.0, 1.0, 7), optax.linear_schedule(1.0, 0.0, 23)
    reference = optax.join_schedules(parts, [7])
    curve = multipliers("linear", range(30), total=30, warmup=7)
    np.testing.assert_allclose(curve, [reference(step) for step in range(30)], atol=1e-6)


def test_step_is_optaxs_piecewise_constant():
    reference = optax.piecewise_constant_schedule(1.0, {5: 0.2, 6: 0.2, 20: 0.2})
    curve = multipliers("step", range(30), total=30, boundaries=(5, 6, 20), factor=0.2)
    np.testing.assert_allclose(curve, [reference(step) for step in range(30)], atol=1e-6)


def test_the_residual_networks_rate_falls_by_ten_at_32k_and_48k():
    steps = [31_999, 32_000, 47_999, 48_000, 63_999]
    curve = multipliers("step", steps, total=64_000, boundaries=(32_000, 48_000))
    np.testing.assert_allclose(curve, [1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_two_boundaries_at_one_step_fall_twice_and_one_in_the_warm_up_counts():
    np.testing.assert_allclose(multipliers("step", [4, 5], total=9, boundaries=(5, 5)), [1, 0.01], rtol=1e-6)
    np.testing.assert_allclose(multipliers("step", [2, 4], total=9, warmup=4, boundaries=(2,)), [0.05, 0.1], rtol=1e-6)


def test_rsqrt_with_its_timescale_as_warm_up_is_the_transformers_schedule():
    steps = np.array([1, 1000, 4000, 16_000, 100_000])
    vaswani = 512**-0.5 * np.minimum(steps**-0.5, steps * 4000**-1.5)
    curve = multipliers("rsqrt", steps, total=200_000, warmup=4000, timescale=4000)
    np.testing.assert_allclose(curve * 6.98771e-4, vaswani, rtol=1e-5)  # its peak, for width 512


def test_a_traced_step_gives_the_same_and_compiles_once():
    traces, schedule = [], schedules.build_schedule("cosine", total=40, warmup=5)

    @jax.jit
    def traced_schedule(step):
        traces.append(step)
        return schedule(step)

    curve = [traced_schedule(np.int32(step)) for step in (0, 5, 39)]
    np.testing.assert_allclose(curve, multipliers("cosine", [0, 5, 39], total=40, warmup=5), atol=1e-7)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosin", dict(total=5), "no schedule 'cosin'; did you mean cosine"),
        ("cosine", dict(total=5, warmup=5), "schedule.warmup is 5 steps of a run of 5"),
        ("step", dict(total=5), "schedule.boundaries"),
    ],
)
def test_an_impossible_schedule_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        schedules.build_schedule(name, **options)
