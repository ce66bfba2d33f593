"""Choose how many packs share a GPU and how many runs each computes, for the least time by measured memory and rate.

A larger pack keeps a GPU busier until the GPU is fully busy; beyond that it only needs more memory. Several packs at once
help if one pack leaves the GPU waiting. So a few sizes of the ladder are measured, then two or four packs at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

from sweeper.machines.probe import Measured
from sweeper.scheduling.packing import Waiting
from trainables.config import RunSpec, spec_of
from trainables.errors import InputError
from trainables.ladder import LADDER, MIN_SIZE, SMALL, rung

ROOM = 0.8
"""Part of a GPU share's memory for training; the rest is for the images, the evaluation and the driver."""

WORTH = 0.9
"""Sharing a GPU must take less than this fraction of the time of one pack alone on it."""

SHARES = (2, 4)
"""Numbers of packs at once that are tried."""

UNMEASURED_SIZE = 64
"""Runs of a pack if there is no GPU yet to measure on."""

Measure = Callable[[RunSpec, int, float, int], Measured | None]
"""Function that returns the cost of a pack, given a run, the number of such runs, a GPU share and CPU threads; None if it
cannot be measured or does not fit into memory."""

MeasureTogether = Callable[[RunSpec, int, int, int], float | None]
"""Function that returns the seconds per step of several packs at once on one GPU, given a run, the number of such runs per
pack, the number of packs and CPU threads; None as above."""


@dataclass(frozen=True)
class Choice:
    """How packs use GPUs.

    Attributes:
        num_packs: Packs at once on a GPU.
        size: Runs that a pack computes.
        reason: The reason, with numbers.
    """

    num_packs: int
    size: int
    reason: str


def choose(
    run: Waiting,
    num_runs: int,
    threads: int,
    measure: Measure,
    together: MeasureTogether | None,
    kept_size: int | None,
) -> Choice:
    """Choose what trains this many runs in the least time.

    Args:
        run: One of the runs.
        num_runs: Number of runs for each GPU.
        threads: CPU threads of a pack.
        measure: Measures a pack alone on a GPU.
        together: Measures packs that share a GPU; None if that is not possible.
        kept_size: Runs that packs computed before; kept if memory holds them, so that the runs of a sweep have one numerics
            class.

    Raises:
        InputError: The smallest pack does not fit on a GPU.
    """
    spec = spec_of(run.spec)
    alone = _measured_alone(lambda size: measure(spec, size, 1.0, threads), num_runs, kept_size)
    if not alone and together is None:
        return Choice(1, kept_size or UNMEASURED_SIZE, "no GPU is free yet to measure on")
    if not alone:
        raise InputError(
            f"A pack of {MIN_SIZE} such runs does not fit into the memory of the GPU.\n"
            "Use smaller networks or batches, or a larger machine with --address."
        )
    times = {(1, size): _time_s(num_runs, 1, size, each.step_time_s) for size, each in alone.items()}
    for num_packs in SHARES if together else ():
        size = kept_size or rung(-(-num_runs // num_packs))
        if size in alone and _fits(alone[size], num_packs) and num_runs >= num_packs:
            assert together
            step_time_s = together(spec, size, num_packs, threads)
            if step_time_s is not None:
                times[num_packs, size] = _time_s(num_runs, num_packs, size, step_time_s)
    best = min(times, key=lambda each: (times[each] * (WORTH if each[0] == 1 else 1.0), each))
    reason = _reason(num_runs, times, best, alone)
    return Choice(*best, f"as many as before; {reason}" if best[1] == kept_size else reason)


def _measured_alone(
    measure: Callable[[int], Measured | None], num_runs: int, kept_size: int | None
) -> dict[int, Measured]:
    """Return the cost of packs of increasing sizes, up to one that holds all runs, as far as memory allows."""
    kept = measure(kept_size) if kept_size else None
    if kept_size and kept is not None and _fits(kept, 1):
        return {kept_size: kept}
    found: dict[int, Measured] = {}
    for size in LADDER:
        one = measure(size)
        if one is None or not _fits(one, 1):
            break
        found[size] = one
        if size >= num_runs:
            break
    for size in () if found else SMALL:
        one = measure(size)
        if one is not None and _fits(one, 1):
            return {size: one}
    return found


def _fits(found: Measured, num_packs: int) -> bool:
    return not found.room_gib or found.memory_gib * num_packs <= ROOM * found.room_gib


def _time_s(num_runs: int, num_packs: int, size: int, step_time_s: float) -> float:
    """Return the seconds in which all runs do one step."""
    return -(-num_runs // (num_packs * size)) * step_time_s


def _reason(
    num_runs: int, times: dict[tuple[int, int], float], best: tuple[int, int], alone: dict[int, Measured]
) -> str:
    found = alone[best[1]]
    memory = f", {found.memory_gib * best[0]:.1f} of {found.room_gib:.0f} GiB" if found.room_gib else ""
    others = [
        f"{_packs(*each)} {num_runs / taken_s:,.0f}"
        for each, taken_s in sorted(times.items())
        if each != best
    ]
    than = f"; also measured: {', '.join(others)}" if others else ""
    return f"{num_runs / times[best]:,.0f} run-steps/s on each{memory}{than}"


def _packs(num_packs: int, size: int) -> str:
    return f"one pack of {size}" if num_packs == 1 else f"{num_packs} packs of {size} at once"
