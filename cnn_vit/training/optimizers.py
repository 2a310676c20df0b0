"""How parameters follow a gradient.

An optimizer is a function that returns a chain of optax's transformations, and an entry of OPTIMIZERS. It is built anew
inside the compiled step, from numbers that are arguments of the step, so that another learning rate or decay compiles
nothing. Before it, the gradient is clipped. Its state is what its own `init` gives with the numbers of the run.

Each takes, by position, what it may ask of the parameters (`Leaves`), and its keywords, which are settings,
`optimizer.momentum`, as `settings.rules` reads them. Keywords that are annotated `float` are arguments of the step;
the others shape the compiled program. `learning_rate` is the rate of the step, the base rate times the schedule; its
default is the base rate where a recipe sets none. A keyword that ends in `learning_rate` is another base rate, and the
schedule multiplies it likewise.

In the formulas g is the gradient and p a parameter; m and n are averages of g and g^2 with the decays b1 and b2, and
m' and n' the same divided by 1 - b1^t and 1 - b2^t. Decay acts on the parameters that `decay_pattern` matches.

Where parameters have rates of their own, multiples of the rate, the update of each is multiplied, which is the same as
another rate for every rule whose update is proportional to it. A rule of which that does not hold multiplies inside, or
refuses. Where what is trained grows in stages, the parameters of each stage follow a rule of their own, so that its
averages and its count of steps begin when they do; its state is a tuple, an item for each stage so far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from cnn_vit import trees
from cnn_vit.errors import UserError, unknown
from cnn_vit.training.rules import RuleSpec

NO_INNER_KERNELS = (
    "optimizer.name is muon, which is for kernels between the first layer and the head, and the network trains none; "
    "take adamw, or a deeper network"
)


@dataclass(frozen=True)
class Leaves:
    """What an optimizer may ask of each parameter: trees that are shaped as the parameters that are trained.

    Attributes:
        decays: whether weight decay shrinks it.
        find_inner_kernels: () -> whether it is the kernel of a layer that is neither the first nor the head. It is a
            function because the network has to be traced for it.
        multipliers: what its learning rate is multiplied by, which may be traced; None where all are 1.
        are_of_a_stage: whether these are the parameters of one stage of a run, beside others.
    """

    decays: dict
    find_inner_kernels: Callable[[], dict]
    multipliers: dict | None = None
    are_of_a_stage: bool = False


@dataclass(frozen=True)
class Optimizer:
    """A learning rule.

    Attributes:
        build: (leaves, learning_rate=..., other keywords) -> optax's pair of `init` and `update`.
        average: for a rule that is evaluated at an average of its parameters instead of an average of the run's own:
            (state of the rule, params) -> the averaged params.
        renew: for a rule whose state holds numbers of the settings: (state of the rule, params, numbers by keyword) ->
            the same with other numbers.
        starts_above_zero: whether the rule cannot take a rate of 0, so that a warm-up begins above it.
        schedules: the schedules that it can take; None for all.
        multiplies: where the multipliers of learning rates act: on the "update" that the rule returns, "inside" the
            rule, or "nowhere", which refuses them.
        needs_inner_kernels: whether a run must train kernels between the first layer and the head.
    """

    build: Callable[..., optax.GradientTransformation]
    average: Callable[[Any, dict], dict] | None = None
    renew: Callable[[Any, dict, dict], tuple[Any, dict]] | None = None
    starts_above_zero: bool = False
    schedules: tuple[str, ...] | None = None
    multiplies: Literal["update", "inside", "nowhere"] = "update"
    needs_inner_kernels: bool = False


def get_optimizer(name: str) -> Optimizer:
    """Returns a rule; UserError where there is none of that name."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def build_decay_mask(params: dict, pattern: str) -> dict:
    """Builds a tree of booleans that says which parameters weight decay shrinks.

    Args:
        params: arrays or their shapes.
        pattern: a regular expression that is searched in each parameter's path, `stages/0/blocks/0/conv1/kernel`.

    Raises:
        UserError: no path matches the pattern; weight_decay 0 is the clear way to have no decay.
    """
    mask = trees.mask_by_pattern(params, pattern)
    if not any(jax.tree.leaves(mask)):
        leaf_names = sorted({str(path[-1]) for path in trees.shapes_by_path(params)})
        raise UserError(
            f"optimizer.decay_pattern {pattern!r} matches no parameter's path; paths end in {', '.join(leaf_names)}; "
            "take one of these, such as (^|/)kernel$, or optimizer.weight_decay=0 for no decay"
        )
    return mask


