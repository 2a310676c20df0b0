"""Optimizers against their formulas in float64 NumPy and against optax alone, and what a run relies on of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quick import QUICK
from stepping import (
    default_numbers,
    learn_batches,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_rule_spec,
    make_step_spec,
)

from cnn_vit import models, trees
from cnn_vit.errors import UserError
from cnn_vit.nn.values import initial_values
from cnn_vit.settings import read_rule
from cnn_vit.training import devices, forward, freezing, optimizers, step
from cnn_vit.training.freezing import FreezeSpec

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

few_examples = settings(max_examples=12, deadline=None, derandomize=True, database=None)
SGD = dict(momentum=0.9, weight_decay=0.1)
ADAMW = dict(b1=0.8, b2=0.95, epsilon=1e-3, weight_decay=0.1)
STEPS = 4
for_each_rule = pytest.mark.parametrize("name", list(optimizers.OPTIMIZERS))
# Rules whose states are of different kinds; the others are tested with the slow tests.
FAST_RULES = ("sgd", "adamw", "muon", "schedule_free_adamw", "prodigy")
for_each_rule_in_time = pytest.mark.parametrize(
    "name",
    [name if name in FAST_RULES else pytest.param(name, marks=pytest.mark.slow) for name in optimizers.OPTIMIZERS],
)


def draw_tree(seed):
    """Draws a tree of parameters or gradients."""
    rng = np.random.default_rng(seed)
    shapes = {"stem": {"kernel": (2, 3), "bias": (3,)}, "blocks": {0: {"kernel": (3, 2), "scale": (2,)}}}
    return jax.tree.map(
        lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=lambda leaf: isinstance(leaf, tuple)
    )


MASK = {"stem": {"kernel": True, "bias": False}, "blocks": {0: {"kernel": True, "scale": False}}}
INNER = {"stem": {"kernel": False, "bias": False}, "blocks": {0: {"kernel": True, "scale": False}}}
LEAVES = optimizers.Leaves(decays=MASK, find_inner_kernels=lambda: INNER)
GRADIENTS = [draw_tree(seed) for seed in range(1, STEPS + 1)]


class CompiledRule:
    """The step of a rule, compiled by its first call: `traces` counts how often that happened."""

    def __init__(self, rule, clip):
        self.rule, self.clip, self.traces = rule, clip, 0
        self.step = jax.jit(self.run, compiler_options=QUICK)

    def build_chain(self, numbers, rate):
        return optimizers.build_chain(self.rule, numbers, learning_rate=rate, leaves=LEAVES, clip=self.clip)

    def run(self, params, state, grads, numbers, rate):
        self.traces += 1
        updates, state = self.build_chain(numbers, rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state


compile_rule = functools.cache(CompiledRule)  # other rates and numbers are arguments of the same program


def train(name, numbers, rates, *, clip=None, **options):
    """Takes a step with each rate, all compiled once; returns the parameters and the optimizer's state."""
    compiled = compile_rule(make_rule_spec("optimizer", name, **options), clip)
    params = draw_tree(0)
    numbers = jax.tree.map(np.float32, numbers)
    state = compiled.build_chain(numbers, np.float32(rates[0])).init(params)
    for rate, grads in zip(rates, GRADIENTS, strict=True):
        params, state = compiled.step(params, state, grads, numbers, np.float32(rate))
    assert compiled.traces == 1
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
    numbers = dict(momentum=momentum, weight_decay=weight_decay)

    def rule(p, g, decay, memory, t, rate):  # torch.optim.SGD with dampening 0: L2 before momentum
        g = g + decay * p
        memory["m"] = momentum * memory["m"] + g
        direction = g + momentum * memory["m"] if nesterov else memory["m"]
        return p - rate * direction

    params, _ = train("sgd", numbers, rates, nesterov=nesterov)
    assert_close(params, train_by_hand(rule, numbers, rates))


