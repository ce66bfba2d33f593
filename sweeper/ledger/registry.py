"""What was planned, as rows of the ledger and as records in the storage from which the rows can be rebuilt.

sweeps/<name>-<scale>[-<label>].json   a sweep with its draws, members and runs
attempts/<attempt>.json                an attempt: its runs, outcome and failures
drivers/<lease>/begun-<attempt>.json   the beginning of an attempt: its runs, and where it ended earlier ones
pruned/<number>.json                   runs whose states were dropped, as far as attempts up to a newest one wrote them
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sweeper import display
from sweeper.ledger.rows import SweepId, SweepSpec
from sweeper.ledger.schema import in_memory, transaction
from trainables import durable, plugins, reading
from trainables.blocks import STATE
from trainables.config import StoredSpec, Value, canonical_json
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.layout import Layout

_ENDED = ("ended_at_s", "outcome", "error", "fence")
"""What is said of an attempt after it has begun."""


@dataclass(frozen=True)
class Member:
    """A run that a draw needs; `spec` is also in the run's manifests."""

    key: str
    seed: int
    horizon_steps: int
    spec: StoredSpec


@dataclass(frozen=True)
class Draw:
    """A draw of a sweep, identified by its parameters; numbered from 0 in the order of the sweep's space."""

    number: int
    params: Mapping[str, Value]
    members: tuple[Member, ...]


def add_run(db: sqlite3.Connection, key: str, spec: StoredSpec) -> int:
    """Add a run if its key is new, and return its id."""
    db.execute(
        "INSERT INTO runs (key, spec) VALUES (?, ?) ON CONFLICT DO NOTHING", (key, canonical_json(spec))
    )
    (row,) = db.execute("SELECT id FROM runs WHERE key = ?", (key,)).fetchone()
    return int(row)


def add_sweep(db: sqlite3.Connection, sweep: SweepId, spec: SweepSpec, draws: Iterable[Draw]) -> None:
    """Add what is new in a sweep; nothing is removed.

    Raises:
        InputError: A draw or member that exists already has changed.
    """
    names = (sweep.name, sweep.scale, sweep.label)
    text = canonical_json(spec)
    db.execute(
        "INSERT INTO sweeps (name, scale, label, spec) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (*names, text),
    )
    (sweep_row,) = db.execute(
        "SELECT id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)", names
    ).fetchone()
    db.execute("UPDATE sweeps SET spec = ? WHERE id = ? AND spec <> ?", (text, sweep_row, text))
    known = set(
        db.execute(
            "SELECT draw, seed, key, horizon_steps FROM draws JOIN members ON draw = draws.id"
            " JOIN runs ON runs.id = run WHERE sweep = ?",
            (sweep_row,),
        )
    )
    for draw in draws:
        draw_row = _add_draw(db, sweep, sweep_row, draw)
        for member in draw.members:
            if (draw_row, member.seed, member.key, member.horizon_steps) not in known:
                _add_member(db, sweep, draw_row, member)


def rename_sweep(db: sqlite3.Connection, sweep: SweepId, label: str) -> SweepId:
    """Give a sweep another label, and return its new identity.

    Raises:
        InputError: Another sweep has it.
    """
    new = replace(sweep, label=label)
    try:
        db.execute(
            "UPDATE sweeps SET label = ? WHERE (name, scale, label) = (?, ?, ?)",
            (label, sweep.name, sweep.scale, sweep.label),
        )
    except sqlite3.IntegrityError:
        raise InputError(f"Sweep {new} already exists in this home.\nChoose another label.") from None
    return new


def remove_sweep(db: sqlite3.Connection, sweep: SweepId) -> None:
    """Remove a sweep with its draws and members; its runs stay."""
    (row,) = db.execute(
        "SELECT id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)",
        (sweep.name, sweep.scale, sweep.label),
    ).fetchone()
    db.execute("DELETE FROM members WHERE draw IN (SELECT id FROM draws WHERE sweep = ?)", (row,))
    db.execute("DELETE FROM draws WHERE sweep = ?", (row,))
    db.execute("DELETE FROM export_sweeps WHERE sweep = ?", (row,))
    db.execute("DELETE FROM sweeps WHERE id = ?", (row,))


