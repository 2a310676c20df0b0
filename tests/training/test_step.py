"""The step of learning against float64 NumPy, and what it draws by chance against the rules written down."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from stepping import NOTHING_FROZEN, batch, begun, network_spec, learned, numbers, static

from cnn_vit import trees
from cnn_vit.data import augment
from cnn_vit.training import devices, forward, losses, step

DROPPING = network_spec("mlp/test", dropout=0.5)
NORMED = network_spec("cnn/test", filters=(4, 4))
COSINE = step.ScheduleSpec("cosine", total=6, warmup=2, boundaries=(), factor=0.1, timescale=10)


def compare(found, expected, **tolerance):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **({"rtol": 1e-4, "atol": 1e-6} | tolerance))


def blend(images, target, key, share):
    """A mixing operation that compiles faster than mixup, whose weight is a Beta."""
    order = jax.random.permutation(key, len(images))
    return share * images + (1 - share) * images[order], share * target + (1 - share) * target[order]


@pytest.fixture
def _blend(monkeypatch):
    number = augment.NumberKeyword("share", 0.7, 0, 1)
    monkeypatch.setitem(augment.OPERATIONS, "blend", augment.Operation("", blend, (number,), mixes=True))


def bits(tree):
    return jax.tree.map(np.array, tree)


# The whole step by hand: a linear network, float64


def pixels(given, one):
    """(B, D) as the network sees them without augmentation."""
    images = one["image"] / 255.0
    return ((images - given["mean"]) / given["std"]).reshape(len(images), -1).astype(np.float64)


def loss_and_gradient(params, x, target, kind, weight=1):
    """Mean loss over the rows, and its gradient: x^T (sum(w t) p - w t) / B, p a softmax or sigmoids."""
    scores = x @ params["kernel"] + params["bias"]
    target = weight * target
    whole = target.sum(1, keepdims=True)
    if kind == "softmax":
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        each = -(target * np.log(p)).sum(1)
    else:
        p = 1 / (1 + np.exp(-scores))
        each = -(target * np.log(p) + (whole - target) * np.log(1 - p)).sum(1)
    error = (whole * p - target) / len(x)
    return each.mean(), dict(kernel=x.T @ error, bias=error.sum(0)), scores


def by_hand(of, given, batches, params, rates):
    """Parameters after a step on each batch, and [loss, accuracy, rate, gradient's norm] of each."""
    params = {key: np.float64(value) for key, value in params.items()}
    memory = {key: {"m": 0.0, "n": 0.0} for key in params}
    taken = []
    for t, (one, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        x, target = pixels(given, one), np.eye(4)[one["label"]]
        target = target * (1 - given["smoothing"]) + given["smoothing"] / 4
        loss, grads, scores = loss_and_gradient(params, x, target, of.network.loss, given["class_weight"])
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        taken.append([loss, (scores.argmax(1) == one["label"]).mean(), rate, norm])
        for key, g in grads.items():
            g = g * min(1, given["clip"] / norm) if of.clip else g
            decay = given["weight_decay"] * (key == "kernel") * params[key]
            params[key] = params[key] - rate * direction(of, given, g, decay, memory[key], t)
    return params, taken


def direction(of, given, g, decay, kept, t):
    """What the rate multiplies: torch's SGD; AdamW of arXiv:1711.05101."""
    if of.optimizer == "sgd":
        kept["m"] = given["momentum"] * kept["m"] + g + decay
        return g + decay + given["momentum"] * kept["m"] if of.nesterov else kept["m"]
    b1, b2 = given["b1"], given["b2"]
    kept["m"], kept["n"] = b1 * kept["m"] + (1 - b1) * g, b2 * kept["n"] + (1 - b2) * g**2
    return kept["m"] / (1 - b1**t) / (np.sqrt(kept["n"] / (1 - b2**t)) + given["epsilon"]) + decay


@pytest.mark.parametrize(
    ("changes", "given"),
    [
        (dict(), dict(weight_decay=0.1, momentum=0.9)),
        (dict(nesterov=True), dict(weight_decay=0.1, momentum=0.9)),
        (dict(optimizer="adamw"), dict(weight_decay=0.1, b1=0.8, b2=0.95, epsilon=1e-3)),
        (dict(clip=True), dict(clip=0.2, weight_decay=0.3)),
        (dict(schedule=COSINE), dict(smoothing=0.2)),
        (dict(of=network_spec(hidden=(), loss="sigmoid")), dict(smoothing=0.1)),
        (dict(), dict(class_weight=[0.5, 4, 1, 0.25])),
        (dict(of=network_spec(hidden=(), loss="sigmoid")), dict(class_weight=[0.5, 4, 1, 0.25], smoothing=0.1)),
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
def test_steps_are_those_of_the_formula(changes, given):
    of, given = static(**changes), numbers(**given)
    cosine = [0, 0.5, 1, (2 + np.sqrt(2)) / 4]  # a warm-up of 2, then (1 + cos(pi n / 4)) / 2
    rates = 0.1 * np.array(cosine if of.schedule == COSINE else [1] * 4)
    batches = [batch(seed=seed) for seed in range(4)]
    params = bits(begun(step.build_step(of, devices.mesh()))["params"]["head"])
    expected, measured = by_hand(of, given, batches, params, rates)
    state, measures = learned(of, given, batches)
    compare(state["params"]["head"], expected)
    names = ("loss", "accuracy", "learning_rate", "gradient_norm")
    compare([[one[name] for name in names] for one in measures], measured)
    assert int(state["step"]) == 4
    assert all(one["finite"] for one in measures)


# One compilation


@pytest.mark.usefixtures("_blend")
def test_rates_seeds_decays_and_strengths_share_one_compilation():
    written = ("pad_crop(1)", "blend(0.7)")
    trials = [
        numbers(operations=written),
        numbers(operations=written, learning_rate=0.3),
        numbers(operations=written, seed=7),
        numbers(operations=written, weight_decay=0.5, momentum=0.5, smoothing=0.1, mean=[0.1]),
        numbers(operations=("pad_crop(2)", "blend(0.9)")),
        numbers(operations=written, class_weight=[3, 1, 0.5, 0.5]),
    ]
    steps, results = set(), []
    for given in trials:  # as trials of one process do: each builds anew
        of = static(augment=augment.operation_names(written), schedule=COSINE)
        state, _ = learned(of, given, [batch(seed=0), batch(seed=1)])
        steps.add(step.build_step(of, devices.mesh()).learn)
        results.append(trees.digest(state))
    assert len(set(results)) == len(trials)
    assert [learn._cache_size() for learn in steps] == [1]


def test_what_shapes_the_program_is_another_step():
    others = (dict(), dict(optimizer="adamw"), dict(clip=True), dict(ema=True), dict(schedule=COSINE))
    assert len({step.build_step(static(**changes), devices.mesh()).learn for changes in others}) == len(others)


def test_nothing_in_the_program_waits_for_the_host():
    of = static(NORMED, ema=True, augment=("flip", "mixup"))
    built, given = step.build_step(of, devices.mesh()), numbers(operations=of.augment)
    state, measures = built.learn(begun(built), NOTHING_FROZEN, batch(), given)
    program = jax.make_jaxpr(built.learn)(state, NOTHING_FROZEN, batch(), given)
    assert not program.effects  # printing, ordered calls of the host
    assert "callback" not in str(program)
    assert all(isinstance(one, jax.Array) for one in measures.values())


# State


def test_the_state_given_is_donated_and_nothing_else():
    built, given = step.build_step(static(), devices.mesh()), jax.device_put(numbers())
    state, one = begun(built), jax.device_put(batch(), devices.batch_sharding(devices.mesh()))
    (told, *others), _ = built.learn.lower(state, NOTHING_FROZEN, one, given).args_info
    assert all(leaf.donated for leaf in jax.tree.leaves(told))
    assert not any(leaf.donated for leaf in jax.tree.leaves(others))
    built.learn(state, NOTHING_FROZEN, one, given)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((one, given)))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_states_shapes_are_known_without_values_and_stay(optimizer):
    built = step.build_step(static(NORMED, optimizer=optimizer, ema=True), devices.mesh())
    shapes = jax.eval_shape(built.init_state, built.network.params, built.network.stats)
    after, _ = jax.eval_shape(built.learn, shapes, NOTHING_FROZEN, batch(), numbers())
    for found in (begun(built), after):
        assert jax.tree.structure(found) == jax.tree.structure(shapes)
        outlines = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (found, shapes)]
        assert outlines[0] == outlines[1]


def test_frozen_parameters_keep_their_bits():
    of, given = static(NORMED, optimizer="adamw", ema=True), numbers(weight_decay=0.1, epsilon=0.1)
    built = step.build_step(of, devices.mesh())
    whole, both = begun(built), batch(seed=1)
    values = bits(dict(params=whole["params"], stats=whole["stats"]))
    parted = {name: dict(tree, stages={1: tree["stages"][1]}) for name, tree in values.items()}
    frozen = devices.place({name: dict(stages={0: tree["stages"][0]}) for name, tree in values.items()}, devices.mesh())
    before = trees.digest(frozen)
    trained, (measures,) = learned(
        of, given, [both], frozen=frozen, state=devices.place(built.init_state(**parted), devices.mesh())
    )
    assert trees.digest(frozen) == before
    full, (expected,) = learned(of, given, [both], state=whole)
    assert not any("stages/0" in trees.path_text(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained))
    assert measures["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    compare(trained["params"]["stages"][1], full["params"]["stages"][1])  # the gradient of a part is a part of it
    compare(trained["params"]["head"], full["params"]["head"])
    compare(trained["stats"]["stages"][1], full["stats"]["stages"][1])
    assert np.abs(full["params"]["stages"][1]["convolutions"][0]["kernel"]
                  - values["params"]["stages"][1]["convolutions"][0]["kernel"]).max() > 1e-3  # fmt: skip


@pytest.mark.parametrize("ema", [0.999, 0.15])
def test_the_average_follows_parameters_and_statistics(ema):
    of, batches = static(NORMED, ema=True), [batch(seed=seed) for seed in range(4)]
    state, expected = begun(step.build_step(of, devices.mesh())), None
    for t, one in enumerate(batches):
        expected = bits(state["ema"]) if expected is None else expected
        state, _ = learned(of, numbers(ema_decay=ema), [one], state=state)
        d = min(ema, (1 + t) / (10 + t))  # 0.1, 0.18, 0.25, 0.31
        new = bits(dict(params=state["params"], stats=state["stats"]))
        expected = jax.tree.map(lambda old, now, d=d: d * old + (1 - d) * now, expected, new)
        compare(state["ema"], expected)
    assert np.abs(state["ema"]["stats"]["stages"][0]["norms"][0]["mean"] - 0).max() > 1e-3


@pytest.mark.parametrize(
    "broken",
    [dict(learning_rate=np.inf), dict(learning_rate=np.nan), dict(mean=[np.nan]), dict(weight_decay=np.inf)],
    ids=["infinite rate", "no rate", "no pixels", "infinite decay"],
)
def test_a_step_that_is_not_finite_says_so_at_once(broken):
    (sound, bad), of = (numbers(), numbers(**broken)), static()
    state, (first,) = learned(of, sound, [batch()])
    _, (second,) = learned(of, bad, [batch()], state=state)
    assert (bool(first["finite"]), bool(second["finite"])) == (True, False)
    assert np.isfinite(second["loss"]) == (list(broken) != ["mean"])  # else the new parameters are what tells


def test_statistics_that_are_not_finite_are_seen():
    state = begun(step.build_step(static(NORMED), devices.mesh()))
    state["stats"]["stages"][0]["norms"][0]["var"] += np.inf  # not used in training
    _, (measures,) = learned(static(NORMED), numbers(), [batch()], state=state)
    assert np.isfinite(measures["loss"])
    assert not measures["finite"]


def test_bfloat16_is_for_layers_alone():
    built = step.build_step(static(network_spec(dtype="bfloat16"), optimizer="adamw"), devices.mesh())
    shapes = jax.eval_shape(built.init_state, built.network.params, built.network.stats)
    after, measures = jax.eval_shape(built.learn, shapes, NOTHING_FROZEN, batch(), numbers())
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves((after["params"], after["opt"], after["stats"], measures))}
    assert kinds == {"float32", "int32", "bool"}
    text = str(jax.make_jaxpr(built.learn)(shapes, NOTHING_FROZEN, batch(), numbers()))
    assert "bf16[8,8] = dot_general" in text  # 8 rows, 8 hidden units
    judged = jax.eval_shape(forward.build_eval_step(network_spec(dtype="bfloat16"), devices.mesh()), *judging(built, shapes))
    assert (judged["scores"].dtype, judged["loss"].dtype) == (jnp.float32, jnp.float32)


def judging(built, state):
    return state["params"], state["stats"], batch(), {key: numbers()[key] for key in ("mean", "std")}


# Chance


def keys_of(seed, at):
    """Rows, mix and drop are the three parts of fold_in(key(seed), step)."""
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), at), 3)


