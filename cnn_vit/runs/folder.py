"""The run folder: the name of every file in it, and whether it holds a run already.

    config.json         final settings, each with its origin
    environment.json    versions, devices, cores, commit and command of every start
    classes.json        names of the classes, in the order of the scores
    data.json           fingerprint, counts and notes of the data
    preprocessing.json  how images become the network's input: mean, std, size, channels, fit
    fork.json           the run, and its step, that this one started from
    metrics.jsonl       a line for each logged step and each evaluation; the seed decides every byte of it
    timing.jsonl        what the clock said at each logged step
    checkpoints/STEP/   a saved state, with MANIFEST.json as its seal
    predictions/        SPLIT.npz: what the network said of each example
    samples.npz         images and filters that are kept for the report
    test_reads.jsonl    a line for each time that a test split was read
    result.json         written last: the run is finished
    report.html, plots/ the page of the run and its plots
    tensorboard/        the metrics as TensorBoard's event files, where they were asked for
    crash/              what helps after a failure
    lock                held by the process that works in the folder

Whoever reads a run needs nothing but its folder: no recipe, and no other Python file, is ever executed for it. No other
file of the package spells these names, and this one imports no jax.
"""

from pathlib import Path

from cnn_vit import files, settings
from cnn_vit.data.reading.listing import RUN_MARKER
from cnn_vit.errors import UserError
from cnn_vit.runs.manifests import step_folders

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
CLASSES = "classes.json"
DATA = "data.json"
PREPROCESSING = "preprocessing.json"
FORK = "fork.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
SAMPLES = "samples.npz"
TEST_READS = "test_reads.jsonl"
RESULT = "result.json"
REPORT = "report.html"
PLOTS = "plots"
TENSORBOARD = "tensorboard"
CRASH = "crash"
DIVERGED = "diverged.json"  # in CRASH
LOCK = RUN_MARKER  # the listing of a data set knows a run folder among the images by this file

USE_ANOTHER_FOLDER = "give another --workdir, or start this run from that one's checkpoint with --fork_from"


def predictions_path(workdir: Path, split: str) -> Path:
    """The file that keeps what the network said of each example of a split."""
    return workdir / PREDICTIONS / f"{split}.npz"


def has_begun(workdir: Path) -> bool:
    """Whether the folder holds anything that took a training step to make: a line, a checkpoint or a result."""
    metrics = workdir / METRICS
    if step_folders(workdir / CHECKPOINTS) or (workdir / RESULT).exists():
        return True
    return metrics.exists() and metrics.stat().st_size > 0


def claim(workdir: Path, ours: settings.Settings) -> None:
    """Makes sure that the folder is this run's or nobody's.

    A folder in which no step was logged or saved is nobody's: what an earlier start wrote there is removed.

    Raises:
        UserError: the folder holds another run; the settings that differ are named, key by key.
    """
    path = workdir / CONFIG
    if not has_begun(workdir):
        for name in (CONFIG, ENVIRONMENT, FORK):
            files.remove(workdir / name)
        return
    if not path.exists():
        raise UserError(f"{workdir} holds part of a run without its {CONFIG}; give another --workdir")
    differences = settings.differences(ours, settings.from_json(files.read_json(path), file=CONFIG))
    if differences:
        raise UserError(f"{workdir} holds a run of other settings: {'; '.join(differences)}; {USE_ANOTHER_FOLDER}")


def list_names(names: tuple[str, ...], most: int = 12) -> str:
    """Names in brackets for a message: the first dozen, and how many there are where there are more."""
    more = f", ... {len(names)} in all" if len(names) > most else ""
    return "[" + ", ".join(names[:most]) + more + "]"
