"""Checkpoints of a run: Orbax writes them in the background, we add a manifest of hashes, and a checkpoint is restored
only if every file still matches it.

`Checkpoints.save` copies the state to the host and returns, so that the next training step may overwrite the state.
A thread of this module then

    1. has Orbax write the folder STEP (under a temporary name, renamed when it is whole),
    2. brings every file of it to the disk and hashes it,
    3. calls `before_commit`, which brings the journal to the disk,
    4. writes STEP/MANIFEST.json, by a temporary name and a rename; it also holds the seals of the run's other files.

A step counts ("is committed") once its manifest is there. The folder is listed anew each time that its steps are asked
for. The hashes of the manifest show a flipped bit in an array, which Orbax does not notice.

Why it is done so:

- This module makes the copy and has the thread, in which it calls Orbax's blocking `Checkpointer`. Orbax's asynchronous
  checkpointer keeps the training thread busy for longer, and reports a failed save from threads of its own.
- The leaves are saved in one flat dict by their paths as text (`params/stages/0/kernel`), which halves the time. Orbax
  turns integer keys into text, and refuses empty branches and empty arrays; the template brings these back.
- The files have Orbax's format OCDBT, which makes about eleven files in all, instead of two for each leaf.
- Nothing is compressed: zstd makes a save take five times as long and float32 only 8 % smaller.

Values that a run never changes, or not in its first stage, are saved once, as the checkpoint FROZEN: `save_frozen`,
`restore_frozen`. Its manifest is one of the files that the checkpoints of steps seal.

Single-process only: every leaf must be addressable by this process.
"""

import concurrent.futures
import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import manifests, seals
from cnn_vit.runs.manifests import FROZEN, MANIFEST, DamageError, step_folders
from cnn_vit.runs.orbax_errors import redirect_logs, translate_errors

DELETING_PREFIX = ".deleted-"  # the name of a step's folder begins with it while the step is being removed
ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"  # the name of a step's folder contains it while Orbax writes the step