def build_chain(
    rule: RuleSpec,
    numbers: dict[str, Any],
    *,
    learning_rate: jax.Array | float,
    leaves: Leaves,
    clip: jax.Array | float | None = None,
    stages: Sequence[set[tuple]] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer of one step: the gradient is clipped, and then the rule turns it into an update.

    Args:
        rule: a rule with its options.
        numbers: its numbers by keyword, which may be traced.
        learning_rate: the rate of this step, which may be traced.
        leaves: what the rule may ask of the parameters.
        clip: norm to which a gradient whose norm over all parameters exceeds it is shortened; None for no limit.
        stages: paths of the parameters that each stage so far began to train; None where all began at once.

    Returns:
        optax's pair of `init(params)` and `update(gradient, state, params, value=loss)`. The state of the rule is
        the second item of the chain's.

    Raises:
        UserError: there is no such optimizer, or it finds nothing to work on.
    """
    optimizer = get_optimizer(rule.name)
    keywords = rule.keywords(optimizer.build, numbers)

    def build(leaves: Leaves) -> optax.GradientTransformation:
        built = optimizer.build(leaves, learning_rate=learning_rate, **keywords)
        return multiply_updates(built, leaves) if optimizer.multiplies == "update" else built

    # identity keeps the chain as long without clipping, so that the state has one structure
    clipping = optax.identity() if clip is None else optax.clip_by_global_norm(clip)
    chain = optax.chain(clipping, build(leaves) if stages is None else build_for_stages(build, leaves, stages))
    return optax.with_extra_args_support(chain)


def multiply_updates(rule: optax.GradientTransformation, leaves: Leaves) -> optax.GradientTransformation:
    """Multiplies the updates of a rule by the multipliers of the learning rates; its state stays the rule's own."""
    if leaves.multipliers is None:
        return rule
    rule = optax.with_extra_args_support(rule)

    def update(updates, state, params=None, **extra_args):
        updates, state = rule.update(updates, state, params, **extra_args)
        return jax.tree.map(jnp.multiply, updates, leaves.multipliers), state

    return optax.GradientTransformationExtraArgs(rule.init, update)


def build_for_stages(
    build: Callable[[Leaves], optax.GradientTransformation], leaves: Leaves, stages: Sequence[set[tuple]]
) -> optax.GradientTransformationExtraArgs:
    """Builds a rule for the parameters of each stage so far; the state is a tuple of theirs.

    Args:
        build: the rule for some parameters.
        leaves: of all parameters.
        stages: paths of the parameters that each stage began to train; together they are all of them.
    """
    rules = [optax.with_extra_args_support(build(select_leaves(leaves, paths))) for paths in stages]

    def init(params):
        return tuple(rule.init(select(params, paths)) for rule, paths in zip(rules, stages, strict=True))

    def update(updates, states, params, **extra_args):
        joined: dict = {}
        new_states = []
        for rule, paths, state in zip(rules, stages, states, strict=True):
            part, new_state = rule.update(select(updates, paths), state, select(params, paths), **extra_args)
            joined = trees.merge(joined, part)
            new_states.append(new_state)
        return joined, tuple(new_states)

    return optax.GradientTransformationExtraArgs(init, update)


def select(tree: dict, paths: set[tuple]) -> dict:
    """Returns the part of a tree whose leaves have these paths."""
    selected, _ = trees.split(tree, trees.mask_by_paths(tree, paths))
    return selected


def select_leaves(leaves: Leaves, paths: set[tuple]) -> Leaves:
    """Returns what a rule may ask of the parameters with these paths."""
    return replace(
        leaves,
        decays=select(leaves.decays, paths),
        find_inner_kernels=lambda: select(leaves.find_inner_kernels(), paths),
        multipliers=None if leaves.multipliers is None else select(leaves.multipliers, paths),
        are_of_a_stage=True,
    )


def average_params(
    average: Callable[[Any, dict], dict], state: Any, params: dict, stages: Sequence[set[tuple]] | None = None
) -> dict:
    """Computes the average at which a rule that averages by itself is evaluated.

    Args:
        average: of the rule, its entry's.
        state: of the rule, the second item of the chain's.
        params: the parameters that are trained.
        stages: as `build_chain` takes it.
    """
    if stages is None:
        return average(state, params)
    averaged: dict = {}
    for paths, state_of_stage in zip(stages, state, strict=True):
        averaged = trees.merge(averaged, average(state_of_stage, select(params, paths)))
    return averaged


def renew_state(
    renew: Callable[[Any, dict, dict], tuple[Any, dict]],
    state: Any,
    params: dict,
    numbers: dict,
    stages: Sequence[set[tuple]] | None = None,
) -> tuple[Any, dict]:
    """Takes other numbers into the state of a rule that keeps some in it, stage by stage; returns it and the params.

    Args:
        renew: of the rule, its entry's.
        state: of the rule, the second item of the chain's.
        params: the parameters that are trained.
        numbers: of the rule by keyword.
        stages: as `build_chain` takes it. The state may be of fewer of them.
    """
    if stages is None:
        return renew(state, params, numbers)
    renewed: dict = {}
    states = []
    for paths, state_of_stage in zip(stages, state, strict=False):
        new_state, part = renew(state_of_stage, select(params, paths), numbers)
        renewed = trees.merge(renewed, part)
        states.append(new_state)
    return tuple(states), renewed


def sgd(
    leaves: Leaves,
    *,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Stochastic gradient descent with momentum.

        v = momentum v + g';  p -= rate v  (with Nesterov: rate (g' + momentum v));  g' = g + weight_decay p

    Decay is added to the gradient before momentum, as the papers' L2 penalty. Sutskever et al., On the importance of
    initialization and momentum in deep learning, ICML 2013, as torch.optim.SGD writes it; optax.sgd.

    Args:
        momentum: share of the last update that is kept, in [0, 1).
        nesterov: look ahead along the momentum.
        weight_decay: added to the gradient, times the parameter, in [0, 100].
    """
    decay = optax.add_decayed_weights(weight_decay, mask=leaves.decays)
    return optax.chain(decay, optax.trace(momentum, nesterov=nesterov), optax.scale_by_learning_rate(learning_rate))


def adam(
    leaves: Leaves, *, learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8
) -> optax.GradientTransformation:
    """Adaptive moments: each parameter's average gradient over the root of its average square.

        p -= rate m' / (sqrt(n') + epsilon)

    Kingma and Ba, arXiv:1412.6980, algorithm 1; optax.adam. It has no weight decay: take adamw for it.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
    """
    return optax.adam(learning_rate, b1, b2, epsilon)


def adamw(
    leaves: Leaves,
    *,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam with weight decay that does not enter the gradient's averages.

        p -= rate (m' / (sqrt(n') + epsilon) + weight_decay p)

    Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, with the decay times the rate as in optax and torch;
    optax.adamw.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        weight_decay: times the rate and the parameter, in [0, 100].
    """
    return optax.adamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=leaves.decays)


