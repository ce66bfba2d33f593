"""How far sweeps and runs are."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.ledger.reader import Records
from sweeper.ledger.rows import RunStatus, Standing, SweepId


@dataclass(frozen=True)
class Progress:
    """How far a sweep is.

    Attributes:
        counts: Number of runs by status.
        steps: Run-steps of the whole sweep, without those after a divergence.
        steps_done: Run-steps that are committed.
        pace: Run-steps that the attempts which are still open have committed, and when the first of them began; None if none is.
    """

    counts: Counter[RunStatus]
    steps: int
    steps_done: int
    pace: tuple[int, float] | None

    def left_s(self, now_s: float) -> float | None:
        """Return about how many seconds of training are left at the present pace; None if nothing is trained or known."""
        if self.pace is None or not self.pace[0]:
            return None
        num_steps, begun_s = self.pace
        return (self.steps - self.steps_done) * (now_s - begun_s) / num_steps


def progress(records: Records, sweep: SweepId, *, is_running: bool) -> Progress:
    """Return how far a sweep is.

    Args:
        records: The ledger.
        sweep: The sweep.
        is_running: Whether a driver is at work; otherwise the one that trained runs is gone, and they are planned again.
    """
    counts, steps, done = Counter[RunStatus](), 0, 0
    for row in records.members(sweep):
        is_lost = row.status == "running" and not is_running
        counts["planned" if is_lost else row.status] += 1
        committed, end = Standing(row.step, row.first_bad_step).steps(row.horizon_steps)
        steps += end
        done += committed
    return Progress(counts, steps, done, records.pace(sweep) if is_running else None)


def run_steps(records: Records, horizons: Mapping[str, int]) -> tuple[int, int]:
    """Return how many run-steps are committed, and how many there will be in all.

    Args:
        records: The ledger.
        horizons: Last step of each run, by its key.
    """
    standing = records.standing(horizons)
    found = [standing.get(key, Standing(0, None)).steps(horizon) for key, horizon in horizons.items()]
    return sum(done for done, _ in found), sum(end for _, end in found)
