"""What a sweep is: TOML files, words of a command line and a recipe's `sweep(add)` become one checked definition."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, strategies

from cnn_vit.errors import UserError
from cnn_vit.settings import load
from cnn_vit.studies.sweeping import claims, definition
from cnn_vit.studies.sweeping.claims import claim_sweep
from cnn_vit.studies.sweeping.definition import (
    Halving,
    SweepDefinition,
    from_grid_words,
    from_recipe,
    read_toml,
)
from cnn_vit.studies.sweeping.keys import sampler_options
from cnn_vit.studies.sweeping.space import Dimension, Space, text_of_value

RECIPE = '''"""A small one."""

from ml_collections import ConfigDict

WORDS = {"wide": "more units"}


def get_config(mode=""):
    config = ConfigDict()
    config.data = dict(name="digits", batch_size=64)
    config.model = dict(name="vit/Ti2-gap", width=64 if mode == "wide" else 32, depth=1, heads=2, hidden=32)
    config.optimizer = dict(name="adamw", learning_rate=3e-3)
    config.schedule = dict(name="step", boundaries=("5 epochs",), factor=0.1)
    config.duration = "200 steps"
    return config
'''
SPACE = "[space]\noptimizer.learning_rate = [1e-3, 3e-3]\n"
HEAD = 'config = "configs/small.py"\n'
quick = hypothesis.settings(deadline=None, derandomize=True, max_examples=40)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a recipe, to which the test goes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "small.py").write_text(RECIPE)
    return tmp_path


def read(text: str, **words) -> SweepDefinition:
    """Reads a TOML file of this text; a recipe is named where the text names none."""
    Path("one.toml").write_text(text if "config" in text or "objective" in text else HEAD + text)
    return read_toml("one.toml", **words)


def error_of(function, *arguments, **words) -> str:
    """Returns the one-line sentence with which a function refuses its arguments, exit code 2."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **words)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# TOML -----------------------------------------------------------------------------------------------------------------


def test_a_file_says_all_of_a_sweep(here):
    text = """
        config = "configs/small.py"
        words = ["wide"]
        sampler = {name = "tpe", startup = 5}
        trials = 30
        seeds = 2
        seed = 7
        metric = "best.loss"
        workers = 3
        threads = 2
        lag = 3
        max_failures = 4
        halving = {eta = 2, first = "25 step"}

        [settings]
        optimizer.clip = 1.0
        "data.augment" = ["flip"]

        [space]
        optimizer.learning_rate = {log = [1e-4, 1e-1], steps = 4}
        "optimizer.name" = ["adamw", "sgd"]
        optimizer.momentum = {uniform = [0, 0.9], when = {optimizer.name = "sgd"}}
        model.depth = {int = [1, 4]}
        schedule.boundaries = [["80 steps"], ["50 step", "100 steps"]]
    """
    space = Space(
        (
            Dimension("optimizer.learning_rate", "log", low=1e-4, high=0.1, steps=4),
            Dimension("optimizer.name", "choice", choices=("adamw", "sgd")),
            Dimension("optimizer.momentum", "uniform", low=0.0, high=0.9, when=(("optimizer.name", ("sgd",)),)),
            Dimension("model.depth", "int", low=1, high=4),
            Dimension("schedule.boundaries", "choice", choices=(["80 steps"], ["50 steps", "100 steps"])),
        )
    )
    text = text.replace("optimizer.momentum =", '"optimizer.momentum" =')  # else TOML puts it before optimizer.name
    assert read(text) == SweepDefinition(
        config="configs/small.py:wide",
        objective="",
        overrides=("data.augment=('flip',)", "optimizer.clip=1"),
        space=space,
        sampler="tpe",
        sampler_options=(("startup", 5),),
        trials=30,
        seeds=2,
        seed=7,
        metric="best.loss",
        mode="min",
        lag=3,
        halving=Halving(eta=2, first="25 steps"),
        workers=3,
        threads=2,
        max_failures=4,
        name="one",
    )


def test_what_is_left_out_has_its_default(here):
    defined = read(SPACE)
    assert (defined.sampler, defined.trials, defined.seeds, defined.seed) == ("grid", 2, 1, 0)
    assert (defined.metric, defined.mode) == ("validation.accuracy", "max")
    assert (defined.lag, defined.halving, defined.workers, defined.threads) == (4, None, 1, 1)
    assert defined.max_failures is None
    halved = read(f"halving = {{}}\n{SPACE}", overrides=["duration=9 epochs"])
    assert halved.halving == Halving(3, "1 epochs")


@pytest.mark.parametrize(
    "space",
    [
        "[space]\noptimizer.name = ['sgd']\nmodel.depth = {choice = [1, 2], when = {optimizer.name = 'sgd'}}",
        "[space]\n'optimizer.name' = ['sgd']\n'model.depth' = {choice = [1, 2], when = {'optimizer.name' = ['sgd']}}",
        "space.optimizer.name = {choice = ['sgd']}\n[space.model.depth]\nchoice = [1, 2]\nwhen.optimizer.name = 'sgd'",
        "[space.optimizer]\nname = ['sgd']\n[space.model]\ndepth = {choice = [1, 2], when = {optimizer.name = 'sgd'}}",
    ],
)
def test_keys_with_dots_may_be_quoted_or_nested(here, space):
    assert read(space).space == Space(
        (
            Dimension("optimizer.name", "choice", choices=("sgd",)),
            Dimension("model.depth", "choice", choices=(1, 2), when=(("optimizer.name", ("sgd",)),)),
        )
    )


