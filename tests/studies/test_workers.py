"""Workers: each trial is done once, whatever dies, and one that fails takes nothing with it."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import killing
import pytest

from cnn_vit import files, stops
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.studies import trials, worker, workers
from cnn_vit.studies.trials import DataCache, Trial
from cnn_vit.studies.workers import StudyOptions, run_trials

PROGRAM = Path(__file__).with_name("study_process.py")
SMOKE = "configs/digits_mlp.py:smoke"
FEW_STEPS = ("duration=4 steps", "evaluate_every=2 steps", "log_every=1 steps", "schedule.warmup=0")
SAVED = "run/checkpoints/*/MANIFEST.json"  # of a trial
# Kernels grow 100,000-fold a step: past 3e38 after eight, before the loss is read for the last time.
DIVERGING = (
    "duration=20 steps", "evaluate_every=20 steps", "log_every=1 steps", "schedule.warmup=0", "schedule.name=constant",
    "optimizer.name=sgd", "optimizer.learning_rate=1000", "optimizer.weight_decay=100", "optimizer.clip=1",
)  # fmt: skip


def run_study(list_of_trials, out, **options):
    """Plans trials and does them; returns their records."""
    return run_trials(trials.plan_trials(list_of_trials, out, DataCache()), out, StudyOptions(**options))


def read_metrics(record):
    """The bytes of the metrics of a trial that trained."""
    return (record.run / "metrics.jsonl").read_bytes()


def file_times(out):
    """When each file of the trials was written last."""
    return {path: path.stat().st_mtime_ns for path in (out / trials.TRIALS).rglob("*") if path.name != trials.LOCK}


# A study with failures ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A study of two good trials, one that diverges and one with a setting that does not exist; folder and records."""
    out = tmp_path_factory.mktemp("mixed")
    list_of_trials = [
        Trial("train", SMOKE, FEW_STEPS),
        Trial("train", SMOKE, DIVERGING),
        Trial("train", SMOKE, (*FEW_STEPS, "optimizer.rate=1")),
        Trial("train", SMOKE, FEW_STEPS, seed=1),
    ]
    return out, list_of_trials, run_study(list_of_trials, out, workers=1)  # the one that has seen a trial fail


def test_trials_that_fail_are_recorded_with_their_reason_and_the_others_go_on(mixed):
    _, _, records = mixed
    assert [record.state for record in records] == ["complete", "diverged", "bad config", "complete"]
    assert "optimizer.rate" in records[2].reason
    assert "is not finite" in records[1].reason
    assert records[0].result["validation"]["n"] == records[3].result["validation"]["n"] == 64
    assert read_metrics(records[0]) != read_metrics(records[3])


def test_a_finished_study_is_left_as_it_is(mixed, monkeypatch):
    out, list_of_trials, records = mixed
    before = file_times(out)
    monkeypatch.setattr(workers, "WORKER_COMMAND", ("false",))  # no worker could start
    again = run_study(list_of_trials, out)
    assert [record.result for record in again] == [record.result for record in records]
    assert file_times(out) == before


def test_a_study_that_another_process_does_is_refused(mixed):
    out, list_of_trials, _ = mixed
    with files.Lock(out / trials.LOCK), pytest.raises(SurroundingsError, match="is in use by process"):
        run_study(list_of_trials, out)


def test_workers_that_cannot_start_end_a_study_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WORKER_COMMAND", (sys.executable, "-c", "import nothing_of_that_name"))
    with pytest.raises(SurroundingsError, match=r"exit code 1 before it could begin; .*0\.log says more"):
        run_study([Trial("train", SMOKE, FEW_STEPS)], tmp_path)
    assert "nothing_of_that_name" in (tmp_path / "workers" / "0.log").read_text()


@pytest.mark.parametrize(
    ("place", "threads", "cores"), [(0, 1, [4]), (1, 1, [5]), (2, 1, [7]), (3, 1, [4]), (1, 2, [7, 4])]
)
def test_workers_compute_on_cores_of_their_own_as_far_as_there_are_some(monkeypatch, place, threads, cores):
    monkeypatch.setattr(workers.process, "usable_cores", lambda: [4, 5, 7])
    assert workers.choose_cores(place, threads) == cores


