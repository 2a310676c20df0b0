"""Modules by the paths of their values: whether a module is selected whole, and which module a statistic belongs to."""

from collections.abc import Iterable


def find_whole_modules(params: Iterable[tuple], selected: set[tuple]) -> set[tuple]:
    """Returns the paths of the modules all of whose parameters, those below them too, are selected.

    Args:
        params: paths of all parameters.
        selected: paths of some of them.
    """
    modules = set()
    modules_with_others = set()
    for path in params:
        above = [path[:depth] for depth in range(len(path))]
        modules.update(above)
        if path not in selected:
            modules_with_others.update(above)
    return modules - modules_with_others


def find_statistics(stats: Iterable[tuple], params: Iterable[tuple], selected: set[tuple]) -> set[tuple]:
    """Returns the paths of the running statistics that go with the selected parameters.

    A statistic belongs to the module that holds it, or, where that has no parameters, to the nearest module above it
    that has some. It goes with them where all parameters of that module are selected, those below it too.

    Args:
        stats: paths of all statistics.
        params: paths of all parameters.
        selected: paths of some of these.
    """
    params = list(params)
    modules = find_whole_modules(params, set(params))
    whole_modules = find_whole_modules(params, selected)
    going = set()
    for path in stats:
        module = path[:-1]
        while module and module not in modules:
            module = module[:-1]
        if module in whole_modules:
            going.add(path)
    return going
