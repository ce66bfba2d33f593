"""Compute metrics that finished runs lack, from their kept encodings, without training.

Scores are committed like anything else: by an attempt with one block, which has points and trains no step.
"""

import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from multiprocessing import active_children, get_context, resource_tracker
from pathlib import Path

import numpy as np
from rich.console import Console

from sweeper import display
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import StoredSlice, SweepId
from sweeper.ledger.writer import Ledger, Member
from sweeper.machines.resources import num_cores
from trainables import __version__, blocks, plugins, scoring
from trainables.blocks import Manifest, Point, RunEntry
from trainables.durable import DamagedBlockError
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metric_identity import identities, is_current

COMMIT_EVERY_S = 20.0
"""Most seconds of scoring that are lost if the driver is killed."""

Progress = Callable[[int], None]
"""Function that is called with the number of newly scored runs."""


@dataclass(frozen=True)
class Unscored:
    """A finished run that lacks metrics at its horizon.

    Attributes:
        member: The run, and the step at which it lacks the metrics.
        metrics: Entries of `trainables.metrics`.
        encoding: Its encoding of the evaluation images at that step; None if it was not kept.
    """

    member: Member
    metrics: tuple[str, ...]
    encoding: StoredSlice | None


@dataclass(frozen=True)
class Scored:
    """A run with its new values and their full metric names, both by metric."""

    run: Unscored
    values: Mapping[str, float]
    identities: Mapping[str, str]


def unscored(records: Records, members: Iterable[Member], metrics: Sequence[str]) -> list[Unscored]:
    """Return the runs that have reached their horizon and lack the current version of a metric there."""
    members, found, current = list(members), [], cache(is_current)
    standings = records.standing(member.key for member in members)
    past = {
        member.key: member.horizon_steps
        for member in members
        if member.key in standings and standings[member.key].is_past(member.horizon_steps)
    }
    computed = records.computed(past, metrics)
    for member in (member for member in members if member.key in past):
        known = {name for name, recorded in computed[member.key] if current(name, recorded)}
        if lacking := tuple(name for name in metrics if name not in known):
            found.append(Unscored(member, lacking, _encoding(records, member)))
    return found


def _encoding(records: Records, member: Member) -> StoredSlice | None:
    stored = records.slices(member.key, "encoding", limit=1_000_000)
    return next((each for each in stored if each.step == member.horizon_steps), None)


def check(sweep: object, lacking: Iterable[Unscored]) -> None:
    """Reject runs that cannot be scored.

    Raises:
        InputError: A run was trained past the horizon and kept no encoding there.
    """
    for each in lacking:
        if each.encoding is None:
            step = each.member.horizon_steps
            raise InputError(
                f"Sweep {sweep}: seed {each.member.seed} was trained past step {step} and has no "
                f"{each.metrics[0]} there.\nChoose a step at which it was evaluated, or use another --home."
            )


def score(ledger: Ledger, lacking: Sequence[Unscored], progress: Progress) -> None:
    """Compute the missing metrics on all cores, and commit them as they are finished.

    Raises:
        DamagedBlockError: Encodings are missing or were changed; raised after all other runs are scored.
        OSError: The storage could not be written.
    """
    if not lacking:
        return
    results: list[Scored] = []
    damaged: list[str] = []
    begun = time.monotonic()
    with _processes() as pool:
        asked = [pool.submit(scored, each, ledger.storage) for each in lacking]
        for future in as_completed(asked):
            try:
                results.append(future.result())
            except DamagedBlockError as error:
                damaged.append(str(error))
            progress(1)
            if time.monotonic() - begun > COMMIT_EVERY_S:
                _commit(ledger, results, time.monotonic() - begun)
                results, begun = [], time.monotonic()
    _commit(ledger, results, time.monotonic() - begun)
    if damaged:
        what = f"{len(lacking) - len(damaged)} of {display.runs(len(lacking))} scored; the others cannot be read:"
        raise DamagedBlockError("\n".join([what, *sorted(damaged)]))


