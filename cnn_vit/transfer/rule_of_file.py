"""The conversion rule that a file of somebody's own rules gives for a checkpoint and a network.

Its lines become the rows of the same tables as those of the families (`table.py`), so that all that is said of these
holds: both directions, an error for whatever is left over, no number that is computed with.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from cnn_vit import models
from cnn_vit.errors import UserError, nearest, printable_name
from cnn_vit.nn.values import functional
from cnn_vit.transfer import axes
from cnn_vit.transfer.matching import shapes_by_text
from cnn_vit.transfer.rules import ConversionRule, Guess, Shapes
from cnn_vit.transfer.rules_file import OURS, TORCH, RulesFile, RulesLine
from cnn_vit.transfer.table import TORCH_COUNTER, TORCH_OPTIMIZER, Leaf, Pair, Row, pair_names

HEAD = "head/kernel"
# Axes of theirs and of ours by the layout, the number of axes of one of ours, and whether there are several of ours.
KERNEL_AXES = {
    (TORCH, 2, False): ("o i", "i o"),
    (TORCH, 2, True): ("(s o) i", "s i o"),
    (TORCH, 4, False): ("o i h w", "h w i o"),
    (OURS, 2, True): ("i (s o)", "s i o"),
}
SEVERAL_VECTORS = ("(s o)", "s o")
# Keywords of a network that leave no trace in its arrays: those that a conversion takes from the model are named.
UNTOLD = {
    "vit": ("heads", "activation", "norm", "epsilon", "pool"),
    "cnn": ("stride", "padding", "pooling", "pool_size", "pool_last"),
    "lenet": ("activation", "pooling"),
    "mlp": ("activation",),
}
# What leaves no trace either, and is the same in all networks of a family, whatever the checkpoint's network has.
FIXED = {"cnn": "activation=relu, behind batch norms (where there are some), which add epsilon=1e-05 to the variance"}


def make_rule(
    file: RulesFile,
    shapes: Shapes,
    *,
    model: str,
    keywords: Mapping[str, Any],
    image_size: tuple[int, int] | None = None,
) -> ConversionRule:
    """Makes the rule of a file for a checkpoint and a network.

    Args:
        file: the rules.
        shapes: of the checkpoint's arrays, by their whole names.
        model: name of the network.
        keywords: of the network.
        image_size: height and width in pixels, where it is said.

    Raises:
        UserError: a line fits no array of ours or of theirs, or its axes do not fit them.
    """
    inner = {name.removeprefix(file.prefix): shape for name, shape in shapes.items() if name.startswith(file.prefix)}
    if not inner:
        example = printable_name(next(iter(shapes), ""))
        raise UserError(f"{file.path}: no array begins with the prefix {file.prefix!r}; their names are as {example}")
    size = image_size or default_size(model, keywords)
    colored = network_shapes(model, keywords, channels=3, image_size=size)
    gray = network_shapes(model, keywords, channels=1, image_size=size)
    table = []
    for line in file.lines:
        row, pairs = make_row(file, line, colored)
        check_pairs(file, line, row, pairs, inner, colored)
        table.append(complete_row(row, pairs[0], inner))
    refuse_double(file, table, (colored, gray))
    first_kernel = next(path for path in colored if colored[path] != gray[path])
    require_paths(file, table, colored, (HEAD, first_kernel))
    family = models.resolve(model).family

    def guess(shapes: Shapes, said: dict[str, Any]) -> Guess:
        """Reads classes, colors and image from the arrays that the rules name."""
        pairs, _ = pair_names(table, list(colored))
        seen = Seen(pairs, shapes, colored)
        channels = seen.channels(first_kernel, gray)
        return Guess(
            model=model,
            num_classes=seen.size(HEAD, -1),
            channels=channels,
            image_size=image_size or seen.image_size(model, said),
            reasons=list_reasons(file, table, model, family, said),
        )

    names = [pair.theirs for row in table for pair in pair_names([row], list(colored))[0][:1]]
    return ConversionRule(
        family=family,
        source=file.path.name,
        version=1,
        table=tuple(table),
        signs=(names[0],),
        guess=guess,
        first_kernel=first_kernel,
        prefixes=(file.prefix,),
        dropped=(TORCH_COUNTER, TORCH_OPTIMIZER, *file.dropped),
    )


def list_reasons(
    file: RulesFile, table: Sequence[Row], model: str, family: str, said: Mapping[str, Any]
) -> tuple[str, ...]:
    """Says whose rules they are, and what the model's name says because no array can."""
    reasons = [f"{len(table)} lines of {file.path.name}"]
    defaults = models.read_keywords(model)
    assumed = [f"{key}={defaults[key].default}" for key in UNTOLD.get(family, ()) if key not in said]
    if assumed:
        reasons.append(f"no array tells, and the name {model} says: {', '.join(assumed)}")
    if family in FIXED:
        reasons.append(f"no array tells, and every {family}/* has: {FIXED[family]}")
    return tuple(reasons)