@few_examples
@given(
    rates=st.lists(st.floats(0.001, 0.5), min_size=STEPS, max_size=STEPS),
    weight_decay=st.floats(0, 0.5),
    b1=st.floats(0, 0.95),
    b2=st.floats(0, 0.99),
    epsilon=st.floats(1e-6, 0.1),
)
def test_adamw_decays_times_the_rate_around_the_averages(rates, weight_decay, b1, b2, epsilon):
    numbers = dict(weight_decay=weight_decay, b1=b1, b2=b2, epsilon=epsilon)

    def rule(p, g, decay, memory, t, rate):
        memory["m"] = b1 * memory["m"] + (1 - b1) * g
        memory["n"] = b2 * memory["n"] + (1 - b2) * g**2
        direction = memory["m"] / (1 - b1**t) / (np.sqrt(memory["n"] / (1 - b2**t)) + epsilon)
        return p - rate * (direction + decay * p)

    params, _ = train("adamw", numbers, rates)
    assert_close(params, train_by_hand(rule, numbers, rates))


@pytest.mark.parametrize("limit", [0.7, 1e6])
def test_clipping_shortens_the_whole_gradient_before_decay_and_momentum(limit):
    rates = [0.1, 0.2, 0.1, 0.3]

    def rule(p, g, decay, memory, t, rate):
        memory["m"] = 0.9 * memory["m"] + g + decay * p
        return p - rate * memory["m"]

    params, _ = train("sgd", SGD, rates, clip=limit)
    assert_close(params, train_by_hand(rule, SGD, rates, limit))


DECAYING = [name for name in optimizers.OPTIMIZERS if "weight_decay" in read_rule("optimizer", name).keys]


@pytest.mark.parametrize("name", DECAYING)
def test_biases_and_scales_do_not_decay(name):
    numbers, rates = default_numbers("optimizer", name), [0.1] * STEPS
    if name == "prodigy":
        numbers |= dict(initial_estimate=1.0)  # else its first steps are too short to tell
    with_decay, _ = train(name, numbers | dict(weight_decay=0.5), rates)
    without_decay, _ = train(name, numbers | dict(weight_decay=0.0), rates)
    np.testing.assert_array_equal(with_decay["stem"]["bias"], without_decay["stem"]["bias"])
    np.testing.assert_array_equal(with_decay["blocks"][0]["scale"], without_decay["blocks"][0]["scale"])
    assert np.abs(with_decay["stem"]["kernel"] - without_decay["stem"]["kernel"]).min() > 1e-5


def test_the_pattern_is_searched_in_the_whole_path():
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), draw_tree(0))
    assert optimizers.build_decay_mask(shapes, r"(^|/)kernel$") == MASK
    stem_alone = optimizers.build_decay_mask(shapes, "^stem/")
    assert stem_alone == {"stem": {"kernel": True, "bias": True}, "blocks": {0: {"kernel": False, "scale": False}}}


def test_a_pattern_found_nowhere_is_refused_with_what_there_is():
    with pytest.raises(UserError, match=r"'kernl' matches no parameter's path; paths end in bias, kernel, scale"):
        optimizers.build_decay_mask(draw_tree(0), "kernl")


def test_a_rule_gets_all_of_its_keywords_or_is_not_built():
    with pytest.raises(UserError, match="no optimizer 'adamx'; did you mean adam"):
        optimizers.get_optimizer("adamx")
    for numbers in (dict(momentum=0.9), SGD | dict(b1=0.9)):  # a default would stand in silently for what is missing
        with pytest.raises(ValueError, match=r"sgd takes \['momentum', 'nesterov', 'weight_decay'\], but has"):
            train("sgd", numbers, [0.1] * STEPS)


# Against optax alone --------------------------------------------------------------------------------------------------

# Other numbers than the defaults, so that each has to reach its place.
NUMBERS = {
    "sgd": dict(momentum=0.8, weight_decay=0.02),
    "adam": dict(b1=0.8, b2=0.95, epsilon=1e-3),
    "adamw": ADAMW,
    "nadamw": ADAMW,
    "radam": dict(b1=0.8, b2=0.95, epsilon=1e-3, threshold=4.5),
    "lion": dict(b1=0.7, b2=0.9, weight_decay=0.02),
    "lamb": ADAMW,
    "lars": dict(momentum=0.8, trust_coefficient=0.02, epsilon=1e-3, weight_decay=0.02),
    "adafactor": dict(decay_rate=0.7, largest_update=0.5, epsilon=1e-6, weight_decay=0.02),
    "muon": dict(momentum=0.8, weight_decay=0.02, adamw_learning_rate=0.03, adamw_b1=0.8, adamw_b2=0.95, epsilon=1e-3),
    "adopt": dict(b1=0.8, b2=0.95, epsilon=1e-3),
    "schedule_free_adamw": dict(b1=0.8, b2=0.95, epsilon=1e-3, weight_decay=0.02, weight_power=1.5),
    "prodigy": dict(b1=0.8, b2=0.95, epsilon=1e-3, weight_decay=0.02, initial_estimate=1e-3, coefficient=0.5),
}