def test_a_dotted_file_with_a_mark_before_its_text_is_read(here):
    Path("one.toml").write_bytes(b"\xef\xbb\xbf" + (HEAD + SPACE).encode())
    assert read_toml("one.toml").trials == 2


def test_the_command_line_stands_over_the_file(here):
    changes = {"seeds": 3, "workers": "2", "metric": "validation.loss", "max_failures": None}
    defined = read(
        f"seeds = 5\nmax_failures = 1\n[settings]\noptimizer.clip = 2.0\n{SPACE}",
        changes=changes,
        overrides=["optimizer.clip=0.5", "seed=4", "data.batch-size=32"],
    )
    assert (defined.seeds, defined.workers, defined.metric, defined.mode) == (3, 2, "validation.loss", "min")
    assert (defined.max_failures, defined.seed) == (1, 4)
    assert defined.overrides == ("data.batch_size=32", "optimizer.clip=0.5")
    assert read(f"sampler = 'sobol'\ntrials = 8\n{SPACE}", changes={"trials": "16"}).trials == 16


def test_values_have_the_form_of_their_setting(here):
    defined = read(
        "[space]\nduration = ['1e2 steps', '2 epoch']\noptimizer.clip = ['none', 1]\ndata.fit = ['pad', 'crop']\n"
        "model.pool = ['average', 'token']\nmodel.stochastic_depth = [0, 0.1]\nema_decay = [0, 0.9]"
    )
    choices = {dimension.key: dimension.choices for dimension in defined.space.dimensions}
    assert choices["duration"] == ("100 steps", "2 epochs")
    assert choices["optimizer.clip"] == (None, 1.0)
    assert choices["data.fit"] == ("pad(0)", "crop")
    assert choices["model.pool"] == ("average", "token")
    for point in defined.space.grid():
        settings = load(defined.config, [f"{key}={text_of_value(value)}" for key, value in point.items()])
        assert {key: settings[key] for key in point} == point


def test_a_grid_of_an_int_has_every_int_and_a_range_its_steps(here):
    defined = read("[space]\nmodel.depth = {int = [1, 3]}\noptimizer.learning_rate = {log = [1e-3, 1e-1], steps = 3}")
    assert defined.trials == 9
    assert defined.space.grid()[:4] == [  # by hand: the middle of a logarithm from 0.001 to 0.1 is 0.01
        {"model.depth": 1, "optimizer.learning_rate": 0.001},
        {"model.depth": 1, "optimizer.learning_rate": 0.01},
        {"model.depth": 1, "optimizer.learning_rate": 0.1},
        {"model.depth": 2, "optimizer.learning_rate": 0.001},
    ]


def test_a_seed_in_the_space_is_one_more_dimension(here):
    assert read("[space]\nseed = {int = [0, 4]}").trials == 5
    assert "varies the seed itself" in error_of(read, "seeds = 2\n[space]\nseed = {int = [0, 4]}")


def test_an_objective_of_ones_own_takes_any_key(here):
    folder = here / "study"
    folder.mkdir()
    (folder / "mine.py").write_text("def score(x, kind):\n    return x\n")
    text = """
        objective = "mine.py:score"
        sampler = "random"
        trials = 5
        mode = "min"
        [space]
        x = {uniform = [-1, 1]}
        kind = ["a", "b"]
        net.size = {int = [1, 5], when = {kind = "a"}}
    """
    (folder / "two.toml").write_text(text)
    defined = read_toml("study/two.toml")
    assert (defined.config, defined.objective) == ("", "study/mine.py:score")
    assert (defined.metric, defined.mode, defined.name) == ("value", "min", "two")
    assert [dimension.key for dimension in defined.space.dimensions] == ["x", "kind", "net.size"]
    for old, new, sentence in [
        (":score", ":scor", "no function 'scor'; did you mean score?"),
        ("mine.py", "yours.py", "study/yours.py, which is not there"),
        (":score", "", "it takes FILE.py:NAME"),
        ('mode = "min"', "", 'write mode = "max" or "min"'),
        ('mode = "min"', 'mode = "min"\nhalving = {}', "an objective is none"),
        ('mode = "min"', 'mode = "min"\nsettings.seeds = 1', "settings stand over a recipe"),
        ('mode = "min"', 'mode = "min"\nwords = ["a"]', "words belong to a recipe"),
        ('mode = "min"', 'mode = "min"\nmetric = "a b"', "metric is 'a b'"),
        ("kind =", '"the kind" =', "'the kind' is not a name"),
    ]:
        (folder / "two.toml").write_text(text.replace(old, new, 1))
        assert sentence in error_of(read_toml, "study/two.toml")
    (folder / "mine.py").write_text("def score(:")
    (folder / "two.toml").write_text(text)
    assert "study/mine.py:1: invalid syntax" in error_of(read_toml, "study/two.toml")


