"""The memory of a step: what the compiler plans is told before the first step, recorded, and refused where it lacks."""

import ctypes
import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import load_settings, read_outcome, train, undisturbed_outcome

from cnn_vit import data, process
from cnn_vit.errors import StoppedError, SurroundingsError
from cnn_vit.reports import facts
from cnn_vit.runs import reader
from cnn_vit.runs.description import make_preprocessing
from cnn_vit.training import caches, devices, memory, program
from cnn_vit.training.memory import StepMemory
from cnn_vit.training.run import Run

pytestmark = pytest.mark.usefixtures("_compiled_quickly")
MB = 1_000_000
SEVERAL_SIZES = ("data.fit=pad_batch", "data.image_size=16", "model.width=16", "model.hidden=16", "ema_decay=none")


def make_program(name, *changes):
    settings = load_settings(name, *changes)
    dataset = data.load(settings.section("data"))
    return program.Program(settings, dataset, make_preprocessing(settings, dataset))


@pytest.fixture
def compiled_names(caplog):
    """Returns a function that lists what has been compiled since it was last called."""

    def list_names():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return [message.split()[4] for message in messages if message.startswith("Finished XLA compilation of")]

    caches.clear_compiled()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        yield list_names


# What the compiler plans ----------------------------------------------------------------------------------------------


def test_values_are_arguments_and_results_and_a_product_in_between_is_an_intermediate_result():
    matrix = jnp.ones((500, 500))  # a MB
    compiled = jax.jit(lambda x: (x @ x) @ x).lower(matrix).compile()
    planned = memory.planned_memory(compiled, copies=1)
    assert planned.values == 2 * MB
    assert MB <= planned.intermediate < 2 * MB
    assert memory.planned_memory(compiled, copies=3) == StepMemory(3 * planned.values, 3 * planned.intermediate)


def test_a_state_that_is_donated_counts_once():
    compiled = jax.jit(lambda x: x + 1, donate_argnums=0).lower(jnp.ones((500, 500))).compile()
    assert memory.planned_memory(compiled, copies=1).values == MB


def test_where_the_compiler_does_not_say_nothing_is_known():
    assert memory.planned_memory(SimpleNamespace(memory_analysis=lambda: None), copies=1) is None


@pytest.mark.parametrize(
    ("name", "changes"), [("mlp", ()), ("mlp", ("optimizer.accumulate=2",)), ("vit", SEVERAL_SIZES)]
)
def test_the_step_that_was_compiled_for_its_figures_is_the_one_that_learns(name, changes, compiled_names):
    run_program = make_program(name, *changes)
    compiled_names()
    planned = run_program.compile_step()
    assert compiled_names().count("jit(learn_in_place)") == 1
    state, (batch,) = run_program.initial_state(), run_program.batches(0, 1)
    template = run_program.batch_template
    if batch["image"].shape != template["image"].shape:  # images of several sizes, in a smaller padded size
        batch = {name: np.ones(entry.shape, entry.dtype) for name, entry in template.items()}
    compiled_names()
    run_program.learn(state, batch)
    assert compiled_names() == []
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(run_program.state_template))
    batch_bytes = sum(array.nbytes for array in batch.values())
    assert state_bytes < planned.values < state_bytes + batch_bytes + 1_000  # bytes of hyperparameters and measures


@pytest.mark.parametrize("changes", [(), SEVERAL_SIZES])
def test_the_template_of_a_batch_is_a_batch_without_its_values(changes):
    run_program = make_program("vit", *changes)
    template = run_program.batch_template
    (batch,) = run_program.batches(0, 1)
    assert {name: array.dtype for name, array in batch.items()} == {name: leaf.dtype for name, leaf in template.items()}
    rows = len(batch["label"])
    height, width, channels = run_program.dataset.image_shape
    assert template["image"].shape == (rows, height, width, channels)
    if changes:
        assert template["mask"].shape == (rows, height, width)
    else:
        assert {name: array.shape for name, array in batch.items()} == {
            name: leaf.shape for name, leaf in template.items()
        }


# What a run says ------------------------------------------------------------------------------------------------------


