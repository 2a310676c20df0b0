"""What is said of a download, on stderr."""

import contextlib
import sys
from collections.abc import Callable, Iterator


def note(sentence: str) -> None:
    """Says a sentence; nothing where nobody can read it."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Takes the number of bytes that are there: a bar on a terminal, elsewhere a line at each tenth."""
    if not sys.stderr.isatty():
        yield tenths(name, size)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False, transient=True) as bar:
        task = bar.add_task(name, total=size)
        yield lambda done: bar.update(task, completed=done)


def tenths(name: str, size: int) -> Callable[[int], None]:
    """A line at each tenth of a size."""
    said = 0

    def told(done: int) -> None:
        nonlocal said
        if done * 10 // size > said:
            said = done * 10 // size
            note(f"{name}: {10 * said} % of {size / 1e6:,.1f} MB")

    return told