# What is wrong is a sentence ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        # the file's keys
        (f"sampeler = 'tpe'\n{SPACE}", "one.toml: no key of a sweep 'sampeler'; did you mean sampler?"),
        (f"trials = 0\nsampler = 'random'\n{SPACE}", "trials is 0 (one.toml); it takes an int in [1, 1000000]"),
        (f"max_failures = 0\n{SPACE}", "max_failures is 0 (one.toml); it takes an int in [1, 1000000]"),
        (f"seeds = true\n{SPACE}", "seeds is True (one.toml); it takes an int"),
        (f"words = 'wide'\n{SPACE}", "words is 'wide' (one.toml); it takes a tuple of texts"),
        (f"config = 'configs/small.py:wide'\nwords = ['wide']\n{SPACE}", "names words twice"),
        (f"config = 'configs/smal.py'\n{SPACE}", "one.toml: no recipe 'configs/smal.py'"),
        (f"words = ['narrow']\n{SPACE}", "configs/small.py has no word 'narrow'; its words are wide, smoke"),
        (f"config = 'configs/small.py'\nobjective = 'a.py:b'\n{SPACE}", "names both config and objective"),
        ("config = ''", "config is ''"),
        ("seeds = 1", "one.toml has no [space]"),
        ("[space]", "space is empty"),
        ("space = 3", "space is 3; it takes a table"),
        # sampler, metric, halving, workers
        (f"sampler = 'TPE2'\ntrials = 3\n{SPACE}", "no sampler 'TPE2'; did you mean tpe?"),
        (f"sampler = {{startup = 3}}\ntrials = 3\n{SPACE}", "sampler has no name"),
        (f"sampler = {{name = 'tpe', start = 3}}\ntrials = 3\n{SPACE}", "tpe has no option 'start'; it takes startup"),
        (f"sampler = {{name = 'tpe', startup = 0}}\ntrials = 3\n{SPACE}", "sampler.startup is 0"),
        (f"sampler = 'random'\n{SPACE}", "random goes on for ever; set trials"),
        (f"trials = 3\n{SPACE}", "trials is 3, and the grid has 2 points"),
        ("[space]\nema_decay = {uniform = [0, 0.9]}", "ema_decay has none; add steps"),
        ("[space]\nseed = {int = [0, 2000000]}", "the grid has 2,000,001 points; 1,000,000 are the most"),
        (f"metric = 'validation.acuracy'\n{SPACE}", "no metric 'validation.acuracy'; did you mean validation.accuracy"),
        (f"metric = 'test.accuracy'\n{SPACE}", "a sweep chooses by validation; `sweep best --test` measures"),
        (f"mode = 'min'\n{SPACE}", "would look for the worst validation.accuracy"),
        (f"mode = 'most'\n{SPACE}", "mode is 'most' (one.toml); it takes max or min"),
        (f"halving = {{eta = 1}}\n{SPACE}", "halving.eta is 1 (one.toml); it takes an int in [2, 1000]"),
        (f"halving = {{etta = 3}}\n{SPACE}", "no key of halving 'etta'; did you mean eta?"),
        (f"halving = {{first = '200 steps'}}\n{SPACE}", "a trial is done after 200 steps; make it shorter"),
        (f"halving = 3\n{SPACE}", "halving is 3; it takes a table"),
        ("halving = {first = '9 steps'}\n[space]\nduration = ['50 steps', '60 steps']", "the space varies duration"),
        # what trials are compared by
        ("[space]\ndata.validation = ['train[:9]', 'train[9:20]']", "compared on other images cannot be compared"),
        ("metric = 'best.loss'\n[space]\nloss.name = ['softmax', 'sigmoid']", "best.loss is another measure in each"),
        (
            "metric = 'validation.loss'\n[settings]\nloss.name = 'focal'\n[space]\nloss.gamma = [1.0, 2.0]",
            "the space varies loss.gamma, so that validation.loss is another measure in each",
        ),
        (f"[settings]\ndata.validation = 'test[:100]'\n{SPACE}", "would choose by what it is tested on"),
        (
            "halving = {first = '9 steps'}\n[space]\nevaluate_every = ['9 steps', '18 steps']",
            "the space varies evaluate_every, and a rung",
        ),
        ("halving = {}\n[space]\ndata.batch_size = [32, 64]", "the space varies data.batch_size, on which the length"),
        (f"sampler = 'tpe'\ntrials = 9\nworkers = 5\n{SPACE}", "workers is 5, and tpe waits for the result"),
        # fixed settings
        (f"settings = 3\n{SPACE}", "settings is 3; it takes a table"),
        (f"[settings]\nseed = 3\n{SPACE}", "settings.seed is the sweep's own; write seed = 3"),
        ("[settings]\noptimizer.leraning_rate = 3\n[space]\nseed = [1]", "did you mean optimizer.learning_rate"),
        (f"[settings]\nmodel.widht = 3\n{SPACE}", "did you mean model.width?"),
        (f"[settings]\nduration = 2020-01-01\n{SPACE}", "settings.duration is datetime.date(2020, 1, 1)"),
        (f"[settings]\noptimizer.learning_rate = 1.0\n{SPACE}", "which is also set to 1; leave one out"),
        # keys of the space
        ("[space]\noptimizer.leraning_rate = [1]", "space.optimizer.leraning_rate: no setting 'opt"),
        ("[space]\nlr = [1]", "did you mean optimizer.learning_rate"),
        ("[space]\nmodel.widht = [8]", "no setting 'model.widht'; did you mean model.width?"),
        ("[space]\ndata.margins = [8]", "no setting 'data.margins'; did you mean data.margin?"),
        ("[space]\nmodel.image_size = [8]", "the model takes it from data.image_size"),
        ("[space]\noptimizer = [8]", "'optimizer' is a section, not a setting"),
        ("[space]\noptimizer.momentum = [0.5]", "optimizer.momentum is a keyword of sgd"),
        ("[space]\ndata.workers = [1, 2]", "changes no result"),
        ("[space]\ncheckpoint_every = ['1 steps']", "changes no result"),
        ("[space]\ntest_weights = ['ema', 'last']", "which only the test split sees"),
        ("[space]\ndata.test = ['test[:10]']", "which only the test split sees"),
        ("[space]\nseed = [1]\n'seed ' = [2]", "no setting 'seed '; did you mean seed?"),
        ("[space]\n'model.depth' = [1]\nmodel.depth = [2]", "is varied already"),
        # kinds and values
        ("[space]\nmodel.depth = {chioce = [1]}", "no kind of dimension 'chioce'; did you mean choice?"),
        ("[space]\nmodel.depth = {}", "names none of the kinds choice, uniform, log, int"),
        ("[space]\nmodel.depth = {int = [1, 2], choice = [1]}", "names int and choice of the kinds"),
        ("[space]\nmodel.depth = 3", "space.model.depth is 3; it takes a list of values"),
        ("[space]\nmodel.depth = {choice = 3}", "choice is 3; it takes a list"),
        ("[space]\nmodel.depth = []", "has no choices"),
        ("[space]\nmodel.depth = [1, 2, 1.0]", "has the choice 1 twice"),
        ("[space]\nduration = ['1 epochs', '1 epoch']", "has the choice 1 epochs twice"),
        ("[space]\nmodel.depth = {choice = [1], steps = 2}", "steps belong to a range"),
        ("[space]\nmodel.depth = ['two']", "model.depth is 'two' (one.toml, space.model.depth); it takes an int"),
        ("[space]\nmodel.pool = ['maximum']", "it takes token or average or attention"),
        ("[space]\noptimizer.learning_rate = [0]", "it takes a number in (0, 1000]"),
        ("[space]\noptimizer.learning_rate = [1979-05-27]", "it takes a number in (0, 1000]"),
        ("[space]\nmodel.depth = {int = [1]}", "int is [1]; it takes two numbers"),
        ("[space]\nmodel.depth = {int = [3, 3]}", "from 3 to 3; the first must be below the second: name one value"),
        ("[space]\nmodel.depth = {int = [3, 2]}", "from 3 to 2; the first must be below the second: swap them"),
        ("[space]\nmodel.depth = {int = [1, 2.5]}", "from 2.5, which is not an int"),
        ("[space]\nmodel.depth = {int = [1, true]}", "from True, which is not an int"),
        (f"[space]\nmodel.depth = {{int = [1, 1{'0' * 400}]}}", "which is not an int up to 9,007,199,254,740,992"),
        (f"[space]\nmodel.depth = {{int = [1, 1{'0' * 5000}]}}", "one.toml is not TOML"),
        ("[space]\nmodel.depth = {uniform = [1, 3], steps = 2}", "takes an int; write int = [1, 3]"),
        ("[space]\nema_decay = {uniform = [0, 1], steps = 2}", "ema_decay is 1.0 (one.toml, space.ema_decay)"),
        ("[space]\nema_decay = {log = [0, 0.5], steps = 2}", "log is from 0, which has no logarithm"),
        ("[space]\nema_decay = {uniform = [0, nan], steps = 2}", "from nan, which is not a number"),
        ("[space]\nema_decay = {uniform = [0, '1'], steps = 2}", "from '1', which is not a number"),
        ("[space]\nema_decay = {uniform = [0, 0.5], steps = 1}", "steps is 1; it takes an int in [2, 10000]"),
        ("[space]\nema_decay = {uniform = [0, 0.5], steps = 'a'}", "steps is 'a'; it takes an int in [2, 10000]"),
        ("[space]\nloss.class_weight = {uniform = [0, 0.5]}", "loss.class_weight is 0.0"),
        # conditions
        ("[space]\nmodel.depth = {choice = [1], when = 3}", "when is 3; it takes a table"),
        ("[space]\nmodel.depth = {choice = [1], when = {seed = 3}}", "when names 'seed', which is not varied above it"),
        (
            "[space]\nmodel.depth = {choice = [1], when = {seed = 3}}\nseed = [3]",
            "a condition names an earlier key of the space; there is none",
        ),
        (
            "[space]\noptimizer.name = ['sgd', 'lion']\nseed = {choice = [1], when = {optimizer.name = 'adamw'}}",
            "when asks for optimizer.name=adamw, which optimizer.name never is; it is sgd, lion",
        ),
        (
            "[space]\nmodel.depth = {int = [1, 3]}\nmodel.heads = {choice = [1], when = {model.depth = 4}}",
            "when asks for model.depth=4, which model.depth never is; it is 1 to 3",
        ),
        (
            "[space]\nema_decay = {uniform = [0, 0.5], steps = 2}\nseed = {choice = [1], when = {ema_decay = 0}}",
            "of which hardly a value comes twice",
        ),
        ("[space]\nseed = [1]\nmodel.heads = {choice = [1], when = {seed = []}}", "when names no value of seed"),
        (
            "[space]\nmodel.depth = [1, 2]\nmodel.heads = {choice = [1], when = {model.depth = 1}}\n"
            "model.width = {choice = [8], when = {model.depth = 2, model.heads = 1}}",
            "space.model.width is never active",
        ),
        # only a combination is wrong
        (
            "[space]\noptimizer.name = ['sgd', 'adamw']\noptimizer.momentum = [0.5]",
            "(at the point optimizer.name=adamw optimizer.momentum=0.5); where they exclude each other, say when",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence_that_names_the_file(here, text, sentence):
    message = error_of(read, text)
    assert sentence in message
    assert "one.toml" in message


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a = 1\nb = \xff\n", "one.toml:2: byte 10 is not UTF-8"),
        (b"a = 1\nb = [1,\n", "one.toml is not TOML: "),
        (b"a = 1\na = 2\n", "(at line 2, column 6)"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(here, content, sentence):
    Path("one.toml").write_bytes(content)
    assert sentence in error_of(read_toml, "one.toml")


def test_a_sweep_that_is_not_there_is_told_with_the_nearest(here):
    (here / "configs" / "sweeps").mkdir()
    (here / "configs" / "sweeps" / "rate.toml").write_text("# Rates.\n" + HEAD + SPACE)
    assert "did you mean configs/sweeps/rate.toml?" in error_of(read_toml, "configs/sweeps/rates.toml")
    assert "configs is not a file" in error_of(read_toml, "configs")
    assert definition.describe_sweep(definition.sweep_names()["configs/sweeps/rate.toml"]) == "Rates."
    # those beside the package are found from anywhere
    assert read_toml("configs/sweeps/digits_rate_decay.toml").trials == 12


def test_a_wrong_change_of_the_command_line_is_told(here):
    text = HEAD + SPACE
    assert "no key of a sweep 'trails'; did you mean trials" in error_of(read, text, changes={"trails": 3})
    assert "workers is '0' (command line)" in error_of(read, text, changes={"workers": "0"})
    assert "say two things; leave one" in error_of(read, text, changes={"seed": 1}, overrides=["seed=2"])
    assert "no setting 'sed'; did you mean seed?" in error_of(read, text, overrides=["sed=2"])


# The one-line form ----------------------------------------------------------------------------------------------------


def test_words_of_the_command_line_are_typed_by_their_setting(here):
    grid = [
        "optimizer.learning-rate=1e-3, 3e-3",
        "seed=0..4",
        "schedule.boundaries=[('80 epochs',), ('100 epochs', '120 epochs')]",
        "data.augment=pad_crop(1),affine(10, 0.1)",
        "optimizer.clip=none,1",
        "model.pool=average",
    ]
    defined = from_grid_words("configs/small.py:wide", grid, ["duration=5 epochs"], 1, changes={"workers": 2})
    assert defined.space == Space(
        (
            Dimension("optimizer.learning_rate", "choice", choices=(0.001, 0.003)),
            Dimension("seed", "int", low=0, high=4),
            Dimension("schedule.boundaries", "choice", choices=(["80 epochs"], ["100 epochs", "120 epochs"])),
            Dimension("data.augment", "choice", choices=(["pad_crop(1)"], ["affine(10, 0.1)"])),
            Dimension("optimizer.clip", "choice", choices=(None, 1.0)),
            Dimension("model.pool", "choice", choices=("average",)),
        )
    )
    assert (defined.trials, defined.workers, defined.name) == (2 * 5 * 2 * 2 * 2, 2, "small:wide")
    assert (defined.config, defined.overrides, defined.sampler) == (
        "configs/small.py:wide",
        ("duration=5 epochs",),
        "grid",
    )
    assert from_grid_words("configs/small.py", ["model.depth=1..1"], seeds=5).seeds == 5
    assert from_grid_words("configs/small.py", ["model.depth=1..1"]).space.grid() == [{"model.depth": 1}]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("optimizer.learning_rate", "varies nothing; write --grid KEY=VALUE,VALUE"),
        ("optimizer.learning_rate=", "varies nothing"),
        ("=3", "varies nothing"),
        ("optimizer.learning_rate=1e-3,x", "optimizer.learning_rate is 'x' (command line); it takes a number"),
        ("optimizer.learning_rate=1e-3,0.001", "--grid optimizer.learning_rate has the choice 0.001 twice"),
        ("seed=4..0", "4..0 is empty; write 0..4"),
        ("seed=[1, 2", "'[1, 2' is not a list"),
        ("sed=1,2", "no setting 'sed'; did you mean seed?"),
        ("data.prefetch=1,2", "changes no result"),
        ("optimizer.momentum=0.5,0.9", "is a keyword of sgd"),
        ("model.depth=1..2.5", "'1..2.5' is a range, and --grid takes values, model.depth=VALUE,VALUE, or ints, 0..4"),
        ("model.dropout=0.1..0.5", "write ranges into a file, under [space], as `cnn-vit sweep --help` shows"),
        ("optimizer.learning_rate={log=[1e-4,1e-1],steps=3}", "write ranges into a file, under [space]"),
        ("optimizer.learning_rate=1e-3,,1e-2", "'1e-3,,1e-2' has an empty value between its commas"),
        ("optimizer.learning_rate=1e-3,", "'1e-3,' has an empty value between its commas"),
    ],
)
def test_a_wrong_word_is_told(here, word, sentence):
    assert sentence in error_of(from_grid_words, "configs/small.py", [word])


