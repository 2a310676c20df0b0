"""The command line in odd surroundings: it works, or says in one line why not.

All commands run as processes of their own, under real limits of the operating system.
"""

import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOP = Path(__file__).parents[1]
LIST, SHOW = ("list",), ("train", f"--config={TOP}/configs/digits_mlp.py", "--show")
TRAIN = (
    "train", f"--config={TOP}/configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.duration=20",
    "--config.schedule.warmup=0", "--config.evaluate_every=10", "--config.checkpoint_every=10",
)  # fmt: skip
# LANG=C alone is not enough: Python then turns to UTF-8 by itself.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMELESS = "unshare --map-user=54321 --map-group=54321 {}"  # a user and a group that /etc/passwd does not list
NO_NETWORK = "unshare --map-root-user --net {}"  # a network without even a loopback
NOWHERE = "/proc/nowhere"  # a folder that nobody can make, not even root


def limit_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def set_private_umask():
    os.umask(0o077)


def run_command(*words, without=(), env=None, shell="{}", **options):
    """Runs a command in a shell, and checks that it prints no traceback.

    Args:
        words: the words behind `cnn-vit`.
        without: environment variables that are taken away.
        env: environment variables that are added.
        shell: the line of the shell, in which {} stands for the command.
        options: for `subprocess.run`.

    Returns:
        The exit code, stdout, and the lines of stderr.
    """
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "cnn_vit", *words))
    environ = os.environ | (env or {})
    for variable in without:
        environ.pop(variable, None)
    environ["PYTHONPATH"] = str(TOP)
    line = ["bash", "-c", shell.format(command)]
    process = subprocess.run(line, capture_output=True, env=environ, check=False, **options)
    stdout, stderr = process.stdout.decode(errors="replace"), process.stderr.decode(errors="replace")
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr
    return process.returncode, stdout, stderr.splitlines()


# The tests' own caches are taken away where the command shall meet a cache that it cannot make.
CACHE = ("CNN_VIT_CACHE", "JAX_COMPILATION_CACHE_DIR")
# For each, the arguments of `run_command`.
SURROUNDINGS = {
    "no home": dict(without=("HOME", *CACHE)),
    "a home that cannot be made": dict(without=CACHE, env={"HOME": NOWHERE}),
    "a file for a home": dict(without=CACHE, env={"HOME": __file__}),
    "a cache that cannot be made": dict(without=CACHE[1:], env={"CNN_VIT_CACHE": NOWHERE}),
    "no place for temporary files": dict(env={"TMPDIR": NOWHERE}),
    "no TMPDIR": dict(without=("TMPDIR",)),
    "LANG=C": dict(env={"LANG": "C", "LC_ALL": "C"}),
    "no letters but ASCII": dict(env=ASCII),
    "an unknown locale": dict(shell="env LC_ALL=xx_XX.UTF-9 {}"),
    "64 file descriptors": dict(preexec_fn=limit_descriptors),
    "umask 077": dict(preexec_fn=set_private_umask),
    "no stderr": dict(shell="{} 2>&-"),
    "a full stderr": dict(shell="{} 2>/dev/full"),
    "a stderr that nobody reads": dict(shell="exec 2> >(true); sleep 0.2; {}"),
    "an unknown terminal": dict(env={"TERM": "nonsense"}),
    "a user without a name": dict(without=("HOME", "USER", "LOGNAME", *CACHE), shell=NAMELESS),
    "no network": dict(shell=NO_NETWORK),
}
# One of each kind of surroundings: another home, cache, place, alphabet, limit, stream, user or network.
OF_EACH_KIND = (
    *("no home", "a cache that cannot be made", "no place for temporary files", "no letters but ASCII"),
    *("64 file descriptors", "umask 077", "a stderr that nobody reads", "a user without a name", "no network"),
)
QUIET = {  # surroundings in which stdout cannot be seen
    "no stdout": dict(shell="{} >&-"),
    "no streams at all": dict(shell="{} <&- >&- 2>&-"),
}


@functools.cache
def is_possible(shell):
    """Whether this machine allows such a line of the shell: some containers forbid namespaces of one's own."""
    process = subprocess.run(["bash", "-c", shell.format("true")], capture_output=True, check=False)
    return process.returncode == 0


@pytest.fixture
def surroundings(name):
    """The arguments of `run_command` for the named surroundings; a machine that refuses them skips the test."""
    arguments = (SURROUNDINGS | QUIET)[name]
    shell = arguments.get("shell", "")
    if shell.startswith("unshare") and not is_possible(shell):
        pytest.skip(f"this machine refuses {shell.format('...')}")
    return arguments


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.slow) for name in SURROUNDINGS]
)
def test_a_cheap_command_gives_its_answer(name, surroundings, tmp_path):
    words = SHOW if "home" in name or "name" in name or "descriptors" in name else LIST
    code, out, err = run_command(*words, "--json", cwd=tmp_path, **surroundings)
    assert code == 0
    assert json.loads(out).keys() >= ({"recipes"} if words == LIST else {"values"})
    assert len(err) == ("stderr" not in name)  # one line, the next command
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["no network"])
def test_what_must_be_downloaded_is_one_line_that_says_where_to_put_it(name, surroundings, tmp_path):
    words = ("train", f"--config={TOP}/configs/mnist_lenet.py:smoke", "--config.data.name=mnist", "--workdir=run")
    env = {"CNN_VIT_CACHE": f"{tmp_path}/cache", "CNN_VIT_MIRROR": ""}
    code, out, err = run_command(*words, cwd=tmp_path, env=env, **surroundings)
    assert (code, out) == (3, "")
    assert err[-1].startswith("no train-images-idx3-ubyte.gz: ")
    assert f"put it at {tmp_path}/cache/data/mnist/train-images-idx3-ubyte.gz (9,912,422 bytes, sha25" in err[-1]


