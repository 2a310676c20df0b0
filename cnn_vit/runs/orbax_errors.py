"""Errors of Orbax, as one sentence for the user. What Orbax itself prints goes to the file `crash/orbax.log`."""

import contextlib
import functools
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from cnn_vit import files
from cnn_vit.errors import SurroundingsError

LOG = "orbax.log"
ORBAX_FOLDER = f"{os.sep}orbax{os.sep}checkpoint{os.sep}"  # part of the path of every source file of Orbax
MOST_CHARACTERS = 300  # of Orbax's message that are quoted in a sentence


@contextlib.contextmanager
def translate_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns whatever Orbax raises into a `SurroundingsError` that names the path.

    Args:
        path: the checkpoint that is written or read.
        needed: number of bytes that are written there; None where it is read.
    """
    try:
        yield
    except Exception as error:
        number = errno_of(error)
        if number:
            os_error = OSError(number, os.strerror(number))
            raise files.from_os_error(os_error, path, needed=needed) from error
        redirect = redirect_logs()
        redirect.write("".join(traceback.format_exception(error)))
        message = " ".join(str(error).split())[:MOST_CHARACTERS]
        raise SurroundingsError(
            f"{path}: Orbax gave up ({message}); the whole message is in {redirect.crash / LOG}"
        ) from error


def errno_of(error: BaseException | None) -> int | None:
    """Finds the operating system's error number behind an error of Orbax; None where there is none.

    Errors of TensorStore, which writes for Orbax, have the number in their text.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        match = re.search(r"os_error_code='(\d+)'", str(error))
        if match:
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None


class LogRedirect(logging.Filter):
    """Sends to a file what Orbax and its writing threads print.

    Those threads outlive a failed save, so the redirection lasts as long as the process. Messages of other libraries go
    where they went before.

    Attributes:
        crash: folder of the file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crash = Path("crash")
        self._unraisable_before = sys.unraisablehook
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(self)
        sys.unraisablehook = self._handle_unraisable

    def write(self, text: str) -> None:
        """Adds text to the file."""
        with contextlib.suppress(SurroundingsError):  # on a full disk the text is lost
            file = files.open_append(self.crash / LOG)
            file.write(text.rstrip("\n") + "\n")
            file.close()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a log record may be printed; one of Orbax may not, and goes to the file.

        Orbax is recognized by the paths in its message and in the call stack, since a record that is logged through
        absl may name a file of absl.
        """
        text = logging.Formatter("%(levelname)s %(message)s").format(record)
        callers = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
        if ORBAX_FOLDER not in text and not any(ORBAX_FOLDER in file for file in callers):
            return True
        self.write(text)
        return False

    def _handle_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Handles an exception that Python cannot raise anywhere, such as one in a callback of another thread."""
        error = unraisable.exc_value
        # TensorStore's threads call the event loop of a save that has failed and is gone
        if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
            self.write("".join(traceback.format_exception(error)))
        else:
            self._unraisable_before(unraisable)


@functools.cache
def redirect_logs() -> LogRedirect:
    """Returns the one redirection of this process, which the first call starts."""
    return LogRedirect()
