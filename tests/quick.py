"""Compiler options that compile a program in less time: for one that runs once or a few times.

The program is the same up to its machine code, which runs more slowly. No test uses them that compares bits with those
of a program compiled otherwise.
"""

from contextlib import contextmanager

import jax
import pytest

from cnn_vit import compilation
from cnn_vit.compilation import installed_jaxlib, is_version_in
from cnn_vit.training import caches

# Machine code that is hardly optimized, of which no part is split off for other threads: a worker has one core.
MACHINE_CODE = {"xla_backend_optimization_level": 0, "xla_cpu_parallel_codegen_split_count": 1}
# Up to 0.10.2, an older way to write the code of a fused loop takes half the time. Later versions lack it.
LOOPS = {"xla_cpu_use_fusion_emitters": False} if is_version_in(installed_jaxlib(), "<0.11") else {}

QUICK = MACHINE_CODE | LOOPS


def write_flags(options: dict[str, bool | int]) -> str:
    """Writes options as XLA_FLAGS holds them, for a process of its own."""
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


@contextmanager
def compile_quickly():
    """Compiles each program of steps and runs with these options, and forgets it at the end."""
    from running import undisturbed_outcome  # here, because tests of layers need nothing of a run

    def jit(function, kind, **keywords):
        return jax.jit(function, compiler_options=compilation.options_to_set(kind) | QUICK, **keywords)

    def forget():
        caches.clear_compiled()
        undisturbed_outcome.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        forget()
        patch.setattr(compilation, "jit", jit)
        yield
    forget()
