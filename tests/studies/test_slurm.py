"""Sweeps at SLURM, without one: what is submitted, what is asked, and what becomes of tasks that do not end well.

How a real SLURM takes it is tested in tests/slurm.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import waiting_sweep

from cnn_vit import files, stops
from cnn_vit.errors import StoppedError, SurroundingsError, UserError
from cnn_vit.studies import sweep, trials, workers
from cnn_vit.studies.sweeping import array_task, definition, slurm, slurm_commands
from cnn_vit.studies.trials import PlannedTrial, Trial
from cnn_vit.studies.workers import FixedSupply, StudyOptions

MOST_QUESTIONS = 100  # to a SLURM where nothing takes long
PATIENCE = 600  # seconds until a task that goes nowhere fails its test


def make_trials(out, count=3):
    """So many trials, of which nothing is done."""
    planned = []
    for number in range(count):
        trial = Trial("train", "configs/digits_mlp.py", name=f"rate={number}")
        trial_id = f"{number:016x}"
        planned.append(PlannedTrial(trial, trial_id, out / trials.TRIALS / trial_id, None, "", "", steps=4))
    return planned


# What the user may say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        ("--partition=gpu --time=2:00:00 --gres=gpu:1", ("--partition=gpu", "--time=2:00:00", "--gres=gpu:1")),
        ("-p gpu --mem 4G", ("-p", "gpu", "--mem", "4G")),
        ("--comment='two words' --exclusive", ("--comment=two words", "--exclusive")),
        ("-Hpwide -x n1", ("-Hpwide", "-x", "n1")),  # "wide" is the value of -p, and no letters of options
        ("--wait-all-nodes=1 --export=NONE", ("--wait-all-nodes=1", "--export=NONE")),
    ],
)
def test_options_of_sbatch_are_split_as_a_shell_does(text, words):
    assert slurm.read_options(text) == words


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("--array=0-3", "--array=0-3 cannot stand in --slurm: the array is made of the trials without a result"),
        ("--partition=x -a 0-3", "-a cannot stand in --slurm: the array is made"),
        ("--arr=1", "--arr=1 cannot stand in --slurm: the array is made"),  # sbatch takes it for --array
        ("-Ha1", "-Ha1 cannot stand in --slurm: the array is made"),
        ("--wrap=ls", "brings its own script"),
        ("-o out.log", "what tasks print goes to OUT/slurm"),
        ("-W", "waits for its tasks by itself"),
        ("--clusters=far", "SLURM_CLUSTERS"),
        ("gpu", "'gpu' in --slurm is not an option of sbatch; write options as --partition=NAME"),
        ("--time=1 gpu", "'gpu' in --slurm is not an option"),
        ("-p gpu run.sh", "'run.sh' in --slurm is not an option"),
        ("--", "'--' in --slurm is not an option"),
        ("--comment='a", "cannot be split into words"),
    ],
)
def test_options_that_would_break_the_array_are_refused(text, cause):
    with pytest.raises(UserError) as error:
        slurm.read_options(text)
    assert cause in str(error.value)
    assert error.value.code == 2


def test_what_slurm_cannot_do_is_refused_before_anything_is_written(tmp_path):
    defined = definition.from_call(lambda values: 1.0, {"x": [1.5]}, sampler="grid", mode="max")
    for text, cause in (
        ("--array=1", "the array is made of"),
        ("--time=1", "write it into a file and give FILE.py:NAME"),
    ):
        with pytest.raises(UserError, match=cause):
            sweep.run_sweep(defined, tmp_path / "out", sweep.SweepOptions(slurm=text))
    assert not (tmp_path / "out").exists()


# Submit ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Gives a function that puts a stand-in for a command of SLURM on PATH; it notes its arguments, one a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, *, stdout="", stderr="", code=0):
        calls = folder / f"{name}.calls"
        path = folder / name
        path.write_text(
            f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {calls}\ncat <<'END'\n{stdout}\nEND\ncat >&2 <<'END'\n{stderr}\nEND\n"
            f"exit {code}\n"
        )
        path.chmod(0o755)
        return calls

    return put


def test_the_script_is_a_line_that_becomes_the_task(tmp_path, monkeypatch):
    python = tmp_path / "my python"
    python.write_text('#!/bin/sh\nprintf "%s|" "$$" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    out = tmp_path / "it's a sweep; $HOME"
    listing = out / "slurm" / "0001.json"
    script = tmp_path / "0001.sh"
    script.write_text(slurm.make_script(out, listing))
    lines = script.read_text().splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("exec ")
    environ = {**os.environ, "SLURM_ARRAY_JOB_ID": "71", "SLURM_ARRAY_TASK_ID": "3"}
    process = subprocess.Popen(["sh", str(script)], env=environ, stdout=subprocess.PIPE, text=True)
    stdout, _ = process.communicate(timeout=PATIENCE)
    words = ["-m", "cnn_vit.studies.sweeping.array_task", str(out), str(listing), "71", "3"]
    assert stdout.split("|")[:-1] == [str(process.pid), *words]  # the shell's own number: it gets SLURM's signals


def test_an_array_is_submitted_with_the_users_options_between_defaults_and_what_trials_depend_on(tmp_path, stand_ins):
    calls = stand_ins("sbatch", stdout="4711;far")
    out = tmp_path / "100% sweep"
    options = StudyOptions(threads=2)
    job = slurm.submit(make_trials(out), out, options, ("--signal=B:TERM@9", "--array=7"), most=2)
    assert job == "4711"
    words = calls.read_text().splitlines()
    assert words == [
        "--requeue",
        "--signal=B:USR1@60",
        "--open-mode=append",
        "--job-name=sweep-100% sweep",
        "--cpus-per-task=2",
        "--signal=B:TERM@9",
        "--array=7",
        "--parsable",
        "--array=0-2%2",
        f"--output={tmp_path}/100%% sweep/slurm/0001-%a.log",
        f"{out}/slurm/0001.sh",
    ]
    listing = json.loads((out / "slurm" / "0001.json").read_text())
    assert [task["id"] for task in listing["tasks"]] == [f"{number:016x}" for number in range(3)]
    assert (listing["threads"], listing["keep"]) == (2, "best")
    slurm.submit(make_trials(out)[:1], out, options, ())
    assert calls.read_text().splitlines()[-3:-1] == [
        "--array=0-0",
        f"--output={tmp_path}/100%% sweep/slurm/0002-%a.log",
    ]


def test_without_slurm_a_sentence_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SurroundingsError, match=r"sbatch cannot be run \(No such file .*--workers=N instead") as error:
        slurm.submit(make_trials(tmp_path), tmp_path, StudyOptions(), ())
    assert error.value.code == 3


@pytest.mark.parametrize(
    ("stderr", "code", "sentence"),
    [
        (
            "sbatch: error: invalid partition specified: wide\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            2,
            "sbatch refused: invalid partition specified: wide; Batch job submission failed: Invalid partition name "
            "specified; mend the options in --slurm",
        ),
        (
            "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
            3,
            "sbatch failed: Batch job submission failed: Unable to contact slurm controller (connect failure); look "
            "with sinfo how SLURM is, then give the same command again",
        ),
    ],
)
def test_a_refused_array_is_a_sentence_and_leaves_nothing_behind(tmp_path, stand_ins, stderr, code, sentence):
    stand_ins("sbatch", stderr=stderr, code=1)
    with pytest.raises(UserError) as error:
        slurm.submit(make_trials(tmp_path), tmp_path, StudyOptions(), ())
    assert (str(error.value), error.value.code) == (sentence, code)
    assert list((tmp_path / "slurm").iterdir()) == []


# Ask ------------------------------------------------------------------------------------------------------------------


def test_only_tasks_of_this_sweep_are_read_from_the_queue(tmp_path, stand_ins):
    stand_ins("sbatch", stdout="12")
    slurm.submit(make_trials(tmp_path), tmp_path, StudyOptions(), ())
    script = tmp_path / "slurm" / "0001.sh"
    lines = [
        f"12|0|RUNNING|None|{script}",
        f"12|2|PENDING|Resources|{script}",
        "13|0|RUNNING|None|/elsewhere/slurm/0001.sh",
        "14|N/A|RUNNING|None|/elsewhere/run.sh",
        "15|1|RUNNING|None|(null)",
    ]
    calls = stand_ins("squeue", stdout="\n".join(lines))
    tasks = slurm.ask_queue(tmp_path)
    assert [(task.id[-1], task.job, task.state, task.reason) for task in tasks] == [
        ("0", "12", "RUNNING", "None"),
        ("2", "12", "PENDING", "Resources"),
    ]
    assert f"--user={os.getuid()}" in calls.read_text()
    assert slurm.queue_states(tmp_path) == {f"{0:016x}": "RUNNING", f"{2:016x}": "PENDING (Resources)"}
    stand_ins("squeue", stderr="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert slurm.queue_states(tmp_path) == {}
    assert slurm.ask_queue(tmp_path) is None


def test_a_sweep_is_cancelled_as_whole_arrays(tmp_path, stand_ins):
    assert slurm.cancel(tmp_path) == 0  # nothing was submitted, so that nobody is asked
    stand_ins("sbatch", stdout="12")
    slurm.submit(make_trials(tmp_path), tmp_path, StudyOptions(), ())
    script = tmp_path / "slurm" / "0001.sh"
    stand_ins("squeue", stdout=f"12|0|RUNNING|None|{script}\n12|1|PENDING|None|{script}\n9|2|PENDING|None|{script}")
    calls = stand_ins("scancel")
    assert slurm.cancel(tmp_path) == 3
    assert calls.read_text().split() == ["12", "9"]


@pytest.mark.parametrize(("stdout", "limit"), [("MaxArraySize            = 201", 200), ("", 1000)])
def test_the_number_of_tasks_in_an_array_is_slurms(stand_ins, stdout, limit):
    stand_ins("scontrol", stdout=stdout)
    assert slurm.read_array_limit() == limit


# Requeue --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queue", "code", "stderr", "is_asked", "answer"),
    [
        ("RUNNING None", 0, "", True, ""),
        ("COMPLETING TimeLimit", 0, "", True, ""),
        ("COMPLETING None", 0, "", False, "SLURM is ending task 12_3 already, so that it is not queued again"),
        ("PENDING BeginTime", 1, "12_3: Job is pending execution", True, ""),  # it was queued again before
        ("RUNNING None", 1, "Access/permission denied", True, "scontrol refused: Access/permission denied"),
    ],
)
def test_a_task_is_queued_again_unless_somebody_else_is_ending_it(stand_ins, queue, code, stderr, is_asked, answer):
    stand_ins("squeue", stdout=queue)
    calls = stand_ins("scontrol", stderr=stderr, code=code)
    assert slurm_commands.requeue("12_3").startswith(answer)
    assert bool(slurm_commands.requeue("12_3")) == bool(answer)
    assert calls.exists() == is_asked
    if is_asked:
        assert calls.read_text().split()[:2] == ["requeue", "12_3"]


# Follow ---------------------------------------------------------------------------------------------------------------


class FakeSlurm:
    """A SLURM that holds its tasks in this process.

    Attributes:
        tasks: state of each task by (job, index).
        arrays: of each job the path of its script, and its option --array.
        cancelled: the jobs that were cancelled.
        running_before: at each submission, how many tasks there were.
        questions: how often the queue was asked for.
        behave: called with the id of each task at each question for the queue; returns the task's new state, "" for one
            that is gone.
        at_question: called with the number of each question, from 1.
    """

    def __init__(self):
        self.running_before = []
        self.questions = 0
        self.at_question = lambda number: None
        self.tasks = {}
        self.arrays = {}
        self.cancelled = []
        self.limit = 1000
        self.behave = lambda trial_id: "RUNNING"

    def ask(self, words):
        answers = {"sbatch": self.sbatch, "squeue": self.squeue, "scancel": self.scancel, "scontrol": self.config}
        return SimpleNamespace(returncode=0, stdout=answers[words[0]](words), stderr="")

    def sbatch(self, words):
        self.running_before.append(sum(bool(state) for state in self.tasks.values()))
        job = str(len(self.arrays) + 1)
        (array,) = [word.removeprefix("--array=") for word in words if word.startswith("--array=")]
        self.arrays[job] = (Path(words[-1]), array)
        for index, _ in enumerate(self.ids(job)):
            self.tasks[job, index] = "RUNNING"
        return job

    def ids(self, job):
        return [task["id"] for task in json.loads(self.arrays[job][0].with_suffix(".json").read_text())["tasks"]]

    def squeue(self, words):
        self.questions += 1
        assert self.questions < MOST_QUESTIONS, "nothing goes on any more"
        self.at_question(self.questions)
        lines = []
        for (job, index), state in list(self.tasks.items()):
            self.tasks[job, index] = state and self.behave(self.ids(job)[index])
            if self.tasks[job, index]:
                lines.append(f"{job}|{index}|{self.tasks[job, index]}|None|{self.arrays[job][0]}")
        return "\n".join(lines)

    def scancel(self, words):
        self.cancelled += words[1:]
        for job, index in self.tasks:
            if job in self.cancelled:
                self.tasks[job, index] = ""
        return ""

    def config(self, words):
        return f"MaxArraySize            = {self.limit + 1}"


@pytest.fixture
def fake(monkeypatch):
    """A SLURM that answers at once; nobody waits between two looks at it."""
    fake = FakeSlurm()
    monkeypatch.setattr(slurm, "ask_slurm", fake.ask)
    monkeypatch.setattr(slurm, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(slurm, "LOOKS_PER_QUESTION", 1)
    return fake


def run(planned, out, *, options="", most=None, supply=None):
    """Lets SLURM do trials; returns what `slurm.run` does."""
    supply = supply or FixedSupply(planned, 4 * len(planned))
    with stops.handle_signals() as stop:
        return slurm.run(supply, out, options, StudyOptions(), stop, most=most)


def completing(planned):
    """A behavior of tasks: each writes its result, and is gone."""
    by_id = {one.id: one for one in planned}

    def behave(trial_id):
        trials.write_result(by_id[trial_id], trials.COMPLETE, result={"steps": 4})
        return ""

    return behave


def dying(planned):
    """A behavior of tasks: each begins its trial, and dies without a word."""
    by_id = {one.id: one for one in planned}

    def behave(trial_id):
        trials.note_start(by_id[trial_id])
        return ""

    return behave


def test_slurm_does_the_trials_of_a_sweep(tmp_path, fake, capfd):
    planned = make_trials(tmp_path)
    fake.behave = completing(planned)
    assert run(planned, tmp_path) == ""
    assert [array for _, array in fake.arrays.values()] == ["0-2"]
    assert "SLURM has job 1 of 3 tasks" in capfd.readouterr().err
    assert run([], tmp_path) == ""
    assert len(fake.arrays) == 1


def test_tasks_of_an_earlier_start_are_followed_and_the_other_trials_submitted(tmp_path, fake):
    planned = make_trials(tmp_path)
    slurm.submit(planned[:2], tmp_path, StudyOptions(), ())
    over = completing(planned)
    asked = []

    def behave(trial_id):
        asked.append(trial_id)
        return "RUNNING" if asked.count(trial_id) < 2 else over(trial_id)

    fake.behave = behave
    assert run(planned, tmp_path) == ""
    assert fake.ids("2") == [planned[2].id]


def test_a_task_that_slurm_is_ending_is_not_followed(tmp_path, fake):
    planned = make_trials(tmp_path, 1)
    slurm.submit(planned, tmp_path, StudyOptions(), ())
    over = completing(planned)
    fake.behave = lambda trial_id: over(trial_id) if len(fake.arrays) == 2 else "COMPLETING"
    assert run(planned, tmp_path) == ""
    assert len(fake.arrays) == 2


def test_a_followed_task_that_leaves_no_result_is_submitted_once(tmp_path, fake):
    planned = make_trials(tmp_path, 1)
    slurm.submit(planned, tmp_path, StudyOptions(), ())
    asked = []

    def behave(trial_id):
        asked.append(trial_id)
        return "RUNNING" if len(asked) == 1 else ""

    fake.behave = behave
    with pytest.raises(SurroundingsError, match="ended without a result"):
        run(planned, tmp_path)
    assert len(fake.arrays) == 2


def test_a_task_that_ends_without_a_result_does_not_keep_the_others_from_theirs(tmp_path, fake):
    planned = make_trials(tmp_path)
    over = completing(planned)
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "0001-0.log").write_text("one\nslurmstepd: error: *** JOB 1 CANCELLED ***\n\n")
    asked = []

    def behave(trial_id):
        asked.append(trial_id)
        if trial_id == planned[0].id:
            return ""
        return "RUNNING" if asked.count(trial_id) < 8 else over(trial_id)

    fake.behave = behave
    with pytest.raises(SurroundingsError) as error:
        run(planned, tmp_path)
    assert str(error.value) == (
        "the tasks of 1 trials ended without a result, as those do that are cancelled or out of time (rate=0: "
        f"{tmp_path}/slurm/0001-0.log ends with: slurmstepd: error: *** JOB 1 CANCELLED ***); the same command submits "
        "them again"
    )
    assert [trials.is_over(one) for one in planned] == [False, True, True]
    fake.behave = over
    assert run(planned[:1], tmp_path) == ""
    assert fake.ids("2") == [planned[0].id]


def test_a_trial_whose_process_dies_is_done_again_until_it_has_died_three_times(tmp_path, fake, capfd):
    planned = make_trials(tmp_path, 2)
    die, over = dying(planned), completing(planned)
    fake.behave = lambda trial_id: die(trial_id) if trial_id == planned[0].id else over(trial_id)
    assert run(planned, tmp_path) == ""
    record = trials.read_record(planned[0])
    assert (record.state, record.reason) == (
        "crashed",
        "its process died at SLURM, 3 times without getting further",
    )
    assert trials.read_record(planned[1]).state == "complete"
    assert [fake.ids(job) for job in fake.arrays] == [[one.id for one in planned], [planned[0].id], [planned[0].id]]
    assert "the process of rate=0 died at SLURM; it is done again" in capfd.readouterr().err


def test_a_trial_that_was_asked_to_stop_has_not_died(tmp_path, fake):
    planned = make_trials(tmp_path, 1)

    def behave(trial_id):
        trials.note_start(planned[0])
        trials.note_stop(planned[0])
        return ""

    fake.behave = behave
    with pytest.raises(SurroundingsError, match="no task of it has begun"):
        run(planned, tmp_path)
    assert len(fake.arrays) == 1


def test_slurm_that_does_not_answer_makes_no_task_end(tmp_path, fake, monkeypatch):
    planned = make_trials(tmp_path, 1)
    over = completing(planned)
    questions = []

    def ask(words):
        if words[0] == "squeue":
            questions.append(words)
            if len(questions) < 9:
                return SimpleNamespace(returncode=1, stdout="", stderr="Unable to contact slurm controller")
        return fake.ask(words)

    monkeypatch.setattr(slurm, "ask_slurm", ask)
    fake.behave = over
    assert run(planned, tmp_path) == ""
    assert len(questions) > 8
    assert len(fake.arrays) == 1


def test_an_array_has_no_more_tasks_than_slurm_allows(tmp_path, fake):
    planned = make_trials(tmp_path, 5)
    fake.limit = 2
    fake.behave = completing(planned)
    assert run(planned, tmp_path) == ""
    assert [len(fake.ids(job)) for job in fake.arrays] == [2, 2, 1]


def test_no_more_tasks_are_under_way_than_the_user_allows(tmp_path, fake):
    """A supply that gives more trials while others are under way, as of a sampler that learns."""
    planned = make_trials(tmp_path, 4)
    over = completing(planned)

    class Supply(FixedSupply):
        def take(self):
            taken, self._left = self._left[:3], self._left[3:]
            return taken

    def behave(trial_id):  # one trial after another is over, at every third question
        number = int(trial_id, 16)
        return over(trial_id) if fake.questions >= 3 * (number + 1) else "RUNNING"

    fake.behave = behave
    assert run(planned, tmp_path, most=2, supply=Supply(planned, 16)) == ""
    assert [array for _, array in fake.arrays.values()] == ["0-2%2", "0-0%2"]
    assert fake.running_before == [0, 1]


def test_a_result_that_is_seen_late_is_waited_for(tmp_path, fake):
    planned = make_trials(tmp_path, 1)
    over = completing(planned)
    fake.behave = lambda trial_id: ""
    fake.at_question = lambda number: over(planned[0].id) if number == 3 else None  # SLURM has no task at the second
    assert run(planned, tmp_path) == ""
    assert len(fake.arrays) == 1


def test_a_reason_to_end_cancels_the_tasks(tmp_path, fake):
    planned = make_trials(tmp_path)

    class Supply(FixedSupply):
        def reason_to_end(self):
            return "cancelled" if fake.arrays else ""

    assert run(planned, tmp_path, supply=Supply(planned, 12)) == "cancelled"
    assert fake.cancelled == ["1"]


def test_a_sweep_that_is_stopped_leaves_its_tasks_alone(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(stops, "ECHO_SECONDS", 0.0)

    def behave(trial_id):
        os.kill(os.getpid(), signal.SIGINT)
        return "RUNNING"

    fake.behave = behave
    with pytest.raises(
        StoppedError, match="stopped by SIGINT; its tasks at SLURM go on: the same command follows them"
    ):
        run(make_trials(tmp_path, 1), tmp_path)
    assert fake.cancelled == []


# A task ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "threads", "cores"), [(0, 1, [4]), (1, 1, [5]), (3, 1, [4]), (1, 2, [7, 4]), (5, 3, [4, 5, 7])]
)
def test_tasks_of_one_machine_compute_on_different_cores_of_those_that_slurm_allows(monkeypatch, index, threads, cores):
    monkeypatch.setattr(array_task.process, "usable_cores", lambda: [4, 5, 7])
    assert array_task.choose_task_cores(index, threads) == cores


def test_a_task_with_fewer_cores_than_its_trial_computes_on_is_refused(monkeypatch):
    monkeypatch.setattr(array_task.process, "usable_cores", lambda: [4])
    with pytest.raises(UserError, match="computes on threads=2 cores, and SLURM gives a task 1"):
        array_task.choose_task_cores(0, 2)


def test_a_trial_is_stuck_once_three_starts_began_from_the_step_that_it_has_saved(tmp_path):
    (planned,) = make_trials(tmp_path, 1)
    assert not array_task.is_stuck(planned)
    for _ in range(3):
        assert not array_task.is_stuck(planned)
        trials.note_start(planned)
        trials.note_stop(planned)
    assert array_task.is_stuck(planned)
    (planned.folder / "run" / "checkpoints" / "20").mkdir(parents=True)
    assert trials.saved_step(planned) == 20
    assert not array_task.is_stuck(planned)


@pytest.fixture
def objective(tmp_path, fake, stand_ins):
    """A sweep of one trial that waits for a file, with its array; returns the words of its task, and its trial."""
    out, planned = waiting_sweep.plan_sweep(tmp_path)
    slurm.submit([planned], out, StudyOptions(), ())
    stand_ins("squeue", stdout="RUNNING None")
    yield [str(out), f"{out}/slurm/0001.json", "12", "0"], planned
    (tmp_path / "go").touch()  # for a task that a failing test leaves behind


def start_task(words):
    """Starts the process of a task."""
    command = [sys.executable, "-m", slurm.TASK_MODULE, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_events(planned):
    """What is noted of the attempts at a trial."""
    return slurm.read_attempts(planned)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_task_that_comes_to_no_safe_point_ends_soon_and_is_queued_again_after_usr1(
    objective, stand_ins, tmp_path, number
):
    words, planned = objective
    calls = stand_ins("scontrol")
    task = start_task(words)
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        assert task.poll() is None, task.stderr.read()
        time.sleep(0.01)
    task.send_signal(number)
    task.send_signal(number)  # SLURM sends one twice now and then
    time.sleep(1.5 * stops.ECHO_SECONDS)
    task.send_signal(signal.SIGTERM)  # and another one later
    _, stderr = task.communicate(timeout=PATIENCE)
    assert task.returncode == 128 + number
    assert read_events(planned) == ["start", "stop"]
    assert not trials.is_over(planned)
    if number == signal.SIGUSR1:
        assert calls.read_text().split() == ["requeue", "12_0"]
        assert stderr.splitlines()[-1] == "SLURM has queued task 12_0 again"
    else:
        assert not calls.exists()


def test_a_task_does_its_trial_and_one_whose_trial_is_over_does_nothing(objective, tmp_path):
    words, planned = objective
    (tmp_path / "go").touch()
    task = start_task(words)
    _, stderr = task.communicate(timeout=PATIENCE)
    assert task.returncode == 0, stderr
    record = trials.read_record(planned)
    assert (record.state, record.result["value"]) == ("complete", 1.5)
    again = start_task(words)
    _, stderr = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert stderr.splitlines()[-1] == f"trial {planned.id} is over; there is nothing left to do"
    assert read_events(planned) == ["start"]


def test_a_trial_that_has_died_three_times_is_not_begun_again(objective):
    words, planned = objective
    for _ in range(workers.MOST_DEATHS):
        trials.note_start(planned)
    task = start_task(words)
    task.communicate(timeout=PATIENCE)
    assert task.returncode == 0
    assert trials.read_record(planned).state == trials.CRASHED


def test_a_task_that_cannot_see_the_sweep_says_so(tmp_path):
    task = start_task([str(tmp_path), f"{tmp_path}/slurm/0001.json", "12", "0"])
    _, stderr = task.communicate(timeout=PATIENCE)
    assert task.returncode == 3
    assert stderr.splitlines()[-1].endswith("must lie on a disk that all its nodes share")


def test_the_stop_of_another_process_is_not_noted(tmp_path):
    (planned,) = make_trials(tmp_path, 1)
    trials.note_start(planned)
    array_task.note_stop(planned)
    assert read_events(planned) == ["start"]
    with files.Lock(planned.folder / trials.LOCK):
        array_task.note_stop(planned)
    assert read_events(planned) == ["start", "stop"]
    trials.note_start(planned)
    array_task.note_stop(planned)  # the file of the lock still names this process, which does not hold it any more
    assert read_events(planned) == ["start", "stop", "start"]
