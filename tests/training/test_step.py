"""The step of learning against float64 NumPy, and its random numbers against the documented rules."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stepping import (
    NOTHING_FROZEN,
    default_numbers,
    learn_batches,
    make_batch,
    make_hyperparameters,
    make_initial_state,
    make_network_spec,
    make_rule_spec,
    make_step_spec,
)

from cnn_vit import trees
from cnn_vit.data import augment
from cnn_vit.training import devices, forward, losses, step

pytestmark = pytest.mark.usefixtures("_compiled_quickly")

DROPOUT = make_network_spec("mlp/test", dropout=0.5)
BATCH_NORM = make_network_spec("cnn/test", filters=(4, 4))
COSINE = step.ScheduleSpec(make_rule_spec("schedule", "cosine"), total=6, warmup=2)
NESTEROV = make_rule_spec("optimizer", "sgd", nesterov=True)
ADAMW = default_numbers("optimizer", "adamw")


def assert_close(tree, expected, *, rtol=1e-4, atol=1e-6):
    for leaf, expected_leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=rtol, atol=atol)


def copy_to_numpy(tree):
    """Copies a tree to the host, so that it outlives the donation of its arrays."""
    return jax.tree.map(np.array, tree)


def build_step(spec):
    return step.build_step(spec, devices.mesh())


def state_shapes(built_step, hyperparameters):
    """The shapes of a step's state, found without values."""
    return jax.eval_shape(built_step.init_state, built_step.network.params, built_step.network.stats, hyperparameters)


def blend(images, target, key, share):
    """A mixing operation that compiles faster than mixup, whose weight is a Beta."""
    order = jax.random.permutation(key, len(images))
    return share * images + (1 - share) * images[order], share * target + (1 - share) * target[order]


@pytest.fixture
def _blend(monkeypatch):
    """Adds `blend` to the operations."""
    share = augment.NumberKeyword("share", 0.7, 0, 1)
    monkeypatch.setitem(augment.OPERATIONS, "blend", augment.Operation("", blend, (share,), mixes=True))


# The whole step by hand: a linear network in float64 ------------------------------------------------------------------


def to_pixels(hyperparameters, images):
    """Normalizes bytes of images as the step does, and flattens them to (B, D) float64."""
    normalized = (images / 255.0 - hyperparameters["mean"]) / hyperparameters["std"]
    return normalized.reshape(len(images), -1).astype(np.float64)


def loss_and_gradient(params, x, target, loss_name, class_weight=1):
    """Mean loss over the rows, its gradient x^T (sum(w t) p - w t) / B, and the scores; p is a softmax or sigmoids."""
    scores = x @ params["kernel"] + params["bias"]
    target = class_weight * target
    total = target.sum(1, keepdims=True)
    if loss_name == "softmax":
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        per_example = -(target * np.log(p)).sum(1)
    else:
        p = 1 / (1 + np.exp(-scores))
        per_example = -(target * np.log(p) + (total - target) * np.log(1 - p)).sum(1)
    error = (total * p - target) / len(x)
    return per_example.mean(), dict(kernel=x.T @ error, bias=error.sum(0)), scores


def learn_by_hand(spec, hyperparameters, batches, params, rates):
    """Parameters after a step on each batch, and [loss, accuracy, rate, gradient's norm] of each step."""
    params = {name: np.float64(array) for name, array in params.items()}
    memory = {name: {"m": 0.0, "n": 0.0} for name in params}
    all_measures = []
    for t, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        x, target = to_pixels(hyperparameters, batch["image"]), np.eye(4)[batch["label"]]
        target = target * (1 - hyperparameters["smoothing"]) + hyperparameters["smoothing"] / 4
        class_weight = hyperparameters["class_weight"]
        loss, grads, scores = loss_and_gradient(params, x, target, spec.network.loss.name, class_weight)
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        all_measures.append([loss, (scores.argmax(1) == batch["label"]).mean(), rate, norm])
        for name, g in grads.items():
            if spec.clip:
                g = g * min(1, hyperparameters["clip"] / norm)
            decay = hyperparameters["optimizer"]["weight_decay"] * (name == "kernel") * params[name]
            direction = find_direction(spec, hyperparameters["optimizer"], g, decay, memory[name], t)
            params[name] = params[name] - rate * direction
    return params, all_measures


