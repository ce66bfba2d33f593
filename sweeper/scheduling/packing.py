"""Group runs into packs, whose runs share a static key, a step and a schedule."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from trainables.config import Schedule, StoredSpec
from trainables.ladder import LADDER, MIN_SIZE, rung

MAX_RUNS_CPU = 16
"""Most runs of a pack on a CPU core; a larger pack does not fit the caches and is slower per run."""


@dataclass(frozen=True)
class Waiting:
    """A run that has not reached its horizon.

    Attributes:
        key: Its run key.
        static_key: Its static key, shared by the runs of a pack.
        spec: Its specification as the ledger stores it.
        step: Step of its newest state, from which it resumes.
        schedule: Its horizon and evaluations.
        block_s: Seconds of work to commit at once.
    """

    key: str
    static_key: str
    spec: StoredSpec
    step: int
    schedule: Schedule
    block_s: float


@dataclass(frozen=True)
class PackPlan:
    """Runs that will train together, at least one.

    Attributes:
        runs: The runs.
        num_failures: Attempts that failed without a new state.
        size: Runs to compute on a GPU, ghosts included; None on a device where it does not matter.
    """

    runs: tuple[Waiting, ...]
    num_failures: int = 0
    size: int | None = None

    @property
    def num_steps(self) -> int:
        """Remaining updates of each run."""
        return self.runs[0].schedule.steps - self.runs[0].step

    @property
    def is_smallest(self) -> bool:
        """Whether it cannot be made smaller."""
        return len(self.runs) == 1 and (self.size or MIN_SIZE) <= MIN_SIZE

    def halves(self) -> tuple["PackPlan", ...]:
        """Return packs of half the size, after running out of memory; one pack if the other half was ghosts."""
        if self.size is None or self.size <= MIN_SIZE:
            return self.split()
        size = self.size // 2
        parts = _evenly(self.runs, -(-len(self.runs) // size))
        return tuple(PackPlan(part, size=size) for part in parts)

    def split(self) -> tuple["PackPlan", ...]:
        """Return packs with half the runs each, which compute as many as before."""
        return tuple(PackPlan(part, size=self.size) for part in _evenly(self.runs, min(2, len(self.runs))))

    def without(self, keys: Collection[str]) -> tuple["PackPlan", ...]:
        """Return a pack without some runs, and a pack of those runs."""
        parts = ([run for run in self.runs if (run.key in keys) == is_in] for is_in in (False, True))
        return tuple(PackPlan(tuple(part), size=self.size) for part in parts if part)

    def forgiven(self) -> "PackPlan":
        """Return the pack with no failure counted."""
        return replace(self, num_failures=0)

    def failed_again(self) -> "PackPlan":
        """Return the pack with one more failure counted."""
        return replace(self, num_failures=self.num_failures + 1)


@dataclass(frozen=True)
class Sizes:
    """How many runs packs compute on a GPU: a size of the ladder, the same for all packs of a group.

    Attributes:
        kept: Size of the sweep's packs so far; None for the smallest size that holds their runs.
    """

    kept: int | None = None

    def holding(self, num_runs: int, max_runs: int) -> int:
        """Return the size of packs with this many runs, if memory holds packs of at most `max_runs`."""
        return self.kept if self.kept and num_runs <= self.kept <= max_runs else min(rung(num_runs), max_runs)


def pack_up(
    waiting: Iterable[Waiting], num_slots: int, max_runs: Mapping[str, int], sizes: "Sizes | None" = None
) -> list[PackPlan]:
    """Form packs that keep all slots busy, as large as allowed, longest first.

    If there are enough runs, the number of packs is a multiple of the number of slots, and the packs of a group are of even
    size, so that they end together.

    Args:
        waiting: Runs to train.
        num_slots: Packs that train at once.
        max_runs: Largest pack, by static key.
        sizes: How many runs packs compute; None on a CPU, where it does not matter.
    """
    groups: dict[tuple[str, int, Schedule], list[Waiting]] = {}
    for run in waiting:
        groups.setdefault((run.static_key, run.step, run.schedule), []).append(run)
    packs = []
    for group, num_packs in zip(groups.values(), _counts(groups, num_slots, max_runs, sizes), strict=True):
        most = max_runs[group[0].static_key]
        size = sizes.holding(-(-len(group) // num_packs), most) if sizes else None
        packs += [PackPlan(part, size=size) for part in _evenly(group, num_packs)]
    return sorted(packs, key=lambda pack: -pack.num_steps * len(pack.runs))


def _counts(
    groups: Mapping[tuple[str, int, Schedule], Sequence[Waiting]],
    num_slots: int,
    max_runs: Mapping[str, int],
    sizes: Sizes | None,
) -> list[int]:
    """Return the packs of each group: as few as hold its runs, and more if slots would idle, from the longest packs first."""
    counts, most, work = [], [], []
    for (static_key, step, schedule), group in groups.items():
        counts.append(-(-len(group) // max_runs[static_key]))
        # On a GPU, fewer runs than the smallest usual pack computes take just as long.
        least = min(LADDER[0], max_runs[static_key]) if sizes else 1
        most.append(-(-len(group) // least))
        work.append(len(group) * (schedule.steps - step))
    for _ in range(-sum(counts) % num_slots):
        splittable = [g for g in range(len(counts)) if counts[g] < most[g]]
        if not splittable:
            break
        counts[max(splittable, key=lambda g: work[g] / counts[g])] += 1
    return counts


def _evenly(runs: Sequence[Waiting], num_packs: int) -> list[tuple[Waiting, ...]]:
    ends = [len(runs) * i // num_packs for i in range(num_packs + 1)]
    return [tuple(runs[a:b]) for a, b in pairwise(ends)]
