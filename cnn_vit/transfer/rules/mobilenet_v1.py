"""Names of MobileNets: those of Keras (keras.applications.MobileNet), which writes them in three ways."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from cnn_vit.transfer.rules import ConversionRule, Guess, Shapes, name_variant
from cnn_vit.transfer.table import KERAS_BATCH_NORM, KERAS_CONV, KERAS_DEPTHWISE, Leaf, Row

# Keras writes the head as a convolution of one pixel.
KERAS_HEAD = (Leaf("/kernel", "/kernel", "i o", "1 1 i o"), Leaf("/bias", "/bias"))
TABLE = (
    Row("stem", "conv1", KERAS_CONV),
    Row("stem_norm", "conv1_bn", KERAS_BATCH_NORM),
    # Keras numbers the blocks through all stages.
    Row("stages/{s}/blocks/{b}/depthwise", "conv_dw_{#+1}", KERAS_DEPTHWISE),
    Row("stages/{s}/blocks/{b}/depthwise_norm", "conv_dw_{#+1}_bn", KERAS_BATCH_NORM),
    Row("stages/{s}/blocks/{b}/pointwise", "conv_pw_{#+1}", KERAS_CONV),
    Row("stages/{s}/blocks/{b}/pointwise_norm", "conv_pw_{#+1}_bn", KERAS_BATCH_NORM),
    Row("head", "conv_preds", KERAS_HEAD),
)


KERAS_3_DEPTHWISE = (replace(KERAS_DEPTHWISE[0], theirs="/kernel"),)


def rename_depthwise(row: Row) -> Row:
    """Names a depthwise kernel as Keras 3 does."""
    return replace(row, leaves=KERAS_3_DEPTHWISE) if row.leaves is KERAS_DEPTHWISE else row


def nest(row: Row) -> Row:
    """Names a layer as Keras 2 does in HDF5, as a group in a group of the same name: "conv1/conv1/kernel:0"."""
    leaves = tuple(replace(leaf, theirs=f"{leaf.theirs}:0") for leaf in row.leaves)
    return replace(row, theirs=f"{row.theirs}/{row.theirs}", leaves=leaves)


def guess(shapes: Shapes, keywords: dict[str, Any], *, stem: str, head: str) -> Guess:
    """Reads the width multiplier from the filters of the first convolution, which are 32 at a width of 1."""
    channels, filters = shapes[stem][-2:]
    num_classes = shapes[head][-1]
    multiplier = filters / 32
    model, left_over = name_variant("mobilenet_v1", {"width_multiplier": multiplier}, otherwise="1.0")
    reason = f"{filters} filters in conv1 where the full width has 32: a width multiplier of {multiplier:g}"
    return Guess(model, num_classes, channels, None, (reason,), left_over)


def make_rule(program: str, table: Iterable[Row], signs: tuple[str, str, str, str]) -> ConversionRule:
    """Makes a rule of Keras.

    Args:
        program: its name for people.
        table: names and axes.
        signs: the kernels of the first convolution, of a depthwise, a pointwise one and of the head.
    """
    return ConversionRule(
        family="mobilenet_v1",
        source=program,
        version=1,
        table=tuple(table),
        signs=signs,
        guess=partial(guess, stem=signs[0], head=signs[-1]),
        first_kernel="stem/kernel",
        # keras.applications.imagenet_utils, mode "tf": pixels / 127.5 - 1. Google trained and measured them with the
        # middle 0.875 of an image (tf-slim's preprocessing of Inception), resized bilinearly.
        preprocessing={
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        classes={1000: "ImageNet-1k"},
    )


RULES = (
    make_rule(
        "Keras 2, keras.applications.MobileNet as LAYER/WEIGHT",
        TABLE,
        ("conv1/kernel", "conv_dw_1/depthwise_kernel", "conv_pw_13/kernel", "conv_preds/kernel"),
    ),
    make_rule(
        "Keras 3, keras.applications.MobileNet as LAYER/WEIGHT",
        map(rename_depthwise, TABLE),
        ("conv1/kernel", "conv_dw_1/kernel", "conv_pw_13/kernel", "conv_preds/kernel"),
    ),
    make_rule(
        "Keras 2, keras.applications.MobileNet in HDF5",
        map(nest, TABLE),
        (
            "conv1/conv1/kernel:0",
            "conv_dw_1/conv_dw_1/depthwise_kernel:0",
            "conv_pw_13/conv_pw_13/kernel:0",
            "conv_preds/conv_preds/kernel:0",
        ),
    ),
)

# Weights by name, as `catalog` reads them: the files that keras.applications.MobileNet downloads, of whose bytes it
# knows no hash. The accuracies are those of the table in the documentation of tf.keras.applications.mobilenet (2.11),
# which it takes from the paper (Howard et al., arXiv:1704.04861).
WEIGHTS = {
    "mobilenet_v1/0.25@keras": {
        "address": "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_2_5_224_tf.h5",
        "sha256": None,
        "bytes": None,
        "megabytes": 1.9,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 50.6,
        "accuracy_size": 224,
        "source": "tf.keras.applications.mobilenet 2.11, documentation",
    },
    "mobilenet_v1/0.5@keras": {
        "address": "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_5_0_224_tf.h5",
        "sha256": None,
        "bytes": None,
        "megabytes": 5.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 63.7,
        "accuracy_size": 224,
        "source": "tf.keras.applications.mobilenet 2.11, documentation",
    },
    "mobilenet_v1/0.75@keras": {
        "address": "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_7_5_224_tf.h5",
        "sha256": None,
        "bytes": None,
        "megabytes": 10.4,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 68.4,
        "accuracy_size": 224,
        "source": "tf.keras.applications.mobilenet 2.11, documentation",
    },
    "mobilenet_v1/1.0@keras": {
        "address": "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/mobilenet_1_0_224_tf.h5",
        "sha256": None,
        "bytes": None,
        "megabytes": 17.0,
        "license": "Apache-2.0",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "image_size": [224, 224],
            "fit": "crop(0.875)",
            "interpolation": "bilinear",
        },
        "trained_on": "ImageNet-1k",
        "accuracy": 70.6,
        "accuracy_size": 224,
        "source": "tf.keras.applications.mobilenet 2.11, documentation",
    },
}
