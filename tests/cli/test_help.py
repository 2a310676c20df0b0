"""The command line itself: its help, its words and settings, errors in one line, and what `train` prints."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.cli._program import split_settings
from cnn_vit.errors import DivergedError, StoppedError, UserError
from cnn_vit.settings import KEYS

# Runs commands that import nothing heavy, and prints their exit codes and what heavy modules they imported.
LIGHT_COMMANDS = """
import sys
from cnn_vit.__main__ import main
lines = [["--help"], ["list"]]
for name in sys.argv[1:]:
    lines.append([name, "--help"])
for kind in ("augment", "losses", "optimizers", "schedules"):
    lines.append(["list", kind])
lines.append(["train", "--config=configs/digits_vit.py:smoke", "--help"])
lines.append(["compare", "--config=configs/compare_digits.py:smoke", "--help"])
codes = [main(words) for words in lines]
heavy = {"jax", "flax", "orbax", "optax", "sklearn", "matplotlib"} & sys.modules.keys()
sys.stderr.write(f"codes {set(codes)} heavy {heavy}")
"""


def test_help_and_lists_import_no_jax():
    names = list(cli.find_commands())
    command = [sys.executable, "-c", LIGHT_COMMANDS, *names]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stderr.endswith("codes {0} heavy set()")
    assert process.stdout.count("usage: cnn-vit ") == len(names) + 3  # the overview and the help with two recipes


def test_the_overview_has_a_line_for_each_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for name, path in cli.find_commands().items():
        assert re.search(rf"^  {name} +{re.escape(cli.read_summary(path))}$", text, re.M)
    assert {"train", "list", "doctor"} <= cli.find_commands().keys()


def test_help_with_a_recipe_lists_every_setting_with_value_type_and_meaning(capsys):
    assert main(["train", "--config=configs/cifar_resnet.py:56", "--config.seed=7", "--help"]) == 0
    text = capsys.readouterr().out
    for key, row in KEYS.items():
        assert re.search(rf"--config\.{re.escape(key)} .*{re.escape(row.meaning)}$", text, re.M), key
    seed_meaning = re.escape(KEYS["seed"].meaning)
    assert re.search(rf"--config\.seed +7 +an int in \[0, 2147483647\] +{seed_meaning}$", text, re.M)
    assert re.search(r"--config\.model\.name +cifar_resnet/56 ", text)
    assert re.search(r"--config\.model\.blocks +9 +int +residual blocks per stage", text)
    assert not re.search(r"--config\.model\.(channels|image_size|num_classes)", text)  # these follow from the data
    assert re.search(r"--config\.loss\.name +softmax +softmax or sigmoid or focal ", text)
    assert re.search(r"^  110 +110 layers", text, re.M)
    assert re.search(r"^  smoke +the same run made tiny", text, re.M)


def test_help_with_a_recipe_shows_the_keywords_that_it_gives_to_the_model(capsys):
    assert main(["train", "--config=configs/digits_vit.py", "--help"]) == 0
    assert re.search(r"--config\.model\.width +48 +int +numbers per token", capsys.readouterr().out)


def test_help_with_a_recipe_lists_the_keywords_of_the_data_source(capsys):
    assert main(["train", "--config", "configs/digits_mlp.py:smoke", "--help"]) == 0
    assert re.search(r"--config\.data\.train_count +256 ", capsys.readouterr().out)


def test_help_with_a_comparison_lists_what_the_arms_share_and_the_arms(capsys):
    assert main(["compare", "--config=configs/compare_digits.py:data", "--config.seeds=5", "--help"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"--config\.seeds +5 +an int in \[1, 1000\] \(runs\) +runs of each arm", text)
    assert re.search(r"--config\.shares +\(0\.01, 0\.1, 1\.0\) ", text)
    assert re.search(r"--config\.data\.batch_size +64 ", text)
    assert re.search(r"--config\.arms\.resnet_knn +knn +none, which leaves it out +k-nearest", text)
    assert re.search(r"--config\.arms\.NAME\.weights ", text)
    assert re.search(r"^  data +with 1, 10 and 100 %", text, re.M)


# Words ----------------------------------------------------------------------------------------------------------------


def test_settings_are_written_in_two_ways_and_dashes_are_underscores():
    words = [
        "--config=a.py",
        "--config.seed=1",
        "--config.ema_decay",
        "none",
        "--fork-from=x-y",
        "--config.data.batch-size=2",
    ]
    assert split_settings(words) == (
        ["--config=a.py", "--fork_from=x-y"],
        ["seed=1", "ema_decay=none", "data.batch-size=2"],
    )
    assert split_settings(["--config.optimizer.clip", "-1", "-h", "a-b"]) == (["-h", "a-b"], ["optimizer.clip=-1"])


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        (["trian"], "no command 'trian'; did you mean train?"),
        (["--train"], "no command '--train'; did you mean train?"),
        (["train", "--wrokdir=x"], "no train argument '--wrokdir'; did you mean --workdir?"),
        (["train", "extra"], "no train argument 'extra'; "),
        (["train", "photos.py:224"], "train does not take photos.py:224; did you mean --config=photos.py:224?"),
        (["train", "configs"], "train does not take configs; `cnn-vit new configs` writes a recipe for it"),
        (
            ["train", "--data=configs"],
            "train does not take --data=configs; `cnn-vit new configs` writes a recipe for it",
        ),
        (["train", "--workdir"], "cnn-vit train: argument --workdir: expected one argument"),
        (["train", "--config.seed"], "--config.seed has no value; write --config.seed=VALUE"),
        (["train", "--config.seed", "--show"], "--config.seed has no value; write --config.seed=VALUE"),
        (
            ["train", "--config=configs/compare_digits.py"],
            "configs/compare_digits.py is a recipe of `cnn-vit compare`, ",
        ),
        (
            ["compare", "--out=x", "--config=configs/digits_mlp.py"],
            "configs/digits_mlp.py is a recipe of one training, ",
        ),
        (["train", "--config.sed=1"], "no setting 'sed'; did you mean seed?"),
        (["train", "--config=configs/digits_resnte.py"], "no recipe 'configs/digits_resnte.py' here or in "),
        (["train", "--config.model.filtres=1", "--show"], "no setting 'model.filtres'; did you mean model.filters?"),
        (
            ["train", "--config.data.bach_size=1", "--show"],
            "no setting 'data.bach_size'; did you mean data.batch_size?",
        ),
        (["list", "modles"], "no list of 'modles'; did you mean models?"),
        (["list", "--config.seed=1"], "list takes no settings; leave out --config.seed=1"),
    ],
)
def test_wrong_words_end_with_one_line_and_exit_2(capsys, words, beginning):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(beginning)
    assert len(err.splitlines()) == 1


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("two\nlines and \x1b[31mred"), 2, r"two\nlines and \x1b[31mred"),
        (DivergedError("step 7 is not finite"), 4, "step 7 is not finite"),
        (
            StoppedError(15, "stopped at step 3; the same command resumes"),
            143,
            "stopped at step 3; the same command resumes",
        ),
        (KeyboardInterrupt(), 130, "stopped by SIGINT; the same command starts again"),
    ],
)
def test_each_error_has_its_code_and_one_line(monkeypatch, capsys, error, code, line):
    def fail(args):
        raise error

    monkeypatch.setattr("cnn_vit.cli.list.run", fail)
    assert main(["list"]) == code
    assert capsys.readouterr().err == f"{line}\n"
    assert main(["list", "--debug"]) == code
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith(f"{line}\n")


def test_a_bug_leaves_its_traceback_in_the_run_folder(monkeypatch, capsys, tmp_path):
    def fail(args):
        raise ZeroDivisionError("by hand")

    monkeypatch.setattr("cnn_vit.cli.train.run", fail)
    assert main(["train", f"--workdir={tmp_path}"]) == 1
    (err,) = capsys.readouterr().err.splitlines()
    (traceback,) = (tmp_path / "crash").iterdir()
    assert err == f"this is a bug in cnn-vit, ZeroDivisionError: by hand; its traceback is in {traceback}"
    assert "in fail" in traceback.read_text()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["train", f"--workdir={tmp_path / 'none'}"]) == 1
    assert f"its traceback is in {tmp_path / 'cnn_vit_crash'}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("command", "code"),
    [("exec {python} -m cnn_vit list >&- 2>&-", 0), ("({python} -m cnn_vit list; echo $? >&2) | true", 141)],
)
def test_closed_streams_and_broken_pipes_are_not_bugs(command, code):
    command = command.format(python=sys.executable)
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    if ">&-" in command:
        assert process.returncode == code
    else:  # the pipe's own exit code is that of `true`; the shell prints that of the command
        assert (process.returncode, process.stderr.strip()) == (0, str(code))


# train ----------------------------------------------------------------------------------------------------------------


def test_show_prints_each_value_with_its_origin(capsys):
    words = ["train", "--config=configs/cifar_resnet.py:56", "--config.optimizer.learning_rate=0.05", "--show"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for key, value, origin in [
        ("seed", "0", "default"),
        ("data.batch_size", "128", "recipe"),
        ("model.name", "'cifar_resnet/56'", "word 56"),
        ("optimizer.learning_rate", "0.05", "command line"),
    ]:
        assert re.search(rf"^{re.escape(key)} +{re.escape(value)} +{origin}$", out, re.M)
    assert out.splitlines()[-1] == (
        "next: cnn-vit train --config=configs/cifar_resnet.py:56 --config.optimizer.learning_rate=0.05"
    )
    assert main([*words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["origin"]["model.name"] == "word 56"


def test_show_shows_the_keywords_of_model_source_and_rules_at_their_defaults(capsys):
    words = ["train", "--config=configs/digits_mlp.py:smoke", "--config.loss.name=focal", "--show"]
    assert main(words) == 0
    out = capsys.readouterr().out
    for key, value, origin in [
        ("data.train_count", "256", "word smoke"),
        ("model.hidden", "(8,)", "default"),
        ("model.dropout", "0.0", "default"),
        ("loss.gamma", "2.0", "default"),
        ("optimizer.b1", "0.9", "default"),
        ("optimizer.weight_decay", "0.01", "recipe"),
        ("schedule.final", "0.0", "default"),
    ]:
        assert re.search(rf"^{re.escape(key)} +{re.escape(value)} +{origin}$", out, re.M), key
    assert main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["values"]["model.hidden"], answer["origin"]["model.hidden"]) == ([8], "default")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["model.name=vit/test", "model.heads=3"], "heads=3"),
        (["data.augment=flipp"], "no operation of data.augment 'flipp'; did you mean flip?"),
        (
            ["optimizer.name=schedule_free_adamw"],
            "schedule.name is cosine, and schedule_free_adamw takes constant alone",
        ),
        (["optimizer.accumulate=3"], "data.batch_size of 32 does not divide by 3"),
        (["optimizer.name=adm"], "no optimizer 'adm'; did you mean adam"),
        (
            ["model.name=cifar_resnet/test", "pretrained.freeze=all but stem_norm"],
            "optimizer.weight_decay is 0.01, and pretrained.freeze='all but stem_norm' freezes all that "
            "optimizer.decay_pattern '(^|/)kernel$' matches, so that nothing decays; set optimizer.weight_decay=0, or "
            "a pattern that matches what is trained, such as stem_norm/bias",
        ),
    ],
)
def test_show_refuses_what_training_would_refuse(changes, sentence, capsys):
    words = ["train", "--config=configs/digits_mlp.py:smoke", *(f"--config.{change}" for change in changes)]
    assert main([*words, "--show"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err.splitlines()[-1]


def test_what_another_rule_drops_is_said_on_stderr(capsys):
    words = ["train", "--config=configs/digits_mlp.py:smoke", "--config.optimizer.name=lion", "--show"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == (
        "optimizer.name=lion drops what the recipe sets for adamw: optimizer.learning_rate=0.002, "
        "optimizer.weight_decay=0.01\n"
    )
    assert re.search(r"^optimizer\.learning_rate +0\.0001 +default$", out, re.M)


def test_show_compiles_the_step_only_where_it_is_asked_to(capsys, monkeypatch):
    words = ["train", "--config=configs/digits_mlp.py:smoke", "--show"]
    assert main([*words, "--compile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    pattern = r"memory of a step: \d+ kB \(\d+ kB of values, \d+ kB of intermediate results\), [\d.]+ [GM]B free"
    assert re.fullmatch(pattern, lines[-2])
    assert main([*words, "--compile", "--json"]) == 0
    step_memory = json.loads(capsys.readouterr().out)["step_memory"]
    assert sorted(step_memory) == ["free", "intermediate", "values"]
    assert all(isinstance(size, int) and size > 0 for size in step_memory.values())

    monkeypatch.setattr("cnn_vit.cli.train.measure_step", lambda settings: pytest.fail("the step was compiled"))
    assert main([*words, "--json"]) == 0
    assert "step_memory" not in json.loads(capsys.readouterr().out)


def test_compile_without_show_is_refused(capsys):
    assert main(["train", "--compile"]) == 2
    assert capsys.readouterr().err == (
        "--compile belongs to --show, which trains nothing; add --show, or leave --compile out\n"
    )


@pytest.fixture
def trained(monkeypatch):
    """Replaces the training loop and the report.

    Returns what the loop was called with, once it was, and the result that it gives back.
    """
    calls = {}
    result = {
        "test": {"accuracy": 0.99444, "top5": 1.0, "loss": 0.0512, "n": 360},
        "validation": {"accuracy": 0.9876, "loss": 0.061, "n": 144, "step": 500},
        "steps": 500,
        "parameters": 75290,
        "timing": {"seconds": 14.24},
    }

    def train(settings, workdir, *, fork_from=None, command=None):
        calls.update(settings=settings, workdir=workdir, fork_from=fork_from)
        return result

    loop = types.ModuleType("cnn_vit.training.loop")
    loop.train = train
    monkeypatch.setitem(sys.modules, "cnn_vit.training.loop", loop)
    monkeypatch.setattr("cnn_vit.training.loop", loop, raising=False)
    monkeypatch.setattr("cnn_vit.cli.train.write_report", lambda workdir: ())
    return calls, result


def test_train_prints_a_table_and_the_next_command(trained, capsys):
    calls, _ = trained
    assert main(["train", "--config=configs/cifar_resnet.py:56,smoke"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test +accuracy 99\.44 % +loss 0\.0512 +n 360", lines[0])
    assert re.fullmatch(r"validation +accuracy 98\.76 % +loss 0\.0610 +n 144", lines[1])
    assert "parameters  75,290" in lines
    assert lines[-1] == "next: cnn-vit predict --workdir=runs/cifar_resnet-56-smoke IMAGE ..."
    assert (calls["workdir"], calls["fork_from"]) == (Path("runs/cifar_resnet-56-smoke"), None)


def test_train_prints_one_json_object(trained, capsys):
    calls, result = trained
    assert main(["train", "--workdir=a-b", "--fork-from", "old", "--config.seed", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == result
    assert out.count("\n") == 1
    assert err.startswith("next: ")
    assert (calls["workdir"], calls["fork_from"], calls["settings"]["seed"]) == (Path("a-b"), Path("old"), 3)
