"""Settings: what a recipe, its words and a command line may say, and what they come to mean."""

import hashlib
import json
import math
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import given, strategies

from cnn_vit.errors import UserError
from cnn_vit.settings import (
    KEYS,
    Every,
    Settings,
    count_steps,
    deciding_settings,
    describe_recipe,
    differences,
    explain,
    fingerprint,
    from_json,
    load,
    recipe_names,
    to_json,
    values,
)

RECIPE = '''"""A small one; the word is the depth."""

from ml_collections import ConfigDict, config_dict

WORDS = {"20": "20 layers", "56": "56 layers", "fast": "a tenth of the time"}


def get_config(mode=""):
    words = mode.split(",")
    config = ConfigDict()
    config.data = dict(name="digits", path=config_dict.placeholder(str), image_size=8, channels=1, batch_size=64)
    config.data.augment = ("pad_crop(1)", "flip")
    config.model = dict(name="cifar_resnet/56" if "56" in words else "cifar_resnet/20", filters=16)
    config.optimizer = dict(name="adamw", learning_rate=3e-3)
    config.schedule = dict(name="cosine", warmup="2 epochs")
    config.duration = "1 epochs" if "fast" in words else "10 epochs"
    return config
'''
ADAMW = ("optimizer.b1", "optimizer.b2", "optimizer.epsilon", "optimizer.weight_decay")  # its keywords
quick = hypothesis.settings(deadline=None, derandomize=True, max_examples=25)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Goes to an empty folder; returns the function that writes a recipe there and returns what --config takes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()

    def write(text=RECIPE, name="small"):
        (tmp_path / "configs" / f"{name}.py").write_text(text)
        return f"configs/{name}.py"

    return write


def load_error(*arguments, **keywords) -> str:
    """Returns the one-line sentence with which `load` refuses its arguments."""
    with pytest.raises(UserError) as caught:
        load(*arguments, **keywords)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What ends up where ---------------------------------------------------------------------------------------------------


def test_every_value_knows_where_it_comes_from(recipe):
    settings = load(recipe() + ":56,fast", ["optimizer.learning_rate=1e-4", "model.filters=8"])
    assert {key: settings.origin[key] for key in ("seed", "data.batch_size", "model.name", "duration")} == {
        "seed": "default",
        "data.batch_size": "recipe",
        "model.name": "word 56",
        "duration": "word fast",
    }
    assert (settings["optimizer.learning_rate"], settings.origin["optimizer.learning_rate"]) == (1e-4, "command line")
    assert (settings["model.filters"], settings.origin["model.filters"]) == (8, "command line")
    assert (settings["model.name"], settings["data.path"], settings["seed"]) == ("cifar_resnet/56", None, 0)
    assert (settings.recipe, settings.words) == ("small", ("56", "fast"))


def test_every_common_key_is_there_and_is_explained(recipe):
    settings = load(recipe())
    of_rules = {*ADAMW, "schedule.final"}  # softmax has no keywords
    assert settings.values.keys() == {*KEYS, *of_rules, "model.filters"}
    assert settings.origin.keys() == settings.values.keys()
    rows = explain(settings)
    assert [row.key for row in rows] == list(settings.values)
    assert all(row.meaning for row in rows if row.key != "model.filters")


def test_a_section_drops_its_name_and_holds_its_keywords(recipe):
    assert load(recipe()).section("model") == {"name": "cifar_resnet/20", "filters": 16}
    assert load(recipe()).section("loss") == {"name": "softmax", "smoothing": 0.0, "class_weight": "none"}


def test_recipes_lie_under_the_current_folder_then_beside_the_package(recipe):
    recipe(name="digits_mlp")
    assert load("configs/digits_mlp.py")["model.name"] == "cifar_resnet/20"  # the test's own, not the repository's
    (recipe_names()["configs/digits_mlp.py"]).unlink()
    assert load("configs/digits_mlp.py")["model.name"].startswith("mlp/")


def test_an_edit_of_the_same_length_within_a_second_is_seen(recipe):
    assert load(recipe())["data.batch_size"] == 64
    assert load(recipe(RECIPE.replace("batch_size=64", "batch_size=65")))["data.batch_size"] == 65


