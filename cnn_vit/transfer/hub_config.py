"""What Hugging Face's code writes beside its tensors: files of JSON with what no tensor tells.

`save_pretrained` puts all into one folder. In config.json stand heads, epsilon and the names of classes, in
preprocessor_config.json how images become the input. Both are read where they lie beside weights of that program, and
config.json says that it is of a network of this family.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError
from cnn_vit.settings.values import quote_value
from cnn_vit.transfer import class_names, preprocessing
from cnn_vit.transfer.rules import ConversionRule

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
MOST_BYTES = 2**24  # names of 21,843 classes are about 1 MB
KERNELS = {2: "bilinear", 3: "bicubic"}  # by their numbers in PIL
SQUASHED_FROM = 384  # pixels; larger images are not cropped where `shortest_edge` is said (ConvNextImageProcessor)
CROP_SHARE = 224 / 256  # of such a processor that says none


@dataclass(frozen=True)
class BesideFile:
    """What the files of JSON beside weights say.

    Attributes:
        keywords: of the model.
        image_size: height and width in pixels of the images that the network was built for.
        labels: the names of classes as they are written, by number; {} where none are said.
        preprocessing: how images become the input, with the keys of a card.
        reasons: the files that were read, for people.
        notes: what lies there and was not taken.
    """

    keywords: dict[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def choose_classes(self, num_classes: int) -> tuple[tuple[str, ...] | None, list[str]]:
        """Returns the names of the classes in the order of the scores, None where they say nothing, and a note why."""
        names = [self.labels.get(str(number)) for number in range(num_classes)]
        are_unnamed = any(isinstance(name, str) and name.startswith("LABEL_") for name in names)
        if are_unnamed or not self.labels:  # LABEL_0 is what is written where nobody named them
            return None, []
        if len(self.labels) != num_classes:
            fault = f"they are {len(self.labels):,}, and the network gives {num_classes:,} scores"
        else:
            fault = class_names.find_fault(names)
        if fault:
            return None, [f"names of classes in {CONFIG} are not taken: {fault}"]
        return class_names.strip(names), []


def read_beside(path: Path, rule: ConversionRule) -> BesideFile:
    """Reads the files of JSON beside weights; nothing where the rule's program writes none, or they are of others.

    Args:
        path: the file of weights.
        rule: that knows it.

    Raises:
        SurroundingsError: one cannot be read.
        UserError: one is no JSON, or too large to be one of these, or says what cannot be.
    """
    if rule.read_config is None:
        return BesideFile()
    config = read_object(path.parent / CONFIG)
    kind = config.get("model_type")
    if config and kind != rule.family:
        if "model_type" not in config:  # the settings of a run of ours have no such key
            return BesideFile()
        note = f"{CONFIG} beside it is of model_type {quote_value(kind)}, not {rule.family}, and was not read"
        return BesideFile(notes=(note,))
    preprocessor = read_object(path.parent / PREPROCESSOR)
    labels = config.get("id2label")
    names = [name for name, content in ((CONFIG, config), (PREPROCESSOR, preprocessor)) if content]
    return BesideFile(
        keywords=rule.read_config(config) if config else {},
        image_size=read_size(CONFIG, "image_size", config["image_size"]) if config.get("image_size") else None,
        labels=labels if isinstance(labels, dict) else {},
        preprocessing=read_preprocessing(preprocessor),
        reasons=tuple(f"{name} beside it, of Hugging Face's code" for name in names),
    )


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file of JSON with braces around; {} where there is none. Errors as of `read_beside`."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES:,} bytes; move it away if it is not of these weights")
    content = files.read_json(path)
    return content if isinstance(content, dict) else {}


# Values of these files ------------------------------------------------------------------------------------------------


def read_count(config: dict[str, Any], key: str) -> int:
    """Reads a whole number above 0; UserError for anything else."""
    if not preprocessing.is_whole(config[key]) or config[key] < 1:
        raise fault_error(CONFIG, key, config[key], "a whole number above 0")
    return config[key]


def read_positive(config: dict[str, Any], key: str) -> float:
    """Reads a finite number above 0; UserError for anything else."""
    if not is_positive(config[key]):
        raise fault_error(CONFIG, key, config[key], "a number above 0")
    return float(config[key])


def is_positive(value: Any) -> bool:
    """Whether a value is a finite number above 0; one that no float holds is none."""
    return preprocessing.are_numbers([value], 1, positive=True)


def read_size(file: str, key: str, size: Any) -> tuple[int, int]:
    """Reads height and width in pixels: a side, a list of both, or what they are called."""
    if isinstance(size, dict) and size.keys() >= {"height", "width"}:
        size = [size["height"], size["width"]]
    height_and_width = size if isinstance(size, list) else [size, size]
    if not preprocessing.is_image_size(height_and_width):
        raise fault_error(file, key, size, f"a side in pixels up to {preprocessing.LARGEST_SIDE}, or height and width")
    return height_and_width[0], height_and_width[1]


def fault_error(file: str, key: str, value: Any, expected: str) -> UserError:
    """Makes the error for a value that cannot be."""
    return UserError(
        f"{key} is {quote_value(value)} in the {file} beside the weights, expected {expected}; mend that file, or move "
        "it away and say what it should"
    )


# How images become the input ------------------------------------------------------------------------------------------


def read_preprocessing(processor: dict[str, Any]) -> dict[str, Any]:
    """Reads mean, std, image size, fit and interpolation, with the keys of a card, as far as they are said.

    Values of pixels are multiplied by `rescale_factor`, and then normalized; a card says mean and std of values in
    0..1. Errors as of `read_beside`.
    """
    found: dict[str, Any] = {}

    def read(key: str, is_right: Callable[[Any], bool], expected: str) -> Any:
        value = processor.get(key)
        if value is not None and not is_right(value):
            raise fault_error(PREPROCESSOR, key, value, expected)
        return value

    def read_flag(key: str, otherwise: bool) -> bool:
        value = read(key, lambda value: isinstance(value, bool), "true or false")
        return otherwise if value is None else value

    def are_channels(value: Any, *, positive: bool) -> bool:
        counts = (1, 3) if isinstance(value, list) else ()
        return any(preprocessing.are_numbers(value, count, positive=positive) for count in counts)

    mean = read("image_mean", lambda value: are_channels(value, positive=False), "a number for each channel")
    std = read("image_std", lambda value: are_channels(value, positive=True), "a number above 0 for each channel")
    factor = read("rescale_factor", is_positive, "a number above 0")
    if (mean is None) != (std is None):
        raise UserError(f"the {PREPROCESSOR} beside the weights says one of image_mean and image_std; write both")
    if not read_flag("do_normalize", otherwise=True):
        channels = 3 if mean is None else len(mean)
        mean, std = [0.0] * channels, [1.0] * channels
    if mean is not None and std is not None:
        highest = 1.0 if factor is None else 255 * factor  # what white is in front of mean and std
        if not read_flag("do_rescale", otherwise=True):
            highest = 255.0
        if not math.isclose(highest, 1, rel_tol=1e-6):
            mean, std = [number / highest for number in mean], [number / highest for number in std]
        found["mean"], found["std"] = [float(number) for number in mean], [float(number) for number in std]
    kernel = read("resample", lambda value: value in tuple(KERNELS) and preprocessing.is_whole(value), "2 or 3")
    share = read("crop_pct", lambda value: is_positive(value) and 0.01 <= value <= 1, "a share from 0.01 to 1")
    if not read_flag("do_resize", otherwise=True):
        return found
    if kernel is not None:
        found["interpolation"] = KERNELS[kernel]
    is_cropped = read_flag("do_center_crop", otherwise=False)
    return found | read_fit(processor, share, is_cropped=is_cropped)


def read_fit(processor: dict[str, Any], share: float | None, *, is_cropped: bool) -> dict[str, Any]:
    """Reads how images are brought to which size.

    Where the middle of a size is cut out, theirs squashes images to that size first (DeiTImageProcessor), and ours
    keeps their shape.

    Args:
        processor: what the file says.
        share: of the side that is cut out, where it is said.
        is_cropped: whether `crop_size` is cut out of `size`.
    """
    size = processor.get("size")
    if size is None:
        return {}
    is_edge = isinstance(size, dict) and "shortest_edge" in size
    if is_edge:
        size = size["shortest_edge"]
    height, width = read_size(PREPROCESSOR, "size", size)
    crop = processor.get("crop_size")
    if is_cropped and crop is None:
        return {}
    if is_cropped:
        inner_height, inner_width = read_size(PREPROCESSOR, "crop_size", crop)
        if not 0.01 <= inner_height / height <= 1:
            raise fault_error(PREPROCESSOR, "crop_size", crop, f"1 to 100 % of the size, {height}")
        return {"image_size": [inner_height, inner_width], "fit": f"crop({inner_height / height})"}
    fit = "stretch"
    if (is_edge or share is not None) and height < SQUASHED_FROM:
        fit = f"crop({float(CROP_SHARE if share is None else share)})"
    return {"image_size": [height, width], "fit": fit}
