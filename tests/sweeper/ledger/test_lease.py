"""One driver at a time holds a storage; who is gone is followed at once, who is silent after a while."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.ledger import lease
from sweeper.ledger.lease import Holder, Lease, LeaseLostError, end, leased
from trainables import durable
from trainables.layout import Layout

HOLD = """
import sys, time
from pathlib import Path
from sweeper.ledger.lease import leased
with leased(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


def quiet(line: str) -> None:
    raise AssertionError(line)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and looks are frequent."""
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    monkeypatch.setattr(lease, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Callable[[bool], Path]]:
    """A function that makes a lease of another machine, with beats or without, and returns its folder."""
    ended = threading.Event()
    threads = []

    def make(has_beats: bool) -> Path:
        folder = Layout(tmp_path).lease(1)
        durable.make_folder(folder)
        holder = Holder("far", "another boot", os.getpid(), 7, "sweeper run x")
        durable.write_record(folder / "holder.json", dataclasses.asdict(holder))

        def beat() -> None:
            count = 0
            while not ended.wait(0.01) and folder.is_dir():
                (folder / "beat").write_text(str(count := count + 1))

        if has_beats:
            threads.append(threading.Thread(target=beat))
            threads[-1].start()
        return folder

    yield make
    ended.set()
    for thread in threads:
        thread.join()


def test_one_after_the_other_has_it_at_once_under_a_growing_number(tmp_path: Path) -> None:
    for number in range(1, 6):
        with leased(tmp_path, quiet) as held:
            assert held.number == number
            held.check()
    assert [folder.name for folder in Layout(tmp_path).leases()] == ["00000004.over", "00000005.over"]


def test_who_waits_is_told_for_whom_and_goes_on_when_that_is_done(tmp_path: Path) -> None:
    said: list[str] = []
    order: list[int] = []

    def second() -> None:
        with leased(tmp_path, said.append) as held:
            order.append(held.number)

    with leased(tmp_path, quiet):
        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            time.sleep(0.01)
        assert order == []
        order.append(1)
    thread.join()
    assert order == [1, 2]
    (line,) = said
    assert f"in use by pid {os.getpid()} on " in line


def test_a_holder_that_was_killed_here_is_followed_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    said: list[str] = []
    with leased(tmp_path, said.append) as held:
        assert held.number == 2
    assert said == [
        f"Takes over storage {tmp_path} from pid {process.pid} on {Holder.here().host} (sweeper {tmp_path}), which is gone."
    ]


@pytest.mark.parametrize("change", [{"started": 1}, {"pid": 2**22 + 1}])
def test_a_process_number_that_is_used_again_is_another_process(change: dict[str, int]) -> None:
    assert not Holder.here().is_gone
    assert dataclasses.replace(Holder.here(), **change).is_gone  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"host": "far"}, {"boot": "another"}, {"boot": ""}])
def test_of_a_process_elsewhere_nothing_is_known(change: dict[str, str]) -> None:
    assert not dataclasses.replace(Holder.here(), pid=2**22 + 1, **change).is_gone  # type: ignore[arg-type]


def test_a_silent_holder_elsewhere_is_followed_after_a_while(
    tmp_path: Path, elsewhere: Callable[[bool], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 0.3)
    folder = elsewhere(False)
    said: list[str] = []
    begun_s = time.monotonic()
    with leased(tmp_path, said.append):
        assert time.monotonic() - begun_s >= 0.3
    assert ["waits until" in line for line in said] == [True, False]
    assert "was not heard of for" in said[1]
    assert not folder.exists()


def test_a_holder_elsewhere_that_beats_is_waited_for(
    tmp_path: Path, elsewhere: Callable[[bool], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 2.0)
    elsewhere(True)
    waited = threading.Event()

    def come_to_an_end() -> None:
        waited.set()
        end(Layout(tmp_path), 1)

    threading.Timer(4.0, come_to_an_end).start()
    with leased(tmp_path, lambda _: None) as held:
        assert waited.is_set()
        assert held.number == 2


def test_who_lost_it_can_begin_nothing(tmp_path: Path) -> None:
    with leased(tmp_path, quiet) as old:
        old.begin(1, {"number": 1})
        end(Layout(tmp_path), old.number)
        with leased(tmp_path, quiet) as new:
            for late in (old.check, lambda: old.begin(2, {"number": 2})):
                with pytest.raises(
                    LeaseLostError, match=f"taken over by pid {os.getpid()} on .*goes on once"
                ):
                    late()
            new.begin(2, {"number": 2})
    assert [path.name for path in Layout(tmp_path).begun_records()] == [
        "begun-00000001.json",
        "begun-00000002.json",
    ]


def test_who_waits_is_told_a_name_even_if_that_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Layout(tmp_path).lease(1)
    durable.make_folder(folder)
    holder = Holder("far", "another boot", 7, 7, "sweeper run x")

    def come_late() -> None:
        durable.write_record(folder / "holder.json", dataclasses.asdict(holder))
        threading.Timer(0.2, end, (Layout(tmp_path), 1)).start()

    threading.Timer(0.2, come_late).start()
    said: list[str] = []
    with leased(tmp_path, said.append):
        pass
    (line,) = said
    assert f"in use by {holder}: waits until" in line


def test_who_died_before_saying_who_it_is_is_followed_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_S", 0.1)
    durable.make_folder(Layout(tmp_path).lease(1))
    said: list[str] = []
    with leased(tmp_path, said.append):
        assert said[-1].startswith(f"Takes over storage {tmp_path} from another driver")


def test_leases_in_which_nothing_began_leave_nothing_and_others_stay(tmp_path: Path) -> None:
    for number in range(1, 8):
        with leased(tmp_path, quiet) as held:
            if number == 3:
                held.begin(1, {"number": 1})
    assert [folder.name for folder in Layout(tmp_path).leases()] == [
        f"{number:08d}.over" for number in (3, 6, 7)
    ]


def test_of_many_that_want_it_one_at_a_time_has_it(tmp_path: Path) -> None:
    inside = threading.Lock()
    numbers: list[int] = []

    def drive() -> None:
        for _ in range(5):
            with leased(tmp_path, lambda _: None) as held:
                assert inside.acquire(blocking=False), "two at once"
                numbers.append(held.number)
                held.check()
                inside.release()

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == numbers == list(range(1, 31))


def test_a_storage_that_is_away_for_a_while_ends_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text
    is_away = True

    def failing(path: Path, *words: str) -> int:
        if is_away:
            raise OSError("no space left")
        return write(path, *words)

    monkeypatch.setattr(Path, "write_text", failing)
    with leased(tmp_path, quiet) as held:
        time.sleep(0.1)
        held.check()
        is_away = False
        while not (Layout(tmp_path).lease(held.number) / "beat").exists():
            time.sleep(0.01)


def test_a_lease_that_is_taken_while_it_begins_is_lost(tmp_path: Path) -> None:
    durable.make_folder(Layout(tmp_path).drivers)
    with pytest.raises(LeaseLostError):
        Lease(tmp_path, 1)