@pytest.mark.usefixtures("_blend")
def test_rows_and_mixtures_draw_from_the_steps_key():
    written, one = ("pad_crop(1)", "flip", "blend(0.6)"), batch()
    of, given = static(augment=augment.operation_names(written)), numbers(operations=written, seed=3)
    state, measured = begun(step.build_step(of, devices.mesh())), []
    params = bits(state["params"]["head"])
    augmented = jax.jit(augment.build_augmentation(written, 4))
    for at in range(3):
        rows, mix, _ = keys_of(3, at)
        row_keys = jnp.stack([jax.random.fold_in(rows, row) for row in range(8)])
        images, target = augmented(one["image"], one["label"], row_keys, mix, given["augment"])
        x = pixels(given, dict(image=np.float64(images) * 255))
        loss, grads, _ = loss_and_gradient(params, x, np.float64(target), "softmax")
        measured.append(loss)
        state, (measures,) = learned(of, given, [one], state=state)
        params = {key: value - 0.1 * grads[key] for key, value in params.items()}
        assert measures["loss"] == pytest.approx(loss, rel=1e-5)
        compare(state["params"]["head"], params)
    assert len({round(loss, 3) for loss in measured}) == 3


def test_a_rows_augmentation_does_not_depend_on_its_neighbors():
    written = ("pad_crop(1)", "flip")
    of, given = static(augment=augment.operation_names(written)), numbers(operations=written, learning_rate=0)
    one, other = batch(seed=0), batch(seed=1)
    cost = {}
    for first in (one, other):
        for rest in (one, other):
            given_rows = {key: np.concatenate([first[key][:3], rest[key][3:]]) for key in one}
            _, (measures,) = learned(of, given, [given_rows])
            cost[first is one, rest is one] = measures["loss"]
    # a mean of rows that do not see each other: exchanging rows between two batches leaves the sum as it is
    assert cost[True, True] + cost[False, False] == pytest.approx(cost[True, False] + cost[False, True], rel=1e-6)
    assert abs(cost[True, True] - cost[True, False]) > 1e-3


