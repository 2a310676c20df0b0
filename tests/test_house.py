"""The rules of the house, executed: a room imports only rooms below it, and each effect on the world has one door.

A room is a file or folder directly inside `cnn_vit`. Each rule is also shown to see what it forbids.
"""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PACKAGE = TOP / "cnn_vit"
FILES = sorted(PACKAGE.rglob("*.py"))
# The rooms on each floor, from the ground up.
FLOORS = [
    {"errors"},
    {"files", "plots", "process", "settings", "stops", "trees"},
    {"compilation"},
    {"data", "nn"},
    {"models", "runs"},
    {"analysis", "transfer"},
    {"training"},
    {"drafting", "reports"},
    {"studies"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
for_each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def name_of(path: Path) -> str:
    """The path of a file inside the package, such as "cli/train.py"."""
    return str(path.relative_to(PACKAGE))


# Floors ---------------------------------------------------------------------------------------------------------------


def parent_package(package: str, level: int) -> str:
    """The package that so many dots stand for in a relative import of a file of `package`; one dot is the package."""
    return ".".join(package.split(".")[: len(package.split(".")) - level + 1])


def find_imported_names(source: str, package: str) -> set[str]:
    """The full names of the modules and names that a file imports, anywhere in the file and in any spelling.

    A text such as "cnn_vit.studies.sweep", "..studies" or f"cnn_vit.studies.{name}" counts as an import: it is there
    for `import_module`, `__import__` or `sys.modules`.

    Args:
        source: the text of the file.
        package: the package that holds the file, which relative imports start from.
    """
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parent_package(package, node.level) if node.level else ""
            base = ".".join(part for part in (base, node.module) if part)
            imported |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"cnn_vit(\.\w+)*\.?", node.value) and node.value != "cnn_vit":
                imported.add(node.value)
                continue
            dotted = re.fullmatch(r"(\.+)(\w[\w.]*)", node.value)
            if dotted and len(dotted[1]) > 1:  # one dot alone is the room itself, and common in file names
                imported.add(f"{parent_package(package, len(dotted[1]))}.{dotted[2]}")
    return imported


def find_imported_rooms(source: str, package: str) -> set[str]:
    """The rooms of cnn_vit that a file imports; an error where it imports the public door."""
    names = find_imported_names(source, package)
    if "cnn_vit" in names:
        raise AssertionError("import a room of cnn_vit, not the public door, which opens them all")
    return {name.split(".")[1] for name in names if name.startswith("cnn_vit.")}


def find_upward_imports(source: str, package: str, room: str) -> set[str]:
    """The rooms that a file imports though they do not lie below its own room."""
    imported_rooms = find_imported_rooms(source, package) - {room}
    unknown = imported_rooms - FLOOR.keys()
    if unknown:
        raise AssertionError(f"{unknown}: import rooms, not what the public door offers")
    return {imported for imported in imported_rooms if FLOOR[imported] >= FLOOR[room]}


@for_each_file
def test_imports_point_down(path):
    parts = path.relative_to(PACKAGE).parts
    room = parts[0].removesuffix(".py")
    if room == "__init__":
        return  # the public door looks into every room, lazily
    assert not find_upward_imports(path.read_text(), ".".join(["cnn_vit", *parts[:-1]]), room)


@pytest.mark.parametrize(
    "line",
    [
        "import cnn_vit.studies.sweep",
        "import cnn_vit.studies.sweep as s",
        "from cnn_vit import studies",
        "from cnn_vit.studies import sweep",
        "from cnn_vit.studies import *",
        "from .. import studies",
        "from ..studies import sweep",
        "def f():\n    from ..studies.sweep import run",
        "if TYPE_CHECKING:\n    from cnn_vit.studies import sweep",
        "importlib.import_module('cnn_vit.studies.sweep')",
        "importlib.import_module(f'cnn_vit.studies.{name}')",
        "importlib.import_module('..studies', __package__)",
        "importlib.import_module('.sweep', 'cnn_vit.studies')",
        "__import__('cnn_vit.studies')",
        "import sys\nsys.modules['cnn_vit.studies']",
    ],
)
def test_an_upward_import_is_seen_in_every_spelling(line):
    assert find_upward_imports(line, "cnn_vit.training", "training") == {"studies"}


@pytest.mark.parametrize(
    "line",
    [
        "from cnn_vit.training import step",
        "from . import step",
        "import_module('.step', __package__)",
        "'../data'",
        "'.'",
    ],
)
def test_a_room_may_look_into_itself(line):
    assert not find_upward_imports(line, "cnn_vit.training", "training")


@pytest.mark.parametrize(
    ("room", "imported"), [("nn", "data"), ("settings", "trees"), ("transfer", "analysis"), ("cli", "__main__")]
)
def test_neighbors_and_upper_floors_are_refused(room, imported):
    assert find_upward_imports(f"import cnn_vit.{imported}", f"cnn_vit.{room}", room) == {imported}


@pytest.mark.parametrize(
    "line", ["import cnn_vit", "from cnn_vit import build", "from cnn_vit import *", "import_module(f'cnn_vit.{room}')"]
)
def test_rooms_do_not_use_the_public_door(line):
    with pytest.raises(AssertionError, match="public door"):
        find_upward_imports(line, "cnn_vit.training", "training")


# Rooms inside `data` --------------------------------------------------------------------------------------------------

# Each room of `data`, and the others that it may import; the door is `__init__`, sections and batches.
DATA_ROOMS = {
    "base": set(),
    "augment": set(),
    "decode": {"base"},
    "reading": {"base", "decode"},
    "feed": {"base", "decode"},
    "sources": {"base", "decode", "reading"},
    "audit": {"base", "decode", "reading", "door"},
    "door": {"base", "augment", "decode", "reading", "feed", "sources"},
}


def find_imported_data_rooms(source: str, package: str) -> set[str]:
    """The rooms of `data` that a file imports."""
    names = {name for name in find_imported_names(source, package) if name.startswith("cnn_vit.data")}
    parts = {[*name.split("."), "door"][2] for name in names}
    return {part if part in DATA_ROOMS else "door" for part in parts}


@pytest.mark.parametrize("path", sorted((PACKAGE / "data").rglob("*.py")), ids=name_of)
def test_rooms_of_data_import_only_those_they_may(path):
    parts = path.relative_to(PACKAGE).parts
    room = parts[1] if len(parts) == 3 else "door"
    assert find_imported_data_rooms(path.read_text(), ".".join(["cnn_vit", *parts[:-1]])) - {room} <= DATA_ROOMS[room]


@pytest.mark.parametrize(
    ("line", "room"),
    [
        ("from cnn_vit import data", "door"),
        ("from cnn_vit.data import sections", "door"),
        ("from cnn_vit.data.batches import batches", "door"),
        ("from cnn_vit.data import reading", "reading"),
        ("from cnn_vit.data.reading import listing", "reading"),
        ("def f():\n    from cnn_vit.data.feed.stream import key", "feed"),
        ("from ..audit import survey", "audit"),
    ],
)
def test_a_room_of_data_is_seen_in_every_spelling(line, room):
    assert find_imported_data_rooms(line, "cnn_vit.data.base") == {room}


# Files inside `training` and `runs` -----------------------------------------------------------------------------------

# The files of these rooms in their order: each imports only files that stand before it.
TRAINING = """
    caches devices memory rules losses schedules optimizers progress
    forward freezing rates recalibration step adapting plan starting_values program
    trained evaluation prediction features run_weights pretrained_settings forks run samples loop
"""
RUNS = "manifests orbax_errors folder seals journal pauses reader environment description checkpoints"
ORDERS = {"training": TRAINING.split(), "runs": RUNS.split()}


def files_imported(source: str, room: str) -> set[str]:
    """The files of a room that a file of it imports, by name."""
    prefix = f"cnn_vit.{room}."
    names = {name for name in find_imported_names(source, f"cnn_vit.{room}") if name.startswith(prefix)}
    return {name.removeprefix(prefix).split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("room", "number"), [(room, number) for room, order in ORDERS.items() for number in range(len(order))]
)
def test_files_of_a_room_import_only_those_before_them(room, number):
    order = ORDERS[room]
    source = (PACKAGE / room / f"{order[number]}.py").read_text()
    assert files_imported(source, room) <= set(order[:number])


@pytest.mark.parametrize("room", ORDERS)
def test_every_file_of_a_room_has_its_place_in_the_order(room):
    assert {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"} == set(ORDERS[room])


def test_a_file_of_the_own_room_is_seen_in_every_spelling():
    for line in ("from cnn_vit.training import loop", "from cnn_vit.training.loop import train", "from . import loop"):
        assert files_imported(line, "training") == {"loop"}


# The names of a run folder's files ------------------------------------------------------------------------------------


# The seal's name stands where seals are made, data/reading must know a run folder among the images, and Hugging Face's
# code writes a file of the name of a run's settings.
SPELLING = ("runs/folder.py", "runs/manifests.py", "data/reading/run_folders.py", "transfer/hub_config.py")


def folder_names() -> set[str]:
    """The names of a run folder's files, as the files that may spell them give them."""
    names = set()
    for path in (PACKAGE / name for name in SPELLING):
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                names.add(node.value.value)
    return {name for name in names if re.fullmatch(r"[\w.]+", name)}


def names_spelled(source: str) -> set[str]:
    """Names of a run folder's files that a file spells itself: as a text of its own, or behind a slash of a path."""
    tree = ast.parse(source)
    names = folder_names()
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    spelled = {text for text in texts if text in names and "." in text}
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
            spelled |= {node.right.value} & names
    return spelled


@for_each_file
def test_only_the_room_of_runs_spells_the_names_of_a_run_folder(path):
    if name_of(path) not in SPELLING:
        assert names_spelled(path.read_text()) == set()


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("path = workdir / 'metrics.jsonl'", "metrics.jsonl"),
        ("NAME = 'result.json'", "result.json"),
        ("files.write(run / 'plots' / name, text)", "plots"),
        ("Path(folder, 'MANIFEST.json')", "MANIFEST.json"),
    ],
)
def test_a_name_of_a_run_folder_is_seen(line, name):
    assert names_spelled(line) == {name}