def test_words_of_the_command_line_exclude_one_another(here):
    rate = "optimizer.learning_rate=1e-3"
    assert "is also set to 1e-3" in error_of(from_grid_words, "configs/small.py", [rate], [rate])
    assert "is varied already" in error_of(from_grid_words, "configs/small.py", [rate, rate])
    assert "varies nothing" in error_of(from_grid_words, "configs/small.py", [])
    assert "varies the seed itself" in error_of(from_grid_words, "configs/small.py", ["seed=0..4"], [], 5)


@quick
@given(values=strategies.lists(strategies.floats(1e-6, 100, allow_nan=False), min_size=1, max_size=6, unique=True))
def test_every_grid_of_floats_comes_back_from_its_words(values):
    word = f"optimizer.learning_rate={','.join(map(repr, values))}"
    defined = from_grid_words("configs/digits_mlp.py", [word])
    assert defined.space.grid() == [{"optimizer.learning_rate": value} for value in values]
    listed = from_grid_words("configs/digits_mlp.py", [f"optimizer.learning_rate={values}"])
    assert listed == defined


# A recipe's own sweep -------------------------------------------------------------------------------------------------


def write_sweep(body: str) -> str:
    Path("configs/small.py").write_text(f"{RECIPE}\n\ndef sweep(add):\n{body}")
    return "configs/small.py"