def build_with_optax(name, rate, n):
    """The rule as optax alone writes it, from the same numbers."""
    b1, b2, eps, decay = (n.get(keyword) for keyword in ("b1", "b2", "epsilon", "weight_decay"))
    if name == "sgd":
        return optax.chain(optax.add_decayed_weights(decay, MASK), optax.sgd(rate, n["momentum"]))
    if name == "adam":
        return optax.adam(rate, b1, b2, eps)
    if name == "adamw":
        return optax.adamw(rate, b1, b2, eps, weight_decay=decay, mask=MASK)
    if name == "nadamw":
        return optax.nadamw(rate, b1, b2, eps, weight_decay=decay, mask=MASK)
    if name == "radam":
        return optax.radam(rate, b1, b2, eps, threshold=n["threshold"])
    if name == "lion":
        return optax.lion(rate, b1, b2, weight_decay=decay, mask=MASK)
    if name == "lamb":
        return optax.lamb(rate, b1, b2, eps, weight_decay=decay, mask=MASK)
    if name == "lars":
        return optax.lars(rate, decay, MASK, n["trust_coefficient"], eps, trust_ratio_mask=MASK, momentum=n["momentum"])
    if name == "adafactor":
        return optax.adafactor(
            rate, decay_rate=n["decay_rate"], clipping_threshold=n["largest_update"], eps=eps,
            weight_decay_rate=rate * decay, weight_decay_mask=MASK,
        )  # fmt: skip
    if name == "adopt":
        return optax.contrib.adopt(rate, b1, b2, eps)
    if name == "prodigy":  # every parameter decays
        return optax.contrib.prodigy(
            rate, (b1, b2), eps=eps, weight_decay=decay, estim_lr0=n["initial_estimate"], estim_lr_coef=n["coefficient"]
        )
    # AdamW without momentum inside: its first moment with b1 = 0 is the gradient itself
    inner = optax.adamw(rate, 0.0, b2, eps, weight_decay=decay, mask=MASK)
    return optax.contrib.schedule_free(inner, rate, b1, n["weight_power"])


def scan_updates(build, numbers, rates, params, grads):
    """Parameters after an update by each gradient, compiled as one program with numbers and rates as arguments."""

    def run(params, grads, numbers, rates):
        def update(params_and_state, grads_and_rate):
            params, state = params_and_state
            grads, rate = grads_and_rate
            updates, state = build(numbers, rate).update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        state = build(numbers, rates[0]).init(params)
        (params, _), _ = jax.lax.scan(update, (params, state), (grads, rates))
        return params

    return jax.jit(run, compiler_options=QUICK)(params, grads, numbers, rates)


@pytest.mark.parametrize("name", [name for name in optimizers.OPTIMIZERS if name != "muon"])
def test_twenty_updates_are_those_of_optax_alone(name):
    numbers = {keyword: np.float32(number) for keyword, number in NUMBERS[name].items()}
    assert numbers.keys() == default_numbers("optimizer", name).keys()
    rates = np.float32(np.linspace(0.02, 0.1, 20))
    rule = make_rule_spec("optimizer", name)
    leaves = LEAVES
    if name == "prodigy":
        leaves = optimizers.Leaves(jax.tree.map(lambda _: True, MASK), lambda: INNER)

    def build(numbers, rate):
        return optimizers.build_chain(rule, numbers, learning_rate=rate, leaves=leaves)

    grads = jax.tree.map(lambda *leaves: np.stack(leaves), *[draw_tree(seed) for seed in range(1, 21)])
    ours = scan_updates(build, numbers, rates, draw_tree(0), grads)
    theirs = scan_updates(functools.partial(build_with, name), numbers, rates, draw_tree(0), grads)
    for leaf, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(ours["stem"]["kernel"] - draw_tree(0)["stem"]["kernel"]).max() > 1e-4


def build_with(name, numbers, rate):
    """`build_with_optax` with the arguments in the order of `scan_updates`."""
    return build_with_optax(name, rate, numbers)


