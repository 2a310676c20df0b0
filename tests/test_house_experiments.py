"""The rules of the house for experiments/: a script uses public names of the package, changes none and stands alone.

It may read the clock and the command line, print, and write its own results; every other effect has its door in the
package. Each rule is also shown to see what it forbids. At the end each script runs once, in its smallest form.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_house import (
    TOP,
    Names,
    find_broken_habits,
    find_effects_beside_doors,
    find_imported_names,
    mentions,
    takes_module,
)

EXPERIMENTS = TOP / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.py"))


def path_in_experiments(path: Path) -> str:
    """The path of a file inside experiments/, such as "speed/input.py"."""
    return str(path.relative_to(EXPERIMENTS))


for_each_script = pytest.mark.parametrize("path", FILES, ids=path_in_experiments)


def test_there_are_scripts_to_check():
    assert {"recipes/run.py", "speed/overhead.py"} <= {path_in_experiments(path) for path in FILES}


# Public names ---------------------------------------------------------------------------------------------------------


def find_private_names(source: str) -> set[str]:
    """The names with an underscore in front that a file uses: of modules and names of the package, and of any object.

    A star counts too, because it hides which names are used.
    """
    names = Names(source)
    private = set()
    for name in find_imported_names(source, "experiments.x") | names.mentioned:
        if name.startswith("cnn_vit") and re.search(r"\._|\.\*$", name):
            private.add(name)
        if re.fullmatch(r"\._(?!_)\w+", name):  # an attribute of anything, such as `run._queued`
            private.add(name)
    for name, call in names.called:
        if name in ("getattr", "hasattr") and len(call.args) > 1:
            attribute = call.args[1]
            if isinstance(attribute, ast.Constant) and str(attribute.value).startswith("_"):
                private.add(f".{attribute.value}")
    return private


@for_each_script
def test_a_script_uses_only_public_names(path):
    assert not find_private_names(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "from cnn_vit.data.base import _tables",
        "from cnn_vit.data._tables import lookup",
        "import cnn_vit.data._tables",
        "import cnn_vit.data._tables as tables",
        "from cnn_vit.data.base.parts import _alone as alone",
        "def main():\n    from cnn_vit.data.base.parts import _alone",
        "from cnn_vit.data.base import parts\nparts._alone",
        "import cnn_vit\ncnn_vit.data.base.parts._alone",
        "from cnn_vit.training import loop\nloop.__dict__['Run']",
        "from cnn_vit.training.run import Run\nrun = Run()\nrun._queued",
        "class Clocked(Run):\n    def show(self):\n        self._queued.clear()",
        "from cnn_vit.data.base import parts\ngetattr(parts, '_alone')",
        "import importlib\nimportlib.import_module('cnn_vit.data._tables')",
        "from cnn_vit.training.run import *",
    ],
)
def test_a_private_name_is_seen(source):
    assert find_private_names(source)


# No patches -----------------------------------------------------------------------------------------------------------

# Calls that change a container in place, such as `losses.LOSSES.update(...)`.
CHANGES_CONSTANT = (
    r"cnn_vit\..*\.[A-Z][A-Z_]*\.(update|setdefault|pop|popitem|clear|append|extend|insert|remove|add|discard|sort)"
)


def root_name(node: ast.AST) -> str:
    """The first name of a chain of attributes and subscripts: "loop" of `loop.Run` and of `loop.TABLE["a"].b`."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def find_patches(source: str) -> set[str]:
    """The places where a file changes what it has imported, each as its line of code.

    These are: an attribute that is assigned or deleted, also of a class or under a second name; an item of something in
    the package; a call that does the same; and the libraries that are made for it.
    """
    tree = ast.parse(source)
    names = Names(source)
    imported = set(names.aliases)
    for node in ast.walk(tree):  # `module = loop` is a second name
        if isinstance(node, ast.Assign) and root_name(node.value) in imported:
            imported |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    patches = set()
    for node in ast.walk(tree):
        if not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
            continue
        if isinstance(node, ast.Attribute) and root_name(node) in imported:
            patches.add(ast.unparse(node))
        if isinstance(node, ast.Subscript) and names.full(ast.Name(root_name(node))).startswith("cnn_vit."):
            patches.add(ast.unparse(node))
    for name, call in names.called:
        changes_attribute = re.fullmatch(r"setattr|delattr|vars|.*\.__(setattr|delattr)__", name)
        subjects = [*call.args[:1], call.func]  # `setattr(loop, ...)` and `loop.__setattr__(...)`
        if changes_attribute and any(root_name(subject) in imported for subject in subjects):
            patches.add(ast.unparse(call))
        if re.fullmatch(CHANGES_CONSTANT, name):
            patches.add(ast.unparse(call))
    return patches | takes_module(r"unittest\.mock|mock|pytest")(names)


