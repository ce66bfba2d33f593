import os
import signal
from collections.abc import Iterator

import pytest

from trainables import stopping
from trainables.stopping import SIGNALS, StopRequest, interrupt_at_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What signals do is as before in the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_interrupts_a_command_unless_it_is_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_DFL)
    interrupt_at_signals()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    signal.signal(number, signal.SIG_IGN)
    interrupt_at_signals()
    with StopRequest().by_signals():
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_first_signal_asks_once_and_what_signals_did_before_is_back(number: signal.Signals) -> None:
    told: list[bool] = []
    signal.signal(number, signal.default_int_handler)
    request = StopRequest()
    with request.by_signals(lambda: told.append(True)):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # the same request, to the group
    assert request.is_asked
    assert told == [True]
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_later_signal_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SAME_S", 0.0)
    request = StopRequest()
    with request.by_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)


def test_a_signal_that_is_ignored_is_not_held_back_and_none_means_no_interrupt() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping.held_back():
        os.kill(os.getpid(), signal.SIGHUP)
