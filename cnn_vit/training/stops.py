"""Signals that end a run: the first asks for the end of the step and a save, a second one ends the process at once.

SIGTERM is what schedulers send before they take a machine back, SIGINT is Ctrl-C, SIGHUP a closed terminal. Schedulers
may deliver one signal twice, so one that follows within half a second is the same.
"""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from cnn_vit.errors import StoppedError
from cnn_vit.training.journal import now

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME = 0.5  # seconds within which a second signal is the first one's echo


class Stop:
    """While open, takes the signals that end a run.

    Until `begin` is called there is nothing to save, and a signal raises `StoppedError` where the program stands. Then
    it sets `asked`, for the loop to see between two steps. In another thread than the main one, which alone gets
    signals, nothing is taken.

    Attributes:
        asked: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._begun = False
        self._first = 0.0
        self._before: dict[int, object] = {}

    def begin(self) -> None:
        """From here on there is something to save; raises `StoppedError` where a signal came already."""
        self._begun = True

    def error(self, step: int) -> StoppedError:
        """What ends a run that was asked to stop and has saved."""
        number = self.asked or signal.SIGTERM
        return StoppedError(number, f"stopped at step {step} by {name(number)}; the same command resumes")

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in SIGNALS}
            self._watch()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._written)  # ends the thread
            self._watcher.join()
            os.close(self._read)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        self._before = {}

    def _came(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if not self._begun:
            raise StoppedError(
                number, f"stopped before the first step by {name(number)}; the same command starts again"
            )

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
            elif now() - self._first > SAME and self._begun:
                with contextlib.suppress(OSError, ValueError):
                    print(f"stopped at once by a second {name(heard[0])}; the same command resumes", file=sys.stderr)
                    sys.stderr.flush()
                os._exit(128 + heard[0])


def name(number: int) -> str:
    """SIGTERM for 15."""
    return signal.Signals(number).name
