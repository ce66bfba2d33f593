"""When following delivers: at a request, at the end, and again after an error."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from sweeper.tracking import follow as following
from sweeper.tracking.follow import CatchUp, follow
from sweeper.tracking.store import UndeliveredError


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TextIO, TextIO]]:
    """What asks for deliveries, and where it asks; nothing is delivered unasked for ten minutes."""
    monkeypatch.setattr(following, "POLL_S", 600.0)
    read, write = os.pipe()
    with os.fdopen(read) as asked, os.fdopen(write, "w", buffering=1) as asking:
        yield asking, asked


@contextmanager
def session(catch_up: CatchUp) -> Iterator[CatchUp]:
    yield catch_up


def test_each_request_is_met_at_once_and_the_end_delivers_for_the_last_time(
    pipe: tuple[TextIO, TextIO],
) -> None:
    asking, asked = pipe
    num_done = 0

    def catch_up() -> list[str]:
        nonlocal num_done
        num_done += 1
        print(file=asking) if num_done < 3 else asking.close()
        return []

    follow(lambda: session(catch_up), asked)
    assert num_done == 4


def test_what_could_not_be_delivered_is_tried_in_another_session_and_the_last_failure_is_told(
    pipe: tuple[TextIO, TextIO], capsys: pytest.CaptureFixture[str]
) -> None:
    asking, asked = pipe
    num_sessions = 0

    @contextmanager
    def failing() -> Iterator[CatchUp]:
        nonlocal num_sessions
        num_sessions += 1
        print(file=asking) if num_sessions < 3 else asking.close()
        raise UndeliveredError("no server")
        yield

    with pytest.raises(UndeliveredError, match="no server"):
        follow(failing, asked)
    assert num_sessions == 4 if asking.closed else 3
    assert capsys.readouterr().err == "no server\n", "said once"
