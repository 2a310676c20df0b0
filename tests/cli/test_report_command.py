"""The command `report`, and the page at the end of `train`."""

import json
import shlex

import pytest
from sealing import reseal

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.reports import mirror

TRAIN_AGAIN = [
    "train", "--config=configs/digits_mlp.py", "--config.model.name=mlp/test", "--config.duration=40 steps",
    "--config.schedule.warmup=0", "--config.evaluate_every=20 steps", "--config.checkpoint_every=20 steps",
]  # fmt: skip


def run_report(capsys, *words, code=0):
    """Runs `report --json`; returns its answer and what it wrote to stderr."""
    assert main(["report", *map(str, words), "--json"]) == code
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    return json.loads(line), err


def copy_run(run, to):
    """Copies a run folder without its checkpoints."""
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if path.is_file() and name.parts[0] != "checkpoints":
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(path.read_bytes())
    return to


def change_settings(run, changes):
    """Changes settings of a run folder as if the run had been trained with them."""
    config = json.loads((run / "config.json").read_text())
    config["values"] |= changes
    (run / "config.json").write_text(json.dumps(config))
    reseal(run)


def test_training_ends_with_a_page_that_the_same_command_leaves_as_it_is(run, capsys):
    # Other tests may have read the test split since the page was made, which the page would say.
    assert main([*TRAIN_AGAIN, f"--workdir={run}"]) == 0
    before = (run / "report.html").stat()
    assert main([*TRAIN_AGAIN, f"--workdir={run}"]) == 0
    assert (run / "report.html").stat().st_ino == before.st_ino
    assert f"report       {run / 'report.html'}" in capsys.readouterr().out
    (run / "report.html").unlink()
    assert main([*TRAIN_AGAIN, f"--workdir={run}"]) == 0
    assert (run / "report.html").exists()


def test_the_answer_has_the_numbers_of_the_result(run, capsys, tmp_path):
    answer, _ = run_report(capsys, run, f"--out={tmp_path / 'page.html'}")
    result = json.loads((run / "result.json").read_text())
    for split in ("test", "validation"):
        assert answer[split]["accuracy"] == pytest.approx(result[split]["accuracy"])
        assert answer[split]["loss"] == pytest.approx(result[split]["loss"])
        assert sum(row["n"] for row in answer[split]["classes"]) == result[split]["n"]
    assert answer["problems"] == []
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_a_damaged_file_is_the_last_line_and_exit_3(run, capsys, tmp_path):
    damaged_run = copy_run(run, tmp_path / "copy")
    (damaged_run / "samples.npz").write_bytes(b"spoiled")
    answer, err = run_report(capsys, damaged_run, code=3)
    assert answer["problems"] == [err.splitlines()[-1]]
    assert str(damaged_run / "samples.npz") in answer["problems"][0]


def test_several_runs_are_one_page(run, capsys, tmp_path):
    other_seed = copy_run(run, tmp_path / "other")
    change_settings(other_seed, {"seed": 1})
    answer, _ = run_report(capsys, run, other_seed, f"--out={tmp_path / 'page.html'}")
    (group,) = answer["groups"]
    assert group["seeds"] == [0, 1]
    assert group["test"]["over"] == "2 seeds"
    assert answer["differs"] == []
    assert main(["report", str(run), str(other_seed), f"--out={tmp_path / 'page.html'}"]) == 0
    assert "over 2 seeds" in capsys.readouterr().out


def test_of_several_runs_a_damaged_one_is_named_and_the_exit_code_is_3(run, capsys, tmp_path):
    damaged_run = copy_run(run, tmp_path / "copy")
    (damaged_run / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes()[:-1])
    answer, err = run_report(capsys, damaged_run, run, f"--out={tmp_path / 'page.html'}", code=3)
    assert [group["runs"] for group in answer["groups"]] == [[str(run)]]
    assert answer["problems"] == [err.splitlines()[-1]]
    assert answer["problems"][0].startswith(f"{damaged_run / 'metrics.jsonl'} has changed since result.json sealed it")
    assert main(["report", str(damaged_run)]) == 3
    assert capsys.readouterr().err.splitlines()[-1] == answer["problems"][0]


def test_on_a_terminal_several_runs_fit_its_width(run, capsys, tmp_path, monkeypatch):
    """Four runs in two groups with different augmentation: the tables of what differs, accuracies and differences."""
    augment = {"data.augment": ["shift(1)", "affine(15, 0.5, 0.15)"]}
    runs = []
    for number, changes in enumerate(({"seed": 0}, {"seed": 1}, {"seed": 0, **augment}, {"seed": 1, **augment})):
        runs.append(copy_run(run, tmp_path / f"run{number}"))
        change_settings(runs[-1], changes)
    monkeypatch.setattr(cli, "terminal_width", lambda: 80)
    assert main(["report", *map(str, runs), f"--out={tmp_path / 'page.html'}"]) == 0
    lines = capsys.readouterr().out.split("page")[0].splitlines()
    assert max(map(len, lines)) <= 80
    result = json.loads((run / "result.json").read_text())
    expected = []
    for split in ("test", "validation"):
        percent = f"{100 * result[split]['accuracy']:.2f}"
        expected += [["A", "2", split, percent], ["B", "2", split, percent]]
    accuracy_lines = [line for line in lines if line[:2] in ("A ", "B ") and line[2] == " "]
    assert [line.split()[:4] for line in accuracy_lines] == expected
    assert any(line.startswith("data.augment") for line in lines)
    assert any(line.startswith("B - A  test") for line in lines)


@pytest.mark.parametrize(
    "word", ["--a=b", "--a=3 steps", "--a=('flip',)", "--a='$HOME'", "--a=`'`", "--a=\"b'", "--a=\\'!"]
)
def test_a_word_that_is_written_down_is_the_same_to_a_shell(word):
    from cnn_vit.cli import shell_quote

    assert shlex.split(shell_quote(word)) == [word]
    # The unreadable '"'"' stands only in words that double quotes would change.
    assert ("'\"'\"'" in shell_quote(word)) <= bool(set(word) & set('"$`\\!'))


def test_the_services_of_the_command_are_those_of_the_room():
    from cnn_vit.cli import report

    assert tuple(mirror.SERVICES) == report.SERVICES


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "no run is named; give the folder of one"),
        (["nowhere"], 2, "nowhere holds no run"),
        (["RUN", "--to=tensorbord"], 2, "no service 'tensorbord'; did you mean tensorboard?"),
        (["RUN", "--to=wandb", "--out=a.html"], 2, "--out belongs to a page"),
        (["RUN", "--out=RUN"], 3, "is a folder where a file belongs"),
    ],
)
def test_wrong_words_are_one_line(run, capsys, words, code, sentence):
    assert main(["report", *(word.replace("RUN", str(run)) for word in words)]) == code
    assert sentence in capsys.readouterr().err.splitlines()[-1]
