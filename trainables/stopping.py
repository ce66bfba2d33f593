"""Requests by the user to stop training."""

import contextlib
import signal
from collections.abc import Callable, Iterator


class StopRequest:
    """Whether the user has requested a stop.

    Attributes:
        is_asked: Set by a signal.
    """

    def __init__(self) -> None:
        self.is_asked = False

    @contextlib.contextmanager
    def by_signals(self, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
        """In this context, the first SIGINT or SIGTERM sets `is_asked`; a second one acts at once.

        Args:
            tell: Called on the first signal.
        """
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(*_: object) -> None:
            self.is_asked = True
            tell()
            for each in before:
                signal.signal(each, signal.default_int_handler)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
