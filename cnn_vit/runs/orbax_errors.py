"""What is said when Orbax fails: one sentence for the user; what it prints itself goes to `crash/orbax.log`."""

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
ORBAX = f"{os.sep}orbax{os.sep}checkpoint{os.sep}"  # in the path of every file of it
MOST = 300  # characters of another program's words in a sentence of ours


@contextlib.contextmanager
def translate_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns whatever Orbax raises into a `SurroundingsError` naming the path; `needed` is what is written, in bytes."""
    try:
        yield
    except Exception as error:
        if number := errno_of(error):
            raise files.from_os_error(OSError(number, os.strerror(number)), path, needed=needed) from error
        redirect_logs().keep("".join(traceback.format_exception(error)))
        words = " ".join(str(error).split())[:MOST]
        log = redirect_logs().crash / LOG
        raise SurroundingsError(f"{path}: Orbax gave up ({words}); the whole of it is in {log}") from error


def errno_of(error: BaseException | None) -> int | None:
    """The operating system's number of the error behind one of Orbax or of TensorStore, which has it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


class LogRedirect(logging.Filter):
    """Sends to a file what Orbax and the threads of its writing print, for the life of the process.

    Those threads outlive the failed save, so nothing is put back. What is not theirs goes where it went before.

    Attributes:
        crash: folder of the file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crash = Path("crash")
        self._before = sys.unraisablehook
        for name in ("absl", "asyncio"):
            logging.getLogger(name).addFilter(self)
        sys.unraisablehook = self._unraisable

    def keep(self, text: str) -> None:
        """Adds text to the file; on a full disk it is lost."""
        with contextlib.suppress(SurroundingsError):
            file = files.open_append(self.crash / LOG)
            file.write(text.rstrip("\n") + "\n")
            file.close()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is not of Orbax: by its words and its callers, as absl may name a file of its own."""
        text = logging.Formatter("%(levelname)s %(message)s").format(record)
        callers = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
        if ORBAX not in text and not any(ORBAX in file for file in callers):
            return True
        self.keep(text)
        return False

    def _unraisable(self, given: "sys.UnraisableHookArgs") -> None:
        """TensorStore's threads call the event loop of a save that has failed and gone."""
        if isinstance(given.exc_value, RuntimeError) and str(given.exc_value) == "Event loop is closed":
            self.keep("".join(traceback.format_exception(given.exc_value)))
        else:
            self._before(given)


@functools.cache
def redirect_logs() -> LogRedirect:
    """The one diversion of this process, in force from the first call on."""
    return LogRedirect()
