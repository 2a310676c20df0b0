"""Somebody's weights become ours: a file is recognized by its names and shapes, and a rule's table moves its arrays.

convert(path, ...)          a foreign file -> `Weights`
convert_file(path, ...)     the same, with what was recognized and why, for people
open_weights(source, ...)   one of our own files, or a foreign one

Every array of the file and every array of the network has its partner of the expected shape, or the file is refused;
all that does not fit is listed in one error. Nothing is guessed silently: what no shape tells is asked for.
"""

import copy
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn_vit import models, trees
from cnn_vit.errors import UserError, nearest, printable_name
from cnn_vit.nn.values import Network
from cnn_vit.transfer import class_names, readers, rules, weights
from cnn_vit.transfer.readers import NamedArrays
from cnn_vit.transfer.rules import ConversionRule, Guess, PublishedFile
from cnn_vit.transfer.table import Pair, pair_names
from cnn_vit.transfer.weights import Card, Weights, listed_error

# What programs put around a network when they save it, in front of the prefixes that a rule names.
WRAPPERS = ("state_dict.", "model_state_dict.", "model.", "net.")
LONGEST_WORD = 100  # characters of a name that is compared with others
MOST_COMPARED, MOST_CHOICES = 20, 1000  # names that are compared with so many others: it takes long
FLOATS = ("float16", "float32", "float64")  # bfloat16 is read as float32
RGB, BGR = "RGB", "BGR"


