"""Optimizers, schedules and losses in settings: whose keyword is whose, and what another rule does to a recipe's."""

import pytest

from cnn_vit.errors import UserError
from cnn_vit.settings import KEYS, fingerprint, from_json, load, read_rule, rule_names, run_keys, to_json
from cnn_vit.settings.rules import rules_that_take
from cnn_vit.settings.values import KINDS

SECTIONS = ("loss", "optimizer", "schedule")
RULES = [(section, name) for section in SECTIONS for name in rule_names(section)]
RECIPE = '''"""Two optimizers; the word is the other one."""

from ml_collections import ConfigDict

WORDS = {"lion": "another optimizer", "careless": "another, with what was meant for the first"}


def get_config(mode=""):
    config = ConfigDict()
    config.data = dict(name="digits")
    config.model = dict(name="mlp/test", hidden=(4,))
    config.optimizer = dict(name="adamw", learning_rate=3e-3, weight_decay=0.05, b2=0.95, clip=1.0)
    if mode == "lion":
        config.optimizer = dict(name="lion", b2=0.98)
    if mode == "careless":
        config.optimizer.name = "sgd"
    config.schedule = dict(name="cosine", warmup="2 epochs", final=0.1)
    return config
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe in a folder of its own, as --config takes it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "two.py").write_text(RECIPE)
    return "configs/two.py"


def load_error(*arguments) -> str:
    """Returns the one-line sentence with which `load` refuses its arguments."""
    with pytest.raises(UserError) as caught:
        load(*arguments)
    assert caught.value.code == 2
    return str(caught.value)


# What a rule's text says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), RULES)
def test_every_keyword_has_a_meaning_and_every_number_a_range_that_holds_its_default(section, name):
    rule = read_rule(section, name)
    assert rule.meaning.endswith((".", ":"))
    for keyword, row in rule.keys.items():
        assert row.meaning, keyword
        assert row.kind in KINDS
        assert row.range or row.kind == "bool" or row.choices, keyword
    minimal = {"schedule.boundaries": ("10 steps",)} if name == "step" else {}
    values = {"data.name": "digits", "model.name": "mlp/test", "optimizer.name": "sgd", f"{section}.name": name}
    stored = {"recipe": "", "words": [], "values": values | minimal, "origin": {}}
    settings = from_json(stored, file="a run")  # each default passes the check of its own range
    for keyword, row in rule.keys.items():
        expected = minimal.get(f"{section}.{keyword}", row.default)
        assert settings[f"{section}.{keyword}"] == expected


def test_an_optimizers_table_has_its_own_learning_rate_and_keywords_behind_its_name():
    table = run_keys({"optimizer.name": "lion"})
    assert table["optimizer.learning_rate"].default == 1e-4
    keys = [key for key in table if key.startswith("optimizer.")]
    assert keys[:4] == ["optimizer.name", "optimizer.b1", "optimizer.b2", "optimizer.weight_decay"]
    assert table["optimizer.b2"].range == "[0, 1)"
    assert table["optimizer.b2"].meaning == "decay of the momentum"
    assert [key for key in run_keys({}) if key.startswith("optimizer.")] == [
        key for key in KEYS if key.startswith("optimizer.")
    ]


# Whose keyword is whose -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "name"), RULES)
def test_a_foreign_keyword_is_refused_with_those_that_take_it(recipe, section, name):
    own = read_rule(section, name).keys
    foreign = set()
    for other in rule_names(section):
        foreign |= read_rule(section, other).keys.keys() - own.keys()
    changes = [f"{section}.name={name}"]
    if name == "step":
        changes.append("schedule.boundaries=10")
    load(recipe, changes)
    for keyword in sorted(foreign):
        takers = rules_that_take(section, keyword)
        sentence = load_error(recipe, [*changes, f"{section}.{keyword}=1"])
        assert sentence.startswith(
            f"{section}.{keyword} is a keyword of {', '.join(takers)}, not of the {section} that is named; "
        )
        assert all(f"{section}.{taken}" in sentence for taken in own)
    assert foreign or name == "focal"  # the only loss with keywords


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.epsilom=0.8", "no setting 'optimizer.epsilom'; did you mean optimizer.epsilon?"),
        ("optimizer.weight_decy=0", "no setting 'optimizer.weight_decy'; did you mean optimizer.weight_decay?"),
        ("optimizer.name=adm", "no optimizer 'adm'; did you mean adam or radam or adamw?"),
        ("schedule.name=cosin", "no schedule 'cosin'; did you mean cosine?"),
        ("loss.name=hinge", "no loss 'hinge'; there is focal, sigmoid, softmax"),
        ("optimizer.b1=1", "optimizer.b1 is '1' (command line); it takes a number in [0, 1)"),
        ("schedule.final=2", "schedule.final is '2' (command line); it takes a number in [0, 1]"),
    ],
)
def test_a_wrong_name_or_number_is_refused_while_settings_are_read(recipe, override, sentence):
    assert load_error(recipe, [override]) == sentence


def test_values_of_rules_are_read_as_their_keywords_take_them(recipe):
    settings = load(recipe, ["schedule.name=step", "schedule.boundaries=30 epochs,400", "optimizer.name=muon",
                             "optimizer.iterations=3", "optimizer.nesterov=false", "loss.name=focal"])  # fmt: skip
    assert settings["schedule.boundaries"] == ("30 epochs", "400 steps")
    assert (settings["optimizer.iterations"], settings["optimizer.nesterov"]) == (3, False)
    assert (settings["loss.gamma"], settings["loss.alpha"]) == (2.0, None)
    assert load(recipe, ["loss.name=focal", "loss.alpha=0.25"])["loss.alpha"] == 0.25


# Another rule ---------------------------------------------------------------------------------------------------------


def test_another_optimizer_drops_the_keywords_and_the_rate_of_the_recipes_and_names_them(recipe):
    settings = load(recipe, ["optimizer.name=lion"])
    assert settings.section("optimizer") == {
        "name": "lion", "b1": 0.9, "b2": 0.99, "weight_decay": 0.0, "learning_rate": 1e-4,
        "decay_pattern": r"(^|/)kernel$", "clip": 1.0, "accumulate": 1,
    }  # fmt: skip
    assert settings.origin["optimizer.b2"] == "default"
    assert settings.notes == (
        "optimizer.name=lion drops what the recipe sets for adamw: optimizer.b2=0.95, optimizer.learning_rate=0.003, "
        "optimizer.weight_decay=0.05",
    )
    assert (settings["schedule.final"], settings["schedule.warmup"]) == (0.1, "2 epochs")


def test_what_the_command_line_sets_for_the_new_rule_stays_and_is_not_missed(recipe):
    settings = load(recipe, ["optimizer.name=lion", "optimizer.learning_rate=2e-4", "optimizer.b2=0.9"])
    assert (settings["optimizer.learning_rate"], settings["optimizer.b2"]) == (2e-4, 0.9)
    assert settings.notes == ("optimizer.name=lion drops what the recipe sets for adamw: optimizer.weight_decay=0.05",)


def test_the_same_rule_drops_nothing(recipe):
    settings = load(recipe, ["optimizer.name=adamw", "schedule.name=cosine"])
    assert (settings["optimizer.learning_rate"], settings["optimizer.b2"], settings["schedule.final"]) == (
        3e-3,
        0.95,
        0.1,
    )
    assert settings.notes == ()


def test_another_schedule_or_model_drops_its_own_keywords_alone(recipe):
    settings = load(recipe, ["schedule.name=constant", "model.name=vit/test"])
    assert settings["optimizer.learning_rate"] == 3e-3
    assert "schedule.final" not in settings.values
    assert settings.notes == (
        "model.name=vit/test drops what the recipe sets for mlp/test: model.hidden=(4,)",
        "schedule.name=constant drops what the recipe sets for cosine: schedule.final=0.1",
    )


def test_a_word_that_switches_drops_what_was_meant_for_the_first_itself(recipe):
    settings = load(f"{recipe}:lion")
    assert (settings["optimizer.b2"], settings["optimizer.learning_rate"]) == (0.98, 1e-4)
    assert settings.origin["optimizer.b2"] == "word lion"
    sentence = load_error(f"{recipe}:careless")
    assert sentence.startswith("optimizer.b2 is a keyword of adam, adamw, nadamw")
    assert "not of the optimizer that is named" in sentence


# On disk --------------------------------------------------------------------------------------------------------------


def test_a_default_that_is_written_out_is_the_same_run(recipe):
    written = load(recipe, ["optimizer.b1=0.9", "optimizer.epsilon=1e-8"])
    assert fingerprint(written, "") == fingerprint(load(recipe), "")
    assert fingerprint(load(recipe, ["optimizer.b1=0.8"]), "") != fingerprint(written, "")


def test_a_stored_run_keeps_its_rules_keywords(recipe):
    settings = load(recipe, ["schedule.name=step", "schedule.boundaries=3,4", "schedule.factor=0.5"])
    assert from_json(to_json(settings), file="a run").values == settings.values


def test_a_run_that_was_stored_with_the_keywords_of_all_rules_is_read_without_the_others(recipe):
    settings = load(recipe)
    stored = to_json(settings)
    stored["values"] |= {"optimizer.momentum": 0.9, "optimizer.nesterov": False, "schedule.boundaries": [], "seed": 0}
    assert from_json(stored, file="a run").values == settings.values
    stored["values"]["optimizer.speed"] = 1
    with pytest.raises(UserError, match=r"a run sets 'optimizer\.speed', which this version of cnn_vit does not know"):
        from_json(stored, file="a run")
