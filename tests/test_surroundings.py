"""The command line in odd surroundings: it works, or says in one line why not. Real processes, real limits."""

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
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # Python makes more of LANG=C by itself
NAMELESS = "unshare --map-user=54321 --map-group=54321 {}"  # numbers of a user and a group that /etc/passwd lacks
CUT_OFF = "unshare --map-root-user --net {}"  # a network without so much as a loopback
NOWHERE = "/proc/nowhere"  # a folder that nobody can make, root neither


def descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def private():
    os.umask(0o077)


def here(*words, without=(), env=None, shell="{}", **named):
    """Runs a command: exit code, stdout, lines of stderr. `shell` is what a shell makes of it, `{}`."""
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "cnn_vit", *words))
    environ = {key: value for key, value in {**os.environ, **(env or {})}.items() if key not in without}
    environ["PYTHONPATH"] = str(TOP)
    done = subprocess.run(["bash", "-c", shell.format(command)], capture_output=True, env=environ, check=False, **named)
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return done.returncode, out, err.splitlines()


CACHE = ("CNN_VIT_CACHE", "JAX_COMPILATION_CACHE_DIR")  # of the tests: what stands in the way of one is to be met
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
    "64 file descriptors": dict(preexec_fn=descriptors),
    "umask 077": dict(preexec_fn=private),
    "no stderr": dict(shell="{} 2>&-"),
    "a full stderr": dict(shell="{} 2>/dev/full"),
    "a stderr that nobody reads": dict(shell="exec 2> >(true); sleep 0.2; {}"),
    "an unknown terminal": dict(env={"TERM": "nonsense"}),
    "a user without a name": dict(without=("HOME", "USER", "LOGNAME", *CACHE), shell=NAMELESS),
    "no network": dict(shell=CUT_OFF),
}
QUIET = {  # stdout is not to be seen
    "no stdout": dict(shell="{} >&-"),
    "no streams at all": dict(shell="{} <&- >&- 2>&-"),
}


@functools.cache
def possible(shell):
    """Whether this machine allows it: namespaces of one's own are forbidden in some containers."""
    return not subprocess.run(["bash", "-c", shell.format("true")], capture_output=True, check=False).returncode


@pytest.fixture
def surroundings(name):
    """What `here` takes for them."""
    found = (SURROUNDINGS | QUIET)[name]
    if (shell := found.get("shell", "")).startswith("unshare") and not possible(shell):
        pytest.skip(f"not to be had here: {shell.format('...')} is refused")
    return found


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_a_cheap_command_gives_its_answer(name, surroundings, tmp_path):
    words = SHOW if "home" in name or "name" in name or "descriptors" in name else LIST
    code, out, err = here(*words, "--json", cwd=tmp_path, **surroundings)
    assert code == 0
    assert json.loads(out).keys() >= ({"recipes"} if words == LIST else {"values"})
    assert len(err) == ("stderr" not in name)  # the next command
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["no network"])
def test_what_must_be_downloaded_is_one_line_that_says_where_to_put_it(name, surroundings, tmp_path):
    words = ("train", f"--config={TOP}/configs/mnist_lenet.py:smoke", "--config.data.name=mnist", "--workdir=run")
    env = {"CNN_VIT_CACHE": f"{tmp_path}/cache", "CNN_VIT_MIRROR": ""}
    code, out, err = here(*words, cwd=tmp_path, env=env, **surroundings)
    assert (code, out) == (3, "")
    assert err[-1].startswith("no train-images-idx3-ubyte.gz: ")
    assert f"put it at {tmp_path}/cache/data/mnist/train-images-idx3-ubyte.gz (9,912,422 bytes, sha25" in err[-1]


@pytest.mark.parametrize("name", QUIET)
def test_a_closed_stdout_is_no_fault(name, tmp_path):
    assert here(*LIST, cwd=tmp_path, **QUIET[name])[0] == 0


def test_an_answer_that_nobody_reads_ends_as_a_shell_expects(tmp_path):
    code, _, err = here(*LIST, cwd=tmp_path, shell="({}; echo $? >&2) | true")
    assert (code, err) == (0, ["141"])


def test_a_full_stdout_is_one_line(tmp_path):
    for words in (LIST, ("--help",)):
        code, _, (line,) = here(*words, cwd=tmp_path, shell="{} >/dev/full")
        assert (code, line) == (
            3, "the answer cannot be written to stdout (No space left on device); send it elsewhere"
        )  # fmt: skip


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    code, out, (line,) = here(*LIST, cwd=tmp_path, shell="mkdir gone; cd gone; rmdir ../gone; {}")
    assert (code, out) == (3, "")
    assert line == "the current folder is gone (No such file or directory); go to another one (cd)"