def find_direction(spec, numbers, g, decay, memory, t):
    """What the rate multiplies: torch's SGD; AdamW of arXiv:1711.05101."""
    if spec.optimizer.name == "sgd":
        momentum = numbers["momentum"]
        memory["m"] = momentum * memory["m"] + g + decay
        return g + decay + momentum * memory["m"] if spec.optimizer == NESTEROV else memory["m"]
    b1, b2 = numbers["b1"], numbers["b2"]
    memory["m"], memory["n"] = b1 * memory["m"] + (1 - b1) * g, b2 * memory["n"] + (1 - b2) * g**2
    return memory["m"] / (1 - b1**t) / (np.sqrt(memory["n"] / (1 - b2**t)) + numbers["epsilon"]) + decay


SIGMOID = make_network_spec(hidden=(), loss="sigmoid")


@pytest.mark.parametrize(
    ("spec_changes", "changes"),
    [
        (dict(), dict(optimizer=dict(weight_decay=0.1, momentum=0.9))),
        (dict(optimizer=NESTEROV), dict(optimizer=dict(weight_decay=0.1, momentum=0.9))),
        (dict(optimizer="adamw"), dict(optimizer=dict(weight_decay=0.1, b1=0.8, b2=0.95, epsilon=1e-3))),
        (dict(clip=True), dict(clip=0.2, optimizer=dict(weight_decay=0.3, momentum=0))),
        (dict(schedule=COSINE), dict(smoothing=0.2, schedule=dict(final=0))),
        (dict(network=SIGMOID), dict(smoothing=0.1)),
        (dict(), dict(class_weight=[0.5, 4, 1, 0.25])),
        (dict(network=SIGMOID), dict(class_weight=[0.5, 4, 1, 0.25], smoothing=0.1)),
    ],
    ids=[
        "sgd",
        "nesterov",
        "adamw",
        "clipping",
        "smoothing and a schedule",
        "sigmoid",
        "class weights",
        "class weights of a sigmoid",
    ],
)
def test_steps_are_those_of_the_formula(spec_changes, changes):
    spec, hyperparameters = make_step_spec(**spec_changes), make_hyperparameters(**changes)
    multipliers = [1] * 4
    if spec.schedule == COSINE:  # a warm-up of 2, then (1 + cos(pi n / 4)) / 2
        multipliers = [0, 0.5, 1, (2 + np.sqrt(2)) / 4]
    rates = 0.1 * np.array(multipliers)
    batches = [make_batch(seed=seed) for seed in range(4)]
    params = copy_to_numpy(make_initial_state(build_step(spec), hyperparameters)["params"]["head"])
    expected, expected_measures = learn_by_hand(spec, hyperparameters, batches, params, rates)
    state, all_measures = learn_batches(spec, hyperparameters, batches)
    assert_close(state["params"]["head"], expected)
    names = ("loss", "accuracy", "learning_rate", "gradient_norm")
    for measures, expected_numbers in zip(all_measures, expected_measures, strict=True):
        assert_close([measures[name] for name in names], expected_numbers)
        assert measures["finite"]
    assert int(state["step"]) == 4


# One compilation ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_blend")
def test_rates_seeds_decays_and_strengths_share_one_compilation():
    operations = ("pad_crop(1)", "blend(0.7)")
    all_changes = [
        dict(),
        dict(learning_rate=0.3),
        dict(seed=7),
        dict(optimizer=dict(weight_decay=0.5, momentum=0.5), smoothing=0.1, mean=[0.1]),
        dict(operations=("pad_crop(2)", "blend(0.9)")),
        dict(class_weight=[3, 1, 0.5, 0.5]),
        dict(schedule=dict(final=0.5)),
    ]
    unchanged = dict(operations=operations, schedule=dict(final=0))
    trials = [make_hyperparameters(**(unchanged | changes)) for changes in all_changes]
    compiled_steps, digests = set(), []
    for hyperparameters in trials:  # as trials of one process do: each builds its step anew
        spec = make_step_spec(augment=augment.operation_names(operations), schedule=COSINE)
        state, _ = learn_batches(spec, hyperparameters, [make_batch(seed=seed) for seed in range(4)])
        compiled_steps.add(build_step(spec).learn)
        digests.append(trees.digest(state))
    assert len(set(digests)) == len(trials)
    assert [learn._cache_size() for learn in compiled_steps] == [1]


