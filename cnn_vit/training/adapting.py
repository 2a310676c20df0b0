"""What of a network is trained, from when on and how fast: from settings to the specs of a step.

Learning rates by part (`pretrained.multipliers`, `pretrained.layer_decay`), low-rank adapters (`pretrained.lora`) and
stages (`pretrained.stages`) go together with `pretrained.freeze` and with each other.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_vit import trees
from cnn_vit.errors import UserError
from cnn_vit.settings import Settings, durations
from cnn_vit.training import freezing, optimizers, rates
from cnn_vit.training.forward import NetworkSpec, find_inner_kernels, get_network
from cnn_vit.training.freezing import FreezeSpec, LoraSpec
from cnn_vit.training.rates import RatesSpec
from cnn_vit.transfer.adapt import patterns
from cnn_vit.transfer.adapt.freezing import STAGES
from cnn_vit.transfer.adapt.rates import MULTIPLIERS, parse_multipliers

LORA_FREEZE = "all but head"  # what is frozen where adapters are trained and nothing else is said
STAGE = re.compile(
    r"\s*(?P<pattern>\S.*?)\s+(?P<amount>[0-9.][^\s/]*(?:\s*(?:steps?|epochs?|examples?))?)\s*", re.IGNORECASE
)


def check_settings(settings: Settings) -> None:
    """Checks what settings say of learning rates by part, of adapters and of stages, as far as no network is needed.

    Raises:
        UserError: a text cannot be read, or a setting means nothing without another.
    """
    name = settings["optimizer.name"]
    is_uneven = bool(parse_multipliers(settings[MULTIPLIERS])) or settings["pretrained.layer_decay"] is not None
    if is_uneven and optimizers.get_optimizer(name).multiplies == "nowhere":
        key = MULTIPLIERS if settings[MULTIPLIERS] else "pretrained.layer_decay"
        raise UserError(
            f"{key} is set, and {name} estimates one learning rate for all parameters, which it would bend; take "
            "another optimizer, such as adamw"
        )
    for key in ("pretrained.lora_alpha", "pretrained.lora_on"):
        if settings[key] is not None and settings["pretrained.lora"] is None:
            raise UserError(f"{key} is {settings[key]}, and there are no adapters; set pretrained.lora too, their rank")
    parse_stages(settings)


@dataclass(frozen=True)
class Stage:
    """A part of a run, in which more is trained than before.

    Attributes:
        pattern: what is trained from now on, "stages/2..".
        duration: of the stage, "3 epochs"; None of the last one, which lasts until the end.
    """

    pattern: str
    duration: str | None


def parse_stages(settings: Settings) -> tuple[Stage, ...]:
    """Reads the setting, ("head 2 epochs", "stages/2.. 3 epochs", "all"); () where it is unset.

    Raises:
        UserError: a stage but the last has no duration, or one of 0, or the last has one, or it is alone.
    """
    texts = settings[STAGES]
    if len(texts) == 1:
        raise UserError(
            f"{STAGES} holds {texts[0]!r} alone, and a run has two stages or more, the last of them until its end; "
            "write such as head 2 epochs, all, or leave it unset and name what is not trained in pretrained.freeze"
        )
    stages = []
    for position, text in enumerate(texts, start=1):
        stage = parse_stage(text)
        is_last = position == len(texts)
        if is_last and stage.duration is not None:
            raise UserError(
                f"{STAGES} ends with {text!r}, and the last stage lasts until the end of the run; leave out its "
                f"{stage.duration}"
            )
        if not is_last and stage.duration is None:
            raise UserError(
                f"{STAGES} holds {text!r}, which does not say how long; write PATHS DURATION, such as head 2 epochs, "
                "and where PATHS have a comma a list in quotes, ('stem, head 2 epochs', 'all')"
            )
        if stage.duration is not None and durations.parse_duration(stage.duration)[0] == 0:
            raise UserError(f"{STAGES}: {stage.pattern} {stage.duration} is shorter than a step; make it longer")
        patterns.parse(stage.pattern, setting=STAGES)
        stages.append(stage)
    return tuple(stages)


def parse_stage(text: str) -> Stage:
    """Reads "head 2 epochs"; of a text that does not end with a duration, all of it is the pattern."""
    match = STAGE.fullmatch(text)
    if match is None:
        return Stage(text.strip(), None)
    try:
        return Stage(match["pattern"], durations.canonicalize_duration(match["amount"]))
    except ValueError:
        return Stage(text.strip(), None)


def freezes_something(settings: Settings) -> bool:
    """Whether a part of the network is frozen, for all of the run or its first stages."""
    return any(settings[key] for key in ("pretrained.freeze", "pretrained.lora", STAGES))


def freezing_text(settings: Settings) -> str:
    """Names the setting that freezes something, with its value, as sentences do: "pretrained.freeze='all but head'"."""
    for key in ("pretrained.freeze", "pretrained.lora", STAGES):
        if settings[key]:
            return f"{key}={settings[key]!r}"
    return "nothing"


def freeze_spec(settings: Settings, *, stage: int | None = None) -> FreezeSpec:
    """Returns what of the settings' network is not trained in a stage, counted from 0; None for the last one."""
    if not freezes_something(settings):
        return freezing.NOTHING
    stages = tuple(each.pattern for each in parse_stages(settings))
    pattern, lora = settings["pretrained.freeze"], None
    if settings["pretrained.lora"] is not None:
        lora = LoraSpec(settings["pretrained.lora"], settings["pretrained.lora_on"])
        pattern = pattern or LORA_FREEZE
    return FreezeSpec(
        pattern=pattern,
        statistics=settings["pretrained.statistics"],
        lora=lora,
        stages=stages if stage is None else stages[: stage + 1],
    )


