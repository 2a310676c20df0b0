"""Loads a trained network: of a run folder, with the values that the run was tested with, or of a file of weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.decode import pixel_rules
from cnn_vit.data.sections import READING_KEYS
from cnn_vit.errors import SurroundingsError, UserError
from cnn_vit.nn.values import Network
from cnn_vit.runs import folder, reader
from cnn_vit.runs.checkpoints import Checkpoints
from cnn_vit.runs.manifests import DamageError
from cnn_vit.settings import KEYS
from cnn_vit.training import adapting, devices, freezing, plan
from cnn_vit.training.forward import NetworkSpec, get_network
from cnn_vit.training.rules import RuleSpec
from cnn_vit.transfer import catalog, convert
from cnn_vit.transfer.weights import Weights

NEEDED = ("mean", "std", "image_size", "channels")  # what the card of weights must say of their images


@dataclass(frozen=True)
class Trained:
    """A network with the values that its run was tested with, or with those of a file.

    Attributes:
        spec: what the network is.
        params: its parameters, on the devices.
        stats: its running statistics, on the devices.
        classes: names of the classes, in the order of the scores; "class 0" and so on where nobody says them.
        preprocessing: how images become its input, with the keys of a run's preprocessing.json; also the padded `sizes`
            where it was trained on images of several sizes.
        loss_numbers: the numbers of the spec's loss by keyword.
        run: the run folder that it was loaded from, in which each reading of a test split leaves a line; None for a
            network from elsewhere.
        has_class_names: whether the classes have names. Else the classes of data are taken for them in their order.
    """

    spec: NetworkSpec
    params: dict
    stats: dict
    classes: tuple[str, ...]
    preprocessing: dict[str, Any]
    loss_numbers: dict[str, float] = field(default_factory=dict)
    run: Path | None = None
    has_class_names: bool = True

    @property
    def network(self) -> Network:
        """The network as plain data: shapes of its values, initializers and `apply`."""
        return get_network(self.spec)

    @property
    def values(self) -> dict:
        """Parameters and statistics together, dict(params, stats)."""
        return dict(params=self.params, stats=self.stats)


def load(source: str | os.PathLike, *, model: str | None = None, keywords: Mapping[str, Any] | None = None) -> Trained:
    """Loads a trained network from a run folder, or from a file of weights, ours or somebody else's.

    Args:
        source: the folder or the file, or a name of `cnn-vit list weights`, whose file is downloaded at first use.
        model: name of the network, for a file that does not say it; None: what the file's names and shapes say.
        keywords: of the model, for such a file.

    Raises:
        UserError: it holds no network, or nobody says how images become its input.
        SurroundingsError: a file of it is damaged, or cannot be downloaded.
    """
    if os.path.isdir(source):
        if model is not None or keywords:
            raise UserError(f"{os.fspath(source)} is a run folder, which says its own model; leave --model out")
        return load_run(source)
    named = os.fspath(source)
    if not os.path.exists(source) and not catalog.is_name(named) and not catalog.suggest_names(named):
        raise UserError(
            f"{os.fspath(source)} is not there; name a run folder, a file of weights, or one of `cnn-vit list weights`"
        )
    return make_trained(convert.open_weights(os.fspath(source), model=model, keywords=dict(keywords or {})))


def make_trained(weights: Weights) -> Trained:
    """Makes a trained network of weights, by their card.

    Raises:
        UserError: the card does not say how images become the network's input.
    """
    card = weights.card
    missing = [key for key in NEEDED if key not in card.preprocessing]
    if missing:
        raise UserError(
            f"nobody says {', '.join(missing)} of the images that these weights of {card.model} were trained on; "
            f"convert them with {' '.join(f'--{key}=...' for key in missing)}"
        )
    defaults = {key: KEYS[f"data.{key}"].default for key in READING_KEYS}
    preprocessing = {**defaults, **card.preprocessing, "version": pixel_rules.VERSION}
    height, width = preprocessing["image_size"]
    if preprocessing["fit"] == PAD_BATCH:
        preprocessing["sizes"] = [[height, width]]  # one canvas for all images: padding changes no score
    spec = NetworkSpec(
        model=card.model,
        keywords=tuple(sorted(card.keywords.items())),
        num_classes=card.num_classes,
        image_shape=(height, width, preprocessing["channels"]),
        dtype="float32",
        loss=RuleSpec("softmax"),
    )
    values = devices.place(dict(params=weights.params, stats=weights.stats), devices.mesh())
    numbers = tuple(f"class {number}" for number in range(card.num_classes))
    return Trained(
        spec=spec,
        params=values["params"],
        stats=values["stats"],
        classes=card.classes or numbers,
        preprocessing=preprocessing,
        has_class_names=card.classes is not None,
    )


def load_run(run: str | os.PathLike) -> Trained:
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
    whole = devices.replicated_template(dict(params=network.params, stats=network.stats), devices.mesh())
    examples = reader.read_data(workdir / folder.DATA)["counts"]["train"] if settings["pretrained.stages"] else 0
    ends = plan.stage_ends(settings, examples=examples) if settings["pretrained.stages"] else ()

    def split_at(step: int) -> tuple[dict, dict]:
        """Shapes and placement of what is trained and what is frozen in the stage of a step."""
        stage = sum(end < step for end in ends)
        trained, frozen = freezing.split_shapes(spec, adapting.freeze_spec(settings, stage=stage), whole)
        return devices.replicated_template(trained, devices.mesh()), frozen

    # the optimizer's state and the values that were not tested are not read
    def template_at(step: int) -> dict:
        trained, _ = split_at(step)
        return {"ema": trained} if is_ema else trained

    checkpoints = Checkpoints(
        workdir / folder.CHECKPOINTS,
        keep_checkpoints=settings["keep_checkpoints"],
        crash=workdir / folder.CRASH,
        clean_up=False,  # a run may be working in the folder
    )
    try:
        if tested:
            step = tested["step"]
            state = checkpoints.restore(step, template_at(step), partial=True)
        else:
            newest = checkpoints.restore_newest(template_at, partial=True)
            if newest is None:
                raise SurroundingsError(
                    f"{workdir} holds no checkpoint yet; give its `cnn-vit train` more time, or start that again"
                )
            step, state = newest
        frozen: dict[str, dict] = {"params": {}, "stats": {}}
        _, frozen_template = split_at(step)
        if jax.tree.leaves(frozen_template):
            frozen = checkpoints.restore_frozen(frozen_template)
    except DamageError as error:
        raise SurroundingsError(f"{error}; put it back from a copy, or train again in another --workdir") from error
    finally:
        checkpoints.close()
    values = freezing.join_values(state["ema"] if is_ema else state, frozen, adapting.lora_scale(settings))
    return Trained(
        spec=spec,
        params=values["params"],
        stats=values["stats"],
        classes=description.classes,
        preprocessing=description.preprocessing,
        loss_numbers=plan.rule_numbers(settings, "loss"),
        run=workdir,
    )


@dataclass(frozen=True)
class InitialValues:
    """What a network is compared with: values that are drawn anew.

    Attributes:
        seed: that they are drawn from.
        words: what they are: "before training", or "initial values of seed 0".
        is_before_training: whether the network's training began with them; not where it began with other weights, and
            of a file nobody knows.
    """

    seed: int
    words: str
    is_before_training: bool


def describe_initial_values(network: Trained) -> InitialValues:
    """Returns which initial values a network is compared with."""
    if network.run is None:
        return InitialValues(0, "initial values of seed 0", is_before_training=False)
    settings = reader.read_settings(network.run)
    seed = settings["seed"]
    if settings["pretrained.weights"] is not None:  # it began with these, not with what is drawn
        return InitialValues(seed, f"initial values of seed {seed}", is_before_training=False)
    return InitialValues(seed, "before training", is_before_training=True)


def refuse_untrained(network) -> None:
    """Raises UserError for what `load` did not return: networks of `build` have no values, a path is no network."""
    if not hasattr(network, "preprocessing"):
        kind = type(network).__name__
        raise UserError(f"{kind} is not a trained network; cnn_vit.load(RUN_OR_WEIGHTS) gives one")
