"""Tiny networks, batches and hyperparameters, for the tests of the step, of its devices and of evaluation."""

from dataclasses import replace

import jax
import numpy as np

from cnn_vit.data import augment
from cnn_vit.nn.values import initial_values
from cnn_vit.training import devices, forward, step

CONSTANT = step.ScheduleSpec("constant", total=100, warmup=0, boundaries=(), factor=0.1, timescale=10)
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
        loss=loss,
    )


LINEAR = make_network_spec(hidden=())  # scores = pixels @ kernel + bias


def make_step_spec(network=LINEAR, **changes):
    """The spec of a step of SGD at a constant rate, and nothing else, but for the changes."""
    plain = step.StepSpec(
        network=network,
        augment=(),
        optimizer="sgd",
        nesterov=False,
        clip=False,
        decay_pattern=r"(^|/)kernel$",
        accumulate=1,
        ema=False,
        schedule=CONSTANT,
    )
    return replace(plain, **changes)


def make_hyperparameters(*, seed=0, operations=(), channels=1, classes=4, **changes):
    """The hyperparameters of a step as arrays, as a run makes them."""
    numbers = dict(
        learning_rate=0.1, weight_decay=0, momentum=0, b1=0.9, b2=0.999, epsilon=1e-8, clip=1, ema_decay=0.9,
        smoothing=0, class_weight=[1] * classes, mean=[0.4] * channels, std=[0.5] * channels,
    )  # fmt: skip
    numbers |= changes
    arrays = {name: np.asarray(number, np.float32) for name, number in numbers.items()}
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


def make_initial_state(built_step, *, mesh=None, rules=devices.REPLICATED, seed=0):
    """The state before the first step, on the devices; a head that starts from zeros gets other values."""
    params, stats = initial_values(built_step.network, seed)
    rng = np.random.default_rng(seed)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = rng.normal(0, 0.3, kernel.shape).astype(np.float32)
    return devices.place(built_step.init_state(params, stats), mesh or devices.mesh(), rules)


def learn_batches(spec, hyperparameters, batches, *, frozen=NOTHING_FROZEN, mesh=None, state=None):
    """Takes a step on each batch; returns the state after them, and the measures of each step, read at the end."""
    mesh = mesh or devices.mesh()
    built_step = step.build_step(spec, mesh)
    if state is None:
        state = make_initial_state(built_step, mesh=mesh)
    placed = jax.device_put(hyperparameters, devices.replicated_sharding(mesh))
    all_measures = []
    for batch in batches:
        state, measures = built_step.learn(state, frozen, devices.place_batch(batch, mesh), placed)
        all_measures.append(measures)
    return state, jax.device_get(all_measures)
