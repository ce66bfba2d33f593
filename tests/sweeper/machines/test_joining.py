"""Which running cluster a command joins: what is typed, RAY_ADDRESS, what this user's `ray start` left; else none."""

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.machines.joining import Joined, find_cluster
from trainables.errors import InputError

OPTIONS = ("--address", "RAY_ADDRESS")


@pytest.fixture
def address() -> Iterator[str]:
    """Where something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """Where nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file in which `ray start` leaves an address; it is not there."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    return file


def test_without_a_cluster_a_command_trains_on_this_machine() -> None:
    assert find_cluster(None) == Joined(None)


def test_what_ray_start_left_is_joined(left: Path, address: str) -> None:
    left.write_text(f"{address}\n")
    assert find_cluster(None) == find_cluster("auto") == Joined(address)
    assert find_cluster("local") == Joined(None)


def test_a_cluster_of_another_user_is_none_of_ours(
    left: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left.write_text(address)
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    assert find_cluster(None) == Joined(None)
    with pytest.raises(InputError, match=r"--address auto: no Ray cluster of yours was found"):
        find_cluster("auto")


@pytest.mark.parametrize("words", ["", "no address", "[::1", ":", "127.0.0.1:99999999"])
def test_what_is_left_of_a_cluster_that_is_gone_is_said_and_no_obstacle(left: Path, words: str) -> None:
    left.write_text(words)
    found = find_cluster(None)
    assert found.address is None
    assert str(left) in found.note


def test_a_cluster_that_does_not_answer_is_said_and_no_obstacle(left: Path, nobody: str) -> None:
    left.write_text(nobody)
    found = find_cluster(None)
    assert found.address is None
    assert found.note.startswith(f"No Ray cluster answers at {nobody}")


def test_the_environment_comes_before_what_is_left_and_what_is_typed_before_both(
    left: Path, address: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = f"127.0.0.1:{server.getsockname()[1]}"
        left.write_text(nobody)
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert find_cluster(None) == find_cluster("auto") == Joined(address)
        assert find_cluster(other) == Joined(other)
        assert find_cluster("local") == Joined(None)


@pytest.mark.parametrize(("named", "expected"), [("auto", True), ("", True), ("local", False)])
def test_words_of_the_environment_mean_what_they_mean_to_ray(
    left: Path, address: str, named: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left.write_text(address)
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert find_cluster(None).address == (address if expected else None)


def test_the_address_of_a_dashboard_is_for_jobs(
    left: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    assert "RAY_ADDRESS=http://127.0.0.1:8265 is for `ray job`" in find_cluster(None).note
    left.write_text(address)
    assert find_cluster(None).address == address


@pytest.mark.parametrize(
    ("option", "wrong", "words"),
    [
        ("--address", "", ["''", "HOST:PORT", "6379"]),
        *((option, "nowhere", ["nowhere", "HOST:PORT", "local"]) for option in OPTIONS),
        *((option, "ray://head:10001", ["Ray Client is not supported"]) for option in OPTIONS),
    ],
)
def test_an_address_that_is_none_is_refused_by_the_name_of_what_gave_it(
    option: str, wrong: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", wrong)
    with pytest.raises(InputError) as raised:
        find_cluster(wrong if option == "--address" else None)
    assert str(raised.value).startswith(f"{option} ")
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("option", OPTIONS)
def test_an_address_where_nothing_answers_is_refused_soon(
    option: str, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", nobody)
    with pytest.raises(InputError, match=f"{option} {nobody}: no Ray cluster answers there"):
        find_cluster(nobody if option == "--address" else None)


def test_without_a_folder_of_ray_the_usual_ones_are_looked_through(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "ray" / "ray_current_cluster").write_text("gone")
    assert str(tmp_path) in find_cluster(None).note