def test_more_threads_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(workers.process, "usable_cores", lambda: [4, 5, 7])
    with pytest.raises(UserError, match="threads=4 are more than the 3 cores"):
        workers.choose_cores(0, 4)


@pytest.mark.parametrize(
    ("platform", "count", "visible", "workers_and_gpus"),
    [("cpu", 1, "", [{}, {}]),
     ("gpu", 4, None, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
     ("gpu", 2, "3, GPU-ab", [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "GPU-ab"}])],
)  # fmt: skip
def test_each_of_several_workers_sees_a_gpu_of_its_own(monkeypatch, platform, count, visible, workers_and_gpus):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(workers, "count_devices", lambda: (platform, count))
    assert workers.choose_accelerators(2) == workers_and_gpus
    if platform == "gpu":
        assert workers.choose_accelerators(1) == workers_and_gpus[:1]  # a single one sees as many as each of several


def test_gpus_that_are_hidden_stay_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers.choose_accelerators(1) == [{"CUDA_VISIBLE_DEVICES": ""}]


@pytest.mark.parametrize(
    ("platform", "count", "sentence"),
    [("gpu", 1, "workers=2 are more than the 1 GPUs"), ("tpu", 4, "would share the TPU of this machine")],
)
def test_workers_that_would_share_an_accelerator_are_refused(monkeypatch, platform, count, sentence):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(workers, "count_devices", lambda: (platform, count))
    with pytest.raises(UserError, match=sentence):
        workers.choose_accelerators(2)