def test_a_run_folder_that_no_checkpoint_could_lie_in_is_refused_before_the_first_step(tmp_path):
    code, _, (line,) = here(*TRAIN, "--workdir=rüns", cwd=tmp_path, env=ASCII)
    assert (code, line) == (3, r"r\udcc3\udcbcns is no name in UTF-8; choose another, or set LC_ALL=C.UTF-8")
    assert not list(tmp_path.iterdir())


# A whole run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A run folder as usual surroundings write it."""
    folder = tmp_path_factory.mktemp("usual")
    code, _, _ = here(*TRAIN, "--workdir=run", cwd=folder)
    assert code == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SURROUNDINGS, *QUIET])
def test_a_run_is_the_same_in_all_of_them(name, surroundings, usual, tmp_path):
    plain = name == "no letters but ASCII"
    folder, workdir = (tmp_path, "my run") if plain else (tmp_path / "a path with blänks", "mein Läuf")
    folder.mkdir(exist_ok=True)
    code, out, err = here(*TRAIN, f"--workdir={workdir}", cwd=folder, **surroundings)
    assert code == 0
    run = folder / workdir
    assert (run / "metrics.jsonl").read_bytes() == (usual / "metrics.jsonl").read_bytes()
    assert (run / "report.html").exists()
    told = [line for line in err if not re.match(r"step \d+ of 20", line)]
    assert told == []
    assert name in QUIET or out.splitlines()[-1] == f"next: cnn-vit predict '--workdir={workdir}' PICTURE ..."
    if name == "umask 077":
        assert not [path for path in run.rglob("*") if path.stat().st_mode & 0o077]


def pictures(root):
    """Six images of each of two classes."""
    for at in range(12):
        path = root / ("cats", "dogs")[at % 2] / f"{at:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(at).integers(0, 256, (8, 8), np.uint8)).save(path)


@pytest.mark.parametrize("name", ["no home", "a user without a name"])
def test_a_folder_is_looked_at(name, surroundings, tmp_path):
    pictures(tmp_path / "photos")
    code, out, err = here("doctor", "--data=photos", "--json", cwd=tmp_path, **surroundings)
    found = json.loads(out)
    assert (code, found["images"], found["classes"]) == (0, 12, ["cats", "dogs"])
    assert err == ["next: cnn-vit doctor --data=photos --images=images.svg"]


@pytest.fixture(scope="module")
def answers(usual, tmp_path_factory):
    """What the other commands say of that run and of images in usual surroundings."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copytree(usual, folder / "run")
    return said_by_all(folder, {})


def said_by_all(folder, given):
    """The answers of doctor, predict and report, and what `new` finds out that takes no clock."""
    pictures(folder / "photos")
    found = {}
    for words in (("doctor", "--data=photos"), ("predict", "--workdir=run", "photos/cats"), ("report", "run"), NEW):
        code, out, _ = here(*words, "--json", cwd=folder, **given)
        assert code == 0, words
        found[words[0]] = json.loads(out)
    found["new"] = {key: found["new"][key] for key in ("recipe", "classes", "counts", "image_shape", "model")}
    found["recipe"] = (folder / "photos.py").exists()
    return found | {"page": (folder / "run" / "report.html").read_bytes()}


NEW = ("new", "photos", "--minutes=0.1")


@pytest.mark.slow
@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_other_commands_say_the_same_in_all_of_them(name, surroundings, usual, answers, tmp_path):
    shutil.copytree(usual, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert said_by_all(tmp_path, surroundings) == answers


@pytest.mark.slow
def test_a_run_whose_answer_cannot_be_told_is_whole_all_the_same(usual, tmp_path):
    for name, shell, wanted in [
        ("full", "{} >/dev/full", 3),
        ("unread", "({}; exit $?) | true; exit ${{PIPESTATUS[0]}}", 141),
    ]:
        code, _, _ = here(*TRAIN, f"--workdir={name}", cwd=tmp_path, shell=shell)
        assert code == wanted
        assert (tmp_path / name / "metrics.jsonl").read_bytes() == (usual / "metrics.jsonl").read_bytes()
        assert (tmp_path / name / "report.html").exists()