def check_sweep(db: sqlite3.Connection, sweep: SweepId, spec: SweepSpec, draws: Iterable[Draw]) -> None:
    """Reject what `add_sweep` would reject, without changing anything.

    Raises:
        InputError: As in `add_sweep`.
    """
    names = (sweep.name, sweep.scale, sweep.label)
    if db.execute("SELECT 1 FROM sweeps WHERE (name, scale, label) = (?, ?, ?)", names).fetchone() is None:
        return
    with closing(in_memory()) as copy:
        _copy_sweep(db, copy, sweep)
        add_sweep(copy, sweep, spec, draws)


def _copy_sweep(db: sqlite3.Connection, copy: sqlite3.Connection, sweep: SweepId) -> None:
    """Copy a sweep with its draws, members and runs into an empty ledger."""
    of_sweep = "SELECT id FROM sweeps WHERE (name, scale, label) = (?, ?, ?)"
    draws = f"SELECT id FROM draws WHERE sweep IN ({of_sweep})"  # noqa: S608 (of our own words)
    members = f"draw IN ({draws})"
    for table, rows in (
        ("sweeps", f"id IN ({of_sweep})"),
        ("draws", f"id IN ({draws})"),
        ("runs", f"id IN (SELECT run FROM members WHERE {members})"),  # noqa: S608
        ("members", members),
    ):
        found = db.execute(f"SELECT * FROM {table} WHERE {rows}", (sweep.name, sweep.scale, sweep.label))  # noqa: S608
        places = ", ".join("?" * len(found.description))
        copy.executemany(f"INSERT INTO {table} VALUES ({places})", found)  # noqa: S608


def _add_draw(db: sqlite3.Connection, sweep: SweepId, sweep_row: int, draw: Draw) -> int:
    """Add a draw unless its parameters are known, with its number or, if that is taken, a new one; return its id."""
    params = canonical_json(draw.params)
    known = dict(db.execute("SELECT params, id FROM draws WHERE sweep = ?", (sweep_row,)))
    if params in known:
        return int(known[params])
    for other in known:
        if set(json.loads(other)) != set(draw.params):
            raise _changed(sweep, f"draw {other}, not {params}, which has other hyperparameters")
    taken = {number for (number,) in db.execute("SELECT number FROM draws WHERE sweep = ?", (sweep_row,))}
    number = draw.number if draw.number not in taken else max(taken) + 1
    added = db.execute(
        "INSERT INTO draws (sweep, number, params) VALUES (?, ?, ?) RETURNING id", (sweep_row, number, params)
    )
    return int(added.fetchone()[0])


def _add_member(db: sqlite3.Connection, sweep: SweepId, draw: int, member: Member) -> None:
    """Add a member or extend its horizon.

    Raises:
        InputError: It has another run, or a shorter horizon.
    """
    run = add_run(db, member.key, member.spec)
    db.execute(
        "INSERT INTO members VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (draw, member.seed, run, member.horizon_steps),
    )
    where = (draw, member.seed)
    known, horizon, text = db.execute(
        "SELECT run, horizon_steps, spec FROM members JOIN runs ON id = run WHERE (draw, seed) = (?, ?)",
        where,
    ).fetchone()
    if known != run:
        spec: StoredSpec = json.loads(text)
        if spec["model"] != member.spec["model"]:
            before, after = (plugins.short(each["model"]) for each in (spec, member.spec))
            raise _changed(sweep, f"the model {before}, not {after}")
        changed = _differences(spec, member.spec)
        texts = [(name, display.typed_value(old), display.typed_value(new)) for name, old, new in changed]
        words = [f"{name}={old}, not {new}" for name, old, new in texts]
        repeat = [reading.typed(old) if name == "data" else f"--set {name}={old}" for name, old, _ in texts]
        raise _changed(sweep, "; ".join(words) or "another version of the model", " ".join(repeat))
    if member.horizon_steps < horizon:
        what = f"steps={horizon}, not {member.horizon_steps}"
        raise _changed(sweep, what, f"--set steps={horizon}")
    db.execute(
        "UPDATE members SET horizon_steps = ? WHERE (draw, seed) = (?, ?) AND horizon_steps < ?",
        (member.horizon_steps, *where, member.horizon_steps),
    )


def _differences(before: StoredSpec, after: StoredSpec) -> list[tuple[str, Value, Value]]:
    """Return what changed between two specifications of one run: field (or `data`), value before, value after."""
    old, new = ({**spec["fields"], "precision": spec["precision"]} for spec in (before, after))
    changed = [(name, old.get(name), value) for name, value in new.items() if old.get(name) != value]
    is_same_data = before["recipe"] == after["recipe"]
    return changed if is_same_data else [*changed, ("data", before["data"], after["data"])]


