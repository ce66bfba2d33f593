"""A pack that needs no torch: what a run reports is a closed form of its key and step.

Run as a script it drives a home until it is killed: `python toy_pack.py <home>`.
"""

import contextlib
import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.ledger import schema
from sweeper.ledger.rows import PointColumns, SweepId
from sweeper.ledger.verify import check
from sweeper.ledger.writer import Draw, Ledger, Member
from tests.specs import run_spec, sweep_spec
from trainables.blocks import Manifest, Point, RunEntry, prune, write_block
from trainables.config import StoredSpec

SWEEP = SweepId("toy", "smoke")
KEYS = ["a", "b", "bad c", "d"]
SPEC = sweep_spec("toy")
HORIZON = 40
BAD_STEP = 23
"""Step at which runs whose key begins with `bad` diverge."""


def value(key: str, name: str, step: int) -> float:
    number = int.from_bytes(hashlib.sha256(f"{key} {name} {step}".encode()).digest()[:6], "big")
    return (math.nan, math.inf, -math.inf)[number % 3] if number % 7 == 0 else number / 2**40


def state(key: str, step: int) -> bytes:
    return f"state of {key} at {step}".encode()


def points(key: str, start: int, end: int) -> tuple[Point, ...]:
    """Points after step `start` up to `end`: a loss every 5 steps, a score every 10."""
    steps = [
        (name, s)
        for name, every in (("loss", 5), ("score", 10))
        for s in range(start + 1, end + 1)
        if s % every == 0
    ]
    return tuple(Point(key, s, 1e9 + s / 8, name, value(key, name, s)) for name, s in steps)