def test_the_run_folder_has_all_its_names():
    names = {"config.json", "metrics.jsonl", "result.json", "checkpoints", "MANIFEST.json", "lock"}
    assert names <= folder_names()


# One door per effect --------------------------------------------------------------------------------------------------


class Names(ast.NodeVisitor):
    """The names that a file uses, in full: `np.save` is "numpy.save", and a method of anything is also ".save".

    Attributes:
        aliases: the full name of each imported name, by the name in the file.
        called: full name and node of each call.
        mentioned: full names of all that is mentioned, called or not.
        modules: full names of all that is imported.
    """

    def __init__(self, source: str):
        self.aliases: dict[str, str] = {}
        self.called: list[tuple[str, ast.Call]] = []
        self.mentioned: set[str] = set()
        self.modules: set[str] = set()
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.modules |= {alias.name for alias in node.names}
                for alias in node.names:
                    top = alias.name.split(".")[0]  # all that `import a.b` binds is `a`
                    self.aliases[alias.asname or top] = alias.name if alias.asname else top
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.modules |= {f"{node.module}.{alias.name}" for alias in node.names}
                self.aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        self.visit(tree)

    def full(self, node: ast.AST) -> str:
        """The full name of a name or an attribute; "" for any other expression."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.full(node.value)}.{node.attr}"
        return ""

    def visit_Call(self, node: ast.Call):
        self.called.append((self.full(node.func), node))
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name):
        self.mentioned.add(self.full(node))

    def visit_Attribute(self, node: ast.Attribute):
        self.mentioned |= {self.full(node), f".{node.attr}"}
        self.generic_visit(node)


def mentions(pattern: str):
    """A rule that finds the mentioned names which match a pattern; ".method" matches that of anything."""
    return lambda names: {name for name in names.mentioned if re.fullmatch(pattern, name)}


def takes_module(pattern: str):
    """A rule that finds the imported modules which match a pattern, and whatever is imported from inside one."""
    return lambda names: {name for name in names.modules if re.match(rf"({pattern})(\.|$)", name)}


def opens_for_writing(names: Names) -> set[str]:
    """Finds calls of `open`, `ZipFile` and the like whose mode writes, or whose mode only running would tell."""
    writers = set()
    for name, call in names.called:
        opener = name.rpartition(".")[2]
        if opener not in {"open", "fdopen", "FileIO", "ZipFile", "TarFile", "GzipFile", "memmap"} or name == "os.open":
            continue
        # The mode is the first argument of `path.open(mode)`, the second of `open(path, mode)`.
        arguments = call.args if name.endswith(".open") and "." in name else call.args[1:]
        arguments = [*arguments, *(word.value for word in call.keywords if word.arg == "mode")]
        constants = [argument.value for argument in arguments if isinstance(argument, ast.Constant)]
        modes = [mode for mode in constants if isinstance(mode, str) and re.fullmatch(r"[rwaxbt+]{1,4}", mode)]
        writes = any(set(mode) & set("wax+") for mode in modes)
        hides_its_mode = name == "open" and len(call.args) > 1 and not isinstance(call.args[1], ast.Constant)
        if writes or hides_its_mode:
            writers.add(name)
    return writers


def replaces_file(names: Names) -> set[str]:
    """Finds `path.replace(target)`, which takes one argument where texts take two, and `os.open` of a real file."""
    replaces = set()
    for name, call in names.called:
        if name.endswith(".replace") and len(call.args) == 1 and not call.keywords:
            replaces.add(name)
        if name == "os.open" and names.full(call.args[0]) != "os.devnull":
            replaces.add(name)
    return replaces


def prints(names: Names) -> set[str]:
    """Finds whatever writes to stdout."""
    printers = set()
    for name, call in names.called:
        keywords = {word.arg for word in call.keywords}
        prints_to_stdout = name == "print" and "file" not in keywords
        opens_stdout = name.endswith("Console") and "stderr" not in keywords
        if prints_to_stdout or opens_stdout:
            printers.add(name)
    return printers | mentions(r"sys\.(__)?stdout(__)?(\..*)?|rich\.print")(names)


def calls_with(*pairs: tuple[str, str]):
    """A rule that finds calls with one of these keywords and values, such as `shell=True`."""
    return lambda names: {
        f"{word.arg}={ast.unparse(word.value)}"
        for _, call in names.called
        for word in call.keywords
        if (word.arg, ast.unparse(word.value)) in pairs
    }


WRITERS = (
    r"os\.(replace|rename|renames|remove|unlink|mkdir|makedirs|rmdir|removedirs|fsync|fdatasync|f?truncate|link|symlink"
    r"|mkfifo|write|pwrite|chmod|utime)|shutil\.(?!disk_usage|which|get_terminal_size).*|tempfile\.(?!gettempdir).*"
    r"|numpy\.(save\w*|memmap)|\.(write_text|write_bytes|unlink|rename|mkdir|rmdir|touch|symlink_to|hardlink_to|chmod"
    r"|tofile|savefig|writestr)|fcntl\..*"
)
CLOCKS = r"time\.(?!sleep).*|datetime\..*|timeit\..*|os\.times"
TIMES = r".*\.(st_mtime|st_ctime)(_ns)?"
NETWORK = r"socket|ssl|urllib\.request|http|requests|urllib3|httpx|aiohttp|ftplib|huggingface_hub"
EXECUTES = (
    r"eval|exec|compile|__import__|os\.(system|popen|exec\w+|spawn\w+)|yaml\.(unsafe_)?load\w*|torch\.load"
    r"|runpy\..*|code\..*|\.extractall|builtins\..*"
)
ENVIRONMENT = r"sys\.(orig_)?argv|os\.(environb?|getenvb?|putenv)(\..*)?"
# All that compiles; analysis/program.py only traces what it writes so.
JITS = r"jax\.(jit|pmap|pjit|experimental\.pjit(\..*)?|interpreters\.pxla(\..*)?)"
PICKLES = "pickle|cPickle|cloudpickle|dill|shelve|marshal|joblib"
STATEFUL = r"flax\.nnx\.(jit|grad|value_and_grad|Optimizer|scan|vmap|remat|pmap|cond)"
# For each effect: a pattern of the files that may have it, then the rules that find it in a file.
DOORS = {
    "raw file writing": (r"files/__init__\.py", mentions(WRITERS), opens_for_writing, replaces_file),
    "network": (r"files/(__init__|downloads)\.py", takes_module(NETWORK)),
    "clock": (r"runs/journal\.py|drafting/stopwatch\.py", mentions(CLOCKS)),
    "times of files": (r"files/stamps\.py", mentions(TIMES)),
    "random keys": (r"data/feed/stream\.py", mentions(r"jax\.random\.(key|PRNGKey|wrap_key_data)")),
    "mesh and sharding": (
        r"training/devices\.py",
        lambda names: {name for name, _ in names.called if re.match(r"jax\.(sharding\.|make_mesh)", name)},
        takes_module(r"jax\.experimental\.(mesh_utils|shard_map|pjit)"),
    ),
    "orbax": (r"runs/checkpoints\.py", takes_module("orbax")),
    "torch": ("", takes_module("torch")),
    "stdout": (r"cli/.*", prints),
    "argv and environment": (r"__main__\.py|process\.py", mentions(ENVIRONMENT)),
    "bare jit": (r"compilation\.py|analysis/program\.py", mentions(JITS), takes_module(JITS)),
    "pickle": ("", takes_module(PICKLES), calls_with(("allow_pickle", "True"))),
    "executed text": ("", mentions(EXECUTES), calls_with(("shell", "True"), ("trust_remote_code", "True"))),
    "flax that hides state": ("", mentions(STATEFUL)),
    "layers of others": (
        r"(?!models/).*",
        mentions(
            r"flax\.nnx\.(?!Module$|List$|Dict$|Rngs$|Param$|BatchStat$|data$).*|flax\.linen\..*|jax\.lax\.(conv.*|reduce_window.*)"
            r"|jax\.nn\.dot_product_attention"
        ),
    ),
}  # fmt: skip


def find_effects_beside_doors(source: str, where: str) -> set[str]:
    """The effects in a file that only other files may have, each with the name that has it: {"clock: time.time"}.

    Args:
        source: the text of the file.
        where: its path inside the package.
    """
    names = Names(source)
    effects = set()
    for effect, (door, *rules) in DOORS.items():
        if door and re.fullmatch(door, where):
            continue
        for rule in rules:
            effects |= {f"{effect}: {name}" for name in rule(names)}
    return effects


@for_each_file
def test_each_effect_has_one_door(path):
    assert not find_effects_beside_doors(path.read_text(), name_of(path))


@pytest.mark.parametrize(
    ("effect", "source"),
    [
        ("raw file writing", "open('a', 'w')"),
        ("raw file writing", "open('a', mode='ab')"),
        ("raw file writing", "open('a', mode)"),
        ("raw file writing", "path.open('w')"),
        ("raw file writing", "import zipfile\nzipfile.ZipFile(path, 'a')"),
        ("raw file writing", "Path('a').write_text('')"),
        ("raw file writing", "write = Path('a').write_bytes"),
        ("raw file writing", "import os\nos.replace('a', 'b')"),
        ("raw file writing", "from os import rename as moved\nmoved('a', 'b')"),
        ("raw file writing", "path.replace(target)"),
        ("raw file writing", "import os\nos.open(path, os.O_WRONLY)"),
        ("raw file writing", "import numpy as np\nnp.savez('a', x=1)"),
        ("raw file writing", "from tempfile import NamedTemporaryFile as T\nT()"),
        ("raw file writing", "import shutil\nshutil.rmtree('a')"),
        ("network", "from urllib import request"),
        ("network", "def f():\n    import requests.sessions"),
        ("clock", "import time\ntime.perf_counter()"),
        ("clock", "from time import monotonic as now\nnow()"),
        ("clock", "import datetime as d\nd.datetime.now()"),
        ("times of files", "path.stat().st_mtime"),
        ("random keys", "import jax\njax.random.key(0)"),
        ("random keys", "from jax import random\nrandom.PRNGKey(0)"),
        ("mesh and sharding", "from jax.sharding import NamedSharding as N\nN(mesh, spec)"),
        ("mesh and sharding", "import jax\njax.make_mesh((4,), ('data',))"),
        ("orbax", "import orbax.checkpoint as ocp"),
        ("orbax", "from orbax import checkpoint"),
        ("torch", "def f():\n    from torch import nn"),
        ("stdout", "print('a')"),
        ("stdout", "import sys\nsys.stdout.write('a')"),
        ("stdout", "from rich.console import Console\nConsole()"),
        ("argv and environment", "import os\nos.environ['A']"),
        ("argv and environment", "from os import getenv\ngetenv('A')"),
        ("argv and environment", "import sys\nsys.argv"),
        ("bare jit", "import jax\njax.jit(f)"),
        ("bare jit", "import jax as j\nstep = j.jit"),
        ("bare jit", "import jax\n@jax.jit\ndef f(x): ..."),
        ("bare jit", "import jax\nfrom functools import partial\n@partial(jax.jit, donate_argnums=0)\ndef f(x): ..."),
        ("bare jit", "from jax import jit"),
        ("bare jit", "from jax import jit as compiled\ncompiled(f)"),
        ("bare jit", "def f():\n    from jax import pmap"),
        ("bare jit", "import jax\njax.pmap(f)"),
        ("pickle", "import pickle"),
        ("pickle", "from joblib import load"),
        ("pickle", "import numpy as np\nnp.load(path, allow_pickle=True)"),
        ("executed text", "eval('1')"),
        ("executed text", "run = exec"),
        ("executed text", "subprocess.run(command, shell=True)"),
        ("executed text", "import os\nos.system('ls')"),
        ("executed text", "import yaml\nyaml.load(text)"),
        ("executed text", "archive.extractall()"),
        ("flax that hides state", "from flax import nnx\nnnx.jit(f)"),
    ],
)
def test_an_effect_beside_its_door_is_seen(effect, source):
    lines = find_effects_beside_doors(source, "training/loop.py")
    assert {line.partition(":")[0] for line in lines} == {effect}


@pytest.mark.parametrize("line", ["from jax.experimental.pjit import pjit", "from jax.experimental import pjit"])
def test_pjit_is_a_bare_jit(line):
    assert "bare jit" in {effect.partition(":")[0] for effect in find_effects_beside_doors(line, "training/loop.py")}


def test_compiler_options_are_set_in_one_file_and_the_tracer_may_do_without():
    source = "import jax\njax.jit(f)"
    assert find_effects_beside_doors(source, "training/step.py") == {"bare jit: jax.jit"}
    assert not find_effects_beside_doors(source, "compilation.py")
    assert not find_effects_beside_doors(source, "analysis/program.py")


def test_the_network_has_its_own_file_behind_the_door():
    assert not find_effects_beside_doors("import urllib.request", "files/downloads.py")
    assert find_effects_beside_doors("import urllib.request", "files/cache.py")
    assert find_effects_beside_doors("open('a', 'w')", "files/downloads.py")


@pytest.mark.parametrize(
    "source",
    [
        "from flax import nnx\nnnx.Conv",
        "from flax.nnx import BatchNorm",
        "import flax.linen as nn\nnn.Dense",
        "import jax\njax.lax.conv_general_dilated",
        "from jax.lax import reduce_window as pool\npool(x)",
    ],
)
def test_a_model_with_layers_of_others_is_seen(source):
    used = "\n".join([source, *re.findall(r"import (\w+)$", source)])
    lines = find_effects_beside_doors(used, "models/x.py")
    assert {line.partition(":")[0] for line in lines} == {"layers of others"}
    assert not find_effects_beside_doors(used, "nn/x.py")


@pytest.mark.parametrize(
    "source",
    [
        "open('a')",
        "open('a', 'rb')",
        "path.open()",
        "path.read_text()",
        "'abc'.replace('a', 'b')",
        "parameter.replace(default=1)",
        "import os\nos.open(os.devnull, os.O_RDWR)",
        "import time\ntime.sleep(1)",
        "import jax\njax.random.split(jax.random.fold_in(key, 1))",
        "import jax\ndef f(mesh: jax.sharding.Mesh): ...",
        "from cnn_vit import compilation\ncompilation.jit(f, kind)",
        "import sys\nprint('a', file=sys.stderr)",
        "import numpy as np\nnp.load(path, allow_pickle=False)",
        "import ast\nast.literal_eval('1')",
        "from flax import nnx\nnnx.merge(nnx.split(model))",
        "import re\nre.compile('a')",
        "loader.exec_module(module)",
    ],
)
def test_what_has_no_effect_is_allowed(source):
    assert not find_effects_beside_doors(source, "training/loop.py")


# Habits of the whole house --------------------------------------------------------------------------------------------


MOST_TUPLE_FIELDS = 3  # of a NamedTuple; more are easily taken for one another when it is unpacked


def find_broken_habits(source: str, *, within: str) -> list[str]:
    """The habits of the house that a file breaks; `within` is its path inside the package."""
    tree = ast.parse(source)
    broken = []
    if any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        broken.append("assert: a user's mistake is a sentence")
    if source.strip() and not ast.get_docstring(tree):
        broken.append("no docstring")
    if Path(within).stem in {"utils", "util", "common", "misc", "helpers", "tools", "stuff"}:
        broken.append("a drawer, not a room")
    if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b", source):
        broken.append("a note instead of a deed")
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in [ast.unparse(base) for base in node.bases]:
            fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
            if len(fields) > MOST_TUPLE_FIELDS:
                broken.append(f"{node.name} has {len(fields)} fields: a record of more than three is a dataclass")
    return broken


@for_each_file
def test_habits_are_kept(path):
    assert not find_broken_habits(path.read_text(), within=name_of(path))


@pytest.mark.parametrize(
    ("source", "within"),
    [
        ('"""A."""\ndef f(x):\n    if x:\n        assert x', "trees.py"),
        ("x = 1", "trees.py"),
        ('"""A."""', "training/utils.py"),
        ('"""A."""\nx = 1  # TODO later', "trees.py"),
        ('"""A."""\nclass A(NamedTuple):\n    a: int\n    b: int\n    c: int\n    d: int', "trees.py"),
    ],
)
def test_a_broken_habit_is_seen(source, within):
    assert len(find_broken_habits(source, within=within)) == 1


def find_foreign_imports(source: str) -> set[str]:
    """What a recipe imports, or reaches without an import, beside ml_collections."""
    names = Names(source)
    relative = {"." for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.level}
    reached = mentions(r"__import__|open|eval|exec|compile|globals|importlib\..*")(names)
    return {name for name in names.modules if name.split(".")[0] != "ml_collections"} | relative | reached


@pytest.mark.parametrize("path", sorted((TOP / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_recipes_import_ml_collections_and_nothing_else(path):
    assert not find_foreign_imports(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import jax",
        "from cnn_vit import settings",
        "from . import other",
        "def f():\n    import os",
        "__import__('os')",
    ],
)
def test_a_recipe_that_imports_more_is_seen(source):
    assert find_foreign_imports(source)
    assert not find_foreign_imports("from ml_collections import config_dict\nimport ml_collections")
