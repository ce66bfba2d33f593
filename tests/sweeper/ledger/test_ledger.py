import contextlib
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeper.ledger import schema
from sweeper.ledger.lease import leased
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import rebuild
from sweeper.ledger.writer import ConflictError, Draw, Ledger
from tests.specs import sweep_spec
from tests.sweeper.ledger.toy_pack import (
    BAD_STEP,
    HORIZON,
    KEYS,
    SPEC,
    SWEEP,
    Pack,
    begin,
    expected,
    finish,
    member,
    problems,
    register,
    rows,
    state,
    tables,
    toy_spec,
    value,
)
from trainables.blocks import Manifest, Point, RunEntry, write_block
from trainables.durable import DamagedBlockError
from trainables.errors import InputError, UnknownNameError
from trainables.layout import Layout, block_of


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        register(ledger, KEYS)
        yield ledger


def test_an_undisturbed_sweep_is_recorded_whole(ledger: Ledger) -> None:
    finish(ledger)
    assert rows(ledger.records.points(SWEEP)) == expected()
    assert {"nan", "inf", "-inf"} <= {row[-1] for row in expected()}
    assert ledger.records.counts(SWEEP) == {"done": 3, "diverged": 1}
    assert [
        (m.key, m.draw, m.params["gamma"], m.seed, m.step, m.numerics) for m in ledger.records.members(SWEEP)
    ] == [
        ("a", 0, 0.0, 0, HORIZON, "toy"),
        ("b", 0, 0.0, 1, HORIZON, "toy"),
        ("bad c", 1, 0.25, 0, BAD_STEP, "toy"),
        ("d", 1, 0.25, 1, HORIZON, "toy"),
    ]
    (cost,) = ledger.records.costs()
    assert (cost.num_runs, cost.num_steps, cost.train_s) == (4, HORIZON, HORIZON)
    (attempt,) = ledger.records.attempts()
    assert (attempt.numerics, attempt.host, attempt.pid) == ("toy", "here", "1")
    (encoding,) = ledger.records.slices("a", "encoding")
    assert encoding.read(ledger.storage) == f"codes of a at {HORIZON}".encode()
    assert problems(ledger) == []


commands = st.lists(
    st.one_of(
        st.tuples(
            st.just("begin"),
            st.permutations(KEYS),
            st.integers(0, 2),
            st.sampled_from([5, 10, 15]),
            st.integers(1, 3),
        ),
        st.tuples(st.just("write"), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 99)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("prune")),
    ),
    max_size=30,
)


FROM_THE_STATE_BEFORE: list[tuple[Any, ...]] = [
    ("begin", KEYS, 0, 5, 1),
    *[("write", 0)] * 3,
    ("begin", KEYS, 1, 5, 2),
    ("write", 1),
]
"""A worker keeps the states of steps 10 and 15; the next attempt goes on from 10 and dies before its first state."""


