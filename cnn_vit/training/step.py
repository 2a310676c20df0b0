"""One step of learning and one of judging, as pure functions over plain dicts, compiled once.

What shapes the program is `StepSpec`; every number that does not is an argument (`hyperparameters`), so that another seed or
learning rate compiles nothing. `learn` takes a host's bytes to the next state: chance, augmentation, scores, loss,
gradient, update, average. A batch of images of several sizes has a `mask` (B, H, W); each size compiles once.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cnn_vit import trees
from cnn_vit.data import augment
from cnn_vit.models import build as build_model
from cnn_vit.nn.values import Network, functional
from cnn_vit.training import devices, losses, optimizers, schedules

TOP_SCORES = 5  # scores kept of each example where there are more than MANY classes
MANY_CLASSES = 1000
MOST_UNROLLED = 64  # micro-batches, at most, that are compiled one by one; each takes about a second


class NetworkSpec(NamedTuple):
    """What a network is and how its scores are read."""

    model: str
    keywords: tuple[tuple[str, Any], ...]
    num_classes: int
    image_shape: tuple[int, int, int]  # (H, W, C)
    dtype: str
    loss: str


class ScheduleSpec(NamedTuple):
    """The shape of the learning rate over the run, in steps."""

    name: str
    total: int
    warmup: int
    boundaries: tuple[int, ...]
    factor: float
    timescale: int


class StepSpec(NamedTuple):
    """Everything that shapes the compiled step. Runs of equal `StepSpec` share one compilation."""

    network: NetworkSpec
    augment: tuple[str, ...]
    optimizer: str
    nesterov: bool
    clip: bool
    decay_pattern: str
    accumulate: int
    ema: bool
    schedule: ScheduleSpec


class Step(NamedTuple):
    """A compiled pair.

    Attributes:
        network: shapes, initializers and `apply` of the network.
        init_state: (params, stats) -> state, on the host.
        learn: (state, frozen, batch, hyperparameters) -> (state, measures); the state given is donated.
    """

    network: Network
    init_state: Callable
    learn: Callable


@functools.cache
def get_network(form: NetworkSpec) -> Network:
    """The network that a form names, as plain data."""
    return functional(build_network(form))


def build_network(form: NetworkSpec) -> nnx.Module:
    """The network that a form names, without values."""
    height, width, channels = form.image_shape
    return build_model(
        form.model, form.num_classes, channels=channels, image_size=(height, width), **dict(form.keywords)
    )


@functools.cache
def smallest_side(form: NetworkSpec) -> int:
    """The smallest side in pixels of an image, behind a mask, that the network that a form names sees something of."""
    return getattr(build_network(form), "least_side", 1)


def normalize(images: jax.Array, hyperparameters: dict, dtype: str) -> jax.Array:
    """Images of 0..1, (B, H, W, C), less the mean and over the deviation of their channels, in the compute dtype."""
    return ((images - hyperparameters["mean"]) / hyperparameters["std"]).astype(dtype)


@functools.cache
def build_step(static: StepSpec, mesh: jax.sharding.Mesh, rules: devices.Rules = devices.REPLICATED) -> Step:
    """Compiles (at the first call) the step of learning. Cached: trials in one process share it.

    Measures of a step: loss, accuracy of the batch as the network saw it, the learning rate, the gradient's norm before
    clipping, and whether loss, gradient and the new values are finite.

    The state is placed by `rules` (`devices.place` with the same), and stays where they say.
    """
    net = get_network(static.network)
    decay = optimizers.decay_mask(net.params, static.decay_pattern)
    shape = schedules.shape(**static.schedule._asdict())

    def chain(params, hyperparameters, rate):
        return optimizer_chain(static, restrict_to(decay, params), hyperparameters, rate)

    def start(params: dict, stats: dict) -> dict:
        opt = jax.eval_shape(lambda: chain(params, PLACEHOLDERS, 0.0).init(params))
        opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), opt)  # every rule here starts from zeros
        ema = jax.tree.map(lambda leaf: leaf.copy(), dict(params=params, stats=stats)) if static.ema else {}
        return dict(step=np.zeros((), np.int32), params=params, stats=stats, opt=opt, ema=ema)

    def learn(state, frozen, batch, hyperparameters):
        grads, (stats, loss, accuracy) = gradient(static, net, state, frozen, batch, hyperparameters)
        rate = hyperparameters["learning_rate"] * shape(state["step"])
        updates, opt = chain(state["params"], hyperparameters, rate).update(grads, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        ema = update_ema(state, params, stats, hyperparameters) if static.ema else {}
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        for leaf in jax.tree.leaves((params, stats)):
            finite &= jnp.isfinite(leaf).all()
        measures = dict(loss=loss, accuracy=accuracy, learning_rate=rate, gradient_norm=norm, finite=finite)
        state = dict(step=state["step"] + 1, params=params, stats=stats, opt=opt, ema=ema)
        return devices.constrain(state, mesh, rules), measures

    everywhere = devices.replicated(mesh)
    return Step(net, start, jax.jit(learn, donate_argnums=0, out_shardings=(None, everywhere)))


PLACEHOLDERS = dict.fromkeys(("weight_decay", "momentum", "b1", "b2", "epsilon", "clip"), 0.5)


def optimizer_chain(static: StepSpec, decay_mask: dict, hyperparameters: dict, rate) -> optax.GradientTransformation:
    """The optimizer's chain for one step; only its arrays differ from step to step."""
    return optimizers.chain(
        static.optimizer, hyperparameters, rate, decay_mask=decay_mask, clip=static.clip, nesterov=static.nesterov
    )


