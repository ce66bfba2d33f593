"""Dropping the states of finished runs: what goes, what stays, and that ledger, storage and a rebuilt ledger agree."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.home import Home
from sweeper.ledger import registry
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import check, rebuild
from sweeper.ledger.writer import Ledger
from sweeper.tracking.sync import lock_projection
from tests.sweeper.conftest import Typed
from tests.sweeper.ledger.toy_pack import (
    HORIZON,
    begin,
    expected,
    finish,
    problems,
    register,
    rows,
    state,
    tables,
)

SWEEP, LONGER = SweepId("toy", "smoke"), SweepId("toy", "smoke", "longer")
KEYS = ["a", "b", "c", "d"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A sweep of four runs that are done, in two packs."""
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        register(ledger, KEYS)
        for keys in (KEYS[:2], KEYS[2:]):
            pack = begin(ledger, keys)
            while path := pack.write():
                ledger.take(path)
            ledger.end_attempt(pack.attempt, "done")
        yield ledger


def states(ledger: Ledger) -> set[str]:
    return {key for key, *_ in ledger.records.needed_states()}


def files(ledger: Ledger) -> list[str]:
    return sorted(path.parent.name for path in ledger.storage.rglob("*.slices"))


def test_states_go_and_what_was_learned_stays(ledger: Ledger) -> None:
    assert states(ledger) == set(KEYS)
    ledger.drop_states(KEYS)
    assert (states(ledger), files(ledger)) == (set(), [])
    assert rows(ledger.records.points(SWEEP)) == expected(KEYS)
    (encoding,) = ledger.records.slices("a", "encoding")
    assert encoding.read(ledger.storage) == f"codes of a at {HORIZON}".encode()
    assert ledger.records.counts(SWEEP) == {"done": 4}
    assert problems(ledger) == []


def test_a_file_stays_while_a_run_in_it_needs_it(ledger: Ledger) -> None:
    ledger.drop_states(["a", "c", "d"])
    assert (states(ledger), files(ledger)) == ({"b"}, ["00000001"])
    assert problems(ledger) == []
    (newest,) = ledger.records.resume_points(["b"])["b"]
    assert newest.read(ledger.storage) == state("b", HORIZON)
    ledger.drop_states(["b"])
    assert files(ledger) == []
    assert problems(ledger) == []


def test_a_ledger_made_again_and_an_old_copy_know_what_was_dropped(ledger: Ledger, tmp_path: Path) -> None:
    old = (tmp_path / "old.db", tmp_path / "again.db")
    with closing(Records.open(ledger.path)) as records:
        records.db.execute("VACUUM INTO ?", (str(old[0]),))
    ledger.drop_states(KEYS[:3])
    rebuild(old[1], ledger.storage)
    assert tables(old[1]) == tables(ledger.path)
    with Ledger(old[0], ledger.storage) as copy:
        assert copy.ingest().problems == ()
        assert tables(copy.path) == tables(ledger.path)


def test_more_steps_train_from_0_and_what_is_written_then_is_kept(ledger: Ledger) -> None:
    ledger.drop_states(KEYS)
    register(ledger, ["a"], horizon=60, sweep=LONGER)
    assert ledger.records.resume_steps(["a"]) == {"a": 0}
    pack = begin(ledger, ["a"], horizon=60)
    assert pack.step == 0
    while path := pack.write():
        ledger.take(path)
    ledger.end_attempt(pack.attempt, "done")
    assert rows(ledger.records.points(LONGER)) == expected(["a"], horizon=60)
    assert ledger.records.resume_steps(["a"]) == {"a": 60}
    assert problems(ledger) == []


def test_a_damaged_record_of_what_was_dropped_is_named_and_blocks_nothing(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.drop_states(KEYS)
    (record,) = (ledger.storage / "pruned").iterdir()
    record.write_bytes(record.read_bytes()[:-9])
    assert any(str(record) in line for line in problems(ledger))
    assert ledger.ingest().problems == (f"{record} is damaged: its content does not match its sha256.",)
    register(ledger, ["a", "e"], horizon=60, sweep=LONGER)
    finish(ledger)
    found = rebuild(tmp_path / "again.db", ledger.storage)
    assert len(found.problems) == 1
    assert found.num_taken > 0
    assert tables(tmp_path / "again.db")["points"] == tables(ledger.path)["points"]


@pytest.mark.parametrize("moment", ["before the ledger knows", "before files go"])
def test_a_prune_that_is_killed_is_finished_by_the_next(
    ledger: Ledger, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = {"before the ledger knows": (registry, "forget_states"), "before files go": (Ledger, "prune")}
    with monkeypatch.context() as patch:
        patch.setattr(*stop[moment], interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger.drop_states(KEYS)
    assert files(ledger)
    assert problems(ledger) == []
    ledger.ingest()
    assert states(ledger) == set()
    ledger.prune()
    assert files(ledger) == []
    assert problems(ledger) == []


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_another_sweep_wants_further_is_not_finished(ledger: Ledger) -> None:
    register(ledger, ["a"], horizon=60, sweep=LONGER)
    assert ledger.records.finished(SWEEP) == {"b", "c", "d"}
    assert ledger.records.finished(LONGER) == set()
    finish(ledger)


def test_the_command_says_what_it_freed_and_that_more_steps_start_over(
    typed: Callable[..., Typed], trained_home: Path, tmp_path: Path
) -> None:
    home = Home.at(shutil.copytree(trained_home, tmp_path / "home"))
    words = ["factorvae_gamma", "--scale", "smoke", "--home", home.path]
    before = typed("pareto", *words).out
    size = sum(path.stat().st_size for path in home.storage.rglob("*.slices"))
    assert size > 10**6
    pruned = typed("prune", *words)
    assert pruned.code == 0
    assert f"Deleted the states of 4 runs: {size / 2**20:.0f} MiB freed." in pruned.out
    assert "from step 0" in pruned.out
    assert not list(home.storage.rglob("*.slices"))
    assert typed("prune", *words).out == "Nothing to delete: no finished run of these sweeps keeps a state.\n"
    assert typed("pareto", *words).out == before
    assert check(home.ledger, home.storage) == []
    with lock_projection(home):
        again = typed("run", *words, "--no-ray", "--json")
    assert json.loads(again.out)["steps_trained"] == 0
    longer = typed("plan", *words, "--set", "steps=300", "--as", "longer")
    assert longer.code == 0, longer.err
    assert "so again from step 0: 4 runs." in longer.out