@pytest.mark.parametrize("accumulate", [1, 2])
def test_dropout_draws_from_the_steps_third_key_and_the_micro_batchs_number(accumulate):
    of, given, one = static(DROPPING, accumulate=accumulate), numbers(seed=5), batch()
    built = step.build_step(of, devices.mesh())
    state, images = begun(built), np.float32(pixels(given, one)).reshape(one["image"].shape)
    _, _, drop = keys_of(5, 0)

    @jax.jit
    def scored(params, images, key):
        return built.network.apply(params, {}, images, train=True, rngs=nnx.Rngs(dropout=key))[0]

    parts = []
    for micro in range(accumulate):
        key = drop if accumulate == 1 else jax.random.fold_in(drop, micro)
        rows = slice(micro, None, accumulate)
        scores = scored(state["params"], images[rows], key)
        parts.append(losses.softmax_cross_entropy(scores, jax.nn.one_hot(one["label"][rows], 4)))
    _, (measures,) = learned(of, given, [one], state=state)
    assert measures["loss"] == pytest.approx(np.concatenate(parts).mean(), rel=1e-5)


# Accumulation


@pytest.mark.usefixtures("_blend")
def test_micro_batches_add_up_to_the_big_batch():
    written = ("flip", "blend(0.6)")  # over the whole batch, before it is cut
    given = numbers(operations=written, momentum=0.9, weight_decay=0.1)
    found = [
        learned(
            static(network_spec(), augment=augment.operation_names(written), accumulate=count), given, [batch(), batch(seed=1)]
        )
        for count in (1, 2, 4)
    ]
    for one in found[1:]:
        compare(one, found[0], rtol=1e-5, atol=1e-6)