def test_what_a_recipe_prints_does_not_reach_stdout(recipe, capsys):
    load(recipe("print('hello')\n" + RECIPE))
    assert capsys.readouterr() == ("", "hello\n")


def test_another_family_or_source_starts_without_the_recipes_keywords(recipe):
    settings = load(recipe(), ["model.name=vit/B16", "model.depth=2"])
    assert settings.section("model") == {"name": "vit/B16", "depth": 2}
    assert load(recipe(), ["model.name=cifar_resnet/56"])["model.filters"] == 16  # the same family keeps them


# smoke ----------------------------------------------------------------------------------------------------------------


def test_smoke_is_a_tiny_run_on_drawn_images(recipe):
    settings = load(recipe() + ":smoke,56", ["seed=3"])
    assert settings.words == ("56", "smoke")
    assert settings.section("model") == {"name": "cifar_resnet/test"}
    data = settings.section("data")
    assert {key: data[key] for key in ("name", "train_count", "validation_count", "test_count", "batch_size")} == {
        "name": "shapes",
        "train_count": 256,
        "validation_count": 64,
        "test_count": 64,
        "batch_size": 32,
    }
    assert (data["image_size"], data["channels"], data["classes"]) == (8, 1, 10)
    assert data["augment"] == ("pad_crop(1)", "flip")
    times = (settings["duration"], settings["evaluate_every"], settings["log_every"])
    assert times == ("20 steps", "10 steps", "5 steps")
    assert settings["schedule.warmup"] == "5 steps"  # 2 epochs would be 16
    assert settings.origin["model.name"] == settings.origin["data.path"] == "word smoke"
    assert settings["optimizer.learning_rate"] == 3e-3


def test_smoke_takes_no_file_no_slice_and_at_most_64_pixels(recipe):
    text = RECIPE.replace("image_size=8", "image_size=(224, 48), train='train[:45000]'")
    data = load(recipe(text) + ":smoke").section("data")
    assert (data["image_size"], data["train"], data["path"]) == ((64, 48), None, None)


@pytest.mark.parametrize(("classes", "count"), [(10, 256), (1000, 1000)])
def test_smoke_draws_at_least_an_image_of_each_class(recipe, classes, count):
    text = RECIPE.replace("image_size=8", f"image_size=8, classes={classes}")
    data = load(recipe(text) + ":smoke").section("data")
    assert (data["classes"], data["train_count"]) == (classes, count)


def test_the_command_line_has_the_last_word_over_smoke(recipe):
    settings = load(recipe() + ":smoke", ["duration=3", "data.train_count=40", "model.filters=4"])
    assert (settings["duration"], settings["data.train_count"], settings["model.filters"]) == ("3 steps", 40, 4)


