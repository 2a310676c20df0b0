"""A sweep of one trial that waits until a test lets it go on: what the tests of SLURM, real and made up, share."""

from cnn_vit.studies.sweeping import claims, definition, planner
from cnn_vit.studies.sweeping.ledger import Ledger
from cnn_vit.studies.workers import StudyOptions

OBJECTIVE = """
import pathlib, time

def wait(values):
    pathlib.Path(__file__).with_name("begun").touch()
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.01)
    return values["x"]
"""


def plan_sweep(folder):
    """Plans the sweep in a folder. Its function writes the file "begun" there, and returns once "go" is there.

    Returns:
        The folder of the sweep, and its trial.
    """
    (folder / "wait.py").write_text(OBJECTIVE)
    out = folder / "out"
    defined = definition.from_call(f"{folder}/wait.py:wait", {"x": [1.5]}, sampler="grid", mode="max")
    claims.claim_sweep(out, defined)
    ledger = Ledger(out)
    planner.Planner(defined, ledger, planner.PlanningProcess(defined, out, StudyOptions(), None)).plan_rows([])
    return out, planner.open_trial(out, ledger.plan.rows[0].id)