def test_a_recipe_defines_its_own_sweep(here):
    config = write_sweep(
        """
    add("optimizer.learning_rate", log=(1e-4, 1e-1), steps=4)
    add("optimizer.name", choice=["adamw", "sgd"])
    add("optimizer.momentum", uniform=(0, 0.9), when={"optimizer.name": "sgd"})
    add("model.depth", int=(1, 3))
    return {"sampler": {"name": "tpe", "startup": 2}, "trials": 12, "settings": {"optimizer.clip": 1.0}, "seeds": 2}
"""
    )
    defined = from_recipe(f"{config}:wide", overrides=["data.batch_size=32"], changes={"trials": 15})
    Path("one.toml").write_text(
        """
        config = "configs/small.py:wide"
        sampler = {name = "tpe", startup = 2}
        trials = 15
        seeds = 2
        settings = {optimizer.clip = 1.0, data.batch_size = 32}
        [space]
        optimizer.learning_rate = {log = [1e-4, 1e-1], steps = 4}
        "optimizer.name" = ["adamw", "sgd"]
        "optimizer.momentum" = {uniform = [0, 0.9], when = {optimizer.name = "sgd"}}
        model.depth = {int = [1, 3]}
        """
    )
    assert defined == replace(read_toml("one.toml"), name="small:wide")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("    add('model.depth', chioce=[1])", "no kind of dimension 'chioce'; did you mean choice?"),
        ("    add('model.depth')", "names none of the kinds"),
        ("    add('model.depth', 1, 3)", 'write add("optimizer.learning_rate", log=(1e-4, 1e-1))'),
        ("    add(choice=[1])", 'write add("optimizer.learning_rate", log=(1e-4, 1e-1))'),
        ("    add(3, choice=[1])", "varies 3, which is not the name of a setting"),
        ("    add('model.depth', choice=range(3))", "choice is range(0, 3); it takes a list"),
        ("    add('model.depth', choice=[object()])", "it takes an int"),
        ("    add('model.depth', choice=[1], when=3)", "when is 3; it takes a table"),
        ("    return {'trials': 3}", "configs/small.py varies nothing"),
        ("    return 3", "configs/small.py:18: sweep returned int"),
        ("    return {'words': ('wide',)}", "configs/small.py:18: sweep returned words, which is the recipe's own"),
        ("    return {'trails': 3}", "no key of a sweep 'trails'; did you mean trials?"),
        ("    1 / 0", "configs/small.py:19: ZeroDivisionError"),
    ],
)
def test_what_is_wrong_in_a_recipes_sweep_is_told(here, body, sentence):
    assert sentence in error_of(from_recipe, write_sweep(body))


