"""What a training step needs of the memory: told before the first step, and refused where so much is not free.

The compiler plans a step's memory ahead: the values that it is called with, and one block for all its intermediate
results. What the host takes beside it (the data, batches that are made ahead) is not in these figures.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import jax

from cnn_vit import process
from cnn_vit.errors import TooLittleMemoryError
from cnn_vit.settings import Settings

LARGE_STEP = 256 * 2**20  # bytes of intermediate results from which on only one step is in memory at a time
POLL_SECONDS = 2e-4  # between two looks whether the memory of a step is free; of a step this large, no time at all
MOST_POLLS = 1000  # looks after which a step goes on all the same


@dataclass(frozen=True)
class StepMemory:
    """The memory of one training step, in bytes: on one device, or on all together where they share that of the host.

    Attributes:
        values: state, batch and hyperparameters, and what the step returns beside the state.
        intermediate: what the step holds while it runs.
    """

    values: int
    intermediate: int

    @property
    def total(self) -> int:
        """Bytes of values and intermediate results together."""
        return self.values + self.intermediate

    def as_text(self) -> str:
        """Returns the figures as text: "388 MB (74 MB of values, 314 MB of intermediate results)"."""
        values, intermediate = bytes_text(self.values), bytes_text(self.intermediate)
        return f"{bytes_text(self.total)} ({values} of values, {intermediate} of intermediate results)"

    def as_json(self) -> dict[str, int]:
        """Returns the figures as JSON holds them, in bytes."""
        return asdict(self)


def planned_memory(compiled: Any, copies: int) -> StepMemory | None:
    """Returns the memory that the compiler planned for a step; None where this jaxlib does not say.

    Args:
        compiled: the compiled step, a `jax.stages.Compiled`.
        copies: how many devices run it in the same memory, each with its own values.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        return None
    # the new state takes the place of the old one, which is donated: it is counted among both, and as an alias
    values = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return StepMemory(copies * values, copies * plan.temp_size_in_bytes)


def memory_line(memory: StepMemory, free: int | None) -> str:
    """Returns the sentence about a step's memory; `free` are the bytes that are free, None where nothing says that."""
    return f"memory of a step: {memory.as_text()}" + ("" if free is None else f", {bytes_text(free)} free")


def refuse_large_step(memory: StepMemory, free: int | None, settings: Settings) -> None:
    """Refuses a step whose intermediate results do not fit beside its values, which are in the memory already.

    Raises:
        TooLittleMemoryError: they are more than what is free.
    """
    if free is not None and memory.intermediate > free:
        raise TooLittleMemoryError(
            f"a step needs {memory.as_text()}, but beside the values only {bytes_text(free)} of memory are free; make "
            f"data.batch_size (now {settings['data.batch_size']}) smaller, or data.image_size{size_text(settings)}, "
            "or take a smaller model"
        )


def refuse_large_state(size: int, free: int | None, settings: Settings) -> None:
    """Refuses a state, of `size` bytes, before it is made.

    Raises:
        TooLittleMemoryError: it is larger than what is free.
    """
    if free is not None and size > free:
        raise TooLittleMemoryError(
            f"the training state (parameters, and what {settings['optimizer.name']} keeps of each) takes "
            f"{bytes_text(size)} of memory, but only {bytes_text(free)} are free; take a smaller model than "
            f"{settings['model.name']} as it is set"
        )


def size_text(settings: Settings) -> str:
    """Returns the image size in parentheses behind its name, or "" where the data decide on it."""
    size = settings["data.image_size"]
    return "" if size is None else f" (now {size})"


def bytes_text(size: int) -> str:
    """Returns a number of bytes as people read it: "12 kB", "314 MB", "15.6 GB"."""
    if size < 999_500:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.0f} MB" if size < 999_500_000 else f"{size / 1e9:.1f} GB"


class OneStepAtATime:
    """Lets a large step begin on a CPU only once the step before has given its memory back.

    Otherwise up to three steps were in memory at once: XLA takes the memory of a step as soon as its inputs are there,
    but a thread gives back that of the step before only after its results are ready. Pages that were never written to
    cost nothing, but where freed pages are kept (`process.keep_pages`) each of the blocks has its own for the rest of
    the run: a ViT whose step takes 1.2 GB had a peak of 4.1 GB instead of 1.8 to 2.1.

    A block that is free does not always serve again: glibc looks for a little more than XLA asks for, so as to align
    it, and what lies behind the block may be in use by then. So where the heap has grown by a block, what is free is
    given back.

    Args:
        size: bytes of a step's intermediate results.
    """

    def __init__(self, size: int):
        self._size = size
        self._measures: dict | None = None  # of the step that runs
        self._in_use: int | None = None  # bytes of the heap before that step
        self._heap_size: int | None = None  # bytes that the heap spans since the first step

    def begin_step(self) -> None:
        """Waits until the step before is done and its memory is free, for MOST_POLLS looks at most."""
        if self._measures is not None:
            jax.block_until_ready(self._measures)
            self._wait_for_memory()
        statistics = process.heap_statistics()
        if statistics is None:
            return
        if self._heap_size is not None and statistics.arena - self._heap_size > self._size // 2:
            process.release_free_pages()
        if self._measures is not None:
            self._heap_size = statistics.arena
        self._in_use = statistics.uordblks

    def step_began(self, measures: dict) -> None:
        """Takes the measures of the step that was begun."""
        self._measures = measures

    def _wait_for_memory(self) -> None:
        if self._in_use is None:
            return
        most_in_use = self._in_use + self._size // 2  # half, because batches and checkpoints are made meanwhile
        for _ in range(MOST_POLLS):
            statistics = process.heap_statistics()
            if statistics is None or statistics.uordblks < most_in_use:
                break
            time.sleep(POLL_SECONDS)