def test_a_run_says_before_its_first_step_what_a_step_needs_and_every_start_records_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "free_memory", lambda mesh: 15_600 * MB)
    learn, steps_learned = Run.learn, []

    def stop_after_five_steps(run, state, batch):
        if not steps_learned:
            text = capsys.readouterr().err
            assert text.startswith("memory of a step: ")
            assert text.endswith(" of intermediate results), 15.6 GB free\n")
        if len(steps_learned) == 5:
            raise StoppedError(15, "stopped")
        steps_learned.append(state["step"])
        return learn(run, state, batch)

    monkeypatch.setattr(Run, "learn", stop_after_five_steps)
    with pytest.raises(StoppedError):
        train("mlp", tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    expected = make_program("mlp").compile_step()
    assert environment["step_memory"] == {"values": expected.values, "intermediate": expected.intermediate}
    assert environment["resumed"] == []

    monkeypatch.setattr(Run, "learn", learn)
    train("mlp", tmp_path)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["resumed"][0]["step_memory"] == environment["step_memory"] == expected.as_json()
    capsys.readouterr()
    train("mlp", tmp_path)
    assert "memory" not in capsys.readouterr().err  # a finished run compiles nothing
    assert ("memory of a step", expected.as_text()) in facts.list_environment(reader.read_run(tmp_path))


@pytest.mark.parametrize("recorded", [None, 3, {"values": 3}])
def test_a_report_goes_without_a_memory_that_is_not_recorded(recorded):
    assert facts.step_memory_text(recorded) is None


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_step_that_needs_more_than_is_free_is_refused_before_it_is_done(tmp_path, monkeypatch):
    planned = make_program("mlp").compile_step()
    free = iter([10**12, planned.intermediate - 1])  # before the state is made, and after
    monkeypatch.setattr(devices, "free_memory", lambda mesh: next(free))
    with pytest.raises(SurroundingsError) as refused:
        train("mlp", tmp_path)
    assert refused.value.code == 3
    available = memory.bytes_text(planned.intermediate - 1)
    assert str(refused.value) == (
        f"a step needs {planned.as_text()}, but beside the values only {available} of memory are free; make "
        "data.batch_size (now 32) smaller, or data.image_size (now 8), or take a smaller model"
    )
    assert list(tmp_path.iterdir()) == []  # a refused start takes away what it made

    free = iter([10**12, planned.intermediate])  # as much as it needs
    train("mlp", tmp_path)


def test_a_state_that_is_larger_than_what_is_free_is_refused_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda mesh: 999)
    monkeypatch.setattr(program.Program, "initial_state", lambda self: pytest.fail("the state was made"))
    with pytest.raises(SurroundingsError, match=r"training state \(parameters, .* only 1 kB are free; take a smaller"):
        train("mlp", tmp_path)


def test_where_nothing_says_what_is_free_a_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "free_memory", lambda mesh: None)
    train("mlp", tmp_path)
    assert "intermediate results)\n" in capsys.readouterr().err


def test_the_fullest_device_says_what_is_free():
    def mesh_of(*statistics):
        local_devices = [SimpleNamespace(memory_stats=lambda answer=answer: answer) for answer in statistics]
        return SimpleNamespace(local_devices=local_devices, devices=np.array([SimpleNamespace(platform="gpu")]))

    full, empty = {"bytes_limit": 10, "bytes_in_use": 9}, {"bytes_limit": 10, "bytes_in_use": 2}
    assert devices.free_memory(mesh_of(empty, full, empty)) == 1
    assert devices.free_memory(mesh_of(empty, None)) is None
    assert devices.free_memory(mesh_of(empty, {"bytes_in_use": 2})) is None
    assert devices.memory_sharers(mesh_of(empty, full)) == 1


def test_devices_of_the_host_share_its_memory():
    mesh = devices.mesh()
    assert devices.memory_sharers(mesh) == mesh.size
    assert 0 < devices.free_memory(mesh) < 10**15


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 kB"), (12_345, "12 kB"), (999_500, "1 MB"), (74 * MB, "74 MB"), (999_500_000, "1.0 GB"),
     (15_600 * MB, "15.6 GB")],
)  # fmt: skip
def test_bytes_are_written_in_the_unit_that_fits(size, text):
    assert memory.bytes_text(size) == text


def test_figures_are_told_as_people_read_them():
    line = memory.memory_line(StepMemory(74 * MB, 314 * MB), 15_600 * MB)
    assert line == "memory of a step: 388 MB (74 MB of values, 314 MB of intermediate results), 15.6 GB free"


# One step at a time ---------------------------------------------------------------------------------------------------

