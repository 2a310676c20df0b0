"""Checkpoints of a run: written by Orbax in the background, sealed by us, read only where each byte is as it was saved.

A save: `save` copies the state to the host and returns, so that the next step may overwrite it. Then our one thread has
Orbax write `STEP` (under a temporary name, renamed when whole), flushes and hashes every file, calls `before_commit`,
and writes `STEP/MANIFEST.json` by temporary name and rename. A step counts from its manifest on, and no cache is asked.
Orbax does not notice a flipped bit in an array; the manifest does.

Copy and thread are ours, and Orbax's blocking `Checkpointer` works in it: its asynchronous one keeps the training
thread busy for longer, and tells of a failed save from threads of its own. Leaves are saved in one flat dict by their
written paths (`params/stages/0/kernel`), which halves the time; integer keys, empty branches and empty arrays, which
Orbax turns into text or refuses, come back from the template. OCDBT makes about eleven files instead of two a leaf.
Nothing is compressed: zstd takes five times as long to save 8 % of the bytes of float32.

One process writes, and can read every leaf.
"""

import concurrent.futures
import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import manifests
from cnn_vit.runs.manifests import MANIFEST, DamageError, step_folders
from cnn_vit.runs.orbax_errors import redirect_logs, translate_errors

DELETED = ".deleted-"
UNFINISHED = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints in one folder, `RUN/checkpoints`.

    Args:
        folder: holds a folder per step; made by the first save.
        keep: how many of the newest `retain` keeps, beside the best.
        crash: folder for what Orbax prints when a save fails; made when there is something to keep.
        say: takes a sentence for the user; to stderr by default.
        sweep: clear away what a killed save or removal left; only for the holder of the run's lock.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        crash: Path,
        say: Callable[[str], None] | None = None,
        sweep: bool = True,
    ):
        self.folder = Path(folder).absolute()  # Orbax takes no other
        self.keep = keep
        self._say = say or functools.partial(print, file=sys.stderr)
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._asked: list[concurrent.futures.Future] = []
        self._damaged: set[int] = set()
        self._under_way: int | None = None
        self._swept = False
        redirect_logs().crash = Path(crash)
        if sweep:
            self._sweep(self._say)
            self._swept = True
        if self._sealed():
            self._worker.submit(orbax)  # takes a second or two; there is other work until `restore`

    def save(self, step: int, state: dict, *, before_commit: Callable[[], None] | None = None) -> None:
        """Copies the state to the host and has it written in the background, after waiting for the save before.

        Args:
            step: name of the checkpoint. One that is there and whole is left as it is.
            state: nested dicts of arrays. Free to be changed or donated when this returns.
            before_commit: called in the background before the checkpoint counts; what it writes is older than that.

        Raises:
            SurroundingsError: the save before failed.
        """
        self.wait()
        self._asked.append(self._worker.submit(self._commit, step, host_copy(state), before_commit))

    def wait(self) -> None:
        """Returns once all that was asked for is on the disk; raises the `SurroundingsError` of what failed, once."""
        concurrent.futures.wait(self._asked)
        asked, self._asked = self._asked, []
        for future in asked:
            future.result()

    def check(self) -> None:
        """Raises what `wait` would of that which has failed already; waits for nothing."""
        if any(future.done() and future.exception() for future in self._asked):
            self.wait()

    def steps(self) -> list[int]:
        """Committed steps, ascending: those with a well-formed manifest and no damage found since the start."""
        return [step for step in self._sealed() if step not in self._damaged and self._well_formed(step)]

    def restore(self, step: int, template: dict, *, part: bool = False) -> dict:
        """The state saved at a step, bit for bit, every file of it verified first.

        Args:
            step: a committed step.
            template: the state as `jax.ShapeDtypeStruct`s; each array goes where its leaf's `sharding` says.
            part: the template is only a part of the state; the rest is not read.

        Raises:
            DamageError: a file of the checkpoint is missing, changed or new.
            UserError: the checkpoint holds other arrays than the template.
        """
        path = self.folder / str(step)
        arrays = manifests.verify(path)["arrays"]
        if part:
            arrays = {name: arrays[name] for name in array_outline(template) if name in arrays}
        refuse_other_arrays(path, arrays, array_outline(template))
        found = self._worker.submit(self._read, path, arrays).result()
        return tree_map_with_path(
            # a copy: the state will be donated, and what the reader holds must not be overwritten
            lambda way, leaf: jax.device_put(found[path_text(way)], leaf.sharding, may_alias=False),
            template,
        )

    def restore_newest(self, template: dict, *, part: bool = False) -> tuple[int, dict] | None:
        """The newest step that is whole, and its state (or a part of it); None where nothing was ever committed.

        Each damaged one that is passed over is said in a sentence. `SurroundingsError` where all are damaged.
        """
        faults = []
        for step in reversed(self._sealed()):
            try:
                state = self.restore(step, template, part=part)
            except DamageError as error:
                self._damaged.add(step)
                faults.append(str(error))
                continue
            for fault in faults:
                self._say(f"{fault}; going back to step {step}")
            return step, state
        if faults:
            raise SurroundingsError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(faults)}; "
                "put one back from a copy, or start again in another --workdir"
            )
        return None

    def retain(self, best: int | None) -> None:
        """Deletes, in the background after the saves asked for, all but the newest `keep` steps and the best."""
        self._asked.append(self._worker.submit(self._retain, best))

    def close(self) -> None:
        """Waits as `wait` does, and ends the thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def _sealed(self) -> list[int]:
        """Steps that were committed, in whatever state they are now, ascending.

        Saves follow one another, so only the newest can be unfinished: an older one without manifest has lost it.
        """
        found = list(step_folders(self.folder))
        if not found or (self.folder / str(found[-1]) / MANIFEST).exists():
            return found
        return found if self._swept and found[-1] != self._under_way else found[:-1]

    def _well_formed(self, step: int) -> bool:
        with contextlib.suppress(DamageError):
            return bool(manifests.read(self.folder / str(step)))
        return False

    def _commit(self, step: int, state: dict[str, np.ndarray], before_commit: Callable[[], None] | None) -> None:
        path = self.folder / str(step)
        if is_whole(path):
            if before_commit:
                before_commit()
            return
        self._under_way = step
        try:
            self._write(path, state)
            manifest = {"arrays": array_outline(state), "files": manifests.list_files(path), "step": step}
            if before_commit:
                before_commit()
            manifests.write(path, manifest)
        except BaseException:
            with contextlib.suppress(SurroundingsError):  # gives its room back; else the next start does
                self._sweep(say=lambda _: None)
                if not (path / MANIFEST).exists():
                    files.remove(path)
            raise
        finally:
            self._under_way = None
        self._damaged.discard(step)

    def _write(self, path: Path, state: dict[str, np.ndarray]) -> None:
        needed = sum(array.nbytes for array in state.values())
        files.ensure_writable(self.folder, needed=needed)
        files.fsync(self.folder.parent)  # the names of this folder and of the journal, which the run has opened before
        if path.exists():
            self._delete(path)  # damaged
        full = {name: array for name, array in state.items() if array.size}
        with translate_errors(path, needed=needed):
            self._checkpointer.save(path, args=orbax().args.PyTreeSave(full))

    def _read(self, path: Path, arrays: dict[str, list]) -> dict[str, np.ndarray]:
        blank = {name: np.zeros(shape, dtype) for name, (dtype, shape) in arrays.items()}
        full = {name: array for name, array in blank.items() if array.size}
        as_numpy = dict.fromkeys(full, orbax().RestoreArgs(restore_type=np.ndarray))
        with translate_errors(path):
            wanted = orbax().args.PyTreeRestore(item=full, restore_args=as_numpy, partial_restore=True)
            found = self._checkpointer.restore(path, args=wanted)
        return blank | found

    @functools.cached_property
    def _checkpointer(self) -> Any:
        return orbax().Checkpointer(orbax().PyTreeCheckpointHandler(use_compression=False))

    def _retain(self, best: int | None) -> None:
        kept = {*self.steps()[-self.keep :], best}
        for step in self._sealed():
            if step not in kept:
                self._delete(self.folder / str(step))

    def _delete(self, path: Path) -> None:
        """Removes a step by way of another name, so that it is there whole or not at all."""
        deleted = path.with_name(DELETED + path.name)
        files.remove(deleted)
        files.move(path, deleted)
        files.remove(deleted)

    def _sweep(self, say: Callable[[str], None]) -> None:
        for step in step_folders(self.folder).keys() - set(self._sealed()):
            say(f"the save of checkpoint {step} was never finished (it has no {MANIFEST}); it is removed")
            files.remove(self.folder / str(step))
        for path in sorted(self.folder.glob(f"{DELETED}*")) + sorted(self.folder.glob(f"*{UNFINISHED}*")):
            files.remove(path)
        files.remove_temporary(self.folder)


def host_copy(state: dict) -> dict[str, np.ndarray]:
    """The leaves of a state by their written paths, in host memory of their own."""
    leaves = tree_leaves_with_path(state)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {path_text(path): copy_to_host(leaf) for path, leaf in leaves}


def path_text(path: tuple) -> str:
    """A leaf's path as text: `params/stages/0/kernel`."""
    return keystr(path, simple=True, separator="/")


