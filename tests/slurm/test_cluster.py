"""Sweeps at a real SLURM of four nodes on this machine: whatever it does to tasks, no trial is lost or done twice.

All is skipped where SLURM is not installed, or the user is not root.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import waiting_sweep
from cluster import NODES, Cluster, kill_process, reason_to_skip

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.studies import trials
from cnn_vit.studies.sweeping import slurm
from cnn_vit.studies.workers import StudyOptions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "it is there")]

PROGRAM = Path(__file__).with_name("sweep_process.py")
PATIENCE = 400  # seconds until a sweep that goes nowhere fails its test
TRIALS = 8
STEPS = 800


@pytest.fixture(scope="module")
def cluster():
    """A cluster with four nodes of a core each."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's: the path of a socket must be short
    try:
        with Cluster(folder / "cluster") as started:
            yield started
    finally:
        shutil.rmtree(folder)


def start_sweep(cluster, out, *words):
    """Starts a sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(out), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **cluster.environment},
    )


def end_sweep(process, code):
    """Waits for the end of a sweep, which has this exit code; returns its stdout and stderr."""
    stdout, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    return stdout, stderr


def folders_of(out):
    """The folders of the trials of the first array, by the numbers of their tasks."""
    path = out / "slurm" / "0001.json"
    tasks = json.loads(path.read_text())["tasks"] if path.exists() else []
    return [out / trials.TRIALS / task["id"] for task in tasks]


def is_training(folder):
    """Whether a trial is under way and has saved a state."""
    is_under_way = files.is_locked(folder / trials.LOCK) and not (folder / trials.RESULT).exists()
    return is_under_way and any(folder.glob("run/checkpoints/*/MANIFEST.json"))


def events_of(folder):
    """What is noted of the attempts at a trial: its starts, and the stops that were asked for."""
    path = folder / trials.ATTEMPTS
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []


def results_of(out):
    """The bytes of the metrics of each trial, and its numbers but for times, by its name."""
    results = {}
    for folder in (out / trials.TRIALS).iterdir():
        stored = json.loads((folder / trials.RESULT).read_text())
        numbers = {name: stored["result"][name] for name in ("validation", "best", "steps", "fingerprint")}
        results[folder.name] = (stored["state"], (folder / "run" / "metrics.jsonl").read_bytes(), numbers)
    return results


# The 8 tasks ----------------------------------------------------------------------------------------------------------


def node_of(cluster, task):
    """The node that a task runs on."""
    return cluster.run("squeue", "--noheader", f"--jobs={task}", "--format=%N").strip()


def cancel(cluster, task):
    """Somebody cancels a task."""
    cluster.run("scancel", task)


def requeue(cluster, task):
    """Somebody has a task queued again."""
    cluster.run("scontrol", "requeue", task)


def preempt(cluster, task):
    """A job of a higher partition takes the node of a task."""
    cluster.run(
        "sbatch",
        "--partition=high",
        f"--nodelist={node_of(cluster, task)}",
        "--output=/dev/null",
        "--wrap=exec sleep 1",
    )


def kill_node(cluster, task):
    """The power of the node of a task is cut."""
    node = node_of(cluster, task)
    assert node in NODES
    cluster.kill(node)


def repair_nodes(cluster):
    """Gives nodes their power back once SLURM has noticed that they are down."""
    for node in set(NODES) - set(cluster.daemons):
        state = cluster.run("sinfo", "--noheader", "--partition=low", f"--nodes={node}", "--format=%T")
        if state.startswith("down"):
            cluster.start(node)


def restart_controller(cluster, task):
    """The power of the controller is cut, and comes back."""
    cluster.kill("slurmctld")
    cluster.start("slurmctld")
    cluster.wait_until(lambda: cluster.answers("scontrol", "ping"))


def announce_end(cluster, task):
    """SLURM says that the time of a task is nearly over, twice."""
    for _ in range(2):
        cluster.run("scancel", "--batch", "--signal=USR1", task)


def kill_task(cluster, task):
    """The process of a task is killed, such as for its memory."""
    job, index = task.split("_")
    (pid,) = cluster.find_processes(SLURM_ARRAY_JOB_ID=job, SLURM_ARRAY_TASK_ID=index)
    kill_process(pid)


# What befalls the task of this number, as soon as its trial has saved a state.
FATES = {
    0: cancel,
    1: requeue,
    2: preempt,
    3: kill_node,
    4: restart_controller,
    5: announce_end,
    6: kill_task,
}


def test_eight_tasks_end_in_eight_results_whatever_befalls_them(cluster, tmp_path):
    out = tmp_path / "disturbed"
    sweep = start_sweep(cluster, out, TRIALS, STEPS, "--partition=low")
    fates = dict(FATES)
    deadline = time.monotonic() + PATIENCE
    job = None
    while sweep.poll() is None:
        assert time.monotonic() < deadline, cluster.describe()
        time.sleep(0.02)
        for index, folder in enumerate(folders_of(out)):
            if index in fates and is_training(folder):
                job = job or cluster.run("squeue", "--noheader", "--format=%F").split()[0]
                fates.pop(index)(cluster, f"{job}_{index}")
        repair_nodes(cluster)
    _, stderr = end_sweep(sweep, 3)
    assert not fates
    assert "ended without a result" in stderr.splitlines()[-1]
    assert "died at SLURM; it is done again" in stderr

    events = [events_of(folder) for folder in folders_of(out)]
    assert events[0] == ["start", "stop"]  # whoever cancels a task does not want it to start again
    assert events[1][:3] == events[2][:3] == events[5][:3] == ["start", "stop", "start"]
    assert events[3][:2] == events[6][:2] == ["start", "start"]
    assert "SLURM has queued task" in (out / "slurm" / "0001-5.log").read_text()

    end_sweep(start_sweep(cluster, out, TRIALS, STEPS, "--partition=low"), 0)  # one more time
    end_sweep(start_sweep(cluster, tmp_path / "undisturbed", TRIALS, STEPS, ""), 0)
    results = results_of(out)
    assert len(results) == TRIALS
    assert results == results_of(tmp_path / "undisturbed")
    assert all(events_of(folder) == ["start"] for folder in folders_of(tmp_path / "undisturbed"))
    assert not cluster.find_processes(SLURM_ARRAY_JOB_ID=job)


# Other things that only SLURM itself can show -------------------------------------------------------------------------


def test_a_sweep_that_is_killed_follows_its_tasks_when_it_is_started_again(cluster, tmp_path):
    words = (2, 300, "--partition=low")
    sweep = start_sweep(cluster, tmp_path, *words)
    cluster.wait_until(lambda: any(is_training(folder) for folder in folders_of(tmp_path)))
    sweep.kill()
    sweep.communicate()
    end_sweep(start_sweep(cluster, tmp_path, *words), 0)
    assert slurm.list_arrays(tmp_path / "slurm") == [1]
    assert [events_of(folder) for folder in folders_of(tmp_path)] == [["start"], ["start"]]


def test_each_rung_of_a_halving_is_an_array_whose_trials_go_on_from_where_they_waited(cluster, tmp_path):
    stdout, _ = end_sweep(start_sweep(cluster, tmp_path, 3, 60, "--partition=low", "halving"), 0)
    assert sorted(line.split()[1] for line in stdout.splitlines()) == ["complete", "pruned", "pruned"]
    listings = [json.loads((tmp_path / "slurm" / f"000{number}.json").read_text()) for number in (1, 2)]
    assert [len(listing["tasks"]) for listing in listings] == [3, 1]
    (survivor,) = listings[1]["tasks"]
    attempts = (tmp_path / trials.TRIALS / survivor["id"] / trials.ATTEMPTS).read_text().splitlines()
    starts = [line["step"] for line in map(json.loads, attempts) if line["event"] == "start"]
    assert starts == [0, 20]  # the first rung ends at a third of 60 steps


@pytest.fixture
def objective(cluster, tmp_path, monkeypatch):
    """A sweep of one trial that waits for the file "go"; returns its folder and its trial."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return waiting_sweep.plan_sweep(tmp_path)