def test_a_recipe_without_a_sweep_names_both_remedies(here):
    message = error_of(from_recipe, "configs/small.py")
    assert "add --grid KEY=VALUE,VALUE" in message
    assert "write def sweep(add) beside its get_config" in message


# JSON and the folder --------------------------------------------------------------------------------------------------

numbers = strategies.floats(-1e6, 1e6)
plain = strategies.none() | strategies.booleans() | strategies.integers(-9, 9) | numbers | strategies.text(max_size=4)
plain |= strategies.lists(plain, max_size=3)


@strategies.composite
def definitions(draw):
    dimensions = []
    for number in range(draw(strategies.integers(1, 4))):
        when = {}
        for earlier in draw(strategies.sets(strategies.integers(0, number - 1))) if number else ():
            when[f"key{earlier}"] = tuple(draw(strategies.lists(plain, min_size=1, max_size=2)))
        kind = draw(strategies.sampled_from(["choice", "uniform", "log", "int"]))
        words = {"low": draw(numbers), "high": draw(numbers), "steps": draw(strategies.none() | strategies.just(4))}
        if kind == "choice":
            words = {"choices": tuple(draw(strategies.lists(plain, min_size=1, max_size=3)))}
        dimensions.append(Dimension(f"key{number}", kind, when=tuple(sorted(when.items())), **words))
    options = draw(strategies.dictionaries(strategies.text(max_size=3), plain, max_size=2))
    return SweepDefinition(
        config=draw(strategies.text(max_size=9)),
        objective=draw(strategies.text(max_size=9)),
        overrides=tuple(draw(strategies.lists(strategies.text(max_size=9), max_size=3))),
        space=Space(tuple(dimensions)),
        sampler="tpe",
        sampler_options=tuple(sorted(options.items())),
        trials=draw(strategies.integers(1, 99)),
        seeds=3,
        seed=1,
        metric="validation.loss",
        mode="min",
        lag=2,
        halving=draw(strategies.none() | strategies.just(Halving(4, "3 steps"))),
        workers=2,
        threads=2,
        max_failures=draw(strategies.none() | strategies.integers(1, 9)),
        name=draw(strategies.text(max_size=9)),
    )