# What a key takes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.batch_size=1000", 1000),
        ("data.batch_size=1_000", 1000),
        ("data.batch_size=1e3", 1000),
        ("optimizer.learning_rate=1", 1.0),
        ("optimizer.learning-rate=.5", 0.5),
        ("optimizer.b1=1e-1", 0.1),
        ("optimizer.clip=none", None),
        ("optimizer.clip=1", 1.0),
        ("ema_decay=0.999", 0.999),
        ("data.image_size=64", 64),
        ("data.image_size=64,48", (64, 48)),
        ("data.image_size=(64, 48)", (64, 48)),
        ("data.mean=0.5", (0.5,)),
        ("data.mean=0.4,0.5,0.6", (0.4, 0.5, 0.6)),
        ("data.augment=flip", ("flip",)),
        ("data.augment=affine(10, 0.1),flip", ("affine(10, 0.1)", "flip")),
        ("data.augment=('pad_crop(4)', 'flip')", ("pad_crop(4)", "flip")),
        ("data.fit=stretch", "stretch"),
        ("data.fit=pad_batch", "pad_batch"),
        ("data.fit=pad", "pad(0)"),
        ("data.fit= pad( 007 )", "pad(7)"),
        ("data.fit=pad(255)", "pad(255)"),
        ("data.fit=crop(0.875)", "crop(0.875)"),
        ("data.fit= crop( .9500 ) ", "crop(0.95)"),
        ("data.fit=crop(8.75e-1)", "crop(0.875)"),
        ("data.fit=crop(1)", "crop(1.0)"),
        ("data.interpolation=bicubic", "bicubic"),
        ("data.augment=", ()),
        ("duration=300", "300 steps"),
        ("duration=1e6 examples", "1000000 examples"),
        ("duration=.5 epoch", "0.5 epochs"),
        ("data.path=none", None),
        ("data.train=train[:45000]", "train[:45000]"),
        ("data.channels=3", 3),
        ("test_weights=best", "best"),
        ("model.filters=(8, 16)", (8, 16)),
        ("model.filters=8,16", (8, 16)),
        ("model.filters=1e3", 1000),
        ("model.filters=none", None),
        ("model.pool=max", "max"),
        ("model.bias=false", False),
        ("model.rate=0.25", 0.25),
        ("model.patch='8'", "8"),
    ],
)
def test_a_value_of_the_command_line_is_read_as_its_key_takes_it(recipe, override, expected):
    key = override.partition("=")[0].replace("-", "_")
    value = load(recipe(), [override])[key]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "value", "is_own"),
    [
        ("data.fit", "pad(0)", True), ("data.fit", "pad", False), ("data.fit", "crop(0.875)", True),
        ("data.fit", "crop(.875)", False), ("data.fit", 3, False), ("data.levels", None, True),
        ("data.levels", 4095, True), ("data.levels", 0, False), ("data.levels", 4095.0, False),
        ("data.levels", True, False), ("data.max_pixels", None, False), ("data.interpolation", ["bicubic"], False),
    ],
)  # fmt: skip
def test_a_value_in_its_own_form_is_one_that_the_setting_leaves_as_it_is(key, value, is_own):
    assert values.is_own_form(KEYS[key], value) == is_own


FITS = "crop, crop(SHARE 0.01 to 1), stretch, pad_batch, pad or pad(GRAY 0 to 255)"


@pytest.mark.parametrize(
    ("override", "accepted"),
    [
        ("data.batch_size=0", "an int in [1, 1048576] (images)"),
        ("data.batch_size=-1", "an int"),
        ("data.batch_size=1e9", "an int"),
        ("data.batch_size=12.5", "an int"),
        ("data.batch_size=nan", "an int"),
        ("data.batch_size=1e400", "an int"),
        ("data.batch_size=none", "an int"),
        ("data.batch_size=True", "an int"),
        ("data.batch_size=" + "9" * 5000, "an int"),
        ("optimizer.learning_rate=nan", "a number in (0, 1000]"),
        ("optimizer.learning_rate=inf", "a number"),
        ("optimizer.learning_rate=0", "a number"),
        ("optimizer.learning_rate=fast", "a number"),
        ("optimizer.b1=1", "a number in [0, 1)"),
        ("ema_decay=1", "a number in [0, 1) or none"),
        ("data.std=0,0.5,0.5", "a tuple of numbers in (0, 1] or none"),
        ("data.mean=a,b", "a tuple of numbers"),
        ("data.image_size=64,48,3", "an int or (height, width) in [1, 8192]"),
        ("data.image_size=64x48", "an int or (height, width)"),
        ("data.image_size=0", "an int or (height, width)"),
        ("data.augment=1,2", "a tuple of texts"),
        *((f"data.fit={fit}", FITS) for fit in ("squeeze", "pad(256)", "pad()", "crop()", "crop(x)", "Crop")),
        *((f"data.fit=crop({share})", FITS) for share in ("1.5", "3", "0", "-0.5", "nan", "inf", "0.009", "0.5)")),
        ("data.interpolation=nearest", "bilinear or bicubic"),
        ("data.channels=2", "1 or 3 or none"),
        ("data.path=", "a text"),
        ("data.path=a\0b", "a text"),
        ("test_weights=worst", "last or best or ema or none"),
        ("duration=0", "a duration (20 epochs, 4000 steps, 1e6 examples) in (0, 1e15]"),
        ("duration=20 eopchs", "a duration"),
        ("duration=nan epochs", "a duration"),
        ("duration=1e999999999", "a duration"),
        ("duration=-3 steps", "a duration"),
        ("schedule.warmup=1e16 steps", "a duration"),
        ("optimizer.decay_pattern=(", "a regular expression"),
        ("keep_checkpoints=1", "an int in [2, 1000]"),
        ("seed=4294967296", "an int"),  # jax would make it the seed 0
        ("data.mean=" + "(" * 9000, "a tuple of numbers"),
        ("data.augment=" + "a," * 6000, "a tuple of texts"),
    ],
)
def test_a_wrong_value_is_refused_with_what_the_key_takes(recipe, override, accepted):
    key, _, value = override.partition("=")
    sentence = load_error(recipe(), [override])
    assert sentence.startswith(f"{key} is {value[:20]!r}"[:-1].replace("\0", "\\x00"))
    assert "(command line); it takes " + accepted in sentence
    assert len(sentence) < 250


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("config.data.batch_size = '64'", "it takes an int"),
        ("config.data.batch_size = 64.5", "it takes an int"),
        ("config.data.batch_size = True", "it takes an int"),
        ("config.seed = config_dict.placeholder(int)", "seed is None (configs/small.py); it takes an int"),
        ("config.ema_decay = float('nan')", "it takes a number"),
        ("config.data.augment = 'flip'", "it takes a tuple of texts"),
        ("config.data.augment = (1,)", "it takes a tuple of texts"),
        ("config.duration = True", "it takes a duration"),
        ("config.model.act = print", "it takes numbers, texts, true, false, none and tuples of them"),
        ("config.model.act = float('inf')", "it takes numbers"),
    ],
)
def test_a_value_of_a_recipe_is_checked_as_one_of_the_command_line_is(recipe, line, words):
    text = RECIPE.replace("    return config\n", f"    config.unlock()\n    {line}\n    return config\n")
    sentence = load_error(recipe(text.replace("config = ConfigDict()", "config = ConfigDict(type_safe=False)")))
    assert words in sentence
    assert "configs/small.py" in sentence