def test_twenty_updates_of_muon_are_those_of_optaxs_muon_and_adamw_on_their_own_parameters():
    """A convolution of 3x2 pixels, 2 colors and 5 filters is the matrix (12, 5) for Muon; the head is AdamW's."""
    rng = np.random.default_rng(0)
    shapes = {"conv": {"kernel": (3, 2, 2, 5)}, "dense": {"kernel": (4, 7)}, "head": {"kernel": (7, 3), "bias": (3,)}}
    params, *all_grads = (
        jax.tree.map(lambda shape: np.float32(rng.normal(size=shape)), shapes, is_leaf=lambda x: isinstance(x, tuple))
        for _ in range(21)
    )
    grads = jax.tree.map(lambda *leaves: np.stack(leaves), *all_grads)
    decays = {"conv": {"kernel": True}, "dense": {"kernel": True}, "head": {"kernel": True, "bias": False}}
    inner = {"conv": {"kernel": True}, "dense": {"kernel": True}, "head": {"kernel": False, "bias": False}}
    rule, rates = make_rule_spec("optimizer", "muon"), np.float32(np.linspace(0.02, 0.1, 20))
    numbers = {keyword: np.float32(number) for keyword, number in NUMBERS["muon"].items()}

    def build(numbers, rate):
        numbers = numbers | dict(adamw_learning_rate=numbers["adamw_learning_rate"] * rate)
        leaves = optimizers.Leaves(decays, lambda: inner)
        return optimizers.build_chain(rule, numbers, learning_rate=rate, leaves=leaves)

    def build_muon(n, rate):
        return optax.contrib.muon(rate, beta=n["momentum"], eps=n["epsilon"], weight_decay=n["weight_decay"])

    def build_adamw(n, rate):
        rate = n["adamw_learning_rate"] * rate
        mask = {"head": decays["head"]}
        return optax.adamw(rate, n["adamw_b1"], n["adamw_b2"], n["epsilon"], weight_decay=n["weight_decay"], mask=mask)

    def as_matrices(tree, *, lead=()):
        matrices = {name: {"kernel": tree[name]["kernel"]} for name in ("conv", "dense")}
        matrices["conv"] = {"kernel": tree["conv"]["kernel"].reshape(*lead, 12, 5)}
        return matrices

    ours = scan_updates(build, numbers, rates, params, grads)
    kernels = scan_updates(build_muon, numbers, rates, as_matrices(params), as_matrices(grads, lead=(20,)))
    head = scan_updates(build_adamw, numbers, rates, {"head": params["head"]}, {"head": grads["head"]})
    # Newton and Schulz's polynomials amplify rounding: 1e-6 of a matrix of norm about 1
    for leaf, expected in zip(jax.tree.leaves(as_matrices(ours)), jax.tree.leaves(kernels), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-5)
    for leaf, expected in zip(jax.tree.leaves(ours["head"]), jax.tree.leaves(head["head"]), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-6)


# Within a step --------------------------------------------------------------------------------------------------------

NETWORK = make_network_spec(hidden=(6, 5))  # between the first layer and the head is one kernel, (6, 5)
WARMING = step.ScheduleSpec(make_rule_spec("schedule", "constant"), total=100, warmup=4)
BATCHES = [make_batch(seed=seed) for seed in range(6)]
# Numbers that change a bit within six steps; every other one is taken 0.6 times, and 0 becomes 0.01.
OTHER_NUMBERS = {"threshold": 4.1, "epsilon": 0.1, "coefficient": 100.0}


def learn_with(name, batches, *, state=None, network=NETWORK, schedule=WARMING, learning_rate=None, **changes):
    """Takes a step with a rule on each batch, at its default numbers but for the changes; gives state and measures."""
    hyperparameters = make_hyperparameters(
        learning_rate=learning_rate or read_rule("optimizer", name).learning_rate,
        optimizer=default_numbers("optimizer", name) | changes,
    )
    spec = make_step_spec(network, optimizer=name, schedule=schedule)
    return learn_batches(spec, hyperparameters, batches, state=state)


def copy_through_host(state):
    """A state as a checkpoint gives it back: copies of its arrays on the host, placed anew."""
    return devices.place(jax.tree.map(np.array, state), devices.mesh())


