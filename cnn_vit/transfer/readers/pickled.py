"""Reads the part of Python's pickle format that files of weights need, and executes nothing.

A pickle is a program for a small stack machine. Python's own machine imports whatever the program names and calls it.
This one does not import or call: it builds plain values, and where a program asks for a call of an allowed name it puts
down a note of it, a `Call`, that other code may look at. A name that is not allowed ends the reading.

The machine's work and memory are bounded: by the bytes of the program, by the number of its steps, each of which makes
one small value at most, and by what is never done with values: they are not compared, hashed or printed, for a few
steps describe nested tuples that take forever to hash. Keys of dicts are texts and integers alone.

Format: the comments in CPython's Lib/pickletools.py; PEP 307 (protocol 2), PEP 3154 (protocol 4).
"""

import struct
from dataclasses import dataclass
from typing import Any

from cnn_vit.errors import printable_name
from cnn_vit.transfer.readers.named_arrays import RefusedError

MOST_STEPS = 1_000_000  # of a program; one for a network of 1,000 parameters and its optimizer has 100,000
MOST_INTEGER_BYTES = 32  # the legacy format's magic number has 10, an identity of an object 8
LONGEST_WORD = 200  # characters of a name's module, and of the name in it
ORDERED_DICT = "collections.OrderedDict"

STOP = b"."
CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False}
NUMBERS = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}
# How the length of what follows is written.
TEXTS = {b"X": "<I", b"\x8c": "<B", b"\x8d": "<Q"}
OLD_TEXTS = {b"T": "<i", b"U": "<B"}  # of Python 2
BYTES = {b"B": "<I", b"C": "<B", b"\x8e": "<Q"}
EMPTY = {b"}": dict, b"]": list, b")": tuple}
TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
# How the place in the memo is written.
PUTS = {b"q": "<B", b"r": "<I"}
GETS = {b"h": "<B", b"j": "<I"}


class NotTensorsError(RefusedError):
    """A program asks for more than tensors and plain values."""


@dataclass(frozen=True, eq=False)
class Global:
    """A name that a program mentions, such as "torch.FloatStorage"; nothing is imported."""

    name: str


@dataclass(frozen=True, eq=False)
class Call:
    """A call that a program asks for, and that is not made."""

    function: str
    arguments: tuple


@dataclass(frozen=True, eq=False)
class Reference:
    """What a program says of something that lies outside of it, such as the numbers of a tensor."""

    value: Any