STEPS_OF_A_PROCESS = """
import jax, jax.numpy as jnp
from cnn_vit import process
from cnn_vit.training import memory
process.keep_pages()
memory.MOST_POLLS = 100_000  # a machine may be busy
def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
def step(state):  # (4000, 8), by way of (4000, 4000)
    state = jnp.abs(state @ state.T) @ state * 1e-9
    return state, {"finite": jnp.isfinite(state).all()}
step = jax.jit(step, donate_argnums=0)
state = jnp.ones((4000, 8))
planned = memory.planned_memory(step.lower(state).compile(), copies=1)
process.release_free_pages()
one_at_a_time = memory.OneStepAtATime(planned.intermediate)
before, peak_before = kilobytes("VmRSS"), kilobytes("VmHWM")
for _ in range(40):
    one_at_a_time.begin_step()
    state, measures = step(state)
    one_at_a_time.step_began(measures)
one_at_a_time.begin_step()
print(planned.intermediate, 1024 * (kilobytes("VmRSS") - before), 1024 * (kilobytes("VmHWM") - peak_before))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this is not glibc from 2.33 on")
def test_steps_that_wait_for_each_other_keep_the_memory_of_one():
    command = [sys.executable, "-c", STEPS_OF_A_PROCESS]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    intermediate, resident, peak = map(int, answer.stdout.split())
    assert intermediate >= 4 * 4000 * 4000
    assert resident < 1.5 * intermediate
    assert peak < 2.5 * intermediate  # one that is kept, and one that does not fit into it


class FakeHeap:
    """Stands for the heap: gives prepared statistics one after the other, and notes naps and releases of pages."""

    def __init__(self, monkeypatch):
        self.statistics, self.naps, self.releases = iter(()), 0, 0
        monkeypatch.setattr(process, "heap_statistics", lambda: next(self.statistics))
        monkeypatch.setattr(process, "release_free_pages", self.release)
        monkeypatch.setattr(memory.time, "sleep", self.nap)

    def release(self):
        self.releases += 1

    def nap(self, seconds):
        self.naps += 1

    def do_step(self, one_at_a_time, *statistics):
        """Begins a step while the heap gives these (size, bytes in use); returns the numbers of naps and releases."""
        answers = [None if one is None else SimpleNamespace(arena=one[0], uordblks=one[1]) for one in statistics]
        self.statistics, self.naps, self.releases = iter(answers), 0, 0
        one_at_a_time.begin_step()
        one_at_a_time.step_began({"finite": jnp.array(True)})
        assert next(self.statistics, "none is left") == "none is left"
        return self.naps, self.releases


def test_a_step_waits_until_half_of_the_memory_of_the_one_before_is_free_and_then_no_longer(monkeypatch):
    heap, one_at_a_time = FakeHeap(monkeypatch), memory.OneStepAtATime(100)
    assert heap.do_step(one_at_a_time, (9_000, 1_000)) == (0, 0)  # the first step has nothing to wait for
    in_use = (1_110, 1_100, 1_050, 1_049, 1_049)
    assert heap.do_step(one_at_a_time, *[(9_000, size) for size in in_use]) == (3, 0)
    assert heap.do_step(one_at_a_time, (9_000, 1_000), (9_000, 1_000)) == (0, 0)
    monkeypatch.setattr(memory, "MOST_POLLS", 4)
    assert heap.do_step(one_at_a_time, *[(9_000, 2_000)] * 5) == (4, 0)
    # the next one is compared with what was in use when this one began
    assert heap.do_step(one_at_a_time, (9_000, 2_000), (9_000, 2_000)) == (0, 0)
    assert heap.do_step(one_at_a_time, None, None) == (0, 0)  # an allocator that does not say


def test_what_is_free_is_given_back_where_the_heap_has_grown_by_another_block(monkeypatch):
    heap, one_at_a_time = FakeHeap(monkeypatch), memory.OneStepAtATime(100)
    sizes = (9_000, 9_100, 9_150, 9_201, 9_201, 9_100, 9_201)  # the first step's own block is needed
    releases = [
        heap.do_step(one_at_a_time, *[(size, 1_000)] * min(2, 1 + number))[1] for number, size in enumerate(sizes)
    ]
    assert releases == [0, 0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("large", "keeps_pages", "waits"), [(1, True, 12), (1, False, 0), (10**9, True, 0)])
def test_large_steps_wait_for_each_other_where_pages_are_kept_and_learn_the_same_bits(
    large, keeps_pages, waits, tmp_path, monkeypatch
):
    calls = []
    begin_step = memory.OneStepAtATime.begin_step

    def begin_observed_step(self):
        calls.append("begin")
        begin_step(self)

    monkeypatch.setattr(memory, "LARGE_STEP", large)
    monkeypatch.setattr(memory.OneStepAtATime, "begin_step", begin_observed_step)
    monkeypatch.setattr(process.Heap, "keeps_pages", keeps_pages)
    monkeypatch.setattr(process, "heap_statistics", lambda: None)
    monkeypatch.setattr(process, "release_free_pages", lambda: calls.append("release"))
    train("mlp", tmp_path)
    assert calls == ["release"] + ["begin"] * waits  # what the compiler took is released before the first step
    monkeypatch.undo()
    assert read_outcome(tmp_path) == undisturbed_outcome("mlp")