@quick
@given(defined=definitions())
def test_a_definition_comes_back_from_its_json(defined):
    stored = json.loads(json.dumps(defined.to_json(), sort_keys=True))
    assert SweepDefinition.from_json(stored) == defined


@quick
@given(data=strategies.data())
def test_damaged_json_is_told_and_never_a_traceback(data):
    defined = data.draw(definitions())
    stored = json.loads(json.dumps(defined.to_json()))
    target = stored
    if data.draw(strategies.booleans()):
        target = stored["space"][0]
    key = data.draw(strategies.sampled_from(sorted(target)))
    if data.draw(strategies.booleans()):
        del target[key]
    else:
        target[key] = data.draw(plain | strategies.dictionaries(strategies.text(max_size=2), plain, max_size=2))
    message = "space.json is not a definition of a sweep"
    try:
        SweepDefinition.from_json(stored)  # another value of the same type is no damage
    except UserError as error:
        message = str(error)
    assert message.startswith("space.json is not a definition of a sweep")


@pytest.mark.parametrize("key", definition.STORED)
def test_a_value_of_another_type_in_space_json_is_told(here, key):
    stored = read(SPACE).to_json()
    stored[key] = 1.5  # which no key holds
    assert f"({key} is 1.5)" in error_of(SweepDefinition.from_json, stored)
    del stored[key]
    assert "space.json is not a definition of a sweep" in error_of(SweepDefinition.from_json, stored)


def test_a_folder_keeps_its_sweep_and_takes_more_trials_and_other_workers(here):
    first = read(f"sampler = 'sobol'\ntrials = 8\n{SPACE}")
    assert claim_sweep("out", first) == first
    stored = Path("out/space.json").read_bytes()
    Path("out/trials").mkdir()
    assert claim_sweep("out", first) == first
    assert Path("out/space.json").read_bytes() == stored
    more = replace(first, trials=16, workers=2, max_failures=3, name="other")
    assert claim_sweep("out", more) == more
    assert claims.read_claimed("out") == more
    message = error_of(claim_sweep, "out", first)
    assert "out has 16 trials planned, and 8 are asked for" in message
    assert claims.read_claimed("out") == more


def test_a_damaged_definition_is_to_be_put_back_and_not_to_be_removed(here):
    claim_sweep("out", read(SPACE))
    Path("out/space.json").write_text("{")
    assert error_of(claims.read_claimed, "out") == (
        "out/space.json is not JSON; put it back from a copy, or name another --out"
    )


def test_losses_that_are_measured_alike_are_compared(here):
    keys = "loss.smoothing = [0.0, 0.1]\nloss.class_weight = ['none', 'balanced']"
    assert read(f"metric = 'best.loss'\n[space]\n{keys}").trials == 4
    assert read("[space]\nloss.name = ['softmax', 'sigmoid']").trials == 2  # by accuracy


def test_a_folder_takes_a_mended_sweep_while_no_trial_is_planned(here):
    wrong = read(f"sampler = 'sobol'\ntrials = 8\n[settings]\ndata.path = 'nowhere'\n{SPACE}")
    mended = read(f"sampler = 'random'\ntrials = 4\n{SPACE}")
    claim_sweep("out", wrong)
    Path("out/plan.jsonl").write_text('{"kind": "tri')  # a kill came before the first line was whole
    assert claim_sweep("out", mended) == mended
    assert claims.read_claimed("out") == mended
    Path("out/plan.jsonl").write_text('{"kind": "trial"}\n')
    assert "out holds a sweep of another definition" in error_of(claim_sweep, "out", wrong)


