"""One step of learning as a pure function over plain dicts, compiled once.

`learn` takes a state and a batch of uint8 images to the next state: augmentation, scores, loss, gradient, update,
moving average. It can be read, differentiated or mapped as it is; `build_step` compiles it for a run.

Step s counts the updates done: update k (from 0) runs at step k and makes it k + 1.

`StepSpec` holds the settings that shape the compiled program. Every other number (learning rate, weight decay, the
seed's key ...) is an argument, `hyperparameters`, so that another seed or rate compiles nothing. Each size of images
compiles once. The arguments are dicts; numbers are float32 where no other type is named:

    state            step () int32: the updates done
                     params, stats: trained parameters and running statistics, as nested dicts of arrays
                     opt: the state of the optimizer, as optax has it
                     ema: dict(params, stats) of moving averages, or those of an optimizer that averages by itself;
                     {} where none is kept
    frozen           params, stats: the network's values that are not in the state and never change, where a part of the
                     network is not trained; both are {} where all of it is. Where frozen kernels have adapters, their
                     factors are among the state's params
    batch            image (B, H, W, C) uint8; label (B,) int32; weight (B,), all 1 in training; index (B,) int32;
                     for images of several sizes also mask (B, H, W) bool: True on each image's own pixels
    hyperparameters  of `plan.hyperparameters`:
                     learning_rate (the base rate), clip, ema_decay, smoothing: () each
                     optimizer, schedule, loss: a dict each, of the rule's numbers by keyword, () each
                     rates: dict(multipliers, layer_decay): a list of () each, and ()
                     lora_scale: (): alpha / rank of the adapters
                     augment: a list for each operation, of its numbers, () each
                     mean, std (C,); class_weight (K,); key (): the random key that follows from the seed
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cnn_vit import compilation, trees
from cnn_vit.data import augment
from cnn_vit.nn.values import Network
from cnn_vit.training import devices, forward, freezing, losses, optimizers, rates, schedules
from cnn_vit.training.caches import compiled_once
from cnn_vit.training.forward import NetworkSpec, normalize, program_kind
from cnn_vit.training.freezing import FreezeSpec
from cnn_vit.training.rates import RatesSpec
from cnn_vit.training.rules import RuleSpec
from cnn_vit.transfer.adapt import adapters
from cnn_vit.transfer.adapt.freezing import begun_paths

MOST_UNROLLED = 64  # up to so many micro-batches are compiled one by one; each takes about a second to compile
NOTHING_FROZEN: dict[str, dict] = dict(params={}, stats={})


@dataclass(frozen=True)
class ScheduleSpec:
    """The shape of the learning rate over a run.

    Attributes:
        rule: the schedule, with the keywords of it that shape the program.
        total: steps of the run.
        warmup: steps of the rise at its beginning.
    """

    rule: RuleSpec
    total: int
    warmup: int = 0


@dataclass(frozen=True)
class StepSpec:
    """The settings that shape the compiled step.

    Within a process, runs with equal spec, mesh, rules and `add_measures` share one compilation.

    Attributes:
        network: what is trained.
        augment: names of the augmentation's operations, in order.
        optimizer: the learning rule, with the keywords of it that shape the program.
        clip: whether long gradients are shortened.
        decay_pattern: regular expression that is searched in the paths of parameters; those that it matches decay.
        accumulate: micro-batches that a batch is cut into.
        ema: whether a moving average of the values is kept.
        schedule: shape of the learning rate.
        freeze: what of the network is not trained.
        rates: which parameters have learning rates of their own.
        stage_ends: the step at which each stage before this one ended, for the moving average; () where none is kept.
    """

    network: NetworkSpec
    augment: tuple[str, ...]
    optimizer: RuleSpec
    clip: bool
    decay_pattern: str
    accumulate: int
    ema: bool
    schedule: ScheduleSpec
    freeze: FreezeSpec = freezing.NOTHING
    rates: RatesSpec = rates.EQUAL
    stage_ends: tuple[int, ...] = ()


# What a study may add to the measures of a step; see `learn`
AddMeasures = Callable[[dict[str, Any]], dict[str, jax.Array]]


@dataclass(frozen=True)
class Step:
    """A compiled step.

    Attributes:
        network: shapes, initializers and `apply` of the network, as training runs it.
        init_state: (params, stats, hyperparameters) -> state before the first step, compiled; it lies as the rules say.
            The values are those that are trained.
        learn: (state, frozen, batch, hyperparameters) -> (state, measures), compiled. The state that it takes is
            donated: its arrays may not be used afterwards. It has compiler options of its own, so that it cannot be
            traced inside another `jit`; `learn` below can.
        enter_stage: (state, values, hyperparameters) -> state, compiled: `enter_stage` below.
    """

    network: Network
    init_state: Callable
    learn: jax.stages.Wrapped
    enter_stage: Callable


@dataclass(frozen=True)
class BatchGradient:
    """The gradient of one batch, and what was computed on the way to it.

    Attributes:
        grads: the gradient of the mean loss, a tree like the state's params.
        stats: the new running statistics.
        loss: () mean loss of the batch.
        accuracy: () share of examples that the network, as it was before the update, classified rightly.
    """

    grads: dict
    stats: dict
    loss: jax.Array
    accuracy: jax.Array


@compiled_once
def build_step(
    spec: StepSpec,
    mesh: jax.sharding.Mesh,
    rules: devices.Rules = devices.REPLICATED,
    add_measures: AddMeasures | None = None,
) -> Step:
    """Prepares a step, whose `learn` compiles at its first call. Trials in one process share what is built here.

    Args:
        spec: what shapes the program.
        mesh: the devices.
        rules: where each value of the state lies. The caller puts it there (`devices.place` with the same rules); each
            step leaves it there.
        add_measures: adds scalars to the measures of each step, as `learn` says.

    Raises:
        UserError: no parameter matches the decay pattern.
    """
    network = freezing.build_training_network(spec.network, spec.freeze)
    # Built for nothing but its error, which should come now and not at the first step. A pattern may mean adapters
    # alone, those of later stages too
    factors = freezing.get_factors(spec.network, replace(spec.freeze, stages=()))
    optimizers.build_decay_mask(trees.merge(network.params, factors), spec.decay_pattern)

    def init(params, stats, hyperparameters):
        return devices.constrain(init_state(spec, network, params, stats, hyperparameters), mesh, rules)

    def learn_in_place(state, frozen, batch, hyperparameters):
        state, measures = learn(spec, network, state, frozen, batch, hyperparameters, add_measures=add_measures)
        return devices.constrain(state, mesh, rules), measures

    def enter(state, values, hyperparameters):
        return devices.constrain(enter_stage(spec, network, state, values, hyperparameters), mesh, rules)

    # None: `constrain` has said already where the state lies. Every device gets the measures: each host can read them
    out_shardings = (None, devices.replicated_sharding(mesh))
    kind = program_kind(spec.network, mesh)
    jitted = compilation.jit(learn_in_place, kind, donate_argnums=0, out_shardings=out_shardings)
    # compiled as one program, for outside of one each array of another shape would be compiled by itself
    return Step(network, compilation.jit(init, kind), jitted, compilation.jit(enter, kind))


def init_state(spec: StepSpec, network: Network, params: dict, stats: dict, hyperparameters: dict) -> dict:
    """Makes the state before the first step from initial values of the parameters and statistics that are trained.

    The optimizer's part is what its own `init` gives with the numbers of the run.
    """
    step = jnp.zeros((), jnp.int32)
    opt = build_optimizer(spec, network, params, hyperparameters, step).init(params)
    averages = {}
    if spec.ema or optimizers.get_optimizer(spec.optimizer.name).average:
        averages = dict(params=params, stats=stats)
    # Copies, because the whole state is donated and one buffer cannot be donated twice: some optimizers begin with the
    # parameters themselves.
    opt, ema = jax.tree.map(lambda leaf: leaf.copy(), (opt, averages))
    return dict(step=step, params=params, stats=stats, opt=opt, ema=ema)


def enter_stage(spec: StepSpec, network: Network, state: dict, values: dict, hyperparameters: dict) -> dict:
    """Makes the state with which a stage begins from that with which the stage before ended.

    What was trained goes on as it is, with its averages and its optimizer. What is trained from now on begins as before
    the first step: its optimizer's state is that of `init`, and its moving average is its value.

    Args:
        spec: of the stage that begins.
        network: as training runs it in this stage.
        state: at the end of the stage before.
        values: dict(params, stats) of what is trained from now on.
        hyperparameters: as the module's docstring says.
    """
    joined = {name: trees.merge(state[name], values[name]) for name in freezing.VALUES}
    begun = init_state(spec, network, joined["params"], joined["stats"], hyperparameters)
    clipping, rules_so_far = state["opt"]
    *_, newest = begun["opt"][1]
    averages = {name: trees.merge(average, values[name]) for name, average in state["ema"].items()}
    entered = dict(**joined, opt=(clipping, (*rules_so_far, newest)), ema=averages)
    # copies, because the state is donated, and values and their average may be one buffer
    return dict(step=state["step"], **jax.tree.map(lambda leaf: leaf.copy(), entered))


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
    """Updates the state by one batch: a pure function, compiled by `build_step`.

    Args:
        spec: what shapes the program.
        network: the network of `spec.network`, as training runs it.
        state, frozen, batch, hyperparameters: as the module's docstring says.
        add_measures: a function of dict(gradient, updates, state, batch) of the step, with the state before it. It
            returns more scalars by name, which join the measures.

    Returns:
        The next state, and the measures of the step, scalars by name: `loss` and `accuracy` of the batch as the network
        saw it, `learning_rate`, `gradient_norm` before clipping, and `finite`: whether loss, gradient and all new
        values are finite numbers.
    """
    examples = prepare_batch(spec, state["step"], batch, hyperparameters)
    gradient = compute_gradient(spec, network, state, frozen, examples, hyperparameters)
    grads, stats, loss = gradient.grads, gradient.stats, gradient.loss
    optimizer = build_optimizer(spec, network, state["params"], hyperparameters, state["step"])
    updates, opt = optimizer.update(grads, state["opt"], state["params"], value=loss)
    params = optax.apply_updates(state["params"], updates)
    average = optimizers.get_optimizer(spec.optimizer.name).average
    if average:
        averaged_params = optimizers.average_params(average, opt[1], params, list_stages(spec, params))
        averaged_stats = stats_at(spec, network, averaged_params, state, frozen, examples, hyperparameters)
        ema = dict(params=averaged_params, stats=averaged_stats)
    elif spec.ema:
        ema = update_ema(spec, state, params, stats, hyperparameters)
    else:
        ema = {}
    rate = hyperparameters["learning_rate"] * multiplier_of_step(spec, hyperparameters, state["step"])
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    # a finite gradient can still make infinite values: by an infinite rate or decay, or by overflow
    for leaf in jax.tree.leaves((params, stats, ema if average else {})):
        finite &= jnp.isfinite(leaf).all()
    measures = dict(loss=loss, accuracy=gradient.accuracy, learning_rate=rate, gradient_norm=norm, finite=finite)
    if add_measures is not None:
        measures |= add_measures(dict(gradient=grads, updates=updates, state=state, batch=batch))
    return dict(step=state["step"] + 1, params=params, stats=stats, opt=opt, ema=ema), measures


def multiplier_of_step(spec: StepSpec, hyperparameters: dict, step: jax.Array) -> jax.Array:
    """Computes what the schedule multiplies base rates by at a step."""
    schedule = schedules.build_schedule(
        spec.schedule.rule,
        hyperparameters["schedule"],
        total=spec.schedule.total,
        warmup=spec.schedule.warmup,
        starts_above_zero=optimizers.get_optimizer(spec.optimizer.name).starts_above_zero,
    )
    return schedule(step)


def build_optimizer(
    spec: StepSpec, network: Network, params: dict, hyperparameters: dict, step: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer's chain for a step; from step to step only its arrays differ."""
    multiplier = multiplier_of_step(spec, hyperparameters, step)
    numbers = dict(hyperparameters["optimizer"])
    for name, number in numbers.items():
        if name.endswith("learning_rate"):  # the base rate of a part of the parameters
            numbers[name] = number * multiplier
    # inner kernels are looked for in the whole network, of which `params` may be the part that is not frozen
    leaves = optimizers.Leaves(
        decays=trees.mask_by_pattern(params, spec.decay_pattern),
        find_inner_kernels=lambda: trees.mask_by_paths(
            params, trees.paths_where(forward.find_inner_kernels(spec.network))
        ),
        multipliers=rates.find_multipliers(spec.network, spec.rates, params, hyperparameters.get("rates", {})),
    )
    return optimizers.build_chain(
        spec.optimizer,
        numbers,
        learning_rate=hyperparameters["learning_rate"] * multiplier,
        leaves=leaves,
        clip=hyperparameters["clip"] if spec.clip else None,
        stages=list_stages(spec, params),
    )