@for_each_rule_in_time
def test_a_rule_resumes_to_the_same_bits_and_another_value_of_a_number_compiles_nothing(name):
    numbers, rate = default_numbers("optimizer", name), read_rule("optimizer", name).learning_rate
    undisturbed, _ = learn_with(name, BATCHES)
    halfway, _ = learn_with(name, BATCHES[:3])
    resumed, _ = learn_with(name, BATCHES[3:], state=copy_through_host(halfway))
    assert trees.digest(resumed) == trees.digest(undisturbed)
    digests = {trees.digest(undisturbed)}
    for keyword, number in (numbers | dict(learning_rate=rate)).items():
        other = OTHER_NUMBERS.get(keyword, 0.6 * number if number else 0.01)
        state, measures = learn_with(name, BATCHES, **{keyword: other})
        assert all(measure["finite"] for measure in measures)
        digests.add(trees.digest(state))
    assert len(digests) == 2 + len(numbers)
    spec = make_step_spec(NETWORK, optimizer=name, schedule=WARMING)
    assert step.build_step(spec, devices.mesh()).learn._cache_size() == 1


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST_RULES else pytest.mark.slow)
     for name, rule in optimizers.OPTIMIZERS.items() if not rule.starts_above_zero],
)  # fmt: skip
def test_at_a_rate_of_zero_no_parameter_moves(name):
    """The warm-up's first step multiplies every base rate, that of Muon's AdamW too."""
    spec = make_step_spec(NETWORK, optimizer=name, schedule=WARMING)
    hyperparameters = make_hyperparameters(optimizer=default_numbers("optimizer", name))
    state = make_initial_state(step.build_step(spec, devices.mesh()), hyperparameters)
    before = jax.tree.map(np.array, state["params"])
    state, _ = learn_batches(spec, hyperparameters, BATCHES[:1], state=state)
    for leaf, expected in zip(jax.tree.leaves(state["params"]), jax.tree.leaves(before), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7)


@for_each_rule
def test_a_rules_state_keeps_its_form_and_shares_no_memory_with_the_parameters(name):
    spec = make_step_spec(NETWORK, optimizer=name, schedule=WARMING)
    hyperparameters = make_hyperparameters(optimizer=default_numbers("optimizer", name))
    built_step = step.build_step(spec, devices.mesh())
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape)), built_step.network.params)
    # not compiled, for a compiled program copies what it returns in any case
    state = step.init_state(spec, built_step.network, params, {}, hyperparameters)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((state["opt"], state["ema"]))]
    for param in jax.tree.leaves(params):
        assert not any(np.shares_memory(param, leaf) for leaf in leaves)
    after, _ = jax.eval_shape(built_step.learn, state, step.NOTHING_FROZEN, BATCHES[0], hyperparameters)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for leaf, expected in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