@dataclass(frozen=True)
class SourceFacts:
    """What a user says of a file; None is not said, and comes from the rule where that knows it.

    Attributes:
        mean, std: of each channel, in the unit of the file's own values.
        value_range: what black and white are for the file's network, before mean and std: (0, 255), (-1, 1).
        channel_order: of the file's network, "RGB" or "BGR".
        image_size: height and width in pixels.
        fit, interpolation: how images were brought to that size.
        classes: names in the order of the scores.
        licence: of the file.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    channel_order: str | None = None
    image_size: tuple[int, int] | None = None
    fit: str | None = None
    interpolation: str | None = None
    classes: tuple[str, ...] | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Group:
    """A part of our network and where it comes from.

    Attributes:
        ours: path, "stages/0".
        theirs: what their names begin with, with `*` behind it where there are several; else the first and the last.
        arrays: how many of ours.
        numbers: how many in them together.
    """

    ours: str
    theirs: str
    arrays: int
    numbers: int


@dataclass(frozen=True)
class Conversion:
    """Weights, and how they were made of a file.

    Attributes:
        weights: the values and their card.
        source: the program whose names they had.
        reasons: by what the file was recognized.
        notes: what was assumed, changed or left out.
        groups: the parts of the network.
    """

    weights: Weights
    source: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Recognized:
    """The rule that knows a file.

    Attributes:
        rule: the rule.
        prefix: what all names of the file begin with.
        missing: the rule's signs that the file does not have.
    """

    rule: ConversionRule
    prefix: str
    missing: tuple[str, ...] = ()


def open_weights(
    source: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    for_training: bool = False,
) -> Weights:
    """Opens one of our own files, or converts a foreign one.

    Args:
        source: path of the file.
        model: name of the network, where a foreign file does not tell it.
        keywords: keywords of the network, where a foreign file does not tell them.
        for_training: whether another network is to start from these values, whose keywords may be others: it may drop
            more at random, for example.

    Raises:
        SurroundingsError: the file cannot be read.
        UserError: it is damaged or unknown, does not fit the network, or is ours and of another network.
    """
    named = readers.read(Path(source))
    if not weights.is_own(named):
        return convert_arrays(source, named, model=model, keywords=keywords).weights
    opened = weights.from_named_arrays(source, named)
    if model not in (None, opened.card.model):
        raise UserError(f"{source} holds {opened.card.model}, not {model}; leave out the model, its card says it")
    for key, value in ({} if for_training else keywords or {}).items():
        if opened.card.keywords.get(key) != value:
            said = opened.card.keywords.get(key, "the model's own")
            raise UserError(f"{source} was made with model.{key} = {said}, not {value}; leave it out, its card says it")
    return opened


def convert(
    path: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
) -> Weights:
    """Makes weights of ours of a foreign file; the arguments are those of `convert_file`."""
    return convert_file(path, model=model, keywords=keywords, facts=facts).weights


def convert_file(
    path: str | Path,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
) -> Conversion:
    """Makes weights of ours of a foreign file, and says how.

    Args:
        path: the file.
        model: name of the network; None: as the shapes tell.
        keywords: keywords of the network that replace what the shapes tell.
        facts: what the user says of the file.

    Raises:
        SurroundingsError: the file cannot be read.
        UserError: it is damaged or ours already, no rule knows its names, or they do not fit the network.
    """
    named = readers.read(Path(path))
    if weights.is_own(named):
        raise UserError(f"{path} is a file of cnn_vit already; `cnn-vit evaluate --weights={path}` takes it as it is")
    return convert_arrays(path, named, model=model, keywords=keywords, facts=facts)


def convert_arrays(
    path: str | Path,
    named: NamedArrays,
    *,
    model: str | None = None,
    keywords: Mapping[str, Any] | None = None,
    facts: SourceFacts | None = None,
) -> Conversion:
    """Makes weights of ours of the arrays of a file that was read; the other arguments are those of `convert_file`."""
    facts = facts or SourceFacts()
    recognized = recognize(path, list(named.arrays), model)
    rule, prefix = recognized.rule, recognized.prefix
    published = rule.find_published(named.sha256) or PublishedFile(named.sha256, {})
    said = published.keywords | dict(keywords or {})
    guess = guess_network(path, recognized, named, said)
    model, keywords = choose_network(path, rule, guess, model, said)
    preprocessing, preprocessing_notes = make_preprocessing(rule, published, facts, guess, model)
    classes, class_notes = choose_classes(rule, published, facts, guess.num_classes)
    origin = make_origin(path, named, rule, published, facts)
    card = Card(model, keywords, guess.num_classes, classes, preprocessing, origin)

    network = weights.network_of(card)
    shapes = shapes_by_text(network)
    pairs, unnamed = pair_names(rule.table, list(shapes))
    matched = Matched(rule, prefix, named.arrays, shapes, pairs)
    problems = matched.find_problems(unnamed)
    if problems:
        sentence = f"{path} does not fit {describe_network(card)}, with the names of {rule.source}"
        if (model, keywords) != (guess.model, rule.keywords | guess.keywords | published.keywords):
            sentence += f" (its shapes tell {describe_model(guess.model, guess.keywords)})"
        raise listed_error(sentence, problems)
    arrays = matched.move_arrays()
    if facts.channel_order == BGR:
        arrays[rule.first_kernel] = reverse_colors(arrays[rule.first_kernel], guess.channels)
    return Conversion(
        weights=Weights(fill_tree(network.params, arrays), fill_tree(network.stats, arrays), card),
        source=rule.source,
        reasons=list_reasons(recognized, guess, published),
        notes=(*preprocessing_notes, *class_notes, *matched.notes(), *skipped_notes(named)),
        groups=group_pairs(pairs, prefix, arrays),
    )


def list_reasons(recognized: Recognized, guess: Guess, published: PublishedFile) -> tuple[str, ...]:
    """Says by what a file was recognized: its content where that is known, its names, its shapes."""
    reasons = [f"names such as {printable_name(recognized.prefix + recognized.rule.signs[0])}", *guess.reasons]
    if published.facts:
        reasons.insert(0, f"its sha256 is that of {published.facts['published_as']} of {published.facts['source']}")
    return tuple(reasons)


# Which rule -----------------------------------------------------------------------------------------------------------


def recognize(path: str | Path, names: Sequence[str], model: str | None) -> Recognized:
    """Finds the rule whose signs a file has.

    Args:
        path: the file, for errors.
        names: of its arrays.
        model: name of the network, whose family alone is looked at; None: all families.

    Raises:
        UserError: no rule knows the names, or several do.
    """
    candidates = rules.all_rules()
    if model is not None:
        family = models.resolve(model).family
        candidates = tuple(rule for rule in candidates if rule.family == family)
        if not candidates:
            known = ", ".join(rules.families())
            raise UserError(f"{model}: no rule converts weights of {family}; there are rules for {known}")
    fitting: list[Recognized] = []
    for rule in candidates:
        fitting += find_signs(rule, names)
    if not fitting:
        raise unknown_names_error(path, names, model)
    fewest = min(len(recognized.missing) for recognized in fitting)
    best = [recognized for recognized in fitting if len(recognized.missing) == fewest]
    sources = {f"{recognized.rule.family} ({recognized.rule.source})" for recognized in best}
    if len(sources) > 1:
        choices = " or ".join(sorted(sources))
        raise UserError(f"the names in {path} are those of {choices}; say which with --model=FAMILY/VARIANT")
    if len(best) > 1:
        prefixes = ", ".join(printable_name(recognized.prefix) or "no prefix" for recognized in best)
        raise UserError(
            f"{path} holds several networks, under {prefixes}; save the one that you mean to a file of its own"
        )
    refuse_prefix(path, best[0])
    return best[0]


def find_signs(rule: ConversionRule, names: Sequence[str]) -> list[Recognized]:
    """Looks for a rule's signs behind each prefix that occurs; more than half of them are enough to be recognized."""
    prefixes: dict[str, None] = {}  # in the order of the file
    for name in names:
        for sign in rule.signs:
            if name.endswith(sign):
                prefixes[name[: len(name) - len(sign)]] = None
    existing = set(names)
    fitting = []
    for prefix in prefixes:
        if prefix and not prefix.endswith((".", "/")):
            continue  # "fc1.weight" ends with "1.weight" and is something else
        missing = tuple(sign for sign in rule.signs if prefix + sign not in existing)
        if 2 * len(missing) < len(rule.signs):
            fitting.append(Recognized(rule, prefix, missing))
    return fitting