def lora_scale(settings: Settings) -> np.float32 | None:
    """Returns alpha / rank, what the product of an adapter's factors is multiplied by; None without adapters."""
    rank, alpha = settings["pretrained.lora"], settings["pretrained.lora_alpha"]
    if rank is None:
        return None
    return np.float32(1 if alpha is None else alpha / rank)


def rates_spec(settings: Settings) -> RatesSpec:
    """Returns which parameters have learning rates of their own."""
    return RatesSpec(
        patterns=tuple(multiplier.pattern for multiplier in parse_multipliers(settings[MULTIPLIERS])),
        layer_decay=settings["pretrained.layer_decay"] is not None,
    )


def rate_numbers(settings: Settings) -> dict[str, Any]:
    """Returns the numbers of these rates, dict(multipliers, layer_decay), which are arguments of the step."""
    return {
        "multipliers": [np.float32(multiplier.number) for multiplier in parse_multipliers(settings[MULTIPLIERS])],
        "layer_decay": np.float32(settings["pretrained.layer_decay"] or 1.0),  # read only where there is one
    }


def check_parts(settings: Settings, network: NetworkSpec) -> None:
    """Checks the patterns of learning rates, adapters and stages against the network, without touching a device.

    Raises:
        UserError: a pattern does not fit the network; a stage trains nothing new; a multiplier is of nothing that is
            ever trained; or the optimizer is for kernels of which no stage trains one.
    """
    last = freeze_spec(settings)
    more = "more"
    if settings["pretrained.freeze"]:
        more = "more than pretrained.freeze leaves"
    elif last.pattern:
        more = f"more than {last.pattern!r} leaves, which is frozen beside adapters where pretrained.freeze is unset"
    trained_before: set[tuple] = set()
    for position, stage in enumerate(parse_stages(settings)):
        trained = find_trained(network, freeze_spec(settings, stage=position))
        if trained <= trained_before:
            raise UserError(
                f"{STAGES}: the stage {stage.pattern!r} trains nothing that was not trained before; leave it out, or "
                f"name {more}"
            )
        trained_before = trained
    multipliers = parse_multipliers(settings[MULTIPLIERS])
    indices = rates.find_multiplied(network, tuple(multiplier.pattern for multiplier in multipliers))
    trained = find_trained(network, last)
    for position, multiplier in enumerate(multipliers):
        if not any(indices.get(path) == position for path in trained):
            raise UserError(
                f"{MULTIPLIERS}: all of {multiplier.pattern!r} is frozen, by {freezing_text(settings)}, and does not "
                "learn; leave it out"
            )
    if settings["pretrained.layer_decay"] is not None:
        rates.find_distances(network)
    if settings[STAGES] and optimizers.get_optimizer(settings["optimizer.name"]).needs_inner_kernels:
        refuse_no_inner_kernels(network, last)


def refuse_no_inner_kernels(network: NetworkSpec, freeze: FreezeSpec) -> None:
    """Raises UserError where no stage trains a kernel between the first layer and the head, which muon is for.

    Args:
        network: the network.
        freeze: what is frozen in the last stage.
    """
    frozen = trees.paths_where(freezing.get_masks(network, freeze)["params"])
    if trees.paths_where(find_inner_kernels(network)) <= frozen:
        raise UserError(optimizers.NO_INNER_KERNELS)


def find_trained(network: NetworkSpec, freeze: FreezeSpec) -> set[tuple]:
    """Finds the paths of the parameters that are trained, those of kernels with adapters among them."""
    frozen = trees.paths_where(freezing.get_masks(network, freeze)["params"])
    everything = set(trees.shapes_by_path(get_network(network).params))
    return (everything - frozen) | freezing.get_targets(network, freeze).keys()