def mean_losses(name, state=None, steps=60):
    """The mean losses of the first and of the last ten of so many steps on two batches, at the rule's default rate."""
    _, measures = learn_with(name, BATCHES[:2] * (steps // 2), state=state)
    losses = [float(measure["loss"]) for measure in measures]
    return np.mean(losses[:10]), np.mean(losses[-10:])


@pytest.mark.parametrize("name", ["muon", "prodigy", "schedule_free_adamw"])
def test_a_rule_whose_state_begins_from_zeros_instead_of_its_own_init_does_not_learn(name):
    first, last = mean_losses(name)
    gain = first - last
    assert gain > 0.02
    built_step = step.build_step(make_step_spec(NETWORK, optimizer=name, schedule=WARMING), devices.mesh())
    state = make_initial_state(built_step, make_hyperparameters(optimizer=default_numbers("optimizer", name)))
    zeros = jax.tree.map(jnp.zeros_like, state["opt"])
    inner_kernel = np.array(state["params"]["hidden"]["layers"][1]["kernel"])
    if name == "muon":  # AdamW's part begins from zeros rightly
        after, _ = learn_with(name, BATCHES, state=state | dict(opt=zeros))
        np.testing.assert_array_equal(after["params"]["hidden"]["layers"][1]["kernel"], inner_kernel)
        return
    first, last = mean_losses(name, state | dict(opt=zeros))
    assert not first - last > gain / 2


def test_a_rule_gets_the_loss_of_its_step(monkeypatch):
    """Polyak's step: p -= loss / |g|^2 g."""

    def polyak_sgd(leaves, *, learning_rate):
        return optax.polyak_sgd(max_learning_rate=100.0, scaling=learning_rate)

    monkeypatch.setitem(optimizers.OPTIMIZERS, "polyak", optimizers.Optimizer(polyak_sgd))
    spec = make_step_spec(optimizer=step.RuleSpec("polyak"))
    hyperparameters = make_hyperparameters(learning_rate=1, optimizer={})
    plain, _ = learn_batches(make_step_spec(), make_hyperparameters(learning_rate=1), [make_batch()])
    state = make_initial_state(step.build_step(spec, devices.mesh()), hyperparameters)
    before = jax.tree.map(np.array, state["params"])
    state, (measures,) = learn_batches(spec, hyperparameters, [make_batch()], state=state)
    length = measures["loss"] / measures["gradient_norm"] ** 2
    assert 1.1 < length < 100
    for leaf, start, after_sgd in zip(*map(jax.tree.leaves, (state["params"], before, plain["params"])), strict=True):
        np.testing.assert_allclose(leaf, start + length * (np.asarray(after_sgd) - start), rtol=1e-4, atol=1e-5)


def test_adafactor_keeps_rows_and_columns_from_its_least_side_on():
    params = {"wide": np.zeros((8, 4), np.float32), "narrow": np.zeros((8, 3), np.float32)}
    leaves = optimizers.Leaves(jax.tree.map(lambda _: True, params), dict)
    rule = make_rule_spec("optimizer", "adafactor", min_side=4)
    chain = optimizers.build_chain(rule, NUMBERS["adafactor"], learning_rate=0.1, leaves=leaves)
    factored = chain.init(params)[1][0]
    assert (factored.v_row["wide"].shape, factored.v_col["wide"].shape) == ((4,), (8,))
    assert factored.v["narrow"].shape == (8, 3)


# Muon -----------------------------------------------------------------------------------------------------------------


INNER_KERNELS = {
    "mlp/test": set(),
    "cnn/test": {"stages/1/convolutions/0"},
    "lenet/test": {"conv2", "hidden/layers/0"},
    "vit/test": {
        *(f"blocks/0/attention/{name}" for name in ("query", "key", "value", "out")),
        *("blocks/0/mlp/dense1", "blocks/0/mlp/dense2"),
    },
}


@pytest.mark.parametrize("model", INNER_KERNELS)
def test_inner_kernels_are_those_behind_the_first_layer_without_head_positions_and_tokens(model):
    spec = make_network_spec(model, side=16)
    leaves = jax.tree_util.tree_leaves_with_path(forward.find_inner_kernels(spec))
    found = {trees.path_text(path) for path, is_inner in leaves if is_inner}
    assert found == {f"{layer}/kernel" for layer in INNER_KERNELS[model]}


@pytest.mark.parametrize("family", models.families())
def test_the_first_layer_of_every_family_reads_the_images(family):
    spec = make_network_spec(f"{family}/test", side=16)
    shapes = trees.shapes_by_path(forward.get_network(spec).params)
    shape_by_path = {"/".join(map(str, path)): shape for path, shape in shapes.items()}
    inputs = shape_by_path[f"{forward.find_first_layer(spec)}/kernel"][-2]
    assert inputs in (1, 16 * 16)  # one color, or all pixels of an image


def test_muon_without_a_kernel_to_work_on_is_refused():
    with pytest.raises(UserError, match=r"muon, which is for kernels between the first layer and the head.*take adamw"):
        learn_with("muon", BATCHES[:1], network=make_network_spec())


# Prodigy and a schedule's zero ----------------------------------------------------------------------------------------


def test_the_warm_up_of_prodigy_begins_above_zero():
    _, measures = learn_with("prodigy", BATCHES)
    assert [float(measure["learning_rate"]) for measure in measures] == [0.25, 0.5, 0.75, 1, 1, 1]
    _, measures = learn_with("adamw", BATCHES, learning_rate=1)
    assert [float(measure["learning_rate"]) for measure in measures] == [0, 0.25, 0.5, 0.75, 1, 1]


# Schedule-free --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "freeze",
    [freezing.NOTHING, FreezeSpec("stages/0"), FreezeSpec("stages/0", "update")],
    ids=["all trained", "stored", "update"],
)
def test_schedule_free_is_evaluated_at_the_weighted_mean_of_its_points_with_statistics_of_its_own(freeze):
    """x is the mean of z after each step, weighted by the square of the largest rate so far; y = (1 - b1) z + b1 x.

    Where a stage is frozen it stands beside x, with its stored statistics, or with such as follow the batches.
    """
    network = make_network_spec("cnn/test", filters=(4, 4), side=8)
    batches = [make_batch(side=8, seed=seed) for seed in range(5)]
    spec = make_step_spec(network, optimizer="schedule_free_adamw", schedule=WARMING, freeze=freeze)
    hyperparameters = make_hyperparameters(
        learning_rate=0.05, optimizer=default_numbers("optimizer", "schedule_free_adamw")
    )
    built_step = step.build_step(spec, devices.mesh())
    apply = jax.jit(functools.partial(built_step.network.apply, train=True))
    params, stats = initial_values(built_step.network, 0)
    shape = params["head"]["kernel"].shape
    params["head"]["kernel"] = np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)
    trained, frozen = freezing.split_values(dict(params=params, stats=stats), freezing.get_masks(network, freeze))
    assert len(jax.tree.leaves(frozen["stats"])) == (2 if freeze.statistics == "stored" and freeze.pattern else 0)
    state = devices.place(built_step.init_state(**trained, hyperparameters=hyperparameters), devices.mesh())
    points, rates = [], []
    for batch in batches:
        stats = jax.tree.map(np.array, trees.merge(state["ema"]["stats"], frozen["stats"]))
        state, (measures,) = learn_batches(spec, hyperparameters, [batch], frozen=frozen, state=state)
        points.append(jax.tree.map(np.array, state["opt"][1].z))
        rates.append(float(measures["learning_rate"]))
        images = forward.normalize(np.float32(batch["image"]) / 255, hyperparameters, "float32")
        _, expected_stats = apply(trees.merge(state["ema"]["params"], frozen["params"]), stats, images)
        own_stats = trees.merge(state["ema"]["stats"], frozen["stats"])
        for leaf, expected in zip(jax.tree.leaves(own_stats), jax.tree.leaves(expected_stats), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5)
    weights = np.square(rates) / np.square(rates).sum()
    mean = jax.tree.map(lambda *zs: sum(weight * z for weight, z in zip(weights, zs, strict=True)), *points)
    trained = jax.tree.map(lambda x, z: 0.9 * x + 0.1 * z, mean, points[-1])
    for tree, expected_tree in ((state["ema"]["params"], mean), (state["params"], trained)):
        for leaf, expected in zip(jax.tree.leaves(tree), jax.tree.leaves(expected_tree), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(state["params"]["head"]["kernel"]) - mean["head"]["kernel"]).max() > 1e-4
    new_stats, own_stats = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
                            for tree in (state["stats"], state["ema"]["stats"]))  # fmt: skip
    assert np.abs(new_stats - own_stats).max() > 1e-4