class Machine:
    """Runs one program.

    Args:
        content: bytes that hold the program.
        start: where it begins.
        allowed: full names that it may mention.

    Attributes:
        references: those that the program made, in order.
        position: behind the last byte read.
    """

    def __init__(self, content: bytes, start: int, allowed: frozenset[str]):
        self.content = content
        self.position = start
        self.allowed = allowed
        self.references: list[Reference] = []
        self._steps = 0
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks that marks put aside
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns the program's value.

        Raises:
            RefusedError: the program is cut or damaged, too long, or asks for something that is not allowed.
        """
        try:
            while (opcode := self._take(1)) != STOP:
                self._spend(1)
                self._step(opcode)
            (value,) = self._stack
        except (LookupError, ValueError, TypeError, struct.error) as error:
            raise RefusedError(f"is damaged: its pickle makes no sense at byte {self.position:,}") from error
        if self._outer:
            raise RefusedError("is damaged: its pickle ends inside a list")
        return value

    def _spend(self, steps: int) -> None:
        """Counts steps, or what costs as much; RefusedError where they become too many."""
        self._steps += steps
        if self._steps > MOST_STEPS:
            raise RefusedError(f"has a pickle of more than {MOST_STEPS:,} steps")

    # Reading the program

    def _take(self, count: int) -> bytes:
        """Returns the next bytes."""
        end = self.position + count
        if count < 0 or end > len(self.content):
            raise RefusedError("is cut: it ends inside its pickle")
        piece = self.content[self.position : end]
        self.position = end
        return piece

    def _number(self, form: str) -> Any:
        """Returns a number in a form of `struct`."""
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        """Returns the text up to the end of its line."""
        end = self.content.find(b"\n", self.position, self.position + LONGEST_WORD + 1)
        if end < 0:
            raise ValueError("a name without an end")
        word = self._take(end - self.position).decode()
        self._take(1)
        return word

    # Steps

    def _step(self, opcode: bytes) -> None:
        """Does what one opcode says, but for STOP."""
        push = self._stack.append
        if opcode in CONSTANTS:
            push(CONSTANTS[opcode])
        elif opcode in NUMBERS:
            push(self._number(NUMBERS[opcode]))
        elif opcode in TEXTS:
            push(self._take(self._number(TEXTS[opcode])).decode("utf-8", "surrogatepass"))
        elif opcode in OLD_TEXTS:
            push(self._take(self._number(OLD_TEXTS[opcode])).decode("latin-1"))
        elif opcode in BYTES:
            push(self._take(self._number(BYTES[opcode])))
        elif opcode in EMPTY:
            push(EMPTY[opcode]())
        elif opcode in TUPLES:
            self._make_tuple(TUPLES[opcode])
        elif opcode in PUTS:
            self._memo[self._number(PUTS[opcode])] = self._stack[-1]
        elif opcode in GETS:
            push(self._memo[self._number(GETS[opcode])])
        else:
            self._rare_step(opcode)

    def _rare_step(self, opcode: bytes) -> None:
        """Does what an opcode says that stands alone for its kind."""
        match opcode:
            case b"\x80":  # PROTO
                self._take(1)
            case b"\x95":  # FRAME, with the number of bytes that belong together
                self._take(8)
            case b"\x8a":  # LONG1
                count = self._number("<B")
                if count > MOST_INTEGER_BYTES:
                    raise RefusedError(f"has an integer of {count} bytes in its pickle")
                self._stack.append(int.from_bytes(self._take(count), "little", signed=True))
            case b"\x94":  # MEMOIZE
                self._memo[len(self._memo)] = self._stack[-1]
            case b"(":  # MARK
                self._outer.append(self._stack)
                self._stack = []
            case b"t":  # TUPLE
                items = self._pop_to_mark()
                self._stack.append(tuple(items))
            case b"a":  # APPEND
                item = self._stack.pop()
                self._target(list).append(item)
            case b"e":  # APPENDS
                items = self._pop_to_mark()
                self._target(list).extend(items)
            case b"s":  # SETITEM
                item = self._stack.pop()
                key = self._stack.pop()
                set_item(self._target(dict), key, item)
            case b"u":  # SETITEMS
                items = self._pop_to_mark()
                for key, item in zip(items[::2], items[1::2], strict=True):
                    set_item(self._target(dict), key, item)
            case b"c":  # GLOBAL
                module = self._line()
                self._push_global(module, self._line())
            case b"\x93":  # STACK_GLOBAL
                word = self._stack.pop()
                self._push_global(self._stack.pop(), word)
            case b"R":  # REDUCE
                arguments = self._stack.pop()
                function = self._stack.pop()
                self._stack.append(self._note_call(function, arguments))
            case b"b":  # BUILD sets attributes; a state_dict has its version numbers there
                self._stack.pop()
                self._target(dict)
            case b"Q":  # BINPERSID
                reference = Reference(self._stack.pop())
                self.references.append(reference)
                self._stack.append(reference)
            case _:
                raise NotTensorsError(f"makes objects of its own (opcode {opcode!r} at byte {self.position - 1:,})")

    def _make_tuple(self, count: int) -> None:
        """Puts a tuple of the uppermost values in their place."""
        if len(self._stack) < count:
            raise ValueError("too few values for a tuple")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def _pop_to_mark(self) -> list[Any]:
        """Returns the values above the last mark, and goes on below it."""
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _target(self, kind: type) -> Any:
        """Returns the uppermost value, which is to be changed and has to be a list or a dict."""
        target = self._stack[-1]
        if type(target) is not kind:
            raise NotTensorsError("changes something else than a list or a dict")
        return target

    def _push_global(self, module: Any, word: Any) -> None:
        """Puts down a name that is allowed."""
        if not isinstance(module, str) or not isinstance(word, str):
            raise TypeError("a name is a text")
        name = f"{module}.{word}"
        if name not in self.allowed:
            raise NotTensorsError(f"asks for {printable_name(name)}, which is not among the few names of a state_dict")
        self._stack.append(Global(name))

    def _note_call(self, function: Any, arguments: Any) -> Any:
        """Returns a note of a call that a program asks for; of an OrderedDict, the dict itself."""
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError("only names are called, with a tuple")
        if function.name != ORDERED_DICT:
            return Call(function.name, arguments)
        made: dict = {}
        if arguments:  # as Python 2 writes one: a list of its pairs
            (pairs,) = arguments
            if type(pairs) is not list:
                raise TypeError("an OrderedDict is made of a list")
            self._spend(len(pairs))  # the list may be used again and again
            for key, item in pairs:
                set_item(made, key, item)
        return made


def set_item(target: dict, key: Any, item: Any) -> None:
    """Sets an item of a dict; the key is a text or an integer, and new."""
    if type(key) is not str and type(key) is not int:
        raise NotTensorsError("has a dict whose keys are not texts or integers")
    if key in target:
        raise RefusedError(f"holds the key {printable_name(str(key))} twice")
    target[key] = item
