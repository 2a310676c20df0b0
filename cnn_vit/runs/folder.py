"""The run folder: the name of every file in it, and whether it holds a run already.

    config.json         final settings, each with its origin
    environment.json    versions, devices, cores, commit and command of every start
    classes.json        names of the classes, in the order of the scores
    data.json           fingerprint, counts and notes of the data
    preprocessing.json  how images become the network's input: mean, std, size, channels, fit, version ...
    pretrained.json     the weights that the run started from: their card, what was loaded, digests of what is frozen
    fork.json           the run, and its step, that this one started from
    metrics.jsonl       a line for each logged step and each evaluation; the seed decides every byte of it
    timing.jsonl        the time that the run had taken at each logged step
    checkpoints/frozen/ the values that are not trained, or not in the first stage, saved once
    checkpoints/STEP/   a saved state; its MANIFEST.json seals it, the files above it stands on, and itself
    predictions/        SPLIT.npz: the network's scores and prediction for each example
    samples.npz         images and filters for the report
    test_reads.jsonl    a line for each time that a test split was read
    result.json         written last, sealed likewise: the run is finished
    report.html, plots/ the page of the run and its plots
    tensorboard/        the metrics as TensorBoard's event files, where they were asked for
    crash/              what helps to find the cause of a failure
    lock                held by the process that works in the folder

A run can be read from its folder alone: no recipe, and no other Python file, is ever executed for it. Only this file of
the package spells these names, and it imports no jax.
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from cnn_vit import files
from cnn_vit.data.base.parts import ImageFolders
from cnn_vit.data.reading.run_folders import RUN_CONFIG, RUN_LOCK, RUN_TITLE, is_run_config
from cnn_vit.data.reading.unreadable import printable_name
from cnn_vit.errors import DivergedError, UserError
from cnn_vit.runs.manifests import FROZEN, MANIFEST, step_folders
from cnn_vit.settings import Settings, differences, from_json

CONFIG = RUN_CONFIG
ENVIRONMENT = "environment.json"
CLASSES = "classes.json"
DATA = "data.json"
PREPROCESSING = "preprocessing.json"
PRETRAINED = "pretrained.json"
FORK = "fork.json"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
CHECKPOINTS = "checkpoints"
FROZEN_MANIFEST = f"{CHECKPOINTS}/{FROZEN}/{MANIFEST}"
PREDICTIONS = "predictions"
SAMPLES = "samples.npz"
TEST_READS = "test_reads.jsonl"
RESULT = "result.json"
REPORT = "report.html"
PLOTS = "plots"
TENSORBOARD = "tensorboard"
CRASH = "crash"
DIVERGED = "diverged.json"  # in CRASH
LOCK = RUN_LOCK
LOCK_TITLE = RUN_TITLE  # by it the listing of a data set knows a run folder among the images

# What a start writes before its first step.
WRITTEN_AT_START = (
    CONFIG,
    ENVIRONMENT,
    CLASSES,
    DATA,
    PREPROCESSING,
    PRETRAINED,
    FORK,
    METRICS,
    TIMING,
    CHECKPOINTS,
)

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


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes a run folder, and keeps it for this process while it trains.

    A start that is refused before anything was trained takes away what it made: its files, the lock and the folders.

    Raises:
        SurroundingsError: the folder cannot be made or written, or another process trains in it.
    """
    made_folders = files.make_folders(workdir)
    try:
        files.ensure_writable(workdir)
        with files.os_errors(workdir):
            names_before = set(os.listdir(workdir))
        with files.Lock(workdir / LOCK, title=LOCK_TITLE) as lock:
            try:
                if lock.is_made_here:  # no run was started here, unless somebody took its lock away
                    refuse_foreign_files(workdir, names_before)
                yield
            except DivergedError:
                raise
            except UserError:
                if not has_begun(workdir):
                    remove_start(workdir, names_before)
                    lock.remove()
                raise
    except UserError:
        files.remove_empty_folders(made_folders)
        raise


def remove_start(workdir: Path, names_before: Collection[str]) -> None:
    """Removes what a start has written before its first step, but for the names that lay there before."""
    for name in WRITTEN_AT_START:
        if name not in names_before:
            files.remove(workdir / name)


def refuse_foreign_files(workdir: Path, names: Collection[str]) -> None:
    """Refuses a folder that no run was started in and that has files which a run would write over.

    Args:
        workdir: the folder.
        names: of what lies in it.

    Raises:
        UserError: so it is; the first such file is named.
    """
    foreign = [name for name in WRITTEN_AT_START if name in names]
    if foreign and not is_run_config(read_bytes(workdir / CONFIG)):
        raise UserError(
            f"{workdir / foreign[0]} is not of a run, and one would write over it; give a --workdir of the run's own, "
            "such as runs/NAME"
        )


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file; b"" where there is none."""
    with files.os_errors(path):
        return path.read_bytes() if path.is_file() else b""


def refuse_image_folder(workdir: Path, folders: ImageFolders) -> None:
    """Refuses to train in a folder that the images are read from; links are followed.

    A run beside the class folders is passed over when the images are listed, and one around the data does no harm.

    Raises:
        UserError: the run folder would be the root of the data, a split or a class, or lie inside a class.
    """
    path = os.path.realpath(workdir)
    remedy = "give a --workdir outside of the images, such as runs/NAME"
    for root in folders.roots:
        if path == os.path.realpath(root):
            raise UserError(f"{printable_name(str(workdir))} is where the images lie; {remedy}")
    for class_folder in folders.classes:
        if os.path.commonpath([path, os.path.realpath(class_folder)]) == os.path.realpath(class_folder):
            raise UserError(
                f"{printable_name(str(workdir))} lies among the images of {printable_name(class_folder)}; {remedy}"
            )


def claim(workdir: Path, settings: Settings) -> None:
    """Makes sure that the folder is free or holds the run of these settings.

    A folder in which no step was logged or saved is free: what an earlier start wrote there is removed.

    Raises:
        UserError: the folder holds another run; the settings that differ are named, key by key.
    """
    path = workdir / CONFIG
    if not has_begun(workdir):
        if path.exists() and not is_run_config(read_bytes(path)):
            refuse_foreign_files(workdir, {CONFIG})
        for name in (CONFIG, ENVIRONMENT, PRETRAINED, FORK):
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
