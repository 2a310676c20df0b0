"""Loads a trained network from a run folder, with the values that the run was tested with."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.nn.values import Network
from cnn_vit.runs import folder, reader
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.manifests import DamageError
from cnn_vit.training import devices, plan
from cnn_vit.training.forward import NetworkSpec, get_network


@dataclass(frozen=True)
class Trained:
    """A network with the values that its run was tested with.

    Attributes:
        spec: what the network is.
        params: its parameters, on the devices.
        stats: its running statistics, on the devices.
        classes: names of the classes, in the order of the scores.
        preprocessing: mean, std, image_size (height, width), channels and fit of its images; also the padded `sizes`
            where it was trained on images of several sizes.
        loss_numbers: the numbers of the spec's loss by keyword.
        run: the run folder that it was loaded from, in which each reading of a test split leaves a line; None for a
            network from elsewhere.
    """

    spec: NetworkSpec
    params: dict
    stats: dict
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    loss_numbers: dict[str, float] = field(default_factory=dict)
    run: Path | None = None

    @property
    def network(self) -> Network:
        """The network as plain data: shapes of its values, initializers and `apply`."""
        return get_network(self.spec)

    @property
    def values(self) -> dict:
        """Parameters and statistics together, dict(params, stats)."""
        return dict(params=self.params, stats=self.stats)


def load(run: str | os.PathLike) -> Trained:
    """Loads the network of a run folder, with the values that its run was tested with.

    Of a run that is not finished, the values are those of the newest checkpoint: the moving average where there is one.

    Raises:
        UserError: the folder holds no run.
        SurroundingsError: no checkpoint is whole, or the one that was tested is damaged.
    """
    workdir = Path(run)
    description = reader.read_description(workdir)
    settings = description.settings
    spec = plan.network_spec(settings, classes=len(description.classes), image_shape=description.image_shape)
    tested: dict[str, Any] = {}
    if (workdir / folder.RESULT).exists():
        tested = reader.read_result(workdir / folder.RESULT)["tested"]
    # a run that is not finished has tested nothing yet: take what its validation reads
    default = "ema" if plan.evaluates_average(settings) else "trained"
    is_ema = tested.get("values", default) == "ema"

    network = get_network(spec)
    # the optimizer's state and the values that were not tested are not read
    template = replicated_template(dict(params=network.params, stats=network.stats))
    if is_ema:
        template = {"ema": template}
    checkpoints = Checkpoints(
        workdir / folder.CHECKPOINTS,
        keep_checkpoints=settings["keep_checkpoints"],
        crash=workdir / folder.CRASH,
        clean_up=False,  # a run may be working in the folder
    )
    try:
        if tested:
            state = checkpoints.restore(tested["step"], template, partial=True)
        else:
            newest = checkpoints.restore_newest(template, partial=True)
            if newest is None:
                raise SurroundingsError(
                    f"{workdir} holds no checkpoint yet; give its `cnn-vit train` more time, or start that again"
                )
            _, state = newest
    except DamageError as error:
        raise SurroundingsError(f"{error}; put it back from a copy, or train again in another --workdir") from error
    finally:
        checkpoints.close()
    values = state["ema"] if is_ema else state
    return Trained(
        spec=spec,
        params=values["params"],
        stats=values["stats"],
        classes=description.classes,
        preprocessing=description.preprocessing,
        loss_numbers=plan.rule_numbers(settings, "loss"),
        run=workdir,
    )


def replicated_template(shapes: dict) -> dict:
    """Adds to each shape of a tree the sharding of an array that every device holds whole."""
    everywhere = devices.replicated_sharding(devices.mesh())
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes)


def refuse_untrained(network) -> None:
    """Raises UserError for what `load` did not return: networks of `build` have no values, a path is no network."""
    if not hasattr(network, "preprocessing"):
        kind = type(network).__name__
        raise UserError(f"{kind} is not a trained network; cnn_vit.load(RUN) gives that of a run folder")