def list_stages(spec: StepSpec, params: dict) -> list[set[tuple]] | None:
    """Lists the paths of the parameters that each stage so far began to train; None of a run without stages.

    Args:
        spec: of the newest of these stages.
        params: all parameters that are trained in it, the factors of adapters among them.
    """
    patterns = spec.freeze.stages
    if not patterns:
        return None
    whole = trees.shapes_by_path(forward.get_network(spec.network).params)
    remaining = set(trees.shapes_by_path(params))
    stages = []
    for count in range(1, len(patterns) + 1):
        begun = begun_paths(patterns[:count], whole)
        stages.append({path for path in remaining if adapters.kernel_of(path) in begun})
        remaining -= stages[-1]
    return stages


def renew_numbers(spec: StepSpec, state: dict, hyperparameters: dict) -> dict:
    """Takes other numbers of the settings into the state of an optimizer that keeps some in it.

    All other numbers are arguments of each step.
    """
    renew = optimizers.get_optimizer(spec.optimizer.name).renew
    if renew is None:
        return state
    clipping, rule = state["opt"]
    stages = list_stages(spec, state["params"])
    rule, params = optimizers.renew_state(renew, rule, state["params"], hyperparameters["optimizer"], stages)
    return state | dict(params=params, opt=(clipping, rule))


