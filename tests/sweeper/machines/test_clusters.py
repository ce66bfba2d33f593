"""How a cluster is joined and left."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sweeper.machines import clusters, local_ray
from sweeper.machines.resources import Machine
from trainables.stopping import SIGNALS


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_a_cluster_is_left_waits_until_that_is_done(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C then made Ray wait for its head, which is killed next, for a minute."""
    import ray

    steps = []

    def shut_down() -> None:
        steps.append("begun")
        signal.raise_signal(number)
        signal.raise_signal(number)
        steps.append("done")

    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", shut_down)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), clusters._joined("an address"):
            pass
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert steps == ["begun", "done"]


@pytest.mark.parametrize("is_signalled", [True, False])
def test_a_ray_that_ends_before_the_signal_to_this_process_comes_is_no_fault_of_the_machine(
    is_signalled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service manager ends all processes, one after the other."""

    @contextmanager
    def dead(*_: object) -> Iterator[str]:
        raise OSError("Ray does not start")
        yield ""

    monkeypatch.setattr(local_ray, "started", dead)
    monkeypatch.setattr(clusters, "_set_environment", lambda _: None)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        if is_signalled:
            timer.start()
        expected = KeyboardInterrupt if is_signalled else OSError
        with pytest.raises(expected), clusters.cluster(Machine(None, 0.0)):
            pass
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)