@contextmanager
def _processes() -> Iterator[ProcessPoolExecutor]:
    """Start a process per core; if the context ends early, they end at once, whatever they are computing."""
    _track_resources()
    # Spawned, not forked: the driver has threads.
    pool = ProcessPoolExecutor(
        num_cores(), mp_context=get_context("spawn"), initializer=plugins.learn, initargs=(plugins.carried(),)
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in active_children():
            process.kill()
            process.join()
        raise
    pool.shutdown()


def _track_resources() -> None:
    """Start the process in which Python counts semaphores so that a signal to our whole group does not end it.

    It shields itself from Ctrl-C and SIGTERM; without it, others would print tracebacks about semaphores at the end.
    """
    with_us = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, with_us)
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def evaluate(ledger: Ledger, sweep: SweepId, metrics: Sequence[str], console: Console) -> str:
    """Compute metrics that the finished runs of a sweep lack; return a sentence about what was done.

    Raises:
        InputError: The images lack what a metric needs.
        DamagedBlockError: An encoding is missing or was changed.
    """
    rows = ledger.records.members(sweep)
    members = [Member(row.key, row.seed, row.horizon_steps, row.spec) for row in rows]
    num_done = sum(row.status == "done" for row in rows)
    lacking = unscored(ledger.records, members, metrics)
    kept = [each for each in lacking if each.encoding]
    if kept:
        with display.counting(console, "scoring", "runs", len(kept)) as progress:
            score(ledger, kept, progress)
    said = f"{len(kept)} runs scored, {num_done - len(lacking)} had {', '.join(metrics)} before"
    return f"{said}, {len(lacking) - len(kept)} kept no encoding." if len(kept) < len(lacking) else f"{said}."


def scored(run: Unscored, storage: Path) -> Scored:
    """Compute the metrics that a run with a kept encoding lacks.

    Raises:
        DamagedBlockError: The encoding is missing or was changed.
    """
    if run.encoding is None:
        raise ValueError(f"Run {run.member.key} kept no encoding.")
    decoded = Encoding.from_bytes(run.encoding.read(storage))
    values = scoring.scores(decoded, run.metrics)
    return Scored(run, values, identities(values, len(decoded.rows_N)))


def _commit(ledger: Ledger, results: Sequence[Scored], seconds: float) -> None:
    # A block has one step, and one full metric name for each metric.
    groups: dict[tuple[object, ...], list[Scored]] = {}
    for result in results:
        place = (result.run.member.horizon_steps, *sorted(result.identities.items()))
        groups.setdefault(place, []).append(result)
    for group in groups.values():
        step = group[0].run.member.horizon_steps
        number = ledger.begin_attempt([each.run.member.key for each in group])
        share_s = seconds * len(group) / len(results)
        path = blocks.write_block(ledger.storage, _manifest(number, step, group, share_s), {})
        ledger.take(path)
        ledger.end_attempt(number, "scored")


def _manifest(number: int, step: int, group: Sequence[Scored], seconds: float) -> Manifest:
    now_s = time.time()
    return Manifest(
        attempt=number,
        index=0,
        start_step=step,
        end_step=step,
        numerics=f"scored on {platform.machine()}, numpy {np.__version__}, scikit-learn {version('scikit-learn')}",
        code_version=__version__,
        written_at_s=now_s,
        train_s=seconds,
        runs=tuple(_entry(each.run.member) for each in group),
        points=tuple(
            Point(each.run.member.key, step, now_s, name, value)
            for each in group
            for name, value in each.values.items()
        ),
        metric_identities=group[0].identities,
        provenance={"host": socket.gethostname(), "pid": str(os.getpid())},
    )


def _entry(member: Member) -> RunEntry:
    horizon = member.horizon_steps
    return RunEntry(member.key, member.seed, "done", horizon, horizon, member.spec)
