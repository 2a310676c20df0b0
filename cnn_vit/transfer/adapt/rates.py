"""Which parameters learn faster or slower than others: multipliers by pattern, and how far each layer is from the head.

Layer-wise decay multiplies the learning rate of a parameter by decay^distance. The distances are those of BEiT (Bao et
al., arXiv:2106.08254, section 3.2): 0 for the head and what stands between the blocks and it, 1 for the last block, one
more for each block before it, and one more than that of the first block for what comes in front of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnn_vit.errors import UserError
from cnn_vit.transfer.adapt.patterns import find_matches, parse
from cnn_vit.trees import keys_text

MULTIPLIERS = "pretrained.multipliers"
BLOCKS = "blocks"  # the list of blocks in a stage
LARGEST = 1e6  # of a multiplier


@dataclass(frozen=True)
class Multiplier:
    """What the learning rate of a part of a network is multiplied by.

    Attributes:
        pattern: of the part, "stages/0..1".
        number: above 0.
    """

    pattern: str
    number: float


def parse_multipliers(texts: Sequence[str]) -> tuple[Multiplier, ...]:
    """Reads the setting, ("head=10", "stages/0..1=0.1").

    Raises:
        UserError: a text is no pattern and number, or the number is not above 0.
    """
    multipliers = []
    for text in texts:
        pattern, equals, number_text = text.rpartition("=")
        if not equals:
            raise UserError(
                f"{MULTIPLIERS} holds {text!r}, which has no number; write PATHS=NUMBER, such as head=10 or 'stem, "
                "stages/0=0.1', in quotes where there is a comma"
            )
        try:
            number = float(number_text)
        except ValueError:
            number = 0.0
        if not 0 < number <= LARGEST:
            raise UserError(
                f"{MULTIPLIERS} holds {text!r}; the number lies above 0 and is at most {LARGEST:.0e}, and what is not "
                "to be trained stands in pretrained.freeze"
            )
        parse(pattern, setting=MULTIPLIERS)
        multipliers.append(Multiplier(pattern.strip(), number))
    return tuple(multipliers)


def find_multiplied(patterns: Sequence[str], params: Iterable[tuple]) -> dict[tuple, int]:
    """Finds which parameter each pattern means: the index of its pattern by its path; parameters of none are not in it.

    Args:
        patterns: "head", "stages/0..1".
        params: paths of all parameters of a network.

    Raises:
        UserError: a pattern matches nothing, or two match the same parameter.
    """
    params = list(params)
    indices: dict[tuple, int] = {}
    for index, pattern in enumerate(patterns):
        matches = find_matches(parse(pattern, setting=MULTIPLIERS), params)
        for path in params:
            if path not in matches:
                continue
            if path in indices:
                raise UserError(
                    f"{MULTIPLIERS}: {patterns[indices[path]]!r} and {pattern!r} both name {keys_text(path)}; name "
                    "each parameter once"
                )
            indices[path] = index
    return indices


def find_distances(params: Iterable[tuple], calls: Sequence[str]) -> dict[tuple, int]:
    """Finds how far the layer of each parameter is from the head, as the module says; {} for a network without blocks.

    A block is an item of a list of the network, `blocks/3`, or, where the items of that have a list `blocks` of their
    own, an item of this, `stages/1/blocks/0`; what a stage has beside its blocks goes with the first of them. Blocks
    count in the order in which they are called. A parameter of the network itself, such as a class token, comes in
    front of the blocks.

    Args:
        params: paths of all parameters of a network.
        calls: the path of each layer that a forward pass calls, "stages/0/blocks/0/conv1", in the order of the calls.
    """
    params = list(params)
    first_call: dict[str, int] = {}
    for position, call in enumerate(calls):
        first_call.setdefault(call, position)
    called = {path: first_call.get(keys_text(path[:-1]), -1) for path in params}  # -1: of the network itself
    blocks = {path: find_block(path) for path in params}
    innermost = set(blocks.values()) - {()}
    for block in tuple(innermost):
        innermost -= {block[:depth] for depth in range(len(block))}  # a stage is no block where it has some
    begins: dict[tuple, int] = {}
    for path, block in blocks.items():
        if block in innermost:
            begins[block] = min(called[path], begins.get(block, len(calls)))
    order = sorted(begins, key=lambda block: begins[block])
    if not order:
        return {}
    distances = {}
    for path, block in blocks.items():
        if block:
            own = next(position for position, other in enumerate(order) if other[: len(block)] == block)
            distances[path] = len(order) - own
            continue
        behind = sum(begin > called[path] for begin in begins.values())  # blocks that come later
        distances[path] = behind + 1 if behind == len(order) else behind
    return distances


def find_block(path: tuple) -> tuple:
    """Returns the path of the block that a parameter lies in: ("stages", 0, "blocks", 1); () for one in no list."""
    if len(path) < 2 or not isinstance(path[1], int):
        return ()
    is_in_stage = len(path) > 3 and path[2] == BLOCKS and isinstance(path[3], int)
    return path[:4] if is_in_stage else path[:2]
