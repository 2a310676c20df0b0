"""What the user is told when Orbax fails: one sentence. What Orbax prints itself goes to `crash/orbax.log`."""

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
ORBAX_FOLDER = f"{os.sep}orbax{os.sep}checkpoint{os.sep}"  # in the path of every file of Orbax
MOST = 300  # characters of Orbax's own words in a sentence of ours


@contextlib.contextmanager
def translate_errors(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turns whatever Orbax raises into a `SurroundingsError` that names the path.

    Args:
        path: the checkpoint that is written or read.
        needed: bytes that are written there.
    """
    try:
        yield
    except Exception as error:
        number = errno_of(error)
        if number:
            os_error = OSError(number, os.strerror(number))
            raise files.from_os_error(os_error, path, needed=needed) from error
        redirect = redirect_logs()
        redirect.keep("".join(traceback.format_exception(error)))
        words = " ".join(str(error).split())[:MOST]
        raise SurroundingsError(
            f"{path}: Orbax gave up ({words}); the whole of it is in {redirect.crash / LOG}"
        ) from error


def errno_of(error: BaseException | None) -> int | None:
    """The operating system's error number behind an error of Orbax, or of TensorStore, which has it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        match = re.search(r"os_error_code='(\d+)'", str(error))
        if match:
            return int(match[1])
        error = error.__cause__ or error.__context__
    return None


class LogRedirect(logging.Filter):
    """Sends to a file what Orbax and its writing threads print, for the life of the process.

    Those threads outlive a failed save, so the redirection is never taken back. What is not theirs goes where it went
    before.

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

    def keep(self, text: str) -> None:
        """Adds text to the file; on a full disk the text is lost."""
        with contextlib.suppress(SurroundingsError):
            file = files.open_append(self.crash / LOG)
            file.write(text.rstrip("\n") + "\n")
            file.close()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record may be printed: false for one of Orbax, which goes to the file.

        Orbax is recognized by its words and by its callers, since absl may name a file of its own.
        """
        text = logging.Formatter("%(levelname)s %(message)s").format(record)
        callers = (frame.f_code.co_filename for frame, _ in traceback.walk_stack(None))
        if ORBAX_FOLDER not in text and not any(ORBAX_FOLDER in file for file in callers):
            return True
        self.keep(text)
        return False

    def _handle_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """TensorStore's threads call the event loop of a save that has failed and is gone."""
        error = unraisable.exc_value
        if isinstance(error, RuntimeError) and str(error) == "Event loop is closed":
            self.keep("".join(traceback.format_exception(error)))
        else:
            self._unraisable_before(unraisable)


@functools.cache
def redirect_logs() -> LogRedirect:
    """The one redirection of this process, in force from the first call on."""
    return LogRedirect()