def default_size(model: str, keywords: Mapping[str, Any]) -> tuple[int, int]:
    """Returns an image size that the network takes: its own, or four patches a side."""
    patch = keywords.get("patch", models.variant(model).keywords.get("patch"))
    if isinstance(patch, int) and patch > 0:
        return 4 * patch, 4 * patch
    return models.height_and_width(models.keywords(model)["image_size"].default)


def network_shapes(
    model: str, keywords: Mapping[str, Any], *, channels: int, image_size: tuple[int, int]
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a network of two classes by path."""
    network = models.build(model, 2, **keywords, channels=channels, image_size=image_size)
    return shapes_by_text(functional(network))


def make_row(file: RulesFile, line: RulesLine, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Row, list[Pair]]:
    """Makes the row of a line, and the pairs that it gives in our network.

    Raises:
        UserError: it names nothing of ours, or its axes do not fit.
    """
    beginning = common_beginning(line.ours)
    suffixes = tuple(path[len(beginning) :] for path in line.ours)
    suffix: str | tuple[str, ...] = suffixes if len(suffixes) > 1 else suffixes[0]
    row = Row(beginning, line.theirs, (Leaf(suffix, "", line.our_axes, line.their_axes, line.sizes),))
    pairs, _ = pair_names([row], list(shapes))
    for path in (path for pair in pairs for path in pair.ours):
        if path not in shapes:
            refuse_path(file, line, path, shapes)
    if not pairs:
        refuse_path(file, line, line.ours[0], shapes)
    if not line.our_axes:
        path = pairs[0].ours[0]
        their_axes, our_axes = axes_of_layout(file, line, path.rpartition("/")[2], len(shapes[path]))
        row = Row(beginning, line.theirs, (Leaf(suffix, "", our_axes, their_axes, line.sizes),))
        pairs, _ = pair_names([row], list(shapes))
    return row, pairs


def common_beginning(paths: Sequence[str]) -> str:
    """Returns what paths begin with, up to a slash; one path is not cut."""
    if len(paths) == 1:
        return paths[0]
    end = 0
    while len({path[: end + 1] for path in paths}) == 1:
        end += 1
    return paths[0][: paths[0].rfind("/", 0, end) + 1]


def refuse_path(file: RulesFile, line: RulesLine, path: str, shapes: Mapping[str, tuple[int, ...]]) -> NoReturn:
    """Raises UserError for a path that the network does not have."""
    choices = list(dict.fromkeys(re.sub(r"(?<=/)\d+(?=/)", "{i}", choice) for choice in shapes))
    near = nearest(re.sub(r"\{\w+(\+\d+)?\}", "{i}", path), choices)
    hint = f"did you mean {' or '.join(near)}?" if near else "`cnn-vit describe MODEL` lists its arrays"
    raise file.fault(line, f"the network has no array {printable_name(path)}; {hint}")


def axes_of_layout(file: RulesFile, line: RulesLine, name: str, count: int) -> tuple[str, str]:
    """Returns the axes of theirs and of ours by the file's layout; empty ones where they are the same."""
    several = len(line.ours) > 1
    if several and count == 1:
        return SEVERAL_VECTORS
    if name != "kernel" or (file.layout == OURS and not several):
        return "", ""
    if file.layout is None:
        raise file.fault(
            line,
            f'nothing says the axes of {printable_name(line.theirs)}; add a line layout = "torch" or layout = '
            '"ours" at the top of the file, or axes = "o i -> i o" to this line',
        )
    known = KERNEL_AXES.get((file.layout, count, several))
    if known is None:
        raise file.fault(line, f'nothing says the axes of {printable_name(line.theirs)}; add axes = "... -> ..."')
    return known


def check_pairs(
    file: RulesFile,
    line: RulesLine,
    row: Row,
    pairs: Sequence[Pair],
    theirs: Shapes,
    ours: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises UserError where a line fits no array of the checkpoint, or arrays with other numbers of axes."""
    names = [pair.theirs for pair in pairs if pair.theirs in theirs]
    if not names:
        near = nearest(pairs[0].theirs, list(theirs)[:1000])
        hint = f"did you mean {' or '.join(map(printable_name, near))}?" if near else "take the line out"
        raise file.fault(line, f"no array is called {printable_name(pairs[0].theirs)}; {hint}")
    leaf = row.leaves[0]
    shape, our_shape = theirs[names[0]], ours[pairs[0].ours[0]]
    if not leaf.our_axes:
        if len(shape) != len(our_shape):
            raise file.fault(
                line,
                f"{printable_name(names[0])} {shape} has {len(shape)} axes and {pairs[0].ours[0]} {our_shape} has "
                f'{len(our_shape)}; say which is which, such as axes = "1 t d -> t d"',
            )
        return
    counts = (len(axes.split_layout(leaf.their_axes)), len(axes.split_layout(leaf.our_axes)))
    expected = (len(shape), len(our_shape) + (1 if len(line.ours) > 1 else 0))
    if counts != expected:
        stacked = f" and {len(line.ours)} of them" if len(line.ours) > 1 else ""
        raise file.fault(
            line,
            f'the axes "{leaf.their_axes} -> {leaf.our_axes}" are {counts[0]} and {counts[1]}; '
            f"{printable_name(names[0])} {shape} has {expected[0]}, and {pairs[0].ours[0]} {our_shape}{stacked} "
            f'{expected[1]}; add axes = "theirs -> ours" with a letter for each',
        )


def complete_row(row: Row, pair: Pair, theirs: Shapes) -> Row:
    """Returns a row that knows the sizes of letters which only their array tells: heads, of (width, heads, head)."""
    leaf = row.leaves[0]
    shape = theirs.get(pair.theirs)
    if not leaf.our_axes or shape is None:
        return row
    bracketed = {letter for letters in axes.split_layout(leaf.our_axes) if len(letters) > 1 for letter in letters}
    known = dict(leaf.known)
    for letters, size in zip(axes.split_layout(leaf.their_axes), shape, strict=True):
        if len(letters) == 1 and letters[0] in bracketed:
            known.setdefault(letters[0], size)
    return Row(row.ours, row.theirs, (Leaf(leaf.ours, leaf.theirs, leaf.our_axes, leaf.their_axes, known),))


def refuse_double(file: RulesFile, table: Sequence[Row], by_colors: Sequence[Mapping[str, tuple[int, ...]]]) -> None:
    """Raises UserError where two lines name the same array of ours or of theirs, or a letter has no size that fits.

    Args:
        file: the rules.
        table: of its lines.
        by_colors: shapes of a network for images in color, and for gray ones.
    """
    shapes = by_colors[0]
    lines_by_name: dict[tuple[str, str], RulesLine] = {}
    for line, row in zip(file.lines, table, strict=True):
        for pair in pair_names([row], list(shapes))[0]:
            refuse_sizes(file, line, pair, [other[pair.ours[0]] for other in by_colors])
            for side, name in [("ours", path) for path in pair.ours] + [("theirs", pair.theirs)]:
                first = lines_by_name.setdefault((side, name), line)
                if first is not line:
                    raise file.fault(
                        line, f"line {first.number} names {printable_name(name)} too; take one of them out"
                    )


def refuse_sizes(file: RulesFile, line: RulesLine, pair: Pair, our_shapes: Sequence[tuple[int, ...]]) -> None:
    """Raises UserError where the sizes of letters fit none of the shapes that our array may have."""
    first_error: ValueError | None = None
    for shape in our_shapes:
        try:
            pair.their_shape(shape)
        except ValueError as error:
            first_error = first_error or error
        else:
            return
    hint = "give sizes = { ... } in this line, or --image_size"
    raise file.fault(line, f"{first_error}; {hint}") from first_error


def require_paths(
    file: RulesFile, table: Sequence[Row], shapes: Mapping[str, tuple[int, ...]], paths: Sequence[str]
) -> None:
    """Raises UserError where no line names an array that tells the classes or the colors of the network."""
    pairs, _ = pair_names(table, list(shapes))
    named = {path for pair in pairs for path in pair.ours}
    for path in paths:
        if path not in named:
            raise UserError(f"{file.path} has no line for {path}, whose shape tells the network; add one")


@dataclass(frozen=True)
class Seen:
    """What the arrays that the rules name say of a network.

    Attributes:
        pairs: which is which.
        theirs: shapes of the checkpoint's arrays.
        ours: shapes of a network with other classes, colors and images, and the same numbers of axes.
    """

    pairs: Sequence[Pair]
    theirs: Shapes
    ours: Mapping[str, tuple[int, ...]]

    def size(self, path: str, axis: int) -> int:
        """Returns the size of an axis of ours in the checkpoint.

        Raises:
            LookupError: no array of the checkpoint is this one of ours.
        """
        pair = next(pair for pair in self.pairs if path in pair.ours) if self.has(path) else None
        if pair is None:
            raise LookupError(path)
        shape = self.theirs[pair.theirs]
        if not pair.our_axes:
            return shape[axis]
        letters = axes.split_layout(pair.our_axes)[axis]
        known = dict(pair.letters)
        if len(pair.ours) == 1:
            for ours, size in zip(axes.split_layout(pair.our_axes), self.ours[path], strict=True):
                if len(ours) == 1:
                    known.setdefault(ours[0], size)
        sizes: dict[str, int] = {}
        for theirs, size in zip(axes.split_layout(pair.their_axes), shape, strict=True):
            if len(theirs) == 1:
                sizes[theirs[0]] = size
        for theirs, size in zip(axes.split_layout(pair.their_axes), shape, strict=True):
            unknown = [letter for letter in theirs if letter in letters and letter not in sizes]
            if len(unknown) == 1:
                sizes[unknown[0]] = size // math.prod(known[letter] for letter in theirs if letter != unknown[0])
        return math.prod(sizes[letter] for letter in letters)

    def has(self, path: str) -> bool:
        """Whether the rules name an array of the checkpoint for a path."""
        return any(path in pair.ours and pair.theirs in self.theirs for pair in self.pairs)

    def channels(self, first_kernel: str, gray: Mapping[str, tuple[int, ...]]) -> int:
        """Returns the colors of an image: what the axis of the first kernel that depends on them says."""
        colored, plain = self.ours[first_kernel], gray[first_kernel]
        for axis, (three, one) in enumerate(zip(colored, plain, strict=True)):
            if three != one:
                return max(self.size(first_kernel, axis) // one, 1)
        return 3

    def image_size(self, model: str, keywords: Mapping[str, Any]) -> tuple[int, int] | None:
        """Returns height and width where positions tell them, for a square image; else None.

        Raises:
            UserError: the positions are not those of a square image.
        """
        path, said = "pos_embed/embedding", {**models.variant(model).keywords, **keywords}
        if path not in self.ours or not self.has(path):
            return None
        patches = self.size(path, 0) - (self.ours[path][0] - 16)  # 4x4 patches stand in ours
        side = math.isqrt(max(patches, 0))
        if side * side != patches or side == 0:
            raise UserError(f"{patches} patches are not those of a square image; give --image_size=HEIGHT,WIDTH")
        return side * said["patch"], side * said["patch"]
