"""One step of learning as a pure function over plain dicts, compiled once.

`learn` takes a state and a batch of the host's bytes to the next state: augmentation, scores, loss, gradient, update,
moving average. It can be read, differentiated or mapped as it is; `build_step` compiles it for a run.

What shapes the compiled program is `StepSpec`. Every number that does not (learning rate, weight decay, seed's key ...)
is an argument, `hyperparameters`, so that another seed or rate compiles nothing. A batch with images of several sizes
has a `mask` (B, H, W); each padded size compiles once.

    state            dict(step, params, stats, opt, ema)
    frozen           dict(params, stats): values that the network has and the state has not; never changed
    batch            dict(image (B, H, W, C) uint8, label (B,), weight (B,), index (B,)), perhaps mask
    hyperparameters  what `plan.hyperparameters` gives
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cnn_vit import trees
from cnn_vit.data import augment
from cnn_vit.nn.values import Network
from cnn_vit.training import devices, losses, optimizers, schedules
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec, get_network, normalize

MOST_UNROLLED = 64  # micro-batches, at most, that are compiled one by one; each takes about a second to compile
NOTHING_FROZEN: dict[str, dict] = dict(params={}, stats={})


@dataclass(frozen=True)
class ScheduleSpec:
    """The shape of the learning rate over a run; keywords of `schedules.shape`.

    Attributes:
        name: a key of `schedules.SCHEDULES`.
        total: steps of the run.
        warmup: steps of the rise from 0.
        boundaries: steps at which the schedule `step` falls.
        factor: what each boundary multiplies by.
        timescale: steps, of the schedule `rsqrt`.
    """

    name: str
    total: int
    warmup: int
    boundaries: tuple[int, ...]
    factor: float
    timescale: int


@dataclass(frozen=True)
class StepSpec:
    """Everything that shapes the compiled step. Runs of equal specs share one compilation.

    Attributes:
        network: what is trained.
        augment: names of the augmentation's operations, in order.
        optimizer: a key of `optimizers.OPTIMIZERS`.
        nesterov: whether SGD looks ahead along its momentum.
        clip: whether long gradients are shortened.
        decay_pattern: regular expression, found in the paths of the parameters that decay.
        accumulate: micro-batches that a batch is cut into.
        ema: whether a moving average of the values is kept.
        schedule: shape of the learning rate.
    """

    network: NetworkSpec
    augment: tuple[str, ...]
    optimizer: str
    nesterov: bool
    clip: bool
    decay_pattern: str
    accumulate: int
    ema: bool
    schedule: ScheduleSpec


AddMeasures = Callable[[dict[str, Any]], dict[str, jax.Array]]


class Step(NamedTuple):
    """A compiled step.

    Attributes:
        network: shapes, initializers and `apply` of the network.
        init_state: (params, stats) -> state before the first step, on the host.
        learn: (state, frozen, batch, hyperparameters) -> (state, measures), compiled; the state given is donated.
    """

    network: Network
    init_state: Callable
    learn: Callable


@compiled_once
def build_step(
    spec: StepSpec,
    mesh: jax.sharding.Mesh,
    rules: devices.Rules = devices.REPLICATED,
    add_measures: AddMeasures | None = None,
) -> Step:
    """Prepares a step; its `learn` compiles at the first call. Remembered, so that trials in one process share it.

    Args:
        spec: what shapes the program.
        mesh: the devices.
        rules: where each value lies (`devices.place` with the same rules puts it there); the state stays there.
        add_measures: as of `learn`.
    """
    network = get_network(spec.network)
    # both refuse what cannot be, here instead of at the first step
    optimizers.decay_mask(network.params, spec.decay_pattern)
    schedules.shape(**asdict(spec.schedule))

    def init(params: dict, stats: dict) -> dict:
        return init_state(spec, network, params, stats)

    def learn_in_place(state, frozen, batch, hyperparameters):
        state, measures = learn(spec, network, state, frozen, batch, hyperparameters, add_measures=add_measures)
        return devices.constrain(state, mesh, rules), measures

    everywhere = devices.replicated(mesh)
    compiled = jax.jit(learn_in_place, donate_argnums=0, out_shardings=(None, everywhere))
    return Step(network, init, compiled)


def init_state(spec: StepSpec, network: Network, params: dict, stats: dict) -> dict:
    """The state before the first step, as NumPy arrays, from initial values of parameters and statistics."""
    rule = optimizer(spec, network, params, STAND_INS, 0.0)
    shapes = jax.eval_shape(rule.init, params)
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)  # every rule here starts from zeros
    ema = {}
    if spec.ema:
        ema = jax.tree.map(lambda leaf: leaf.copy(), dict(params=params, stats=stats))
    return dict(step=np.zeros((), np.int32), params=params, stats=stats, opt=opt, ema=ema)


# The structure of an optimizer's state does not depend on the numbers: any will do to find its shapes
STAND_INS = dict.fromkeys(("weight_decay", "momentum", "b1", "b2", "epsilon", "clip"), 0.5)


def learn(
    spec: StepSpec,
    network: Network,
    state: dict,
    frozen: dict,
    batch: dict,
    hyperparameters: dict,
    *,
    add_measures: AddMeasures | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """One update of the state by one batch: a pure function, compiled by `build_step`.

    Args:
        spec: what shapes the program.
        network: the network of `spec.network`.
        state, frozen, batch, hyperparameters: as the module's docstring says.
        add_measures: takes dict(gradient, updates, state, batch) of the step and gives more scalars by name, to be
            measured and written down with the others.

    Returns:
        The next state, and the measures of the step, scalars: loss, accuracy of the batch as the network saw it, the
        learning rate, the gradient's norm before clipping, and `finite`: whether loss, gradient and new values are.
    """
    grads, (stats, loss, accuracy) = gradient(spec, network, state, frozen, batch, hyperparameters)
    rate = hyperparameters["learning_rate"] * schedules.shape(**asdict(spec.schedule))(state["step"])
    rule = optimizer(spec, network, state["params"], hyperparameters, rate)
    updates, opt = rule.update(grads, state["opt"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    ema = update_ema(state, params, stats, hyperparameters) if spec.ema else {}
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    for leaf in jax.tree.leaves((params, stats)):
        finite &= jnp.isfinite(leaf).all()
    measures = dict(loss=loss, accuracy=accuracy, learning_rate=rate, gradient_norm=norm, finite=finite)
    if add_measures is not None:
        measures |= add_measures(dict(gradient=grads, updates=updates, state=state, batch=batch))
    return dict(step=state["step"] + 1, params=params, stats=stats, opt=opt, ema=ema), measures


def optimizer(
    spec: StepSpec, network: Network, params: dict, hyperparameters: dict, rate: jax.Array | float
) -> optax.GradientTransformation:
    """The optimizer's chain for one step; from step to step only its arrays differ."""
    decayed = optimizers.decay_mask(network.params, spec.decay_pattern)
    return optimizers.chain(
        spec.optimizer,
        hyperparameters,
        rate,
        decay_mask=restrict_to(decayed, params),
        clip=spec.clip,
        nesterov=spec.nesterov,
    )


