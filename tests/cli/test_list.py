"""`list`: everything there is has a line."""

import json
import re
from pathlib import Path

from cnn_vit.__main__ import main

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
