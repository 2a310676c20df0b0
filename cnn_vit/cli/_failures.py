"""The exit code of a command that has done many trials, by how the first that failed ended."""

from cnn_vit.errors import DivergedError, SurroundingsError, UserError

# The exit code with a trial in this state.
CODES = {"bad config": UserError.code, "out of memory": SurroundingsError.code, "diverged": DivergedError.code}
CRASHED = 1  # the exit code with a trial that a fault of this program, or a kill, has ended


def exit_code(state: str) -> int:
    """Returns the exit code of a command whose first failed trial is in this state."""
    return CODES.get(state, CRASHED)