def test_statistics_pass_from_one_micro_batch_to_the_next():
    of, one = static(NORMED, accumulate=2), batch()
    built = step.build_step(of, devices.mesh())
    state, images = begun(built), np.float32(pixels(numbers(), one)).reshape(one["image"].shape)
    apply, stats = jax.jit(functools.partial(built.network.apply, train=True)), state["stats"]
    for micro in range(2):
        _, stats = apply(state["params"], stats, images[micro::2])
    stats = bits(stats)
    after, _ = learned(of, numbers(), [one], state=state)
    compare(after["stats"], stats)


def test_many_micro_batches_are_not_compiled_one_by_one():
    """Above step.UNROLLED a loop does the same work; compilation would take minutes else."""
    of = static(network_spec(), accumulate=2)
    built = step.build_step(of, devices.mesh())
    shapes = jax.eval_shape(built.init_state, built.network.params, built.network.stats)
    few = str(jax.make_jaxpr(built.learn)(shapes, NOTHING_FROZEN, batch(), numbers()))
    assert "unroll=2" in few
    many = step.build_step(static(network_spec(), accumulate=2 * step.MOST_UNROLLED), devices.mesh())
    text = str(jax.make_jaxpr(many.learn)(shapes, NOTHING_FROZEN, batch(4 * step.MOST_UNROLLED), numbers()))
    assert re.search(r"unroll=1\b", text)


