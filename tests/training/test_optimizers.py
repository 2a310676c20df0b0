"""Optimizers against their formulas in float64 NumPy, over several steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_vit.errors import UserError
from cnn_vit.training import optimizers

few = settings(max_examples=12, deadline=None, derandomize=True, database=None)
NUMBERS = dict(weight_decay=0.1, momentum=0.9, b1=0.8, b2=0.95, epsilon=1e-3, clip=1.0)
STEPS = 4


def tree(seed):
    rng = np.random.default_rng(seed)
    shapes = {"stem": {"kernel": (2, 3), "bias": (3,)}, "blocks": {0: {"kernel": (3, 2), "scale": (2,)}}}
    return jax.tree.map(
        lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


MASK = {"stem": {"kernel": True, "bias": False}, "blocks": {0: {"kernel": True, "scale": False}}}
GRADIENTS = [tree(seed) for seed in range(1, STEPS + 1)]


def trained(name, numbers, rates, *, clip=False, nesterov=False):
    """Parameters after a step with each rate, all compiled once; and the optimizer's state."""
    traces = []

    @jax.jit
    def step(params, state, grads, numbers, rate):
        traces.append(1)
        chain = optimizers.build_chain(name, numbers, rate, decay_mask=MASK, clip=clip, nesterov=nesterov)
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = tree(0)
    state = optimizers.build_chain(name, numbers, 0.0, decay_mask=MASK, clip=clip, nesterov=nesterov).init(params)
    for rate, grads in zip(rates, GRADIENTS, strict=True):
        params, state = step(params, state, grads, jax.tree.map(np.float32, numbers), np.float32(rate))
    assert len(traces) == 1
    return params, state


def clipped(grads, limit):
    """All gradients shortened together to the limit, float64."""
    grads = jax.tree.map(np.float64, grads)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
    return jax.tree.map(lambda leaf: leaf * min(1, limit / norm), grads)


def by_hand(rule, numbers, rates, limit=np.inf):
    """Parameters after the rule `(p, g, decay, memory, t, rate) -> p` at every leaf, float64."""
    params = jax.tree.map(np.float64, tree(0))
    memory = jax.tree.map(lambda leaf: {"m": np.zeros_like(leaf), "n": np.zeros_like(leaf)}, params)
    for t, (rate, grads) in enumerate(zip(rates, GRADIENTS, strict=True), start=1):
        decay = jax.tree.map(lambda on: numbers["weight_decay"] * on, MASK)
        params = jax.tree.map(
            lambda p, g, w, kept, t=t, rate=rate: rule(p, g, w, kept, t, rate),
            params, clipped(grads, limit), decay, memory, is_leaf=lambda leaf: isinstance(leaf, np.ndarray),
        )  # fmt: skip
    return params


def compare(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


@few
@given(
    rates=st.lists(st.floats(0.001, 0.5), min_size=STEPS, max_size=STEPS),
    momentum=st.floats(0, 0.95),
    weight_decay=st.floats(0, 0.5),
    nesterov=st.booleans(),
)
def test_sgd_is_torchs(rates, momentum, weight_decay, nesterov):
    numbers = NUMBERS | dict(momentum=momentum, weight_decay=weight_decay)

    def rule(p, g, w, kept, t, rate):  # torch.optim.SGD with dampening 0: L2 before momentum
        g = g + w * p
        kept["m"] = momentum * kept["m"] + g
        return p - rate * (g + momentum * kept["m"] if nesterov else kept["m"])

    compare(trained("sgd", numbers, rates, nesterov=nesterov)[0], by_hand(rule, numbers, rates))


@few
@given(
    rates=st.lists(st.floats(0.001, 0.5), min_size=STEPS, max_size=STEPS),
    weight_decay=st.floats(0, 0.5),
    b1=st.floats(0, 0.95),
    b2=st.floats(0, 0.99),
    epsilon=st.floats(1e-6, 0.1),
)
def test_adamw_decays_times_the_rate_around_the_averages(rates, weight_decay, b1, b2, epsilon):
    numbers = NUMBERS | dict(weight_decay=weight_decay, b1=b1, b2=b2, epsilon=epsilon)

    def rule(p, g, w, kept, t, rate):
        kept["m"] = b1 * kept["m"] + (1 - b1) * g
        kept["n"] = b2 * kept["n"] + (1 - b2) * g**2
        direction = kept["m"] / (1 - b1**t) / (np.sqrt(kept["n"] / (1 - b2**t)) + epsilon)
        return p - rate * (direction + w * p)

    compare(trained("adamw", numbers, rates)[0], by_hand(rule, numbers, rates))


@pytest.mark.parametrize("limit", [0.7, 1e6])
def test_clipping_shortens_the_whole_gradient_before_decay_and_momentum(limit):
    numbers, rates = NUMBERS | dict(clip=limit), [0.1, 0.2, 0.1, 0.3]

    def rule(p, g, w, kept, t, rate):
        kept["m"] = 0.9 * kept["m"] + g + w * p
        return p - rate * kept["m"]

    compare(trained("sgd", numbers, rates, clip=True)[0], by_hand(rule, numbers, rates, limit))


@pytest.mark.parametrize("name", list(optimizers.OPTIMIZERS))
def test_biases_and_scales_do_not_decay(name):
    rates = [0.1] * STEPS
    with_decay, without = (trained(name, NUMBERS | dict(weight_decay=w), rates)[0] for w in (0.5, 0.0))
    for path in (("stem", "bias"), ("blocks", 0, "scale")):
        one, other = with_decay, without
        for key in path:
            one, other = one[key], other[key]
        np.testing.assert_array_equal(one, other)
    assert np.abs(with_decay["stem"]["kernel"] - without["stem"]["kernel"]).min() > 1e-4


@pytest.mark.parametrize("name", list(optimizers.OPTIMIZERS))
def test_the_states_structure_depends_on_no_number_and_starts_from_zeros(name):
    plain = dict.fromkeys(NUMBERS, 0.0)
    states = [
        optimizers.build_chain(name, numbers, 0.1, decay_mask=MASK, clip=clip).init(tree(0))
        for numbers in (plain, NUMBERS)
        for clip in (False, True)
    ]
    assert len({str(jax.tree.structure(state)) for state in states}) == 1
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(states[0]))
    after = trained(name, NUMBERS, [0.1] * STEPS)[1]
    assert jax.tree.structure(after) == jax.tree.structure(states[0])
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)] for state in (after, states[0])]
    assert shapes[0] == shapes[1]


def test_the_pattern_is_searched_in_the_whole_path():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), tree(0))
    assert optimizers.build_decay_mask(shapes, r"(^|/)kernel$") == MASK
    stem = optimizers.build_decay_mask(shapes, "^stem/")
    assert stem == {"stem": {"kernel": True, "bias": True}, "blocks": {0: {"kernel": False, "scale": False}}}


def test_a_pattern_found_nowhere_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"'kernl' is found in no parameter, whose paths end in bias, kernel, scale"):
        optimizers.build_decay_mask(tree(0), "kernl")


@pytest.mark.parametrize(
    ("name", "nesterov", "says"),
    [("adam", False, "no optimizer 'adam'; did you mean adamw"), ("adamw", True, "optimizer.nesterov is for sgd")],
)
def test_a_rule_that_is_not_there_is_refused(name, nesterov, says):
    with pytest.raises(UserError, match=says):
        optimizers.build_chain(name, NUMBERS, 0.1, decay_mask=MASK, clip=False, nesterov=nesterov)
