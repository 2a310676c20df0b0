"""`list` has a line for everything there is; and what a terminal shows of tables and paragraphs."""

import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.cli import _settings
from cnn_vit.cli import list as list_command
from cnn_vit.data import augment
from cnn_vit.transfer import catalog

TOP = Path(__file__).parents[2]


def stems(folder: str) -> set[str]:
    """The names of the Python files of a folder, without those that begin with `_`."""
    return {path.stem for path in (TOP / folder).glob("[!_]*.py")}


def test_every_model_source_and_recipe_is_listed_with_a_meaning(capsys):
    assert main(["list", "--json"]) == 0
    lists = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in lists["models"]} == stems("cnn_vit/models")
    assert {entry["name"] for entry in lists["data"]} == stems("cnn_vit/data/sources")
    assert {entry["name"] for entry in lists["recipes"]} >= {f"configs/{stem}.py" for stem in stems("configs")}
    assert all(entry["meaning"] for entries in lists.values() for entry in entries)
    (family,) = [entry for entry in lists["models"] if entry["name"] == "cifar_resnet"]
    assert {"20", "56", "110", "test"} <= set(family["variants"])
    (recipe,) = [entry for entry in lists["recipes"] if entry["name"] == "configs/cifar_resnet.py"]
    assert (recipe["command"], recipe["words"]) == ("train", ["20", "32", "44", "56", "110"])
    (recipe,) = [entry for entry in lists["recipes"] if entry["name"] == "configs/compare_digits.py"]
    assert (recipe["command"], recipe["words"]) == ("compare", ["data"])
    sweeps = {f"configs/sweeps/{path.name}" for path in (TOP / "configs" / "sweeps").iterdir()}
    assert {entry["name"] for entry in lists["sweeps"]} >= sweeps


def read_functions(file: str) -> dict:
    """The functions of a file of training, by name, as `inspect` sees their keywords."""
    module = importlib.import_module(f"cnn_vit.training.{file}")
    return {
        "losses": {name: entry.cost for name, entry in getattr(module, "LOSSES", {}).items()},
        "optimizers": {name: entry.build for name, entry in getattr(module, "OPTIMIZERS", {}).items()},
        "schedules": getattr(module, "SCHEDULES", {}),
    }[file]


