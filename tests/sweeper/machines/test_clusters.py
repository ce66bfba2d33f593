"""How a cluster is joined and left."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sweeper.machines import clusters, local_ray
from sweeper.machines.resources import Machine, Resources
from trainables.stopping import SIGNALS


def test_room_on_a_cluster_is_counted_again_and_on_this_machine_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clusters, "LOOK_EVERY_S", -1.0)
    nodes = [Resources(4, 2), Resources(16, 8), Resources(0, 0)]
    monkeypatch.setattr(clusters, "_resources", lambda _: nodes.pop(0))
    there = clusters.Slots(Machine("10.0.0.1:6379", 0.5), 4)
    assert (there(), there()) == (4, 16)
    on_cpus = clusters.Slots(Machine("10.0.0.1:6379", 0.0), 4)
    assert on_cpus() == 1, "none at the moment, but one may come"
    assert clusters.Slots(Machine(None, 0.0), 4)() == 4
    assert nodes == []


def test_a_cluster_is_named_with_what_it_has_and_a_token_that_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private.authentication import authentication_utils

    has_token = True
    monkeypatch.setattr(authentication_utils, "is_token_auth_enabled", lambda: has_token)
    found = Resources(33, 4, "L4", num_nodes=5)
    assert clusters.described(Machine("10.0.0.1:6379", None), found) == [
        "Ray cluster at 10.0.0.1:6379: 5 nodes, 4 GPUs, 33 cores."
    ]
    has_token = False
    (named, warning) = clusters.described(Machine("10.0.0.1:6379", None), Resources(1, 0))
    assert named == "Ray cluster at 10.0.0.1:6379: 1 node, 1 core."
    assert "asks for no token" in warning
    assert clusters.described(Machine(None, None), found) == []


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
