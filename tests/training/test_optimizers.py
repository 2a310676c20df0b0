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

few_examples = settings(max_examples=12, deadline=None, derandomize=True, database=None)
HYPERPARAMETERS = dict(weight_decay=0.1, momentum=0.9, b1=0.8, b2=0.95, epsilon=1e-3, clip=1.0)
STEPS = 4


def draw_tree(seed):
    """Draws a tree of parameters or gradients."""
    rng = np.random.default_rng(seed)
    shapes = {"stem": {"kernel": (2, 3), "bias": (3,)}, "blocks": {0: {"kernel": (3, 2), "scale": (2,)}}}
    return jax.tree.map(
        lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


MASK = {"stem": {"kernel": True, "bias": False}, "blocks": {0: {"kernel": True, "scale": False}}}
GRADIENTS = [draw_tree(seed) for seed in range(1, STEPS + 1)]


def train(name, hyperparameters, rates, *, clip=False, nesterov=False):
    """Takes a step with each rate, all compiled once; returns the parameters and the optimizer's state."""
    traces = []

    def build_chain(numbers, rate):
        return optimizers.build_chain(name, numbers, rate, decay_mask=MASK, clip=clip, nesterov=nesterov)

    @jax.jit
    def step(params, state, grads, numbers, rate):
        traces.append(rate)
        updates, state = build_chain(numbers, rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = draw_tree(0)
    state = build_chain(hyperparameters, 0.0).init(params)
    for rate, grads in zip(rates, GRADIENTS, strict=True):
        params, state = step(params, state, grads, jax.tree.map(np.float32, hyperparameters), np.float32(rate))
    assert len(traces) == 1
    return params, state


def clip_by_hand(grads, limit):
    """Shortens all gradients together to a norm of at most the limit, in float64."""
    grads = jax.tree.map(np.float64, grads)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(grads)))
    return jax.tree.map(lambda leaf: leaf * min(1, limit / norm), grads)


def train_by_hand(rule, hyperparameters, rates, limit=np.inf):
    """Parameters after a rule at every leaf, in float64.

    Args:
        rule: (p, g, decay, memory, t, rate) -> p, with a dict `memory` of the leaf that it may change.
        hyperparameters: of the optimizer.
        rates: the learning rate of each step.
        limit: norm to which gradients are clipped.
    """
    params = jax.tree.map(np.float64, draw_tree(0))
    memory = jax.tree.map(lambda leaf: {"m": np.zeros_like(leaf), "n": np.zeros_like(leaf)}, params)
    decay = jax.tree.map(lambda decays: hyperparameters["weight_decay"] * decays, MASK)
    for t, (rate, grads) in enumerate(zip(rates, GRADIENTS, strict=True), start=1):

        def update(p, g, leaf_decay, leaf_memory, t=t, rate=rate):
            return rule(p, g, leaf_decay, leaf_memory, t, rate)

        params = jax.tree.map(
            update, params, clip_by_hand(grads, limit), decay, memory, is_leaf=lambda leaf: isinstance(leaf, np.ndarray)
        )
    return params


def assert_close(params, expected):
    for leaf, expected_leaf in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=2e-4, atol=2e-6)


@few_examples
@given(
    rates=st.lists(st.floats(0.001, 0.5), min_size=STEPS, max_size=STEPS),
    momentum=st.floats(0, 0.95),
    weight_decay=st.floats(0, 0.5),
    nesterov=st.booleans(),
)
def test_sgd_is_torchs(rates, momentum, weight_decay, nesterov):
    hyperparameters = HYPERPARAMETERS | dict(momentum=momentum, weight_decay=weight_decay)

    def rule(p, g, decay, memory, t, rate):  # torch.optim.SGD with dampening 0: L2 before momentum
        g = g + decay * p
        memory["m"] = momentum * memory["m"] + g
        direction = g + momentum * memory["m"] if nesterov else memory["m"]
        return p - rate * direction

    params, _ = train("sgd", hyperparameters, rates, nesterov=nesterov)
    assert_close(params, train_by_hand(rule, hyperparameters, rates))


