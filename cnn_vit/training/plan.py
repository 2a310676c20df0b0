"""From settings to what a step takes: checked names, specs of network and step, durations in steps, hyperparameters.

`check` needs neither data nor device. The other functions take what only the data know (classes, image shape, number of
examples) as arguments.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cnn_vit import data, models, trees
from cnn_vit.analysis import table
from cnn_vit.data import augment
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.feed import stream
from cnn_vit.data.sections import height_and_width
from cnn_vit.errors import UserError
from cnn_vit.settings import Every, Key, Settings, count_steps, durations, read_rule
from cnn_vit.training import adapting, freezing, losses, optimizers, schedules
from cnn_vit.training.adapting import freeze_spec
from cnn_vit.training.forward import NetworkSpec, get_network
from cnn_vit.training.rules import RuleSpec
from cnn_vit.training.step import ScheduleSpec, StepSpec
from cnn_vit.transfer.adapt.freezing import STAGES


def check(settings: Settings) -> None:
    """Checks every name and keyword of settings with the part of the package that owns it, without data or device.

    It is the second check: `settings.load` has checked types and ranges, and the keywords of optimizer, schedule and
    loss.

    Raises:
        UserError: the first thing that is wrong, with the nearest names.
    """
    section = settings.section("data")
    data.check(section)
    refuse_unfit_rules(settings)
    if settings["test_weights"] == "ema" and not evaluates_average(settings):
        raise UserError(
            "test_weights is ema, but nothing is averaged; set ema_decay, such as 0.999, or test_weights=last"
        )
    adapting.check_settings(settings)
    if settings["pretrained.statistics"] == "recalibrate" and not adapting.freezes_something(settings):
        raise UserError(
            "pretrained.statistics is recalibrate, which measures the statistics of frozen layers, and nothing is "
            "frozen; set pretrained.freeze, or leave it unset"
        )
    refuse_uneven(settings["data.batch_size"], settings["optimizer.accumulate"], "optimizer.accumulate")
    # the model is checked as far as may be known before the data are read
    source_info = data.about(section)
    if settings[STAGES] and "train" in source_info.counts:
        stage_ends(settings, examples=source_info.counts["train"])
    if source_info.num_classes and source_info.image_shape:
        check_model(settings, classes=source_info.num_classes, image_shape=source_info.image_shape)
        return
    models.resolve(settings["model.name"])
    if settings["data.fit"] == PAD_BATCH:
        models.refuse_unmasked(settings["model.name"])
        image_size = height_and_width(section["image_size"])
        if image_size:
            # whether a network takes a mask depends neither on the number of classes nor on the channels: any will do
            stand_in_shape = (*image_size, section["channels"] or 3)
            check_model(settings, classes=source_info.num_classes or 2, image_shape=stand_in_shape)


def stage_ends(settings: Settings, *, examples: int) -> tuple[int, ...]:
    """Returns the step at which each stage but the last ends, for so many training examples; () without stages.

    Raises:
        UserError: a stage is shorter than a step, or the last one would not begin before the end of the run.
    """
    ends: list[int] = []
    total = run_times(settings, examples=examples).total
    for stage in adapting.parse_stages(settings)[:-1]:
        steps = steps_of(settings, STAGES, stage.duration, examples)
        if steps < 1:
            raise UserError(f"{STAGES}: {stage.pattern} {stage.duration} is shorter than a step; make it longer")
        ends.append(steps + sum(ends[-1:]))
    if ends and ends[-1] >= total:
        raise UserError(
            f"{STAGES}: the last stage would begin at step {ends[-1]} of a run of {total}; make the stages before it "
            "shorter, or duration longer"
        )
    return tuple(ends)


def refuse_unfit_rules(settings: Settings) -> None:
    """Raises UserError where the optimizer does not go with the schedule or with averaged parameters."""
    name = settings["optimizer.name"]
    optimizer = optimizers.get_optimizer(name)
    schedule = settings["schedule.name"]
    if optimizer.schedules is not None and schedule not in optimizer.schedules:
        raise UserError(
            f"schedule.name is {schedule}, and {name} takes {' or '.join(optimizer.schedules)} alone; "
            f"set schedule.name={optimizer.schedules[0]}, a warm-up may stay"
        )
    warmup = settings["schedule.warmup"]
    if schedule == "onecycle" and durations.parse_duration(warmup)[0] > 0:
        raise UserError("schedule.name is onecycle, which rises by itself; set schedule.warmup=0")
    if schedule == "step" and not settings["schedule.boundaries"]:
        raise UserError("schedule.name is step without schedule.boundaries; give some, such as ('80 epochs',)")
    (warmup_amount, warmup_unit), (total, unit) = map(durations.parse_duration, (warmup, settings["duration"]))
    if warmup_unit == unit and warmup_amount > 0 and warmup_amount >= total:
        raise UserError(
            f"schedule.warmup is {warmup} of a run of {settings['duration']}; make it shorter than duration, or 0"
        )
    if optimizer.average is not None and settings["ema_decay"] is not None:
        raise UserError(f"ema_decay is set, and {name} averages its parameters itself; set ema_decay=none")


def refuse_idle_decay(settings: Settings, network: NetworkSpec) -> None:
    """Raises UserError where weight decay is asked for, and every parameter that it would shrink is frozen.

    Something is trained, as `adapting.check_parts` has checked.
    """
    weight_decay = rule_numbers(settings, "optimizer").get("weight_decay")
    freeze = freeze_spec(settings)
    if not weight_decay or freeze == freezing.NOTHING:
        return
    pattern = settings["optimizer.decay_pattern"]
    shapes = dict(params=get_network(network).params, stats=get_network(network).stats)
    trained, _ = freezing.split_shapes(network, freeze, shapes)  # at last, the factors of adapters among them
    optimizers.build_decay_mask(trees.merge(shapes["params"], freezing.get_factors(network, freeze)), pattern)
    if not any(jax.tree.leaves(trees.mask_by_pattern(trained["params"], pattern))):
        first_path, *_ = trees.shapes_by_path(trained["params"])
        raise UserError(
            f"optimizer.weight_decay is {weight_decay}, and {adapting.freezing_text(settings)} freezes all that "
            f"optimizer.decay_pattern {pattern!r} matches, so that nothing decays; set optimizer.weight_decay=0, or a "
            f"pattern that matches what is trained, such as {trees.keys_text(first_path)}"
        )


def evaluates_average(settings: Settings) -> bool:
    """Whether an average of the parameters is evaluated: that of `ema_decay`, or the optimizer's own."""
    return settings["ema_decay"] is not None or averages_by_itself(settings)


