"""Tiny networks, batches and hyperparameters, for the tests of the step, of its devices and of evaluation."""

from dataclasses import replace

import jax
import numpy as np

from cnn_vit import settings
from cnn_vit.data import augment
from cnn_vit.nn.values import initial_values
from cnn_vit.training import devices, forward, plan, step
from cnn_vit.training.rules import RuleSpec

CONSTANT = step.ScheduleSpec(RuleSpec("constant"), total=100)
NOTHING_FROZEN = step.NOTHING_FROZEN


def make_network_spec(
    model="mlp/test", *, classes=4, side=4, channels=1, dtype="float32", loss="softmax", **model_keywords
):
    """The spec of a tiny network for square images."""
    return forward.NetworkSpec(
        model=model,
        keywords=tuple(sorted(model_keywords.items())),
        num_classes=classes,
        image_shape=(side, side, channels),
        dtype=dtype,
        loss=make_rule_spec("loss", loss),
    )


def make_rule_spec(section, name, **options):
    """The spec of an optimizer, a schedule or a loss, with its default options but for those given."""
    for keyword, row in settings.read_rule(section, name).keys.items():
        if keyword not in options and not plan.is_number(row, row.default):
            options[keyword] = row.default
    return RuleSpec(name, tuple(sorted(options.items())))


def default_numbers(section, name):
    """The default numbers of an optimizer, a schedule or a loss, by keyword."""
    rows = settings.read_rule(section, name).keys
    return {keyword: row.default for keyword, row in rows.items() if plan.is_number(row, row.default)}


LINEAR = make_network_spec(hidden=())  # scores = pixels @ kernel + bias


def make_step_spec(network=LINEAR, **changes):
    """The spec of a step of SGD at a constant rate, and nothing else, but for the changes."""
    if isinstance(changes.get("optimizer"), str):
        changes["optimizer"] = make_rule_spec("optimizer", changes["optimizer"])
    plain = step.StepSpec(
        network=network,
        augment=(),
        optimizer=make_rule_spec("optimizer", "sgd"),
        clip=False,
        decay_pattern=r"(^|/)kernel$",
        accumulate=1,
        ema=False,
        schedule=CONSTANT,
    )
    return replace(plain, **changes)


def make_hyperparameters(
    *, seed=0, operations=(), channels=1, classes=4, optimizer=None, schedule=None, loss=None, **changes
):
    """The hyperparameters of a step as arrays, as a run makes them; SGD without momentum unless `optimizer` says more.

    Args:
        seed: of all randomness.
        operations: of the augmentation.
        channels: colors of an image.
        classes: K.
        optimizer, schedule, loss: numbers of the rules by keyword.
        changes: other numbers.
    """
    numbers = dict(
        learning_rate=0.1, clip=1, ema_decay=0.9, smoothing=0,
        class_weight=[1] * classes, mean=[0.4] * channels, std=[0.5] * channels,
    )  # fmt: skip
    numbers |= changes
    arrays = {name: np.asarray(number, np.float32) for name, number in numbers.items()}
    if optimizer is None:
        optimizer = dict(momentum=0, weight_decay=0)
    for section, rule_numbers in dict(optimizer=optimizer, schedule=schedule or {}, loss=loss or {}).items():
        arrays[section] = {name: np.float32(number) for name, number in rule_numbers.items()}
    arrays["augment"] = [
        [np.float32(number) for number in operation] for operation in augment.operation_numbers(operations)
    ]
    arrays["key"] = jax.random.key(seed)
    return arrays


def make_batch(size=8, *, classes=4, side=4, channels=1, seed=0):
    """A batch on the host: images of noise, each of another brightness, with random labels."""
    rng = np.random.default_rng(seed)
    brightness = rng.integers(64, 256, (size, 1, 1, 1))
    return dict(
        image=(rng.random((size, side, side, channels)) * brightness).astype(np.uint8),
        label=rng.integers(0, classes, size).astype(np.int32),
        weight=np.ones(size, np.float32),
        index=np.arange(size, dtype=np.int32),
    )


def make_initial_state(built_step, hyperparameters=None, *, mesh=None, rules=devices.REPLICATED, seed=0):
    """The state before the first step, on the devices; a head that starts from zeros gets other values."""
    params, stats = initial_values(built_step.network, seed)
    rng = np.random.default_rng(seed)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = rng.normal(0, 0.3, kernel.shape).astype(np.float32)
    if hyperparameters is None:
        hyperparameters = make_hyperparameters()
    return devices.place(built_step.init_state(params, stats, hyperparameters), mesh or devices.mesh(), rules)


def learn_batches(spec, hyperparameters, batches, *, frozen=NOTHING_FROZEN, mesh=None, state=None):
    """Takes a step on each batch; returns the state after them, and the measures of each step, read at the end."""
    mesh = mesh or devices.mesh()
    built_step = step.build_step(spec, mesh)
    if state is None:
        state = make_initial_state(built_step, hyperparameters, mesh=mesh)
    placed = jax.device_put(hyperparameters, devices.replicated_sharding(mesh))
    all_measures = []
    for batch in batches:
        state, measures = built_step.learn(state, frozen, devices.place_batch(batch, mesh), placed)
        all_measures.append(measures)
    return state, jax.device_get(all_measures)