def nadamw(
    leaves: Leaves,
    *,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW that looks ahead along its average, as Nesterov's momentum does.

        p -= rate ((b1 m'' + (1 - b1) g') / (sqrt(n') + epsilon) + weight_decay p),  m'' = m / (1 - b1^(t + 1)),
        g' = g / (1 - b1^t)

    Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop, algorithm 2; optax.nadamw.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        weight_decay: times the rate and the parameter, in [0, 100].
    """
    return optax.nadamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=leaves.decays)


def radam(
    leaves: Leaves,
    *,
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    threshold: float = 5.0,
) -> optax.GradientTransformation:
    """Adam that takes the average gradient alone until enough steps make its average square worth dividing by.

        p -= rate r m' / (sqrt(n') + epsilon)  once the effective number of steps exceeds the threshold, else rate m'

    Liu et al., On the variance of the adaptive learning rate and beyond, arXiv:1908.03265, algorithm 2; optax.radam.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        threshold: effective steps from which on it divides; at 4 and below the correction r is not a number, in
            (4, 1000].
    """
    return optax.radam(learning_rate, b1, b2, epsilon, threshold=threshold)


def lion(
    leaves: Leaves, *, learning_rate: float = 1e-4, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """The sign of an interpolated momentum.

        p -= rate (sign(b1 m + (1 - b1) g) + weight_decay p);  m = b2 m + (1 - b2) g

    Chen et al., arXiv:2302.06675, program 1; optax.lion. Its rate is a third to a tenth of AdamW's, its decay as many
    times larger (their section 5).

    Args:
        b1: interpolation between gradient and momentum, in [0, 1).
        b2: decay of the momentum, in [0, 1).
        weight_decay: times the rate and the parameter, in [0, 100].
    """
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=leaves.decays)


def lamb(
    leaves: Leaves,
    *,
    learning_rate: float = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """AdamW whose update of each layer is as long as the layer's parameters, for large batches.

        u = m' / (sqrt(n') + epsilon) + weight_decay p;  p -= rate |p| / |u| u  (the factor is 1 where |p| or |u| is 0)

    You et al., arXiv:1904.00962, algorithm 2; optax.lamb.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        weight_decay: times the parameter, before the update is scaled, in [0, 100].
    """
    return optax.lamb(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=leaves.decays)


def lars(
    leaves: Leaves,
    *,
    learning_rate: float = 1.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    trust_coefficient: float = 0.001,
    epsilon: float = 0.0,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """SGD whose gradient of each layer is scaled to a share of the length of the layer's parameters.

        g' = g + weight_decay p;  v = momentum v + rate trust_coefficient |p| / (|g'| + epsilon) g';  p -= v

    You et al., arXiv:1708.03888, algorithm 1; optax.lars. Parameters that do not decay (biases, scales) are not scaled
    either, as is usual: they follow SGD.

    Args:
        momentum: share of the last update that is kept, in [0, 1).
        nesterov: look ahead along the momentum.
        trust_coefficient: length of an update over that of the layer's parameters, at rate 1, in (0, 1].
        epsilon: added to the length of the gradient, in [0, 1].
        weight_decay: added to the gradient, times the parameter, in [0, 100].
    """
    return optax.lars(
        learning_rate,
        weight_decay,
        weight_decay_mask=leaves.decays,
        trust_coefficient=trust_coefficient,
        eps=epsilon,
        trust_ratio_mask=leaves.decays,
        momentum=momentum,
        nesterov=nesterov,
    )


def adafactor(
    leaves: Leaves,
    *,
    learning_rate: float = 1e-2,
    decay_rate: float = 0.8,
    largest_update: float = 1.0,
    epsilon: float = 1e-30,
    min_side: int = 128,
    parameter_scale: bool = True,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Adam without momentum, whose average squares of a large matrix are kept as those of its rows and its columns.

        p -= rate rms(p) g / sqrt(n), at most `largest_update` long; n's decay at step t is 1 - t^-decay_rate

    Shazeer and Stern, arXiv:1804.04235, algorithm 4; optax.adafactor, with the decay times the rate.

    Args:
        decay_rate: how fast the average of squares becomes a long one, in (0, 1].
        largest_update: root mean square of an update, before the rate, to which a longer one is shortened, in
            (0, 1e9].
        epsilon: added to the squared gradient, in (0, 1].
        min_side: a matrix is kept as rows and columns from this many of both on; smaller ones are kept whole, in
            [1, 1000000].
        parameter_scale: multiply the update by the root mean square of the parameter.
        weight_decay: times the rate and the parameter, in [0, 100].
    """
    return optax.adafactor(
        learning_rate,
        min_dim_size_to_factor=min_side,
        decay_rate=decay_rate,
        multiply_by_parameter_scale=parameter_scale,
        clipping_threshold=largest_update,
        weight_decay_rate=learning_rate * weight_decay,  # optax's own is not times the rate
        eps=epsilon,
        weight_decay_mask=leaves.decays,
    )


