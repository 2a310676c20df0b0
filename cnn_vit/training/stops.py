"""Signals that end a run: the first lets it finish its step and save, a second one ends the process at once.

Schedulers of clusters send SIGTERM before they take a machine back, Ctrl-C sends SIGINT, and a closed terminal SIGHUP,
which a run under `nohup` ignores. Schedulers may deliver one signal twice; so a second signal within half a second of
the first counts as its echo and is ignored.
"""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from cnn_vit.errors import StoppedError
from cnn_vit.runs.journal import now

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ECHO_SECONDS = 0.5  # a second signal within so many seconds is the first one's echo
SHOW_CURSOR = "\x1b[?25h"  # the terminal's code for it; a progress bar may have hidden the cursor
STOPPED_BEFORE = "stopped before its first step by {}; the same command starts again"
STOPPED_AFTER = "stopped after its last step by {}; the same command tests the network and writes the result"


class StopSignals:
    """A context manager that handles the signals that end a run.

    Before `begin_training` and after `end_training` there is nothing to save, and a signal raises `StoppedError` at
    whatever line the program is. Between the two a signal only sets `requested`, which the loop reads between two
    steps. Python runs handlers in the main thread alone; opened in another thread, it handles nothing.

    Attributes:
        requested: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._sentence = STOPPED_BEFORE  # of the error that a signal raises at once; "" while there is a step to finish
        self._first_heard = 0.0  # time at which the listening thread heard the first signal
        self._first_handled = 0.0  # time at which the main thread ran its handler
        self._handlers_before: dict[int, object] = {}

    def begin_training(self) -> None:
        """Says that from here on there is something to save; raises `StoppedError` where a signal came before."""
        self._raise_if_requested()
        self._sentence = ""

    def end_training(self) -> None:
        """Says that from here on all is saved; raises `StoppedError` where a signal came before."""
        self._sentence = STOPPED_AFTER
        self._raise_if_requested()

    def stopped_error(self, step: int) -> StoppedError:
        """Makes the error that ends a run which was asked to stop and has saved the state of a step."""
        number = self.requested or signal.SIGTERM
        return StoppedError(number, f"stopped at step {step} by {signal_name(number)}; the same command resumes")

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                # under `nohup` a closed terminal must not end the run
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._handlers_before[number] = signal.signal(number, self._handle)
            self._start_listening()
        return self

    def __exit__(self, error_type: type | None, error: BaseException | None, *_: object) -> None:
        if self._handlers_before:
            self._wait_for_echo()
            self._stop_listening()
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        self._handlers_before = {}
        if self._sentence and not isinstance(error, StoppedError):
            # a library may have caught what the handler raised while the library's code ran
            self._raise_if_requested()

    def _raise_if_requested(self) -> None:
        if self.requested:
            sentence = self._sentence or STOPPED_BEFORE
            raise StoppedError(self.requested, sentence.format(signal_name(self.requested)))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal; Python calls it in the main thread."""
        if self.requested:  # a second one is for the listening thread
            return
        self.requested, self._first_handled = number, now()
        if self._sentence:
            self._raise_if_requested()

    def _wait_for_echo(self) -> None:
        """Waits until no echo of the signal can come.

        An echo would meet the handlers from before, and end the process without its last sentence.
        """
        if self.requested:
            threading.Event().wait(max(0.0, self._first_handled + ECHO_SECONDS - now()))

    # When the second signal comes, the main thread may be inside a long compilation, during which it runs no handler.
    # So a thread listens to the signals as well: Python writes their numbers to a pipe at once ("wakeup file
    # descriptor").

    def _start_listening(self) -> None:
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)  # which `set_wakeup_fd` asks for
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()

    def _stop_listening(self) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._write_end)  # its end of file ends the thread
        self._listener.join()
        os.close(self._read_end)

    def _listen(self) -> None:
        while True:
            content = os.read(self._read_end, 1)
            if not content:
                return
            number = content[0]
            if number in SIGNALS:
                self._hear(number)

    def _hear(self, number: int) -> None:
        if not self._first_heard:
            self._first_heard = now()
            if not self._sentence:
                print_to_stderr(f"{signal_name(number)}: finishing the step and saving; a second one stops at once")
        elif now() - self._first_heard > ECHO_SECONDS:
            cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
            print_to_stderr(f"{cursor}stopped at once by a second {signal_name(number)}; the same command resumes")
            os._exit(128 + number)  # the only way out from a thread while the main one is busy


def print_to_stderr(sentence: str) -> None:
    """Prints a sentence to stderr; nothing happens where stderr is closed."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


def signal_name(number: int) -> str:
    """The name of a signal by its number, such as SIGTERM for 15."""
    return signal.Signals(number).name
