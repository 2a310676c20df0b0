"""Scores the lines of a proposal against the arrays that they should give."""

import numpy as np

from cnn_vit.errors import UserError
from cnn_vit.transfer import rule_of_file, rules_file
from cnn_vit.transfer.suggesting.proposal import ProposedLine
from cnn_vit.transfer.suggesting.suggest import Suggestion
from cnn_vit.transfer.table import pair_names


def is_right(line: ProposedLine, theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> bool:
    """Whether a line gives our arrays, bit by bit.

    Args:
        line: of a proposal.
        theirs: the checkpoint's arrays by name, without the shared prefix.
        ours: what they are, by path.
    """
    their_axes, _, our_axes = line.axes.partition(" -> ")
    read = rules_file.RulesLine(1, line.theirs, rules_file.spread(line.ours), their_axes, our_axes, line.sizes)
    file = rules_file.RulesFile(rules_file.Path("proposal"), rules_file.OURS, "", (), (read,))
    shapes = {path: array.shape for path, array in ours.items()}
    try:
        row, pairs = rule_of_file.make_row(file, read, shapes)
    except UserError:
        return False
    row = rule_of_file.complete_row(row, pairs[0], {name: array.shape for name, array in theirs.items()})
    pairs, _ = pair_names([row], list(shapes))
    for pair in pairs:
        shape = shapes[pair.ours[0]]
        if pair.theirs not in theirs or pair.their_shape(shape) != theirs[pair.theirs].shape:
            return False
        given = pair.to_ours(theirs[pair.theirs], shape)
        if not all(np.array_equal(given[path], ours[path]) for path in pair.ours):
            return False
    return bool(pairs)


def wrong_lines(suggestion: Suggestion, theirs: dict[str, np.ndarray], ours: dict[str, np.ndarray]) -> dict[str, str]:
    """Returns what is guessed in each wrong line of a proposal by the line's name; "" for one that is marked sure."""
    prefix = suggestion.proposal.prefix
    inner = {name.removeprefix(prefix): array for name, array in theirs.items()}
    wrong = {}
    for line in suggestion.proposal.lines:
        if not is_right(line, inner, ours):
            wrong[line.theirs] = line.unknown
    return wrong