@given(commands)
@example([*FROM_THE_STATE_BEFORE, ("begin", KEYS, 0, 5, 1), ("crash",)])
@example([*FROM_THE_STATE_BEFORE, ("begin", KEYS, 1, 5, 1)])
@settings(max_examples=30, deadline=None)
def test_any_history_of_crashes_replays_and_orphans_ends_as_the_undisturbed_one(
    history: list[tuple[Any, ...]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path, storage = Path(folder, "ledger.db"), Path(folder, "storage")
        ledger = stack.enter_context(Ledger(path, storage))
        register(ledger, KEYS)
        packs: list[Pack] = []
        for command, *arguments in history:
            if command == "begin":
                order, choice, num_steps, every = arguments
                packs.append(begin(ledger, order[:3], choice, num_steps=num_steps, state_every=every))
            elif command == "write" and packs:
                packs[arguments[0] % len(packs)].write()
            elif command == "take" and Layout(storage).manifests():
                manifests = Layout(storage).manifests()
                ledger.take(manifests[arguments[0] % len(manifests)])
            elif command == "crash":
                ledger.close()
                ledger = stack.enter_context(Ledger(path, storage))
                assert ledger.ingest().problems == ()
                assert problems(ledger) == []
            elif command == "prune":
                ledger.prune()
        finish(ledger)
        for pack in packs:
            pack.write()
        assert ledger.ingest().problems == ()
        assert rows(ledger.records.points(SWEEP)) == expected()
        assert ledger.records.counts(SWEEP) == {"done": 3, "diverged": 1}
        assert problems(ledger) == []
        rebuild(Path(folder, "again.db"), storage)
        assert tables(Path(folder, "again.db")) == tables(path)


def test_a_stale_attempt_is_refused_and_recorded_nowhere(ledger: Ledger) -> None:
    old = begin(ledger, ["a", "b"])
    ledger.take(old.commit())
    new = begin(ledger, ["a"])
    before = tables(ledger.path)
    late = old.commit()
    assert ledger.take(late) == "stale"
    assert ledger.ingest().num_stale == 1
    assert tables(ledger.path) == before
    assert ledger.take(new.commit()) == "taken"
    assert [m.step for m in ledger.records.members(SWEEP)] == [20, 10, 0, 0]
    assert problems(ledger) == []


def test_a_fenced_worker_leaves_the_states_that_the_next_one_needs(ledger: Ledger) -> None:
    old = begin(ledger, ["a"], num_steps=5)
    for _ in range(3):
        old.write()
    new = begin(ledger, ["a"])
    for _ in range(3):
        old.write()
    newest, before = ledger.records.resume_points(["a"])["a"]
    assert (newest.step, newest.read(ledger.storage)) == (15, state("a", 15))
    assert (before.step, before.read(ledger.storage)) == (10, state("a", 10))
    assert new.attempt == 2


def test_catching_up_takes_in_what_attempts_at_some_runs_committed_and_reads_no_other_files(
    ledger: Ledger,
) -> None:
    old, other = begin(ledger, ["a"]), begin(ledger, ["d"])
    new = begin(ledger, ["a", "b"])
    late = old.commit()
    new.commit()
    new.commit()
    damaged = other.commit()
    damaged.write_text("not a block")
    ledger.catch_up(["a", "b"])
    assert ledger.records.resume_steps(["a", "b", "d"]) == {"a": 20, "b": 20, "d": 0}
    assert ledger.take(late) == "stale"
    assert ledger.ingest().problems == (f"{damaged} is damaged: its content does not match its sha256.",)


def test_beginning_an_attempt_takes_in_what_the_last_one_did_not_report(ledger: Ledger) -> None:
    old = begin(ledger, ["a"])
    old.write()
    old.write()
    ledger.begin_attempt(["a"])
    (newest, before) = ledger.records.resume_points(["a", "b"])["a"]
    assert (newest.step, before.step) == (20, 10)
    assert ledger.records.resume_points(["b"]) == {"b": ()}


def test_a_block_brings_those_before_it_and_a_gap_is_an_error(ledger: Ledger) -> None:
    pack = begin(ledger, ["a"])
    first, second, third = pack.commit(), pack.commit(), pack.commit()
    assert ledger.take(second) == "taken"
    assert ledger.take(first) == ledger.take(second) == "known"
    third.rename(third.with_name("block-000005.json"))
    with pytest.raises(DamagedBlockError, match=r"block-000002\.json is missing"):
        ledger.take(third.with_name("block-000005.json"))


def test_a_damaged_block_is_refused_and_the_rest_goes_on(ledger: Ledger) -> None:
    pack, other = begin(ledger, ["a"]), begin(ledger, ["b"])
    ledger.take(pack.commit())
    bad = pack.commit()
    for worker in (pack, other):
        worker.write()
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(DamagedBlockError, match=bad.name):
        ledger.take(bad)
    found = ledger.ingest()
    assert (found.num_taken, len(found.problems)) == (1, 1)
    assert str(bad) in found.problems[0]
    assert [m.step for m in ledger.records.members(SWEEP)] == [10, 10, 0, 0]
    over = begin(ledger, ["a"], choice=2)
    while path := over.write():
        ledger.take(path)
    finish(ledger)
    assert rows(ledger.records.points(SWEEP)) == expected()


@pytest.mark.parametrize("error", [0.5, math.nan, math.inf])
def test_a_different_result_in_one_class_of_numerics_changes_nothing_and_the_run_is_mixed(
    ledger: Ledger, error: float, tmp_path: Path
) -> None:
    finish(ledger)
    before = tables(ledger.path)["points"]
    assert [row.numerics for row in ledger.records.members(SWEEP)] == ["toy"] * 4
    number = ledger.begin_attempt(["a"])
    path = Pack(ledger.storage, number, ["a"], 0, error=error).commit()
    assert ledger.take(path) == "taken"
    (complaint,) = ledger.complaints
    for word in (str(path), "run a, ", " at step ", " was ", " and is ", "'mixed'"):
        assert word in complaint
    assert tables(ledger.path)["points"] == before
    assert [row.numerics for row in ledger.records.members(SWEEP)] == ["mixed", *["toy"] * 3]
    assert problems(ledger) == []
    rebuild(tmp_path / "again.db", ledger.storage)
    assert tables(tmp_path / "again.db")["blocks"] == tables(ledger.path)["blocks"]


def test_another_class_of_numerics_may_finish_a_run_but_changes_nothing_committed(ledger: Ledger) -> None:
    ledger.take(begin(ledger, ["a"], num_steps=20).commit())
    pack = begin(ledger, ["a"], choice=1, numerics="another", error=0.5)
    while path := pack.write():
        ledger.take(path)
    found = {(row[1], row[2]): row[4] for row in rows(ledger.records.run_points("a"))}
    for (name, step), text in found.items():
        assert text == repr(value("a", name, step) + (0.5 if step > 20 else 0.0))
    assert ledger.records.members(SWEEP)[0].numerics == "mixed"
    assert problems(ledger) == []


def test_a_block_that_goes_on_from_nowhere_is_a_conflict(ledger: Ledger) -> None:
    ledger.take(begin(ledger, ["a"]).commit())
    number = ledger.begin_attempt(["a"])
    with pytest.raises(ConflictError, match="run a continues from step 7"):
        ledger.take(Pack(ledger.storage, number, ["a"], 7).commit())
    Layout(ledger.storage).manifest(number, 0).unlink()
    number = ledger.begin_attempt(["a"])
    with pytest.raises(ConflictError, match="run b is not one of attempt 3"):
        ledger.take(Pack(ledger.storage, number, ["b"], 0).commit())


def test_a_block_written_again_is_a_conflict(ledger: Ledger) -> None:
    path = begin(ledger, ["a"]).commit()
    ledger.take(path)
    path.unlink()
    Pack(ledger.storage, 1, ["a"], 0, error=1.0).write()
    with pytest.raises(ConflictError, match="was rewritten"):
        ledger.take(path)
    assert any("differs from what the ledger read" in line for line in problems(ledger))


def test_a_damaged_state_falls_back_to_the_one_before_and_equal_points_are_accepted(ledger: Ledger) -> None:
    pack = begin(ledger, ["a", "b"])
    for _ in range(2):
        ledger.take(pack.commit())
    newest, before = ledger.records.resume_points(["a"])["a"]
    file = Layout(ledger.storage).manifest(newest.attempt, newest.index).with_suffix(".slices")
    file.write_bytes(b"?" * file.stat().st_size)
    with pytest.raises(DamagedBlockError):
        newest.read(ledger.storage)
    assert before.read(ledger.storage) == state("a", 10)
    again = begin(ledger, ["a", "b"], choice=1)
    assert ledger.take(again.commit()) == "taken"
    assert rows(ledger.records.run_points("a")) == expected(["a"], 20)
    assert ledger.records.resume_points(["a"])["a"][0].attempt == again.attempt


def test_a_damaged_state_that_was_gone_behind_is_given_up_and_the_ones_around_it_stay(ledger: Ledger) -> None:
    """One block takes the run from before the damage to its end, so nothing newer pushes the damaged state out."""
    pack = begin(ledger, ["a"], num_steps=10)
    for _ in range(3):
        ledger.take(pack.commit())
    newest, before = ledger.records.resume_points(["a"])["a"]
    file = Layout(ledger.storage).manifest(newest.attempt, newest.index).with_suffix(".slices")
    file.write_bytes(b"?" * file.stat().st_size)
    assert any("It holds 'state' of run a" in line for line in problems(ledger))
    again = begin(ledger, ["a"], choice=1, num_steps=HORIZON)
    ledger.take(again.commit())
    assert [s.step for s in ledger.records.resume_points(["a"])["a"]] == [HORIZON]
    assert problems(ledger) == [], "what nobody resumes from cannot be a problem"
    register(ledger, ["a"], horizon=60)
    again = begin(ledger, ["a"], num_steps=5, horizon=60)
    ledger.take(again.commit())
    assert [s.step for s in ledger.records.resume_points(["a"])["a"]] == [HORIZON + 5, HORIZON]
    ledger.prune()
    assert not file.exists()
    assert before.step == 20
    assert problems(ledger) == []


def test_scoring_a_shorter_sweep_gives_up_no_state_of_a_longer_one(ledger: Ledger) -> None:
    """It begins behind what was trained since, and trains nothing."""
    finish(ledger)
    longer = SweepId("toy", "smoke", "longer")
    register(ledger, ["a"], horizon=80, sweep=longer)
    pack = begin(ledger, ["a"], horizon=80)
    for _ in range(3):
        ledger.take(pack.commit())
    ledger.prune()
    number = ledger.begin_attempt(["a"])
    entry = RunEntry("a", 0, "done", HORIZON, HORIZON, toy_spec("a"))
    points = (Point("a", HORIZON, 2e9, "mig", 0.5),)
    manifest = Manifest(
        number, 0, HORIZON, HORIZON, "scored", "1", 2e9, 1.0, (entry,), points, {"mig": "mig(v1)"}
    )
    ledger.take(write_block(ledger.storage, manifest, {}))
    assert [stored.step for stored in ledger.records.resume_points(["a"])["a"]] == [70, 60]
    assert ledger.prune() == 0
    assert problems(ledger) == []


def test_a_status_says_where_a_run_stands(ledger: Ledger) -> None:
    assert ledger.records.counts(SWEEP) == {"planned": 4}
    pack = begin(ledger, ["a", "b"])
    assert ledger.records.counts(SWEEP) == {"planned": 2, "running": 2}
    ledger.take(pack.commit())
    shorter = SweepId("toy", "smoke", "shorter")
    register(ledger, ["a"], horizon=10, sweep=shorter)
    assert ledger.records.counts(shorter) == {"done": 1}, "it has come that far"
    ledger.end_attempt(pack.attempt, "failed", "out of memory")
    ledger.end_attempt(pack.attempt, "done")
    ledger.record_failure("a", pack.attempt, "error", "CUDA error")
    assert [m.status for m in ledger.records.members(SWEEP)] == ["failed", "planned", "planned", "planned"]
    (failure,) = ledger.records.failures()
    assert (failure.key, failure.attempt, failure.message) == ("a", 1, "CUDA error")
    assert [(a.outcome, a.error) for a in ledger.records.attempts()] == [("failed", "out of memory")]
    begin(ledger, ["a"])
    assert ledger.records.members(SWEEP)[0].status == "running"
    finish(ledger)
    assert ledger.records.counts(SWEEP) == {"done": 3, "diverged": 1}
    rebuild(ledger.path.with_name("again.db"), ledger.storage)
    assert tables(ledger.path.with_name("again.db")) == tables(ledger.path)


def test_a_longer_horizon_continues_what_was_done_elsewhere(ledger: Ledger) -> None:
    finish(ledger)
    longer = SweepId("toy", "smoke", "longer")
    register(ledger, ["a"], horizon=60, sweep=longer)
    assert ledger.records.counts(longer) == {"planned": 1}
    pack = begin(ledger, ["a"], horizon=60)
    assert pack.step == HORIZON
    ledger.take(pack.commit())
    assert ledger.records.counts(longer) == {"running": 1}
    assert ledger.records.counts(SWEEP) == {"done": 3, "diverged": 1}
    ledger.take(pack.commit())
    assert ledger.records.counts(longer) == {"done": 1}
    assert rows(ledger.records.run_points("a")) == expected(["a"], 60)


def test_registering_again_writes_nothing_and_more_seeds_only_add(ledger: Ledger) -> None:
    record = ledger.storage / "sweeps" / "toy-smoke.json"
    before = record.stat()
    assert not register(ledger, KEYS)
    assert record.stat() == before
    draw = Draw(0, {"gamma": 0.0}, (member("a", 0), member("b", 1), member("more", 2)))
    assert ledger.register_sweep(SWEEP, SPEC, [draw])
    assert [m.key for m in ledger.records.members(SWEEP)] == ["a", "b", "more", "bad c", "d"]
    assert problems(ledger) == []


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (
            Draw(0, {"beta": 9.0}, (member("a", 0),)),
            'draw {"gamma":0.0}, not {"beta":9.0}, which has other hyperparameters',
        ),
        (
            Draw(0, {"gamma": 0.0}, (member("x", 0),)),
            "key=a, not x",
        ),
        (Draw(0, {"gamma": 0.0}, (member("a", 0, 30),)), "steps=40, not 30"),
    ],
    ids=["params", "run", "steps"],
)
def test_a_changed_sweep_asks_for_a_label(ledger: Ledger, draw: Draw, why: str) -> None:
    before = tables(ledger.path)
    with pytest.raises(InputError) as raised:
        ledger.register_sweep(SWEEP, SPEC, [draw])
    assert why in str(raised.value)
    assert "--as LABEL" in str(raised.value)
    assert tables(ledger.path) == before
    with pytest.raises(InputError, match="--as"):
        SweepId("toy", "smoke", "../x")
    with pytest.raises(UnknownNameError, match="toy-smoke"):
        ledger.records.members(SweepId("toy", "laptop"))