@dataclass(frozen=True)
class PreparedBatch:
    """A batch as the network sees it at a step.

    Attributes:
        images: (B, H, W, C), augmented and normalized.
        target: (B, K) float32, mixed and smoothed.
        weight: (B,).
        mask: (B, H, W) bool where images have several sizes, else None.
        dropout_key: of the step.
    """

    images: jax.Array
    target: jax.Array
    weight: jax.Array
    mask: jax.Array | None
    dropout_key: jax.Array

    @property
    def rows(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
        """What has a row for each example: images, target, weight, mask."""
        return self.images, self.target, self.weight, self.mask


def prepare_batch(spec: StepSpec, step: jax.Array, batch: dict, hyperparameters: dict) -> PreparedBatch:
    """Augments, mixes, normalizes and smooths a whole batch, before it is cut into micro-batches."""
    images, target, dropout_key = augment_batch(spec, step, batch, hyperparameters)
    images = normalize(images, hyperparameters, spec.network.dtype)
    target = losses.smooth_labels(target, hyperparameters["smoothing"])
    return PreparedBatch(images, target, batch["weight"], batch.get("mask"), dropout_key)


def compute_gradient(
    spec: StepSpec, network: Network, state: dict, frozen: dict, examples: PreparedBatch, hyperparameters: dict
) -> BatchGradient:
    """Computes the gradient of the mean loss over the batch, with the new statistics, the loss and the accuracy.

    Micro-batch i is the rows i::accumulate. A batch to learn from must be full, so all its weights are 1: a row of
    weight 0 would count in no loss, but it would in the statistics of batch norm and as a partner in mixing.
    """

    scale = lora_scale(spec, hyperparameters)

    def mean_loss(params, stats, micro_batch, key):
        images, target, weight, mask = micro_batch
        scores, stats = apply_in_training(network, params, stats, frozen, images, mask, key, scale)
        per_example = forward.compute_loss(
            spec.network, scores, target, hyperparameters["loss"], hyperparameters["class_weight"]
        )
        weight_sum = jnp.maximum(weight.sum(), 1)
        # of a mixture of two images, the class of the larger part is the right one
        is_correct = (scores.argmax(-1) == target.argmax(-1)).astype(jnp.float32)
        loss, accuracy = (per_example * weight).sum() / weight_sum, (is_correct * weight).sum() / weight_sum
        return loss, (restrict_to(stats, state["stats"]), accuracy)

    loss_and_gradient = jax.value_and_grad(mean_loss, has_aux=True)

    def add_micro_batch(stats_and_sums, micro_batch, key):
        stats, sums = stats_and_sums
        # parameters stay those before the step; statistics pass from one micro-batch to the next
        (loss, (stats, accuracy)), grads = loss_and_gradient(state["params"], stats, micro_batch, key)
        return stats, jax.tree.map(jnp.add, sums, (grads, loss, accuracy))

    if spec.accumulate == 1:
        (loss, (stats, accuracy)), grads = loss_and_gradient(
            state["params"], state["stats"], examples.rows, examples.dropout_key
        )
        return BatchGradient(grads, stats, loss, accuracy)
    zero_sums = jax.tree.map(jnp.zeros_like, state["params"]), jnp.zeros(()), jnp.zeros(())
    stats, sums = fold_micro_batches(spec, add_micro_batch, (state["stats"], zero_sums), examples)
    grads, loss, accuracy = jax.tree.map(lambda summed: summed / spec.accumulate, sums)
    return BatchGradient(grads, stats, loss, accuracy)


def apply_in_training(
    network: Network,
    params: dict,
    stats: dict,
    frozen: dict,
    images: jax.Array,
    mask: jax.Array | None,
    dropout_key: jax.Array,
    scale: jax.Array | None = None,
) -> tuple[jax.Array, dict]:
    """Runs the whole network, frozen values included, as training does; returns the scores and the new statistics."""
    return network.apply(
        freezing.join_params(params, frozen["params"], scale),
        trees.merge(stats, frozen["stats"]),
        images,
        train=True,
        rngs=nnx.Rngs(dropout=dropout_key),
        mask=mask,
    )


def lora_scale(spec: StepSpec, hyperparameters: dict) -> jax.Array | None:
    """Returns what the product of an adapter's factors is multiplied by; None where there are no adapters."""
    return None if spec.freeze.lora is None else hyperparameters["lora_scale"]


def stats_at(
    spec: StepSpec,
    network: Network,
    params: dict,
    state: dict,
    frozen: dict,
    examples: PreparedBatch,
    hyperparameters: dict,
) -> dict:
    """Computes the running statistics of a network with other parameters than those that the gradient was taken at.

    An optimizer's average of the parameters gives other activations than the parameters themselves, so that their
    statistics are not its own. The batch passes through the network once more, and its statistics go into
    `state["ema"]["stats"]`, as those of training go into `state["stats"]`. Without statistics this costs nothing.
    """
    stats = state["ema"]["stats"]
    if not jax.tree.leaves(stats):
        return stats
    scale = lora_scale(spec, hyperparameters)

    def update_stats(stats, micro_batch, key):
        images, _, _, mask = micro_batch
        _, new_stats = apply_in_training(network, params, stats, frozen, images, mask, key, scale)
        return restrict_to(new_stats, stats)

    if spec.accumulate == 1:
        return update_stats(stats, examples.rows, examples.dropout_key)
    return fold_micro_batches(spec, update_stats, stats, examples)


def fold_micro_batches(spec: StepSpec, function: Callable, carry: Any, examples: PreparedBatch) -> Any:
    """Passes a value through a function of each micro-batch: carry = function(carry, micro-batch, dropout key).

    The rows of a batch lie on the devices in blocks, one block after the other. Taking every accumulate-th row gives
    each micro-batch an equal share of every block, so that no row moves to another device; slices in a row would not.
    """

    def cut_into_micro_batches(array):  # (B, ...) -> (accumulate, B / accumulate, ...), rows i::accumulate in the i-th
        size = len(array) // spec.accumulate
        return array.reshape(size, spec.accumulate, *array.shape[1:]).swapaxes(0, 1)

    def fold(carry, index_and_micro_batch):
        index, micro_batch = index_and_micro_batch
        return function(carry, micro_batch, jax.random.fold_in(examples.dropout_key, index)), None

    # on a CPU, the gradient of a convolution is about ten times as slow inside a loop
    is_unrolled = jax.default_backend() == "cpu" and spec.accumulate <= MOST_UNROLLED
    micro_batches = jax.tree.map(cut_into_micro_batches, examples.rows)
    carry, _ = jax.lax.scan(
        fold,
        carry,
        (jnp.arange(spec.accumulate), micro_batches),
        unroll=spec.accumulate if is_unrolled else 1,
    )
    return carry


def augment_batch(
    spec: StepSpec, step: jax.Array, batch: dict, hyperparameters: dict
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Augments a batch as the network sees it at a step, before normalization.

    Returns:
        images (B, H, W, C) float32 in 0..1, target (B, K) float32, and the key of the step's dropout.
    """
    keys = augment.split_step_key(hyperparameters["key"], step, len(batch["label"]))
    apply_operations = augment.build_augmentation(spec.augment, spec.network.num_classes)
    images, target = apply_operations(
        batch["image"], batch["label"], keys.row_keys, keys.mix_key, hyperparameters["augment"], batch.get("mask")
    )
    return images, target, keys.dropout_key


def restrict_to(whole: dict, part: dict) -> dict:
    """Cuts a tree down to the branches that a part of it has: what is frozen is not in the state."""
    restricted = {}
    for key, branch in part.items():
        restricted[key] = restrict_to(whole[key], branch) if isinstance(branch, dict) else whole[key]
    return restricted


def update_ema(spec: StepSpec, state: dict, params: dict, stats: dict, hyperparameters: dict) -> dict:
    """Computes the moving average of parameters and statistics after a step.

    The decay is min(ema_decay, (1 + t) / (10 + t)), where t updates of a value came before this one: small at first, so
    that what it began with is soon forgotten. What a stage begins to train is counted from the end of the one before.
    """
    decays = []
    for begin in (0, *spec.stage_ends):
        steps_done = (state["step"] - begin).astype(jnp.float32)
        decays.append(jnp.minimum(hyperparameters["ema_decay"], (1 + steps_done) / (10 + steps_done)))

    def average(old, new, stage):
        return decays[stage] * old + (1 - decays[stage]) * new

    values = dict(params=params, stats=stats)
    return jax.tree.map(average, state["ema"], values, find_beginnings(spec, values))


def find_beginnings(spec: StepSpec, values: dict) -> dict:
    """Builds dict(params, stats), trees of integers: the stage that began to train each value, counted from 0.

    Args:
        spec: of the newest stage.
        values: dict(params, stats) of all that is trained in it.
    """
    if not spec.stage_ends:
        return jax.tree.map(lambda _: 0, values)
    stage_of_params: dict[tuple, int] = {}
    for stage, paths in enumerate(list_stages(spec, values["params"]) or ()):
        stage_of_params |= dict.fromkeys(paths, stage)
    stage_of_stats = dict.fromkeys(trees.shapes_by_path(values["stats"]), 0)
    for count in range(1, len(spec.freeze.stages)):
        so_far = replace(spec.freeze, stages=spec.freeze.stages[:count])
        for path in trees.paths_where(freezing.get_masks(spec.network, so_far)["stats"]) & stage_of_stats.keys():
            stage_of_stats[path] = count  # it was still frozen in the stage before

    def stage_by(stages):
        return lambda path, _: stages[tuple(entry.key for entry in path)]

    return dict(
        params=jax.tree_util.tree_map_with_path(stage_by(stage_of_params), values["params"]),
        stats=jax.tree_util.tree_map_with_path(stage_by(stage_of_stats), values["stats"]),
    )
