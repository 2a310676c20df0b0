"""What is proposed for a checkpoint: a network, what is open, and lines of a file of rules, each sure or guessed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cnn_vit.transfer.suggesting.layers import BIAS, KERNEL, Layer, Shape

TORCH, OURS = "torch", "ours"
TABLE_BEGINS = "# A first table for"  # of a file of rules, by which it is known again
SQUARE = "a square matrix: nothing tells whether it is transposed; {} as the others of the file"


@dataclass(frozen=True)
class ProposedLine:
    """A line of a file of rules.

    Attributes:
        theirs: pattern of their names, without the prefix.
        ours: pattern of our paths.
        axes: "theirs -> ours"; "" for the same on both sides.
        sizes: of letters that no axis tells.
        unknown: what is guessed in the line; "" where it is sure.
    """

    theirs: str
    ours: str
    axes: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    unknown: str = ""


@dataclass(frozen=True)
class Proposal:
    """What a checkpoint may hold.

    Attributes:
        model: name of a network of ours, "vit/Ti4"; None where none is recognized.
        keywords: of the network, as the arrays tell them.
        choices: keywords that no array tells, with the values that fit.
        facts: what was recognized, each a sentence without its end.
        doubts: what stays open, each a sentence without its end.
        lines: of a file of rules.
        prefix: what all names begin with.
        image_size: height and width in pixels where they are told, for a square image.
        unplaced: names that no line has.
    """

    model: str | None
    keywords: dict[str, Any]
    choices: dict[str, tuple[Any, ...]]
    facts: tuple[str, ...]
    doubts: tuple[str, ...]
    lines: tuple[ProposedLine, ...]
    prefix: str = ""
    image_size: tuple[int, int] | None = None
    unplaced: tuple[str, ...] = ()

    @property
    def model_flags(self) -> list[str]:
        """The flags that say the network; a question mark stands for what the user has to say."""
        flags = [f"--model={self.model}"]
        flags += [f"--model.{key}={flag_text(value)}" for key, value in self.keywords.items()]
        return flags + [f"--model.{key}=?" for key in self.choices]


def flag_text(value: Any) -> str:
    """Writes a value as a flag takes it: "false", "16,32", "(16,)"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"({value[0]},)" if len(value) == 1 else ",".join(map(str, value))
    return str(value)


@dataclass(frozen=True)
class Placed:
    """A layer of theirs that is one of ours, or several.

    Attributes:
        layer: theirs.
        ours: path of ours, with {names,in,braces} where it is several.
        sizes: what goes in and comes out of one of ours.
        unknown: what is guessed; "" where it is sure.
    """

    layer: Layer
    ours: str
    sizes: tuple[int, int] = (0, 0)
    unknown: str = ""

    @property
    def several(self) -> int:
        """How many layers of ours it is."""
        match = re.search(r"\{(\w+(?:,\w+)+)\}", self.ours)
        return len(match[1].split(",")) if match else 1


def kernel_axes(placed: Placed, layout: str) -> tuple[str, str]:
    """Returns the axes of a matrix, and what is guessed in them: nothing unless it is square.

    Args:
        placed: the layer.
        layout: of the other matrices of the file, "torch" for (out, in) or "ours" for (in, out).
    """
    shape = placed.layer.kernel
    inputs, outputs = placed.sizes
    if len(shape) == 3:
        return head_axes(placed)
    whole = placed.several * outputs
    theirs, ours = ("(s o)", "s i o") if placed.several > 1 else ("o", "i o")
    transposed, plain = f"{theirs} i -> {ours}", f"i {theirs} -> {ours}"
    if shape == (whole, inputs) and whole != inputs:
        return transposed, ""
    if shape == (inputs, whole) and whole != inputs:
        return plain, ""
    if layout == TORCH:
        return transposed, SQUARE.format("(out, in)")
    return plain, SQUARE.format("(in, out)")


def head_axes(placed: Placed) -> tuple[str, str]:
    """Returns the axes of a kernel that has the heads in an axis of their own, and what is guessed in them."""
    shape = placed.layer.kernel
    inputs, outputs = placed.sizes
    doubt = "" if shape[0] != shape[-1] else "nothing tells which axis is the width"
    if placed.ours.endswith("out"):
        return "a e d -> (a e) d", doubt if shape[-1] == outputs else "which axes are the heads"
    return "d a e -> d (a e)", doubt if shape[0] == inputs else "which axes are the heads"


