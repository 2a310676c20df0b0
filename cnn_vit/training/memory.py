"""What a training step needs of the memory: told before the first step, and refused where so much is not free.

The compiler plans a step's memory ahead: the values that it is called with, and one block for all its intermediate
results. What the host takes beside it (the data, batches that are made ahead) is not in these figures.
"""

from dataclasses import asdict, dataclass
from typing import Any

from cnn_vit.errors import SurroundingsError
from cnn_vit.settings import Settings


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
        SurroundingsError: they are more than what is free.
    """
    if free is not None and memory.intermediate > free:
        raise SurroundingsError(
            f"a step needs {memory.as_text()}, but beside the values only {bytes_text(free)} of memory are free; make "
            f"data.batch_size (now {settings['data.batch_size']}) smaller, or data.image_size{size_text(settings)}, "
            "or take a smaller model"
        )


def refuse_large_state(size: int, free: int | None, settings: Settings) -> None:
    """Refuses a state, of `size` bytes, before it is made.

    Raises:
        SurroundingsError: it is larger than what is free.
    """
    if free is not None and size > free:
        raise SurroundingsError(
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
