"""What shapes a rule (an optimizer, a schedule, a loss) in a compiled program, and the words that rules share."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Steps = int  # a duration, in steps; settings write it with its unit, "20 epochs"


@dataclass(frozen=True)
class RuleSpec:
    """A rule, with those of its keywords that shape the program. Its other keywords are numbers, which are arguments.

    Attributes:
        name: a key of `losses.LOSSES`, `optimizers.OPTIMIZERS` or `schedules.SCHEDULES`.
        options: the keywords that are no numbers (lengths in steps, choices, unset ones), sorted by name.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def keywords(self, function: Callable, numbers: dict[str, Any]) -> dict[str, Any]:
        """Returns options and numbers as keywords of the rule's function, all but `learning_rate`.

        Raises:
            ValueError: they are not exactly its keywords. One that is left out would silently be the default.
        """
        keywords = dict(self.options) | numbers
        expected = set()
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != "learning_rate":
                expected.add(name)
        if keywords.keys() != expected:
            raise ValueError(f"{self.name} takes {sorted(expected)}, but has {sorted(keywords)}")
        return keywords
