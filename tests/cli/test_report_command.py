"""`report`, and the page at the end of `train`."""

import json
import shlex

import pytest

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.reports import mirror

AGAIN = [
    "train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.duration=40 steps",
    "--config.schedule.warmup=0", "--config.evaluate_every=20 steps", "--config.checkpoint_every=20 steps",
]  # fmt: skip


def reported(capsys, *words, code=0):
    assert main(["report", *map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    return json.loads(line), err


def test_training_ends_with_a_page_that_the_same_command_leaves_as_it_is(run, capsys):
    assert main([*AGAIN, f"--workdir={run}"]) == 0  # other tests may have read the test split since, which it tells
    before = (run / "report.html").stat()
    assert main([*AGAIN, f"--workdir={run}"]) == 0
    assert (run / "report.html").stat().st_ino == before.st_ino
    assert f"report       {run / 'report.html'}" in capsys.readouterr().out
    (run / "report.html").unlink()
    assert main([*AGAIN, f"--workdir={run}"]) == 0
    assert (run / "report.html").exists()


def test_it_says_what_the_result_says(run, capsys, tmp_path):
    found, _ = reported(capsys, run, f"--out={tmp_path / 'page.html'}")
    result = json.loads((run / "result.json").read_text())
    for split in ("test", "validation"):
        assert found[split]["accuracy"] == pytest.approx(result[split]["accuracy"])
        assert found[split]["loss"] == pytest.approx(result[split]["loss"])
        assert sum(row["n"] for row in found[split]["classes"]) == result[split]["n"]
    assert found["problems"] == []
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_damaged_file_is_the_last_line_and_exit_3(run, capsys, tmp_path):
    copy = copied(run, tmp_path / "copy")
    (copy / "samples.npz").write_bytes(b"spoiled")
    found, err = reported(capsys, copy, code=3)
    assert found["problems"] == [err.splitlines()[-1]]
    assert str(copy / "samples.npz") in found["problems"][0]


def copied(run, to):
    """A run folder without its checkpoints."""
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if path.is_file() and name.parts[0] != "checkpoints":
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(path.read_bytes())
    return to


def test_several_runs_are_one_page(run, capsys, tmp_path):
    other = copied(run, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["values"] |= {"seed": 1}
    (other / "config.json").write_text(json.dumps(config))
    found, _ = reported(capsys, run, other, f"--out={tmp_path / 'page.html'}")
    (group,) = found["groups"]
    assert group["seeds"] == [0, 1]
    assert group["test"]["over"] == "2 seeds"
    assert found["differs"] == []
    assert main(["report", str(run), str(other), f"--out={tmp_path / 'page.html'}"]) == 0
    assert "over 2 seeds" in capsys.readouterr().out


def test_on_a_terminal_several_runs_fit_its_width(run, capsys, tmp_path, monkeypatch):
    """Four runs in two groups, one of which was judged differently: with what differs, and the difference."""
    other = {"data.augment": ["shift(1)", "affine(15, 0.5, 0.15)"]}
    runs = []
    for number, changes in enumerate(({"seed": 0}, {"seed": 1}, {"seed": 0, **other}, {"seed": 1, **other})):
        runs.append(copied(run, tmp_path / f"run{number}"))
        config = json.loads((run / "config.json").read_text())
        (runs[-1] / "config.json").write_text(json.dumps(config | {"values": config["values"] | changes}))
    monkeypatch.setattr(cli, "terminal_width", lambda: 80)
    assert main(["report", *map(str, runs), f"--out={tmp_path / 'page.html'}"]) == 0
    lines = capsys.readouterr().out.split("page")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[:4] for line in lines if line[:2] in ("A ", "B ") and line[2] == " "] == [
        [group, "2", split, f"{100 * json.loads((run / 'result.json').read_text())[split]['accuracy']:.2f}"]
        for split in ("test", "validation")
        for group in "AB"
    ]
    assert any(line.startswith("data.augment") for line in lines)
    assert any(line.startswith("B - A  test") for line in lines)


@pytest.mark.parametrize(
    "word", ["--a=b", "--a=3 steps", "--a=('flip',)", "--a='$HOME'", "--a=`'`", "--a=\"b'", "--a=\\'!"]
)
def test_a_word_that_is_written_down_is_the_same_to_a_shell(word):
    from cnn_vit.cli import shell_quote

    assert shlex.split(shell_quote(word)) == [word]
    assert ("'\"'\"'" in shell_quote(word)) <= bool(set(word) & set('"$`\\!'))


def test_the_services_of_the_command_are_those_there_are():
    from cnn_vit.cli import report

    assert tuple(mirror.SERVICES) == report.SERVICES


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "cnn-vit report: "),
        (["nowhere"], 2, "nowhere holds no run"),
        (["RUN", "--to=tensorbord"], 2, "no service 'tensorbord'; did you mean tensorboard?"),
        (["RUN", "--to=wandb", "--out=a.html"], 2, "--out belongs to a page"),
        (["RUN", "--out=RUN"], 3, "is a folder where a file belongs"),
    ],
)
def test_wrong_words_are_one_line(run, capsys, words, code, said):
    assert main(["report", *(word.replace("RUN", str(run)) for word in words)]) == code
    assert said in capsys.readouterr().err.splitlines()[-1]
