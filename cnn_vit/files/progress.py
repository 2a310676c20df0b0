"""What a download says on its way, on stderr."""

import contextlib
import sys
from collections.abc import Callable, Iterator


def note(sentence: str) -> None:
    """Prints a sentence to stderr; does nothing where nobody can read it."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Shows how far a download is: a bar on a terminal, elsewhere a line at each tenth.

    Args:
        name: what is downloaded.
        size: its size in bytes; None where it is not known before the download begins.

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


def print_tenths(name: str, size: int | None) -> Callable[[int], None]:
    """Makes the function that prints a line at each tenth of a size, when it is called with the bytes so far.

    Of a file whose size is not known, it prints a line at every 10 MB.
    """
    printed = 0  # tenths of the size, or tens of megabytes

    def on_progress(done: int) -> None:
        nonlocal printed
        steps = done // 10**7 if size is None else done * 10 // size
        if steps <= printed:
            return
        printed = steps
        if size is None:
            note(f"{name}: {10 * steps} MB")
        else:
            note(f"{name}: {10 * steps} % of {size / 1e6:,.1f} MB")

    return on_progress