def averages_by_itself(settings: Settings) -> bool:
    """Whether the optimizer keeps the average at which its network is evaluated."""
    return optimizers.get_optimizer(settings["optimizer.name"]).average is not None


def check_model(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError where the model does not take its keywords, images of this shape (H, W, C), or their mask."""
    height, width, channels = image_shape
    network: Any = models.check(
        settings["model.name"],
        model_keywords(settings),
        num_classes=classes,
        channels=channels,
        image_size=(height, width),
    )
    if settings["data.fit"] == PAD_BATCH:
        models.refuse_unmasked(settings["model.name"])
        if hasattr(network, "refuse_mask"):
            network.refuse_mask(train=True)


def refuse_uneven(batch_size: int, parts: int, meaning: str) -> None:
    """Refuses a batch that cannot be cut into equal parts.

    Args:
        batch_size: rows of the batch.
        parts: how many parts there are to be.
        meaning: what the parts are, for the message.

    Raises:
        UserError: with the nearest sizes that can be cut.
    """
    if batch_size % parts:
        size_below = batch_size // parts * parts
        sizes = f"{size_below} or {size_below + parts}" if size_below else f"{parts}"
        raise UserError(f"data.batch_size of {batch_size} does not divide by {parts} ({meaning}); make it {sizes}")


def count_macs(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> int:
    """Counts the multiply-accumulates of the model's forward pass for one image (H, W, C)."""
    height, width, channels = image_shape
    description = table.describe(
        settings["model.name"], (height, width), num_classes=classes, channels=channels, **model_keywords(settings)
    )
    return description.macs


def model_keywords(settings: Settings) -> dict[str, Any]:
    """Returns the keywords that the settings give to the model; where it is cut is one of them.

    Raises:
        UserError: `model.cut` and `pretrained.cut` say it differently.
    """
    keywords = {key: value for key, value in settings.section("model").items() if key != "name"}
    cut = settings["pretrained.cut"]
    if cut is None:
        return keywords
    if keywords.get("cut", cut) != cut:
        raise UserError(f"model.cut is {keywords['cut']}, and pretrained.cut {cut}; set one of them")
    return {**keywords, "cut": cut}


def network_spec(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> NetworkSpec:
    """Returns what the settings' network is and how its scores are read."""
    return NetworkSpec(
        model=settings["model.name"],
        keywords=tuple(sorted(model_keywords(settings).items())),
        num_classes=classes,
        image_shape=image_shape,
        dtype=settings["dtype"],
        loss=rule_spec(settings, "loss", examples=None),
    )


def rule_spec(settings: Settings, section: str, *, examples: int | None) -> RuleSpec:
    """Returns the optimizer, the schedule or the loss of the settings, with the keywords that shape its program.

    Args:
        settings: final settings.
        section: "optimizer", "schedule" or "loss".
        examples: of the training split, for durations; None for a section that has none.
    """
    name = settings[f"{section}.name"]
    options = {}
    for keyword, row in read_rule(section, name).keys.items():
        key = f"{section}.{keyword}"
        value = settings[key]
        if is_number(row, value):
            continue
        if row.kind == "duration":
            value = steps_of(settings, key, value, examples)
        elif row.kind == "durations":
            value = tuple(steps_of(settings, key, amount, examples) for amount in value)
        options[keyword] = value
    return RuleSpec(name, tuple(sorted(options.items())))


def rule_numbers(settings: Settings, section: str) -> dict[str, float]:
    """Returns the numbers of the optimizer, the schedule or the loss by keyword, which are arguments of the step."""
    numbers = {}
    for keyword, row in read_rule(section, settings[f"{section}.name"]).keys.items():
        value = settings[f"{section}.{keyword}"]
        if is_number(row, value):
            numbers[keyword] = value
    return numbers


def is_number(row: Key, value: Any) -> bool:
    """Whether the value of a keyword is an argument of the step. One that is unset, `none`, shapes the program."""
    return row.kind == "float" and value is not None


def check_schedule(settings: Settings, *, examples: int) -> None:
    """Raises UserError where the schedule does not fit into a run over so many training examples."""
    schedules.build_schedule(
        rule_spec(settings, "schedule", examples=examples),
        rule_numbers(settings, "schedule"),
        total=run_times(settings, examples=examples).total,
        warmup=steps_of(settings, "schedule.warmup", settings["schedule.warmup"], examples),
    )


def steps_of(settings: Settings, key: str, amount: Any, examples: int | None) -> int:
    """Converts a duration of the settings to steps."""
    return count_steps(amount, examples=examples or 0, batch=settings["data.batch_size"], key=key)


@dataclass(frozen=True)
class RunTimes:
    """How long a run is, and at which of its steps it does what.

    Attributes:
        total: length of the run in steps.
        log: at which steps measures are logged.
        evaluate: at which steps the validation split is evaluated.
        checkpoint: at which steps the state is saved.
    """

    total: int
    log: Every
    evaluate: Every
    checkpoint: Every

    def evaluation_from(self, step: int) -> int:
        """The first step from `step` on at which the validation split is evaluated: at the last step it always is."""
        return min(self.evaluate.next_step(step), self.total)


def run_times(settings: Settings, *, examples: int) -> RunTimes:
    """Converts the durations of a run to steps, for so many training examples."""
    sizes = {"examples": examples, "batch": settings["data.batch_size"]}
    return RunTimes(
        total=max(1, count_steps(settings["duration"], key="duration", **sizes)),
        log=Every(settings["log_every"], key="log_every", **sizes),
        evaluate=Every(settings["evaluate_every"], key="evaluate_every", **sizes),
        checkpoint=Every(settings["checkpoint_every"], key="checkpoint_every", **sizes),
    )


def rung_steps(settings: Settings, examples: int, first: str, eta: int) -> tuple[int, ...]:
    """Returns the steps at which the rungs of successive halving end, ascending; the last is the end of the run.

    Counted from the last, each rung is an eta-th of the one above it, down to the last that is not shorter than
    `first`. A rung ends at an evaluation, which decides who goes on: its step is moved up to the first one at which the
    validation split is evaluated, and rungs that fall on one step are one. Jamieson & Talwalkar, Non-stochastic Best
    Arm Identification and Hyperparameter Optimization, AISTATS 2016, arXiv:1502.07943.

    Args:
        settings: of a run.
        examples: of its training split.
        first: the shortest that the first rung may be, a duration such as "1 epochs".
        eta: how many times longer each rung is than the one below it, at least 2.

    Raises:
        UserError: eta is below 2, `first` is not a duration or longer than the run, or no rung ends before the run.
    """
    if eta < 2:
        raise UserError(f"halving.eta={eta} makes no rung longer than the one before; make it at least 2, such as 3")
    sizes = {"examples": examples, "batch": settings["data.batch_size"]}
    try:
        shortest = durations.exact_steps(first, **sizes)
    except ValueError as error:
        raise UserError(f"halving.first: {error}; write it with its unit, such as '1 epochs' or '200 steps'") from error
    times = run_times(settings, examples=examples)
    duration = settings["duration"]
    length = durations.exact_steps(duration, **sizes)
    if shortest <= 0:
        raise UserError(f"halving.first of {first} trains nothing; make it longer than 0, such as '1 epochs'")
    if shortest > length:
        raise UserError(
            f"halving.first of {first} is longer than the run, whose duration is {duration}; make it shorter"
        )
    ends = set()
    while length >= shortest:
        ends.add(times.evaluation_from(math.ceil(length)))
        length /= eta
    if len(ends) == 1:
        raise UserError(
            f"no rung ends before the run: duration is {duration}, halving.first {first}, halving.eta {eta} and "
            f"evaluate_every {settings['evaluate_every']}; make halving.first shorter, or evaluate more often"
        )
    return tuple(sorted(ends))


def step_spec(settings: Settings, network: NetworkSpec, *, examples: int) -> StepSpec:
    """Returns the static part of the compiled step, for so many training examples."""
    schedule = ScheduleSpec(
        rule=rule_spec(settings, "schedule", examples=examples),
        total=run_times(settings, examples=examples).total,
        warmup=steps_of(settings, "schedule.warmup", settings["schedule.warmup"], examples),
    )
    return StepSpec(
        network=network,
        augment=augment.operation_names(settings["data.augment"]),
        optimizer=rule_spec(settings, "optimizer", examples=examples),
        clip=settings["optimizer.clip"] is not None,
        decay_pattern=settings["optimizer.decay_pattern"],
        accumulate=settings["optimizer.accumulate"],
        ema=settings["ema_decay"] is not None,
        schedule=schedule,
        freeze=freeze_spec(settings, stage=0),
        rates=adapting.rates_spec(settings),
    )


def hyperparameters(
    settings: Settings, preprocessing: dict[str, Any], *, labels: np.ndarray, classes: int
) -> dict[str, Any]:
    """Returns what may differ between runs that share a compilation: float32 arrays and the key of all randomness.

    Args:
        settings: final settings.
        preprocessing: of the run; its mean and std are read.
        labels: (N,) of the training split, for the weights of the classes.
        classes: K.
    """
    numbers = {
        "learning_rate": settings["optimizer.learning_rate"],
        "clip": settings["optimizer.clip"] or 1.0,  # read only where clipping is on
        "ema_decay": settings["ema_decay"] or 0.0,  # read only where there is a moving average
        "smoothing": settings["loss.smoothing"],
    }
    arrays: dict[str, Any] = {name: np.float32(number) for name, number in numbers.items()}
    for section in ("optimizer", "schedule", "loss"):
        rule = rule_numbers(settings, section)
        arrays[section] = {name: np.float32(number) for name, number in rule.items()}
    arrays["augment"] = [
        [np.float32(number) for number in operation]
        for operation in augment.operation_numbers(settings["data.augment"])
    ]
    for name in ("mean", "std"):
        arrays[name] = np.asarray(preprocessing[name], np.float32)
    arrays["rates"] = adapting.rate_numbers(settings)
    arrays["lora_scale"] = np.float32(1.0) if settings["pretrained.lora"] is None else adapting.lora_scale(settings)
    if settings["loss.class_weight"] == "none":
        arrays["class_weight"] = np.ones(classes, np.float32)
    else:
        arrays["class_weight"] = losses.balanced_class_weights(labels, classes)
    arrays["key"] = stream.key(settings["seed"])  # the step derives every other key from it
    return arrays