def refuse_prefix(path: str | Path, recognized: Recognized) -> None:
    """Raises UserError for names that begin with something that the rule's program does not put there."""
    rest = recognized.prefix
    for wrapper in WRAPPERS:
        rest = rest.removeprefix(wrapper)
    if rest not in recognized.rule.prefixes:
        expected = " or ".join(repr(prefix) if prefix else "without a prefix" for prefix in recognized.rule.prefixes)
        raise UserError(
            f"the names in {path} begin with '{printable_name(recognized.prefix)}', and those of "
            f"{recognized.rule.source} begin {expected.replace(' or ', ', or with ')}; it may be a part of a larger "
            "network: save that part without the prefix if it is the whole network that you mean"
        )


def unknown_names_error(path: str | Path, names: Sequence[str], model: str | None) -> UserError:
    """Makes the error for a file whose names no rule knows, or none of the family that is named."""
    if not names:
        return UserError(f"{path} holds no arrays; give a file of weights")
    if model is not None:
        for rule in rules.all_rules():
            if find_signs(rule, names):
                return UserError(f"the names in {path} are those of {rule.family} ({rule.source}), not of {model}")
    examples = ", ".join(printable_name(name) for name in names[:3])
    sources = ", ".join(f"{rule.family} ({rule.source})" for rule in rules.all_rules())
    return UserError(
        f"no rule knows the {len(names):,} names in {path}, such as {examples}; there are rules for {sources}"
    )