@for_each_script
def test_a_script_changes_nothing_that_it_imports(path):
    assert not find_patches(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "from cnn_vit.training import loop\nloop.Run = Clocked",
        "from cnn_vit.data.decode import jpeg\nif args.pillow:\n    jpeg.simplejpeg = None",
        "import cnn_vit.training.loop\ncnn_vit.training.loop.Run = Clocked",
        "import cnn_vit.training.loop as l\nl.Run: type = Clocked",
        "from cnn_vit.training import loop\nloop.Run, steps = Clocked, 3",
        "from cnn_vit.training import run\nrun.STEPS_AHEAD += 1",
        "from cnn_vit.training import loop\ndel loop.Run",
        "from cnn_vit.training import loop\nfor loop.Run in runs: ...",
        "from cnn_vit.training import loop\nwith clocked() as loop.Run: ...",
        "from cnn_vit.training.run import Run\nRun.learn = learn",
        "from cnn_vit.training import loop\nmodule = loop\nmodule.Run = Clocked",
        "def main():\n    from cnn_vit.training import loop\n    loop.Run = Clocked",
        "from cnn_vit.training import loop\nsetattr(loop, 'Run', Clocked)",
        "from cnn_vit.training import loop\nsetattr(loop.Run, 'learn', learn)",
        "from cnn_vit.training import loop\ndelattr(loop, 'Run')",
        "from cnn_vit.training import loop\nobject.__setattr__(loop, 'Run', Clocked)",
        "from cnn_vit.training import loop\nloop.__setattr__('Run', Clocked)",
        "from cnn_vit.training import loop\nvars(loop)['Run'] = Clocked",
        "from cnn_vit.training import losses\nlosses.LOSSES['mine'] = loss",
        "from cnn_vit.training.losses import LOSSES\nLOSSES['mine'] = loss",
        "from cnn_vit.training import losses\nlosses.LOSSES.update(mine=loss)",
        "import jax\njax.jit = None",
        "from unittest import mock\nmock.patch('cnn_vit.training.loop.Run')",
        "from unittest.mock import patch",
        "import pytest",
    ],
)
def test_a_patch_is_seen(source):
    assert find_patches(source)


# Each script for itself -----------------------------------------------------------------------------------------------

SCRIPTS = {"experiments"} | {path.stem for path in FILES} | {path.parent.name for path in FILES}
IMPORTS_BY_TEXT = r"importlib\.(import_module|reload|util\..*|machinery\..*)|pkgutil\..*|sys\.(modules|path)(\..*)?"


def find_imported_scripts(source: str, parts: str = "") -> set[str]:
    """The other experiments that a file imports, and its means to import what no import statement names.

    Args:
        source: the text of the file.
        parts: the folder whose files are parts of the same script, as `folder_of_parts` names it.
    """
    imported = find_imported_names(source, "experiments.x")
    scripts = {name for name in imported if name.split(".")[0] in SCRIPTS - {parts}}
    return scripts | mentions(IMPORTS_BY_TEXT)(Names(source))


def folder_of_parts(path: Path) -> str:
    """The folder that holds the parts of a long script: `x_parts` beside x.py; its files may import one another."""
    return path.parent.name if path.parent.name.endswith("_parts") else f"{path.stem}_parts"


