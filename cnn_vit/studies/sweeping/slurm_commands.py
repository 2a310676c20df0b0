"""Commands of SLURM: runs them, and says what went wrong.

It imports little: the thread of `stops` may need it while the main thread is anywhere, such as in an import.
"""

import subprocess
from collections.abc import Sequence

from cnn_vit.errors import SurroundingsError, UserError

# Parts of the sentences by which SLURM says that it is in trouble itself; other sentences blame what it was given.
TROUBLES = (
    "Unable to contact",
    "timed out",
    "temporarily unable",
    "Connection refused",
    "configuration",
    "credential",
    "munge",
)
PATIENCE = 120  # seconds until SLURM has to answer
COMPLETING = "COMPLETING"  # the state of a task that is being ended, to be gone or to be queued again
TIME_LIMIT = "TimeLimit"  # the reason of a task that is being ended because its time is over


def ask_slurm(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of SLURM and returns what became of it.

    Raises:
        SurroundingsError: it is not installed, or does not answer.
    """
    try:
        return subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise SurroundingsError(
            f"{words[0]} does not answer in {PATIENCE} seconds; look with sinfo how SLURM is, then give the same "
            "command again"
        ) from error
    except OSError as error:
        raise SurroundingsError(
            f"{words[0]} cannot be run ({error.strerror}); give the command where SLURM is installed, such as on a "
            "login node of the cluster, or give --workers=N instead of --slurm"
        ) from error


def make_error(command: str, stderr: str) -> UserError:
    """Makes the error for what a command of SLURM printed when it failed."""
    sentences = []
    for line in stderr.splitlines():
        sentence = line.strip().removeprefix(f"{command}: ").removeprefix("error: ")
        if sentence:
            sentences.append(sentence)
    cause = "; ".join(sentences) or "it says nothing"
    if any(trouble in cause for trouble in TROUBLES):
        return SurroundingsError(
            f"{command} failed: {cause}; look with sinfo how SLURM is, then give the same command again"
        )
    return UserError(f"{command} refused: {cause}; mend the options in --slurm")


def requeue(task: str) -> str:
    """Has SLURM queue the task again in which this process runs.

    It may be called more than once. A task that SLURM is ending already is left alone: whoever cancelled it does not
    want it to start again, and one that has to make room for another SLURM itself queues again.

    Args:
        task: what SLURM calls it, "123_4".

    Returns:
        Why it is not queued again, a sentence; "" where it is.
    """
    try:
        answer = ask_slurm(["squeue", "--noheader", f"--jobs={task}", "--format=%T %r"])
        state, _, reason = answer.stdout.strip().partition(" ")
        if state == COMPLETING and reason != TIME_LIMIT:
            return f"SLURM is ending task {task} already, so that it is not queued again"
        answer = ask_slurm(["scontrol", "requeue", task])
    except SurroundingsError as error:
        return str(error)
    # A negative code: SLURM has ended the processes of the task, of which scontrol is one.
    if answer.returncode <= 0 or "pending" in answer.stderr:
        return ""
    return str(make_error("scontrol", answer.stderr))