def guess_network(path: str | Path, recognized: Recognized, named: NamedArrays, keywords: dict[str, Any]) -> Guess:
    """Asks the rule what the shapes say of the network.

    Raises:
        UserError: an array that tells it is missing, or has another number of axes.
    """
    rule, prefix = recognized.rule, recognized.prefix
    shapes = {}
    for name, array in named.arrays.items():
        if name.startswith(prefix):
            shapes[name.removeprefix(prefix)] = array.shape
    try:
        return rule.guess(shapes, keywords)
    except (LookupError, ValueError, ZeroDivisionError) as error:
        problems = []
        for sign in recognized.missing:
            problems.append(f"{printable_name(prefix + sign)} is missing{did_you_mean(sign, list(shapes), prefix)}")
        for sign in rule.signs:
            if sign in shapes:
                problems.append(f"{printable_name(prefix + sign)} has the shape {shapes[sign]}")
        sentence = f"{path} has names of {rule.source}, but not the arrays and shapes that tell its network"
        raise listed_error(sentence, problems) from error


def choose_network(
    path: str | Path, rule: ConversionRule, guess: Guess, model: str | None, said: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Returns the network's name and its keywords: the name that is given, else as the shapes tell.

    Raises:
        UserError: there is no such network, or a keyword is needed that neither shapes nor the user tell.
    """
    if model is None:
        keywords = rule.keywords | guess.keywords | said
        refuse_unseen(path, rule, guess, keywords)
        return guess.model, keywords
    keywords = rule.keywords | said
    refuse_unseen(path, rule, guess, models.variant(model).keywords | keywords)
    return model, keywords


def refuse_unseen(path: str | Path, rule: ConversionRule, guess: Guess, keywords: Mapping[str, Any]) -> None:
    """Raises UserError where keywords are needed that no shape tells, and neither the user nor the model's name says.

    A name such as vit/S16 says the number of heads, and not the activation.
    """
    choices = []
    for key, values in guess.unseen.items():
        if keywords.get(key) not in values:
            choices.append(f"--model.{key}= one of {', '.join(map(str, values))}")
    if choices:
        raise UserError(
            f"{path} does not tell all of its network ({rule.source}), for no shape depends on it; look it up where "
            f"the file comes from and add {' and '.join(choices)}"
        )


def default_image_size(model: str) -> tuple[int, int]:
    """Returns the image size that a network has by default, (height, width)."""
    return models.height_and_width(models.keywords(model)["image_size"].default)


def describe_model(model: str, keywords: Mapping[str, Any]) -> str:
    """Names a model with its keywords: "vit/Ti4 width=64 depth=6"."""
    return " ".join([model, *(f"{key}={value}" for key, value in keywords.items())])


def describe_network(card: Card) -> str:
    """Names the network of a card with its keywords, classes and images."""
    height, width = card.preprocessing["image_size"]
    return f"{describe_model(card.model, card.keywords)} of {card.num_classes:,} classes and {height}x{width} pixels"


# Which array ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matched:
    """The arrays of a file beside those of the network.

    Attributes:
        rule: whose table gave the pairs.
        prefix: what all names of the file begin with.
        arrays: of the file, by name.
        shapes: of ours, by path as text.
        pairs: which is which.
    """

    rule: ConversionRule
    prefix: str
    arrays: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    pairs: Sequence[Pair]

    @cached_property
    def dropped(self) -> list[str]:
        """The names of the file that the rule drops."""
        dropped = []
        for name in self.arrays:
            inner = name.removeprefix(self.prefix)
            if any(re.fullmatch(pattern, inner) for pattern in self.rule.dropped):
                dropped.append(name)
        return dropped

    def find_problems(self, unnamed: Sequence[str]) -> list[str]:
        """Lists all that keeps the file from being the network, a line for each array.

        Args:
            unnamed: paths of ours that the table has no name for.
        """
        problems = [f"{self.rule.source} has nothing like {path} of this network" for path in unnamed]
        expected = {}
        for pair in self.pairs:
            expected[self.prefix + pair.theirs] = pair.their_shape(self.shapes[pair.ours[0]])
        missing = [name for name in expected if name not in self.arrays]
        paired_or_dropped = {*expected, *self.dropped}
        left_over = [name for name in self.arrays if name not in paired_or_dropped]
        for number, name in enumerate(missing):
            near = did_you_mean(name, left_over) if number < MOST_COMPARED else ""
            problems.append(f"{printable_name(name)} {expected[name]} is missing{near}")
        for number, name in enumerate(left_over):
            if not name.startswith(self.prefix):
                problems.append(
                    f"{printable_name(name)} does not begin with {printable_name(self.prefix)} as others do"
                )
                continue
            near = did_you_mean(name, missing) if number < MOST_COMPARED else ""
            problems.append(f"{printable_name(name)} {self.arrays[name].shape} is not known{near}")
        for pair in self.pairs:
            name = self.prefix + pair.theirs
            if name in self.arrays:
                problems += find_faults(name, self.arrays[name], expected[name], is_variance=is_variance(pair))
        return problems

    def move_arrays(self) -> dict[str, np.ndarray]:
        """Returns our arrays by path, in float32."""
        ours: dict[str, np.ndarray] = {}
        for pair in self.pairs:
            array = self.arrays[self.prefix + pair.theirs].astype(np.float32, copy=False)
            ours |= pair.to_ours(array, self.shapes[pair.ours[0]])
        return ours

    def notes(self) -> list[str]:
        """Says which arrays were rounded or widened to float32, and which were dropped."""
        notes = []
        counts = Counter(str(self.arrays[self.prefix + pair.theirs].dtype) for pair in self.pairs)
        for dtype, count in counts.items():
            if dtype != "float32":
                verb = "rounded" if dtype == "float64" else "widened"
                notes.append(f"{count:,} arrays of {dtype} were {verb} to float32")
        if self.dropped:
            names = Counter(re.split(r"[./]", name)[-1] for name in self.dropped)
            listed = ", ".join(f"{printable_name(name)} ({count:,})" for name, count in names.items())
            notes.append(f"dropped, since no score depends on them: {listed}")
        return notes


def is_variance(pair: Pair) -> bool:
    """Whether a pair is the running variance of a batch norm."""
    return pair.ours[0].endswith("/var")


def find_faults(name: str, array: np.ndarray, expected_shape: tuple[int, ...], *, is_variance: bool) -> list[str]:
    """Lists what is wrong with an array that is there: its shape, its type, numbers that give no scores."""
    printed = printable_name(name)
    if array.shape != expected_shape:
        return [f"{printed} has the shape {array.shape}, expected {expected_shape}"]
    if array.dtype.name not in FLOATS:
        return [f"{printed} is {array.dtype}; weights are floating point numbers of 16, 32 or 64 bits"]
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32, copy=False))
    if not finite.all():
        count = int(finite.size - np.count_nonzero(finite))
        return [f"{printed} has {count:,} of {finite.size:,} numbers that are not finite in float32"]
    if is_variance and array.min() < 0:
        return [f"{printed} has a variance below 0"]
    return []


def did_you_mean(name: str, choices: Sequence[str], prefix: str = "") -> str:
    """Returns the nearest of some names as a question in brackets, or ""; very long names are compared with none."""
    short = [choice for choice in choices[:MOST_CHOICES] if len(choice) <= LONGEST_WORD]
    near = nearest(name, short, most=1) if len(name) <= LONGEST_WORD else []
    return f" (is it {printable_name(prefix + near[0])}?)" if near else ""


def shapes_by_text(network: Network) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter and statistic of a network by its path as text."""
    shapes = {}
    for tree in (network.params, network.stats):
        for keys, shape in trees.shapes_by_path(tree).items():
            shapes["/".join(map(str, keys))] = shape
    return shapes


def fill_tree(tree: dict, arrays: Mapping[str, np.ndarray]) -> dict:
    """Puts arrays, by path as text, in the places of a tree of shapes."""
    return jax.tree_util.tree_map_with_path(lambda keys, _: arrays[trees.path_text(keys)], tree)


def group_pairs(pairs: Sequence[Pair], prefix: str, arrays: Mapping[str, np.ndarray]) -> tuple[Group, ...]:
    """Groups the arrays by the first words of our paths: a layer of the network itself, or an entry of its lists."""
    paths: dict[str, list[str]] = {}
    names: dict[str, list[str]] = {}
    for path in arrays:
        paths.setdefault(group_of(path), []).append(path)
    for pair in pairs:
        names.setdefault(group_of(pair.ours[0]), []).append(prefix + pair.theirs)
    groups = []
    for group, members in paths.items():
        numbers = sum(arrays[path].size for path in members)
        groups.append(Group(group, name_together(names[group]), len(members), numbers))
    return tuple(groups)


def group_of(path: str) -> str:
    """Returns the group of a path: "stages/0" of "stages/0/blocks/1/conv1/kernel", "stem" of "stem/kernel"."""
    first, *rest = path.split("/")
    return f"{first}/{rest[0]}" if rest and rest[0].isdigit() else first


def name_together(names: Sequence[str]) -> str:
    """Returns what some names begin with, up to a dot or slash, and `*` behind it; else the first and the last name."""
    if len(names) == 1:
        return names[0]
    words = [re.split(r"(?<=[./])", name) for name in names]  # each word with the dot or slash behind it
    shared: list[str] = []
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            return f"{''.join(shared)}*" if shared else f"{names[0]} ... {names[-1]}"
        shared.append(column[0])
    return "".join(shared)


def skipped_notes(named: NamedArrays) -> list[str]:
    """Says what the file holds beside arrays."""
    listed = [f"{printable_name(name)} ({why})" for name, why in list(named.skipped.items())[:5]]
    if len(named.skipped) > 5:
        listed.append(f"and {len(named.skipped) - 5:,} more")
    return [f"left out, for no network is made of them: {', '.join(listed)}"] if listed else []


# What the card says ---------------------------------------------------------------------------------------------------


def make_preprocessing(
    rule: ConversionRule, published: PublishedFile, facts: SourceFacts, guess: Guess, model: str
) -> tuple[dict[str, Any], list[str]]:
    """Says how images become the network's input, for images that are RGB in 0..1.

    A network that saw values from `low` to `high` saw `low + (high - low) x` of a pixel x in 0..1. So with mean m and
    standard deviation s in that unit it saw (x - (m - low) / (high - low)) / (s / (high - low)).

    Returns:
        The preprocessing, and notes on what was assumed.

    Raises:
        UserError: what the user says contradicts itself.
    """
    channels = guess.channels
    preprocessing = copy.deepcopy(rule.preprocessing | published.preprocessing)
    notes = []
    if preprocessing and not published.facts:
        notes.append(f"how images are prepared is taken from {rule.source}; --mean, --std ... say otherwise")
    if len(preprocessing.get("mean", [])) not in (0, channels):
        del preprocessing["mean"], preprocessing["std"]
    if guess.image_size is not None:
        preprocessing["image_size"] = list(guess.image_size)
    preprocessing.setdefault("image_size", list(default_image_size(model)))
    preprocessing["channels"] = channels
    said = {"image_size": facts.image_size, "fit": facts.fit, "interpolation": facts.interpolation}
    for key, value in said.items():
        if value is not None:
            preprocessing[key] = list(value) if isinstance(value, tuple) else value
    is_bgr = facts.channel_order == BGR
    if is_bgr and channels != 3:
        raise UserError(f"--channel_order=BGR orders three channels, and this network sees {channels}; leave it out")
    if (facts.mean is None) != (facts.std is None):
        raise UserError("--mean and --std belong together; give both")
    if facts.mean is None and facts.value_range is None:
        if is_bgr and len(set(preprocessing.get("mean", []))) > 1:
            raise UserError("--channel_order=BGR also orders mean and standard deviation; give --mean and --std too")
    else:
        low, high = facts.value_range or (0.0, 1.0)
        mean = facts.mean or (0.0,) * channels
        std = facts.std or (1.0,) * channels
        refuse_mean_and_std(mean, std, channels, low, high)
        order = -1 if is_bgr else 1
        preprocessing["mean"] = [(number - low) / (high - low) for number in mean][::order]
        preprocessing["std"] = [number / (high - low) for number in std][::order]
    if "mean" not in preprocessing:
        notes.append("mean and standard deviation are not known; give --mean and --std, or scores will mean little")
    return preprocessing, notes


def refuse_mean_and_std(mean: Sequence[float], std: Sequence[float], channels: int, low: float, high: float) -> None:
    """Raises UserError for a mean and std of another number of channels, or numbers that nothing can be divided by."""
    if len(mean) != channels or len(std) != channels:
        raise UserError(
            f"--mean has {len(mean)} and --std {len(std)} numbers, and this network sees {channels} channels; give one "
            "number for each"
        )
    if min(std) <= 0:
        raise UserError(f"--std={','.join(map(str, std))} must be above 0")
    if not low < high:
        raise UserError(f"--value_range={low:g},{high:g} must rise: black first, then white")


def reverse_colors(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Exchanges red and blue in a kernel (..., C, O): our network sees red first, where the file's saw blue.

    Raises:
        UserError: the kernel has the colors of all pixels in one axis.
    """
    if kernel.shape[-2] != channels:
        raise UserError("--channel_order=BGR cannot be worked into a network that sees flattened pixels; leave it out")
    return np.ascontiguousarray(kernel[..., ::-1, :])


def make_origin(
    path: str | Path, named: NamedArrays, rule: ConversionRule, published: PublishedFile, facts: SourceFacts
) -> dict[str, Any]:
    """Says where the values come from: the file, the rule, what is published of it, and what the user says of it."""
    origin: dict[str, Any] = {
        "file": Path(path).name,
        "sha256": named.sha256,
        "format": named.format,
        "rule": f"{rule.family}, version {rule.version}",
        "program": rule.source,
    }
    origin |= copy.deepcopy(published.facts)
    if facts.licence is not None:
        origin["licence"] = facts.licence
    if facts.channel_order is not None:  # both are worked into values and preprocessing, which no longer show them
        origin["channel_order"] = facts.channel_order
    if facts.value_range is not None:
        origin["value_range"] = list(facts.value_range)
    return origin


def choose_classes(
    rule: ConversionRule, published: PublishedFile, facts: SourceFacts, num_classes: int
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Returns the names of the classes, as far as anybody knows them, and a note where they are assumed.

    Raises:
        UserError: the user names another number of classes than the network scores.
    """
    if facts.classes is not None:
        if len(facts.classes) != num_classes:
            raise UserError(
                f"--class_names has {len(facts.classes):,} names, and the network gives {num_classes:,} scores"
            )
        return facts.classes, []
    if published.classes is not None:
        return class_names.KNOWN[published.classes](), []
    if num_classes in rule.classes:
        known = rule.classes[num_classes]
        note = f"{num_classes:,} scores are taken for the classes of {known}; --class_names=FILE says otherwise"
        return class_names.KNOWN[known](), [note]
    return None, ["nobody says what the classes are called; --class_names=FILE does"]


# And back -------------------------------------------------------------------------------------------------------------


def to_theirs(rule: ConversionRule, params: dict, stats: dict) -> dict[str, np.ndarray]:
    """Gives our arrays the names and axes of a rule's program: the other direction of its table.

    Raises:
        UserError: the program has nothing like one of our arrays.
    """
    arrays = {}
    for tree in (params, stats):
        for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[trees.path_text(keys)] = np.asarray(leaf)
    pairs, unnamed = pair_names(rule.table, list(arrays))
    if unnamed:
        problems = [f"{rule.source} has nothing like {path}" for path in unnamed]
        raise listed_error("this network cannot be written with those names", problems)
    return {pair.theirs: pair.to_theirs(arrays) for pair in pairs}
