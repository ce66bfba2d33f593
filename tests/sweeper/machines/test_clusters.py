"""How a cluster is joined and left."""

import signal

import pytest

from sweeper.machines import clusters
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