def copy_to_host(leaf: Any) -> np.ndarray:
    """A copy of an array in host memory. On a CPU NumPy would look at the very buffer that the next step overwrites."""
    host = np.asarray(leaf)
    away = isinstance(leaf, jax.Array) and all(device.platform != "cpu" for device in leaf.devices())
    return host if away else host.copy()


def array_outline(tree: dict) -> dict[str, list]:
    """Type and shape of each leaf by its written path: {"params/kernel": ["float32", [3, 3]]}."""
    return {path_text(path): [str(leaf.dtype), list(leaf.shape)] for path, leaf in tree_leaves_with_path(tree)}


def refuse_other_arrays(path: Path, found: dict[str, list], wanted: dict[str, list]) -> None:
    """Refuses a checkpoint that holds other arrays than wanted, naming the first of them, a parameter's if there is."""
    differ = [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    count = len(found.keys() | wanted.keys())
    names = sorted(differ, key=lambda name: (not name.startswith("params/"), name))
    if names:
        there, here = ("{} {}".format(*side[names[0]]) if names[0] in side else "nothing" for side in (found, wanted))
        raise UserError(
            f"{path} holds another network or optimizer: {names[0]} is {there} there and {here} here "
            f"({len(names)} of {count} arrays differ); give the settings of its run, or another --workdir"
        )


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is committed and undamaged."""
    with contextlib.suppress(DamageError):
        return path.exists() and bool(manifests.verify(path))
    return False


@functools.cache
def orbax() -> ModuleType:
    """`orbax.checkpoint`, imported when first needed."""
    import orbax.checkpoint

    return orbax.checkpoint
