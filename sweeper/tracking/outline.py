"""The entries that MLflow should have for a sweep: one for the sweep, one per draw and one per run.

An entry knows what it is made from, but not its points, so checking whether it is out of date takes only a few counts.
Only what has begun is included; a run's steps beyond the sweep's horizon belong to another sweep and are left out.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import History, MemberRow, SweepId, SweepSpec
from trainables.config import canonical_json

FORMAT = 1
"""Version of the mirrored content; entries of another version are delivered again."""

EXPORTS = (".csv", ".png")
"""Suffixes of the files of a sweep's front, which are attached to it."""

Level = Literal["sweep", "draw", "run"]


@dataclass(frozen=True)
class Run:
    """A run of a sweep, up to the sweep's horizon.

    Attributes:
        row: The run's row in the ledger.
        history: What its blocks up to the horizon say.
        ended_at_s: When the newest block was written or the run was given up, None before.
        failure: Why the driver gave the run up, empty if it did not.
    """

    row: MemberRow
    history: History
    ended_at_s: float | None
    failure: str

    @property
    def step(self) -> int:
        """Newest committed step, at most the horizon."""
        return min(self.row.step, self.row.horizon_steps)


@dataclass(frozen=True)
class Entry:
    """One MLflow run that should exist.

    Attributes:
        id: Permanent name, unique among the entries of its sweep.
        level: One of the three levels.
        parent: Id of the entry that it is nested in, empty for the sweep.
        runs: The runs that it stands for, including those that have not begun.
        state: Digest that changes whenever the content changes.
    """

    id: str
    level: Level
    parent: str
    runs: tuple[Run, ...]
    state: str


@dataclass(frozen=True)
class Outline:
    """A sweep as MLflow should show it.

    Attributes:
        sweep: The sweep.
        ledger: Identity of the ledger; two homes may mirror sweeps of the same name to one server.
        spec: Specification that the sweep was registered with.
        exports: Files of its front that are up to date.
        outdated: Names of files of fronts of several sweeps that are not.
        entries: Entries, parents before children.
        names: (Metric, identity) -> name in MLflow, where it differs from the metric's name.
    """

    sweep: SweepId
    ledger: str
    spec: SweepSpec
    exports: tuple[Path, ...]
    outdated: frozenset[str]
    entries: tuple[Entry, ...]
    names: Mapping[tuple[str, str], str]


def outline(records: Records, home: Home, sweep: SweepId) -> Outline:
    """Return the outline of a sweep from the ledger.

    Raises:
        UnknownNameError: The sweep is unknown.
    """
    runs = _runs(records, sweep)
    spec, (exports, outdated) = records.spec(sweep), _exports(records, home, sweep)
    entries = _entries(runs, [canonical_json(spec), *map(file_digest, exports)])
    return Outline(sweep, records.identity(), spec, exports, outdated, entries, _names(records, sweep))


def draw_of(entry: str) -> str:
    """Return the id of the draw that a run's entry belongs to; any other id is returned unchanged."""
    return entry.partition(" run ")[0]


def title(sweep: SweepId) -> str:
    """Return the name of a sweep in MLflow."""
    return " ".join(filter(None, (sweep.name, sweep.scale, sweep.label)))


def mlflow_status(runs: Sequence[Run]) -> str:
    """Return the MLflow status of a run, or of several runs together."""
    statuses = {run.row.status for run in runs}
    names = {"running": "RUNNING", "planned": "SCHEDULED", "done": "FINISHED"}
    return next((name for status, name in names.items() if status in statuses), "FAILED")


def ended_at_s(runs: Sequence[Run]) -> float | None:
    """Return when the last of several runs ended, None while one of them has not."""
    if mlflow_status(runs) not in ("FINISHED", "FAILED"):
        return None
    return max(run.ended_at_s or run.history.started_at_s or 0.0 for run in runs)


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _entries(runs: Sequence[Run], words: list[str]) -> tuple[Entry, ...]:
    draws: dict[int, list[Run]] = {}
    for run in runs:
        draws.setdefault(run.row.draw, []).append(run)
    if all(run.history.started_at_s is None for run in runs):
        return ()
    statuses = Counter(run.row.status for run in runs)
    entries = [Entry("sweep", "sweep", "", tuple(runs), _digest(words, statuses, ended_at_s(runs)))]
    for number, seeds in draws.items():
        shown = [run for run in seeds if run.history.started_at_s is not None]
        if not shown:
            continue
        draw = f"draw {number}"
        states = [_state(run) for run in seeds]
        entries.append(Entry(draw, "draw", "sweep", tuple(seeds), _digest(states, words[0])))
        entries += [
            Entry(f"{draw} run {run.row.key}", "run", draw, (run,), _digest(_state(run))) for run in shown
        ]
    return tuple(entries)


def _exports(records: Records, home: Home, sweep: SweepId) -> tuple[tuple[Path, ...], frozenset[str]]:
    """Return the files of a sweep's front that are up to date, and the names of those that are not.

    An answer to several sweeps is attached to each, but only while its modification time is not older than the newest
    committed block of any of them: once one of them has trained further, the file has less than the ledger until it is
    exported again.
    """
    current, outdated = [], set()
    for relative, sweeps in sorted(records.exports(sweep).items()):
        path = home.path / relative
        if path.parent != home.exports or path.suffix not in EXPORTS:
            continue
        newest_s = max(map(records.newest_block_s, sweeps)) if len(sweeps) > 1 else 0.0
        if path.exists() and newest_s <= path.stat().st_mtime:
            current.append(path)
        elif len(sweeps) > 1:
            outdated.add(path.name)
    return tuple(current), frozenset(outdated)


def _state(run: Run) -> list[Any]:
    row = run.row
    bad = row.first_bad_step if row.status == "diverged" else None
    return [
        *(row.key, row.seed, row.status, run.step, row.horizon_steps, bad),
        *(
            run.history.num_points,
            run.ended_at_s,
            run.history.numerics,
            run.history.code_version,
            run.failure,
        ),
    ]


def _digest(*parts: Any) -> str:
    return hashlib.sha256(canonical_json([FORMAT, *parts]).encode()).hexdigest()[:32]


def _runs(records: Records, sweep: SweepId) -> list[Run]:
    members = records.members(sweep)
    given_up = {(failure.key, failure.attempt): failure for failure in records.failures()}
    histories = records.histories(sweep)
    runs = []
    for row in members:
        history = histories[row.draw, row.seed]
        failure = given_up.get((row.key, row.attempt or 0)) if row.status == "failed" else None
        ended_at_s = history.written_at_s
        if failure:
            ended_at_s = max(ended_at_s or 0.0, failure.time_s)
        text = f"{failure.kind}: {failure.message}" if failure else ""
        runs.append(Run(row, history, ended_at_s, text))
    return runs


def _names(records: Records, sweep: SweepId) -> dict[tuple[str, str], str]:
    """Return names for metrics that were computed in more than one way; the first way keeps the metric's name.

    The first way never changes, so nothing that was delivered under a name has to be withdrawn.
    """
    names: dict[tuple[str, str], str] = {}
    seen = set()
    for name, identity in records.ambiguous_metrics(sweep):
        if name in seen:
            names[name, identity] = f"{name} {hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        seen.add(name)
    return names