def muon(
    leaves: Leaves,
    *,
    learning_rate: float = 0.02,
    momentum: float = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    weight_decay: float = 0.0,
    adamw_learning_rate: float = 1e-3,
    adamw_b1: float = 0.9,
    adamw_b2: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Momentum made orthogonal, for kernels between the first layer and the head; AdamW for all other parameters.

        p -= rate (sqrt(max(1, outputs / inputs)) orthogonal(momentum of g) + weight_decay p)

    A convolution's kernel is the matrix (height x width x inputs, outputs). The first layer, the head, biases, scales,
    positions and tokens follow AdamW, with a rate of its own. Jordan et al., Muon, 2024,
    https://kellerjordan.github.io/posts/muon; optax.contrib.muon.

    Args:
        momentum: decay of the gradient's average, in [0, 1).
        nesterov: look ahead along the momentum.
        iterations: of Newton and Schulz, which make the momentum orthogonal, in [1, 20].
        weight_decay: times the rate of the parameter and the parameter, in [0, 100].
        adamw_learning_rate: base rate of AdamW, which the schedule multiplies, in (0, 1000].
        adamw_b1: AdamW's decay of the gradient's average, in [0, 1).
        adamw_b2: AdamW's decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominators, in (0, 1].

    Raises:
        UserError: the network trains no such kernel. In a single stage of a run all may follow AdamW; that one of them
            has such a kernel is checked by `adapting.check_parts`.
    """
    others = optax.adamw(
        adamw_learning_rate, adamw_b1, adamw_b2, epsilon, weight_decay=weight_decay, mask=leaves.decays
    )
    is_inner_kernel = leaves.find_inner_kernels()
    if not any(jax.tree.leaves(is_inner_kernel)):
        if leaves.are_of_a_stage:
            return others
        raise UserError(NO_INNER_KERNELS)

    def matrix_axes(kernels):
        def axes_of(kernel):
            *inputs, outputs = range(kernel.ndim)
            return optax.contrib.MuonDimensionNumbers(tuple(inputs), outputs)

        return jax.tree.map(axes_of, kernels)

    def scale_by_sides(updates, _):
        def scale(update):
            outputs = update.shape[-1]
            return update * max(1, outputs**2 / update.size) ** 0.5  # size / outputs are the inputs

        return jax.tree.map(scale, updates)

    orthogonal = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=iterations,
            beta=momentum,
            eps=epsilon,
            nesterov=nesterov,
            weight_dimension_numbers=matrix_axes,
        ),
        optax.stateless(scale_by_sides),
        optax.add_decayed_weights(weight_decay, mask=leaves.decays),
        optax.scale_by_learning_rate(learning_rate),
    )
    labels = jax.tree.map(lambda is_inner: "muon" if is_inner else "adamw", is_inner_kernel)
    return optax.partition({"muon": orthogonal, "adamw": others}, labels)


def adopt(
    leaves: Leaves, *, learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.9999, epsilon: float = 1e-6
) -> optax.GradientTransformation:
    """Adam that divides by the average square of the steps before, and averages afterwards; it converges for any b2.

        m = b1 m + (1 - b1) clip(g / max(sqrt(n), epsilon), t^(1/4));  p -= rate m;  n then takes g^2 in

    Taniguchi et al., arXiv:2411.02853, algorithm 2; optax.contrib.adopt. The first step only fills n.

    Args:
        b1: decay of the average of what the gradient was divided to, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: smallest denominator, in (0, 1].
    """
    return optax.contrib.adopt(learning_rate, b1, b2, epsilon)


def schedule_free_adamw(
    leaves: Leaves,
    *,
    learning_rate: float = 2.5e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    weight_power: float = 2.0,
) -> optax.GradientTransformation:
    """AdamW without a schedule: it goes on with all of the rate, and an average of its points is what is evaluated.

        z -= rate (g / (sqrt(n') + epsilon) + weight_decay y);  x = (1 - c) x + c z;  y = (1 - b1) z + b1 x

    Gradients are taken at y, which is the parameter; x is the average, with c = rate^weight_power over the sum of it so
    far. Defazio et al., The Road Less Scheduled, arXiv:2405.15682, algorithm 1; optax.contrib.schedule_free.

    Args:
        b1: share of the average in the point at which gradients are taken, in (0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        weight_decay: times the rate and the parameter, in [0, 100].
        weight_power: of the largest rate so far, as which a step counts in the average, in [0, 10].
    """
    base = optax.chain(
        optax.scale_by_rms(b2, epsilon, eps_in_sqrt=False, bias_correction=True),
        optax.add_decayed_weights(weight_decay, mask=leaves.decays),
        optax.scale_by_learning_rate(learning_rate),
    )
    # z has the multiplied rate; the share of a step in the average is the same for all parameters
    return optax.contrib.schedule_free(multiply_updates(base, leaves), learning_rate, b1, weight_power)


def renew_schedule_free(state: Any, params: dict, numbers: dict) -> tuple[Any, dict]:
    """Takes another b1 into a state of `schedule_free_adamw`, for which x and z stay and y is made anew.

    With the same b1 nothing changes, to the bit.
    """
    b1 = jnp.array(numbers["b1"], state.b1.dtype)  # a copy, for the state is donated and the numbers are not
    average = optax.contrib.schedule_free_eval_params(state, params)
    is_same = b1 == state.b1
    params = jax.tree.map(lambda x, y, z: jnp.where(is_same, y, b1 * x + (1 - b1) * z), average, params, state.z)
    return state._replace(b1=b1), params


def prodigy(
    leaves: Leaves,
    *,
    learning_rate: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    initial_estimate: float = 1e-6,
    coefficient: float = 1.0,
    safeguard_warmup: bool = False,
) -> optax.GradientTransformation:
    """AdamW that estimates its rate as it goes, from how far the parameters have come; learning_rate is a factor of it.

        p -= d rate (m' / (sqrt(n') + d epsilon) + weight_decay p),  d the estimate, which only grows

    Mishchenko and Defazio, arXiv:2306.06101, algorithm 4; optax.contrib.prodigy. A rate of 0 at the first step would
    make the estimate 0 / 0, so that a warm-up begins above it.

    Args:
        b1: decay of the gradient's average, in [0, 1).
        b2: decay of the squared gradient's average, in [0, 1).
        epsilon: added to the denominator, in (0, 1].
        weight_decay: times the rate and the parameter, in [0, 100].
        initial_estimate: of the rate, smaller than any that is right, in (0, 1].
        coefficient: what each estimate is multiplied by, in (0, 1000].
        safeguard_warmup: leave the rate out of the estimate's denominator, for long warm-ups.
    """
    inner = optax.contrib.prodigy(
        learning_rate,
        betas=(b1, b2),
        eps=epsilon,
        estim_lr0=initial_estimate,
        estim_lr_coef=coefficient,
        safeguard_warmup=safeguard_warmup,
    )

    # optax's own decay shrinks every parameter; this one is the same for those that decay
    def update(updates, state, params, **extra_args):
        steps_done = state.count + 1
        bias_correction = (1 - b2**steps_done) ** 0.5 / (1 - b1**steps_done)
        rate = state.estim_lr * learning_rate * bias_correction
        updates, state = inner.update(updates, state, params, **extra_args)

        def add_decay(update, param, decays):
            return update - weight_decay * rate * param if decays else update

        return jax.tree.map(add_decay, updates, params, leaves.decays), state

    return optax.GradientTransformationExtraArgs(inner.init, update)


OPTIMIZERS = {
    "sgd": Optimizer(sgd),
    "adam": Optimizer(adam),
    "adamw": Optimizer(adamw),
    "nadamw": Optimizer(nadamw),
    "radam": Optimizer(radam),
    "lion": Optimizer(lion),
    "lamb": Optimizer(lamb),
    "lars": Optimizer(lars),
    "adafactor": Optimizer(adafactor),
    "muon": Optimizer(muon, needs_inner_kernels=True),
    "adopt": Optimizer(adopt),
    "schedule_free_adamw": Optimizer(
        schedule_free_adamw,
        average=optax.contrib.schedule_free_eval_params,
        renew=renew_schedule_free,
        schedules=("constant",),
        multiplies="inside",
    ),
    # one estimate for all parameters, which multipliers would bend: the authors' own code takes none but 0 either
    "prodigy": Optimizer(prodigy, starts_above_zero=True, multiplies="nowhere"),
}
