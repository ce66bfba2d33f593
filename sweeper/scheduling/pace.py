"""How fast runs like those that are missing have trained before, by the blocks in a ledger."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.ledger.reader import Records
from sweeper.ledger.rows import PaceRow
from sweeper.machines.resources import Machine
from sweeper.scheduling.plan import Planned

LEARNED_SPREAD = (0.9, 1.1)
"""Spread that is said at least, however alike earlier blocks were."""

WITHIN = (0.1, 0.9)
"""Quantiles of the pace of earlier blocks between which most others lie."""

MIN_LEARNED_S = 5.0
"""Seconds of training from which earlier blocks are believed; shorter ones are mostly evaluations."""


@dataclass(frozen=True)
class Pace:
    """How long a step of a run takes.

    Attributes:
        run_step_s: Seconds, the time of a step of a pack shared by its runs.
        spread: What it hardly takes less and more than, as shares of that.
    """

    run_step_s: float
    spread: tuple[float, float]


def learned(planned: Sequence[Planned], records: Records | None, machine: Machine) -> dict[str, Pace]:
    """Return the pace of earlier blocks on such a device with as many threads, by static key."""
    if records is None:
        return {}
    alike: dict[str, list[str]] = {}
    for each in planned:
        for key, run in each.runs.items():
            alike.setdefault(run.static_key, []).append(key)
    found = {static_key: _pace(records.paces(keys), machine) for static_key, keys in alike.items()}
    return {static_key: pace for static_key, pace in found.items() if pace}


def _pace(rows: Sequence[PaceRow], machine: Machine) -> Pace | None:
    where = "cuda " if machine.gpus_per_pack else "cpu "
    threads = "" if machine.gpus_per_pack else f" {machine.threads} thread(s)"
    rows = [row for row in rows if row.numerics.startswith(where) and threads in row.numerics]
    total_s = sum(row.train_s for row in rows)
    if total_s < MIN_LEARNED_S:
        return None
    run_step_s = total_s / sum(row.num_runs * row.num_steps for row in rows)
    each = sorted(row.train_s / (row.num_runs * row.num_steps) / run_step_s for row in rows)
    low, high = (each[round(share * (len(each) - 1))] for share in WITHIN)
    return Pace(run_step_s, (min(low, LEARNED_SPREAD[0]), max(high, LEARNED_SPREAD[1])))