def test_a_task_whose_time_is_nearly_over_is_queued_again(cluster, objective, tmp_path):
    out, planned = objective
    # SLURM counts in minutes, and says it 60 seconds before the end: of one minute, at the beginning. On a busy machine
    # the task may not be at work on the trial by then, and has neither a start nor a stop to note.
    slurm.submit([planned], out, StudyOptions(), slurm.read_options("--time=1"))
    cluster.wait_until(lambda: slurm.queue_states(out)[planned.id] == "PENDING (BeginTime)", patience=PATIENCE)
    assert events_of(planned.folder) in ([], ["start", "stop"])
    assert not trials.is_over(planned)
    (tmp_path / "go").touch()
    cluster.wait_until(lambda: trials.is_over(planned))
    *stopped, last = events_of(planned.folder)
    assert last == "start"
    assert stopped == ["start", "stop"] * (len(stopped) // 2)
    assert trials.read_record(planned).result["value"] == 1.5


def test_slurm_is_asked_and_told_about_the_tasks_of_a_sweep(cluster, objective, tmp_path):
    out, planned = objective
    assert slurm.queue_states(out) == {}
    slurm.submit([planned], out, StudyOptions(), slurm.read_options("--hold"))
    assert slurm.queue_states(out) == {planned.id: "PENDING (JobHeldUser)"}
    assert slurm.cancel(out) == 1
    assert slurm.queue_states(out) == {}
    slurm.submit([planned], out, StudyOptions(), ())
    cluster.wait_until((tmp_path / "begun").exists)
    assert slurm.queue_states(out) == {planned.id: "RUNNING"}
    assert slurm.cancel(out) == 1
    cluster.wait_until(lambda: slurm.queue_states(out) == {})
    assert events_of(planned.folder) == ["start", "stop"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("--partition=wide", "Invalid partition name specified"),
        ("--time=soon", "Invalid --time specification"),
        ("--no-such-option", "unrecognized option '--no-such-option'"),
    ],
)
def test_options_that_slurm_does_not_take_are_a_sentence(objective, text, cause):
    out, planned = objective
    with pytest.raises(UserError, match=cause) as error:
        slurm.submit([planned], out, StudyOptions(), slurm.read_options(text))
    assert error.value.code == 2


def test_the_limit_of_an_array_is_known(objective):
    assert slurm.read_array_limit() == 1000


def test_a_cluster_leaves_no_process_behind(tmp_path):
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with Cluster(folder / "cluster") as cluster:
            cluster.run("sbatch", "--output=/dev/null", "--wrap=exec sleep 600")
            cluster.wait_until(lambda: cluster.find_processes(SLURM_JOB_ID="1"))
            pids = cluster.find_processes()
        assert len(pids) > 6
        assert cluster.find_processes() == []
    finally:
        shutil.rmtree(folder)