def find_layout(layers: Sequence[Layer]) -> tuple[str, str]:
    """Returns the layout of the matrices of a file, and what tells it.

    The bias of a layer has its outputs, so that it tells which axis of a matrix these are unless both are the same.
    """
    votes = {TORCH: 0, OURS: 0}
    for layer in layers:
        layout = layout_by_bias(layer)
        if layout is not None:
            votes[layout] += 1
    if votes[TORCH] and not votes[OURS]:
        return TORCH, f"{votes[TORCH]} matrices are (out, in), as their biases tell"
    if votes[OURS] and not votes[TORCH]:
        return OURS, f"{votes[OURS]} matrices are (in, out), as their biases tell"
    if votes[OURS]:
        return (TORCH if votes[TORCH] >= votes[OURS] else OURS), "some matrices are (out, in) and others (in, out)"
    names = [layer.names[KERNEL] for layer in layers if len(layer.kernel) == 2]
    is_torch = any(name.endswith("weight") for name in names)
    return (TORCH if is_torch else OURS), "no bias tells whether matrices are (out, in); names such as weight do"


def layout_by_bias(layer: Layer) -> str | None:
    """Returns the layout of a matrix that is not square and has a bias; else None."""
    shape, bias = layer.kernel, layer.shapes.get(BIAS, ())
    if len(shape) != 2 or len(bias) != 1 or shape[0] == shape[1]:
        return None
    if bias[0] == shape[0]:
        return TORCH
    return OURS if bias[0] == shape[1] else None


def lines_of(placed: Placed, rename: Any, layout: str, *, sure_kernel: str = "") -> list[ProposedLine]:
    """Returns the lines of a layer: one for each of its arrays.

    Args:
        placed: the layer.
        rename: makes the pattern of a name.
        layout: of the matrices of the file.
        sure_kernel: axes of the kernel where the caller knows them.
    """
    lines = []
    for role, name in placed.layer.names.items():
        axes, doubt = "", ""
        shape: Shape = placed.layer.shapes[role]
        if role == KERNEL:
            axes, doubt = (sure_kernel, "") if sure_kernel else kernel_axes(placed, layout)
        elif role == BIAS and placed.several > 1:
            axes = "(s o) -> s o"
        elif role == BIAS and len(shape) == 2:
            axes = "a e -> (a e)"
        unknown = "; ".join(text for text in (placed.unknown, doubt) if text)
        lines.append(ProposedLine(rename(name), f"{placed.ours}/{role}", axes, {}, unknown))
    return lines


# As a file of rules ---------------------------------------------------------------------------------------------------


def as_toml(proposal: Proposal, source: str) -> str:
    """Writes a proposal as a file of rules, with comments that say what is sure, guessed and open.

    Args:
        proposal: what is proposed.
        source: name of the checkpoint.
    """
    text = [f"{TABLE_BEGINS} {comment(source)}. Lines that are guessed have to be looked up where it comes from."]
    text += [f"# {comment(fact)}" for fact in proposal.facts]
    text += [f"# open: {comment(doubt)}" for doubt in proposal.doubts]
    if proposal.model is not None:
        text.append(f"# {comment(' '.join(proposal.model_flags))}")
    if proposal.prefix:
        text += ["", f"prefix = {quote(proposal.prefix)}"]
    text += ["", "[arrays]"]
    for line in proposal.lines:
        value = quote(line.ours)
        if line.axes:
            sizes = ", ".join(f"{letter} = {size}" for letter, size in line.sizes.items())
            sizes = f", sizes = {{ {sizes} }}" if sizes else ""
            value = f"{{ ours = {value}, axes = {quote(line.axes)}{sizes} }}"
        mark = f"guessed: {comment(line.unknown)}" if line.unknown else "sure"
        text.append(f"{quote(line.theirs)} = {value}  # {mark}")
    text += [f"# no place: {comment(name)}" for name in proposal.unplaced]
    return "\n".join(text) + "\n"


def quote(text: str) -> str:
    """Writes a text as TOML does between double quotes; what cannot be printed, by its number."""
    letters = []
    for letter in text:
        if letter in '"\\':
            letters.append(f"\\{letter}")
        elif letter.isprintable():
            letters.append(letter)
        else:
            letters.append(f"\\U{ord(letter):08x}")
    return f'"{"".join(letters)}"'


def comment(text: str) -> str:
    """Writes a text on one line, without characters that a comment of TOML may not have."""
    return " ".join(text.split()) if text.isprintable() else ascii(text)
