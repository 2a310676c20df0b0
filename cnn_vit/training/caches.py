"""Caches of compiled programs, which the runs of one process share.

A study of many trials in one process compiles each program once. Each cache is bounded, because a thousand different
networks would fill the memory: the program that was used longest ago is dropped first. `clear_compiled` empties all.
"""

import functools
import inspect
from collections.abc import Callable
from typing import TypeVar

MOST_COMPILED = 32  # results that are remembered of each function

Built = TypeVar("Built")
_clear_functions: list[Callable[[], None]] = []


def compiled_once(build: Callable[..., Built]) -> Callable[..., Built]:
    """Decorates a function of hashable arguments so that it builds the same thing only once.

    Arguments are the same whether they are passed by position, by name, or left out for their default.
    """
    cached = functools.lru_cache(maxsize=MOST_COMPILED)(build)
    signature = inspect.signature(build)
    _clear_functions.append(cached.cache_clear)

    @functools.wraps(build)
    def build_once(*args, **kwargs):
        # lru_cache alone would take f(a) and f(x=a) for two calls
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return cached(*arguments.args, **arguments.kwargs)

    return build_once


def clear_compiled() -> None:
    """Forgets every compiled program of this process; the next run compiles its own anew."""
    for clear in _clear_functions:
        clear()
