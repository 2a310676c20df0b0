"""What does each form of a layer gain? Milliseconds of forward and backward pass, in the plain form and the fast one.

    python experiments/speed/forms.py [CASE ...] [--rounds=9] [--json]

A layer of `cnn_vit.nn` has a plain form and, on a CPU, one that XLA runs faster. Each case is a layer at the shape of a
real network, compiled once with `only_plain_forms` and once without, with the compiler options of a run. Both run in
turn, so that a busy machine troubles both; the figure is the least of the rounds. The gradient is that of input and
parameters, but for the first layer of a network, whose input has none.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_vit import compilation, process
from cnn_vit.compilation import ProgramKind
from cnn_vit.nn.conv import Conv
from cnn_vit.nn.dense import Dense
from cnn_vit.nn.forms import only_plain_forms
from cnn_vit.nn.norm import BatchNorm, GroupNorm, LayerNorm
from cnn_vit.nn.pool import max_pool


class MaxPool(nnx.Module):
    """Max pooling as a layer without parameters."""

    def __init__(self, size: int, *, stride: int, padding: int):
        self.size, self.stride, self.padding = size, stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        return max_pool(x, self.size, stride=self.stride, padding=self.padding)


class Residual(nnx.Module):
    """Eight residual blocks of one convolution, whose weight gradients read the stream of all blocks before them."""

    def __init__(self, filters: int):
        self.convolutions = nnx.List([Conv(filters, filters, 3, padding=1, bias=False) for _ in range(8)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for convolution in self.convolutions:
            x = jax.nn.relu(x + convolution(x))
        return x


@dataclass(frozen=True)
class Case:
    """A layer and its input.

    Attributes:
        build: makes the layer.
        shape: of the input.
        is_first: whether the input is an image, which has no gradient.
        keywords: of the layer's call.
    """

    build: Callable[[], nnx.Module]
    shape: tuple[int, ...]
    is_first: bool = False
    keywords: tuple[tuple[str, bool], ...] = ()


TRAIN = (("train", True),)
CASES = {
    "batch norm 16 at 32": Case(lambda: BatchNorm(16), (128, 32, 32, 16), keywords=TRAIN),
    "batch norm 256 at 56": Case(lambda: BatchNorm(256), (8, 56, 56, 256), keywords=TRAIN),
    "batch norm 1024 at 14": Case(lambda: BatchNorm(1024), (8, 14, 14, 1024), keywords=TRAIN),
    "group norm 256 at 28": Case(lambda: GroupNorm(256, groups=32, epsilon=1e-5), (8, 28, 28, 256)),
    "layer norm 192": Case(lambda: LayerNorm(192, epsilon=1e-6), (64, 65, 192)),
    "layer norm 384": Case(lambda: LayerNorm(384, epsilon=1e-6), (8, 197, 384)),
    "dense 192 to 768": Case(lambda: Dense(192, 768), (64, 65, 192)),
    "max pooling 2x2 at 28": Case(lambda: MaxPool(2, stride=2, padding=0), (128, 28, 28, 32)),
    "max pooling 3x3 at 112": Case(lambda: MaxPool(3, stride=2, padding=1), (8, 112, 112, 64)),
    "1x1 64 to 256 at 56": Case(lambda: Conv(64, 256, 1, padding=0, bias=False), (8, 56, 56, 64)),
    "1x1 1024 to 256 at 14": Case(lambda: Conv(1024, 256, 1, padding=0, bias=False), (8, 14, 14, 1024)),
    "1x1 stride 2, 256 to 512": Case(lambda: Conv(256, 512, 1, stride=2, padding=0, bias=False), (8, 56, 56, 256)),
    "5x5 1 to 6 at 28": Case(lambda: Conv(1, 6, 5, padding=2), (128, 28, 28, 1), is_first=True),
    "3x3 1 to 32 at 28": Case(lambda: Conv(1, 32, 3, padding=1), (128, 28, 28, 1), is_first=True),
    "3x3 3 to 16 at 32": Case(lambda: Conv(3, 16, 3, padding=1), (128, 32, 32, 3), is_first=True),
    "32 groups of 8 at 28": Case(lambda: Conv(256, 256, 3, padding=1, groups=32, bias=False), (2, 28, 28, 256)),
    "depthwise 3x3 128 at 56": Case(lambda: Conv(128, 128, 3, padding=1, groups=128, bias=False), (2, 56, 56, 128)),
    "depthwise 7x7 192 at 28": Case(lambda: Conv(192, 192, 7, padding=3, groups=192, bias=False), (2, 28, 28, 192)),
    "eight residual 3x3 16 at 32": Case(lambda: Residual(16), (128, 32, 32, 16)),
}


def compile_pass(case: Case) -> tuple[jax.stages.Compiled, tuple]:
    """Compiles the forward and backward pass of a layer; returns it with arguments to call it with."""
    graph, *states = nnx.split(case.build(), nnx.Param, nnx.BatchStat)
    shapes = tuple(nnx.to_pure_dict(state) for state in states)

    def call(values, x):
        return nnx.merge(graph, *values)(x, **dict(case.keywords))

    def run(values, x, output_gradient):
        if case.is_first:
            output, backward = jax.vjp(lambda values: call(values, x), values)
        else:
            output, backward = jax.vjp(call, values, x)
        return output, backward(output_gradient)

    x = jax.ShapeDtypeStruct(case.shape, jnp.float32)
    arguments = draw_normal((shapes, x, jax.eval_shape(call, shapes, x)))
    kind = ProgramKind(jax.default_backend(), convolutional=True, dtype="float32")
    return compilation.jit(run, kind).lower(*arguments).compile(), arguments


def draw_normal(shapes: tuple) -> tuple:
    """Draws arrays of these shapes: normal numbers, small enough that eight residual blocks stay finite."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return jnp.asarray(0.1 * rng.standard_normal(leaf.shape, np.float32))

    return jax.tree.map(draw, shapes)


def time_forms(case: Case, rounds: int) -> dict[str, float]:
    """Returns the milliseconds of a pass in each form, the least of the rounds."""
    with only_plain_forms():
        plain, arguments = compile_pass(case)
    fast, _ = compile_pass(case)
    programs = {"plain": plain, "fast": fast}
    milliseconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if number > 0:  # the first run of a program fetches its memory
                milliseconds[name].append(1e3 * (time.perf_counter() - began))
    return {name: min(times) for name, times in milliseconds.items()}


def main() -> None:
    """Times both forms of each case and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"beginnings of names (default: all): {'; '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=9, help="runs of each form, in turn (default: 9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    chosen = [name for name in CASES if not args.cases or name.startswith(tuple(args.cases))]
    if not chosen or args.rounds < 1:
        parser.error(f"no case begins so, or --rounds is below 1; the cases are {'; '.join(CASES)}")
    process.keep_pages()
    results = {}
    for name in chosen:
        results[name] = time_forms(CASES[name], args.rounds)
        if not args.json:
            plain, fast = results[name]["plain"], results[name]["fast"]
            print(f"{name:28} plain {plain:8.2f} ms   fast {fast:8.2f} ms   {plain / fast:6.1f} times", flush=True)
    if args.json:
        facts = {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0)), "jax": jax.__version__}
        print(json.dumps({"ms": results, **facts}))


if __name__ == "__main__":
    main()