@for_each_script
def test_a_script_imports_no_other_script(path):
    assert not find_imported_scripts(path.read_text(), folder_of_parts(path))


def test_the_parts_of_another_script_are_seen():
    source = "from train_parts import rows"
    assert not find_imported_scripts(source, folder_of_parts(EXPERIMENTS / "speed/train.py"))
    assert not find_imported_scripts(source, folder_of_parts(EXPERIMENTS / "speed/train_parts/checks.py"))
    assert find_imported_scripts(source, folder_of_parts(EXPERIMENTS / "speed/overhead.py"))


@pytest.mark.parametrize(
    "source",
    [
        "import overhead",
        "from overhead import ClockedRun",
        "from speed import overhead",
        "import experiments.speed.overhead",
        "from experiments.recipes.run import format_table",
        "from . import overhead",
        "from ..recipes import run",
        "def main():\n    import choose as other",
        "import importlib\nimportlib.import_module('overhead')",
        "from importlib.util import spec_from_file_location\nspec_from_file_location('a', 'overhead.py')",
        "import sys\nsys.path.insert(0, 'experiments/speed')",
        "import sys\nsys.modules['cnn_vit.training.loop'].Run = None",
    ],
)
def test_an_import_of_another_script_is_seen(source):
    assert find_imported_scripts(source)


# Effects and habits ---------------------------------------------------------------------------------------------------

# A script may compile by itself what it compares with, which has not our compiler options.
ALLOWED_EFFECTS = {"raw file writing", "clock", "stdout", "argv and environment", "bare jit"}
# What is compared with the package, so it is written as the package must not be.
COMPARED = {
    "speed/train_parts/arm_nnx.py": {"flax that hides state"},
    "speed/train_parts/arm_torch.py": {"torch"},
}


def find_forbidden_effects(source: str, where: str = "") -> set[str]:
    """The effects in a file that a script must leave to the package, each with the name that has it.

    Args:
        source: the text of the file.
        where: its path inside experiments/.
    """
    effects = find_effects_beside_doors(source, "experiments/x.py")
    allowed = ALLOWED_EFFECTS | COMPARED.get(where, set())
    return {effect for effect in effects if effect.partition(":")[0] not in allowed}


@for_each_script
def test_a_script_has_only_the_effects_it_may(path):
    assert not find_forbidden_effects(path.read_text(), path_in_experiments(path))


# Experiments of the laboratory: `cnn-vit lab` calls their functions, prints and writes for them, and reads their clock
# from `runs/journal`, so that what the seed decides and what a clock decides stay apart.
LABORATORY = [path for path in FILES if path.name == "experiment.py"]


def find_effects_of_experiment(source: str) -> set[str]:
    """The effects in the experiment.py of a folder that the laboratory has for it."""
    return find_effects_beside_doors(source, "experiments/x.py")


@pytest.mark.parametrize("path", LABORATORY, ids=path_in_experiments)
def test_an_experiment_of_the_laboratory_leaves_all_effects_to_it(path):
    assert not find_effects_of_experiment(path.read_text())


def test_there_are_experiments_of_the_laboratory():
    assert "padding/experiment.py" in {path_in_experiments(path) for path in LABORATORY}


@pytest.mark.parametrize(
    "source",
    [
        "print('a')",
        "import time\ntime.perf_counter()",
        "import sys\nsys.argv",
        "import jax\njax.jit(f)",
        "from pathlib import Path\nPath('results.json').write_text('')",
    ],
)
def test_what_a_script_may_do_and_an_experiment_of_the_laboratory_may_not_is_seen(source):
    assert find_effects_of_experiment(source)
    assert not find_forbidden_effects(source)


def test_only_the_network_that_is_compared_may_hide_state():
    source = "from flax import nnx\nnnx.jit(f)"
    assert not find_forbidden_effects(source, "speed/train_parts/arm_nnx.py")
    assert find_forbidden_effects(source, "speed/train_parts/arm_ours.py")