def test_whole_floats_of_a_recipe_are_ints_where_an_int_is_taken(recipe):
    batch_size = load(recipe(RECIPE.replace("batch_size=64", "batch_size=1e3")))["data.batch_size"]
    assert batch_size == 1000
    assert type(batch_size) is int


@pytest.mark.parametrize(
    ("override", "beginning"),
    [
        ("optimizer.leraning_rate=1", "no setting 'optimizer.leraning_rate'; did you mean optimizer.learning_rate?"),
        ("sed=1", "no setting 'sed'; did you mean seed?"),
        ("lr=1", "no setting 'lr'; did you mean optimizer.learning_rate?"),
        ("optimizer.lr=1", "no setting 'optimizer.lr'; did you mean optimizer.learning_rate?"),
        ("epochs=1", "no setting 'epochs'; did you mean duration?"),
        ("zzz=1", "no setting 'zzz'; there is checkpoint_every, data.augment, "),
        ("learning_rate=1", "no setting 'learning_rate'; did you mean optimizer.learning_rate?"),
        ("model.name.size=1", "no setting 'model.name.size'; did you mean model.name?"),
        ("model=vit/B16", "'model' is a section, not a setting; set model.name"),
        ("__class__=1", "no setting '__class__'; "),
        ("seed", "'seed' sets nothing; write seed=VALUE"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(recipe, override, beginning):
    assert load_error(recipe(), [override]).startswith(beginning)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch gone')",
        "$(touch gone)",
        "`touch gone`",
        "!!python/object:os.system",
        "{0.__class__}",
    ],
)
def test_code_in_a_value_is_text_and_never_runs(recipe, tmp_path, text):
    path = recipe()
    for key in ("data.path", "model.pool", "data.name"):
        assert load(path, [f"{key}={text}"])[key] == text
    assert load(path, [f"data.augment={text}"])["data.augment"] == (text,)
    load_error(path, [f"data.batch_size={text}"])
    assert not (tmp_path / "gone").exists()


def test_a_key_without_a_default_has_to_be_set(recipe):
    sentence = load_error(recipe(RECIPE.replace('name="adamw", ', "")))
    assert sentence == "configs/small.py sets no optimizer.name, the learning rule; it takes a text"
    sentence = load_error(recipe(RECIPE.replace('name="cosine"', 'name="step"')))
    assert sentence.startswith("configs/small.py sets no schedule.boundaries, the times at which the rate falls")
    assert "sets no model.name" in load_error(recipe(RECIPE.replace("config.model = ", "unused = ")) + ":smoke")


# Faults of a recipe's file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("x = 1\ny = (\n", "configs/small.py:2: SyntaxError: '(' was never closed"),
        ("x = 1\n\nraise KeyError('here')\n", "configs/small.py:3: KeyError: 'here'"),
        ("import no_such_thing\n", "configs/small.py:1: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import sys\nsys.exit(0)\n", "configs/small.py:2: SystemExit: 0"),
        ("x = 1\n", "configs/small.py has no get_config(mode); "),
        ("\ndef get_config():\n    return 1\n", "configs/small.py:2: TypeError: get_config() takes 0 "),
        ("\ndef get_config(mode):\n    x = 1\n    return inner()\n\n\ndef inner():\n    return 1 / 0\n",
         "configs/small.py:8: ZeroDivisionError: division by zero"),
        ("\ndef get_config(mode):\n    import json\n    return json.loads('{')\n",
         "configs/small.py:4: JSONDecodeError"),
        ("\ndef get_config(mode):\n    return {'seed': 1}\n", "configs/small.py:2: get_config returned dict; "),
        ("\ndef get_config(mode):\n    return get_config(mode)\n", "configs/small.py:3: RecursionError: "),
        ("WORDS = 1\ndef get_config(mode):\n    return 1\n", "configs/small.py: WORDS is not a dict"),
        ("x = '\xff'\n".encode("latin-1"), "configs/small.py:1: SyntaxError: "),
        ("x = 1\0\n", "configs/small.py:1: "),
    ],
)  # fmt: skip
def test_a_fault_of_the_file_is_one_sentence_with_its_line(recipe, tmp_path, text, beginning):
    recipe()
    (tmp_path / "configs" / "small.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert load_error("configs/small.py").startswith(beginning)


def test_an_unknown_word_is_refused_with_the_documented_ones(recipe):
    assert load_error(recipe() + ":57") == "configs/small.py has no word '57'; its words are 20, 56, fast, smoke"
    assert load_error(recipe() + ":56,") == "configs/small.py has no word ''; its words are 20, 56, fast, smoke"
    assert "says '56' twice" in load_error(recipe() + ":56,56")


def test_a_missing_recipe_names_the_nearest(recipe, tmp_path):
    recipe()
    assert "did you mean configs/small.py?" in load_error("configs/smal.py:56")
    assert "did you mean configs/small.py?" in load_error("small")
    (tmp_path / "configs" / "folder.py").mkdir()
    for path in ("configs", "configs/folder.py", "configs/" + "long" * 200 + ".py", ""):
        assert load_error(path).startswith(f"no recipe {path[:20]!r}"[:-1])


def test_words_are_read_without_running_the_recipe(recipe, tmp_path):
    path = tmp_path / recipe("raise KeyError\n" + RECIPE.partition("\n")[2])
    assert describe_recipe(path)[1]["56"] == "56 layers"
    path = tmp_path / recipe()
    assert describe_recipe(path)[0] == "A small one; the word is the depth."
    assert list(describe_recipe(path)[1]) == ["20", "56", "fast", "smoke"]


# Durations ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("20 epochs", 157),  # 20 * 1000 / 128 = 156.25
        ("4000 steps", 4000),
        ("300", 300),
        ("1e6 examples", 7813),  # 7812.5
        ("0.1 epochs", 1),
        ("1.28 epochs", 10),  # exactly; in floats 1.28 * 1000 / 128 may be more than 10
        ("0 steps", 0),
    ],
)
def test_a_duration_is_rounded_up_to_whole_steps(amount, expected):
    assert count_steps(amount, examples=1000, batch=128, key="duration") == expected