def test_another_b1_leaves_the_average_of_schedule_free_where_it_is():
    state, _ = learn_with("schedule_free_adamw", BATCHES)
    spec = make_step_spec(NETWORK, optimizer="schedule_free_adamw", schedule=WARMING)
    numbers = default_numbers("optimizer", "schedule_free_adamw")
    same = step.renew_numbers(spec, state, make_hyperparameters(optimizer=numbers))
    assert trees.digest(same) == trees.digest(state)
    renewed = step.renew_numbers(spec, state, make_hyperparameters(optimizer=numbers | dict(b1=0.5)))
    _, rule = renewed["opt"]
    assert float(rule.b1) == 0.5
    average, trained, z = (tree["head"]["kernel"] for tree in (state["ema"]["params"], renewed["params"], rule.z))
    np.testing.assert_allclose(trained, (np.float64(average) + np.float64(z)) / 2, rtol=1e-5, atol=1e-7)
    assert np.abs(np.asarray(trained) - np.asarray(state["params"]["head"]["kernel"])).max() > 1e-5
    # The next step takes the average on from there: by the share of its weight, which is that of the largest rate.
    share = float(rule.max_lr**2 / (rule.weight_sum + rule.max_lr**2))
    after, _ = learn_with("schedule_free_adamw", BATCHES[:1], state=copy_through_host(renewed), b1=0.5)
    expected = (1 - share) * np.float64(average) + share * np.float64(after["opt"][1].z["head"]["kernel"])
    np.testing.assert_allclose(after["ema"]["params"]["head"]["kernel"], expected, rtol=1e-4, atol=1e-6)
