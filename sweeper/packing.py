"""Which runs train together: packs of runs that share a static key, a step and a schedule."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from trainables.config import Schedule

MAX_RUNS_CPU = 16
"""Runs of a pack on a CPU core; beyond it a pack leaves the caches and is slower per run."""

MAX_RUNS_GPU = 64
"""Runs of a pack on a GPU, fewer where its memory holds fewer."""


@dataclass(frozen=True)
class Waiting:
    """A run that has not reached its horizon.

    Attributes:
        key: Its content key.
        static_key: What the runs of a pack share.
        spec: Its specification as the ledger keeps it.
        step: Where it stands.
        schedule: Its horizon and evaluations.
        block_s: Seconds of work to commit at once.
    """

    key: str
    static_key: str
    spec: dict[str, Any]
    step: int
    schedule: Schedule
    block_s: float


@dataclass(frozen=True)
class PackPlan:
    """Runs that will train together, at least one.

    Attributes:
        runs: The runs.
        num_failures: Tries that failed without a new block.
    """

    runs: tuple[Waiting, ...]
    num_failures: int = 0

    @property
    def num_steps(self) -> int:
        """Updates to go, of each run."""
        return self.runs[0].schedule.steps - self.runs[0].step

    def halves(self) -> tuple["PackPlan", "PackPlan"]:
        """Two packs of half the runs each, after an out-of-memory."""
        middle = len(self.runs) // 2
        return PackPlan(self.runs[:middle]), PackPlan(self.runs[middle:])

    def failed_again(self) -> "PackPlan":
        """The pack with one more failure counted."""
        return replace(self, num_failures=self.num_failures + 1)


def pack_up(waiting: Iterable[Waiting], num_slots: int, max_runs: Mapping[str, int]) -> list[PackPlan]:
    """Form packs that keep all slots busy, as large as they may be, longest first.

    Runs of one group are spread evenly over a multiple of the slots where there are enough of them, since packs of
    equal length end together.

    Args:
        waiting: Runs to train.
        num_slots: Packs that run at once.
        max_runs: Largest pack, by static key.
    """
    groups: dict[tuple[str, int, Schedule], list[Waiting]] = {}
    for run in waiting:
        groups.setdefault((run.static_key, run.step, run.schedule), []).append(run)
    packs = [
        pack for group in groups.values() for pack in _split(group, num_slots, max_runs[group[0].static_key])
    ]
    return sorted(packs, key=lambda pack: -pack.num_steps * len(pack.runs))


def _split(group: Sequence[Waiting], num_slots: int, max_runs: int) -> list[PackPlan]:
    num_packs = -(-len(group) // max_runs)
    num_packs = min(len(group), -(-num_packs // num_slots) * num_slots)
    ends = [len(group) * i // num_packs for i in range(num_packs + 1)]
    return [PackPlan(tuple(group[a:b])) for a, b in pairwise(ends)]