def test_the_schedule_is_the_one_named():
    stairs = step.ScheduleSpec("step", total=9, warmup=0, boundaries=(1, 3), factor=0.5, timescale=1)
    _, measures = learned(static(schedule=stairs), numbers(learning_rate=0.4), [batch()] * 4)
    np.testing.assert_allclose([one["learning_rate"] for one in measures], [0.4, 0.2, 0.2, 0.1], rtol=1e-6)


def test_accuracy_of_a_mixture_counts_its_larger_part():
    of, given = static(augment=("mixup",)), numbers(operations=("mixup(1)",), seed=3)
    one = batch(64)
    built = step.build_step(of, devices.mesh())
    state = begun(built)
    images, target, _ = jax.jit(step.augment_batch, static_argnums=0)(of, 0, one, given)
    scores, _ = built.network.apply(state["params"], {}, forward.normalize(images, given, "float32"))
    target, scores = np.asarray(target), np.asarray(scores)
    larger, weight = target.argmax(1), float(target.max(1).min())
    assert 0.5 < weight < 0.95  # this seed mixes
    assert (larger != one["label"]).any()  # and gives some images more of their partner than of themselves
    expected = (scores.argmax(1) == larger).mean()
    assert expected != (scores.argmax(1) == one["label"]).mean()
    _, (measures,) = learned(of, given, [one], state=state)
    assert measures["accuracy"] == pytest.approx(expected, abs=1e-6)
