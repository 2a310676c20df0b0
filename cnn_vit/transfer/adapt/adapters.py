"""Low-rank adapters (LoRA): which kernels have one, and the shapes of its two factors.

The kernel W of a layer stays frozen, and training uses W + alpha / rank * A B in its place, where A (inputs, rank) and
B (rank, outputs) are trained. B begins as zero, so that the network begins as it is. The layer knows nothing of it: the
sum takes the place of the kernel where trained and frozen values are joined. The kernel of a 1x1 convolution is the
matrix of its inputs and outputs.

A and B stand where the kernel does, as `lora_a` and `lora_b`, so that a pattern which means the layer means them too.
They do not decay, unless `optimizer.decay_pattern` matches these names beside `kernel`.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv:2106.09685, section 4.1.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from cnn_vit.errors import UserError
from cnn_vit.transfer.adapt.patterns import find_matches, parse
from cnn_vit.trees import keys_text

TARGETS = "pretrained.lora_on"
KERNEL = "kernel"
FACTOR_A, FACTOR_B = "lora_a", "lora_b"
# A has the variance 1 / inputs, so that A B x has that of x, times B's; B is zero
INITIALIZERS = {FACTOR_A: "lecun_normal", FACTOR_B: "zeros"}


def find_targets(
    kernels: Mapping[tuple, tuple[int, int]],
    params: Mapping[tuple, tuple],
    frozen: set[tuple],
    *,
    rank: int,
    pattern: str | None,
) -> dict[tuple, tuple[int, int]]:
    """Finds the kernels that have adapters.

    Args:
        kernels: inputs and outputs of each kernel that can have one, by its path.
        params: the shape of each parameter of the network by its path.
        frozen: paths of the parameters that are frozen.
        rank: of the adapters.
        pattern: which kernels are meant; None for all frozen ones that have more inputs and outputs
            than the rank.

    Returns:
        Inputs and outputs of each kernel by its path.

    Raises:
        UserError: the pattern, or a prefix of it, means no kernel, or one that is trained as a whole or is too small;
            or none is left.
    """
    if pattern is None:
        targets = {path: shape for path, shape in kernels.items() if path in frozen and min(shape) > rank}
        if not targets:
            raise UserError(
                f"pretrained.lora={rank} finds no frozen kernel of a dense layer, an attention or a 1x1 convolution "
                "that is larger than the rank; make it smaller, or leave it unset"
            )
        return targets
    parsed = parse(pattern, setting=TARGETS)
    matches = find_matches(parsed, params)
    targets = {path: shape for path, shape in kernels.items() if path in matches}
    adaptable = ", ".join(sorted({keys_text(path[:1]) for path in kernels}))
    if not targets:
        raise UserError(
            f"{TARGETS}={pattern!r} names no kernel of a dense layer, an attention or a 1x1 convolution; this network "
            f"has {adaptable}"
        )
    for prefix in parsed.prefixes:
        if not parsed.is_complement and not any(prefix.matches(path) for path in targets):
            raise UserError(
                f"{TARGETS}={pattern!r}: {prefix.text} holds no kernel of a dense layer, an attention or a 1x1 "
                f"convolution; leave it out; this network has {adaptable}"
            )
    for path, shape in targets.items():
        if path not in frozen:
            raise UserError(
                f"{TARGETS}={pattern!r} names {keys_text(path)}, which is trained as a whole; freeze it too, or leave "
                "it out"
            )
        if rank > min(shape):
            raise UserError(
                f"pretrained.lora={rank} is more than {keys_text(path)} has rank, {min(shape)}; make it smaller, or "
                f"leave that out of {TARGETS}"
            )
    return targets


def kernel_of(path: tuple) -> tuple:
    """Returns the path of the kernel that a factor belongs to; of any other parameter, its own path."""
    return (*path[:-1], KERNEL) if path[-1] in (FACTOR_A, FACTOR_B) else path


def factor_shapes(targets: Mapping[tuple, tuple[int, int]], rank: int) -> dict:
    """Builds the tree of the factors' shapes, which lie where the kernels do; {} without targets."""
    tree: dict = {}
    for path, (inputs, outputs) in targets.items():
        branch = tree
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[FACTOR_A] = jax.ShapeDtypeStruct((inputs, rank), jnp.float32)
        branch[FACTOR_B] = jax.ShapeDtypeStruct((rank, outputs), jnp.float32)
    return tree
