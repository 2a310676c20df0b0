r"""Sets formulas as MathML, which browsers show without a script and offline: a small part of TeX's language.

    formula(r"y_{i} = \sum_{u} p_{i + u} w_{u} + b")         the text of a <math> element

Known are letters, numbers and signs; _ and ^ with {}; \frac{}{}, \sqrt{}, \text{}; the accents \hat \bar \tilde; and
the names in `SYMBOLS`, `OPERATORS`, `LARGE` and `FUNCTIONS`. What is not known is a ValueError: formulas stand in the
program, and tests set each of them.
"""

import html
import re
from collections.abc import Callable

SYMBOLS = {
    "alpha": "\u03b1",
    "beta": "\u03b2",
    "gamma": "\u03b3",
    "delta": "\u03b4",
    "epsilon": "\u03b5",
    "eta": "\u03b7",
    "mu": "\u03bc",
    "sigma": "\u03c3",
    "partial": "\u2202",
    "infty": "\u221e",
}
OPERATORS = {
    "cdot": "\u22c5",
    "times": "\u00d7",
    "le": "\u2264",
    "ge": "\u2265",
    "ne": "\u2260",
    "in": "\u2208",
    "to": "\u2192",
    "gets": "\u2190",
    "dots": "\u2026",
    "odot": "\u2299",
    "quad": "\u2003",
    "lfloor": "\u230a",
    "rfloor": "\u230b",
}
LARGE = {"sum": "\u2211", "max": "max", "min": "min"}  # what stands below and above their indices
FUNCTIONS = ("log", "exp", "softmax", "mean", "argmax")
ACCENTS = {"hat": "^", "bar": "\u00af", "tilde": "~"}
TOKEN = re.compile(r"\\text\{[^}]*\}|\\[A-Za-z]+|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
FENCES = "()[]|" + OPERATORS["lfloor"] + OPERATORS["rfloor"]


def formula(text: str, *, block: bool = True) -> str:
    """Returns a formula as a <math> element.

    Args:
        text: the formula, as the module's docstring says.
        block: whether it stands on a line of its own.

    Raises:
        ValueError: it is not written as this module knows it.
    """
    display = ' display="block"' if block else ""
    return f"<math{display}>{Setter(text).set_all()}</math>"


class Setter:
    """Reads a formula from left to right.

    Args:
        text: the formula.
    """

    def __init__(self, text: str):
        self._tokens = [token for token in TOKEN.findall(text) if token.strip()]
        self._raw = text
        self._next = 0

    def set_all(self) -> str:
        """Returns the elements of the whole formula."""
        elements = self._set_until("")
        if self._next < len(self._tokens):
            raise ValueError(f"{self._raw!r} has a }} too many")
        return elements

    def _take(self) -> str:
        """Takes the next token."""
        if self._next >= len(self._tokens):
            raise ValueError(f"{self._raw!r} ends too early")
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _look(self) -> str:
        """The next token, which stays; "" at the end."""
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _set_until(self, end: str) -> str:
        """Sets elements up to a closing brace, which stays, or to the end of the formula."""
        elements = []
        while self._look() not in ("", "}"):
            elements.append(self._set_with_indices())
        if end and self._look() != end:
            raise ValueError(f"{self._raw!r} has a {{ too many")
        return "".join(elements)

    def _set_with_indices(self) -> str:
        """Sets one element with what stands at its foot and at its head."""
        token = self._look()
        element = self._set_one()
        low = high = ""
        while self._look() in ("_", "^"):
            if self._take() == "_":
                low = self._set_one()
            else:
                high = self._set_one()
        is_large = token.removeprefix("\\") in LARGE and token.startswith("\\")
        tags = ("munder", "mover", "munderover") if is_large else ("msub", "msup", "msubsup")
        if low and high:
            return f"<{tags[2]}>{element}{low}{high}</{tags[2]}>"
        if low:
            return f"<{tags[0]}>{element}{low}</{tags[0]}>"
        if high:
            return f"<{tags[1]}>{element}{high}</{tags[1]}>"
        return element

    def _set_one(self) -> str:
        """Sets one token, a group in braces, or a command with its arguments."""
        token = self._take()
        if token == "{":
            inner = self._set_until("}")
            self._take()
            return f"<mrow>{inner}</mrow>"
        if token.startswith("\\"):
            return self._set_command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "}_^":
            raise ValueError(f"{self._raw!r} has a {token} where something has to stand")
        sign = "\u2212" if token == "-" else html.escape(token)
        stretchy = ' stretchy="false"' if token in FENCES else ""
        return f"<mo{stretchy}>{sign}</mo>"

    def _set_command(self, name: str) -> str:
        """Sets what a backslash begins."""
        if name.startswith("text{"):
            words = html.escape(name[5:-1]).replace(" ", "\u00a0")  # blanks at the ends would be dropped
            return f"<mtext>{words}</mtext>"
        commands: dict[str, Callable[[], str]] = {
            "frac": lambda: f"<mfrac>{self._set_one()}{self._set_one()}</mfrac>",
            "sqrt": lambda: f"<msqrt>{self._set_one()}</msqrt>",
        }
        if name in commands:
            return commands[name]()
        if name in ACCENTS:
            return f'<mover accent="true">{self._set_one()}<mo>{ACCENTS[name]}</mo></mover>'
        if name in SYMBOLS:
            return f"<mi>{SYMBOLS[name]}</mi>"
        if name in FUNCTIONS or (name in ("max", "min") and self._look() not in ("_", "^")):
            space = "" if self._look() in ("(", "_", "^") else '<mspace width="0.17em"/>'
            return f"<mrow><mi>{name}</mi><mo>\u2061</mo>{space}</mrow>"
        if name in LARGE:
            return f'<mo movablelimits="false">{LARGE[name]}</mo>'
        if name in OPERATORS:
            stretchy = ' stretchy="false"' if OPERATORS[name] in FENCES else ""
            return f"<mo{stretchy}>{OPERATORS[name]}</mo>"
        raise ValueError(f"{self._raw!r} has a \\{name} that is not known")