def test_what_shapes_the_program_is_another_step():
    all_changes = (dict(), dict(optimizer="adamw"), dict(clip=True), dict(ema=True), dict(schedule=COSINE))
    assert len({build_step(make_step_spec(**changes)).learn for changes in all_changes}) == len(all_changes)


def test_nothing_in_the_program_waits_for_the_host():
    spec = make_step_spec(BATCH_NORM, ema=True, augment=("flip", "mixup"))
    built_step, hyperparameters = build_step(spec), make_hyperparameters(operations=spec.augment)
    state, measures = built_step.learn(make_initial_state(built_step), NOTHING_FROZEN, make_batch(), hyperparameters)
    program = built_step.learn.trace(state, NOTHING_FROZEN, make_batch(), hyperparameters).jaxpr
    assert not program.effects  # printing, ordered calls of the host
    assert "callback" not in str(program)
    assert all(isinstance(measure, jax.Array) for measure in measures.values())


# State ----------------------------------------------------------------------------------------------------------------


def test_the_state_is_donated_and_nothing_else():
    built_step, hyperparameters = build_step(make_step_spec()), jax.device_put(make_hyperparameters())
    state = make_initial_state(built_step)
    batch = jax.device_put(make_batch(), devices.batch_sharding(devices.mesh()))
    lowered = built_step.learn.lower(state, NOTHING_FROZEN, batch, hyperparameters)
    (state_info, *other_infos), _ = lowered.args_info
    assert all(leaf.donated for leaf in jax.tree.leaves(state_info))
    assert not any(leaf.donated for leaf in jax.tree.leaves(other_infos))
    built_step.learn(state, NOTHING_FROZEN, batch, hyperparameters)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((batch, hyperparameters)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_states_shapes_are_known_without_values_and_stay(optimizer):
    built_step = build_step(make_step_spec(BATCH_NORM, optimizer=optimizer, ema=True))
    hyperparameters = make_hyperparameters(optimizer=default_numbers("optimizer", optimizer))
    shapes = state_shapes(built_step, hyperparameters)
    shapes_after, _ = jax.eval_shape(built_step.learn, shapes, NOTHING_FROZEN, make_batch(), hyperparameters)
    for state in (make_initial_state(built_step, hyperparameters), shapes_after):
        assert jax.tree.structure(state) == jax.tree.structure(shapes)
        for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(shapes), strict=True):
            assert (leaf.shape, leaf.dtype) == (expected.shape, expected.dtype)