def test_each_difference_of_a_changed_sweep_is_named_with_both_values(here):
    text = "sampler = 'sobol'\ntrials = 8\n[settings]\noptimizer.clip = 1.0\n[space]\nmodel.depth = [1, 2]\nseed = [0]"
    claim_sweep("out", read(text))
    Path("out/plan.jsonl").write_text("{}\n")
    changed = """
        sampler = "random"
        trials = 8
        seed = 3
        halving = {first = "9 steps"}
        [settings]
        duration = "90 steps"
        optimizer.clip = 2.0
        [space]
        model.depth = {int = [1, 3]}
        ema_decay = {uniform = [0.0, 0.5], steps = 2, when = {model.depth = [1, 2]}}
    """
    message = error_of(claim_sweep, "out", read(changed))
    for difference in (
        "sampler: sobol in the folder, random here",
        "seed: 0 in the folder, 3 here",
        "halving: not set in the folder, eta 3, first 9 steps here",
        "settings.duration: not set in the folder, 90 steps here",
        "settings.optimizer.clip: 1 in the folder, 2 here",
        "space.model.depth: choice of 1, 2 in the folder, int 1 to 3 here",
        "space.ema_decay: not set in the folder, uniform 0 to 0.5 in 2 steps when model.depth is 1 or 2 here",
        "space.seed: choice of 0 in the folder, not set here",
    ):
        assert difference in message
    assert message.endswith("; put it back, or give another --out")
    assert "trials" not in message
    swapped = text.replace("model.depth = [1, 2]\nseed = [0]", "seed = [0]\nmodel.depth = [1, 2]")
    assert "the order of the space: model.depth, seed in the folder, seed, model.depth here" in error_of(
        claim_sweep, "out", read(swapped)
    )


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"lock": "cnn-vit run 1 host"}, "holds a run"),
        ({"config.json": '{"recipe": "", "words": [], "values": {}, "origin": {}}'}, "holds a run"),
        ({"plan.json": "{}", "trials/a/trial.json": "{}"}, "holds a comparison"),
        ({"a.png": ""}, "holds images (a.png)"),
        ({"cats/a.JPG": ""}, "holds images (cats)"),
        ({"results.csv": ""}, "results.csv is not of a sweep, and one would write over it"),
        ({"trials/mine.txt": ""}, "trials is not of a sweep"),
        ({"space.json": "{}"}, "space.json is not a definition of a sweep"),
        ({"space.json": "{"}, "space.json is not JSON"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(here, files, sentence):
    for name, text in files.items():
        path = here / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = sorted(here.rglob("*"))
    defined = read(SPACE)
    (here / "one.toml").unlink()
    assert sentence in error_of(claim_sweep, "out", defined)
    assert sorted(here.rglob("*")) == before


def test_a_folder_with_a_lock_of_its_own_or_with_notes_is_free(here):
    (here / "out").mkdir()
    (here / "out" / "lock").write_text("cnn-vit study 1 host\n")
    (here / "out" / "notes.txt").write_text("mine")
    (here / "out" / "cancel").write_text("[]")  # somebody asked it to end while it began
    defined = read(SPACE)
    assert claim_sweep("out", defined) == defined
    (here / "file").write_text("")
    assert error_of(claim_sweep, "file", defined).startswith("file is a file, and a sweep is written to a folder; ")
    assert "holds no sweep" in error_of(claims.read_claimed, "nothing")


@pytest.mark.parametrize("inner", ["out/inner", "out/trials", "out/trials/inner"])
def test_no_sweep_begins_inside_another_one(here, inner):
    defined = read(SPACE)
    claim_sweep("out", defined)
    sentence = f"{inner} lies in the folder of a sweep, {here / 'out'}; give an --out of the sweep's own"
    assert error_of(claim_sweep, inner, defined).startswith(sentence)
    assert claim_sweep("outside/inner", defined) == defined


def test_a_sweep_into_the_empty_text_is_refused(here):
    import cnn_vit

    assert error_of(cnn_vit.sweep, "configs/small.py", {"model.depth": [1]}, out="").startswith("out is empty; give ")


def test_a_file_that_is_not_there_may_be_one_beside_it(here):
    read(SPACE)
    assert "did you mean one.toml?" in error_of(read_toml, "one.tml")


# Surroundings ---------------------------------------------------------------------------------------------------------


def test_the_options_of_a_sampler_are_those_of_its_function():
    assert {name: list(sampler_options(name)) for name in ("grid", "random", "sobol", "halton", "tpe")} == {
        "grid": [],
        "random": [],
        "sobol": [],
        "halton": [],
        "tpe": ["startup"],
    }
    assert sampler_options("tpe")["startup"].default == 10


def test_reading_a_definition_imports_no_jax(here):
    program = """
import sys
from cnn_vit.studies.sweeping.claims import claim_sweep
from cnn_vit.studies.sweeping.definition import from_grid_words, read_toml
defined = read_toml("configs/sweeps/digits_vit_tpe.toml")
claim_sweep("out", defined)
from_grid_words("configs/digits_vit.py", ["model.depth=1,2"])
print(sorted({"jax", "flax", "optax", "optuna", "scipy", "sklearn", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
