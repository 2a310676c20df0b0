"""Checkpoints: a restored state is the saved one, bit for bit, or an error, whatever happens on the way."""

import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import PlantedError, flip_bit, list_damages, plant_file_fault, run_script
from sealing import seal_of

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import manifests
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import Journal
from cnn_vit.runs.manifests import DamageError
from cnn_vit.trees import digest


def odd_state(step):
    """Every kind of leaf and branch that a run has, and some that it should not; other numbers for another step."""
    draw = np.random.default_rng(step).standard_normal
    return {
        "step": jnp.int32(step),
        "params": {
            "stages": {index: {"kernel": jnp.asarray(draw((2, 3)), jnp.float32)} for index in (0, 2, 10)},
            "head": {"bias": jnp.asarray(draw(4), jnp.bfloat16)},
        },
        "stats": {},
        "opt": {"mu": {"empty": {}}, "none": jnp.zeros((0, 3))},
        "ema": {"odd": jnp.array([np.nan, -np.nan, -0.0, np.inf, 1e-45], jnp.float32)},
    }


def tiny_state(step):
    """A state of one array with five numbers, which depend on the step."""
    return {"x": jnp.asarray(np.random.default_rng(step).standard_normal(5), jnp.float32)}


def template_of(state):
    """The shapes, types and shardings of a state."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def open_checkpoints(folder, **options):
    """Opens the checkpoints of a run folder, which keep the newest two."""
    return Checkpoints(folder / "checkpoints", keep_checkpoints=2, crash=folder / "crash", **options)


def save_steps(folder, steps, *, make_state=tiny_state):
    """Saves a checkpoint of each step in a run folder, and returns the folder."""
    checkpoints = open_checkpoints(folder)
    for step in steps:
        checkpoints.save(step, make_state(step))
    checkpoints.close()
    return folder


def manifest_path(folder, step):
    return folder / "checkpoints" / str(step) / "MANIFEST.json"


def list_checkpoints(folder):
    """The names in the folder of checkpoints."""
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def copy_first_step(folder, step):
    """Makes a checkpoint of another step out of that of step 1."""
    first, target = folder / "checkpoints" / "1", folder / "checkpoints" / str(step)
    shutil.copytree(first, target)
    manifests.write(target, manifests.read(first) | {"step": step})


def damage_step(folder, step, name="_METADATA"):
    """Flips a bit in a file of a checkpoint, and returns the file's path."""
    path = folder / "checkpoints" / str(step) / name
    path.write_bytes(flip_bit(path.read_bytes(), 9))
    return path


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A run folder with the checkpoints 1 and 2. To be copied, not changed."""
    return save_steps(tmp_path_factory.mktemp("two"), [1, 2])


@pytest.fixture
def run_folder(two_steps, tmp_path):
    """A run folder with the checkpoints 1 and 2, to be changed."""
    return shutil.copytree(two_steps, tmp_path / "run")


# Saving and restoring -------------------------------------------------------------------------------------------------


def test_a_state_comes_back_bit_for_bit_with_its_keys_types_and_empty_branches(tmp_path):
    save_steps(tmp_path, [7], make_state=odd_state)
    step, state = open_checkpoints(tmp_path).restore_newest(template_of(odd_state(7)))
    assert step == 7
    assert jax.tree.structure(state) == jax.tree.structure(odd_state(7))
    assert list(state["params"]["stages"]) == [0, 2, 10]
    assert digest(state) == digest(odd_state(7)) != digest(odd_state(8))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert open_checkpoints(tmp_path).restore_newest(template_of(tiny_state(1))) is None
    assert open_checkpoints(tmp_path).steps() == []
    assert not (tmp_path / "crash").exists()


def test_the_state_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    checkpoints = open_checkpoints(tmp_path)
    first = {str(index): jnp.full((512, 512), index, jnp.float32) for index in range(8)}
    expected = digest(first)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf - 1, tree), donate_argnums=0)
    template, state = template_of(first), first
    checkpoints.save(1, state)
    for _ in range(3):
        state = overwrite(state)
    assert first["0"].is_deleted()
    checkpoints.save(2, state)
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    checkpoints.wait()
    assert digest(checkpoints.restore(1, template)) == expected
    np.testing.assert_array_equal(checkpoints.restore(2, template)["5"], np.full((512, 512), 2))


def test_a_restored_state_may_be_donated(run_folder):
    checkpoints = open_checkpoints(run_folder)
    _, state = checkpoints.restore_newest(template_of(tiny_state(2)))
    jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)(state)
    assert digest(checkpoints.restore(2, template_of(tiny_state(2)))) == digest(tiny_state(2))


def test_a_save_goes_on_in_the_background_and_counts_only_after_before_commit(tmp_path):
    checkpoints, may_commit, observations = open_checkpoints(tmp_path), threading.Event(), []

    def observe():
        assert may_commit.wait(60)
        observations.append((list_checkpoints(tmp_path), checkpoints.steps()))

    checkpoints.save(1, tiny_state(1), before_commit=observe)
    assert checkpoints.steps() == []
    may_commit.set()
    checkpoints.wait()
    assert observations == [(["1"], [])]
    assert checkpoints.steps() == [1]


def test_only_one_save_is_in_flight_at_a_time(tmp_path):
    checkpoints, may_commit, committed = open_checkpoints(tmp_path), threading.Event(), []

    def commit_first():
        may_commit.wait(60)
        committed.append(1)

    checkpoints.save(1, tiny_state(1), before_commit=commit_first)
    threading.Timer(0.1, may_commit.set).start()
    checkpoints.save(2, tiny_state(2), before_commit=lambda: committed.append(2))
    assert committed[:1] == [1]
    assert checkpoints.steps()[:1] == [1]
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_wait_raises_what_before_commit_raised_and_the_step_does_not_count(run_folder):
    checkpoints = open_checkpoints(run_folder)

    def fail():
        raise SurroundingsError("No space left")

    checkpoints.save(3, tiny_state(3), before_commit=fail)
    with pytest.raises(SurroundingsError, match="No space left"):
        checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    assert list_checkpoints(run_folder) == ["1", "2"]
    checkpoints.wait()
    checkpoints.save(3, tiny_state(3))
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3]


def test_the_next_save_raises_the_error_of_a_failed_one_too(run_folder):
    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(3, tiny_state(3), before_commit=lambda: files.read_json(Path("missing")))
    with pytest.raises(SurroundingsError, match="missing"):
        checkpoints.save(4, tiny_state(4))
    assert checkpoints.steps() == [1, 2]


def test_raise_failure_raises_as_soon_as_a_save_has_failed(run_folder):
    checkpoints, may_fail = open_checkpoints(run_folder), threading.Event()

    def fail():
        may_fail.wait(60)
        raise SurroundingsError("No space left")

    checkpoints.save(3, tiny_state(3), before_commit=fail)
    checkpoints.raise_failure()
    may_fail.set()
    checkpoints._pending[0].exception(60)
    with pytest.raises(SurroundingsError, match="No space left"):
        checkpoints.raise_failure()
    checkpoints.raise_failure()


def test_a_step_that_is_there_and_whole_is_not_written_again(run_folder):
    flushed = []
    inode_before = manifest_path(run_folder, 2).stat().st_ino
    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(2, tiny_state(2), before_commit=lambda: flushed.append(2))
    checkpoints.close()
    assert manifest_path(run_folder, 2).stat().st_ino == inode_before
    assert flushed == [2]


def test_a_whole_step_that_has_sealed_other_files_is_written_again(run_folder):
    """As after a run that went back and whose next lines, on another machine, are others."""
    (run_folder / "notes").write_text("new")
    sealed = {"notes": seal_of(b"new")}
    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(2, tiny_state(3), sealed=sealed)
    checkpoints.close()
    assert manifests.read(run_folder / "checkpoints" / "2")["sealed"] == sealed
    restored = open_checkpoints(run_folder).restore(2, template_of(tiny_state(3)))
    assert digest(restored) == digest(tiny_state(3))


def test_a_checkpoint_whose_run_has_another_file_than_it_sealed_is_damaged(run_folder):
    notes, sentences = run_folder / "notes", []
    notes.write_text("old")
    checkpoints = open_checkpoints(run_folder, say=sentences.append)
    checkpoints.save(3, tiny_state(3), sealed={"notes": seal_of(b"old")})
    checkpoints.wait()
    assert checkpoints.restore_newest(template_of(tiny_state(3)))[0] == 3
    notes.write_text("odd")
    assert checkpoints.restore_newest(template_of(tiny_state(3)))[0] == 2
    sentence = f"checkpoint 3 is damaged: {notes} has changed since the checkpoint was saved; going back to step 2"
    assert sentences == [sentence]


@pytest.mark.parametrize(("step", "left"), [(2, ["1", "2"]), (1, ["1"]), (0, [])])
def test_the_checkpoints_after_a_step_are_deleted(run_folder, step, left):
    checkpoints = open_checkpoints(run_folder)
    checkpoints.delete_after(step)
    assert list_checkpoints(run_folder) == left
    checkpoints.close()


# Retention ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best_step", "retained"), [(None, [4, 5]), (1, [1, 4, 5]), (4, [4, 5]), (5, [4, 5]), (99, [4, 5])]
)
def test_the_newest_two_and_the_best_are_kept(run_folder, best_step, retained):
    for step in (3, 4, 5):
        copy_first_step(run_folder, step)
    checkpoints = open_checkpoints(run_folder)
    checkpoints.retain(best_step)
    checkpoints.wait()
    assert checkpoints.steps() == retained
    assert list_checkpoints(run_folder) == [str(step) for step in retained]


def test_the_newest_is_that_of_the_highest_step_whatever_a_clock_said_when_it_was_saved(run_folder):
    """As after a clock that stepped back, or a copy that kept no times; step 10 is above 9, though not as text."""
    for step in (9, 10):
        copy_first_step(run_folder, step)
    # the years 2100, 2033, 2001 and 1979
    for step, seconds in {1: 4_102_444_800, 2: 2_000_000_000, 9: 1_000_000_000, 10: 300_000_000}.items():
        path = run_folder / "checkpoints" / str(step)
        for entry in (*path.rglob("*"), path):
            os.utime(entry, (seconds, seconds))
    checkpoints = open_checkpoints(run_folder)
    assert checkpoints.steps() == [1, 2, 9, 10]
    assert checkpoints.restore_newest(template_of(tiny_state(1)))[0] == 10
    checkpoints.retain(None)
    checkpoints.close()
    assert list_checkpoints(run_folder) == ["10", "9"]


def test_retain_counts_the_save_under_way(run_folder):
    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(3, tiny_state(3))
    checkpoints.retain(1)
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3]


def test_a_step_is_renamed_before_it_is_deleted(run_folder, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(3, tiny_state(3))
    checkpoints.wait()
    monkeypatch.setattr(shutil, "rmtree", fail)
    checkpoints.retain(None)
    with pytest.raises(SurroundingsError, match="Input/output error"):
        checkpoints.wait()
    assert list_checkpoints(run_folder) == [".deleted-1", "2", "3"]
    monkeypatch.undo()
    open_checkpoints(run_folder)
    assert list_checkpoints(run_folder) == ["2", "3"]


def test_the_start_sweeps_what_a_kill_left_and_nothing_else(run_folder):
    folder, sentences = run_folder / "checkpoints", []
    for name in (".deleted-7", "3.orbax-checkpoint-tmp", "4", "4.orbax-checkpoint-tmp-17", "notes", "frozen", "007"):
        files.write(folder / name / "array", "x")
    files.write(folder / ".x.12.tmp", "")
    names_before = list_checkpoints(run_folder)
    assert open_checkpoints(run_folder, clean_up=False, say=sentences.append).steps() == [1, 2]
    assert (list_checkpoints(run_folder), sentences) == (names_before, [])
    assert open_checkpoints(run_folder, say=sentences.append).steps() == [1, 2]
    assert list_checkpoints(run_folder) == ["007", "1", "2", "frozen", "notes"]
    assert sentences == ["the save of checkpoint 4 was never finished (it has no MANIFEST.json); it is removed"]


# Other arrays than expected -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"x": jax.ShapeDtypeStruct((6,), np.float32)}, r"x is float32 \[5\] there and float32 \[6\] here"),
        ({"x": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}, r"x is float32 \[5\] there and bfloat16 \[5\] here"),
        ({"y": jax.ShapeDtypeStruct((5,), np.float32)}, r"x is float32 \[5\] there and nothing here"),
        ({"x": tiny_state(1)["x"], "y": {"z": tiny_state(1)["x"]}}, r"y/z is nothing there and float32 \[5\] here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_the_array(two_steps, template, message):
    with pytest.raises(UserError, match=message) as caught:
        open_checkpoints(two_steps, clean_up=False).restore_newest(template)
    assert caught.value.code == 2


def test_a_part_of_a_state_comes_back_alone(tmp_path):
    save_steps(tmp_path, [7], make_state=odd_state)
    checkpoints, params = open_checkpoints(tmp_path), odd_state(7)["params"]
    part = {"params": params, "opt": odd_state(7)["opt"]}
    assert digest(checkpoints.restore(7, template_of(part), partial=True)) == digest(part)
    assert digest(checkpoints.restore_newest(template_of(part), partial=True)[1]) == digest(part)
    with pytest.raises(UserError, match="ema/odd is float32"):
        checkpoints.restore(7, template_of(part))
    with_tail = {"params": params | {"tail": tiny_state(1)["x"]}}
    with pytest.raises(UserError, match=r"params/tail is nothing there and float32 \[5\] here"):
        checkpoints.restore(7, template_of(with_tail), partial=True)


# Damage ---------------------------------------------------------------------------------------------------------------


def test_every_damage_to_every_file_is_named_and_never_restored(run_folder):
    checkpoints, cases = open_checkpoints(run_folder), 0
    folder = run_folder / "checkpoints" / "2"
    for name in manifests.file_names(folder):
        content = (folder / name).read_bytes()
        for kind, damage in list_damages(folder / name):
            (folder / name).unlink()
            damaged_content = damage(content)
            if damaged_content is not None:
                (folder / name).write_bytes(damaged_content)
            with pytest.raises(DamageError, match="checkpoint 2 is damaged") as caught:
                checkpoints.restore(2, template_of(tiny_state(2)))
            assert str(folder / name) in str(caught.value), kind
            (folder / name).write_bytes(content)
            cases += 1
    assert cases >= 60
    assert digest(checkpoints.restore(2, template_of(tiny_state(2)))) == digest(tiny_state(2))


def test_no_bit_of_a_manifest_can_change_unnoticed(run_folder):
    path = manifest_path(run_folder, 2)
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 37):
        path.write_bytes(flip_bit(content, bit))
        with pytest.raises(DamageError, match=r"MANIFEST\.json is not as it was written"):
            manifests.read(path.parent)


def test_an_added_file_and_another_steps_folder_are_damage(run_folder):
    files.write(run_folder / "checkpoints" / "2" / "d" / "new", "")
    with pytest.raises(DamageError, match="2/d/new does not belong to it"):
        open_checkpoints(run_folder).restore(2, template_of(tiny_state(2)))
    shutil.copytree(run_folder / "checkpoints" / "1", run_folder / "checkpoints" / "3")
    with pytest.raises(DamageError, match=r"checkpoint 3 is damaged: .*MANIFEST"):
        open_checkpoints(run_folder).restore(3, template_of(tiny_state(2)))


def test_an_older_step_that_lost_its_manifest_is_damaged_and_kept(run_folder):
    manifest_path(run_folder, 1).unlink()
    sentences = []
    checkpoints = open_checkpoints(run_folder, say=sentences.append)
    assert checkpoints.restore_newest(template_of(tiny_state(2)))[0] == 2
    assert (checkpoints.steps(), list_checkpoints(run_folder), sentences) == ([2], ["1", "2"], [])


def test_with_every_manifest_gone_the_run_is_refused(run_folder):
    for step in (1, 2):
        manifest_path(run_folder, step).unlink()
    sentences = []
    with pytest.raises(
        SurroundingsError, match=r"no checkpoint in .* is whole: checkpoint 1 is damaged: .* is missing"
    ):
        open_checkpoints(run_folder, say=sentences.append).restore_newest(template_of(tiny_state(1)))
    assert sentences == ["the save of checkpoint 2 was never finished (it has no MANIFEST.json); it is removed"]


def test_a_part_of_a_damaged_checkpoint_is_refused_whichever_part_it_is(run_folder):
    path = damage_step(run_folder, 2)
    with pytest.raises(DamageError, match=str(path)):
        open_checkpoints(run_folder).restore(2, template_of(tiny_state(2)), partial=True)


@pytest.mark.parametrize("name", ["_METADATA", "MANIFEST.json"])
def test_a_damaged_newest_is_reported_and_the_older_one_restored(run_folder, name):
    sentences, path = [], damage_step(run_folder, 2, name)
    checkpoints = open_checkpoints(run_folder, say=sentences.append)
    step, state = checkpoints.restore_newest(template_of(tiny_state(1)))
    assert step == 1
    assert digest(state) == digest(tiny_state(1))
    assert len(sentences) == 1
    assert "checkpoint 2 is damaged" in sentences[0]
    assert str(path) in sentences[0]
    assert sentences[0].endswith("going back to step 1")
    assert checkpoints.steps() == [1]


def test_a_damaged_step_is_written_anew_when_the_run_comes_to_it(run_folder):
    damage_step(run_folder, 2)
    checkpoints = open_checkpoints(run_folder, say=lambda sentence: None)
    checkpoints.restore_newest(template_of(tiny_state(1)))
    checkpoints.save(2, tiny_state(2))
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]
    _, state = open_checkpoints(run_folder).restore_newest(template_of(tiny_state(2)))
    assert digest(state) == digest(tiny_state(2))


def test_a_damaged_step_never_pushes_a_whole_one_out(run_folder):
    checkpoints = open_checkpoints(run_folder)
    checkpoints.save(3, tiny_state(3))
    checkpoints.close()
    damage_step(run_folder, 3)
    checkpoints = open_checkpoints(run_folder, say=lambda sentence: None)
    checkpoints.restore_newest(template_of(tiny_state(1)))
    checkpoints.save(4, tiny_state(4))
    checkpoints.retain(None)
    checkpoints.close()
    assert checkpoints.steps() == [2, 4]
    assert list_checkpoints(run_folder) == ["2", "4"]


def test_with_all_damaged_the_run_is_refused_with_every_step_and_file(run_folder):
    paths = [damage_step(run_folder, step) for step in (1, 2)]
    with pytest.raises(SurroundingsError, match=r"no checkpoint in .* is whole") as caught:
        open_checkpoints(run_folder).restore_newest(template_of(tiny_state(1)))
    assert all(str(path) in str(caught.value) for path in paths)
    assert list_checkpoints(run_folder) == ["1", "2"]


# Failing disks --------------------------------------------------------------------------------------------------------


def save_third_step(folder):
    """Saves step 3 as the loop does: the journal's lines first, the manifest after them, older steps deleted last."""
    journal, checkpoints = Journal(folder, step=2), open_checkpoints(folder)
    journal.write_timing(3, seconds=1)
    checkpoints.save(3, tiny_state(3), before_commit=journal.flush)
    checkpoints.retain(None)
    checkpoints.close()