# AdamW trains all parameters by one rule, Muon by two: the second stage's kernel, and with AdamW the others.
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_parameters_keep_their_bits(optimizer):
    spec = make_step_spec(BATCH_NORM, optimizer=optimizer, ema=True)
    numbers = default_numbers("optimizer", optimizer)
    hyperparameters = make_hyperparameters(optimizer=numbers | dict(weight_decay=0.1, epsilon=0.1))
    batch, built_step = make_batch(seed=1), build_step(spec)
    whole_state = make_initial_state(built_step, hyperparameters)
    values = copy_to_numpy(dict(params=whole_state["params"], stats=whole_state["stats"]))
    trained_values, frozen_values = {}, {}  # the first stage is frozen
    for name, tree in values.items():
        trained_values[name] = dict(tree, stages={1: tree["stages"][1]})
        frozen_values[name] = dict(stages={0: tree["stages"][0]})
    frozen = devices.place(frozen_values, devices.mesh())
    digest_before = trees.digest(frozen)
    state = devices.place(built_step.init_state(**trained_values, hyperparameters=hyperparameters), devices.mesh())
    state, (measures,) = learn_batches(spec, hyperparameters, [batch], frozen=frozen, state=state)
    assert trees.digest(frozen) == digest_before
    expected, (expected_measures,) = learn_batches(spec, hyperparameters, [batch], state=whole_state)
    paths = [trees.path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert not any("stages/0" in path for path in paths)
    groups = {path.split("inner_states/")[1].split("/")[0] for path in paths if "inner_states/" in path}
    assert groups == ({"muon", "adamw"} if optimizer == "muon" else set())
    assert measures["loss"] == pytest.approx(expected_measures["loss"], rel=1e-6)
    # the gradient of a part is a part of the gradient
    assert_close(state["params"]["stages"][1], expected["params"]["stages"][1])
    assert_close(state["params"]["head"], expected["params"]["head"])
    assert_close(state["stats"]["stages"][1], expected["stats"]["stages"][1])
    kernel_before, kernel_after = (tree["stages"][1]["convolutions"][0]["kernel"]
                                   for tree in (values["params"], expected["params"]))  # fmt: skip
    assert np.abs(kernel_after - kernel_before).max() > 1e-3


@pytest.mark.parametrize("ema_decay", [0.999, 0.15])
def test_the_average_follows_parameters_and_statistics(ema_decay):
    spec, hyperparameters = make_step_spec(BATCH_NORM, ema=True), make_hyperparameters(ema_decay=ema_decay)
    state = make_initial_state(build_step(spec))
    expected = copy_to_numpy(state["ema"])
    for t in range(4):
        state, _ = learn_batches(spec, hyperparameters, [make_batch(seed=t)], state=state)
        decay = min(ema_decay, (1 + t) / (10 + t))  # 0.1, 0.18, 0.25, 0.31
        values = copy_to_numpy(dict(params=state["params"], stats=state["stats"]))
        expected = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, expected, values)
        assert_close(state["ema"], expected)
    assert np.abs(state["ema"]["stats"]["stages"][0]["norms"][0]["mean"] - 0).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        dict(learning_rate=np.inf),
        dict(learning_rate=np.nan),
        dict(mean=[np.nan]),
        dict(optimizer=dict(weight_decay=np.inf, momentum=0)),
    ],
    ids=["infinite rate", "no rate", "no pixels", "infinite decay"],
)
def test_a_step_that_is_not_finite_says_so_at_once(changes):
    spec = make_step_spec()
    state, (finite_measures,) = learn_batches(spec, make_hyperparameters(), [make_batch()])
    _, (measures,) = learn_batches(spec, make_hyperparameters(**changes), [make_batch()], state=state)
    assert (bool(finite_measures["finite"]), bool(measures["finite"])) == (True, False)
    loss_is_finite = list(changes) != ["mean"]  # else only the new parameters show it
    assert np.isfinite(measures["loss"]) == loss_is_finite


def test_statistics_that_are_not_finite_are_seen():
    spec = make_step_spec(BATCH_NORM)
    state = make_initial_state(build_step(spec))
    state["stats"]["stages"][0]["norms"][0]["var"] += np.inf  # not used in training
    _, (measures,) = learn_batches(spec, make_hyperparameters(), [make_batch()], state=state)
    assert np.isfinite(measures["loss"])
    assert not measures["finite"]


def test_bfloat16_is_for_layers_alone():
    network = make_network_spec(dtype="bfloat16")
    built_step = build_step(make_step_spec(network, optimizer="adamw"))
    hyperparameters = make_hyperparameters(optimizer=ADAMW)
    shapes = state_shapes(built_step, hyperparameters)
    state, measures = jax.eval_shape(built_step.learn, shapes, NOTHING_FROZEN, make_batch(), hyperparameters)
    leaves = jax.tree.leaves((state["params"], state["opt"], state["stats"], measures))
    assert {str(leaf.dtype) for leaf in leaves} == {"float32", "int32", "bool"}
    program = str(built_step.learn.trace(shapes, NOTHING_FROZEN, make_batch(), hyperparameters).jaxpr)
    assert "bf16[8,8] = dot_general" in program  # 8 rows, 8 hidden units
    eval_step = forward.build_eval_step(network, devices.mesh())
    constants = {name: hyperparameters[name] for name in ("mean", "std", "loss")}
    per_example = jax.eval_shape(eval_step, shapes["params"], shapes["stats"], make_batch(), constants)
    assert (per_example["scores"].dtype, per_example["loss"].dtype) == (jnp.float32, jnp.float32)


