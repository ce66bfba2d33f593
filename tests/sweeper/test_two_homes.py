"""Two homes over one storage: whoever comes second waits, whoever is gone is followed, and all have the answer of one home."""

import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest

from sweeper.ledger.reader import Records
from sweeper.ledger.verify import check
from tests.sweeper.conftest import Typed
from trainables.layout import Layout

pytestmark = pytest.mark.system

SWEEP = ["betavae_beta", "--scale", "smoke"]
CSV = Path("exports", "betavae_beta-smoke.csv")
LONG = ["--set", "steps=2500", "--set", "evaluate_every=2500", "--as", "long"]

StartDriver = Callable[..., Popen[str]]


def words(home: Path, storage: Path, *more: str) -> list[object]:
    return ["run", *SWEEP, "--home", home, "--storage", storage, "--no-ray", *more]


def holder_of(storage: Path) -> str:
    """The folder of the lease that is held, once one is."""
    while True:
        if held := [folder.name for folder in Layout(storage).leases() if not folder.suffix]:
            return held[0]
        time.sleep(0.02)


def wait_for_a_block(storage: Path) -> None:
    while not Layout(storage).manifests():
        time.sleep(0.02)


def assert_whole(*homes: Path) -> None:
    numbers = []
    for home in homes:
        storage = Path((home / "storage.path").read_text().strip())
        assert check(home / "ledger.db", storage) == []
        with closing(Records.open(home / "ledger.db")) as records:
            numbers.append([attempt.number for attempt in records.attempts()])
            done = "SELECT run, COUNT(*) FROM block_runs WHERE status = 'done' GROUP BY run"
            assert {count for _, count in records.db.execute(done)} == {1}
    assert all(found == numbers[0] for found in numbers)


def test_who_comes_second_waits_and_trains_only_what_is_left(
    tmp_path: Path, typed: Callable[..., Typed], start_driver: StartDriver
) -> None:
    a, b, storage = tmp_path / "a", tmp_path / "b", tmp_path / "storage"
    first = start_driver(*words(a, storage, "--seeds", "0-3"))
    holder_of(storage)
    second = typed(*words(b, storage, "--seeds", "2-5"))
    assert first.wait() == 0
    assert second.code == 0, second.err
    assert f"in use by pid {first.pid} on " in second.err
    assert "4 runs trained, 8 done before" in second.out
    again = typed(*words(a, storage, "--seeds", "0-5"))
    assert "0 runs trained, 12 done before" in again.out
    alone = typed("run", *SWEEP, "--seeds", "0-5", "--no-ray", "--home", tmp_path / "alone")
    assert alone.code == 0, alone.err
    assert (a / CSV).read_bytes() == (b / CSV).read_bytes() == (tmp_path / "alone" / CSV).read_bytes()
    assert_whole(a, b)


def test_a_driver_that_is_killed_is_followed_from_another_home_at_once(
    tmp_path: Path, typed: Callable[..., Typed], start_driver: StartDriver
) -> None:
    a, b, storage = tmp_path / "a", tmp_path / "b", tmp_path / "storage"
    first = start_driver(*words(a, storage, *LONG))
    wait_for_a_block(storage)
    first.kill()
    first.wait()
    second = typed(*words(b, storage, *LONG))
    assert second.code == 0, second.err
    assert f"Takes over storage {storage} from pid {first.pid} on " in second.err
    assert "which is gone." in second.err
    assert typed(*words(a, storage, *LONG)).code == 0
    assert_whole(a, b)


def test_a_driver_that_is_stopped_is_followed_after_a_while_and_ends_when_it_goes_on(
    tmp_path: Path, start_driver: StartDriver
) -> None:
    a, b, storage = tmp_path / "a", tmp_path / "b", tmp_path / "storage"
    first = start_driver(*words(a, storage, *LONG))
    wait_for_a_block(storage)
    first.send_signal(signal.SIGSTOP)
    second = start_driver(*words(b, storage, *LONG))
    _, said = second.communicate()
    assert second.returncode == 0, said
    assert f"from pid {first.pid} on " in said
    assert "was not heard of for 30 s" in said
    first.send_signal(signal.SIGCONT)
    _, said = first.communicate()
    assert first.returncode == 3, said
    assert f"was taken over by pid {second.pid} on " in said or "was taken over by another driver" in said
    third = start_driver(*words(a, storage, *LONG))
    out, said = third.communicate()
    assert third.returncode == 0, said
    assert "0 runs trained, 4 done before" in out
    assert_whole(a, b)