def gradient(static: StepSpec, net: Network, state: dict, frozen: dict, batch: dict, hyperparameters: dict):
    """Gradient of the mean loss over the batch, with (new statistics, loss, accuracy).

    The whole batch is augmented and mixed before it is cut; micro-batch i is rows i::accumulate, so that each device
    keeps its share. A batch to learn from is full: a row of weight 0 would count in no loss, but in the statistics of
    batch norm and as a partner in mixing.
    """
    size = batch["label"].shape[0]
    images, target, drop = augment_batch(static, state["step"], batch, hyperparameters)
    images = normalize(images, hyperparameters, static.network.dtype)
    target = losses.smooth_labels(target, hyperparameters["smoothing"])
    whole = images, target, batch["weight"], batch.get("mask")

    def cost(params, stats, micro, key):
        images, target, weight, mask = micro
        scores, stats = net.apply(
            trees.merge(params, frozen["params"]),
            trees.merge(stats, frozen["stats"]),
            images,
            train=True,
            rngs=nnx.Rngs(dropout=key),
            mask=mask,
        )
        each = losses.LOSSES[static.network.loss](scores, target, hyperparameters["class_weight"])
        total = jnp.maximum(weight.sum(), 1)
        right = (scores.argmax(-1) == target.argmax(-1)).astype(jnp.float32)  # of a mixture, the larger part
        return (each * weight).sum() / total, (restrict_to(stats, state["stats"]), (right * weight).sum() / total)

    gradients = jax.value_and_grad(cost, has_aux=True)
    if static.accumulate == 1:
        (loss, (stats, accuracy)), grads = gradients(state["params"], state["stats"], whole, drop)
        return grads, (stats, loss, accuracy)

    count = static.accumulate
    cut = jax.tree.map(lambda x: x.reshape(size // count, count, *x.shape[1:]).swapaxes(0, 1), whole)

    def one(carried, given):
        stats, sums = carried
        index, micro = given
        (loss, (stats, accuracy)), grads = gradients(state["params"], stats, micro, jax.random.fold_in(drop, index))
        return (stats, jax.tree.map(jnp.add, sums, (grads, loss, accuracy))), None

    zeros = jax.tree.map(jnp.zeros_like, state["params"]), jnp.zeros(()), jnp.zeros(())
    # on a CPU, the gradient of a convolution is about ten times as slow in a loop
    apart = jax.default_backend() == "cpu" and count <= MOST_UNROLLED
    (stats, sums), _ = jax.lax.scan(
        one, (state["stats"], zeros), (jnp.arange(count), cut), unroll=count if apart else 1
    )
    grads, loss, accuracy = jax.tree.map(lambda x: x / count, sums)
    return grads, (stats, loss, accuracy)


def augment_batch(
    static: StepSpec, step: jax.Array, batch: dict, hyperparameters: dict
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A batch as the network sees it at a step, before normalization.

    Returns:
        images (B, H, W, C) float32 in 0..1, target (B, K) float32, and the key of the step's dropout.
    """
    rows, mix, drop = jax.random.split(jax.random.fold_in(hyperparameters["key"], step), 3)
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(rows, jnp.arange(batch["label"].shape[0]))
    change = augment.build_augmentation(static.augment, static.network.num_classes)
    return *change(batch["image"], batch["label"], row_keys, mix, hyperparameters["augment"], batch.get("mask")), drop


def restrict_to(whole: dict, like: dict) -> dict:
    """The branches of a whole tree that `like` holds: what is frozen is not in the state."""
    return {
        key: restrict_to(whole[key], branch) if isinstance(branch, dict) else whole[key] for key, branch in like.items()
    }


def update_ema(state: dict, params: dict, stats: dict, hyperparameters: dict) -> dict:
    """The moving average of parameters and statistics; its decay is short at first, min(ema, (1 + t) / (10 + t))."""
    done = state["step"].astype(jnp.float32)
    decay = jnp.minimum(hyperparameters["ema_decay"], (1 + done) / (10 + done))
    return jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state["ema"], dict(params=params, stats=stats)
    )


@functools.cache
def eval_step(form: NetworkSpec, mesh: jax.sharding.Mesh) -> Callable:
    """(params, stats, batch, hyperparameters) -> loss, predicted, rank of the label, margin, scores, of each example.

    With them go the batch's label, weight and index. The loss is the recipe's against the bare label, not smoothed. Of
    more than 1,000 classes the best five scores are kept, as scores and classes. Equal scores rank by class, as with
    `argmax`; one that is no number stands before all hyperparameters, and a label with such a score has rank K: never right.
    """
    net = get_network(form)

    def rows(params, stats, batch, hyperparameters):
        images = normalize(batch["image"].astype(jnp.float32) / 255, hyperparameters, form.dtype)
        scores, _ = net.apply(params, stats, images, train=False, mask=batch.get("mask"))
        label = batch["label"]
        own_score = jnp.take_along_axis(scores, label[:, None], 1)
        earlier = jnp.arange(form.num_classes) < label[:, None]
        before = ~(scores <= own_score) | ((scores == own_score) & earlier)
        first, second = jax.lax.top_k(scores, 2)[0].T if form.num_classes > 1 else (scores[:, 0], -jnp.inf)
        best, which = jax.lax.top_k(scores, TOP_SCORES) if form.num_classes > MANY_CLASSES else (scores, None)
        found = dict(
            loss=losses.LOSSES[form.loss](scores, jax.nn.one_hot(label, form.num_classes)),
            predicted=scores.argmax(-1).astype(jnp.int32),
            rank=before.sum(-1).astype(jnp.int32),
            margin=first - second,
            scores=best,
            **{key: batch[key] for key in ("label", "weight", "index")},
        )
        return found if which is None else found | {"classes": which}

    return jax.jit(rows, out_shardings=devices.batch_sharding(mesh))
