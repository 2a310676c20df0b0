"""From settings to what a step takes: names checked, the shape of the program, durations in steps, numbers as arrays.

`check` needs neither data nor device. What the data alone know (classes, image shape, number of examples) is given to
the others.
"""

from typing import Any, NamedTuple

import numpy as np

from cnn_vit import data, models
from cnn_vit.analysis import table
from cnn_vit.data import augment
from cnn_vit.data.base.padding import PAD_BATCH
from cnn_vit.data.feed import stream
from cnn_vit.data.sections import height_and_width
from cnn_vit.errors import UserError, unknown
from cnn_vit.settings import Every, Settings, steps
from cnn_vit.training import losses, optimizers, schedules
from cnn_vit.training.step import NetworkSpec, ScheduleSpec, StepSpec


def check(settings: Settings) -> None:
    """The second check: every name and keyword against the room that owns it, without the data and any device.

    Raises:
        UserError: the first thing wrong, with the nearest names.
    """
    section = settings.section("data")
    data.check(section)
    for key, known in (
        ("loss.name", losses.LOSSES),
        ("optimizer.name", optimizers.OPTIMIZERS),
        ("schedule.name", schedules.SCHEDULES),
    ):
        if settings[key] not in known:
            raise unknown(key.removesuffix(".name"), settings[key], known)
    if settings["optimizer.nesterov"] and settings["optimizer.name"] != "sgd":
        raise UserError(f"optimizer.nesterov is for sgd; set it to false for {settings['optimizer.name']}")
    if settings["test_weights"] == "ema" and settings["ema_decay"] is None:
        raise UserError(
            "test_weights is ema, but nothing is averaged; set ema_decay, such as 0.999, or test_weights=last"
        )
    batch, accumulate = settings["data.batch_size"], settings["optimizer.accumulate"]
    refuse_uneven(batch, accumulate, "optimizer.accumulate")
    about = data.about(section)
    if about.num_classes and about.image_shape:
        check_model(settings, classes=about.num_classes, image_shape=about.image_shape)
    else:
        models.resolve(settings["model.name"])
        if settings["data.fit"] == PAD_BATCH:
            models.refuse_unmasked(settings["model.name"])
            if sides := height_and_width(section["image_size"]):  # classes and colors have no part in what takes a mask
                check_model(settings, classes=about.num_classes or 2, image_shape=(*sides, section["channels"] or 3))


def check_model(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError where the model does not take its keywords, images of this shape (H, W, C), or their fit."""
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


def macs(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> int:
    """Products added up that the model takes for one image (H, W, C), forward."""
    height, width, channels = image_shape
    return table.describe(
        settings["model.name"], (height, width), num_classes=classes, channels=channels, **model_keywords(settings)
    ).macs


def refuse_uneven(batch: int, parts: int, what: str) -> None:
    """Raises UserError, with the nearest sizes, where a batch cannot be cut into equal parts."""
    if batch % parts:
        near = [size for size in (batch // parts * parts, (batch // parts + 1) * parts) if size]
        raise UserError(
            f"data.batch_size of {batch} does not divide by {parts} ({what}); make it {' or '.join(map(str, near))}"
        )


def model_keywords(settings: Settings) -> dict[str, Any]:
    """Keywords given to the model."""
    return {key: value for key, value in settings.section("model").items() if key != "name"}


def network_spec(settings: Settings, *, classes: int, image_shape: tuple[int, int, int]) -> NetworkSpec:
    """The network and how its scores are read."""
    return NetworkSpec(
        model=settings["model.name"],
        keywords=tuple(sorted(model_keywords(settings).items())),
        num_classes=classes,
        image_shape=image_shape,
        dtype=settings["dtype"],
        loss=settings["loss.name"],
    )


class RunTimes(NamedTuple):
    """When what happens, in steps.

    Attributes:
        total: length of the run.
        log, evaluate, checkpoint: what fires every so often.
    """

    total: int
    log: Every
    evaluate: Every
    checkpoint: Every


def run_times(settings: Settings, *, examples: int) -> RunTimes:
    """The run's durations, for so many training examples."""
    of = {"examples": examples, "batch": settings["data.batch_size"]}
    every = (Every(settings[key], key=key, **of) for key in ("log_every", "evaluate_every", "checkpoint_every"))
    return RunTimes(max(1, steps(settings["duration"], key="duration", **of)), *every)


def step_spec(settings: Settings, of: NetworkSpec, *, examples: int) -> StepSpec:
    """Everything that shapes the compiled step."""

    def in_steps(key: str, amount: Any) -> int:
        return steps(amount, examples=examples, batch=settings["data.batch_size"], key=key)

    return StepSpec(
        network=of,
        augment=augment.operation_names(settings["data.augment"]),
        optimizer=settings["optimizer.name"],
        nesterov=settings["optimizer.nesterov"],
        clip=settings["optimizer.clip"] is not None,
        decay_pattern=settings["optimizer.decay_pattern"],
        accumulate=settings["optimizer.accumulate"],
        ema=settings["ema_decay"] is not None,
        schedule=ScheduleSpec(
            name=settings["schedule.name"],
            total=run_times(settings, examples=examples).total,
            warmup=in_steps("schedule.warmup", settings["schedule.warmup"]),
            boundaries=tuple(in_steps("schedule.boundaries", one) for one in settings["schedule.boundaries"]),
            factor=settings["schedule.factor"],
            timescale=in_steps("schedule.timescale", settings["schedule.timescale"]),
        ),
    )


def hyperparameters(
    settings: Settings, preprocessing: dict[str, Any], *, labels: np.ndarray, classes: int
) -> dict[str, Any]:
    """What differs between runs that share a compilation: float32 arrays, and the key that all chance follows from.

    The labels (N,) are those of the training split, for the weights of the classes.
    """
    rule = ("learning_rate", "weight_decay", "momentum", "b1", "b2", "epsilon")
    found: dict[str, Any] = {name: settings[f"optimizer.{name}"] for name in rule}
    found["clip"] = settings["optimizer.clip"] or 1.0  # read only where clipping is on
    found["ema_decay"] = settings["ema_decay"] or 0.0
    found["smoothing"] = settings["loss.smoothing"]
    arrays: dict[str, Any] = {name: np.float32(value) for name, value in found.items()}
    arrays["augment"] = [
        [np.float32(one) for one in given] for given in augment.operation_numbers(settings["data.augment"])
    ]
    arrays |= {name: np.asarray(preprocessing[name], np.float32) for name in ("mean", "std")}
    even = settings["loss.class_weight"] == "none"
    arrays["class_weight"] = np.ones(classes, np.float32) if even else losses.balanced_class_weights(labels, classes)
    return arrays | {"key": stream.key(settings["seed"])}
