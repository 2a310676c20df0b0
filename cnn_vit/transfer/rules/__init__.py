"""Rules: how the weights of each family of models are named elsewhere. One file a family, found by its name.

A file ends with a tuple `RULES`, one rule for each program that publishes weights of the family. A rule is a two-way
table of names and axes, and what is known of the program: the names by which its files are recognised, the keywords
that its networks have, how images became their input, and files that it published.
"""

import functools
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnn_vit import models
from cnn_vit.transfer.table import Row

Shapes = Mapping[str, tuple[int, ...]]  # the shape of each array of a file by its name, without the shared prefix

# Mean and standard deviation of ImageNet's red, green and blue in 0..1, as torchvision and most of timm have them.
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Guess:
    """What the shapes of a file say of the network.

    Attributes:
        model: name of the network, "cifar_resnet/20".
        num_classes: K.
        channels: colors of an image.
        image_size: height and width in pixels that the shapes ask for; None where any will do.
        reasons: what was seen, each the end of a sentence: "3 blocks in layer1: 20 layers".
        keywords: keywords of the model that are not those of the name.
        unseen: keywords that no shape tells, with the values that fit: the user has to say one of them.
        tied: keywords that follow from one that no shape tells, by its name and value.
    """

    model: str
    num_classes: int
    channels: int
    image_size: tuple[int, int] | None
    reasons: tuple[str, ...]
    keywords: dict[str, Any] = field(default_factory=dict)
    unseen: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    tied: dict[str, dict[Any, dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedFile:
    """A file that somebody published, which is known again by its content.

    Attributes:
        sha256: of the file, in hexadecimal.
        facts: what the card's origin says of it: source, revision, licence, trained_on, accuracy.
        preprocessing: what is known of the file's images beside the rule's.
        keywords: keywords of the model that no shape tells.
        classes: whose names its scores have, a key of `class_names.KNOWN`.
    """

    sha256: str
    facts: dict[str, Any]
    preprocessing: dict[str, Any] = field(default_factory=dict)
    keywords: dict[str, Any] = field(default_factory=dict)
    classes: str | None = None


@dataclass(frozen=True)
class ConversionRule:
    """How one program names the weights of a family.

    Attributes:
        family: of models, "cifar_resnet".
        source: the program, for people.
        version: of the rule; one more where it gives other values for the same file.
        table: names and axes.
        signs: names, without the shared prefix, that each of its files has and no other program's.
        guess: what the shapes of a file say of the network, beside the keywords that are given; `image_size` is among
            them, (height, width), where somebody says it.
        first_kernel: path of the kernel whose last but one axis are the colors of the image.
        prefixes: what all names of a file may begin with: "", or what wraps the network in the program.
        targets: what `cnn-vit convert --to` calls the program; () for those that `source` names
            (`backwards.targets_of`).
        dropped: patterns of names that no computation needs; everything else that is left over is an error.
        keywords: keywords that every network of the program has.
        preprocessing: how the program's images become the input, with the keys of a card.
        classes: whose names the scores have, by their number: {1000: "ImageNet-1k"}.
        published: files that are known.
        letters: keywords of the model that are sizes of letters of the layouts, by letter: {"a": "heads"}.
        refused: patterns of names that our networks have no layer for, each with what it means for people.
        read_config: reads keywords of the model from what Hugging Face's code writes beside its tensors; None where the
            program writes nothing.
    """

    family: str
    source: str
    version: int
    table: tuple[Row, ...]
    signs: tuple[str, ...]
    guess: Callable[[Shapes, dict[str, Any]], Guess]
    first_kernel: str
    prefixes: tuple[str, ...] = ("",)
    targets: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    published: tuple[PublishedFile, ...] = ()
    letters: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    read_config: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    def find_published(self, sha256: str) -> PublishedFile | None:
        """Returns the published file with this content, if it is one."""
        for file in self.published:
            if file.sha256 == sha256:
                return file
        return None

    def find_letters(self, model: str, keywords: Mapping[str, Any]) -> dict[str, int]:
        """Returns the sizes of letters of the layouts for a network of this name and these keywords.

        Raises:
            UserError: there is no such network.
        """
        if not self.letters:
            return {}
        known = {key: keyword.default for key, keyword in models.read_keywords(model).items()} | dict(keywords)
        return {letter: known[keyword] for letter, keyword in self.letters.items()}


def families() -> list[str]:
    """Lists the families that have rules: the files of this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


@functools.cache
def all_rules() -> tuple[ConversionRule, ...]:
    """Returns the rules of all families."""
    rules: list[ConversionRule] = []
    for family in families():
        rules += importlib.import_module(f"cnn_vit.transfer.rules.{family}").RULES
    return tuple(rules)


# What several rules guess by ------------------------------------------------------------------------------------------


def count_numbered(shapes: Shapes, template: str) -> int:
    """Counts how many of the names "layer1.0.weight", "layer1.1.weight" ... there are; {} stands for the number."""
    count = 0
    while template.format(count) in shapes:
        count += 1
    return count


def find_multiplier(filters: Sequence[int], widths: Sequence[int]) -> float:
    """Finds the width multiplier that gives the stages of a network their widths, which are rounded.

    Multiples of 0.05 come first, then those of 0.01: several may give the same widths, and so the same network.

    Args:
        filters: of each stage at the full width.
        widths: of the first stages of the network.

    Raises:
        ValueError: there is none.
    """
    for multiplier in (*(step / 20 for step in range(1, 101)), *(step / 100 for step in range(1, 501))):
        scaled = [models.round_filters(count * multiplier) for count in filters[: len(widths)]]
        if scaled == list(widths):
            return multiplier
    raise ValueError(f"no multiplier makes {list(widths)} of {list(filters)}")


def name_variant(family: str, keywords: dict[str, Any], *, otherwise: str) -> tuple[str, dict[str, Any]]:
    """Finds the name of a network by its keywords.

    Args:
        family: of models.
        keywords: keywords with their values, as the shapes tell them.
        otherwise: the variant or size whose name stands where none has just these values.

    Returns:
        The name, and the keywords that it does not say.
    """
    for variant in models.variants_of(family):
        if "patch" in keywords:  # stands behind a size, whose usual one is listed
            variant = re.sub(r"\d+$", str(keywords["patch"]), variant)
        name = f"{family}/{variant}"
        defaults = {key: keyword.default for key, keyword in models.read_keywords(name).items()}
        # `test` exists in every family, with sizes of its own that may change
        if variant != "test" and all(defaults[key] == value for key, value in keywords.items()):
            return name, {}
    name = f"{family}/{otherwise}"
    defaults = {key: keyword.default for key, keyword in models.read_keywords(name).items()}
    return name, {key: value for key, value in keywords.items() if defaults[key] != value}
