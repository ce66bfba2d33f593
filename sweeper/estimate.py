"""What a plan will take, from a second of each kind of pack."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from sweeper import display
from sweeper.launch import Machine
from sweeper.packing import MAX_RUNS_CPU, MAX_RUNS_GPU, PackPlan, pack_up
from sweeper.plan import Planned
from sweeper.probing import Measured
from sweeper.records import Records
from trainables.config import RunSpec, spec_of

TOO_LONG_S = 24 * 3600.0
"""On a machine without a GPU a longer plan is not begun unless the user insists."""

MAX_MEASURED_CPU = 8
"""Runs of a measured pack on a CPU, where a step of the paper's networks takes a second."""

Measure = Callable[[RunSpec, int, str, int], Measured]


@dataclass(frozen=True)
class Estimate:
    """Time and memory of training packs.

    Attributes:
        duration_s: Of all packs, as many at once as there are slots.
        pack_memory_gib: Largest memory of one pack.
        num_runs: Runs in all packs.
        num_packs: Packs in all.
        num_slots: Packs at once.
    """

    duration_s: float
    pack_memory_gib: float
    num_runs: int
    num_packs: int
    num_slots: int

    def sentence(self) -> str:
        """What it takes, for a person."""
        return (
            f"{self.num_runs} runs to train in {self.num_packs} packs, {self.num_slots} at once: "
            f"about {display.duration(self.duration_s)}, {display.memory(self.pack_memory_gib)} a pack."
        )


def pack_up_missing(
    planned: Sequence[Planned], records: Records | None, machine: Machine, num_slots: int
) -> list[PackPlan]:
    """Packs of all runs that a ledger lacks; a run that several sweeps want is in one of them."""
    missing = {run.key: run for each in planned for run in each.waiting(records)}
    max_runs = MAX_RUNS_GPU if machine.gpus_per_pack else MAX_RUNS_CPU
    return pack_up(missing.values(), num_slots, max_runs)


def plan_table(planned: Sequence[Planned], records: Records | None) -> Table:
    """What each question asks for, for a person."""
    rows = []
    for each in planned:
        scale, missing = each.question.scale, len(each.waiting(records))
        num_runs = sum(len(draw.members) for draw in each.draws)
        rows.append((str(each.question.id), scale.data, len(each.draws), num_runs, missing, scale.steps))
    columns = ("question", "data", "draws", "runs", "to train", "steps a run")
    return display.table("Plan", columns, rows)


def estimate(packs: Sequence[PackPlan], machine: Machine, num_slots: int, measure: Measure) -> Estimate:
    """Measure a pack of each kind, a small one on a CPU; others are taken to cost in proportion to their runs."""
    device = "cuda" if machine.gpus_per_pack else "cpu"
    measured: dict[str, tuple[int, Measured]] = {}
    total_s = memory = 0.0
    for pack in sorted(packs, key=lambda pack: -len(pack.runs)):
        first = pack.runs[0]
        if first.static_key not in measured:
            num_runs = len(pack.runs) if machine.gpus_per_pack else min(len(pack.runs), MAX_MEASURED_CPU)
            found = measure(spec_of(first.spec), num_runs, device, machine.threads)
            measured[first.static_key] = num_runs, found
        num_runs, found = measured[first.static_key]
        share = len(pack.runs) / num_runs
        total_s += found.step_time_s * share * pack.num_steps
        memory = max(memory, found.memory_gib * share)
    num_runs = sum(len(pack.runs) for pack in packs)
    return Estimate(total_s / min(num_slots, max(1, len(packs))), memory, num_runs, len(packs), num_slots)