class Checkpoints:
    """The checkpoints in one folder, `RUN/checkpoints`.

    Args:
        folder: The folder that holds a folder for each step. The first save makes it.
        keep_checkpoints: How many of the newest checkpoints `retain` keeps, beside the best one.
        crash: The folder for what Orbax prints when a save fails. It is made when something is to be written there.
        say: It is called with each message for the user; by default it prints to stderr.
        clean_up: Whether to remove what a killed save or removal has left behind. Only the process that holds the run's
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
        self._damaged: set[int] = set()  # the steps that `restore_newest` has found damaged
        self._step_being_written: int | str | None = None
        # After our clean-up, a newest step without manifest is either the one being written or has lost its manifest.
        self._has_cleaned_up = False
        redirect_logs().crash = Path(crash)
        if clean_up:
            self._clean_up(self._say)
            self._has_cleaned_up = True
        if self._steps_once_committed():
            self._thread.submit(import_orbax)  # takes a second or two, while the caller does other work

    def save(
        self,
        step: int,
        state: dict,
        *,
        sealed: Mapping[str, seals.Seal] | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        """Waits for the previous save, copies the state to the host, and has it written in the background.

        Args:
            step: The name of the checkpoint. A whole checkpoint of that name and with these seals is left as it is.
            state: Nested dicts of arrays, which may be changed or donated once this returns.
            sealed: The seals of the run's other files by their names, as they are at this step (`runs/seals.py`).
            before_commit: It is called in the background before the checkpoint counts, so that what it writes is on
                the disk by then. It is called also where a whole checkpoint of that name exists.

        Raises:
            SurroundingsError: A background task that was queued before has failed.
        """
        self.wait()
        run_seals = dict(sealed or {})
        self._pending.append(self._thread.submit(self._commit, step, host_copy(state), run_seals, before_commit))

    def save_frozen(self, values: dict) -> None:
        """Saves the values that the run never changes, and returns once they are on the disk.

        What an earlier start has saved is written anew: it may have been another run.

        Raises:
            SurroundingsError: they cannot be written.
        """
        self.wait()
        path = self.folder / FROZEN
        if path.exists():
            self._pending.append(self._thread.submit(self._delete, path))
        self._pending.append(self._thread.submit(self._commit, FROZEN, host_copy(values), {}, None))
        self.wait()

    def restore_frozen(self, template: dict) -> dict:
        """Restores what `save_frozen` saved, or a part of it, as `restore` does.

        Raises:
            SurroundingsError: it is missing or damaged; no checkpoint of the run is worth anything without it.
        """
        try:
            return self.restore(FROZEN, template, partial=True)
        except DamageError as error:
            raise SurroundingsError(f"{error}; {seals.RECOVER}") from error

    def wait(self) -> None:
        """Returns once all saves and removals are done.

        Raises:
            SurroundingsError: One of them has failed. Of several failures the first is raised, and each at most once.
        """
        concurrent.futures.wait(self._pending)
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def raise_failure(self) -> None:
        """Raises the error of a background task that has failed, after waiting for those queued with it; else returns
        at once.
        """
        if any(future.done() and future.exception() for future in self._pending):
            self.wait()

    def steps(self) -> list[int]:
        """Returns the committed steps, ascending, without those that are known to be damaged."""
        return [
            step for step in self._steps_once_committed() if step not in self._damaged and self._is_well_formed(step)
        ]

    def restore(self, step: int | str, template: dict, *, partial: bool = False) -> dict:
        """Verifies every file of a checkpoint and those of its run, and returns its state, bit for bit as it was saved.

        The thread that saves also reads, so this waits for the saves and removals that were queued before it.

        Args:
            step: A committed step, or FROZEN.
            template: The state as `jax.ShapeDtypeStruct`s. Each array is put where its leaf's `sharding` says.
            partial: Whether the template is only a part of the state; only that part is then read.

        Raises:
            DamageError: A file of the checkpoint is missing, changed or new, or a file of the run is missing or
                changed that the checkpoint has sealed.
            UserError: The checkpoint holds other arrays than the template.
            SurroundingsError: A file cannot be read.
        """
        folder = self.folder / str(step)
        manifest = manifests.verify(folder)
        seals.refuse_other_run_files(self.folder.parent, step, manifest["sealed"])
        saved_specs = manifest["arrays"]
        template_specs = array_specs(template)
        if partial:
            saved_specs = {name: saved_specs[name] for name in template_specs if name in saved_specs}
        refuse_other_arrays(folder, saved_specs, template_specs)
        arrays = self._thread.submit(self._read, folder, saved_specs).result()

        def place_leaf(key_path, leaf):
            # A copy, because on a CPU jax could use NumPy's buffer itself, which the first donating step would then
            # overwrite.
            return jax.device_put(arrays[path_text(key_path)], leaf.sharding, may_alias=False)

        return tree_map_with_path(place_leaf, template)

    def restore_newest(
        self, template: dict | Callable[[int], dict], *, partial: bool = False
    ) -> tuple[int, dict] | None:
        """Restores the newest checkpoint that is whole, or a part of it; see `restore` for the arguments.

        The user is told of each damaged checkpoint that is passed over.

        Args:
            template: of the state; where states of different steps have different arrays, a function of the step.
            partial: as `restore` takes it.

        Returns:
            The step and the state; None where the folder holds no checkpoint that was ever committed.

        Raises:
            UserError: The newest whole checkpoint holds other arrays than the template.
            SurroundingsError: All checkpoints are damaged, or a file cannot be read.
        """
        damages = []
        for step in reversed(self._steps_once_committed()):
            try:
                of_step = template(step) if callable(template) else template
                state = self.restore(step, of_step, partial=partial)
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

    def read_seals(self, step: int) -> dict[str, seals.Seal]:
        """Returns the seals that a committed step holds of the run's other files.

        Raises:
            DamageError: its manifest is missing or damaged.
        """
        return manifests.read(self.folder / str(step))["sealed"]

    def delete_after(self, step: int) -> None:
        """Deletes the checkpoints of all later steps.

        A run that goes back to a step cuts its journal there, which breaks the seals of these checkpoints.
        """
        for later_step in self._steps_once_committed():
            if later_step > step:
                self._pending.append(self._thread.submit(self._delete, self.folder / str(later_step)))
        self.wait()

    def retain(self, best_step: int | None) -> None:
        """Deletes all but the newest whole checkpoints and the best one; checkpoints known to be damaged go too.

        The removal happens in the background, after the saves that were queued before it.
        """
        self._pending.append(self._thread.submit(self._delete_others, best_step))

    def keep_only(self, steps: Collection[int]) -> None:
        """Deletes the checkpoints of all other steps, of a run that is finished."""
        for step in self._steps_once_committed():
            if step not in steps:
                self._pending.append(self._thread.submit(self._delete, self.folder / str(step)))
        self.wait()

    def close(self) -> None:
        """Waits as `wait` does, and then ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _steps_once_committed(self) -> list[int]:
        """Returns the steps that were committed once, ascending, whether they are whole or damaged by now.

        Saves follow one another, so only the newest step can be unfinished. An older one without manifest has lost it.
        """
        steps = list(step_folders(self.folder))
        if not steps or (self.folder / str(steps[-1]) / MANIFEST).exists():
            return steps
        newest_lost_its_manifest = self._has_cleaned_up and steps[-1] != self._step_being_written
        return steps if newest_lost_its_manifest else steps[:-1]

    def _is_well_formed(self, step: int) -> bool:
        """Whether the manifest of a step is as it was written; the other files are not read."""
        with contextlib.suppress(DamageError):
            return bool(manifests.read(self.folder / str(step)))
        return False

    def _commit(
        self,
        step: int | str,
        state: dict[str, np.ndarray],
        sealed: dict[str, seals.Seal],
        before_commit: Callable[[], None] | None,
    ) -> None:
        """Writes and seals a checkpoint, in the thread; where that fails, removes what was written."""
        path = self.folder / str(step)
        if is_whole(path, sealed):
            # No checkpoint is written, but the caller counts on the journal being on the disk once the save is done.
            if before_commit:
                before_commit()
            return
        self._step_being_written = step
        try:
            self._write(path, state)
            manifest = {
                "arrays": array_specs(state),
                "files": manifests.list_files(path),
                "sealed": sealed,
                "step": step,
            }
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
        if isinstance(step, int):
            self._damaged.discard(step)

    def _write(self, path: Path, state: dict[str, np.ndarray]) -> None:
        """Has Orbax write the folder of a checkpoint."""
        needed = sum(array.nbytes for array in state.values())
        files.ensure_writable(self.folder, needed=needed)
        # fsync of RUN makes its entries of checkpoints/ and of the journal durable: the journal's own fsync brings its
        # content to the disk, not its name.
        files.fsync(self.folder.parent)
        if path.exists():  # a whole one would not be written again, so it is damaged
            self._delete(path)
        not_empty = {name: array for name, array in state.items() if array.size}
        with translate_errors(path, needed=needed):
            self._checkpointer.save(path, args=import_orbax().args.PyTreeSave(not_empty))

    def _read(self, path: Path, specs: dict[str, list]) -> dict[str, np.ndarray]:
        """Has Orbax read the arrays that have these specs, {name: [dtype, shape]}."""
        zeros = {name: np.zeros(shape, dtype) for name, (dtype, shape) in specs.items()}
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
        for step in self._steps_once_committed():
            if step not in retained:
                self._delete(self.folder / str(step))

    def _delete(self, path: Path) -> None:
        """Removes a step: first its name, then its files, so that a kill between leaves it whole or not at all."""
        renamed = path.with_name(DELETING_PREFIX + path.name)
        files.remove(renamed)
        files.move(path, renamed)
        files.remove(renamed)

    def _clean_up(self, say: Callable[[str], None]) -> None:
        """Removes what killed saves and removals have left behind, and says so of each unfinished save."""
        for step in step_folders(self.folder).keys() - set(self._steps_once_committed()):
            say(f"the save of checkpoint {step} was never finished (it has no {MANIFEST}); it is removed")
            files.remove(self.folder / str(step))
        for path in sorted(self.folder.glob(f"{DELETING_PREFIX}*")) + sorted(self.folder.glob(f"*{ORBAX_TEMPORARY}*")):
            files.remove(path)
        files.remove_temporary(self.folder)


