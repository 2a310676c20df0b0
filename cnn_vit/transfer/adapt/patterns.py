"""Patterns: the texts by which settings name a part of a network's parameters.

    all                       every parameter
    stem, stages/0..1         what lies below `stem`, `stages/0` and `stages/1`
    blocks/0..3/attention     the attention of four blocks
    stages/2..                the third stage and all behind it
    all but head              the rest

A pattern is `all`, prefixes behind `all but`, or prefixes alone, with commas between them. A prefix is the beginning of
a parameter's path in whole components; a component may be a range of indices, whose ends are meant too, and which may
have no end. Each prefix must match something, and no two may match the same parameter: a pattern that does less or more
than it seems to is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cnn_vit.errors import UserError, nearest
from cnn_vit.trees import keys_text

INDEX = "0|[1-9][0-9]{0,8}"  # as Python writes it; no list is longer
ENDLESS = 10**9  # the end of a range that has none: larger than any INDEX
COMPLEMENT = re.compile(r"all\s+but\b(.*)", re.DOTALL)

Component = str | int | range


@dataclass(frozen=True)
class Prefix:
    """The beginning of a path.

    Attributes:
        text: "blocks/0..3/attention".
        components: the same, ("blocks", range(0, 4), "attention").
    """

    text: str
    components: tuple[Component, ...]

    def matches(self, path: tuple) -> bool:
        """Whether a path begins so."""
        if len(path) < len(self.components):
            return False
        pairs = zip(self.components, path, strict=False)  # the path may go on
        return all(matches_key(component, key) for component, key in pairs)


@dataclass(frozen=True)
class Pattern:
    """A text, parsed.

    Attributes:
        setting: "pretrained.freeze='all but head'", which messages begin with.
        prefixes: what the text names.
        is_complement: whether everything but the prefixes is meant.
    """

    setting: str
    prefixes: tuple[Prefix, ...]
    is_complement: bool

    def matches(self, path: tuple) -> bool:
        """Whether the pattern means the parameter at a path, which need not be one of those it was checked against."""
        return any(prefix.matches(path) for prefix in self.prefixes) != self.is_complement


def parse(text: str, *, setting: str) -> Pattern:
    """Parses a pattern.

    Args:
        text: "all but head".
        setting: the name of the setting that the text stands in, for messages.

    Raises:
        UserError: an empty prefix, `all` among prefixes, or a range that runs backwards.
    """
    setting_and_text = f"{setting}={text!r}"
    stripped = text.strip()
    if stripped == "all":
        return Pattern(setting_and_text, (), is_complement=True)
    complement = COMPLEMENT.fullmatch(stripped)
    listed = stripped if complement is None else complement[1]
    prefixes = tuple(parse_prefix(words.strip(), setting_and_text) for words in listed.split(","))
    return Pattern(setting_and_text, prefixes, is_complement=complement is not None)


def parse_prefix(text: str, setting_and_text: str) -> Prefix:
    """Parses what stands between two commas; `setting_and_text` begins a message."""
    if text == "all" or COMPLEMENT.fullmatch(text):
        raise UserError(
            f"{setting_and_text}: {text!r} cannot stand among other parts; write all, all but PART, PART, or PART, PART"
        )
    words = text.split("/")
    if not all(words):
        raise UserError(
            f"{setting_and_text}: {text!r} is no part of a network; "
            "write paths such as head or stages/0..1 with commas between them, or all but head"
        )
    components: list[Component] = []
    for word in words:
        bounds = re.fullmatch(rf"({INDEX})\.\.({INDEX})?", word)
        if bounds:
            first, last = int(bounds[1]), int(bounds[2] or ENDLESS)
            if first > last:
                raise UserError(f"{setting_and_text}: the range {word} runs backwards; write {last}..{first}")
            components.append(range(first, last + 1))
        elif re.fullmatch(INDEX, word):
            components.append(int(word))
        else:
            components.append(word)
    return Prefix(text, tuple(components))


def matches_key(component: Component, key: str | int) -> bool:
    """Whether a component means a key of a tree: a name, the index of a list, or one in a range of them."""
    if isinstance(component, range):
        return isinstance(key, int) and key in component
    return component == key


def find_matches(pattern: Pattern, paths: Iterable[tuple]) -> set[tuple]:
    """Returns those paths that a pattern means.

    Args:
        pattern: of `parse`.
        paths: of all parameters of a network, ("stages", 0, "blocks", 0, "conv1", "kernel").

    Raises:
        UserError: a prefix, or an end of a range, that no path has; or two prefixes of the same path.
    """
    paths = list(paths)
    for prefix in pattern.prefixes:
        require_match(prefix, paths, pattern.setting)
    for path in paths:
        matching = [prefix.text for prefix in pattern.prefixes if prefix.matches(path)]
        if len(matching) > 1:
            raise UserError(
                f"{pattern.setting}: {matching[0]!r} and {matching[1]!r} both name {keys_text(path)}; "
                "name each parameter once"
            )
    return {path for path in paths if pattern.matches(path)}


def require_match(prefix: Prefix, paths: list[tuple], setting_and_text: str) -> None:
    """Raises UserError for a prefix that no path has; the sentence names the component that fails, and the choices.

    Both ends of a range must be there, where it has two. What lies between them need not: a layer without parameters
    has no path.
    """
    words = prefix.text.split("/")
    branches = paths  # the paths that begin as the prefix does, so far
    for depth, component in enumerate(prefix.components):
        keys = {path[depth] for path in branches if len(path) > depth}
        ends: list[str | int] = []
        if isinstance(component, range):
            ends = [end for end in (component[0], component[-1]) if end != ENDLESS]
        else:
            ends = [component]
        for end in ends:
            if end not in keys:
                raise no_such_prefix(words[:depth], end, keys, setting_and_text)
        branches = [path for path in branches if len(path) > depth and matches_key(component, path[depth])]


def no_such_prefix(parent: list[str], key: str | int, keys: set, setting_and_text: str) -> UserError:
    """Makes the error for a key that is not among the keys below `parent`."""
    parent_text = "/".join(parent)
    missing = "/".join([*parent, str(key)])
    if not keys:
        return UserError(f"{setting_and_text}: there is no {missing}; {parent_text} is a parameter itself")
    if all(isinstance(choice, int) for choice in keys):
        choices = f"{parent_text} has {min(keys)}..{max(keys)}"
        return UserError(f"{setting_and_text}: there is no {missing}; {choices}, and a range is written 0..1")
    near = nearest(str(key), keys)
    if near:
        suggestions = " or ".join("/".join([*parent, choice]) for choice in near)
        return UserError(f"{setting_and_text}: there is no {missing}; did you mean {suggestions}?")
    place = f"{parent_text} has" if parent else "this network has"
    return UserError(f"{setting_and_text}: there is no {missing}; {place} {', '.join(sorted(keys))}")
