"""Two drivers with homes of their own over one storage, each of which may take it from the other before any write.

Whatever they do: no number of an attempt is given twice, no block is lost, and all homes and the storage agree in the end.
"""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.ledger import lease as leases
from sweeper.ledger.lease import LeaseLostError, leased
from sweeper.ledger.verify import rebuild
from sweeper.ledger.writer import Ledger
from tests.sweeper.ledger.toy_pack import (
    KEYS,
    SWEEP,
    Pack,
    begin,
    expected,
    finish,
    problems,
    register,
    rows,
    tables,
    unfinished,
)
from trainables import durable

NUM_HISTORIES = 200
"""Of which the quick tests try every tenth."""

MAX_RETURNS = 4
"""How often a driver that lost the storage comes back."""


class Turns:
    """Lets one of several threads run at a time; before each write another one may go on, by chance.

    Args:
        seed: Seed of the chance.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._now: int | None = None
        self.errors: list[BaseException] = []

    def take(self, works: list[Callable[[], None]]) -> None:
        """Run functions in threads, interleaved, to their ends."""
        threads = [threading.Thread(target=self._run, args=(work,)) for work in works]
        with self._changed:
            for thread in threads:
                thread.start()
                self._waiting.append(thread.ident or 0)
            self._pass_on()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def before_a_write(self) -> None:
        """Let another thread go on, perhaps."""
        me = threading.get_ident()
        with self._changed:
            if me in self._waiting and self.chance.random() < 0.3:
                self._pass_on()
                self._changed.wait_for(lambda: self._now == me)

    def _run(self, work: Callable[[], None]) -> None:
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: self._now == me)
        try:
            work()
        except BaseException as error:
            self.errors.append(error)
        with self._changed:
            self._waiting.remove(me)
            self._pass_on()

    def _pass_on(self) -> None:
        self._now = self.chance.choice(self._waiting) if self._waiting else None
        self._changed.notify_all()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Turns]:
    """A function that returns turns which change before whatever is written to a storage."""
    current: list[Turns] = []

    def watched(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if current:
                current[-1].before_a_write()
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    for name in ("mkdir", "replace", "rename", "unlink"):
        watched(Path, name)
    watched(durable, "write_file")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no machine is switched off here
    # Who finds the storage held takes it over at once; beats would only cost time.
    monkeypatch.setattr(leases, "STALE_S", -1.0)
    monkeypatch.setattr(leases, "BEAT_S", 60.0)

    def start(seed: int) -> Turns:
        current.append(Turns(seed))
        return current[-1]

    return start


@pytest.mark.parametrize(
    "seeds",
    [
        range(0, NUM_HISTORIES, 10),
        *(pytest.param(range(part, NUM_HISTORIES, 10), marks=pytest.mark.system) for part in range(1, 10)),
    ],
    ids=lambda seeds: f"from {seeds[0]}",
)
def test_any_interleaving_of_two_drivers_ends_as_an_undisturbed_one(
    seeds: range, turns: Callable[[int], Turns], tmp_path: Path
) -> None:
    num_lost = 0
    for seed in seeds:
        storage, homes = tmp_path / f"{seed}", [tmp_path / f"{seed} {name}.db" for name in "ab"]
        packs: list[Pack] = []
        now = turns(seed)

        def drive(home: Path, now: Turns = now, storage: Path = storage, packs: list[Pack] = packs) -> None:
            nonlocal num_lost
            for _ in range(MAX_RETURNS):
                try:
                    with leased(storage, lambda _: None) as held, Ledger(home, storage, held) as ledger:
                        ledger.ingest()
                        register(ledger, KEYS)
                        while keys := unfinished(ledger):
                            pack = begin(ledger, now.chance.sample(keys, min(2, len(keys))))
                            packs.append(pack)
                            while path := pack.write():
                                ledger.check_lease()
                                ledger.take(path)
                                if now.chance.random() < 0.2:
                                    break
                            ledger.end_attempt(pack.attempt, "stopped")
                        return
                except LeaseLostError:
                    num_lost += 1

        now.take([lambda home=home: drive(home) for home in homes])  # type: ignore[misc]
        numbers = [pack.attempt for pack in packs]
        assert len(set(numbers)) == len(numbers), seed
        for pack in packs:  # workers whose drivers are gone
            pack.write()
        for home in homes * 2:
            with leased(storage, lambda _: None) as held, Ledger(home, storage, held) as ledger:
                assert ledger.ingest().problems == (), seed
                finish(ledger)
                assert rows(ledger.records.points(SWEEP)) == expected(), seed
                assert ledger.records.counts(SWEEP) == {"done": 3, "diverged": 1}, seed
                assert problems(ledger) == [], seed
        rebuild(tmp_path / f"{seed} again.db", storage)
        assert tables(homes[0]) == tables(homes[1]) == tables(tmp_path / f"{seed} again.db"), seed
    assert num_lost > len(seeds) // 2, "the drivers met"