def test_a_step_counts_once_all_of_it_its_name_and_the_names_of_its_folders_are_on_the_disk(tmp_path, monkeypatch):
    """Looks at what is flushed, and whether the manifest has its name by then: a power cut takes all of a step or none.

    Of each flush it notes the path, and whether MANIFEST.json is there.
    """
    path, fsync, flushes = tmp_path / "run" / "checkpoints" / "3", os.fsync, []

    def note_and_fsync(handle):
        flushes.append((os.readlink(f"/proc/self/fd/{handle}"), (path / "MANIFEST.json").exists()))
        fsync(handle)

    checkpoints = open_checkpoints(tmp_path / "run")
    monkeypatch.setattr(os, "fsync", note_and_fsync)
    checkpoints.save(3, tiny_state(3), before_commit=lambda: flushes.append(("before_commit", False)))
    checkpoints.close()
    *contents, before_commit, manifest, step_folder, checkpoints_folder = flushes
    entries = {str(entry) for entry in path.rglob("*") if entry.name != "MANIFEST.json"}
    assert len(entries) > 5
    assert {*contents} == {(name, False) for name in (*entries, str(path.parents[1]))}
    assert before_commit == ("before_commit", False)
    assert manifest == (str(path / f".MANIFEST.json.{os.getpid()}.tmp"), False)
    assert (step_folder, checkpoints_folder) == ((str(path), True), (str(path.parent), True))