def test_a_value_put_into_the_middle_of_a_grid_adds_a_draw_and_moves_none(ledger: Ledger) -> None:
    before = {row.key: row.draw for row in ledger.records.members(SWEEP)}
    known = sorted({cast(float, row.params["gamma"]) for row in ledger.records.members(SWEEP)})
    draws = [Draw(number, {"gamma": gamma}, ()) for number, gamma in enumerate([-1.0, *known])]
    draws[0] = Draw(0, {"gamma": -1.0}, (member("new", 0),))
    assert ledger.register_sweep(SWEEP, SPEC, draws)
    after = {row.key: row.draw for row in ledger.records.members(SWEEP)}
    assert after == before | {"new": max(before.values()) + 1}


def test_intentions_recorded_by_a_driver_that_then_died_are_learnt(ledger: Ledger, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "before.db")) as copy:
        ledger._db.backup(copy)
    register(ledger, ["x", "y"], sweep=SweepId("toy", "smoke", "new"))
    begin(ledger, ["a"])
    ledger.end_attempt(begin(ledger, ["a", "x"]).attempt, "failed", "killed")
    ledger.record_failure("x", 2, "error", "killed")
    with Ledger(tmp_path / "before.db", ledger.storage) as copy:
        assert copy.ingest().problems == ()
        assert tables(copy.path) == tables(ledger.path)
        assert problems(copy) == []