@pytest.mark.parametrize("name", QUIET)
def test_a_closed_stdout_is_not_an_error(name, tmp_path):
    assert run_command(*LIST, cwd=tmp_path, **QUIET[name])[0] == 0


def test_an_answer_that_nobody_reads_ends_as_a_shell_expects(tmp_path):
    code, _, err = run_command(*LIST, cwd=tmp_path, shell="({}; echo $? >&2) | true")
    assert (code, err) == (0, ["141"])


def test_a_full_stdout_is_one_line(tmp_path):
    for words in (LIST, ("--help",)):
        code, _, (line,) = run_command(*words, cwd=tmp_path, shell="{} >/dev/full")
        assert (code, line) == (
            3, "the answer cannot be written to stdout (No space left on device); send it elsewhere"
        )  # fmt: skip


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    code, out, (line,) = run_command(*LIST, cwd=tmp_path, shell="mkdir gone; cd gone; rmdir ../gone; {}")
    assert (code, out) == (3, "")
    assert line == "the current folder is gone (No such file or directory); go to another one (cd)"


def test_a_run_folder_whose_name_no_checkpoint_takes_is_refused_before_the_first_step(tmp_path):
    code, _, (line,) = run_command(*TRAIN, "--workdir=rüns", cwd=tmp_path, env=ASCII)
    assert (code, line) == (3, r"r\udcc3\udcbcns is not a name in UTF-8; choose another, or set LC_ALL=C.UTF-8")
    assert not list(tmp_path.iterdir())


# What a run says on stderr while nothing is wrong.
EXPECTED_LINE = re.compile(r"step \d+ of 20|memory of a step: ")

# A whole run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A run folder that was written in usual surroundings."""
    folder = tmp_path_factory.mktemp("usual")
    code, _, _ = run_command(*TRAIN, "--workdir=run", cwd=folder)
    assert code == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SURROUNDINGS, *QUIET])
def test_a_run_is_the_same_in_all_of_them(name, surroundings, usual, tmp_path):
    if name == "no letters but ASCII":
        folder, workdir = tmp_path, "my run"
    else:
        folder, workdir = tmp_path / "a path with blänks", "mein Läuf"
    folder.mkdir(exist_ok=True)
    code, out, err = run_command(*TRAIN, f"--workdir={workdir}", cwd=folder, **surroundings)
    assert code == 0
    run = folder / workdir
    assert (run / "metrics.jsonl").read_bytes() == (usual / "metrics.jsonl").read_bytes()
    assert (run / "report.html").exists()
    assert [line for line in err if not EXPECTED_LINE.match(line)] == []
    assert name in QUIET or out.splitlines()[-1] == f"next: cnn-vit predict '--workdir={workdir}' IMAGE ..."
    if name == "umask 077":
        assert not [path for path in run.rglob("*") if path.stat().st_mode & 0o077]


def write_photos(root):
    """Writes a folder of two classes with six images each, of random gray pixels."""
    for number in range(12):
        path = root / ("cats", "dogs")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)).save(path)


@pytest.mark.parametrize("name", ["no home", "a user without a name"])
def test_doctor_looks_at_a_folder(name, surroundings, tmp_path):
    write_photos(tmp_path / "photos")
    code, out, err = run_command("doctor", "--data=photos", "--json", cwd=tmp_path, **surroundings)
    record = json.loads(out)
    assert (code, record["images"], record["classes"]) == (0, 12, ["cats", "dogs"])
    assert err == ["next: cnn-vit doctor --data=photos --gallery=gallery.svg"]


@pytest.fixture(scope="module")
def answers(usual, tmp_path_factory):
    """What the other commands answer in usual surroundings, about that run and about a folder of images."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copytree(usual, folder / "run")
    return collect_answers(folder, {})


def collect_answers(folder, surroundings):
    """The answers of doctor, predict and report, what `new` answers that no clock decides, and the report's page.

    Args:
        folder: where the commands run; it holds the folder `run`.
        surroundings: arguments of `run_command`.
    """
    write_photos(folder / "photos")
    answers = {}
    for words in (("doctor", "--data=photos"), ("predict", "--workdir=run", "photos/cats"), ("report", "run"), NEW):
        code, out, _ = run_command(*words, "--json", cwd=folder, **surroundings)
        assert code == 0, words
        answers[words[0]] = json.loads(out)
    answers["new"] = {key: answers["new"][key] for key in ("recipe", "classes", "counts", "image_shape", "model")}
    answers["recipe"] = (folder / "photos.py").exists()
    return answers | {"page": (folder / "run" / "report.html").read_bytes()}


NEW = ("new", "photos", "--minutes=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_EACH_KIND)
def test_the_other_commands_answer_the_same_in_each_kind_of_them(name, surroundings, usual, answers, tmp_path):
    shutil.copytree(usual, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert collect_answers(tmp_path, surroundings) == answers


@pytest.mark.slow
def test_a_run_whose_answer_cannot_be_printed_is_whole_all_the_same(usual, tmp_path):
    for name, shell, expected in [
        ("full", "{} >/dev/full", 3),
        ("unread", "({}; exit $?) | true; exit ${{PIPESTATUS[0]}}", 141),
    ]:
        code, _, _ = run_command(*TRAIN, f"--workdir={name}", cwd=tmp_path, shell=shell)
        assert code == expected
        assert (tmp_path / name / "metrics.jsonl").read_bytes() == (usual / "metrics.jsonl").read_bytes()
        assert (tmp_path / name / "report.html").exists()
