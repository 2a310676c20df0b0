"""Checkpoints of a run: written by Orbax in the background, sealed by a manifest, and read only where no byte changed.

`Checkpoints.save` copies the state to the host and returns, so that the next training step may overwrite the state.
A thread of this module then

    1. has Orbax write the folder STEP (under a temporary name, renamed when it is whole),
    2. brings every file of it to the disk and hashes it,
    3. calls `before_commit`, which brings the journal to the disk,
    4. writes STEP/MANIFEST.json, by a temporary name and a rename.

A step counts ("is committed") once its manifest is there; what is committed is always read from the disk. The manifest
shows a flipped bit in an array, which Orbax does not notice.

Why it is done so. The copy and the thread are this module's, and Orbax's blocking `Checkpointer` works in the thread:
its asynchronous one keeps the training thread busy for longer, and reports a failed save from threads of its own.
Leaves are saved in one flat dict by their paths as text (`params/stages/0/kernel`), which halves the time. Orbax turns
integer keys into text, and refuses empty branches or empty arrays; these come back from the template. Orbax's format
OCDBT makes about eleven files, instead of two for each leaf. Nothing is compressed: zstd takes five times as long to
save 8 % of the bytes of float32.

One process writes the checkpoints, and it can read every leaf of the state.
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

DELETED = ".deleted-"  # the name of a step's folder begins with it while the step is being removed
UNFINISHED = ".orbax-checkpoint-tmp"  # the name of a step's folder contains it while Orbax writes the step


class Checkpoints:
    """The checkpoints in one folder, `RUN/checkpoints`.

    Args:
        folder: holds a folder for each step; made by the first save.
        keep_checkpoints: how many of the newest checkpoints `retain` keeps, beside the best one.
        crash: folder for what Orbax prints when a save fails; made when something is to be written there.
        say: takes a sentence for the user; by default prints it to stderr.
        clean_up: whether to remove what a killed save or removal has left behind. Only the process that holds the run's
            lock may do so.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_checkpoints: int,
        crash: Path,
        say: Callable[[str], None] | None = None,
        clean_up: bool = True,
    ):
        self.folder = Path(folder).absolute()  # Orbax refuses relative paths
        self.keep_checkpoints = keep_checkpoints
        self._say = say or functools.partial(print, file=sys.stderr)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[concurrent.futures.Future] = []
        self._damaged: set[int] = set()  # steps of which damage has been found
        self._step_being_written: int | None = None
        self._is_clean = False  # whether all that was unfinished at the start has been removed
        redirect_logs().crash = Path(crash)
        if clean_up:
            self._clean_up(self._say)
            self._is_clean = True
        if self._committed_steps():
            self._thread.submit(import_orbax)  # takes a second or two, while the caller does other work

    def save(self, step: int, state: dict, *, before_commit: Callable[[], None] | None = None) -> None:
        """Waits for the previous save, copies the state to the host, and has it written in the background.

        Args:
            step: name of the checkpoint. A whole checkpoint of that name is left as it is.
            state: nested dicts of arrays, which may be changed or donated once this returns.
            before_commit: called in the background before the checkpoint counts, so that what it writes is on the disk
                before.

        Raises:
            SurroundingsError: the previous save failed.
        """
        self.wait()
        self._pending.append(self._thread.submit(self._commit, step, host_copy(state), before_commit))

    def wait(self) -> None:
        """Returns once all saves and removals are done. The `SurroundingsError` of a failed one is raised once."""
        concurrent.futures.wait(self._pending)
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def raise_failed_save(self) -> None:
        """Raises the error of a save that has already failed; does not wait for one that is under way."""
        if any(future.done() and future.exception() for future in self._pending):
            self.wait()

    def steps(self) -> list[int]:
        """Returns the committed steps, ascending, without those that are known to be damaged."""
        return [step for step in self._committed_steps() if step not in self._damaged and self._is_well_formed(step)]

    def restore(self, step: int, template: dict, *, partial: bool = False) -> dict:
        """Verifies every file of a checkpoint and returns its state, bit for bit as it was saved.

        Args:
            step: a committed step.
            template: the state as `jax.ShapeDtypeStruct`s; each array is put where its leaf's `sharding` says.
            partial: whether the template is only a part of the state; only that part is then read.

        Raises:
            DamageError: a file of the checkpoint is missing, changed or new.
            UserError: the checkpoint holds other arrays than the template.
        """
        folder = self.folder / str(step)
        saved = manifests.verify(folder)["arrays"]
        wanted = array_outline(template)
        if partial:
            saved = {name: saved[name] for name in wanted if name in saved}
        refuse_other_arrays(folder, saved, wanted)
        arrays = self._thread.submit(self._read, folder, saved).result()

        def place_leaf(path, leaf):
            # a copy: the state will be donated, and the array that was read must not be overwritten
            return jax.device_put(arrays[path_text(path)], leaf.sharding, may_alias=False)

        return tree_map_with_path(place_leaf, template)

    def restore_newest(self, template: dict, *, partial: bool = False) -> tuple[int, dict] | None:
        """Restores the newest checkpoint that is whole, or a part of it; see `restore` for the arguments.

        The user is told of each damaged checkpoint that is passed over.

        Returns:
            The step and the state; None where no step was ever committed.

        Raises:
            SurroundingsError: all checkpoints are damaged.
        """
        damages = []
        for step in reversed(self._committed_steps()):
            try:
                state = self.restore(step, template, partial=partial)
            except DamageError as error:
                self._damaged.add(step)
                damages.append(str(error))
                continue
            for damage in damages:
                self._say(f"{damage}; going back to step {step}")
            return step, state
        if damages:
            raise SurroundingsError(
                f"no checkpoint in {self.folder} is whole: {'; '.join(damages)}; "
                "put one back from a copy, or start again in another --workdir"
            )
        return None

    def retain(self, best_step: int | None) -> None:
        """Deletes all but the newest checkpoints and the best one: in the background, after the saves before it."""
        self._pending.append(self._thread.submit(self._delete_others, best_step))

    def close(self) -> None:
        """Waits as `wait` does, and then ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _committed_steps(self) -> list[int]:
        """Returns the steps that were committed once, whole or damaged by now, ascending.

        Saves follow one another, so only the newest can be unfinished: an older one without manifest has lost it.
        """
        steps = list(step_folders(self.folder))
        if not steps or (self.folder / str(steps[-1]) / MANIFEST).exists():
            return steps
        # after a clean-up, an unfinished step can only be the one that is being written now
        newest_lost_its_manifest = self._is_clean and steps[-1] != self._step_being_written
        return steps if newest_lost_its_manifest else steps[:-1]

    def _is_well_formed(self, step: int) -> bool:
        """Whether the manifest of a step is as it was written; the other files are not looked at."""
        with contextlib.suppress(DamageError):
            return bool(manifests.read(self.folder / str(step)))
        return False

    def _commit(self, step: int, state: dict[str, np.ndarray], before_commit: Callable[[], None] | None) -> None:
        """Writes and seals a checkpoint, in the thread; where that fails, removes what was written."""
        path = self.folder / str(step)
        if is_whole(path):
            if before_commit:
                before_commit()
            return
        self._step_being_written = step
        try:
            self._write(path, state)
            manifest = {"arrays": array_outline(state), "files": manifests.list_files(path), "step": step}
            if before_commit:
                before_commit()
            manifests.write(path, manifest)
        except BaseException:
            with contextlib.suppress(SurroundingsError):  # frees the disk now; if that fails, the next start does it
                self._clean_up(say=lambda _: None)
                if not (path / MANIFEST).exists():
                    files.remove(path)
            raise
        finally:
            self._step_being_written = None
        self._damaged.discard(step)

    def _write(self, path: Path, state: dict[str, np.ndarray]) -> None:
        """Has Orbax write the folder of a checkpoint."""
        needed = sum(array.nbytes for array in state.values())
        files.ensure_writable(self.folder, needed=needed)
        files.fsync(self.folder.parent)  # brings the names of this folder and of the open journal to the disk
        if path.exists():  # a whole one would not be written again, so it is damaged
            self._delete(path)
        not_empty = {name: array for name, array in state.items() if array.size}
        with translate_errors(path, needed=needed):
            self._checkpointer.save(path, args=import_orbax().args.PyTreeSave(not_empty))

    def _read(self, path: Path, outline: dict[str, list]) -> dict[str, np.ndarray]:
        """Has Orbax read the arrays of an outline, {name: [dtype, shape]}."""
        zeros = {name: np.zeros(shape, dtype) for name, (dtype, shape) in outline.items()}
        not_empty = {name: array for name, array in zeros.items() if array.size}  # empty ones were not saved
        as_numpy = dict.fromkeys(not_empty, import_orbax().RestoreArgs(restore_type=np.ndarray))
        request = import_orbax().args.PyTreeRestore(item=not_empty, restore_args=as_numpy, partial_restore=True)
        with translate_errors(path):
            arrays = self._checkpointer.restore(path, args=request)
        return zeros | arrays

    @functools.cached_property
    def _checkpointer(self) -> Any:
        return import_orbax().Checkpointer(import_orbax().PyTreeCheckpointHandler(use_compression=False))

    def _delete_others(self, best_step: int | None) -> None:
        retained = {*self.steps()[-self.keep_checkpoints :], best_step}
        for step in self._committed_steps():
            if step not in retained:
                self._delete(self.folder / str(step))

    def _delete(self, path: Path) -> None:
        """Removes a step: first its name, then its files, so that a kill between leaves it whole or not at all."""
        renamed = path.with_name(DELETED + path.name)
        files.remove(renamed)
        files.move(path, renamed)
        files.remove(renamed)

    def _clean_up(self, say: Callable[[str], None]) -> None:
        """Removes what killed saves and removals have left behind, and says so of each unfinished save."""
        for step in step_folders(self.folder).keys() - set(self._committed_steps()):
            say(f"the save of checkpoint {step} was never finished (it has no {MANIFEST}); it is removed")
            files.remove(self.folder / str(step))
        for path in sorted(self.folder.glob(f"{DELETED}*")) + sorted(self.folder.glob(f"*{UNFINISHED}*")):
            files.remove(path)
        files.remove_temporary(self.folder)


def host_copy(state: dict) -> dict[str, np.ndarray]:
    """Copies the leaves of a state to the host; returns them by their paths as text."""
    leaves = tree_leaves_with_path(state)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()  # all copies start before the first one is waited for
    return {path_text(path): copy_to_host(leaf) for path, leaf in leaves}


def path_text(path: tuple) -> str:
    """The path of a leaf as text, such as `params/stages/0/kernel`."""
    return keystr(path, simple=True, separator="/")


def copy_to_host(leaf: Any) -> np.ndarray:
    """Copies an array to host memory that nothing else uses.

    On a CPU, `np.asarray` gives a view of the very buffer that the next step overwrites, so its content is copied.
    """
    host = np.asarray(leaf)
    if isinstance(leaf, jax.Array) and all(device.platform != "cpu" for device in leaf.devices()):
        return host
    return host.copy()


def array_outline(tree: dict) -> dict[str, list]:
    """Type and shape of each leaf by its path as text: {"params/kernel": ["float32", [3, 3]]}."""
    return {path_text(path): [str(leaf.dtype), list(leaf.shape)] for path, leaf in tree_leaves_with_path(tree)}


def refuse_other_arrays(path: Path, saved: dict[str, list], wanted: dict[str, list]) -> None:
    """Raises UserError where a checkpoint holds other arrays than wanted.

    The error names the first array that differs, and of those a parameter first.
    """
    names = saved.keys() | wanted.keys()
    differing = [name for name in names if saved.get(name) != wanted.get(name)]
    if not differing:
        return
    first = min(differing, key=lambda name: (not name.startswith("params/"), name))
    raise UserError(
        f"{path} holds another network or optimizer: {first} is {outline_text(saved.get(first))} there and "
        f"{outline_text(wanted.get(first))} here ({len(differing)} of {len(names)} arrays differ); "
        "give the settings of its run, or another --workdir"
    )


def outline_text(outline: list | None) -> str:
    """Type and shape of an array as text, "float32 [3, 3]"; "nothing" where there is no such array."""
    return "nothing" if outline is None else "{} {}".format(*outline)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is committed and undamaged."""
    with contextlib.suppress(DamageError):
        return path.exists() and bool(manifests.verify(path))
    return False


@functools.cache
def import_orbax() -> ModuleType:
    """`orbax.checkpoint`, imported when it is first needed."""
    import orbax.checkpoint

    return orbax.checkpoint