@pytest.mark.parametrize("kind", ["losses", "optimizers", "schedules"])
def test_every_rule_is_listed_with_each_of_its_keywords_with_range_and_meaning(kind, capsys):
    assert main(["list", kind, "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)[kind]}
    functions = read_functions(kind)
    assert entries.keys() == functions.keys()
    assert main(["list", kind]) == 0
    shown = capsys.readouterr().out
    for name, function in functions.items():
        assert re.search(rf"^  {name} +{re.escape(entries[name]['meaning'])}$", shown, re.M)
        parameters = inspect.signature(function).parameters.values()
        expected = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        assert [keyword["name"] for keyword in entries[name]["keywords"]] == expected
        for keyword in entries[name]["keywords"]:
            assert re.search(rf"^    {keyword['name']} +{re.escape(keyword['default'])} +.*; .*", shown, re.M)
            assert keyword["meaning"]
            is_choice = re.match(r"true or false|linear or sqrt", keyword["takes"])
            assert is_choice or re.search(r" in [\[(][^,]+, [^,]+[\])]( or none)?$", keyword["takes"]), keyword


def test_every_augmentation_is_listed_with_the_numbers_that_it_takes(capsys):
    assert main(["list", "augment", "--json"]) == 0
    listed = {}
    for entry in json.loads(capsys.readouterr().out)["augment"]:
        defaults = ", ".join(f"{number['name']}={number['default']}" for number in entry["keywords"])
        listed[entry["name"]] = f"{entry['name']}({defaults})" if defaults else entry["name"]
    assert listed == {name: augment.signature(name) for name in augment.OPERATIONS}


def test_one_kind_is_listed_alone_and_ends_with_the_next_command(capsys):
    assert main(["list", "recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recipes"
    assert lines[-1].startswith("next: cnn-vit train ")
    assert not [line for line in lines if line in ("models", "data")]


def test_a_recipe_that_cannot_be_read_is_listed_all_the_same(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "broken.py").write_text("x = (")
    assert main(["list", "recipes"]) == 0
    assert re.search(r"configs/broken\.py +cannot be read: ", capsys.readouterr().out)
    (tmp_path / "configs" / "sweeps").mkdir()
    (tmp_path / "configs" / "sweeps" / "broken.toml").write_bytes(b"# \xff")
    (tmp_path / "configs" / "sweeps" / "silent.toml").write_text("trials = 3")
    assert main(["list", "sweeps"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"configs/sweeps/broken\.toml +cannot be read: ", shown)
    assert re.search(r"(?m)^  configs/sweeps/silent\.toml *$", shown)
    assert "next: cnn-vit sweep configs/sweeps/broken.toml --out=" in shown


# Width ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["list"], ["list", "optimizers"], ["--help"], ["train", "--config=configs/digits_vit.py", "--help"]],
    ids=" ".join,
)
@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_no_sentence_is_cut_by_its_edge(words, width, capsys, monkeypatch):
    assert main(words) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(cli, "terminal_width", lambda: width)
    monkeypatch.setattr(_settings, "terminal_width", lambda: width)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(words) == 0
    shown = capsys.readouterr().out
    # What is to be copied, and a long value, stay whole.
    stays_whole = re.compile(r" {4}cnn-vit |  --config\.data\.augment")
    assert all(len(line) <= width for line in shown.splitlines() if not stays_whole.match(line))
    assert sorted(re.findall(r"\w+", shown)) == sorted(re.findall(r"\w+", piped))


def test_a_column_of_sentences_is_folded_under_itself_or_without_room_under_its_row():
    rows = [("name", "a b c", "one two three four five six seven eight nine"), ("other", "", "ten")]
    # Without a width, each row is one line.
    assert cli.format_table(rows) == ("name   a b c  one two three four five six seven eight nine\nother         ten")
    assert cli.format_table(rows, width=55) == (
        "name   a b c  one two three four five six seven eight\n              nine\nother         ten"
    )
    assert cli.format_table(rows, indent="  ", width=50) == (
        "  name   a b c\n      one two three four five six seven eight nine\n  other\n      ten"
    )


def test_a_table_of_short_cells_is_folded_within_its_columns():
    """By hand: 23 and 12 characters and a gap of 2 become 11, 2 and 11, folded at blanks and slashes."""
    rows = [("layer", "error"), ("stages/0/blocks/1/conv1", "0.5"), ("the whole network", "12 of 13 are")]
    assert cli.format_table(rows, width=24) == (
        "layer        error\nstages/0/    0.5\nblocks/1/\nconv1\nthe whole    12 of 13\nnetwork      are"
    )
    assert cli.format_table([("name", "abcdefghijklmnop")], width=18) == "name  abcdefghijkl\n      mnop"
    assert cli.format_table(rows, width=100) == cli.format_table(rows)


def test_what_explains_a_command_is_folded_and_the_command_stays_whole():
    line = "    cnn-vit lab    lists the experiments with what is said of each"
    assert cli.wrap_paragraphs(line, 60) == (
        "    cnn-vit lab    lists the experiments with what is said\n                   of each"
    )
    assert cli.wrap_paragraphs(line, 50) == (
        "    cnn-vit lab\n        lists the experiments with what is said of\n        each"
    )
    assert cli.wrap_paragraphs(line, 80) == line


def test_paragraphs_are_folded_and_commands_are_not():
    command = "    cnn-vit a very long command that nobody may break in two"
    text = f"One two three four five six seven eight\nnine ten.\n\n{command}\n\nEnd."
    assert cli.wrap_paragraphs(text, None) == text
    assert cli.wrap_paragraphs(text, 40) == text  # as it is written, no line is longer than 40
    unfolded = f"One two three four five six seven eight nine ten.\n\n{command}\n\nEnd."
    assert cli.wrap_paragraphs(text, 50) == unfolded
    assert cli.wrap_paragraphs(unfolded, 40) == text


def test_weights_are_listed_by_name_and_each_command_takes_the_name(capsys):
    assert main(["list", "weights", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["weights"]
    assert [entry["name"] for entry in entries] == list(catalog.read_catalog())
    for name in [entry["name"] for entry in entries if entry["place"] == "package"]:
        assert main(["describe", f"--weights={name}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == name.partition("@")[0]


def test_the_list_of_weights_says_what_is_known_of_each(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CNN_VIT_CACHE", str(tmp_path))
    file = tmp_path / "weights" / "cifar_resnet" / "20@akamaster" / "resnet20-12fca82f.th"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert main(["list", "weights", "cifar_resnet", "mobilenet_v1/0.25"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split()[0]: " ".join(line.split()) for line in lines if "@" in line and not line.startswith("next")}
    assert len(shown) >= 7
    assert main(["list", "weights", "akamaster", "--json"]) == 0  # no name begins so
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)["weights"]]
    assert names == [f"cifar_resnet/{depth}@akamaster" for depth in (20, 32, 44, 56, 110)]
    assert all(name.startswith(("cifar_resnet/", "mobilenet_v1/0.25@")) for name in shown)
    of_20 = "cifar_resnet/20@akamaster 1.1 MB 91.73 % at 32 BSD-2-Clause; full; in the cache; CIFAR-10; "
    assert shown["cifar_resnet/20@akamaster"].startswith(of_20)
    of_110 = "cifar_resnet/110@akamaster about 6.9 MB 93.68 % at 32 BSD-2-Clause; prefix; not downloaded; CIFAR-10; "
    assert shown["cifar_resnet/110@akamaster"].startswith(of_110)
    of_mobilenet = (
        "mobilenet_v1/0.25@keras about 1.9 MB 50.60 % at 224 Apache-2.0; first use; not downloaded; ImageNet-1k; "
    )
    assert shown["mobilenet_v1/0.25@keras"].startswith(of_mobilenet)
    assert (
        "cifar_resnet/8@mnist 0.3 MB 99.31 % at 28 Apache-2.0; full; in the package; " in shown["cifar_resnet/8@mnist"]
    )


def test_weights_are_chosen_by_how_their_names_begin_or_else_by_what_names_and_sources_hold():
    sources = {
        "cifar_resnet/20@a": "a page",
        "resnet/50@timm_1": "a page of 2026",
        "resnet/18@b": "timm 1.0.31, resnet18",
        "vit/B16@c": "Timm's page",
    }
    entries = [{"name": name, "source": source} for name, source in sources.items()]
    for words, expected in {
        ("resnet",): ["resnet/50@timm_1", "resnet/18@b"],
        ("timm",): ["resnet/50@timm_1", "resnet/18@b", "vit/B16@c"],
        ("vit", "RESNET/18"): ["resnet/18@b", "vit/B16@c"],
    }.items():
        assert [entry["name"] for entry in list_command.choose_weights(entries, words)] == expected


def test_a_program_chooses_all_weights_whose_figures_stand_in_it(capsys):
    assert main(["list", "weights", "timm", "--json"]) == 0
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)["weights"]}
    assert names >= {name for name, entry in catalog.read_catalog().items() if entry.source.startswith("timm ")}
    assert "cifar_resnet/20@akamaster" not in names


def test_a_word_that_no_weights_have_is_told(capsys):
    assert main(["list", "weights", "mobilnet"]) == 2
    assert "no weights of 'mobilnet'; did you mean mobilenet_v2 or mobilenet_v1" in capsys.readouterr().err
    assert main(["list", "models", "vit"]) == 2  # only weights are chosen among
    assert "no list of 'vit'" in capsys.readouterr().err