@pytest.mark.parametrize(
    ("effect", "source"),
    [
        ("pickle", "import pickle"),
        ("pickle", "import numpy as np\nnp.load(path, allow_pickle=True)"),
        ("executed text", "eval('1')"),
        ("executed text", "subprocess.run(command, shell=True)"),
        ("executed text", "import runpy\nrunpy.run_path('overhead.py')"),
        ("executed text", "__import__('overhead')"),
        ("network", "from urllib import request"),
        ("random keys", "import jax\njax.random.key(0)"),
        ("mesh and sharding", "import jax\njax.make_mesh((4,), ('data',))"),
        ("orbax", "import orbax.checkpoint as ocp"),
        ("flax that hides state", "from flax import nnx\nnnx.jit(f)"),
        ("torch", "import torch"),
    ],
)
def test_a_forbidden_effect_is_seen(effect, source):
    lines = find_forbidden_effects(source)
    assert {line.partition(":")[0] for line in lines} == {effect}


@for_each_script
def test_a_script_keeps_the_habits_of_the_house(path):
    assert not find_broken_habits(path.read_text(), within=path_in_experiments(path))


@pytest.mark.parametrize("source", ['"""A."""\nassert x', "x = 1", '"""A."""\nx = 1  # TODO later'])
def test_a_script_with_a_broken_habit_is_seen(source):
    assert len(find_broken_habits(source, within="speed/x.py")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import cnn_vit\ncnn_vit.train(settings, workdir)",
        "from cnn_vit.training.run import Run\nclass Clocked(Run):\n    def show(self):\n        self.stamps = {}",
        "from cnn_vit.models import build\nbuild('lenet/5')",
        "from cnn_vit.training.run import Run\nrun = Run()\nrun.stamps = {}\nsetattr(run, 'stamps', {})",
        "from cnn_vit.data.decode import jpeg\njpeg.use_decoder('pillow')",
        "from cnn_vit import files\nfiles.remove(path)",
        "import numpy as np\nfolds = np.empty(3)\nfolds[0] = 1",
        "args = parser.parse_args()\nargs.threads = [2]",
        "def __init__(self):\n    super().__init__()",
        "if __name__ == '__main__':\n    main()",
        "import numpy as np\nnp.__version__",
        "import os\nos.environ['CNN_VIT_CACHE'] = 'cache'",
        "import sys\nsys.argv",
        "import time\ntime.perf_counter()",
        "import tempfile\ntempfile.TemporaryDirectory()",
        "print(README.write_text(table))",
        "import numpy as np\nnp.savez('fold.npz', x=1)",
    ],
)
def test_what_a_script_may_do_is_allowed(source):
    assert not find_private_names(source)
    assert not find_patches(source)
    assert not find_imported_scripts(source)
    assert not find_forbidden_effects(source)


# The scripts run ------------------------------------------------------------------------------------------------------


def run_script(*words: str) -> str:
    """What a script of experiments/ prints to stdout; it runs in the project's folder, as its docstring says."""
    process = subprocess.run(
        [sys.executable, str(EXPERIMENTS / words[0]), *words[1:]],
        cwd=TOP,
        env=os.environ | {"PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("speed/overhead.py", "--steps=201", "--runs=1"), {"ms", "median_ms", "device", "cores", "steps"}),
        (
            ("speed/input.py", "digits", "--rounds=1", "--seconds=0.1", "--over=model.name=mlp/test", "--pillow"),
            {"sets", "device", "cores", "decoder", "load"},
        ),
        (("speed/build.py", "--models", "mlp/test"), {"mlp/test"}),
        (("speed/startup.py", "--config=configs/digits_mlp.py", "--runs=1"), {"first", "later", "later_median"}),
        (("speed/forms.py", "layer norm 192", "--rounds=1"), {"ms", "device", "cores", "jax"}),
        (("speed/frozen.py", "mlp/test", "--rounds=1", "--seconds=0.1"), {"rows"}),
        (
            ("speed/trials.py", "configs/digits_mlp.py:smoke", "schedule.warmup=0", "--steps=2", "--rounds=1"),
            {"first_s", "later_s", "short_s", "device", "cores", "steps"},
        ),
        (("sweeps/samplers.py", "--rounds=1", "--seeds=1"), {"milliseconds", "processes", "repeated"}),
    ],
    ids=["overhead", "input", "build", "startup", "forms", "frozen", "trials", "samplers"],
)
def test_a_script_answers_with_one_json_object(words, keys):
    assert json.loads(run_script(*words, "--json")).keys() == keys


