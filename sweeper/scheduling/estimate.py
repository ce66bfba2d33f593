"""Estimate time and memory of a plan: from blocks of such runs in the ledger, else from about a second of training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from rich.console import Console
from rich.table import Table

from sweeper import display
from sweeper.ledger.reader import Records
from sweeper.machines.probe import Measured
from sweeper.machines.resources import Machine
from sweeper.scheduling.gpu_packs import ROOM, UNMEASURED_SIZE, Measure
from sweeper.scheduling.pace import Pace, learned
from sweeper.scheduling.packing import MAX_RUNS_CPU, PackPlan, Sizes, Waiting, pack_up
from sweeper.scheduling.plan import Planned
from trainables.config import RunSpec, spec_of
from trainables.errors import InputError
from trainables.ladder import LADDER, MIN_SIZE, largest

TOO_LONG_S = 24 * 3600.0
"""On a machine without a GPU, a plan that takes longer is not started unless the user insists."""

MAX_MEASURED_CPU = 8
"""Most runs of a measured pack on a CPU, where a step of the paper's networks takes a second."""

MEASURED_SPREAD = (0.7, 1.4)
"""What training took of what a second of it had promised: on several machines .78 to 1.05; more beside other work."""


@dataclass(frozen=True)
class Estimate:
    """Time and memory of training packs.

    Attributes:
        duration_s: Seconds for all packs, as many at once as there are slots.
        least_s: Seconds that it hardly takes less than.
        most_s: Seconds that it hardly takes more than, if no other work begins on the machine.
        pack_memory_gib: Largest memory of one pack.
        num_runs: Number of runs in all packs.
        num_packs: Number of packs.
        num_slots: Packs that train at once.
    """

    duration_s: float
    least_s: float
    most_s: float
    pack_memory_gib: float
    num_runs: int
    num_packs: int
    num_slots: int

    def one_by_one(self) -> Estimate:
        """Return the estimate of training the packs one after the other."""
        at_once = min(self.num_slots, max(1, self.num_packs))
        return replace(
            self,
            duration_s=self.duration_s * at_once,
            least_s=self.least_s * at_once,
            most_s=self.most_s * at_once,
            num_slots=1,
        )

    def sentence(self) -> str:
        """Return the estimate as a sentence for a user."""
        if not self.num_runs:
            return "Nothing is left to train."
        return (
            f"{display.runs(self.num_runs)} to train in {display.count(self.num_packs, 'pack')}, {self.num_slots} at once: "
            f"{display.durations(self.least_s, self.most_s)}, {display.memory(self.pack_memory_gib)} a pack."
        )


def forecast(
    planned: Sequence[Planned], records: Records | None, machine: Machine, num_slots: int, measure: Measure
) -> tuple[list[PackPlan], Estimate | None]:
    """Return packs of what is missing, and their estimate, which is None if nothing can be measured yet."""
    packs = form_packs(planned, records, machine, num_slots, measure)
    paces = learned(planned, records, machine) if packs else {}
    return packs, estimate(packs, machine, num_slots, measure, paces)


def form_packs(
    planned: Sequence[Planned], records: Records | None, machine: Machine, num_slots: int, measure: Measure
) -> list[PackPlan]:
    """Return packs of all runs that a ledger lacks; a run that several sweeps want is in only one of them."""
    missing: dict[str, Waiting] = {}
    for run in (run for each in planned for run in each.waiting(records)):
        # A run that is wanted at two horizons is trained to the nearer one first, so that it is evaluated there.
        if run.key not in missing or run.schedule.steps < missing[run.key].schedule.steps:
            missing[run.key] = run
    kinds = {run.static_key: run for run in missing.values()}
    max_runs = {key: _max_runs(run, machine, measure) for key, run in kinds.items()}
    sizes = Sizes(machine.pack_size) if machine.gpus_per_pack else None
    return pack_up(missing.values(), num_slots, max_runs, sizes)


