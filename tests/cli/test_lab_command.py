"""The command `lab`: its list, a run, the chapter, a new experiment, and mistakes in one sentence."""

import json
from pathlib import Path

import pytest

from cnn_vit.__main__ import main
from cnn_vit.errors import UserError
from cnn_vit.studies import lab

TOP = Path(__file__).parents[2]


def run_lab(capsys, *words, code=0):
    """Runs `lab --json`; returns its answer."""
    assert main(["lab", *words, "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_list_has_each_sentence_with_its_verdict_and_is_what_lab_alone_prints(capsys):
    answer = run_lab(capsys)
    assert run_lab(capsys, "list") == answer
    (padding,) = [entry for entry in answer["experiments"] if entry["name"] == "padding"]
    verdict_of = {entry["key"]: entry["verdict"] for entry in padding["sentences"]}
    # THEORY of a convolution: zeros break equivariance and mark the place; padded images are larger.
    assert (verdict_of["invariant"], verdict_of["cost"]) == ("false", "true")
    assert main(["lab"]) == 0
    out = capsys.readouterr().out
    assert "Padding does not change the image, because a CNN is translation invariant." in out
    assert "next: cnn-vit lab run " in out


def test_a_learner_writes_an_experiment_runs_it_and_reads_the_chapter(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_lab(capsys, "new", "mine") == {"experiment": "experiments/mine/experiment.py"}
    assert run_lab(capsys, "run", "mine")["sentences"][0]["verdict"] == "conditional"
    assert main(["lab", "run", "mine", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "3.33 (1.9 to 4.77, 3 seeds)" in out  # 3, 3, 4: 3.333 +- 4.303 / 3
    assert "Made small (--quick): these verdicts are no result" in out
    assert out.endswith("next: cnn-vit lab run mine\n")
    answer = run_lab(capsys, "report", "--out=chapter.html")
    shipped = len(list((TOP / "experiments").glob("*/experiment.py")))
    assert answer == {"report": "chapter.html", "readmes": [], "experiments": shipped + 1, "broken": {}}
    assert "How many pixels does a convolution leave of a row?" in Path("chapter.html").read_text()


def test_a_broken_experiment_is_listed_and_reported_as_one_and_the_others_as_ever(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_lab(capsys, "new", "mine")
    path = Path("experiments/mine/experiment.py")
    path.write_text(path.read_text().replace("\\\\lfloor", "\\\\lflor").replace("\\lfloor", "\\lflor"))
    assert main(["lab"]) == 0
    out, err = capsys.readouterr()
    assert "cannot be read" in out
    assert "Padding does not change the image" in out
    assert err.startswith("warning: mine cannot be read: experiments/mine/experiment.py:19: the formula m = \\lflor")
    answer = run_lab(capsys, "report", "--out=chapter.html")
    assert list(answer["broken"]) == ["mine"]
    assert "Padding does not change the image" in Path("chapter.html").read_text()


def test_the_words_of_a_run_reach_its_options(monkeypatch):
    given = []

    def take(name, options):
        given.append((name, options))
        raise UserError("enough")

    monkeypatch.setattr(lab, "run_experiment", take)
    assert main(["lab", "run", "mine", "--again", "--quick", "--out=o", "--workers=3"]) == 2
    assert main(["lab", "run", "mine", "--data=mnist", "--data_path=a.npz"]) == 2
    assert main(["lab", "run", "mine"]) == 2
    own = lab.OtherData("mnist", Path("a.npz"))
    assert given == [
        ("mine", lab.Options(is_again=True, is_quick=True, out=Path("o"), workers=3)),
        ("mine", lab.Options(data=own)),
        ("mine", lab.Options()),
    ]


def test_a_run_prints_the_tables_of_its_times_too(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_lab(capsys, "new", "mine")
    path = Path("experiments/mine/experiment.py")
    text = path.read_text().replace("return Measured(rows)", 'return Measured(rows, [{"seconds": 4 + seed}])')
    table = 'Table("what it took", ("seconds",), tuple((f"{row[\'seconds\']} s",) for row in times))'
    path.write_text(f"{text}\n\ndef tabulate_times(times):\n    return [{table}]\n")
    assert main(["lab", "run", "mine"]) == 0
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines()]
    start = lines.index("what it took")
    assert lines[start + 1 : start + 5] == ["seconds", "4 s", "5 s", "6 s"]
    assert "Made small" not in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rnu", "padding"], "no action of lab 'rnu'; did you mean run?"),
        (["run", "paddin"], "no experiment 'paddin'; did you mean padding?"),
        (["run"], "`cnn-vit lab run` takes the name of one experiment, not 0"),
        (["list", "padding"], "`cnn-vit lab list` takes no names, not padding; leave them out"),
        (["padding"], "padding is an experiment, not an action of lab; `cnn-vit lab run padding` measures it"),
        (["list", "--workers=0"], "`cnn-vit lab list` does not take --workers; leave it out"),
        (["list", "--stride=0"], "`cnn-vit lab list` does not take --stride; leave it out"),
        (["list", "--model.depth=3"], "`cnn-vit lab list` does not take --model.depth; leave it out"),
        (["run", "padding", "--model.depth=3"], "`cnn-vit lab run` does not take --model.depth; leave it out"),
        (["report", "--quick"], "`cnn-vit lab report` does not take --quick; leave it out"),
        (["report", "--out=chapter.pdf"], "--out=chapter.pdf is not a page; name one that ends with .html"),
        (["run", "padding", "--workers=0"], "workers=0 do nothing; make it at least 1"),
        (["run", "padding", "--data=mnist"], "padding is measured on its own data alone; leave --data=mnist out"),
        (["run", "why_convolution", "--data=mnits"], "no data set that why_convolution can be given 'mnits'; did you"),
        (["run", "padding", "--data_path=a.npz"], "--data_path=a.npz needs --data=NAME, which says what the file"),
        (["report", "--data=mnist"], "`cnn-vit lab report` does not take --data; leave it out"),
        (["new", "My-Lab"], "'My-Lab' is no name of an experiment; take small letters, digits and _"),
        (["new", "padding"], "experiments/padding/experiment.py is there already; take another name"),
    ],
)
def test_a_mistake_ends_with_its_cause_and_exit_code_2(capsys, words, sentence):
    assert main(["lab", *words]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
