"""Signals that end a command. A handler only sets a flag, which the command obeys at its next safe point.

Schedulers of clusters send SIGTERM before they take a machine back, and before a time limit they send whichever signal
they are asked for, by custom SIGUSR1; Ctrl-C sends SIGINT, and a closed terminal SIGHUP, which a command under `nohup`
ignores.

Nothing is raised out of a handler. Python runs handlers between any two lines of the main thread, also between those of
a library, and what is raised there may be lost: jax has callbacks of the garbage collection, in which Python prints an
exception and goes on. Instead

    - the handler notes the signal;
    - `raise_if_requested`, between two parts of the work, raises `StoppedError` where one is noted: a safe point;
    - a thread ends the process where the main thread comes to no safe point in GRACE_SECONDS, such as while it
      compiles. It hears of each signal at once, for Python writes their numbers to a pipe ("wakeup file descriptor").
      It leaves behind what `kill -9` may leave, too. In a process that only uses this package it does not do so.

While a run trains there is a step to finish and a state to save: no safe point raises, and the thread waits. A second
signal ends the process at once: it is how people say that they do not want to wait. Schedulers may deliver one signal
twice; so a second signal within half a second of the first counts as its echo and is ignored. A process that no person
watches, as a task of a cluster, ignores all further signals: the scheduler kills by itself what takes too long.

This file imports little, so that signals are handled before the rest of the package is imported.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ClassVar, NoReturn

from cnn_vit.errors import StoppedError

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
ECHO_SECONDS = 0.5  # a second signal within so many seconds is the first one's echo
GRACE_SECONDS = 2.0  # that the main thread has to come to a safe point
SHOW_CURSOR = "\x1b[?25h"  # the terminal's code for it; a progress bar may have hidden the cursor
STOPPED = "stopped by {}; the same command starts again"
STOPPED_BEFORE = "stopped by {} before this start trained a step; the same command starts again"
STOPPED_AFTER = "stopped after its last step by {}; the same command tests the network and writes the result"


class StopSignals:
    """The signals that ask this process to stop; `handle_signals` makes it.

    Args:
        owns_process: whether the process is there for this command alone.
        heeds_second: whether a second signal ends the process at once.
        before_end: called with the number of the signal before the thread ends the process: for what a command does
            last of all, which then never comes to it.

    Attributes:
        requested: number of the first signal that came, or None.
        active: the one that handles the signals of this process, or None.
    """

    active: ClassVar["StopSignals | None"] = None

    def __init__(
        self,
        *,
        owns_process: bool = False,
        heeds_second: bool = True,
        before_end: Callable[[int], None] | None = None,
    ) -> None:
        self.requested: int | None = None
        self._owns_process = owns_process
        self._heeds_second = heeds_second
        self._before_end = before_end
        self._sentence = STOPPED  # of the error that a safe point raises; "" while there is a step to finish
        self._exit_code: int | None = None  # of the command, once it is over
        self._is_obeyed = False
        self._last_word = threading.Lock()  # of whoever says the last sentence
        self._handlers_before: dict[int, object] = {}

    # The main thread --------------------------------------------------------------------------------------------------

    def raise_if_requested(self) -> None:
        """Raises `StoppedError` where a signal came, unless a run is training: then its loop looks at `requested`."""
        if self.requested is not None and self._sentence:
            self._is_obeyed = True
            raise StoppedError(self.requested, self._sentence.format(signal_name(self.requested)))

    @contextlib.contextmanager
    def saying(self, sentence: str) -> Iterator[None]:
        """Within this context, a command that is stopped says this sentence, in which {} stands for the signal's name.

        An error that leaves the context ends a command, which has something else to say then: so its sentence stays.
        """
        sentence_before, self._sentence = self._sentence, sentence
        try:
            yield
        except BaseException:
            if not self._owns_process:  # the process goes on, and may have another command to stop
                self._sentence = sentence_before
            raise
        self._sentence = sentence_before

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Within this context Ctrl-C raises KeyboardInterrupt, for code of a user's that comes to no safe point.

        Raises:
            StoppedError: Ctrl-C was pressed, and the code has not gone on all the same.
        """
        if StopSignals.active is not self or threading.current_thread() is not threading.main_thread():
            yield
            return
        handler_before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            try:
                yield
            finally:
                signal.signal(signal.SIGINT, handler_before)
        except KeyboardInterrupt:
            self._is_obeyed = True
            self.requested = signal.SIGINT
            name = signal_name(signal.SIGINT)
            raise StoppedError(signal.SIGINT, (self._sentence or STOPPED).format(name)) from None

    def begin_training(self) -> None:
        """Says that from here on there is something to save; raises `StoppedError` where a signal came before."""
        self.raise_if_requested()
        self._sentence = ""

    def end_training(self) -> None:
        """Says that from here on all is saved; raises `StoppedError` where a signal came before."""
        self._sentence = STOPPED_AFTER
        self.raise_if_requested()

    def stopped_error(self, step: int) -> StoppedError:
        """Makes the error that ends a run which was asked to stop and has saved the state of a step."""
        self._is_obeyed = True
        number = self.requested or signal.SIGTERM
        return StoppedError(number, f"stopped at step {step} by {signal_name(number)}; the same command resumes")

    def end_command(self, exit_code: int) -> None:
        """Says that the command is over but for its last sentence: from here on no signal changes its exit code."""
        with self._last_word:
            self._exit_code = exit_code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Notes a signal; Python calls it in the main thread."""
        if self.requested is None:
            self.requested = number

    # Handlers and thread ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Takes over the signals of the process."""
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)  # which `set_wakeup_fd` asks for
        self._is_closed = False
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._listener = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._listener.start()
        for number in SIGNALS:
            # under `nohup` a closed terminal must not end the command
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._handlers_before[number] = signal.signal(number, self._handle)
        StopSignals.active = self

    def end(self) -> None:
        """Gives the signals back. One that came too late to be obeyed goes to the handler from before.

        After a signal this waits until no echo can come, which the handlers from before would meet.
        """
        StopSignals.active = None
        self._end_listening()
        for number, handler in self._handlers_before.items():
            if handler is not None:  # one that was not installed from Python cannot be given back
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        if self.requested is not None and not self._is_obeyed:
            signal.raise_signal(self.requested)

    def ignore(self) -> None:
        """Has the kernel ignore the signals: a process that takes itself down shall not lose its exit code to one."""
        for number in self._handlers_before:
            signal.signal(number, signal.SIG_IGN)
        self._end_listening()  # no thread of ours wakes up once Python is down

    def leave_if_obeyed(self) -> None:
        """Ends the process of a command that a signal has stopped, without taking Python down.

        Threads of libraries may be in the middle of anything then, and may crash where what they use is taken down.
        """
        if self._is_obeyed and self._exit_code is not None:
            os._exit(self._exit_code)

    def _end_listening(self) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        self._is_closed = True
        os.close(self._write_end)  # its end of file ends the thread
        self._listener.join()
        os.close(self._read_end)

    def _listen(self) -> None:
        """Waits in a thread for the first signal, then for a second one or for the end of the main thread's time."""
        first = self._next_signal()
        if first is None:
            return
        if not self._sentence:
            sentence = f"{signal_name(first)}: finishing the step and saving"
            print_to_stderr(f"{sentence}; a second one stops at once" if self._heeds_second else sentence)
        time.sleep(ECHO_SECONDS)
        while self._next_signal(0.0) is not None:  # echoes
            pass
        timeout = GRACE_SECONDS - ECHO_SECONDS
        was_over = False
        while not self._is_closed:
            second = self._next_signal(timeout)
            timeout = GRACE_SECONDS
            if second is not None:
                if not self._heeds_second:
                    continue
                resumes = f"stopped at once by a second {signal_name(second)}; the same command resumes"
                self._end_process(second, self._sentence.format(signal_name(second)) or resumes)
            elif self._is_closed or not self._owns_process:
                continue
            elif self._exit_code is not None:
                # The first time that it is seen, the command may be about to say its last sentence.
                if was_over:
                    self._end_process(first, "")
                was_over = True
            elif self._sentence:
                self._end_process(first, self._sentence.format(signal_name(first)))

    def _next_signal(self, timeout: float | None = None) -> int | None:
        """Returns the next signal that comes; None where none comes in so many seconds, or `end` was called."""
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        while poll.poll(None if timeout is None else 1000 * timeout):
            content = os.read(self._read_end, 1)
            if not content:
                return None
            if content[0] in SIGNALS:
                return content[0]
        return None

    def _end_process(self, number: int, sentence: str) -> NoReturn:
        """Ends the process, the only way out from a thread while the main one is busy."""
        with self._last_word:
            if self._exit_code is not None:
                os._exit(self._exit_code)
            stream = sys.stderr
            cursor = SHOW_CURSOR if stream is not None and stream.isatty() else ""
            print_to_stderr(f"{cursor}{sentence}")
            try:
                if self._before_end is not None:
                    self._before_end(number)
            finally:
                os._exit(128 + number)