def test_a_duration_of_more_steps_than_an_int32_is_refused():
    with pytest.raises(UserError, match=r"duration of 1e9 epochs is \d+ steps; 2147483647 are the most"):
        count_steps("1e9 epochs", examples=50_000, batch=1, key="duration")


@pytest.mark.parametrize(
    ("amount", "steps_that_fire"),
    [
        ("3 steps", [3, 6, 9, 12]),
        ("1.5 steps", [2, 3, 5, 6, 8, 9, 11, 12]),
        ("1 epochs", [4, 8, 12]),  # 100 examples in steps of 27: multiples of 3.7037...
        ("0.5 steps", list(range(1, 13))),
        ("54 examples", [2, 4, 6, 8, 10, 12]),
    ],
)
def test_every_fires_at_the_first_step_at_or_after_each_multiple(amount, steps_that_fire):
    every = Every(amount, examples=100, batch=27, key="log_every")
    assert [step for step in range(1, 13) if every.fires(step)] == steps_that_fire
    for step in range(1, steps_that_fire[-1] + 1):
        assert every.next_step(step) == min(firing for firing in steps_that_fire if firing >= step)


@quick
@given(
    number=strategies.decimals("0.001", 5000, places=3, allow_nan=False),
    unit=strategies.sampled_from(["steps", "epochs", "examples"]),
    examples=strategies.integers(1, 10**6),
    batch=strategies.integers(1, 4096),
)
def test_durations_agree_with_exact_fractions(number, unit, examples, batch):
    steps_in_one = {"steps": Fraction(1), "epochs": Fraction(examples, batch), "examples": Fraction(1, batch)}
    exact = Fraction(number) * steps_in_one[unit]
    amount = f"{number} {unit}"
    assert count_steps(amount, examples=examples, batch=batch, key="duration") == math.ceil(exact)
    every = Every(amount, examples=examples, batch=batch, key="duration")
    expected = set(range(1, 61))  # where the interval is below one step, each step has a multiple
    if exact >= 1:
        multiples = {math.ceil(exact * count) for count in range(1, math.floor(60 / exact) + 2)}
        expected = {step for step in multiples if step <= 60}
    assert {step for step in range(1, 61) if every.fires(step)} == expected
    later_steps = [step for step in expected if step >= 7]
    assert not later_steps or every.next_step(7) == min(later_steps)