def gradient(spec: StepSpec, network: Network, state: dict, frozen: dict, batch: dict, hyperparameters: dict):
    """The gradient of the mean loss over the batch, with (new statistics, loss, accuracy).

    The whole batch is augmented and mixed before it is cut into micro-batches; micro-batch i is rows i::accumulate, so
    that each device keeps its share. A batch to learn from is full: a row of weight 0 would count in no loss, but in
    the statistics of batch norm and as a partner in mixing.
    """
    images, target, dropout_key = augment_batch(spec, state["step"], batch, hyperparameters)
    images = normalize(images, hyperparameters, spec.network.dtype)
    target = losses.smooth_labels(target, hyperparameters["smoothing"])
    whole = images, target, batch["weight"], batch.get("mask")

    def mean_loss(params, stats, micro_batch, key):
        images, target, weight, mask = micro_batch
        scores, stats = network.apply(
            trees.merge(params, frozen["params"]),
            trees.merge(stats, frozen["stats"]),
            images,
            train=True,
            rngs=nnx.Rngs(dropout=key),
            mask=mask,
        )
        per_example = losses.LOSSES[spec.network.loss](scores, target, hyperparameters["class_weight"])
        total = jnp.maximum(weight.sum(), 1)
        # of a mixture of two images, the class of the larger part is the right one
        correct = (scores.argmax(-1) == target.argmax(-1)).astype(jnp.float32)
        loss, accuracy = (per_example * weight).sum() / total, (correct * weight).sum() / total
        return loss, (restrict_to(stats, state["stats"]), accuracy)

    loss_and_gradient = jax.value_and_grad(mean_loss, has_aux=True)
    if spec.accumulate == 1:
        (loss, (stats, accuracy)), grads = loss_and_gradient(state["params"], state["stats"], whole, dropout_key)
        return grads, (stats, loss, accuracy)

    count = spec.accumulate

    def cut(array):
        return array.reshape(len(array) // count, count, *array.shape[1:]).swapaxes(0, 1)

    def accumulate(carried, numbered):
        stats, sums = carried
        index, micro_batch = numbered
        key = jax.random.fold_in(dropout_key, index)
        (loss, (stats, accuracy)), grads = loss_and_gradient(state["params"], stats, micro_batch, key)
        return (stats, jax.tree.map(jnp.add, sums, (grads, loss, accuracy))), None

    zeros = jax.tree.map(jnp.zeros_like, state["params"]), jnp.zeros(()), jnp.zeros(())
    # on a CPU, the gradient of a convolution is about ten times as slow inside a loop
    unrolled = jax.default_backend() == "cpu" and count <= MOST_UNROLLED
    (stats, sums), _ = jax.lax.scan(
        accumulate,
        (state["stats"], zeros),
        (jnp.arange(count), jax.tree.map(cut, whole)),
        unroll=count if unrolled else 1,
    )
    grads, loss, accuracy = jax.tree.map(lambda total: total / count, sums)
    return grads, (stats, loss, accuracy)


def augment_batch(
    spec: StepSpec, step: jax.Array, batch: dict, hyperparameters: dict
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A batch as the network sees it at a step, before normalization.

    Returns:
        images (B, H, W, C) float32 in 0..1, target (B, K) float32, and the key of the step's dropout.
    """
    keys = augment.split_step_key(hyperparameters["key"], step, len(batch["label"]))
    change = augment.build_augmentation(spec.augment, spec.network.num_classes)
    images, target = change(
        batch["image"], batch["label"], keys.row_keys, keys.mix_key, hyperparameters["augment"], batch.get("mask")
    )
    return images, target, keys.dropout_key


def restrict_to(whole: dict, part: dict) -> dict:
    """The branches of a whole tree that a part of it has as well: what is frozen is not in the state."""
    restricted = {}
    for key, branch in part.items():
        restricted[key] = restrict_to(whole[key], branch) if isinstance(branch, dict) else whole[key]
    return restricted


def update_ema(state: dict, params: dict, stats: dict, hyperparameters: dict) -> dict:
    """The moving average of parameters and statistics after a step.

    The decay is small at first, min(ema_decay, (1 + t) / (10 + t)), so that the initial values are soon forgotten.
    """
    done = state["step"].astype(jnp.float32)
    decay = jnp.minimum(hyperparameters["ema_decay"], (1 + done) / (10 + done))
    return jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state["ema"], dict(params=params, stats=stats)
    )