@few_examples
@given(
    rates=st.lists(st.floats(0.001, 0.5), min_size=STEPS, max_size=STEPS),
    weight_decay=st.floats(0, 0.5),
    b1=st.floats(0, 0.95),
    b2=st.floats(0, 0.99),
    epsilon=st.floats(1e-6, 0.1),
)
def test_adamw_decays_times_the_rate_around_the_averages(rates, weight_decay, b1, b2, epsilon):
    hyperparameters = HYPERPARAMETERS | dict(weight_decay=weight_decay, b1=b1, b2=b2, epsilon=epsilon)

    def rule(p, g, decay, memory, t, rate):
        memory["m"] = b1 * memory["m"] + (1 - b1) * g
        memory["n"] = b2 * memory["n"] + (1 - b2) * g**2
        direction = memory["m"] / (1 - b1**t) / (np.sqrt(memory["n"] / (1 - b2**t)) + epsilon)
        return p - rate * (direction + decay * p)

    params, _ = train("adamw", hyperparameters, rates)
    assert_close(params, train_by_hand(rule, hyperparameters, rates))


@pytest.mark.parametrize("limit", [0.7, 1e6])
def test_clipping_shortens_the_whole_gradient_before_decay_and_momentum(limit):
    hyperparameters, rates = HYPERPARAMETERS | dict(clip=limit), [0.1, 0.2, 0.1, 0.3]

    def rule(p, g, decay, memory, t, rate):
        memory["m"] = 0.9 * memory["m"] + g + decay * p
        return p - rate * memory["m"]

    params, _ = train("sgd", hyperparameters, rates, clip=True)
    assert_close(params, train_by_hand(rule, hyperparameters, rates, limit))


@pytest.mark.parametrize("name", list(optimizers.OPTIMIZERS))
def test_biases_and_scales_do_not_decay(name):
    rates = [0.1] * STEPS
    with_decay, _ = train(name, HYPERPARAMETERS | dict(weight_decay=0.5), rates)
    without_decay, _ = train(name, HYPERPARAMETERS | dict(weight_decay=0.0), rates)
    np.testing.assert_array_equal(with_decay["stem"]["bias"], without_decay["stem"]["bias"])
    np.testing.assert_array_equal(with_decay["blocks"][0]["scale"], without_decay["blocks"][0]["scale"])
    assert np.abs(with_decay["stem"]["kernel"] - without_decay["stem"]["kernel"]).min() > 1e-4


@pytest.mark.parametrize("name", list(optimizers.OPTIMIZERS))
def test_the_states_structure_depends_on_no_number_and_starts_from_zeros(name):
    zeros = dict.fromkeys(HYPERPARAMETERS, 0.0)
    states = []
    for hyperparameters in (zeros, HYPERPARAMETERS):
        for clip in (False, True):
            chain = optimizers.build_chain(name, hyperparameters, 0.1, decay_mask=MASK, clip=clip)
            states.append(chain.init(draw_tree(0)))
    assert len({str(jax.tree.structure(state)) for state in states}) == 1
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(states[0]))
    _, state_after = train(name, HYPERPARAMETERS, [0.1] * STEPS)
    assert jax.tree.structure(state_after) == jax.tree.structure(states[0])
    for leaf, initial_leaf in zip(jax.tree.leaves(state_after), jax.tree.leaves(states[0]), strict=True):
        assert (leaf.shape, leaf.dtype) == (initial_leaf.shape, initial_leaf.dtype)


def test_the_pattern_is_searched_in_the_whole_path():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), draw_tree(0))
    assert optimizers.build_decay_mask(shapes, r"(^|/)kernel$") == MASK
    stem_alone = optimizers.build_decay_mask(shapes, "^stem/")
    assert stem_alone == {"stem": {"kernel": True, "bias": True}, "blocks": {0: {"kernel": False, "scale": False}}}


def test_a_pattern_found_nowhere_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"'kernl' matches no parameter's path; paths end in bias, kernel, scale"):
        optimizers.build_decay_mask(draw_tree(0), "kernl")


@pytest.mark.parametrize(
    ("name", "nesterov", "message"),
    [("adam", False, "no optimizer 'adam'; did you mean adamw"), ("adamw", True, "optimizer.nesterov is for sgd")],
)
def test_an_unknown_optimizer_and_a_rule_without_nesterov_are_refused(name, nesterov, message):
    with pytest.raises(UserError, match=message):
        optimizers.build_chain(name, HYPERPARAMETERS, 0.1, decay_mask=MASK, clip=False, nesterov=nesterov)
