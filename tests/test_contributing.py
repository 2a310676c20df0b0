"""CONTRIBUTING.md tells the truth: its examples run as they stand, its reading order exists, its glossary is obeyed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TOP = Path(__file__).parents[1]
TEXT = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOTS = ("cnn_vit", "configs", "experiments", "tests")


# The reading order ----------------------------------------------------------------------------------------------------


def test_the_five_files_to_read_first_are_there():
    section = TEXT.partition("## Read the code in this order")[2].partition("\n## ")[0]
    files = re.findall(r"^\d\. `([\w/.]+)`", section, re.MULTILINE)
    assert len(files) == 5
    assert [file for file in files if not (TOP / file).is_file()] == []


# The examples ---------------------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str, str]]:
    """(kind, path, code) of each example: a new file, something behind a file's end, above a dict of it or in one."""
    blocks = re.findall(
        r"^```python\n# (file|append|above [A-Z]+|entry of [A-Z]+): (\S+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE
    )
    return [(kind, path, code) for kind, path, code in blocks]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with every example in its place."""
    copy = tmp_path_factory.mktemp("project")
    for root in ("cnn_vit", "configs", "experiments"):
        shutil.copytree(TOP / root, copy / root, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, name, code in examples():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            assert not path.exists(), f"{name} is there already"
            path.write_text(code, encoding="utf-8")
        elif kind == "append":
            path.write_text(path.read_text(encoding="utf-8").rstrip() + "\n\n\n" + code, encoding="utf-8")
        else:
            before = path.read_text(encoding="utf-8")
            start = re.search(rf"(?m)^{kind.rpartition(' ')[2]}\b[^\n]*= \{{\n", before)
            place = start.end() if kind.startswith("entry") else start.start()
            space = "" if kind.startswith("entry") else "\n\n"
            after = before[:place] + code + space + before[place:]
            assert after != before
            path.write_text(after, encoding="utf-8")
    return copy


def run(project: Path, *words: str) -> str:
    """What a Python program that runs in the copy prints to stdout."""
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_an_example_of_each_of_the_eight():
    paths = [path for _, path, _ in examples()]
    kinds = (
        "cnn_vit/models/",
        "cnn_vit/data/sources/",
        "cnn_vit/data/augment/",
        "cnn_vit/training/optimizers.py",
        "cnn_vit/cli/",
        "cnn_vit/transfer/rules/",
        "configs/",
        "experiments/",
    )
    assert [kind for kind in kinds if not any(path.startswith(kind) for path in paths)] == []


def test_no_example_changes_a_file_of_the_package_but_by_a_function_and_its_entry():
    changed = {path for kind, path, _ in examples() if kind != "file"}
    assert changed == {
        "cnn_vit/data/augment/__init__.py",
        "cnn_vit/data/augment/color.py",
        "cnn_vit/training/optimizers.py",
    }


def test_each_example_is_as_ruff_would_have_it(tmp_path):
    for kind, name, code in examples():
        if kind == "file":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(code, encoding="utf-8")
    shutil.copy(TOP / "pyproject.toml", tmp_path)
    for words in (["check", "--config=lint.isort.known-first-party=['cnn_vit']"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--quiet", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_model_source_augmentation_optimizer_and_recipe_train_together_and_are_listed(project):
    """The recipe uses the four others: their names are found, their keywords read, and the run ends with a result."""
    command = ["-m", "cnn_vit", "train", "--config=configs/stripes.py", "--workdir=run", "--json"]
    result = json.loads(run(project, *command))
    assert (result["model"], result["steps"], result["parameters"]) == ("linear/bright", 30, 8 * 8 * 2 + 2)
    listed = run(project, "-m", "cnn_vit", "list")
    assert all(name in listed for name in ("linear", "stripes", "invert", "sign_sgd", "configs/stripes.py"))
    help_text = run(project, "-m", "cnn_vit", "train", "--config=configs/stripes.py", "--help")
    assert "what pixels are multiplied by" in " ".join(help_text.split())


def test_the_command_answers_as_text_and_as_json(project):
    words = ["-m", "cnn_vit", "count", "lenet/5", "--classes=10"]
    assert "61,706 parameters" in run(project, *words)  # LeNet-5, LeCun et al. 1998
    assert json.loads(run(project, *words, "--json")) == {"model": "lenet/5", "parameters": 61706}


def test_weights_of_the_program_are_recognized_and_become_the_example_s_model(project, tmp_path):
    weight, bias = np.arange(2 * 12, dtype=np.float32).reshape(2, 12), np.float32([5, 7])
    np.savez(tmp_path / "net.npz", **{"fc.weight": weight, "fc.bias": bias})
    out = tmp_path / "net.safetensors"
    answer = json.loads(run(project, "-m", "cnn_vit", "convert", str(tmp_path / "net.npz"), f"--out={out}", "--json"))
    assert (answer["model"], answer["parameters"]) == ("linear/test", 26)
    assert answer["recognized"]["reasons"][-1] == "12 weights for each class: 2x2 pixels of 3 colors"


@pytest.mark.slow
def test_the_experiment_prints_a_difference_with_its_verdict(project):
    printed = run(project, "experiments/gain/run.py", "--seeds=2")
    assert re.fullmatch(r"bright less plain: [+-]0\.\d{3}, (not )?resolved \(.+\)\n", printed)


# The glossary ---------------------------------------------------------------------------------------------------------


def glossary() -> list[tuple[str, list[str], list[str]]]:
    """Term, former words that stand nowhere, and former names that no identifier has, of each row."""
    table = TEXT.partition("## Glossary")[2].partition("\n## ")[0]
    rows = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 3 or cells[0] in ("term", "---") or set(cells[0]) == {"-"}:
            continue
        names = re.findall(r"`(\w+)`", cells[2])
        words = [word.strip() for word in re.sub(r"`\w+`", "", cells[2]).split(",") if word.strip()]
        rows.append((cells[0], words, names))
    return rows


def written(path: Path) -> tuple[set[str], str]:
    """The identifiers that a file gives itself, and all of its texts (docstrings, messages) in one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    identifiers, texts = set(), []
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("cnn_vit"):
            foreign |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            identifiers.add(node.id)
        elif isinstance(node, ast.arg):
            identifiers.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            identifiers.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return identifiers - foreign, "\n".join(texts)


