"""`list`: everything there is has a line."""

import json
import re
from pathlib import Path

import pytest

from cnn_vit import cli
from cnn_vit.__main__ import main
from cnn_vit.cli import _settings

TOP = Path(__file__).parents[2]


def stems(folder: str) -> set[str]:
    return {path.stem for path in (TOP / folder).glob("[!_]*.py")}


def test_every_model_source_and_recipe_is_listed_with_a_meaning(capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["name"] for entry in found["models"]} == stems("cnn_vit/models")
    assert {entry["name"] for entry in found["data"]} == stems("cnn_vit/data/sources")
    assert {entry["name"] for entry in found["recipes"]} >= {f"configs/{stem}.py" for stem in stems("configs")}
    assert all(entry["meaning"] for entries in found.values() for entry in entries)
    by_name = {entry["name"]: entry for entries in found.values() for entry in entries}
    assert {"20", "56", "110", "test"} <= set(by_name["cifar_resnet"]["variants"])
    assert by_name["configs/cifar_resnet.py"]["words"] == ["20", "32", "44", "56", "110"]


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


# Width ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["list"], ["--help"], ["train", "--config=configs/digits_vit.py", "--help"]])
@pytest.mark.parametrize("width", [80, 200])
def test_on_a_terminal_no_sentence_is_cut_by_its_edge(words, width, capsys, monkeypatch):
    assert main(words) == 0
    piped = capsys.readouterr().out
    monkeypatch.setattr(cli, "terminal_width", lambda: width)
    monkeypatch.setattr(_settings, "terminal_width", lambda: width)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(words) == 0
    seen = capsys.readouterr().out
    example = re.compile(
        r" {4}cnn-vit |  --config\.data\.augment"
    )  # what is to be copied, and a long value, stay whole
    assert all(len(line) <= width for line in seen.splitlines() if not example.match(line))
    assert sorted(re.findall(r"\w+", seen)) == sorted(re.findall(r"\w+", piped))


def test_a_column_of_sentences_is_folded_under_itself_or_where_there_is_no_room_under_its_row():
    rows = [("name", "a b c", "one two three four five six seven eight nine"), ("other", "", "ten")]
    assert cli.table(rows) == (
        "name   a b c  one two three four five six seven eight nine\nother         ten"
    )  # a line each where nobody says how wide
    assert cli.table(rows, width=55) == (
        "name   a b c  one two three four five six seven eight\n              nine\nother         ten"
    )
    assert cli.table(rows, indent="  ", width=50) == (
        "  name   a b c\n      one two three four five six seven eight nine\n  other\n      ten"
    )


def test_paragraphs_are_folded_and_commands_are_not():
    command = "    cnn-vit a very long command that nobody may break in two"
    text = f"One two three four five six seven eight\nnine ten.\n\n{command}\n\nEnd."
    assert cli.wrap(text, None) == text
    assert cli.wrap(text, 40) == text  # of a paragraph's own accord
    wide = f"One two three four five six seven eight nine ten.\n\n{command}\n\nEnd."
    assert cli.wrap(text, 50) == wide
    assert cli.wrap(wide, 40) == text
