"""Checkpoints: what comes back is what was saved, bit for bit, or nothing does, whatever happens on the way."""

import json
import os
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults import PlantedError, damages, faulty, flipped, script

from cnn_vit import files
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.runs import manifests
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import Journal
from cnn_vit.runs.manifests import DamageError
from cnn_vit.trees import digest


def state(step):
    """Every kind of leaf and branch that a run has, and some it should not; other numbers for another step."""
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


def tiny(step):
    return {"x": jnp.asarray(np.random.default_rng(step).standard_normal(5), jnp.float32)}


def template(like):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), like)


def opened(folder, **changes):
    return Checkpoints(folder / "checkpoints", keep_checkpoints=2, crash=folder / "crash", **changes)


def saved(folder, steps, *, make=tiny):
    """A folder with checkpoints of the steps."""
    checkpoints = opened(folder)
    for step in steps:
        checkpoints.save(step, make(step))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints 1 and 2. To be copied, not changed."""
    return saved(tmp_path_factory.mktemp("two"), [1, 2])


@pytest.fixture
def copied(two, tmp_path):
    return shutil.copytree(two, tmp_path / "run")


def left(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_state_comes_back_bit_for_bit_with_its_keys_types_and_empty_branches(tmp_path):
    saved(tmp_path, [7], make=state)
    step, found = opened(tmp_path).restore_newest(template(state(7)))
    assert step == 7
    assert jax.tree.structure(found) == jax.tree.structure(state(7))
    assert list(found["params"]["stages"]) == [0, 2, 10]
    assert digest(found) == digest(state(7)) != digest(state(8))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found))


def test_a_folder_without_checkpoints_has_no_newest(tmp_path):
    assert opened(tmp_path).restore_newest(template(tiny(1))) is None
    assert opened(tmp_path).steps() == []
    assert not (tmp_path / "crash").exists()


def test_the_state_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    checkpoints = opened(tmp_path)
    first = {str(index): jnp.full((512, 512), index, jnp.float32) for index in range(8)}
    expected = digest(first)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf - 1, tree), donate_argnums=0)
    shape, now = template(first), first
    checkpoints.save(1, now)
    for _ in range(3):
        now = overwrite(now)
    assert first["0"].is_deleted()
    checkpoints.save(2, now)
    for leaf in jax.tree.leaves(now):
        leaf.delete()
    checkpoints.wait()
    assert digest(checkpoints.restore(1, shape)) == expected
    np.testing.assert_array_equal(checkpoints.restore(2, shape)["5"], np.full((512, 512), 2))


def test_a_restored_state_may_be_donated(copied):
    checkpoints = opened(copied)
    _, found = checkpoints.restore_newest(template(tiny(2)))
    jax.jit(lambda tree: jax.tree.map(jnp.zeros_like, tree), donate_argnums=0)(found)
    assert digest(checkpoints.restore(2, template(tiny(2)))) == digest(tiny(2))


def test_a_save_goes_on_in_the_background_and_counts_only_after_before_commit(tmp_path):
    checkpoints, go, seen = opened(tmp_path), threading.Event(), []

    def before():
        assert go.wait(60)
        seen.append((left(tmp_path), checkpoints.steps()))

    checkpoints.save(1, tiny(1), before_commit=before)
    assert checkpoints.steps() == []
    go.set()
    checkpoints.wait()
    assert seen == [(["1"], [])]
    assert checkpoints.steps() == [1]


def test_one_save_is_in_flight(tmp_path):
    checkpoints, go, order = opened(tmp_path), threading.Event(), []
    checkpoints.save(1, tiny(1), before_commit=lambda: (go.wait(60), order.append(1)))
    threading.Timer(0.1, go.set).start()
    checkpoints.save(2, tiny(2), before_commit=lambda: order.append(2))
    assert order[:1] == [1]
    assert checkpoints.steps()[:1] == [1]
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_what_before_commit_raises_comes_out_of_wait_and_the_step_does_not_count(copied):
    checkpoints = opened(copied)

    def full():
        raise SurroundingsError("No space left")

    checkpoints.save(3, tiny(3), before_commit=full)
    with pytest.raises(SurroundingsError, match="No space left"):
        checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    assert left(copied) == ["1", "2"]
    checkpoints.wait()
    checkpoints.save(3, tiny(3))
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3]


def test_a_failed_save_comes_out_of_the_next_one_too(copied):
    checkpoints = opened(copied)
    checkpoints.save(3, tiny(3), before_commit=lambda: files.read_json(Path("missing")))
    with pytest.raises(SurroundingsError, match="missing"):
        checkpoints.save(4, tiny(4))
    assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize(("best", "kept"), [(None, [4, 5]), (1, [1, 4, 5]), (4, [4, 5]), (5, [4, 5]), (99, [4, 5])])
def test_the_newest_two_and_the_best_are_kept(copied, best, kept):
    for step in (3, 4, 5):
        shutil.copytree(copied / "checkpoints" / "1", copied / "checkpoints" / str(step))
        manifest = manifests.read(copied / "checkpoints" / "1")
        manifests.write(copied / "checkpoints" / str(step), manifest | {"step": step})
    checkpoints = opened(copied)
    checkpoints.retain(best)
    checkpoints.wait()
    assert checkpoints.steps() == kept
    assert left(copied) == [str(step) for step in kept]


def test_the_newest_is_that_of_the_highest_step_whatever_a_clock_said_when_it_was_saved(copied):
    """As after a clock that stepped back, or a copy that kept no times; step 10 is above 9, though not as text."""
    for step in (9, 10):
        shutil.copytree(copied / "checkpoints" / "1", copied / "checkpoints" / str(step))
        manifest = manifests.read(copied / "checkpoints" / "1")
        manifests.write(copied / "checkpoints" / str(step), manifest | {"step": step})
    for step, seconds in {1: 4_102_444_800, 2: 2_000_000_000, 9: 1_000_000_000, 10: 300_000_000}.items():
        path = copied / "checkpoints" / str(step)  # the years 2100, 2033, 2001 and 1979
        for entry in (*path.rglob("*"), path):
            os.utime(entry, (seconds, seconds))
    checkpoints = opened(copied)
    assert checkpoints.steps() == [1, 2, 9, 10]
    assert checkpoints.restore_newest(template(tiny(1)))[0] == 10
    checkpoints.retain(None)
    checkpoints.close()
    assert left(copied) == ["10", "9"]


def test_what_is_asked_to_be_kept_counts_the_save_under_way(copied):
    checkpoints = opened(copied)
    checkpoints.save(3, tiny(3))
    checkpoints.retain(1)
    checkpoints.close()
    assert checkpoints.steps() == [1, 2, 3]


def test_a_step_is_renamed_before_it_is_deleted(copied, monkeypatch):
    checkpoints = opened(copied)
    checkpoints.save(3, tiny(3))
    checkpoints.wait()
    monkeypatch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    checkpoints.retain(None)
    with pytest.raises(SurroundingsError, match="Input/output error"):
        checkpoints.wait()
    assert left(copied) == [".deleted-1", "2", "3"]
    monkeypatch.undo()
    opened(copied)
    assert left(copied) == ["2", "3"]


def test_the_start_sweeps_what_a_kill_left_and_nothing_else(copied):
    folder, said = copied / "checkpoints", []
    for name in (".deleted-7", "3.orbax-checkpoint-tmp", "4", "4.orbax-checkpoint-tmp-17", "notes", "frozen", "007"):
        files.write(folder / name / "array", "x")
    files.write(folder / ".x.12.tmp", "")
    before = left(copied)
    assert opened(copied, clean_up=False, say=said.append).steps() == [1, 2]
    assert (left(copied), said) == (before, [])
    assert opened(copied, say=said.append).steps() == [1, 2]
    assert left(copied) == ["007", "1", "2", "frozen", "notes"]
    assert said == ["the save of checkpoint 4 was never finished (it has no MANIFEST.json); it is removed"]


def test_a_step_that_is_there_and_whole_is_not_written_again(copied):
    flushed = []
    before = (copied / "checkpoints" / "2" / "MANIFEST.json").stat().st_ino
    checkpoints = opened(copied)
    checkpoints.save(2, tiny(2), before_commit=lambda: flushed.append(2))
    checkpoints.close()
    assert (copied / "checkpoints" / "2" / "MANIFEST.json").stat().st_ino == before
    assert flushed == [2]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"x": jax.ShapeDtypeStruct((6,), np.float32)}, r"x is float32 \[5\] there and float32 \[6\] here"),
        ({"x": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}, r"x is float32 \[5\] there and bfloat16 \[5\] here"),
        ({"y": jax.ShapeDtypeStruct((5,), np.float32)}, r"x is float32 \[5\] there and nothing here"),
        ({"x": tiny(1)["x"], "y": {"z": tiny(1)["x"]}}, r"y/z is nothing there and float32 \[5\] here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_the_array(two, wanted, words):
    with pytest.raises(UserError, match=words) as caught:
        opened(two, clean_up=False).restore_newest(wanted)
    assert caught.value.code == 2


def test_every_damage_to_every_file_is_named_and_never_restored(copied):
    checkpoints, cases = opened(copied), 0
    folder = copied / "checkpoints" / "2"
    for name in manifests.file_names(folder):
        data = (folder / name).read_bytes()
        for kind, damage in damages(folder / name):
            (folder / name).unlink()
            if (damaged := damage(data)) is not None:
                (folder / name).write_bytes(damaged)
            with pytest.raises(DamageError, match="checkpoint 2 is damaged") as caught:
                checkpoints.restore(2, template(tiny(2)))
            assert str(folder / name) in str(caught.value), kind
            (folder / name).write_bytes(data)
            cases += 1
    assert cases >= 60
    assert digest(checkpoints.restore(2, template(tiny(2)))) == digest(tiny(2))


def test_no_bit_of_a_manifest_can_change_unnoticed(copied):
    path = copied / "checkpoints" / "2"
    data = (path / "MANIFEST.json").read_bytes()
    for bit in range(0, 8 * len(data), 37):
        (path / "MANIFEST.json").write_bytes(flipped(data, bit))
        with pytest.raises(DamageError, match=r"MANIFEST\.json is not as it was written"):
            manifests.read(path)


def test_an_added_file_and_another_steps_folder_are_damage(copied):
    files.write(copied / "checkpoints" / "2" / "d" / "new", "")
    with pytest.raises(DamageError, match="2/d/new does not belong to it"):
        opened(copied).restore(2, template(tiny(2)))
    shutil.copytree(copied / "checkpoints" / "1", copied / "checkpoints" / "3")
    with pytest.raises(DamageError, match=r"checkpoint 3 is damaged: .*MANIFEST"):
        opened(copied).restore(3, template(tiny(2)))


def test_an_older_step_that_lost_its_manifest_is_damaged_and_kept(copied):
    (copied / "checkpoints" / "1" / "MANIFEST.json").unlink()
    said = []
    checkpoints = opened(copied, say=said.append)
    assert checkpoints.restore_newest(template(tiny(2)))[0] == 2
    assert (checkpoints.steps(), left(copied), said) == ([2], ["1", "2"], [])


def test_with_every_manifest_gone_the_run_is_refused(copied):
    for step in (1, 2):
        (copied / "checkpoints" / str(step) / "MANIFEST.json").unlink()
    said = []
    with pytest.raises(
        SurroundingsError, match=r"no checkpoint in .* is whole: checkpoint 1 is damaged: .* is missing"
    ):
        opened(copied, say=said.append).restore_newest(template(tiny(1)))
    assert said == ["the save of checkpoint 2 was never finished (it has no MANIFEST.json); it is removed"]


def test_a_part_of_a_state_comes_back_alone(tmp_path):
    saved(tmp_path, [7], make=state)
    checkpoints, part = opened(tmp_path), {"params": state(7)["params"], "opt": state(7)["opt"]}
    assert digest(checkpoints.restore(7, template(part), partial=True)) == digest(part)
    assert digest(checkpoints.restore_newest(template(part), partial=True)[1]) == digest(part)
    with pytest.raises(UserError, match="ema/odd is float32"):
        checkpoints.restore(7, template(part))
    with pytest.raises(UserError, match=r"params/tail is nothing there and float32 \[5\] here"):
        checkpoints.restore(7, template({"params": state(7)["params"] | {"tail": tiny(1)["x"]}}), partial=True)


def test_a_part_of_a_damaged_checkpoint_is_refused_whichever_part_it_is(copied):
    path = spoil(copied, 2)
    with pytest.raises(DamageError, match=str(path)):
        opened(copied).restore(2, template(tiny(2)), partial=True)


def test_a_failed_save_comes_out_of_check_as_soon_as_it_has_failed(copied):
    checkpoints, go = opened(copied), threading.Event()

    def full():
        go.wait(60)
        raise SurroundingsError("No space left")

    checkpoints.save(3, tiny(3), before_commit=full)
    checkpoints.raise_failed_save()
    go.set()
    checkpoints._pending[0].exception(60)
    with pytest.raises(SurroundingsError, match="No space left"):
        checkpoints.raise_failed_save()
    checkpoints.raise_failed_save()


def spoil(folder, step, name="_METADATA"):
    path = folder / "checkpoints" / str(step) / name
    path.write_bytes(flipped(path.read_bytes(), 9))
    return path


@pytest.mark.parametrize("name", ["_METADATA", "MANIFEST.json"])
def test_a_damaged_newest_is_said_aloud_and_the_older_one_taken(copied, name):
    said, path = [], spoil(copied, 2, name)
    checkpoints = opened(copied, say=said.append)
    step, found = checkpoints.restore_newest(template(tiny(1)))
    assert step == 1
    assert digest(found) == digest(tiny(1))
    assert len(said) == 1
    assert "checkpoint 2 is damaged" in said[0]
    assert str(path) in said[0]
    assert said[0].endswith("going back to step 1")
    assert checkpoints.steps() == [1]


def test_a_damaged_step_is_written_anew_when_the_run_comes_to_it(copied):
    spoil(copied, 2)
    checkpoints = opened(copied, say=lambda _: None)
    checkpoints.restore_newest(template(tiny(1)))
    checkpoints.save(2, tiny(2))
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]
    assert digest(opened(copied).restore_newest(template(tiny(2)))[1]) == digest(tiny(2))


def test_a_damaged_step_never_pushes_a_whole_one_out(copied):
    checkpoints = opened(copied)
    checkpoints.save(3, tiny(3))
    checkpoints.close()
    spoil(copied, 3)
    checkpoints = opened(copied, say=lambda _: None)
    checkpoints.restore_newest(template(tiny(1)))
    checkpoints.save(4, tiny(4))
    checkpoints.retain(None)
    checkpoints.close()
    assert checkpoints.steps() == [2, 4]
    assert left(copied) == ["2", "4"]


def test_with_all_damaged_the_run_is_refused_with_every_step_and_file(copied):
    paths = [spoil(copied, step) for step in (1, 2)]
    with pytest.raises(SurroundingsError, match=r"no checkpoint in .* is whole") as caught:
        opened(copied).restore_newest(template(tiny(1)))
    assert all(str(path) in str(caught.value) for path in paths)
    assert left(copied) == ["1", "2"]


def save_third(folder):
    """One save as the loop does it: lines first, manifest after them, older steps deleted last."""
    record, checkpoints = Journal(folder, step=2), opened(folder)
    record.write_timing(3, seconds=1)
    checkpoints.save(3, tiny(3), before_commit=record.flush)
    checkpoints.retain(None)
    checkpoints.close()


def test_a_step_counts_once_all_of_it_its_name_and_the_names_of_its_folders_are_on_the_disk(tmp_path, monkeypatch):
    """By what is flushed, and whether the manifest has its name by then; so a power cut takes all of a step or none."""
    path, fsync, flushed = tmp_path / "run" / "checkpoints" / "3", os.fsync, []

    def noted(handle):
        flushed.append((os.readlink(f"/proc/self/fd/{handle}"), (path / "MANIFEST.json").exists()))
        fsync(handle)

    checkpoints = opened(tmp_path / "run")
    monkeypatch.setattr(os, "fsync", noted)
    checkpoints.save(3, tiny(3), before_commit=lambda: flushed.append(("before_commit", False)))
    checkpoints.close()
    *contents, before, manifest, within, above = flushed
    everything = {str(entry) for entry in path.rglob("*") if entry.name != "MANIFEST.json"}
    assert len(everything) > 5
    assert {*contents} == {(name, False) for name in (*everything, str(path.parents[1]))}
    assert before == ("before_commit", False)
    assert manifest == (str(path / f".MANIFEST.json.{os.getpid()}.tmp"), False)
    assert (within, above) == ((str(path), True), (str(path.parent), True))


@pytest.mark.parametrize("dead", [False, True], ids=["one call fails", "all later calls fail"])
def test_a_save_may_fail_at_any_call_of_the_file_door(two, tmp_path, monkeypatch, dead):
    with monkeypatch.context() as patch:
        count = faulty(patch, -1, dead=False)
        save_third(shutil.copytree(two, tmp_path / "whole"))
        calls = next(count)
    assert calls > 30
    outcomes = set()
    for at in range(calls):
        folder = shutil.copytree(two, tmp_path / str(at))
        with monkeypatch.context() as patch:
            faulty(patch, at, dead=dead)
            with pytest.raises(PlantedError):
                save_third(folder)
        step, found = opened(folder, say=lambda _: None).restore_newest(template(tiny(1)))
        assert step in (2, 3)
        assert digest(found) == digest(tiny(step)), at
        assert set(left(folder)) <= {"1", "2", "3"}
        save_third(folder)
        assert left(folder) == ["2", "3"]
        assert not (folder / "crash").exists()
        outcomes.add(step)
        shutil.rmtree(folder)
    assert outcomes == {2, 3}


FULL = """
import resource
from test_checkpoints import *