def _changed(sweep: SweepId, what: str, repeat: str = "") -> InputError:
    typed = "--set and --data" if "--data" in repeat else "--set"
    again = f"To continue it, leave out {typed} or use {repeat}; for" if repeat else "For"
    remedy = f"{again} a new variant, choose another label with --as."
    if not sweep.label:
        remedy = "Name the changed sweep with --as LABEL."
    return InputError(f"Sweep {sweep} already exists in this home with {what}.\n{remedy}")


def sweep_body(db: sqlite3.Connection, sweep: SweepId) -> dict[str, Any]:
    """Return the content of a sweep's record."""
    names = (sweep.name, sweep.scale, sweep.label)
    row, spec = db.execute(
        "SELECT id, spec FROM sweeps WHERE (name, scale, label) = (?, ?, ?)", names
    ).fetchone()
    draws = [
        {"number": number, "params": json.loads(params), "members": []}
        for number, params in db.execute(
            "SELECT number, params FROM draws WHERE sweep = ? ORDER BY number", (row,)
        )
    ]
    position = {draw["number"]: draw for draw in draws}
    rows = db.execute(
        "SELECT number, key, seed, horizon_steps, spec FROM draws JOIN members ON draw = draws.id"
        " JOIN runs ON runs.id = run WHERE sweep = ? ORDER BY number, seed",
        (row,),
    )
    for number, key, seed, horizon_steps, run_spec in rows:
        member = Member(key, seed, horizon_steps, json.loads(run_spec))
        position[number]["members"].append(asdict(member))
    return asdict(sweep) | {"spec": json.loads(spec), "draws": draws}


def adopt_sweep(db: sqlite3.Connection, body: Mapping[str, Any]) -> None:
    """Add a sweep from its record."""
    sweep = SweepId(body["name"], body["scale"], body["label"])
    draws = [
        Draw(draw["number"], draw["params"], tuple(Member(**member) for member in draw["members"]))
        for draw in body["draws"]
    ]
    add_sweep(db, sweep, body["spec"], draws)


def attempt_body(db: sqlite3.Connection, number: int) -> dict[str, Any]:
    """Return the content of an attempt's record."""
    row = db.execute(
        "SELECT started_at_s, ended_at_s, outcome, error, fence FROM attempts WHERE number = ?", (number,)
    ).fetchone()
    runs = db.execute(
        "SELECT key, spec FROM attempt_runs JOIN runs ON runs.id = run WHERE attempt = ?", (number,)
    )
    failures = db.execute(
        "SELECT key, kind, message, time_s FROM failures JOIN runs ON runs.id = run WHERE attempt = ?"
        " ORDER BY key",
        (number,),
    )
    columns = ("started_at_s", "ended_at_s", "outcome", "error", "fence")
    return dict(zip(columns, row, strict=True)) | {
        "number": number,
        "runs": {key: json.loads(spec) for key, spec in runs},
        "failures": failures.fetchall(),
    }


def begun_body(db: sqlite3.Connection, number: int, fenced: Iterable[int]) -> dict[str, Any]:
    """Return the content of the record of an attempt's beginning, with the attempts that it fences off."""
    whole = attempt_body(db, number)
    fences = {
        str(attempt): db.execute("SELECT fence FROM attempts WHERE number = ?", (attempt,)).fetchone()[0]
        for attempt in fenced
    }
    return {name: whole[name] for name in ("number", "started_at_s", "runs")} | {"fences": fences}


def adopt_begun(db: sqlite3.Connection, body: Mapping[str, Any]) -> None:
    """Add an attempt from the record of its beginning; where it fenced off earlier ones counts before all other records."""
    _add_begun(db, body)
    for attempt, fence in body["fences"].items():
        db.execute(
            "UPDATE attempts SET fence = ?, ended_at_s = COALESCE(ended_at_s, ?), outcome = COALESCE(outcome, 'lost')"
            " WHERE number = ? AND fence IS NOT ?",
            (fence, body["started_at_s"], int(attempt), fence),
        )


def _add_begun(db: sqlite3.Connection, body: Mapping[str, Any]) -> dict[str, int]:
    """Add an attempt and its runs, as far as they are missing; return the ids of the runs by their keys."""
    db.execute(
        "INSERT INTO attempts (number, started_at_s) VALUES (?, ?)"
        " ON CONFLICT (number) DO UPDATE SET started_at_s = excluded.started_at_s",
        (body["number"], body["started_at_s"]),
    )
    rows = {key: add_run(db, key, spec) for key, spec in body["runs"].items()}
    db.executemany(
        "INSERT INTO attempt_runs VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(row, body["number"]) for row in rows.values()],
    )
    return rows


