"""Whether the user has asked that training stops."""

import contextlib
import signal
from collections.abc import Callable, Iterator


class StopRequest:
    """Whether the user has asked to stop.

    Attributes:
        is_asked: Set by a signal.
    """

    def __init__(self) -> None:
        self.is_asked = False

    @contextlib.contextmanager
    def by_signals(self, tell: Callable[[], None] = lambda: None) -> Iterator[None]:
        """While inside, a first SIGINT or SIGTERM sets `is_asked`; a second one acts at once.

        Args:
            tell: Called at the first one.
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