# Random numbers -------------------------------------------------------------------------------------------------------


def split_step_key(seed, update):
    """The keys of rows, mixing and dropout: the three parts of fold_in(key(seed), update)."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), update), 3)


@pytest.mark.usefixtures("_blend")
def test_rows_and_mixtures_draw_from_the_steps_key():
    operations, batch = ("pad_crop(1)", "flip", "blend(0.6)"), make_batch()
    spec = make_step_spec(augment=augment.operation_names(operations))
    hyperparameters = make_hyperparameters(operations=operations, seed=3)
    state, expected_losses = make_initial_state(build_step(spec)), []
    params = copy_to_numpy(state["params"]["head"])
    apply_operations = jax.jit(augment.build_augmentation(operations, 4))
    for update in range(3):
        rows_key, mix_key, _ = split_step_key(3, update)
        row_keys = jnp.stack([jax.random.fold_in(rows_key, row) for row in range(8)])
        images, target = apply_operations(batch["image"], batch["label"], row_keys, mix_key, hyperparameters["augment"])
        x = to_pixels(hyperparameters, np.float64(images) * 255)
        loss, grads, _ = loss_and_gradient(params, x, np.float64(target), "softmax")
        expected_losses.append(loss)
        state, (measures,) = learn_batches(spec, hyperparameters, [batch], state=state)
        params = {name: array - 0.1 * grads[name] for name, array in params.items()}
        assert measures["loss"] == pytest.approx(loss, rel=1e-5)
        assert_close(state["params"]["head"], params)
    assert len({round(loss, 3) for loss in expected_losses}) == 3


def test_a_rows_augmentation_does_not_depend_on_its_neighbors():
    operations = ("pad_crop(1)", "flip")
    spec = make_step_spec(augment=augment.operation_names(operations))
    hyperparameters = make_hyperparameters(operations=operations, learning_rate=0)
    batches = [make_batch(seed=0), make_batch(seed=1)]
    loss = {}  # by the batch of the first three rows, and that of the others
    for i, first in enumerate(batches):
        for j, rest in enumerate(batches):
            joined = {name: np.concatenate([first[name][:3], rest[name][3:]]) for name in first}
            _, (measures,) = learn_batches(spec, hyperparameters, [joined])
            loss[i, j] = measures["loss"]
    # a mean of rows that do not see each other: exchanging rows between two batches leaves the sum as it is
    assert loss[0, 0] + loss[1, 1] == pytest.approx(loss[0, 1] + loss[1, 0], rel=1e-6)
    assert abs(loss[0, 0] - loss[0, 1]) > 1e-3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_draws_from_the_steps_third_key_and_the_micro_batchs_number(accumulate):
    spec, batch = make_step_spec(DROPOUT, accumulate=accumulate), make_batch()
    hyperparameters = make_hyperparameters(seed=5)
    built_step = build_step(spec)
    state = make_initial_state(built_step)
    images = np.float32(to_pixels(hyperparameters, batch["image"])).reshape(batch["image"].shape)
    _, _, dropout_key = split_step_key(5, 0)

    @jax.jit
    def apply(params, images, key):
        scores, _ = built_step.network.apply(params, {}, images, train=True, rngs=nnx.Rngs(dropout=key))
        return scores

    expected_losses = []
    for index in range(accumulate):
        key = dropout_key if accumulate == 1 else jax.random.fold_in(dropout_key, index)
        rows = slice(index, None, accumulate)
        scores = apply(state["params"], images[rows], key)
        target = jax.nn.one_hot(batch["label"][rows], 4)
        expected_losses.append(losses.softmax_cross_entropy(scores, target))
    _, (measures,) = learn_batches(spec, hyperparameters, [batch], state=state)
    assert measures["loss"] == pytest.approx(np.concatenate(expected_losses).mean(), rel=1e-5)


# Accumulation ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_blend")
def test_micro_batches_add_up_to_the_big_batch():
    operations = ("flip", "blend(0.6)")  # over the whole batch, before it is cut
    hyperparameters = make_hyperparameters(operations=operations, optimizer=dict(momentum=0.9, weight_decay=0.1))
    outcomes = []
    for accumulate in (1, 2, 4):
        spec = make_step_spec(make_network_spec(), augment=augment.operation_names(operations), accumulate=accumulate)
        outcomes.append(learn_batches(spec, hyperparameters, [make_batch(), make_batch(seed=1)]))
    for outcome in outcomes[1:]:
        assert_close(outcome, outcomes[0], rtol=1e-5, atol=1e-6)


def test_statistics_pass_from_one_micro_batch_to_the_next():
    spec, batch, hyperparameters = make_step_spec(BATCH_NORM, accumulate=2), make_batch(), make_hyperparameters()
    built_step = build_step(spec)
    state = make_initial_state(built_step)
    images = np.float32(to_pixels(hyperparameters, batch["image"])).reshape(batch["image"].shape)
    apply, stats = jax.jit(functools.partial(built_step.network.apply, train=True)), state["stats"]
    for index in range(2):
        _, stats = apply(state["params"], stats, images[index::2])
    expected = copy_to_numpy(stats)
    state, _ = learn_batches(spec, hyperparameters, [batch], state=state)
    assert_close(state["stats"], expected)


def test_many_micro_batches_are_not_compiled_one_by_one():
    """Above step.MOST_UNROLLED a loop does the same work; else compilation would take minutes."""
    few = build_step(make_step_spec(make_network_spec(), accumulate=2))
    many = build_step(make_step_spec(make_network_spec(), accumulate=2 * step.MOST_UNROLLED))
    hyperparameters = make_hyperparameters()
    shapes = state_shapes(few, hyperparameters)
    program = str(few.learn.trace(shapes, NOTHING_FROZEN, make_batch(), hyperparameters).jaxpr)
    assert "unroll=2" in program
    large_batch = make_batch(4 * step.MOST_UNROLLED)
    program = str(many.learn.trace(shapes, NOTHING_FROZEN, large_batch, hyperparameters).jaxpr)
    assert re.search(r"unroll=1\b", program)


# Measures -------------------------------------------------------------------------------------------------------------


def test_the_schedule_is_the_one_named():
    schedule = step.ScheduleSpec(make_rule_spec("schedule", "step", boundaries=(1, 3)), total=9)
    hyperparameters = make_hyperparameters(learning_rate=0.4, schedule=dict(factor=0.5))
    _, all_measures = learn_batches(make_step_spec(schedule=schedule), hyperparameters, [make_batch()] * 4)
    rates = [measures["learning_rate"] for measures in all_measures]
    np.testing.assert_allclose(rates, [0.4, 0.2, 0.2, 0.1], rtol=1e-6)


def test_accuracy_of_a_mixture_counts_its_larger_part():
    spec = make_step_spec(augment=("mixup",))
    hyperparameters, batch = make_hyperparameters(operations=("mixup(1)",), seed=3), make_batch(64)
    built_step = build_step(spec)
    state = make_initial_state(built_step)
    images, target, _ = jax.jit(step.augment_batch, static_argnums=0)(spec, 0, batch, hyperparameters)
    normalized = forward.normalize(images, hyperparameters, "float32")
    scores, _ = built_step.network.apply(state["params"], {}, normalized)
    target, scores = np.asarray(target), np.asarray(scores)
    class_of_larger_part, smallest_share = target.argmax(1), float(target.max(1).min())
    assert 0.5 < smallest_share < 0.95  # this seed mixes
    # and gives some images more of their partner than of themselves
    assert (class_of_larger_part != batch["label"]).any()
    expected = (scores.argmax(1) == class_of_larger_part).mean()
    assert expected != (scores.argmax(1) == batch["label"]).mean()
    _, (measures,) = learn_batches(spec, hyperparameters, [batch], state=state)
    assert measures["accuracy"] == pytest.approx(expected, abs=1e-6)
