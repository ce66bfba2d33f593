import contextlib
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.ledger.verify import check, rebuild
from sweeper.ledger.writer import Ledger
from tests.sweeper.ledger.toy_pack import HORIZON, KEYS, SWEEP, begin, finish, problems, register, tables
from trainables.blocks import Manifest, Point, RunEntry, write_block
from trainables.errors import InputError
from trainables.layout import Layout


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        register(ledger, KEYS)
        yield ledger


@pytest.mark.parametrize("how", ["flip", "cut", "delete"])
def test_check_names_every_file_that_is_not_as_written(ledger: Ledger, how: str) -> None:
    for keys in (["a", "bad c"], ["b", "d"]):
        pack = begin(ledger, keys, num_steps=15)
        while path := pack.write():
            ledger.take(path)
        ledger.end_attempt(pack.attempt, "done")
    export = ledger.path.parent / "exports" / "front.csv"
    export.parent.mkdir()
    export.write_text("a,b\n1,2\n")
    ledger.record_export(export, "csv", [])
    assert problems(ledger) == []
    files = [path for path in sorted(ledger.storage.rglob("*.*")) if path.name != "ledger.json"] + [export]
    assert {path.suffix for path in files} == {".json", ".slices", ".kept", ".csv"}
    rng = random.Random(0)
    for path in files:
        good = path.read_bytes()
        at = rng.randrange(len(good))
        if how == "delete":
            path.unlink()
        else:
            path.write_bytes(good[:at] + (b"" if how == "cut" else bytes([good[at] ^ 4]) + good[at + 1 :]))
        lines = problems(ledger)
        assert lines
        assert all(str(path) in line for line in lines), (path, lines)
        path.write_bytes(good)
    assert problems(ledger) == []


@pytest.mark.parametrize(
    ("tampering", "line"),
    [
        (
            "DELETE FROM points WHERE step = 15",
            "Run {}: 1 points missing from the ledger, the first 'loss' at step 15.",
        ),
        (
            "UPDATE points SET value = 0.5 WHERE step = 5",
            "Run {}: 1 points changed in the ledger, the first 'loss' at step 5.",
        ),
        (
            "UPDATE points SET time_s = 0 WHERE step = 5",
            "Run {}: 1 points changed in the ledger, the first 'loss' at step 5.",
        ),
        (
            "UPDATE points SET step = 16 WHERE step = 15",
            "Run {}: 1 points in no block, the first 'loss' at step 16.",
        ),
        (
            "UPDATE block_runs SET step = 11 WHERE step = 10",
            "block-000000.json differs from what the ledger read.",
        ),
        (
            "UPDATE slices SET offset = 1 WHERE offset = 0",
            "block-000001.json differs from what the ledger read.",
        ),
        ("UPDATE members SET seed = 7 WHERE seed = 0", "toy-smoke.json differs from the ledger."),
        ("UPDATE attempts SET outcome = 'done'", "00000001.json differs from the ledger."),
        ("DELETE FROM attempts", "00000001.json is not in the ledger."),
        (
            "DELETE FROM blocks WHERE number = 1",
            "block-000001.json is not in the ledger yet; the next run reads it.",
        ),
    ],
)
def test_check_names_what_was_changed_in_the_ledger(ledger: Ledger, tampering: str, line: str) -> None:
    pack = begin(ledger, ["a", "b"])
    for _ in range(2):
        ledger.take(pack.commit())
    with contextlib.closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute(tampering)
    lines = problems(ledger)
    for key in ("a", "b"):
        assert any(line.format(key) in found for found in lines), lines


def test_a_lost_ledger_is_rebuilt_from_the_storage(ledger: Ledger, tmp_path: Path) -> None:
    pack = begin(ledger, ["a", "b"])
    ledger.take(pack.commit())
    log = tmp_path / "ledger.db-wal"
    shutil.copy(log, tmp_path / "left behind")
    begin(ledger, ["a"])
    ledger.take(pack.commit())
    ledger.record_failure("b", pack.attempt, "error", "lost")
    before = tables(ledger.path)
    with pytest.raises(InputError, match="exists"):
        rebuild(ledger.path, ledger.storage)
    ledger.close()
    ledger.path.unlink()
    (tmp_path / "left behind").rename(log)
    rebuild(ledger.path, ledger.storage)
    assert tables(ledger.path) == before
    assert check(ledger.path, ledger.storage) == []


def test_a_rebuild_leaves_out_what_follows_a_damaged_block(ledger: Ledger, tmp_path: Path) -> None:
    finish(ledger, num_steps=HORIZON)
    (done,) = [row for row in ledger.records.members(SWEEP) if row.key == "a"]
    number = ledger.begin_attempt(["a"])
    entry = RunEntry("a", 0, "done", HORIZON, HORIZON, done.spec)
    score = (Point("a", HORIZON, 2e9, "mig", 0.5),)
    path = write_block(
        ledger.storage, Manifest(number, 0, HORIZON, HORIZON, "cpu", "1", 2e9, 1.0, (entry,), score), {}
    )
    ledger.take(path)
    first = next(path for path in Layout(ledger.storage).manifests())
    first.write_bytes(first.read_bytes()[:-9])
    found = rebuild(tmp_path / "again.db", ledger.storage)
    damaged, following = found.problems
    assert str(first) in damaged
    assert str(path) in following
    assert "left out" in following
