"""README's section on pretrained networks, run as it stands, in a folder with photos and somebody's weights."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import photos
import pytest
from layouts import Layout, encoder_pre_norm
from weight_files import pack_torch

from cnn_vit.__main__ import main
from cnn_vit.models import build
from cnn_vit.nn.values import functional, initial_values
from cnn_vit.transfer import backwards, rules
from cnn_vit.transfer.matching import to_theirs

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Start from a pretrained network")[2].partition("\n## ")[0]
DOWNLOADED = "@torchvision_v2"  # a line with such a name is left out: tests download nothing
# A line of the block -> words that make it short
SHORTER = {"new photos/": ["--minutes=0.1"], "train --config=transfer.py": ["--config.duration=6 steps"]}


def read_block(language):
    """The only block of the section in a language."""
    (block,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return block


@pytest.fixture(scope="module")
def folder_of_a_user(tmp_path_factory):
    """A folder with photos of two classes, a new photo, and a ResNet-20 as PyTorch saves it."""
    folder = tmp_path_factory.mktemp("user")
    photos.folder(folder / "photos", {"ants": 14, "bees": 14}, formats=("rgb.jpg",), side_range=(33, 40))
    rng = np.random.default_rng(1)
    photos.save(folder / "new", "rgb.jpg", photos.pixels(0, 2, rng, (40, 50)))
    (folder / "new.rgb.jpg").rename(folder / "new.jpg")
    params, stats = initial_values(functional(build("cifar_resnet/20", 10)), seed=0)
    rule = next(rule for rule in rules.all_rules() if rule.family == "cifar_resnet")
    arrays = {f"module.{name}": array for name, array in to_theirs(rule, params, stats).items()}
    (folder / "resnet20.th").write_bytes(pack_torch(arrays))
    odd = Layout("vit/Ti4", {}, image_size=32, channels=3, write=encoder_pre_norm)
    (folder / "odd.pth").write_bytes(pack_torch(odd.write(odd.draw())))
    return folder


def test_the_block_writes_its_run_for_a_program_that_has_such_networks():
    (target,) = re.findall(r"convert runs/transfer --to=(\S+)", SECTION)
    targets = [backwards.targets_of(rule) for rule in rules.all_rules() if rule.family == "cifar_resnet"]
    assert target in [name for names in targets for name in names]


@pytest.mark.slow
def test_the_commands_and_the_program_run(folder_of_a_user, monkeypatch, capsys):
    monkeypatch.chdir(folder_of_a_user)
    for line in read_block("bash").replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if any(word.endswith(DOWNLOADED) for word in words):
            continue
        command = " ".join(words[1:])
        for beginning, more in SHORTER.items():
            if command.startswith(beginning):
                words += more
        if "train" in words:
            words += ["--config.schedule.warmup=0"]
        assert main(words[1:]) == 0, line
    result = json.loads(Path("runs/transfer/result.json").read_text())
    assert result["frozen"]["moved"] == []
    assert result["frozen"]["pattern"] == "all but head"  # 28 photos are few
    assert "loaded" in capsys.readouterr().out

    program = read_block("python").replace("20 epochs", "2 steps")
    capsys.readouterr()
    exec(program, {})
    assert capsys.readouterr().out.strip() == "[]"
