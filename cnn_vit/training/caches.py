"""Compiled programs that runs of one process share: at most so many of each kind, and all of them can be forgotten.

A study of many trials in one process compiles each program once. Without a bound, a thousand different networks would
stay in memory; the program that was used longest ago is dropped first.
"""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

MOST_COMPILED = 32  # programs that are remembered of each function

Built = TypeVar("Built")
_clear_functions: list[Callable[[], None]] = []


def compiled_once(build: Callable[..., Built]) -> Callable[..., Built]:
    """Remembers what a function of hashable arguments has built, so that the same arguments compile nothing again.

    Arguments are the same whether they are given by position, by name, or left out for their default.
    """
    cached = functools.lru_cache(maxsize=MOST_COMPILED)(build)
    signature = inspect.signature(build)
    _clear_functions.append(cached.cache_clear)

    @functools.wraps(build)
    def build_once(*args, **kwargs):
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return cached(*arguments.args, **arguments.kwargs)

    return build_once


def clear_compiled() -> None:
    """Forgets every compiled program of this process; the next run compiles its own anew."""
    for clear in _clear_functions:
        clear()