@pytest.mark.parametrize("dead", [False, True], ids=["one call fails", "all later calls fail"])
def test_a_save_may_fail_at_any_call_of_the_file_door(two_steps, tmp_path, monkeypatch, dead):
    with monkeypatch.context() as patch:
        counter = plant_file_fault(patch, -1, dead=False)
        save_third_step(shutil.copytree(two_steps, tmp_path / "whole"))
        calls = next(counter)
    assert calls > 30
    restored_steps = set()
    for failing_call in range(calls):
        folder = shutil.copytree(two_steps, tmp_path / str(failing_call))
        with monkeypatch.context() as patch:
            plant_file_fault(patch, failing_call, dead=dead)
            with pytest.raises(PlantedError):
                save_third_step(folder)
        checkpoints = open_checkpoints(folder, say=lambda sentence: None)
        step, state = checkpoints.restore_newest(template_of(tiny_state(1)))
        assert step in (2, 3)
        assert digest(state) == digest(tiny_state(step)), failing_call
        assert set(list_checkpoints(folder)) <= {"1", "2", "3"}
        save_third_step(folder)
        assert list_checkpoints(folder) == ["2", "3"]
        assert not (folder / "crash").exists()
        restored_steps.add(step)
        shutil.rmtree(folder)
    assert restored_steps == {2, 3}