FILES = sorted(path for root in ROOTS for path in (TOP / root).rglob("*.py") if path != Path(__file__))


def former(path: Path) -> list[str]:
    """Former words and names of the glossary that a file still has."""
    identifiers, text = written(path)
    parts = {part for identifier in identifiers for part in identifier.lower().split("_")}
    still = []
    for term, words, names in glossary():
        still += [f"{name} (say {term})" for name in names if name in identifiers]
        for word in words:
            if word in parts or re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE):
                still.append(f"{word} (say {term})")
    return still


def test_the_glossary_has_its_terms():
    terms = {term for term, _, _ in glossary()}
    assert {"image", "std", "cls_token", "pos_embed", "initial values", "hyperparameters", "eval step"} <= terms
    assert len(terms) >= 30


@pytest.mark.parametrize("root", ROOTS)
def test_no_former_word_is_left(root):
    found = {str(path.relative_to(TOP)): former(path) for path in FILES if path.relative_to(TOP).parts[0] == root}
    assert {name: words for name, words in found.items() if words} == {}


def test_no_former_word_is_left_in_the_readme():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    words = [word for _, words, _ in glossary() for word in words]
    assert [word for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)] == []


def test_a_former_word_is_seen_as_an_identifier_in_a_docstring_and_in_a_message(tmp_path):
    for number, source in enumerate(
        ["picture = 1", "def f(first_picture): ...", '"""Reads a picture."""', 'raise ValueError(f"{x}: no picture")']
    ):
        path = tmp_path / f"{number}.py"
        path.write_text(source)
        assert former(path) == ["picture (say image)"], source
