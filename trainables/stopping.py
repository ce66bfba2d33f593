"""Requests to stop, by signals of a user, a closed terminal or a scheduler."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

STOPPED = "Stopped. Committed work is kept; run the same command to resume."

SAME_S = 1.0
"""Signals within so many seconds are one request: `timeout` and schedulers send one to a process and one to its group."""


def interrupt_at_signals() -> None:
    """Raise `KeyboardInterrupt` at any of these signals; one that is ignored, as by nohup, stays so."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """In this context, which should end within seconds, signals wait for its end; one that is ignored stays so.

    Raises:
        KeyboardInterrupt: At the end, if a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with _handled_by(lambda number, _: came.append(number)):
        yield
    if came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    """In this context, signals that are not ignored are handled so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, known in before.items() if known is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


class StopRequest:
    """Whether the user has requested a stop.

    Attributes:
        is_asked: Set by a signal.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._asked_s = 0.0

    @contextlib.contextmanager
    def by_signals(self, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
        """In this context, the first signal sets `is_asked`; a later one acts at once, one that is ignored stays so.

        Args:
            tell: Called on the first signal.
        """

        def ask(*_: object) -> None:
            now_s = time.monotonic()
            if self.is_asked and now_s - self._asked_s >= SAME_S:
                raise KeyboardInterrupt
            if not self.is_asked:
                self.is_asked, self._asked_s = True, now_s
                tell()

        with _handled_by(ask):
            yield


@contextlib.contextmanager
def watching(look: Callable[[], bool], every_s: float) -> Iterator[None]:
    """Call a function again and again from another thread, until it returns True or the context ends.

    Args:
        look: Returns whether it has seen enough.
        every_s: Seconds between two calls.
    """
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            if look():
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
