"""What Hugging Face's code writes beside its tensors: a file of JSON with what no tensor tells.

`save_pretrained` puts both into one folder. Heads, epsilon and the names of classes stand in it, and are read where it
lies beside the weights.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn_vit import files
from cnn_vit.errors import UserError

CONFIG = "config.json"
MOST_BYTES = 2**24  # names of 21,843 classes are about 1 MB


def read_beside(path: Path) -> dict[str, Any]:
    """Reads the file of JSON beside weights; {} where there is none, or one that says nothing of a network.

    Raises:
        SurroundingsError: it cannot be read.
        UserError: it is no JSON, or too large to be one of these.
    """
    config_path = path.parent / CONFIG
    if not config_path.is_file():
        return {}
    if config_path.stat().st_size > MOST_BYTES:
        raise UserError(f"{config_path} has more than {MOST_BYTES:,} bytes; move it away if it is not of {path.name}")
    config = files.read_json(config_path)
    if not isinstance(config, dict) or "model_type" not in config:  # the settings of a run of ours have no such key
        return {}
    return config


def read_classes(config: Mapping[str, Any], num_classes: int) -> tuple[str, ...] | None:
    """Returns the names of the classes in the order of the scores; None where none are said, or two are the same."""
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return None
    names = []
    for number in range(num_classes):
        name = labels.get(str(number))
        if not isinstance(name, str) or name.startswith("LABEL_"):  # what is written where nobody named them
            return None
        names.append(name)
    if len(labels) != num_classes or len(set(names)) < num_classes:
        return None
    return tuple(names)


def read_image_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Returns height and width of the images in pixels; None where they are not said."""
    size = config.get("image_size")
    height_and_width = [size, size] if isinstance(size, int) else size
    if not isinstance(height_and_width, list) or len(height_and_width) != 2:
        return None
    for number in height_and_width:
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            return None
    height, width = height_and_width
    return height, width
