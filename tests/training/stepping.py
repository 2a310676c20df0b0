"""Tiny networks, batches and numbers, for the tests of the step, of its devices and of evaluation."""

from dataclasses import replace

import jax
import numpy as np

from cnn_vit.data import augment
from cnn_vit.nn.values import initial_values
from cnn_vit.training import devices, forward, step

CONSTANT = step.ScheduleSpec("constant", total=100, warmup=0, boundaries=(), factor=0.1, timescale=10)
NOTHING_FROZEN = step.NOTHING_FROZEN


def form(model="mlp/test", *, classes=4, side=4, channels=1, dtype="float32", loss="softmax", **keywords):
    return forward.NetworkSpec(model, tuple(sorted(keywords.items())), classes, (side, side, channels), dtype, loss)


LINEAR = form(hidden=())  # scores = pixels @ kernel + bias


def static(of=LINEAR, **changes):
    """SGD at a constant rate, and nothing else, but for the changes."""
    plain = step.StepSpec(of, (), "sgd", False, False, r"(^|/)kernel$", 1, False, CONSTANT)
    return replace(plain, **changes)


def numbers(*, seed=0, operations=(), channels=1, classes=4, **changes):
    """Arguments of a step, as arrays, as a run places them."""
    plain = dict(learning_rate=0.1, weight_decay=0, momentum=0, b1=0.9, b2=0.999, epsilon=1e-8, clip=1, ema_decay=0.9)
    plain |= dict(smoothing=0, class_weight=[1] * classes, mean=[0.4] * channels, std=[0.5] * channels) | changes
    arrays = {key: np.asarray(value, np.float32) for key, value in plain.items()}
    strengths = [[np.float32(one) for one in given] for given in augment.operation_numbers(operations)]
    return arrays | dict(augment=strengths, key=jax.random.key(seed))


def batch(size=8, *, classes=4, side=4, channels=1, seed=0):
    """Noise, each row's brightness its own; on the host."""
    rng = np.random.default_rng(seed)
    top = rng.integers(64, 256, (size, 1, 1, 1))
    return dict(
        image=(rng.random((size, side, side, channels)) * top).astype(np.uint8),
        label=rng.integers(0, classes, size).astype(np.int32),
        weight=np.ones(size, np.float32),
        index=np.arange(size, dtype=np.int32),
    )


def begun(built, *, on=None, rules=devices.REPLICATED, seed=0):
    """The state before the first step, on the devices; a head that starts from zeros gets other values."""
    params, stats = initial_values(built.network, seed)
    rng = np.random.default_rng(seed)
    kernel = params["head"]["kernel"]
    params["head"]["kernel"] = rng.normal(0, 0.3, kernel.shape).astype(np.float32)
    return devices.place(built.init_state(params, stats), on or devices.mesh(), rules)


def learned(of, given, batches, *, frozen=NOTHING_FROZEN, on=None, state=None):
    """The state after a step on each batch, and the measures of each, read at the end."""
    on = on or devices.mesh()
    built = step.build_step(of, on)
    state = begun(built, on=on) if state is None else state
    placed = jax.device_put(given, devices.replicated_sharding(on))
    taken = []
    for one in batches:
        state, measures = built.learn(state, frozen, devices.place_batch(one, on), placed)
        taken.append(measures)
    return state, jax.device_get(taken)
