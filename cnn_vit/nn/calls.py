"""Layers that are plain functions, such as a pooling: a mark by which their calls can be observed.

Calls of modules are observed through their class (`analysis/record` does so); a function has no class to go by.
"""

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Params = ParamSpec("Params")
Output = TypeVar("Output")
WATCHER: ContextVar[Callable[..., Any] | None] = ContextVar("WATCHER", default=None)


def layer(function: Callable[Params, Output]) -> Callable[Params, Output]:
    """Marks a function as a layer: where `WATCHER` holds a function, `watcher(function, args, kwargs)` answers instead.

    `WATCHER` is empty except while `analysis/record` observes a network. A call then costs one look-up more, and only
    while a program is traced.
    """

    @functools.wraps(function)
    def call_layer(*args: Params.args, **kwargs: Params.kwargs) -> Output:
        watcher = WATCHER.get()
        if watcher is None:
            return function(*args, **kwargs)
        return watcher(function, args, kwargs)

    return call_layer