# Fingerprint, JSON, differences ---------------------------------------------------------------------------------------


def test_the_fingerprint_is_sha256_of_canonical_json(recipe):
    settings = load(recipe())
    deciding = dict(settings.values)
    for key in ("checkpoint_every", "keep_checkpoints"):
        del deciding[key]
    for name in ("path", "workers", "prefetch", "check", "on_bad_image", "max_pixels"):
        del deciding[f"data.{name}"]
    del deciding["pretrained.weights"]  # their digest decides, not where they lie
    for key, value in deciding.items():
        if isinstance(value, tuple):
            deciding[key] = list(value)
        elif value == 0.0 and value is not False:
            deciding[key] = int(value)
    text = json.dumps({"data": "abc", "settings": deciding}, sort_keys=True, separators=(",", ":"))
    assert fingerprint(settings, "abc") == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "override",
    [
        "checkpoint_every=7",
        "keep_checkpoints=9",
        "data.path=elsewhere",
        "data.workers=0",
        "data.prefetch=5",
        "data.check=none",
        "data.on_bad_image=skip",
        "data.max_pixels=1000",
    ],
)
def test_what_cannot_change_results_is_not_in_the_fingerprint(recipe, override):
    ours, theirs = load(recipe()), load(recipe(), [override])
    assert ours.values != theirs.values
    assert fingerprint(ours, "d") == fingerprint(theirs, "d")
    assert differences(ours, theirs) == []


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed=1", "seed: 0 here, 1 in the folder"),
        ("log_every=7", "log_every: '50 steps' here, '7 steps' in the folder"),
        ("optimizer.learning_rate=0.01", "optimizer.learning_rate: 0.003 here, 0.01 in the folder"),
        ("model.filters=8", "model.filters: 16 here, 8 in the folder"),
        ("model.depth=none", "model.depth: not set here, None in the folder"),
        ("data.augment=", "data.augment: ('pad_crop(1)', 'flip') here, () in the folder"),
        ("data.fit=crop(1)", "data.fit: 'crop' here, 'crop(1.0)' in the folder"),
        ("data.interpolation=bicubic", "data.interpolation: 'bilinear' here, 'bicubic' in the folder"),
    ],
)
def test_what_changes_results_is_named_key_by_key(recipe, override, line):
    ours, theirs = load(recipe()), load(recipe(), [override])
    assert differences(ours, theirs) == [line]
    assert fingerprint(ours, "d") != fingerprint(theirs, "d")
    assert fingerprint(ours, "d") != fingerprint(ours, "e")


