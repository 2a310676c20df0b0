"""Signals that end a run: the first asks for the end of the step and a save, a second one ends the process at once.

SIGTERM is what schedulers send before they take a machine back, SIGINT is Ctrl-C, SIGHUP a closed terminal, which
`nohup` has a run ignore. Schedulers may deliver one signal twice, so one that follows within half a second is the same.
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
ECHO_SECONDS = 0.5  # seconds within which a second signal is the first one's echo
SHOW_CURSOR = "\x1b[?25h"  # a bar may have hidden it
STOPPED_BEFORE = "stopped before its first step by {}; the same command starts again"
STOPPED_AFTER = "stopped after its last step by {}; the same command tests the network and writes the result"


class StopSignals:
    """While open, takes the signals that end a run.

    Outside of `begin` to `end` there is nothing to save, and a signal raises `StoppedError` where the program stands.
    Inside it sets `asked`, for the loop to see between two steps. In another thread than the main one, which alone gets
    signals, nothing is taken.

    Attributes:
        requested: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._at_once = STOPPED_BEFORE  # what ends the run where it stands; "" while there is a step to finish
        self._first = self._seen = 0.0  # when the first was heard by the thread, and taken by the program
        self._before: dict[int, object] = {}

    def begin_training(self) -> None:
        """From here on there is something to save; raises `StoppedError` where a signal came already."""
        self._end_if_asked()
        self._at_once = ""

    def end_training(self) -> None:
        """From here on all is saved; raises `StoppedError` where a signal came already."""
        self._at_once = STOPPED_AFTER
        self._end_if_asked()

    def error(self, step: int) -> StoppedError:
        """What ends a run that was asked to stop and has saved."""
        number = self.requested or signal.SIGTERM
        return StoppedError(number, f"stopped at step {step} by {signal_name(number)}; the same command resumes")

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            taken = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._came) for number in taken}
            self._watch()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, *_: object) -> None:
        if self._before:
            self._sit_out_the_echo()
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._written)  # ends the thread
            self._watcher.join()
            os.close(self._read)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        self._before = {}
        if self._at_once and not isinstance(error, StoppedError):
            self._end_if_asked()  # what reads strangers' files may have taken it for a fault of theirs

    def _end_if_asked(self) -> None:
        if self.requested:
            raise StoppedError(self.requested, (self._at_once or STOPPED_BEFORE).format(signal_name(self.requested)))

    def _came(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._seen = number, now()
            if self._at_once:
                self._end_if_asked()

    def _sit_out_the_echo(self) -> None:
        """A signal's echo would meet the handlers from before, and end the process without its last sentence."""
        if self.requested:
            threading.Event().wait(max(0.0, self._seen + ECHO_SECONDS - now()))

    def _watch(self) -> None:
        """Hears signals in a thread too: the main one may be inside a long compilation when the second comes."""
        self._read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._hear, name="signals", daemon=True)
        self._watcher.start()

    def _hear(self) -> None:
        while heard := os.read(self._read, 1):
            if heard[0] not in SIGNALS:
                continue
            if not self._first:
                self._first = now()
                if not self._at_once:
                    print_to_stderr(
                        f"{signal_name(heard[0])}: finishing the step and saving; a second one stops at once"
                    )
            elif now() - self._first > ECHO_SECONDS:
                cursor = SHOW_CURSOR * sys.stderr.isatty()
                print_to_stderr(
                    f"{cursor}stopped at once by a second {signal_name(heard[0])}; the same command resumes"
                )
                os._exit(128 + heard[0])


def print_to_stderr(sentence: str) -> None:
    """A sentence on stderr, which may be closed."""
    with contextlib.suppress(OSError, ValueError):
        print(sentence, file=sys.stderr, flush=True)


def signal_name(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name
