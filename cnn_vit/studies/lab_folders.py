"""The folders of the laboratory's experiments: where they lie, a new one, and their pages. Nothing is run here."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import UserError, unknown
from cnn_vit.reports import lab_facts, lab_readme
from cnn_vit.reports.lab_facts import EXPERIMENT, README
from cnn_vit.settings.recipes import PACKAGE_PARENT

EXPERIMENTS = "experiments"
SHIPPED = PACKAGE_PARENT / EXPERIMENTS
SCRIPTS = ("recipes", "speed", "sweeps", "transfer")  # folders of ours that are no experiments of the laboratory
LOCK = ".lock"  # git does not see it, and it goes with its owner
NAME = re.compile(r"[a-z][a-z0-9_]*")
SKELETON = '''"""TITLE: what is measured, in a few sentences."""

from cnn_vit import plots
from cnn_vit.nn.windows import output_size
from cnn_vit.reports.evidence import at_most
from cnn_vit.reports.lab_facts import Table
from cnn_vit.studies.lab import Measured

# Texts: they may change without anything being measured again.
ORDER = 90  # the place in the chapter
QUESTION = "How many pixels does a convolution leave of a row?"
CLAIM = "What is expected, and why: n - k + 1 of n pixels, for a filter of k, at stride 1."
SENTENCES = {
    "size": (
        "The output of a convolution has n - k + 1 pixels.",
        "It has, at stride 1 and without padding; at stride s it has floor((n - k) / s) + 1.",
    ),
}
FORMULAS = ((r"m = \\lfloor \\frac{n - k}{s} \\rfloor + 1", "The pixels m that a stride of s leaves of n.", ""),)
FIGURES = {"sizes": "Pixels that a filter of 3 leaves of a row, by the stride."}
SURPRISE = "What nobody had expected."
CHOSEN = "How settings, seeds and bounds were chosen: what was looked at before, and what after."
SEEDS = (0, 1, 2)  # each is measured once; a verdict needs at least 3

FILTER = 3  # pixels


def measure(seed: int, runs, *, quick: bool) -> Measured:
    """What one seed gives. `runs` are the trials of `list_trials(*, quick)` by name, where there is one."""
    rows = []
    for stride in (1, 2):
        pixels = 8 + seed
        counted = output_size(pixels, FILTER, stride=stride, padding=(0, 0))
        rows.append({"stride": stride, "pixels": pixels, "counted": counted})
    return Measured(rows)


def weigh(rows) -> dict:
    """The evidence for each sentence: numbers, one a seed, and the bound that they are compared with."""
    evidence = []
    for stride in (1, 2):
        misses = [abs(row["counted"] - (row["pixels"] - FILTER + 1)) for row in rows if row["stride"] == stride]
        evidence.append(at_most(f"pixels too many or too few at stride {stride}", misses, 0))
    return {"size": evidence}


def tabulate(rows) -> list[Table]:
    """The rows as tables."""
    cells = [(str(row["pixels"]), str(row["stride"]), str(row["counted"])) for row in rows]
    return [Table("pixels that are left", ("pixels", "stride", "left"), tuple(cells))]


def draw(rows) -> dict[str, str]:
    """The figures, by their names in FIGURES."""
    names = [f"{row['pixels']} pixels, stride {row['stride']}" for row in rows]
    return {"sizes": plots.draw_bars([row["counted"] for row in rows], names, title="Pixels that are left")}
'''


def find_experiments() -> list[Path]:
    """Returns the folder of each experiment: those under the current folder, then those beside the package.

    Where both have a name, it is that under the current folder, which may be the same one.

    Raises:
        UserError: there is none.
    """
    folders: dict[str, Path] = {}
    for experiments in (Path(EXPERIMENTS), SHIPPED):
        for folder in lab_facts.list_folders(experiments):
            folders.setdefault(folder.name, folder)
    if not folders:
        raise UserError(
            f"there is no {EXPERIMENTS}/NAME/{EXPERIMENT} here, nor beside the package; `cnn-vit lab new NAME` writes "
            "one"
        )
    return list(folders.values())


def find_experiment(name: str) -> Path:
    """Returns the folder of an experiment.

    Raises:
        UserError: there is none of that name.
    """
    folders = {folder.name: folder for folder in find_experiments()}
    if name not in folders:
        raise unknown("experiment", name, folders)
    return folders[name]


def write_skeleton(name: str) -> Path:
    """Writes the file of a new experiment under the current folder, and returns its path.

    Raises:
        UserError: the name is not one, or the experiment is there, or comes with the package.
        SurroundingsError: the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of an experiment; take small letters, digits and _, such as my_padding")
    path = Path(EXPERIMENTS) / name / EXPERIMENT
    if path.exists():
        raise UserError(f"{path} is there already; take another name, or remove it first")
    if (SHIPPED / name / EXPERIMENT).exists():
        raise UserError(f"{name} is an experiment that comes with the package; take another name")
    files.write(path, SKELETON.replace("TITLE", name.replace("_", " ").capitalize()))
    return path


@contextlib.contextmanager
def locked(path: Path, *, waits: bool) -> Iterator[None]:
    """Holds a lock while files beside it are read and written; the lock's file is gone afterwards.

    Args:
        path: of the lock.
        waits: whether another owner is waited for; else that is an error.

    Raises:
        SurroundingsError: another process has the lock, or the folder cannot be written.
    """
    with files.Lock(path, on_wait=(lambda _: None) if waits else None) as lock:
        try:
            yield
        finally:
            lock.remove()


def refresh_readmes(experiments: Path) -> list[Path]:
    """Writes each README.md anew that is not what results.json and experiment.py say; returns those written.

    An experiment that cannot be read keeps its own, and then that of all experiments stays as well, which names it. So
    does a README.md of all experiments that does not begin with our heading, for it is the user's.
    """
    if not find_old_readmes(experiments):
        return []
    with locked(experiments / LOCK, waits=True):
        texts = find_old_readmes(experiments)
        for path, text in texts.items():
            files.write(path, text)
    return list(texts)


def find_old_readmes(experiments: Path) -> dict[Path, str]:
    """Returns the text of each README.md that is to be written anew."""
    everything, broken = lab_facts.read_readable(lab_facts.list_folders(experiments))
    texts = {}
    for experiment_facts in everything:
        for facts in (experiment_facts, *experiment_facts.others):
            texts[facts.source / README] = lab_readme.write_readme(facts)
    overview = experiments / README
    is_ours = not overview.exists() or read_text(overview).startswith(lab_readme.HEAD_OF_ALL.partition("\n")[0])
    if is_ours and not broken:
        has_scripts = all((experiments / name).is_dir() for name in SCRIPTS)
        texts[overview] = lab_readme.write_overview(everything, has_scripts=has_scripts)
    return {path: text for path, text in texts.items() if not path.exists() or read_text(path) != text}


def read_text(path: Path) -> str:
    """Returns the text of a file, with signs of replacement for bytes that are none."""
    with files.os_errors(path):
        return path.read_text(encoding="utf-8", errors="replace")