def test_two_ways_to_write_the_same_run_have_one_fingerprint(recipe):
    ours = load(recipe(), ["duration=1280 examples", "model.filters=16", "ema_decay=0"])
    theirs = load(recipe(), ["duration=1.28e3 example", "model.filters=16.0", "ema_decay=0.0"])
    assert fingerprint(ours, "d") == fingerprint(theirs, "d")
    assert differences(ours, theirs) == []


def test_settings_survive_their_json(recipe):
    settings = load(recipe() + ":56", ["data.image_size=8,8", "model.filters=(4, (5, 6))"])
    again = from_json(json.loads(json.dumps(to_json(settings), allow_nan=False)), file="config.json")
    assert again == settings
    assert isinstance(again, Settings)


@pytest.mark.parametrize(
    ("change", "beginning"),
    [
        (lambda stored: None, "config.json holds None"),
        (lambda stored: stored | {"values": 3}, "config.json holds"),
        (
            lambda stored: stored | {"values": stored["values"] | {"seed": "x"}},
            "seed is 'x' (config.json); it takes an int",
        ),
        (lambda stored: stored | {"values": stored["values"] | {"sed": 1}}, "config.json sets 'sed', which this"),
        (lambda stored: stored | {"values": {}}, "config.json sets no data.name"),
    ],
)
def test_a_damaged_record_is_refused(recipe, change, beginning):
    with pytest.raises(UserError) as caught:
        from_json(change(to_json(load(recipe()))), file="config.json")
    assert str(caught.value).startswith(beginning)


# Properties -----------------------------------------------------------------------------------------------------------

plain_values = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(10**9), 10**9)
    | strategies.floats(-1e6, 1e6, allow_nan=False) | strategies.text("abc_/.-", min_size=1, max_size=6),
    lambda inner: strategies.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)  # fmt: skip


@quick
@given(value=plain_values)
def test_what_python_writes_of_a_plain_value_is_read_back(value):
    if isinstance(value, str) or (isinstance(value, tuple) and len(value) < 2):
        return  # a bare text may look like a number
    parsed = values.parse_any(repr(value))
    assert parsed == value
    assert repr(values.as_plain(parsed)) == repr(value)


@quick
@given(text=strategies.text(max_size=40))
def test_any_text_is_a_value_or_one_sentence(text):
    for key, row in KEYS.items():
        try:
            value = values.check_value(key, row, text, where="command line", is_text=True)
        except UserError:
            continue
        assert values.check_value(key, row, value, where="recipe") == value  # a value in its own form stays as it is
    json.dumps(values.parse_any(text), allow_nan=False)


@quick
@given(first=strategies.dictionaries(strategies.sampled_from("abc"), plain_values), second=plain_values)
def test_fingerprints_differ_exactly_where_a_difference_is_named(first, second):
    def settings_with(keywords):
        assignments = {key: "x" if row.default is ... else row.default for key, row in KEYS.items()}
        assignments |= {f"model.{key}": value for key, value in keywords.items()}
        return Settings(assignments, dict.fromkeys(assignments, "recipe"), "r")

    ours, theirs = settings_with(first), settings_with({**first, "a": second})
    our_values, their_values = deciding_settings(ours), deciding_settings(theirs)
    is_same_value = our_values == their_values and repr(our_values) == repr(their_values)
    is_same_run = fingerprint(ours, "d") == fingerprint(theirs, "d")
    assert is_same_run == (differences(ours, theirs) == []) == is_same_value
    backwards = Settings(dict(reversed(ours.values.items())), ours.origin, "other")
    assert fingerprint(backwards, "d") == fingerprint(ours, "d")