FULL_DISK = """
import resource
from test_checkpoints import *

def limit_file_size(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

def big_state(step):
    numbers = np.random.default_rng(step).standard_normal(60_000)
    return tiny_state(step) | {"big": jnp.asarray(numbers, jnp.float32)}

checkpoints = open_checkpoints(folder)
assert not any(name.startswith("orbax") for name in sys.modules)
checkpoints.save(1, big_state(1))
checkpoints.wait()
for most in (0, 100, 300, 5_000, 100_000):
    limit_file_size(most)
    checkpoints.save(2, big_state(2))
    try:
        checkpoints.wait()
        print("saved", most)
    except SurroundingsError as error:
        assert "File too large" in str(error) and str(folder) in str(error), error
        assert "240,020 bytes" in str(error) and error.code == 3, error
    limit_file_size(resource.RLIM_INFINITY)
    step, state = checkpoints.restore_newest(template_of(big_state(1)))
    assert (step, digest(state)) == (1, digest(big_state(1)))
checkpoints.save(2, big_state(2))
checkpoints.close()
step, state = open_checkpoints(folder).restore_newest(template_of(big_state(1)))
assert (step, digest(state), list_checkpoints(folder)) == (2, digest(big_state(2)), ["1", "2"])
limit_file_size(100_000)
checkpoints = open_checkpoints(folder)
checkpoints.save(3, big_state(3))
try:
    checkpoints.close()
except SurroundingsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def test_a_full_disk_is_one_sentence_and_costs_no_older_checkpoint(tmp_path):
    process = run_script(FULL_DISK, tmp_path / "run")
    assert process.stderr == (
        f"File too large: {tmp_path}/run/checkpoints/3 needs 240,020 bytes, above the limit of 100,000 bytes; "
        "raise it (ulimit -f), then give the same command again\n"
    )
    assert (process.returncode, process.stdout) == (3, "")
    assert "Failed to write" in (tmp_path / "run" / "crash" / "orbax.log").read_text()


# Several devices ------------------------------------------------------------------------------------------------------

SHARDED = """
from test_checkpoints import *
from jax.sharding import NamedSharding, PartitionSpec as P

row = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
grid = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
arrays = {"split": np.arange(32, dtype=np.float32).reshape(8, 4), "whole": np.arange(3, dtype=np.float32)}
on_row = {"split": NamedSharding(row, P("a")), "whole": NamedSharding(row, P())}
on_grid = {"split": NamedSharding(grid, P("b", "a")), "whole": NamedSharding(grid, P())}
checkpoints = open_checkpoints(folder)
checkpoints.save(1, jax.device_put(arrays, on_row))
checkpoints.wait()
for shardings in (on_row, on_grid):
    template = {
        name: jax.ShapeDtypeStruct(array.shape, np.float32, sharding=shardings[name]) for name, array in arrays.items()
    }
    state = checkpoints.restore(1, template)
    for name in arrays:
        assert state[name].sharding == shardings[name]
        np.testing.assert_array_equal(state[name], arrays[name])
checkpoints.close()
"""


def test_arrays_spread_over_devices_come_back_to_the_same_or_other_devices(tmp_path):
    process = run_script(SHARDED, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert (process.returncode, process.stderr) == (0, "")


# The manifest ---------------------------------------------------------------------------------------------------------


def test_a_manifest_lists_every_file_with_its_sha256_and_every_array(two_steps):
    path = two_steps / "checkpoints" / "2"
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["step"] == 2
    assert manifest["arrays"] == {"x": ["float32", [5]]}
    expected_files = {}
    for file in path.rglob("*"):
        if file.is_file() and file.name != "MANIFEST.json":
            name = str(file.relative_to(path))
            expected_files[name] = {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
    assert manifest["files"] == expected_files
    assert len(manifest["files"]) > 5