def test_another_process_tells_what_jax_computes_on(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert workers.count_devices() == ("cpu", 1)
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    with pytest.raises(SurroundingsError, match=r"jax cannot tell its devices: .*abacus"):
        workers.count_devices()


def test_a_kill_of_the_process_that_asks_for_devices_is_borne(tmp_path, monkeypatch):
    mark = tmp_path / "killed"
    program = (
        f"import os, pathlib; mark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\n"
        "print('gpu', 2)"
    )
    monkeypatch.setattr(workers, "DEVICES_COMMAND", (sys.executable, "-c", program))
    assert workers.count_devices() == ("gpu", 2)
    monkeypatch.setattr(workers, "DEVICES_COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(SurroundingsError, match="asks jax for its devices died of SIGKILL"):
        workers.count_devices()


def test_a_worker_has_the_environment_of_the_study_and_its_own_variables(tmp_path, monkeypatch):
    program = "import os; print(os.environ['HOME'], os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setattr(workers, "WORKER_COMMAND", (sys.executable, "-c", program))
    monkeypatch.setenv("HOME", "/home/mine")
    worker = workers.Worker(0, tmp_path / "0.log", StudyOptions(), {"CUDA_VISIBLE_DEVICES": "7"})
    worker.end()
    assert (tmp_path / "0.log").read_text() == "/home/mine 7\n"


def test_a_worker_that_cannot_be_started_is_not_blamed_on_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WORKER_COMMAND", (str(tmp_path / "nothing"),))
    with pytest.raises(SurroundingsError, match="no worker can be started: No such file or directory"):
        workers.Worker(0, tmp_path / "0.log", StudyOptions(), {})


@pytest.mark.slow
def test_the_pace_of_a_larger_network_is_slower_and_nothing_is_done(tmp_path):
    hidden = ("(32,)", "(4000, 4000)")
    pace_trials = [Trial("train", SMOKE, (*FEW_STEPS, f"model.hidden={width}")) for width in hidden]
    planned = trials.plan_trials(pace_trials, tmp_path, DataCache())
    small, large = workers.measure_paces(planned, tmp_path, StudyOptions())
    assert 0 < 3 * small < large
    assert not (tmp_path / trials.TRIALS).exists()


def test_a_pace_that_cannot_be_measured_is_a_sentence(tmp_path):
    gone = write_generator(tmp_path, "gone", "raise ValueError('no more')")
    planned = trials.plan_trials(
        [Trial("train", SMOKE, (*FEW_STEPS, *gone, "data.image_size=8", "data.channels=3"))], tmp_path, DataCache()
    )
    with pytest.raises(UserError, match=r"cannot be measured: .*no more.*give the budget in steps"):
        workers.measure_paces(planned, tmp_path, StudyOptions())


FORKING = """
import os, pathlib, sys, time
from cnn_vit import files
from cnn_vit.studies import worker
pipe = worker.take_pipe()
pipe.receive()
with files.Lock(pathlib.Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(600)  # with the pipe and the lock that the worker had
    pipe.send(worker.READY)
    os.kill(os.getpid(), 9)
"""


class FewLooks(stops.StopSignals):
    """Fails where somebody waits for more than some seconds."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def raise_if_requested(self):
        """Counts the looks."""
        self.looks += 1
        assert self.looks < 10 / workers.LOOK_EVERY, "still waiting for a process that is gone"


def fork_and_die(monkeypatch, tmp_path):
    """A worker that has died, and left behind a process that it had forked."""
    monkeypatch.setattr(workers, "WORKER_COMMAND", (sys.executable, "-c", FORKING, str(tmp_path / "mine.lock")))
    worker = workers.Worker(0, tmp_path / "0.log", StudyOptions(), {})
    assert workers.receive(worker, FewLooks())["kind"] == "ready"
    return worker


def test_a_worker_that_is_gone_is_missed_and_what_it_has_forked_is_killed(tmp_path, monkeypatch):
    worker = fork_and_die(monkeypatch, tmp_path)
    assert workers.receive(worker, FewLooks()) is None
    assert files.is_locked(tmp_path / "mine.lock")
    assert worker.end() == -signal.SIGKILL
    assert not files.is_locked(tmp_path / "mine.lock")


def test_a_study_buries_a_worker_whose_forked_process_lives_on(tmp_path, monkeypatch):
    worker = fork_and_die(monkeypatch, tmp_path)
    study = workers.Study(workers.FixedSupply([], 0), tmp_path, StudyOptions(), FewLooks(), [worker])
    while study.workers:
        study.hear()
        study.stop.raise_if_requested()
    assert worker.process.returncode == -signal.SIGKILL


def test_a_trial_that_is_said_to_be_done_and_has_no_result_ends_the_study(tmp_path):
    study, planned = make_study(tmp_path)
    study.finish(SimpleNamespace(trial=planned))
    assert study.obstacle.endswith(f"{planned.folder} holds no result of it")


def make_study(tmp_path):
    """A study that is under way, with one trial of which three starts are noted."""
    (planned,) = trials.plan_trials([Trial("train", SMOKE, FEW_STEPS)], tmp_path, DataCache())
    for _ in range(3):
        trials.note_start(planned)
    return workers.Study(workers.FixedSupply([planned], 4), tmp_path, StudyOptions(), None), planned


def test_a_trial_that_an_orphan_is_at_work_on_has_not_crashed(tmp_path):
    study, planned = make_study(tmp_path)
    with files.Lock(planned.folder / trials.LOCK):
        study.record_death(planned, -9)
    assert trials.read_record(planned).state == trials.INTERRUPTED
    study.record_death(planned, -9)
    assert trials.read_record(planned).state == trials.CRASHED


def test_a_result_is_never_replaced_by_a_crash(tmp_path):
    study, planned = make_study(tmp_path)
    trials.write_result(planned, trials.COMPLETE, result={"steps": 4})
    study.record_death(planned, -9)
    assert trials.read_record(planned).state == trials.COMPLETE


def test_the_progress_of_a_study_ends_with_all_its_steps(tmp_path, capsys):
    """Successive halving gives trials up, so that there are fewer steps than were expected."""

    class HalvingSupply(workers.FixedSupply):
        counts = iter([(0, 144), (120, 144)])

        def count_steps(self):
            return next(self.counts)

    with stops.handle_signals() as stop:
        assert workers.Study(HalvingSupply([], 0), tmp_path, StudyOptions(), stop).run() == ""
    assert capsys.readouterr().err.splitlines()[-1].startswith("step 120 of 120")


def test_the_line_of_a_trial_that_failed_is_one_line(tmp_path):
    _, planned = make_study(tmp_path)
    trials.write_result(planned, trials.CRASHED, reason="ValueError: a\n\x1b[31mb")
    line = workers.describe_end(trials.read_record(planned))
    assert line.endswith(r": crashed: ValueError: a\n\x1b[31mb")


def test_another_mistake_in_a_trial_replaces_the_reason_of_the_first(tmp_path):
    (planned,) = trials.plan_trials([Trial("train", SMOKE, ("optimizer.rate=1",))], tmp_path, DataCache())
    run_trials([planned], tmp_path, StudyOptions())
    (record,) = run_trials([replace(planned, error="another mistake")], tmp_path, StudyOptions())
    assert (record.state, record.reason) == (trials.BAD_CONFIG, "another mistake")


# Twenty trials of which four fail, each in its way --------------------------------------------------------------------

GENERATOR = """
import os, sys
import numpy as np

def images(split):
    if sys.argv[0].endswith("worker.py"):
        {action}
    generator = np.random.default_rng(0)
    for number in range(64):
        yield generator.integers(0, 256, (8, 8, 3), dtype=np.uint8), number % 2
"""


def write_generator(folder, name, action):
    """Writes a data source that does something in a worker alone; returns the settings that name it."""
    path = folder / f"{name}.py"
    path.write_text(GENERATOR.format(action=action))
    return ("data.name=generator", f"data.path={path}:images", "data.classes=2")


@pytest.mark.slow
def test_each_trial_gets_its_state_where_some_diverge_abort_or_want_too_much_memory(tmp_path, monkeypatch):
    limit = 12 * 2**30  # bytes of address space, of which jax takes 2 to 3 GB by itself
    monkeypatch.setattr(workers, "WORKER_COMMAND", ("prlimit", f"--as={limit}", *workers.WORKER_COMMAND))
    good = [Trial("train", SMOKE, FEW_STEPS, seed=seed) for seed in range(16)]
    bad = [
        Trial("train", SMOKE, DIVERGING),
        Trial("train", "configs/digits_mlp.py", (*FEW_STEPS, "model.hidden=(30000, 30000)")),
        Trial("train", SMOKE, (*FEW_STEPS, "optimizer.rate=1")),
        Trial(
            "train",
            "configs/digits_mlp.py",
            (*FEW_STEPS, *write_generator(tmp_path, "aborting", "os.abort()"), "data.image_size=8", "data.channels=3"),
        ),
    ]
    records = run_study(good[:7] + bad + good[7:], tmp_path / "out", workers=2)
    states = [record.state for record in records]
    assert states[7:11] == ["diverged", "out of memory", "bad config", "crashed"]
    assert states[:7] + states[11:] == ["complete"] * 16
    assert "SIGABRT, 3 times without getting further" in records[10].reason


# Kills ----------------------------------------------------------------------------------------------------------------


def start_study(out, *words):
    """Starts the study in a process of its own."""
    return killing.start([sys.executable, PROGRAM, out, *words])


def finish_study(out, *words):
    """Does the study to its end; returns what it printed to stdout."""
    return killing.finish(start_study(out, *words))


def results_of(out):
    """The bytes of the metrics of each trial, and its numbers but for times, by its name."""
    return killing.results_of(out, "validation", "test", "best", "steps", "fingerprint")


@pytest.mark.parametrize(
    ("count", "steps", "worker_kills", "parent_kills"),
    [(3, 150, 2, 1), pytest.param(12, 300, 20, 10, marks=pytest.mark.exhaustive)],
)
def test_kills_change_no_number_and_no_trial_is_done_twice(tmp_path, count, steps, worker_kills, parent_kills):
    words = (count, 2, steps)
    undisturbed = finish_study(tmp_path / "undisturbed", *words)
    killed, kills = killing.kill_now_and_then(
        lambda: start_study(tmp_path / "killed", *words),
        tmp_path / "killed",
        worker_kills=worker_kills,
        parent_kills=parent_kills,
        seed=count,
    )
    assert len(kills) == worker_kills + parent_kills
    assert killed == undisturbed
    assert len(undisturbed.splitlines()) == count
    assert killing.count_starts(tmp_path / "undisturbed") == count
    assert killing.count_starts(tmp_path / "killed") <= count + len(kills)  # one more for each kill, at most
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "undisturbed")


def leave_an_orphan(out, *words):
    """Starts a study, and kills it once its only worker trains; returns the worker's number."""
    process = start_study(out, *words)
    deadline = time.monotonic() + killing.PATIENCE
    while not list(out.glob(f"{trials.TRIALS}/*/{SAVED}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (orphan,) = killing.find_children(process.pid)
    process.kill()
    process.communicate()
    return orphan


@pytest.mark.slow
def test_an_orphan_is_waited_for(tmp_path):
    words = (1, 1, 600)
    leave_an_orphan(tmp_path, *words)
    finish_study(tmp_path, *words)
    (folder,) = (tmp_path / trials.TRIALS).iterdir()
    starts = [line for line in (folder / trials.ATTEMPTS).read_text().splitlines() if "start" in line]
    assert len(starts) == 1  # the orphan's
    assert "waiting for it" in (folder / trials.LOG).read_text()


@pytest.mark.slow
def test_without_the_lock_of_a_trial_two_processes_would_meet_in_it(tmp_path):
    words = (1, 1, 600)
    leave_an_orphan(tmp_path, *words, "unlocked")
    process = start_study(tmp_path, *words, "unlocked")
    _, stderr = process.communicate(timeout=killing.PATIENCE)
    assert process.returncode == 3
    assert "is in use by process" in stderr


@pytest.mark.slow
def test_a_study_that_waits_for_an_orphan_can_be_stopped(tmp_path):
    words = (1, 1, 4000)
    orphan = leave_an_orphan(tmp_path, *words)
    process = start_study(tmp_path, *words)
    deadline = time.monotonic() + killing.PATIENCE
    (folder,) = (tmp_path / trials.TRIALS).iterdir()
    while not (folder / trials.LOG).exists() or "waiting for it" not in (folder / trials.LOG).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=killing.PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert stderr.splitlines()[-1] == "stopped by SIGINT; the same command goes on with the trials that are left"
    os.kill(orphan, 0)  # which trains on: nothing of it was lost
    os.kill(orphan, signal.SIGKILL)
    (attempts,) = tmp_path.glob(f"{trials.TRIALS}/*/{trials.ATTEMPTS}")
    assert [json.loads(line)["event"] for line in attempts.read_text().splitlines()] == ["start"]


def test_a_study_that_is_asked_to_stop_saves_its_trials_and_goes_on_later(tmp_path):
    words = (2, 1, 400)
    process = start_study(tmp_path, *words)
    deadline = time.monotonic() + killing.PATIENCE
    while not list(tmp_path.glob(f"{trials.TRIALS}/*/{SAVED}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=killing.PATIENCE)
    assert process.returncode == 128 + signal.SIGINT
    assert stderr.splitlines()[-1] == "stopped by SIGINT; the same command goes on with the trials that are left"
    assert "Traceback" not in stderr
    (attempts,) = tmp_path.glob(f"{trials.TRIALS}/*/{trials.ATTEMPTS}")  # the other trial was never begun
    assert [json.loads(line)["event"] for line in attempts.read_text().splitlines()] == ["start", "stop"]


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "clears"), [(2**30, 1), (3 * 2**30, 0), (None, 0)])
def test_a_worker_forgets_the_programs_of_earlier_trials_where_memory_is_short(monkeypatch, free, clears):
    calls = []
    monkeypatch.setattr("cnn_vit.process.free_memory", lambda: free)
    monkeypatch.setattr("cnn_vit.training.caches.clear_compiled", lambda: calls.append("cleared"))
    worker.forget_programs()
    assert len(calls) == clears
