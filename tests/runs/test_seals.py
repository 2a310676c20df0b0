"""Seals: no byte of a run's sealed files changes without a word, whichever command reads the run."""

import itertools
import json
import random
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from faults import flip_bit
from PIL import Image
from running import call_at_step, committed_steps, send_signal, train
from sealing import DESCRIPTION, lines_until, seal_of, sealed_result, write_sealed_manifest

from cnn_vit import stops, trees
from cnn_vit.__main__ import main
from cnn_vit.errors import StoppedError, UserError
from cnn_vit.runs import manifests, seals
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.journal import Journal
from cnn_vit.runs.seals import RunDamageError
from cnn_vit.training import loop, trained

COMMANDS = ("load", "resume", "evaluate", "predict", "report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train("mlp", folder)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that ended at step 9, before its end. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stops, "ECHO_SECONDS", 0.0)  # here a signal has no echo to wait for
        call_at_step(patch, 9, send_signal)
        with pytest.raises(StoppedError):
            train("mlp", folder)
    return folder


# What is sealed -------------------------------------------------------------------------------------------------------


def read_manifest(folder, step):
    """The manifest of a checkpoint."""
    return json.loads((folder / "checkpoints" / str(step) / "MANIFEST.json").read_text())


def test_manifests_and_the_result_seal_what_stands_in_the_files(finished, killed):
    for run in (finished, killed):
        description = {name: seal_of((run / name).read_bytes()) for name in DESCRIPTION}
        for step in committed_steps(run):
            journal = lines_until(run, step)
            assert journal.count(b"\n") >= step // 2  # a line at every second step
            assert read_manifest(run, step)["sealed"] == description | {"metrics.jsonl": seal_of(journal)}
    result = json.loads((finished / "result.json").read_text())
    description = {name: seal_of((finished / name).read_bytes()) for name in DESCRIPTION}
    assert result["sealed"] == description | {"metrics.jsonl": seal_of((finished / "metrics.jsonl").read_bytes())}
    assert result == sealed_result(result)


def test_the_lines_that_a_checkpoint_seals_are_those_from_before_its_save(tmp_path, monkeypatch):
    """Each save is held back in its thread until the run has logged another step, or has none left."""
    path, save, flush = tmp_path / "metrics.jsonl", Checkpoints.save, Journal.flush
    sizes_at_save, sizes_at_seal = [], []

    def note_and_save(self, *args, **keywords):
        sizes_at_save.append(path.stat().st_size)
        save(self, *args, **keywords)

    def wait_and_flush(self):
        deadline = time.monotonic() + 0.5
        while path.stat().st_size == sizes_at_save[-1] and time.monotonic() < deadline:
            time.sleep(0.001)
        sizes_at_seal.append(path.stat().st_size)
        flush(self)

    monkeypatch.setattr(Checkpoints, "save", note_and_save)
    monkeypatch.setattr(Journal, "flush", wait_and_flush)
    train("mlp", tmp_path, "log_every=1", "checkpoint_every=4")
    assert any(later > earlier for earlier, later in zip(sizes_at_save, sizes_at_seal, strict=True))
    for step in committed_steps(tmp_path):
        assert read_manifest(tmp_path, step)["sealed"]["metrics.jsonl"] == seal_of(lines_until(tmp_path, step)), step


def test_a_save_reads_no_file_for_its_seals(tmp_path, monkeypatch):
    read_bytes, names = Path.read_bytes, []

    def note_and_read(self):
        names.append(self.name)
        return read_bytes(self)

    call_at_step(monkeypatch, 3, lambda: monkeypatch.setattr(Path, "read_bytes", note_and_read))
    train("mlp", tmp_path, "duration=8 steps", "checkpoint_every=1")
    sealed_names = {*DESCRIPTION, "metrics.jsonl"}
    assert not sealed_names & set(names)
    assert read_manifest(tmp_path, 7)["sealed"].keys() == sealed_names


def test_a_result_of_another_layout_is_believed_and_of_another_content_is_not(finished, tmp_path):
    result = json.loads((finished / "result.json").read_text())
    path = tmp_path / "result.json"
    path.write_text(json.dumps(dict(reversed(result.items())), separators=(" ,", ":\n")))
    assert seals.read_result(path) == result
    for changed in (result | {"more": None}, result | {"steps": 13}, result | {"seal": "0" * 64}, [result], {}, 3):
        path.write_text(json.dumps(changed))
        with pytest.raises(RunDamageError, match=str(path)):
            seals.read_result(path)


def test_a_run_of_a_version_that_sealed_nothing_is_refused_with_what_reads_it(finished, killed, tmp_path):
    old = shutil.copytree(finished, tmp_path / "finished")
    result = json.loads((old / "result.json").read_text())
    (old / "result.json").write_text(json.dumps({name: result[name] for name in result.keys() - {"seal", "sealed"}}))
    with pytest.raises(
        RunDamageError, match=r"result\.json has no seal: .* older cnn_vit, which environment\.json names"
    ):
        trained.load(old)
    old = shutil.copytree(killed, tmp_path / "killed")
    for step in committed_steps(old):
        manifest = read_manifest(old, step)
        del manifest["sealed"]
        write_sealed_manifest(old / "checkpoints" / str(step) / "MANIFEST.json", manifest)
    for refuse in (trained.load, lambda folder: train("mlp", folder)):
        with pytest.raises(RunDamageError, match=r"MANIFEST\.json does not seal .* older cnn_vit") as error:
            refuse(old)
        assert error.value.code == 3


# Flipped bytes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        code: its exit code.
        cause: the last line on stderr.
        stderr: all of it.
        answer: what it computed or printed; None where it failed.
    """

    code: int
    cause: str
    stderr: str
    answer: object


class GoingOnError(Exception):
    """A resumed run would learn from here on: the step, the state and the journal that it goes on with."""

    def __init__(self, run, step, state, stop, until):
        super().__init__()
        self.answer = step, trees.digest(state), (run.workdir / "metrics.jsonl").read_bytes()


@pytest.fixture
def run_command(finished, killed, capsys, monkeypatch, tmp_path):
    """A function that has a command read a run folder, and returns its outcome.

    Nothing is trained from here on, so the runs must be there already.
    """
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "image.png")

    def stop_learning(*args):
        raise GoingOnError(*args)

    monkeypatch.setattr(loop, "learn", stop_learning)

    def load(folder):
        network = trained.load(folder)
        return trees.digest(network.values), network.classes, json.dumps(network.preprocessing)

    def resume(folder):
        try:
            return train("mlp", folder)
        except GoingOnError as resumed:
            return resumed.answer

    words = {
        "evaluate": ["--split=validation", "--json", "--workdir=FOLDER"],
        "predict": [str(tmp_path / "image.png"), "--json", "--workdir=FOLDER"],
        "report": ["FOLDER", "--json", f"--out={tmp_path}/page.html"],
    }

    def run(command, folder):
        capsys.readouterr()
        if command in words:
            code = main([command, *(word.replace("FOLDER", str(folder)) for word in words[command])])
            stdout, stderr = capsys.readouterr()
            answer = stdout if code == 0 else None
        else:
            code, answer = 0, None
            try:
                answer = {"load": load, "resume": resume}[command](folder)
            except UserError as error:
                print(error, file=sys.stderr)
                code = error.code
            stderr = capsys.readouterr().err
        return Outcome(code, (stderr.splitlines() or [""])[-1], stderr, answer)

    return run


def sealed_bytes(folder, name):
    """How many bytes from the start of a file are sealed."""
    size = (folder / name).stat().st_size
    return len(lines_until(folder, committed_steps(folder)[-1])) if name == "metrics.jsonl" else size


def list_sealed(folder):
    """The names of a run's sealed files: those that describe it, its metrics, and its result if it has one."""
    return [name for name in (*DESCRIPTION, "metrics.jsonl", "result.json") if (folder / name).exists()]


def list_checkpoint_files(folder):
    """The files of the newest checkpoint, its manifest among them, by their names in the run folder."""
    path = folder / "checkpoints" / str(committed_steps(folder)[-1])
    return [f"checkpoints/{path.name}/{name}" for name in manifests.file_names(path)]


def list_flips(folder, names):
    """Every byte of these files that is sealed, as (name, position)."""
    return [(name, position) for name in names for position in range(sealed_bytes(folder, name))]


class FlipChecks:
    """Flips bytes of copies of a run, one at a time, and checks what the commands make of it.

    Args:
        run: the run folder, which is not changed.
        workdir: where the copy goes.
        run_command: the fixture.
    """

    def __init__(self, run, workdir, run_command):
        self.run, self.workdir, self.run_command = run, workdir, run_command
        self.counts = dict.fromkeys(("refused", "went back", "equal"), 0)
        self.intact, self.older = {}, {}
        self.copy()
        for command in COMMANDS:
            self.intact[command] = run_command(command, workdir)
            assert self.intact[command].code == 0, self.intact[command]
            self.copy()
        self.is_finished = (run / "result.json").exists()
        for step in () if self.is_finished else committed_steps(run):
            for command in ("load", "resume", "evaluate", "predict"):
                self.remove_after(step)
                self.older[command, step] = run_command(command, workdir).answer
                self.copy()

    def copy(self):
        """Copies the run anew, as it was."""
        if self.workdir.exists():
            shutil.rmtree(self.workdir)
        shutil.copytree(self.run, self.workdir)

    def remove_after(self, step):
        """Removes the checkpoints of later steps, which leaves what the run was at this step."""
        for later_step in committed_steps(self.workdir):
            if later_step > step:
                shutil.rmtree(self.workdir / "checkpoints" / str(later_step))

    def check(self, name, position, commands):
        """Flips a bit of a byte; checks that each command refuses it by name, goes back aloud, or needs none of it."""
        path = self.workdir / name
        content = path.read_bytes()
        for command in commands:
            path.write_bytes(flip_bit(content, 8 * position + position % 8))
            outcome = self.run_command(command, self.workdir)
            where = (name, position, command, outcome)
            if outcome.code != 0:
                assert outcome.code == 3, where
                assert str(path) in outcome.cause, where
                self.counts["refused"] += 1
            elif "going back" in outcome.stderr:
                assert re.search(rf"checkpoint \d+ is damaged: .*{re.escape(str(path))}", outcome.stderr), where
                step = int(re.search(r"going back to step (\d+)", outcome.stderr)[1])
                assert step < committed_steps(self.run)[-1], where
                assert outcome.answer == self.older[command, step], where
                self.counts["went back"] += 1
            else:
                assert outcome.answer == self.intact[command].answer, where
                assert not self.is_needed(name, command), where
                self.counts["equal"] += 1
            if command == "resume" and outcome.code == 0 and not self.is_finished:
                self.copy()  # the run has cut its journal, and may have deleted checkpoints
            path.write_bytes(content)

    def is_needed(self, name, command):
        """Whether a command must see that a file has changed, but for the layout of a result, which is free."""
        if name.startswith("checkpoints/"):  # a report reads no checkpoint, a finished run's `train` only its result
            return command != "report" and (command != "resume" or not self.is_finished)
        return name != "result.json"


@pytest.mark.parametrize("kind", ["finished", "killed"])
def test_of_250_flipped_bytes_none_is_believed(kind, request, tmp_path, run_command):
    """Of the sealed files through all commands, and of the newest checkpoint through one after the other."""
    run = request.getfixturevalue(kind)
    checks, rng = FlipChecks(run, tmp_path / "run", run_command), random.Random(kind)
    for name, position in rng.sample(list_flips(run, list_sealed(run)), 200):
        checks.check(name, position, COMMANDS)
    in_turn = itertools.cycle(COMMANDS)
    for name, position in rng.sample(list_flips(run, list_checkpoint_files(run)), 50):
        checks.check(name, position, [next(in_turn)])
    assert sum(checks.counts.values()) == 1050
    assert checks.counts["refused"] >= 950
    assert (checks.counts["went back"] > 0) == (kind == "killed")


def check_every_byte(kind, request, tmp_path, run_command, *, stride):
    """Flips every byte of the sealed files, or one in so many, and reads through all commands; returns the counts."""
    run = request.getfixturevalue(kind)
    checks = FlipChecks(run, tmp_path / "run", run_command)
    for name, position in list_flips(run, list_sealed(run))[::stride]:
        checks.check(name, position, COMMANDS)
    in_turn = itertools.cycle(COMMANDS)
    for name, position in list_flips(run, list_checkpoint_files(run))[::stride]:
        checks.check(name, position, [next(in_turn)])
    return checks.counts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["finished", "killed"])
def test_of_an_eighth_of_all_flipped_bytes_none_is_believed(kind, request, tmp_path, run_command):
    """As above, with every eighth byte."""
    assert check_every_byte(kind, request, tmp_path, run_command, stride=8)["refused"] > 2_500


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["finished", "killed"])
def test_of_all_flipped_bytes_none_is_believed(kind, request, tmp_path, run_command):
    """As above, with every byte."""
    assert check_every_byte(kind, request, tmp_path, run_command, stride=1)["refused"] > 20_000
