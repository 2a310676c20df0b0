"""A trained network: loaded from a run folder with the values that its run was tested with."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cnn_vit.errors import SurroundingsError
from cnn_vit.nn.values import Network
from cnn_vit.runs import folder, records
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.manifests import DamageError
from cnn_vit.training import devices, plan, step


class Trained(NamedTuple):
    """A network with the values that its run was tested with.

    Attributes:
        spec: what the network is.
        params, stats: its values, on the devices.
        classes: names in the order of the scores.
        preprocessing: mean, deviation, image_size (height, width), channels and fit of its images; sizes where the
            fit leaves them their own.
        run: the run folder that it was loaded from, where each reading of a test split leaves a line; None: no such.
    """

    spec: step.NetworkSpec
    params: dict
    stats: dict
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    run: Path | None = None

    @property
    def network(self) -> Network:
        """Shapes, initializers and `apply`."""
        return step.get_network(self.spec)


def load(run: str | os.PathLike) -> Trained:
    """The network of a run folder with the values that were, or would be, tested.

    A run still under way gives those of its newest checkpoint.

    Raises:
        UserError: the folder holds no run.
        SurroundingsError: no checkpoint is whole, or the one tested is damaged.
    """
    workdir = Path(run)
    final, classes, preprocessing = folder.read_folder(workdir)
    form = plan.network_spec(
        final, classes=len(classes), image_shape=(*preprocessing["image_size"], preprocessing["channels"])
    )
    network = step.get_network(form)
    tested = records.read_result(workdir / folder.RESULT)["tested"] if (workdir / folder.RESULT).exists() else {}
    averaged = tested.get("values", "ema" if final["ema_decay"] is not None else "trained") == "ema"
    wanted = dict(params=network.params, stats=network.stats)
    template = placed({"ema": wanted} if averaged else wanted)
    kept = Checkpoints(
        workdir / folder.CHECKPOINTS, keep=final["keep_checkpoints"], crash=workdir / folder.CRASH, sweep=False
    )
    try:
        if tested:
            values = kept.restore(tested["step"], template, part=True)
        else:
            values = (kept.restore_newest(template, part=True) or (0, {}))[1]
    except DamageError as error:
        raise SurroundingsError(f"{error}; put it back from a copy, or train again in another --workdir") from error
    finally:
        kept.close()
    if not values:
        raise SurroundingsError(f"{workdir} holds no checkpoint yet; give its `cnn-vit train` more time, or again")
    values = values["ema"] if averaged else values
    return Trained(form, values["params"], values["stats"], classes, preprocessing, workdir)


def placed(tree: dict) -> dict:
    """Shapes with the sharding of a whole copy on every device."""
    everywhere = devices.replicated(devices.mesh())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), tree)
