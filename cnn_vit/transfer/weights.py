"""Weights: the values of a network, and the card that says what they are of.

A card is all that must travel with values: which network they fit, how images became its input when it was trained,
what its scores mean, and where the file came from.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cnn_vit import trees


@dataclass(frozen=True)
class Card:
    """What is known of weights beside their values.

    Attributes:
        model: name of the network, "cifar_resnet/20".
        keywords: keywords of the model that are not those of the name, {"depth": 6}; without channels and image
            size.
        num_classes: K, the number of scores.
        classes: names of the classes in the order of the scores; None where nobody says them.
        preprocessing: how images become the network's input, with the keys of a run's preprocessing.json: mean and std
            of each channel (of values in 0..1), image_size (height, width), channels, fit, interpolation. A key that is
            missing is not known.
        origin: where the values come from, for people: file, sha256, revision, licence, rule (family and version), and
            what else the source says of them, such as `trained_on` and `accuracy`.
    """

    model: str
    keywords: dict[str, Any]
    num_classes: int
    classes: tuple[str, ...] | None
    preprocessing: dict[str, Any]
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """The values of a network with their card.

    Attributes:
        params, stats: NumPy float32 arrays, keyed as the network's attributes are.
        card: what they are of.
    """

    params: dict
    stats: dict
    card: Card

    @cached_property
    def digest(self) -> str:
        """The sha256, in hexadecimal, of paths, types, shapes and bits of all values."""
        return trees.digest(dict(params=self.params, stats=self.stats))