def register(ledger: Ledger, keys: Sequence[str], horizon: int = HORIZON, sweep: SweepId = SWEEP) -> bool:
    """Two runs a draw."""
    draws = [
        Draw(
            i // 2,
            {"gamma": i // 2 / 4},
            tuple(member(key, s, horizon) for s, key in enumerate(keys[i : i + 2])),
        )
        for i in range(0, len(keys), 2)
    ]
    return ledger.register_sweep(sweep, SPEC, draws)


def toy_spec(key: str) -> StoredSpec:
    return run_spec("toy", fields={"key": key})


def member(key: str, seed: int, horizon: int = HORIZON) -> Member:
    return Member(key, seed, horizon, toy_spec(key))


@dataclass
class Pack:
    """A worker: writes block after block of an attempt, and knows nothing of the ledger."""

    storage: Path
    attempt: int
    keys: list[str]
    step: int
    horizon: int = HORIZON
    num_steps: int = 10
    index: int = 0
    numerics: str = "toy"
    error: float = 0.0
    state_every: int = 1
    """Blocks of which one carries states; the last one does anyway."""

    def write(self) -> Path | None:
        """Write the next block; returns its manifest's path, None if nothing is left to do."""
        if not self.keys or self.step >= self.horizon:
            return None
        start, end = self.step, min(self.step + self.num_steps, self.horizon)
        runs = tuple(self.entry(key, end) for key in self.keys)
        blobs = {run.key: self.blobs(run) for run in runs}
        found = tuple(p for run in runs for p in points(run.key, start, run.step))
        if self.error:
            found = tuple(Point(p.key, p.step, p.time_s, p.name, p.value + self.error) for p in found)
        manifest = Manifest(
            attempt=self.attempt,
            index=self.index,
            start_step=start,
            end_step=end,
            numerics=self.numerics,
            code_version="1",
            written_at_s=1e9 + end,
            train_s=end - start,
            runs=runs,
            points=found,
            metric_identities={"score": "score(n=10)"},
            provenance={"host": "here", "pid": "1"},
        )
        path = write_block(self.storage, manifest, blobs)
        prune(path.parent)
        self.keys = [run.key for run in runs if run.status == "running"]
        self.step, self.index = end, self.index + 1
        return path

    def commit(self) -> Path:
        """Write the next block, of which there is one."""
        path = self.write()
        assert path is not None
        return path

    def entry(self, key: str, end: int) -> RunEntry:
        spec = toy_spec(key)
        if key.startswith("bad") and end >= BAD_STEP:
            return RunEntry(key, 0, "diverged", BAD_STEP, self.horizon, spec, BAD_STEP)
        return RunEntry(key, 0, "done" if end == self.horizon else "running", end, self.horizon, spec)

    def blobs(self, run: RunEntry) -> dict[str, bytes]:
        is_due = run.status == "done" or self.index % self.state_every == self.state_every - 1
        found = {"state": state(run.key, run.step)} if is_due and run.status != "diverged" else {}
        return (
            found
            if run.status == "running"
            else found | {"encoding": f"codes of {run.key} at {run.step}".encode()}
        )


def stands(ledger: Ledger, key: str, choice: int) -> int:
    """Step at which a run resumes; choice 1 falls back to the state before, 2 starts over."""
    found = ledger.records.resume_points([key])[key]
    if len(found) <= choice:
        return 0
    assert found[choice].read(ledger.storage) == state(key, found[choice].step)
    return found[choice].step


def begin(ledger: Ledger, keys: Sequence[str], choice: int = 0, **how: Any) -> Pack:
    """Begin an attempt; runs that do not stand where the first one stands are left out of its pack."""
    number = ledger.begin_attempt(keys)
    step = stands(ledger, keys[0], choice)
    chosen = [key for key in keys if stands(ledger, key, choice) == step]
    return Pack(ledger.storage, number, chosen, step, **how)


def unfinished(ledger: Ledger, sweep: SweepId = SWEEP) -> list[str]:
    return [m.key for m in ledger.records.members(sweep) if m.status not in ("done", "diverged")]


def finish(ledger: Ledger, num_steps: int = 10) -> None:
    """Train what is missing."""
    while keys := unfinished(ledger):
        pack = begin(ledger, keys, num_steps=num_steps)
        while path := pack.write():
            ledger.take(path)
        ledger.end_attempt(pack.attempt, "done")


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything but the exports, names in the place of ids."""
    queries = {
        "identity": "SELECT ledger FROM identity",
        "sweeps": "SELECT name, scale, label, spec FROM sweeps",
        "members": "SELECT name, scale, label, draws.number, params, seed, key, runs.spec, horizon_steps FROM sweeps"
        " JOIN draws ON sweep = sweeps.id JOIN members ON draw = draws.id JOIN runs ON runs.id = run",
        "runs": "SELECT key, spec FROM runs",
        "attempts": "SELECT * FROM attempts",
        "attempt_runs": "SELECT key, attempt FROM attempt_runs JOIN runs ON id = run",
        "failures": "SELECT key, attempt, kind, message, time_s FROM failures JOIN runs ON id = run",
        "blocks": "SELECT * FROM blocks",
        "block_runs": "SELECT key, attempt, block, step, status, first_bad_step FROM block_runs JOIN runs ON id = run",
        "slices": "SELECT key, attempt, block, name, file, offset, length, sha256 FROM slices JOIN runs ON id = run",
        "points": "SELECT key, name, identity, step, value, time_s FROM points"
        " JOIN runs ON runs.id = run JOIN metrics ON metrics.id = metric",
    }
    with contextlib.closing(schema.open_for_reading(path)) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert names == set(queries) | {"exports", "export_sweeps", "draws", "metrics"}
        return {name: sorted(db.execute(query), key=repr) for name, query in queries.items()}


def rows(columns: PointColumns) -> list[tuple[str, str, int, float, str]]:
    """Points as tuples that compare, NaN included."""
    return sorted(
        zip(columns.key, columns.name, columns.step, columns.time_s, map(repr, columns.value), strict=True)
    )


def expected(keys: Sequence[str] = KEYS, horizon: int = HORIZON) -> list[tuple[str, str, int, float, str]]:
    """The undisturbed history in closed form."""
    found = [
        p
        for key in keys
        for p in points(key, 0, min(BAD_STEP, horizon) if key.startswith("bad") else horizon)
    ]
    return sorted((p.key, p.name, p.step, p.time_s, repr(p.value)) for p in found)


def problems(ledger: Ledger) -> list[str]:
    return check(ledger.path, ledger.storage)


def drive(home: Path) -> None:
    """Train ever new sweeps, saying each block that was taken in."""
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        ledger.ingest()
        print("ready", flush=True)
        for number in range(10**9):
            sweep = SweepId("toy", "smoke", f"{number}")
            keys = [f"{name} {number}" for name in ("a", "b", "bad")]
            register(ledger, keys, sweep=sweep)
            while left := unfinished(ledger, sweep):
                pack = begin(ledger, left)
                while path := pack.write():
                    ledger.take(path)
                    ledger.prune()
                    print(path.parent.name, path.name, flush=True)
                ledger.end_attempt(pack.attempt, "done")


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
