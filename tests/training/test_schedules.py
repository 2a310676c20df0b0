"""Schedules by hand arithmetic, and against optax where it has the same one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.errors import UserError
from cnn_vit.settings import read_rule
from cnn_vit.training import plan, schedules
from cnn_vit.training.rules import RuleSpec

few_examples = settings(max_examples=15, deadline=None, derandomize=True, database=None)
MOST_STEPS = 3000
IN_STEPS = {"boundaries": (6, 9), "period": 4, "timescale": 4}  # lengths that settings give with a unit


def build(name, *, total, warmup=0, starts_above_zero=False, **changes):
    """A schedule at its default keywords but for the changes, and for short lengths."""
    options, numbers = {}, {}
    for keyword, row in read_rule("schedule", name).keys.items():
        value = changes.pop(keyword, IN_STEPS.get(keyword, row.default))
        (numbers if plan.is_number(row, value) else options)[keyword] = value
    assert not changes
    rule = RuleSpec(name, tuple(sorted(options.items())))
    numbers = {keyword: np.float32(number) for keyword, number in numbers.items()}
    return schedules.build_schedule(rule, numbers, total=total, warmup=warmup, starts_above_zero=starts_above_zero)


def multipliers(name, steps, **options):
    """The multiplier of a schedule at each step; computed of MOST_STEPS always, so that all calls share programs."""
    padded_steps = np.resize(np.int32(steps), MOST_STEPS)
    return np.asarray(build(name, **options)(jnp.asarray(padded_steps)))[: len(steps)]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [  # at steps 0 2 4 6 8 11 of 12 with 4 of warm-up
        ("constant", {}, [0, 0.5, 1, 1, 1, 1]),
        ("linear", {}, [0, 0.5, 1, 0.75, 0.5, 0.125]),
        ("linear", dict(final=0.2), [0, 0.5, 1, 0.8, 0.6, 0.3]),
        ("cosine", {}, [0, 0.5, 1, 0.853553, 0.5, 0.038060]),
        ("cosine", dict(final=0.5), [0, 0.5, 1, 0.926777, 0.75, 0.519030]),
        ("step", dict(factor=0.2), [0, 0.5, 1, 0.2, 0.2, 0.04]),
        ("rsqrt", {}, [0, 0.5, 1, 0.816497, 0.707107, 0.603023]),
        ("polynomial", {}, [0, 0.5, 1, 0.5625, 0.25, 0.015625]),
        ("polynomial", dict(power=3, final=0.5), [0, 0.5, 1, 0.7109375, 0.5625, 0.500977]),
        ("wsd", dict(decay=0.5), [0, 0.5, 1, 1, 2 / 3, 1 / 6]),  # the last 6 steps
        ("wsd", dict(decay=0.5, final=0.4), [0, 0.5, 1, 1, 0.8, 0.5]),
        ("wsd", dict(decay=0.5, shape="sqrt"), [0, 0.5, 1, 1, 1 - 3**-0.5, 1 - (5 / 6) ** 0.5]),
        ("wsd", dict(decay=1), [0, 0.5, 1, 0.75, 0.5, 0.125]),  # no longer than the warm-up leaves
        ("restarts", {}, [0, 0.5, 1, 0.5, 1, 0.691342]),  # 4 steps, then 8 of which 3 are gone: (1 + cos(3 pi / 8)) / 2
        ("restarts", dict(period=2, growth=1), [0, 0.5, 1, 1, 1, 0.5]),
    ],
)
def test_values_by_hand_at_the_start_in_the_warm_up_at_its_end_and_at_the_last_step(name, changes, expected):
    np.testing.assert_allclose(
        multipliers(name, [0, 2, 4, 6, 8, 11], total=12, warmup=4, **changes), expected, atol=1e-6
    )


def test_one_cycle_rises_and_falls_as_half_cosines():
    """Over 10 steps: up until step 4 from 0.1, through the middle of the rise at 2; down to 0.2, its middle at 7."""
    curve = multipliers("onecycle", [0, 2, 4, 7, 10], total=10, rise=0.4, start=0.1, final=0.2)
    np.testing.assert_allclose(curve, [0.1, 0.55, 1, 0.6, 0.2], atol=1e-6)


def test_one_cycle_is_optaxs():
    reference = optax.cosine_onecycle_schedule(40, 1.0, pct_start=0.3, div_factor=25, final_div_factor=1e4)
    curve = multipliers("onecycle", range(40), total=40)
    np.testing.assert_allclose(curve, [reference(step) for step in range(40)], atol=1e-6)


def test_restarts_are_optaxs():
    cycles = [
        dict(init_value=1, peak_value=1, warmup_steps=0, decay_steps=steps, end_value=0.1) for steps in (5, 15, 45)
    ]
    reference = optax.sgdr_schedule(cycles)
    curve = multipliers("restarts", range(40), total=40, period=5, growth=3, final=0.1)
    np.testing.assert_allclose(curve, [reference(step) for step in range(40)], atol=1e-6)


def test_polynomial_is_optaxs():
    reference = optax.polynomial_schedule(1.0, 0.1, 1.5, 23, transition_begin=7)
    curve = multipliers("polynomial", range(7, 30), total=30, warmup=7, power=1.5, final=0.1)
    np.testing.assert_allclose(curve, [reference(step) for step in range(7, 30)], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in schedules.SCHEDULES if name != "onecycle"])
def test_without_warm_up_the_first_step_has_the_full_rate(name):
    assert multipliers(name, [0], total=1).tolist() == [1]
    assert multipliers(name, [0], total=50).tolist() == [1]


@pytest.mark.parametrize("name", [name for name in schedules.SCHEDULES if name != "onecycle"])
def test_a_rise_that_begins_above_zero_is_a_step_ahead(name):
    usual = multipliers(name, range(12), total=12, warmup=4)
    ahead = multipliers(name, range(12), total=12, warmup=4, starts_above_zero=True)
    np.testing.assert_allclose(ahead[:3], [0.25, 0.5, 0.75], atol=1e-6)
    np.testing.assert_array_equal(ahead[4:], usual[4:])


@few_examples
@given(
    name=st.sampled_from(["constant", "linear", "cosine", "step", "rsqrt", "polynomial", "wsd"]),
    total=st.integers(2, MOST_STEPS),
    warmup_share=st.floats(0, 0.99),
)
def test_a_multiplier_is_float32_between_0_and_1_and_falls_after_the_warm_up(name, total, warmup_share):
    warmup = int(warmup_share * total)
    curve = multipliers(name, range(total), total=total, warmup=warmup)
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


@pytest.mark.parametrize("name", list(schedules.SCHEDULES))
def test_step_and_numbers_are_traced_and_compile_once(name):
    traces, rows = [], read_rule("schedule", name).keys
    numbers = {keyword: row.default for keyword, row in rows.items() if plan.is_number(row, row.default)}
    options = {keyword: IN_STEPS.get(keyword, row.default) for keyword, row in rows.items() if keyword not in numbers}
    rule = RuleSpec(name, tuple(sorted(options.items())))
    warmup = 0 if name == "onecycle" else 5

    @jax.jit
    def traced_schedule(step, numbers):
        traces.append(step)
        return schedules.build_schedule(rule, numbers, total=40, warmup=warmup)(step)

    all_numbers = [numbers] + [numbers | {keyword: number * 0.5 + 0.01} for keyword, number in numbers.items()]
    curves = set()
    for changed in all_numbers:
        as_arrays = {keyword: np.float32(number) for keyword, number in changed.items()}
        curve = [float(traced_schedule(np.int32(step), as_arrays)) for step in (0, 5, 12, 39)]
        np.testing.assert_allclose(
            curve, multipliers(name, [0, 5, 12, 39], total=40, warmup=warmup, **changed), atol=1e-6
        )
        curves.add(tuple(curve))
    assert len(curves) == len(all_numbers)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosine", dict(total=5, warmup=5), "schedule.warmup is 5 steps of a run of 5"),
        ("step", dict(total=5, boundaries=()), "schedule.boundaries"),
        ("onecycle", dict(total=50, warmup=5), "onecycle, which rises by itself; set schedule.warmup=0"),
        ("restarts", dict(total=5000, period=1, growth=1), "schedule.period of 1 steps restarts more than 1000 times"),
    ],
)
def test_an_impossible_schedule_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        build(name, **options)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(UserError, match="no schedule 'cosin'; did you mean cosine"):
        schedules.build_schedule(RuleSpec("cosin"), {}, total=5)