@pytest.mark.slow
def test_the_help_is_timed_for_each_command():
    rows = json.loads(run_script("speed/help.py", "--runs=1", "--json"))
    assert len(rows) == 5
    assert all(row.keys() == {"wall_median", "wall_least", "cpu_median"} for row in rows.values())


@pytest.mark.slow
def test_a_training_step_is_timed_beside_flax_nnx(tmp_path):
    results = tmp_path / "results.json"
    smallest = ("--rounds=1", "--seconds=0.2", "--retries=0", "--work=step,inference", f"--out={results}")
    answer = json.loads(run_script("speed/train.py", "lenet", "--arms=ours,nnx", *smallest, "--json"))
    assert answer["results"] == json.loads(results.read_text())
    assert [result["work"] for result in answer["results"]] == ["step", "inference"]
    for result in answer["results"]:
        assert result["arms"].keys() == {"ours", "nnx"}
        assert result["macs"] == 416_520  # 6 maps of 28x28 of 25 weights, 16 of 10x10 of 150, 400x120 + 120x84 + 84x10
        for arm in result["arms"].values():
            assert arm["images_per_second"] > 0
            assert arm["parameters"] == 61_706


@pytest.mark.slow
def test_two_candidates_are_compared_on_the_same_images():
    """Two steps of training are enough to see the words; a candidate does not differ from itself."""
    candidate = "duration='2 steps' schedule.warmup=0"
    lines = run_script("recipes/choose.py", "digits_mlp", candidate, candidate).splitlines()
    assert len(lines) == 2
    for line in lines:
        error, _, comparison = line.partition("; ")
        # 1,437 of the 1,797 digits are not in the test split
        assert re.fullmatch(r"error \d+\.\d\d % \(\d+ of 1437\), \d+ CPU-seconds a run", error)
        assert comparison == f"against the first +0 (p 1.000, not resolved) {candidate}"


def test_the_table_of_the_training_steps_is_the_one_that_results_json_gives(tmp_path):
    """A copy of the folder is run, because the script writes its README."""
    shutil.copytree(EXPERIMENTS / "speed", tmp_path / "speed")
    table = run_script(str(tmp_path / "speed/train.py"), "--table")
    for name in ("README.md", "train.svg"):
        path = EXPERIMENTS / "speed" / name
        if path.exists():
            assert (tmp_path / "speed" / name).read_text() == path.read_text()
    assert f"<!-- speed table -->\n{table}<!-- end -->\n" in (EXPERIMENTS / "speed" / "README.md").read_text()


@pytest.mark.parametrize(
    ("experiment", "script", "mark"),
    [("recipes", "run.py", "table"), ("transfer", "run.py", "table"), ("sweeps", "best_of_30.py", "best of 30")],
    ids=["recipes", "transfer", "sweeps"],
)
def test_the_table_of_an_experiment_is_the_one_that_results_json_gives(experiment, script, mark, tmp_path):
    """A copy of the folder is run, because the script writes its README."""
    for name in (script, "results.json", "README.md"):
        (tmp_path / name).write_bytes((EXPERIMENTS / experiment / name).read_bytes())
    table = run_script(str(tmp_path / script))
    readme = (EXPERIMENTS / experiment / "README.md").read_text()
    assert f"<!-- {mark} -->\n{table}<!-- end -->\n" in readme
    assert (tmp_path / "README.md").read_text() == readme
