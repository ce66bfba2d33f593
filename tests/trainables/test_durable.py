"""Records that several processes want to write at the same time."""

import os
import threading
from errno import ENOSPC, EPERM
from pathlib import Path

import pytest

from trainables import durable


@pytest.mark.parametrize("has_links", [True, False])
def test_of_many_that_create_a_record_one_succeeds(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(EPERM, "no links here")

    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    path, won = tmp_path / "marker.json", list[int]()

    def create(number: int) -> None:
        if durable.create_record(path, {"number": number}):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (number,) = won
    assert durable.read_record(path)[0] == {"number": number}
    assert [file.name for file in tmp_path.iterdir()] == ["marker.json"]


def test_a_full_disk_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        durable.create_record(tmp_path / "marker.json", {})
    assert list(tmp_path.iterdir()) == []


def test_contended_writers_leave_one_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"

    def write(number: int) -> None:
        for _ in range(20):
            durable.write_record(path, {"number": number, "text": "x" * 10_000}, is_contended=True)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert durable.read_record(path)[0]["number"] in range(4)
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
