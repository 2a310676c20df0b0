"""Weights: the values of a network, and the card that says what they are of.

A card is all that must travel with values: which network they fit, how images became its input when it was trained,
what its scores mean, and where the file came from. `save` and `load` keep both in one safetensors file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_vit import files, models, trees
from cnn_vit.errors import UserError, printable_name
from cnn_vit.nn.values import Network, functional
from cnn_vit.settings.values import as_plain, quote_value
from cnn_vit.transfer import preprocessing, readers

METADATA_KEY = "cnn_vit"  # of the card, in the metadata of a safetensors file
FORMAT = 1  # version of the card's form
MOST_IN_SENTENCE, MOST_LINES = 3, 100  # problems that an error lists: in its sentence, and on lines of their own


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


# Our own files --------------------------------------------------------------------------------------------------------


def save(path: str | Path, weights: Weights) -> None:
    """Writes weights as a safetensors file, whole or not at all.

    The tensors are called `params/stages/0/...` and `stats/...`; the card is JSON under the key "cnn_vit" of the file's
    metadata. Equal weights give equal bytes, and other programs read the file too.

    Raises:
        SurroundingsError: it cannot be written.
    """
    tensors = {}
    for part, tree in (("params", weights.params), ("stats", weights.stats)):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            tensors[f"{part}/{trees.path_text(keys)}"] = np.ascontiguousarray(leaf, np.dtype("<f4"))
    files.write(Path(path), encode_safetensors(tensors, {METADATA_KEY: card_text(weights.card)}))


def encode_safetensors(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> memoryview:
    """Returns the bytes of a safetensors file of float32 arrays.

    The format is that of https://github.com/huggingface/safetensors: the length of the header in 8 bytes, the header as
    JSON, and the arrays' bytes without gaps.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in tensors.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays begin at a multiple of 8 bytes
    content = bytearray(8 + len(text) + end)
    content[:8] = len(text).to_bytes(8, "little")
    content[8 : 8 + len(text)] = text
    data = memoryview(content)[8 + len(text) :]
    for name, array in tensors.items():
        begin, end = header[name]["data_offsets"]
        data[begin:end] = array.tobytes()
    return memoryview(content)


def load(path: str | Path) -> Weights:
    """Reads weights that `save` wrote.

    Raises:
        SurroundingsError: the file cannot be read.
        UserError: it is not such a file, or is damaged, or its card does not fit its arrays.
    """
    return from_named_arrays(path, readers.read(Path(path)))


def is_own(named: readers.NamedArrays) -> bool:
    """Whether a file that was read is one of ours: it has a card."""
    return METADATA_KEY in named.metadata


def from_named_arrays(path: str | Path, named: readers.NamedArrays) -> Weights:
    """Makes weights of a file of ours that was read; errors as of `load`."""
    if not is_own(named):
        raise UserError(
            f"{path} has no card of cnn_vit, so nothing says which network it fits; `cnn-vit convert {path} "
            "--model=NAME --out=FILE` makes a file that has one"
        )
    card = read_card(path, named.metadata[METADATA_KEY])
    network = network_of(card)
    expected = dict(params=network.params, stats=network.stats)
    problems = []
    arrays = {}
    for keys, shape in trees.shapes_by_path(expected).items():
        name = "/".join(map(str, keys))
        array = named.arrays.get(name)
        if array is None:
            problems.append(f"{name} is missing")
        elif array.shape != shape:
            problems.append(f"{name} has the shape {array.shape}, expected {shape}")
        elif array.dtype != np.float32:
            problems.append(f"{name} is {array.dtype}, expected float32")
        elif not np.isfinite(array).all():
            problems.append(f"{name} has numbers that are not finite")
        else:
            arrays[name] = array
    known = {"/".join(map(str, keys)) for keys in trees.shapes_by_path(expected)}
    for name in sorted(named.arrays.keys() - known):
        problems.append(f"{printable_name(name)} is not known")
    if problems:
        raise listed_error(f"{path} does not hold the {card.model} of its card", problems)
    values = jax.tree_util.tree_map_with_path(lambda keys, _: arrays[trees.path_text(keys)], expected)
    return Weights(values["params"], values["stats"], card)


def network_of(card: Card) -> Network:
    """Builds the network of a card as plain data: the shapes of its values, and the function of them.

    Raises:
        UserError: there is no such network.
    """
    changes = dict(card.keywords)
    if "image_size" in card.preprocessing:
        changes["image_size"] = tuple(card.preprocessing["image_size"])
    if "channels" in card.preprocessing:
        changes["channels"] = card.preprocessing["channels"]
    return functional(models.build(card.model, card.num_classes, **changes))


def listed_error(sentence: str, problems: Sequence[str]) -> UserError:
    """Makes an error that lists all problems: in its sentence if they are few, else a line each, up to MOST_LINES."""
    first = "; ".join(problems[:MOST_IN_SENTENCE])
    if len(problems) <= MOST_IN_SENTENCE:
        return UserError(f"{sentence}: {first}")
    lines = list(problems[:MOST_LINES])
    if len(problems) > MOST_LINES:
        lines.append(f"and {len(problems) - MOST_LINES:,} more")
    more = len(problems) - MOST_IN_SENTENCE
    return UserError(f"{sentence}: {first}; and {more:,} more", details=lines)


# The card as text -----------------------------------------------------------------------------------------------------


def card_text(card: Card) -> str:
    """Writes a card as JSON with sorted keys; `ValueError` where it holds something that is not JSON."""
    return json.dumps({"format": FORMAT, **asdict(card)}, sort_keys=True, allow_nan=False)


def read_card(path: str | Path, text: str) -> Card:
    """Reads a card from its text, and checks that it can be true.

    Args:
        path: the file that it stands in, for errors.
        text: what `card_text` wrote.

    Raises:
        UserError: it is not a card, or of a later version of the format, or contradicts itself.
    """
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise damaged_card_error(path, "it is not JSON with braces around")
    if facts.get("format") != FORMAT:
        version = quote_value(facts.get("format"))
        raise UserError(f"the card of {path} has format {version}, this cnn_vit reads {FORMAT}; update cnn_vit")
    kinds: dict[str, type | tuple] = {
        "model": str,
        "keywords": dict,
        "num_classes": int,
        "classes": (list, type(None)),
        "preprocessing": dict,
        "origin": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(facts.get(key), kind) or (kind is not dict and isinstance(facts[key], bool)):
            raise damaged_card_error(path, f"{key} is {quote_value(facts.get(key))}")
    keywords = {}
    for key, value in facts["keywords"].items():
        try:
            keywords[key] = as_plain(value)  # lists as tuples, as the keywords of models are
        except (ValueError, RecursionError):
            raise damaged_card_error(path, f"keywords/{key} is {quote_value(value)}") from None
    classes = None if facts["classes"] is None else tuple(facts["classes"])
    if classes is not None:
        are_texts = all(isinstance(name, str) for name in classes)
        if not are_texts or len(set(classes)) < len(classes) or len(classes) != facts["num_classes"]:
            raise damaged_card_error(
                path, f"classes are not the {facts['num_classes']:,} different names of its scores"
            )
    fault = preprocessing.find_fault(facts["preprocessing"])
    if fault:
        raise damaged_card_error(path, f"preprocessing/{fault}")
    return Card(facts["model"], keywords, facts["num_classes"], classes, facts["preprocessing"], facts["origin"])


def damaged_card_error(path: str | Path, cause: str) -> UserError:
    """Makes the error for a card that no version of cnn_vit wrote."""
    return UserError(f"the card of {path} is damaged: {cause}; get the file anew, or convert its source again")