@contextlib.contextmanager
def handle_signals(
    *, owns_process: bool = False, heeds_second: bool = True, before_end: Callable[[int], None] | None = None
) -> Iterator[StopSignals]:
    """Within this context signals are noted, to be obeyed at safe points; yields what they ask for.

    Within another such context, this is the other one. Outside the main thread nothing is handled, since Python lets
    the main thread alone install handlers.

    Args:
        owns_process: whether the process is there for this command alone. Then it is ended where it comes to no safe
            point in time, and once a signal has stopped the command. Its signals are not given back: none can change
            its exit code while Python shuts down.
        heeds_second, before_end: as `StopSignals` has them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopSignals()
        return
    if StopSignals.active is not None:
        yield StopSignals.active
        return
    stop = StopSignals(owns_process=owns_process, heeds_second=heeds_second, before_end=before_end)
    stop.begin()
    if owns_process:
        atexit.register(stop.ignore)  # as the first that is registered, it is called last
        yield stop
        stop.leave_if_obeyed()
        return
    try:
        yield stop
    finally:
        stop.end()


def raise_if_requested() -> None:
    """Marks a safe point: raises `StoppedError` where a signal asked to stop, unless a run is training."""
    if StopSignals.active is not None:
        StopSignals.active.raise_if_requested()


@contextlib.contextmanager
def saying(sentence: str) -> Iterator[None]:
    """Within this context, a command that is stopped says this sentence, as `StopSignals.saying` has it."""
    if StopSignals.active is None:
        yield
        return
    with StopSignals.active.saying(sentence):
        yield


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Within this context Ctrl-C raises, as `StopSignals.interrupting` has it."""
    if StopSignals.active is None:
        yield
        return
    with StopSignals.active.interrupting():
        yield


def end_command(exit_code: int) -> None:
    """Says that the command is over, as `StopSignals.end_command` has it."""
    if StopSignals.active is not None:
        StopSignals.active.end_command(exit_code)


def print_to_stderr(sentence: str) -> None:
    """Prints a sentence to stderr; nothing happens where stderr is closed."""
    if sys.stderr is not None:  # `print` would take stdout
        with contextlib.suppress(OSError, ValueError):
            print(sentence, file=sys.stderr, flush=True)


def signal_name(number: int) -> str:
    """The name of a signal by its number, such as SIGTERM for 15."""
    return signal.Signals(number).name