def limited(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

def big(step):
    return tiny(step) | {"big": jnp.asarray(np.random.default_rng(step).standard_normal(60_000), jnp.float32)}

checkpoints = opened(folder)
assert not any(name.startswith("orbax") for name in sys.modules)
checkpoints.save(1, big(1))
checkpoints.wait()
for most in (0, 100, 300, 5_000, 100_000):
    limited(most)
    checkpoints.save(2, big(2))
    try:
        checkpoints.wait()
        print("saved", most)
    except SurroundingsError as error:
        assert "File too large" in str(error) and str(folder) in str(error), error
        assert "240,020 bytes" in str(error) and error.code == 3, error
    limited(resource.RLIM_INFINITY)
    step, found = checkpoints.restore_newest(template(big(1)))
    assert (step, digest(found)) == (1, digest(big(1)))
checkpoints.save(2, big(2))
checkpoints.close()
step, found = opened(folder).restore_newest(template(big(1)))
assert (step, digest(found), left(folder)) == (2, digest(big(2)), ["1", "2"])
limited(100_000)
checkpoints = opened(folder)
checkpoints.save(3, big(3))
try:
    checkpoints.close()
except SurroundingsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.code)
"""


def test_a_full_disk_is_one_sentence_and_costs_no_older_checkpoint(tmp_path):
    code, out, err = script(FULL, tmp_path / "run")
    assert err == (
        f"File too large: {tmp_path}/run/checkpoints/3 needs 240,020 bytes, above the limit of 100,000 bytes; "
        "raise it (ulimit -f), then give the same command again\n"
    )
    assert (code, out) == (3, "")
    assert "Failed to write" in (tmp_path / "run" / "crash" / "orbax.log").read_text()


SHARDED = """
from test_checkpoints import *
from jax.sharding import NamedSharding, PartitionSpec as P

row = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
grid = jax.make_mesh((2, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
numbers = {"split": np.arange(32, dtype=np.float32).reshape(8, 4), "whole": np.arange(3, dtype=np.float32)}
here = {"split": NamedSharding(row, P("a")), "whole": NamedSharding(row, P())}
there = {"split": NamedSharding(grid, P("b", "a")), "whole": NamedSharding(grid, P())}
checkpoints = opened(folder)
checkpoints.save(1, jax.device_put(numbers, here))
checkpoints.wait()
for placement in (here, there):
    shape = {key: jax.ShapeDtypeStruct(numbers[key].shape, np.float32, sharding=placement[key]) for key in numbers}
    found = checkpoints.restore(1, shape)
    for key in numbers:
        assert found[key].sharding == placement[key]
        np.testing.assert_array_equal(found[key], numbers[key])
checkpoints.close()
"""


def test_arrays_spread_over_devices_come_back_to_the_same_or_other_devices(tmp_path):
    code, _, err = script(SHARDED, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert (code, err) == (0, "")


def test_a_manifest_lists_every_file_with_its_sha256_and_every_array(two):
    path = two / "checkpoints" / "2"
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["step"] == 2
    assert manifest["arrays"] == {"x": ["float32", [5]]}
    assert manifest["files"] == {
        str(file.relative_to(path)): {"bytes": file.stat().st_size, "sha256": files.sha256(file)}
        for file in path.rglob("*")
        if file.is_file() and file.name != "MANIFEST.json"
    }
    assert len(manifest["files"]) > 5