def host_copy(state: dict) -> dict[str, np.ndarray]:
    """Copies the leaves of a state to the host; returns them by their paths as text."""
    leaves = tree_leaves_with_path(state)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()  # all copies start before the first one is waited for
    return {path_text(key_path): copy_to_host(leaf) for key_path, leaf in leaves}


def path_text(key_path: tuple) -> str:
    """Returns the path of a leaf as text, such as `params/stages/0/kernel`."""
    return keystr(key_path, simple=True, separator="/")


def copy_to_host(leaf: Any) -> np.ndarray:
    """Copies an array to host memory that nothing else uses.

    On a CPU, `np.asarray` gives a view of the very buffer that the next step overwrites, so its content is copied.
    """
    host = np.asarray(leaf)
    if isinstance(leaf, jax.Array) and all(device.platform != "cpu" for device in leaf.devices()):
        return host
    return host.copy()


def array_specs(tree: dict) -> dict[str, list]:
    """Returns dtype and shape of each leaf by its path as text: {"params/kernel": ["float32", [3, 3]]}."""
    leaves = tree_leaves_with_path(tree)
    return {path_text(key_path): [str(leaf.dtype), list(leaf.shape)] for key_path, leaf in leaves}


def refuse_other_arrays(path: Path, saved_specs: dict[str, list], template_specs: dict[str, list]) -> None:
    """Raises UserError where a checkpoint holds other arrays than the template.

    The error names one array that differs: the first by name, and a parameter before any other.
    """
    names = saved_specs.keys() | template_specs.keys()
    differing = [name for name in names if saved_specs.get(name) != template_specs.get(name)]
    if not differing:
        return
    first = min(differing, key=lambda name: (not name.startswith("params/"), name))
    raise UserError(
        f"{path} holds another network or optimizer: {first} is {spec_text(saved_specs.get(first))} there and "
        f"{spec_text(template_specs.get(first))} here ({len(differing)} of {len(names)} arrays differ); "
        "give the settings of its run, or another --workdir"
    )


def spec_text(spec: list | None) -> str:
    """Returns dtype and shape of an array as text, "float32 [3, 3]"; "nothing" where there is no such array."""
    return "nothing" if spec is None else "{} {}".format(*spec)


def is_whole(path: Path, sealed: dict[str, seals.Seal]) -> bool:
    """Whether a checkpoint is committed and undamaged, and has sealed the same files of its run."""
    with contextlib.suppress(DamageError):
        return path.exists() and manifests.verify(path)["sealed"] == sealed
    return False


@functools.cache
def import_orbax() -> ModuleType:
    """Imports and returns `orbax.checkpoint`, which takes a second or two; hence not at the top of the file."""
    import orbax.checkpoint

    return orbax.checkpoint
