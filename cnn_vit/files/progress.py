"""What a download says on its way, on stderr."""

import contextlib
import sys
from collections.abc import Callable, Iterator


def note(sentence: str) -> None:
    """Prints a sentence to stderr; does nothing where nobody can read it."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a download is: a bar on a terminal, elsewhere a line at each tenth.

    Args:
        name: what is downloaded.
        size: its size in bytes.

    Yields:
        The function to call with the number of bytes that have arrived.
    """
    if not sys.stderr.isatty():
        yield print_tenths(name, size)
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


def print_tenths(name: str, size: int) -> Callable[[int], None]:
    """Makes the function that prints a line at each tenth of a size, when it is called with the bytes so far."""
    printed = 0  # tenths

    def on_progress(done: int) -> None:
        nonlocal printed
        tenths = done * 10 // size
        if tenths > printed:
            printed = tenths
            note(f"{name}: {10 * tenths} % of {size / 1e6:,.1f} MB")

    return on_progress
