"""A queue that hands out packs to workers, takes back those that failed, and ends when none is left; knows no Ray."""

from collections import deque
from collections.abc import Iterable
from typing import Literal, Protocol

from sweeper.scheduling.packing import PackPlan
from trainables.assignment import Assignment, Report
from trainables.errors import damaged_runs, is_out_of_memory

MAX_FAILURES = 3
"""Attempts without a new state to resume from after which the runs of a pack are given up."""

FINISHED: Literal["finished"] = "finished"


class Attempts(Protocol):
    """A recorder of attempts as packs come and go."""

    def begin(self, pack: PackPlan) -> tuple[int, PackPlan, Assignment] | None:
        """Begin an attempt at what is left of a pack; return its number, what is left, and the assignment; None if nothing is."""
        ...

    def take(self, report: Report) -> bool:
        """Add a block; return whether it counts, which is not so once a newer attempt has begun."""
        ...

    def end(self, number: int, outcome: str, error: str) -> None:
        """Record how an attempt ended."""
        ...

    def give_up(self, pack: PackPlan, number: int, kind: str, message: str) -> None:
        """Record that what is left of a pack will not be tried again."""
        ...


class PackQueue:
    """Packs in order; each worker that accepts one has a unique name.

    Args:
        packs: Packs to train.
        attempts: Recorder of everything that happens.

    Attributes:
        error: Error of the recorder; after it, nothing more is handed out.
        is_stopping: Set it to hand out nothing more.
    """

    def __init__(self, packs: Iterable[PackPlan], attempts: Attempts) -> None:
        self._waiting = deque(packs)
        self._live: dict[str, tuple[int, PackPlan]] = {}
        self._moved: set[str] = set()
        self._started: set[str] = set()
        self._attempts = attempts
        self.error: Exception | None = None
        self.is_stopping = False

    @property
    def num_live(self) -> int:
        """Number of packs that are handed out."""
        return len(self._live)

    @property
    def has_live(self) -> bool:
        """Whether a worker has started a pack; one that waits for a node has nothing to lose."""
        return bool(self._started & set(self._live))

    def hand_out(self, worker: str) -> Assignment | Literal["finished"] | None:
        """Return the next pack, None while a running pack may come back, `FINISHED` at the end."""
        while self._waiting and not self.error and not self.is_stopping:
            try:
                begun = self._attempts.begin(self._waiting.popleft())
            except Exception as error:
                self.error = error
                break
            if begun:
                number, pack, assignment = begun
                self._live[worker] = number, pack
                return assignment
        return None if self._live else FINISHED

    def started(self, worker: str) -> None:
        """Record that a worker has started its pack."""
        self._started.add(worker)

    def reported(self, worker: str, report: Report) -> None:
        """Record that a worker has committed a block; a worker that was stopped may have none.

        The next attempt resumes from newly committed states, so the failures of the pack so far are forgiven.
        """
        try:
            if report.manifest and self._attempts.take(report) and report.has_states:
                self._moved.add(worker)
        except Exception as error:
            self.error = self.error or error

    def ended(self, worker: str, error: str, is_stopped: bool = False) -> None:
        """Record that a worker is done with its pack.

        Args:
            worker: Name of the worker.
            error: Error of the worker; empty if the pack reached its end or was stopped.
            is_stopped: Whether it was asked to stop before the end.
        """
        if worker not in self._live:
            return
        number, pack = self._live.pop(worker)
        try:
            is_moved = worker in self._moved
            is_again = not is_moved and pack.num_failures > 0
            if is_stopped or (error and self.is_stopping):
                self._attempts.end(number, "failed" if error else "stopped", error)
            elif not error:
                self._attempts.end(number, "done", "")
                # An attempt that was fenced off ends early; `begin` returns None for a pack that is complete.
                if pack.num_failures < MAX_FAILURES:
                    self._waiting.append(pack.failed_again())
            elif damaged := damaged_runs(error) & {run.key for run in pack.runs}:
                self._attempts.end(number, "failed", error)
                self._waiting.extendleft(pack.without(damaged))
            elif is_out_of_memory(error) and not pack.is_smallest:
                self._attempts.end(number, "out of memory", error)
                self._waiting.extendleft(pack.halves())
            elif is_again and len(pack.runs) > 1:
                # Whatever the pack repeatedly fails from, half of it may succeed.
                self._attempts.end(number, "failed", error)
                self._waiting.extendleft(pack.split())
            else:
                self._retry(number, pack.forgiven() if is_moved else pack.failed_again(), error)
        except Exception as problem:
            self.error = problem

    def _retry(self, number: int, pack: PackPlan, error: str) -> None:
        self._attempts.end(number, "failed", error)
        if pack.num_failures < MAX_FAILURES:
            self._waiting.append(pack)
        else:
            kind = "out of memory" if is_out_of_memory(error) else "error"
            self._attempts.give_up(pack, number, kind, error)