def _max_runs(run: Waiting, machine: Machine, measure: Measure) -> int:
    if not machine.gpus_per_pack:
        return MAX_RUNS_CPU
    wanted = machine.max_pack or UNMEASURED_SIZE
    for size in (LADDER[0], MIN_SIZE):
        found = measure(spec_of(run.spec), size, machine.gpus_per_pack, machine.threads)
        if found and not found.room_gib:
            return wanted
        if found:
            return largest(min(wanted, ROOM * found.room_gib / (found.memory_gib / size)))
    return wanted


def announced(measure: Measure, console: Console) -> Measure:
    """Return a measure that says now and then how many packs it has measured; at paper scale each takes a while on a CPU."""
    said_at_s, num_measured = time.monotonic(), 0

    def measured(run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
        nonlocal said_at_s, num_measured
        if time.monotonic() - said_at_s >= display.LINE_EVERY_S:
            said_at_s = time.monotonic()
            console.print(f"Measuring time and memory: {display.count(num_measured, 'pack')} so far.")
        num_measured += 1
        return measure(run, num_runs, gpus, threads)

    return measured


def restart_words(planned: Sequence[Planned], records: Records | None) -> str:
    """Return a sentence about runs that were trained but have no state left to resume from; empty if there are none."""
    missing = {run.key: run.step for each in planned for run in each.waiting(records)}
    standing = records.standing(missing) if records else {}
    behind = [
        key for key, step in missing.items() if step == 0 and key in standing and standing[key].step > 0
    ]
    if not behind:
        return ""
    return f"Trained before but without a state to resume from, so again from step 0: {display.runs(len(behind))}."


def plan_table(planned: Sequence[Planned], records: Records | None) -> Table:
    """Return a table of what each question asks for, for a user."""
    rows = []
    for each in planned:
        scale, missing = each.question.scale, len(each.waiting(records))
        num_runs = sum(len(draw.members) for draw in each.draws)
        rows.append((str(each.question.id), scale.data, len(each.draws), num_runs, missing, scale.steps))
    columns = ("sweep", "data", "draws", "runs", "to train", "steps per run")
    return display.table("Plan", columns, rows)


def estimate(
    packs: Sequence[PackPlan],
    machine: Machine,
    num_slots: int,
    measure: Measure,
    paces: Mapping[str, Pace] = MappingProxyType({}),
) -> Estimate | None:
    """Estimate packs by measuring one of each kind, a small one on a CPU; other packs cost in proportion to their runs.

    Args:
        packs: What is to be trained.
        machine: Where, with every open choice decided.
        num_slots: Packs that train at once.
        measure: Measures a pack.
        paces: What is known of the time already, by static key, see `learned`.

    Returns:
        The estimate; None if no node of a cluster is free to measure on.

    Raises:
        InputError: A pack does not fit into the memory of this machine.
    """
    measured: dict[str, tuple[int, Measured]] = {}
    total_s = least_s = most_s = memory = 0.0
    for pack in sorted(packs, key=lambda pack: -len(pack.runs)):
        first = pack.runs[0]
        if first.static_key not in measured:
            num_runs = pack.size or min(len(pack.runs), MAX_MEASURED_CPU)
            asked = measure(spec_of(first.spec), num_runs, machine.gpus_per_pack or 0.0, machine.threads)
            if asked is None and machine.address is None:
                raise InputError(
                    f"A pack of {num_runs} such runs does not fit into memory here.\n"
                    "Use smaller networks or batches, or a larger machine with --address."
                )
            if asked is None:
                return None
            measured[first.static_key] = num_runs, asked
        num_runs, found = measured[first.static_key]
        num_computed = pack.size or len(pack.runs)
        pace = paces.get(first.static_key) or Pace(found.step_time_s / num_runs, MEASURED_SPREAD)
        pack_s = pace.run_step_s * num_computed * pack.num_steps
        total_s += pack_s
        least_s += pack_s * pace.spread[0]
        most_s += pack_s * pace.spread[1]
        memory = max(memory, found.memory_gib * num_computed / num_runs)
    at_once = min(num_slots, max(1, len(packs)))
    num_runs = sum(len(pack.runs) for pack in packs)
    return Estimate(
        total_s / at_once, least_s / at_once, most_s / at_once, memory, num_runs, len(packs), num_slots
    )