def test_a_run_of_no_sweep_cannot_be_attempted(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no registered sweep"):
        ledger.begin_attempt(["nobody"])
    assert ledger.records.attempts() == []


def test_an_old_copy_of_the_ledger_catches_up_and_never_reuses_a_number(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.take(begin(ledger, ["a", "b"]).commit())
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as copy:
        ledger._db.backup(copy)
    begin(ledger, ["d"])
    finish(ledger)
    with Ledger(tmp_path / "old.db", ledger.storage) as old:
        assert old.begin_attempt(["d"]) == 1 + max(a.number for a in ledger.records.attempts())
    with contextlib.closing(sqlite3.connect(tmp_path / "older.db")) as copy:
        ledger._db.backup(copy)
        copy.executescript(
            "DELETE FROM points; DELETE FROM slices; DELETE FROM block_runs; DELETE FROM blocks;"
        )
    with Ledger(tmp_path / "older.db", ledger.storage) as old:
        old.ingest()
        assert rows(old.records.points(SWEEP)) == expected()


def test_a_ledger_with_plans_belongs_to_one_storage(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.db", tmp_path / "elsewhere") as other:
        register(other, KEYS)
    with pytest.raises(InputError, match="--storage"):
        Ledger(tmp_path / "other.db", ledger.storage)
    begin(ledger, ["a"])
    with pytest.raises(InputError, match="--storage"):
        Ledger(ledger.path, tmp_path / "empty")


def test_a_storage_may_have_several_ledgers(ledger: Ledger, tmp_path: Path) -> None:
    finish(ledger)
    with Ledger(tmp_path / "elsewhere" / "ledger.db", ledger.storage) as other:
        other.ingest()
        assert problems(other) == []
    assert tables(other.path) == tables(ledger.path)


def test_packs_trained_without_a_driver_can_be_taken_in(tmp_path: Path) -> None:
    pack = Pack(tmp_path / "storage", 1, ["a", "bad"], 0)
    while pack.write():
        pass
    storage = tmp_path / "storage"
    with leased(storage, print) as held, Ledger(tmp_path / "ledger.db", storage, held) as ledger:
        assert ledger.ingest().num_taken == 4
        assert rows(ledger.records.run_points("a")) == expected(["a"])
        assert problems(ledger) == []
        rebuild(tmp_path / "again.db", ledger.storage)
        assert tables(tmp_path / "again.db") == tables(ledger.path)


def test_superseded_states_go_and_needed_ones_stay(ledger: Ledger) -> None:
    for _ in range(3):
        pack = begin(ledger, KEYS, num_steps=5)
        for _ in range(2):
            ledger.take(pack.commit())
        assert len(list(ledger.storage.rglob("*.slices"))) > 0
    finish(ledger)
    ledger.prune()
    left = {block_of(path) for path in ledger.storage.rglob("*.slices")}
    assert left == {(attempt, block) for _, attempt, block in ledger.records.needed_states()}
    assert len(left) == 1, "a run that is done keeps its last"
    assert problems(ledger) == []


def test_a_newer_schema_is_refused_with_both_versions(ledger: Ledger) -> None:
    with contextlib.closing(sqlite3.connect(ledger.path)) as db:
        db.execute("PRAGMA user_version = 99")
    for opening in (lambda: Ledger(ledger.path, ledger.storage), lambda: Records.open(ledger.path)):
        with pytest.raises(
            InputError, match=f"version 99; this program reads versions up to {schema.VERSION}"
        ):
            opening()


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all " * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as db:
        db.execute("CREATE TABLE t (x)")
    (tmp_path / "empty").touch()
    with pytest.raises(sqlite3.DatabaseError, match="empty"):
        Records.open(tmp_path / "empty")
    refusals: list[tuple[str, type[Exception], str]] = [
        ("text", sqlite3.DatabaseError, "not a database"),
        ("other", InputError, "another program"),
    ]
    for name, kind, why in refusals:
        with pytest.raises(kind, match=why):
            Records.open(tmp_path / name)
        with pytest.raises(kind, match=why):
            Ledger(tmp_path / name, tmp_path / "storage")
    with pytest.raises(InputError, match="No ledger"):
        Records.open(tmp_path / "missing")


def test_readers_work_while_the_driver_writes(ledger: Ledger) -> None:
    pack = begin(ledger, ["a"])
    path = pack.commit()
    with contextlib.closing(Records.open(ledger.path)) as reader, schema.transaction(ledger._db):
        ledger._db.execute("DELETE FROM members")
        assert reader.counts(SWEEP) == {"planned": 3, "running": 1}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.db.execute("DELETE FROM members")
        ledger._db.execute("INSERT INTO runs (key, spec) VALUES ('temporary', '{}')")
    ledger.take(path)


def test_a_failed_write_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    path = begin(ledger, ["a"]).commit()
    before = tables(ledger.path)
    (num_pages,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {num_pages}")
    big = sweep_spec(note="x" * 100_000)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ledger.register_sweep(SweepId("big", "smoke"), big, [])
    assert tables(ledger.path) == before
    ledger._db.execute("PRAGMA max_page_count = 1000000")
    ledger.take(path)
    assert problems(ledger) == []


@pytest.mark.system
def test_a_driver_killed_at_any_moment_loses_nothing_that_it_said(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    rng = random.Random(0)
    said = set()
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("toy_pack.py"), tmp_path],
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0.02, 0.4))
            process.send_signal(signal.SIGKILL)
            said |= {tuple(line.split()) for line in process.stdout if line.endswith("json\n")}
        with contextlib.closing(Records.open(tmp_path / "ledger.db")) as records:
            records.sweeps()
        with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
            assert ledger.ingest().problems == ()
            assert problems(ledger) == []
            known = set(ledger._db.execute("SELECT attempt, number FROM blocks"))
            assert {block_of(Path(*line)) for line in said} <= known
            for sweep in ledger.records.sweeps():
                for m in ledger.records.members(sweep):
                    assert rows(ledger.records.run_points(m.key)) == expected([m.key], m.step)
    assert len(said) > 8
    rebuild(tmp_path / "again.db", tmp_path / "storage")
    assert tables(tmp_path / "again.db") == tables(tmp_path / "ledger.db")


def test_a_ledger_of_before_learns_from_their_names_which_sweeps_exports_are_of(ledger: Ledger) -> None:
    other = SweepId("other", "smoke", "b")
    ledger.register_sweep(other, SPEC, [])
    (sweep,) = set(ledger.records.sweeps()) - {other}
    folder = ledger.path.parent
    names = {f"{sweep}.csv": (sweep,), f"{sweep}+{other}_left_out.csv": (sweep, other), "mine.csv": ()}
    for name, sweeps in names.items():
        (folder / name).write_text(name)
        ledger.record_export(folder / name, "front", sweeps)
    kept = ledger.records.exports(sweep)
    assert {str(path): set(sweeps) for path, sweeps in kept.items()} == {
        name: set(sweeps) for name, sweeps in names.items() if sweeps
    }
    assert set(ledger.records.exports(other)) == {Path(f"{sweep}+{other}_left_out.csv")}
    with contextlib.closing(sqlite3.connect(ledger.path)) as db:
        db.execute("DROP TABLE export_sweeps")
    with contextlib.closing(Records.open(ledger.path)) as records:
        assert records.exports(sweep) == kept, "which may be read before it is written again"
    with Ledger(ledger.path, ledger.storage) as again:
        assert again.records.exports(sweep) == kept
        again.record_export(folder / f"{sweep}.csv", "front", [other])
        assert Path(f"{sweep}.csv") not in again.records.exports(sweep)