def adopt_attempt(db: sqlite3.Connection, body: Mapping[str, Any]) -> None:
    """Add an attempt from its record, or the parts of it that the ledger lacks."""
    number = body["number"]
    rows = _add_begun(db, body)
    db.execute(
        "UPDATE attempts SET ended_at_s = COALESCE(?, ended_at_s), outcome = COALESCE(?, outcome),"
        " error = COALESCE(?, error),"
        " fence = COALESCE(fence, MAX(?, (SELECT COUNT(*) FROM blocks WHERE attempt = ?))) WHERE number = ?",
        (body["ended_at_s"], body["outcome"], body["error"], body["fence"], number, number),
    )
    for key, *failure in body["failures"]:
        db.execute(
            "INSERT INTO failures VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (rows[key], number, *failure),
        )


def drop_states(storage: Path, keys: Iterable[str], newest_attempt: int) -> None:
    """Record that the states of runs are dropped, as far as attempts up to the newest one wrote them."""
    layout = Layout(storage)
    durable.make_folder(layout.pruned)
    number = 1 + max((int(path.stem) for path in layout.pruned_records()), default=0)
    body = {"runs": sorted(keys), "newest_attempt": newest_attempt}
    durable.write_record(layout.pruned_record(number), body, is_contended=True)


def dropped_states(storage: Path) -> tuple[dict[str, int], list[str]]:
    """Return the last attempt whose states were dropped, by run key, and one line for each damaged record.

    The content of a damaged record is lost: its states are missing, so runs that need them would start over.
    """
    found: dict[str, int] = {}
    problems = []
    for path in Layout(storage).pruned_records():
        try:
            body, _ = durable.read_record(path)
        except DamagedBlockError as error:
            problems.append(str(error))
        else:
            found |= dict.fromkeys(body["runs"], body["newest_attempt"])
    return found, problems


def forget_states(db: sqlite3.Connection, dropped: Mapping[str, int]) -> None:
    """Remove dropped states from the ledger; the caller holds a transaction."""
    db.executemany(
        "DELETE FROM slices WHERE name = ? AND attempt <= ? AND run = (SELECT id FROM runs WHERE key = ?)",
        [(STATE, attempt, key) for key, attempt in dropped.items()],
    )


def adopt_all(db: sqlite3.Connection, storage: Path) -> tuple[list[str], list[int]]:
    """Add what is in the records of a storage and not in the ledger.

    Returns:
        One line for each unusable record; and the attempts whose record lacks what another driver's record says, since two
        drivers wrote it.
    """
    layout, problems = Layout(storage), []
    for path in layout.sweep_records():
        try:
            body, _ = durable.read_record(path)
            with transaction(db):
                adopt_sweep(db, body)
        except DamagedBlockError as error:
            problems.append(str(error))
        except InputError as error:
            problems.append(f"{path}: {error}")
    attempts = dict[int, Mapping[str, Any]]()
    known = dict[int, tuple[Any, ...]](
        (number, tuple(rest))
        for number, *rest in db.execute(
            f"SELECT number, {', '.join(_ENDED)}, (SELECT COUNT(*) FROM attempt_runs WHERE attempt = number),"  # noqa: S608
            " (SELECT COUNT(*) FROM failures WHERE attempt = number) FROM attempts"
        )
    )
    with transaction(db):
        for path in layout.attempt_records():
            try:
                body, _ = durable.read_record(path)
            except DamagedBlockError as error:
                problems.append(str(error))
            else:
                said = (*(body[name] for name in _ENDED), len(body["runs"]), len(body["failures"]))
                if known.get(body["number"]) != said:
                    adopt_attempt(db, body)
                attempts[body["number"]] = body
        for path in layout.begun_records():
            try:
                adopt_begun(db, durable.read_record(path)[0])
            except DamagedBlockError as error:
                problems.append(str(error))
        dropped, damaged = dropped_states(storage)
        forget_states(db, dropped)
    differing = [
        number
        for number, *ended in db.execute(f"SELECT number, {', '.join(_ENDED)} FROM attempts ORDER BY number")  # noqa: S608
        if number not in attempts or ended != [attempts[number][name] for name in _ENDED]
    ]
    return problems + damaged, differing
