"""The run folder: the name of every file in it, and whether it holds a run already.

    config.json         final settings, each with its origin
    environment.json    versions, devices, cores, commit and command of every start
    classes.json        names of the classes, in the order of the scores
    data.json           fingerprint, counts and notes of the data
    preprocessing.json  how images become the network's input: mean, std, size, channels, fit
    fork.json           the run, and its step, that this one started from
    metrics.jsonl       a line for each logged step and each evaluation; the seed decides every byte of it
    timing.jsonl        the time that the run had taken at each logged step
    checkpoints/STEP/   a saved state, with MANIFEST.json as its seal
    predictions/        SPLIT.npz: the network's scores and prediction for each example
    samples.npz         images and filters for the report
    test_reads.jsonl    a line for each time that a test split was read
    result.json         written last: the run is finished
    report.html, plots/ the page of the run and its plots
    tensorboard/        the metrics as TensorBoard's event files, where they were asked for
    crash/              what helps to find the cause of a failure
    lock                held by the process that works in the folder

A run can be read from its folder alone: no recipe, and no other Python file, is ever executed for it. Only this file of
the package spells these names, and it imports no jax.
"""

from pathlib import Path

from cnn_vit import files
from cnn_vit.data.reading.listing import RUN_MARKER
from cnn_vit.errors import UserError
from cnn_vit.runs.manifests import step_folders
from cnn_vit.settings import Settings, differences, from_json

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
LOCK = RUN_MARKER  # by this file the listing of a data set recognizes a run folder among the images, and skips it

USE_ANOTHER_FOLDER = "give another --workdir, or start this run from that one's checkpoint with --fork_from"


def predictions_path(workdir: Path, split: str) -> Path:
    """The path of the file with the network's scores and prediction for each example of a split."""
    return workdir / PREDICTIONS / f"{split}.npz"


def has_begun(workdir: Path) -> bool:
    """Whether the folder holds anything that training has made: a line of metrics, a checkpoint or a result."""
    metrics = workdir / METRICS
    if step_folders(workdir / CHECKPOINTS) or (workdir / RESULT).exists():
        return True
    return metrics.exists() and metrics.stat().st_size > 0


def claim(workdir: Path, settings: Settings) -> None:
    """Makes sure that the folder is free or holds the run of these settings.

    A folder in which no step was logged or saved is free: what an earlier start wrote there is removed.

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
    differing = differences(settings, from_json(files.read_json(path), file=CONFIG))
    if differing:
        raise UserError(f"{workdir} holds a run of other settings: {'; '.join(differing)}; {USE_ANOTHER_FOLDER}")


def list_names(names: tuple[str, ...], most: int = 12) -> str:
    """Names in brackets, for a message: the first `most`, and the number of all where there are more."""
    total = f", ... {len(names)} in all" if len(names) > most else ""
    return "[" + ", ".join(names[:most]) + total + "]"
