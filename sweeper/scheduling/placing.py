"""Decide where packs train, given what is missing: on a CPU or GPUs, with which share of a GPU, in packs of what size."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeper.ledger.reader import Records
from sweeper.machines.resources import Machine, Resources, num_slots
from sweeper.scheduling.estimate import Estimate, forecast, form_packs, restart_words
from sweeper.scheduling.gpu_packs import Measure, MeasureTogether, choose
from sweeper.scheduling.packing import PackPlan, Waiting
from sweeper.scheduling.plan import Planned
from trainables.errors import InputError

SHORT_S = 10.0
"""Seconds of training on a CPU below which Ray is not started: on two cores it takes about as long until its workers train."""


@dataclass(frozen=True)
class Prepared:
    """What is trained, and where.

    Attributes:
        machine: Machine with every open choice decided.
        num_slots: Packs that train at once.
        packs: Packs of the missing runs.
        expected: Estimated time and memory; None if nothing can be measured yet.
        notes: Decisions and their reasons, one line each.
    """

    machine: Machine
    num_slots: int
    packs: list[PackPlan]
    expected: Estimate | None
    notes: tuple[str, ...]


def prepare(
    machine: Machine,
    planned: Sequence[Planned],
    records: Records | None,
    resources: Resources,
    measure: Measure,
    together: MeasureTogether | None,
) -> Prepared:
    """Decide what a machine leaves open (see `settle`), form packs of what is missing, and estimate their time and memory."""
    settled, words = settle(machine, planned, records, resources, measure, together)
    slots = num_slots(resources, settled)
    packs, expected = forecast(planned, records, settled, slots, measure)
    notes = [words, restart_words(planned, records)]
    if expected and _is_short(settled, expected):
        settled, slots = replace(settled, ray=False), 1
        packs = form_packs(planned, records, settled, slots, measure)
        expected = replace(expected.one_by_one(), num_packs=len(packs))
        notes.append("Trains in this process: Ray would take longer to start; --ray uses it all the same.")
    return Prepared(settled, slots, packs, expected, tuple(filter(None, notes)))


def _is_short(machine: Machine, expected: Estimate) -> bool:
    is_free = machine.ray is None and machine.address is None and not machine.gpus_per_pack
    return is_free and expected.num_runs > 0 and expected.one_by_one().duration_s < SHORT_S


def settle(
    machine: Machine,
    planned: Sequence[Planned],
    records: Records | None,
    resources: Resources,
    measure: Measure,
    together: MeasureTogether | None = None,
) -> tuple[Machine, str]:
    """Decide what a machine leaves open.

    Args:
        machine: Machine as the user asked for it.
        planned: What is to be trained.
        records: The ledger; None if there is none.
        resources: Resources of the machine.
        measure: Measures a pack.
        together: Measures packs that share a GPU; None if that is not possible.

    Returns:
        The machine with its GPU share and, if chosen, the size of packs; and the choice in words, empty if there was no
        choice.

    Raises:
        InputError: A GPU is requested and there is none, a sweep began on another kind of device, or its precision is not
            available on a CPU.
    """
    device, words = _device(machine, planned, records, resources)
    waiting = [run for each in planned for run in each.waiting(records)]
    if device == "cpu":
        _check_precision(waiting)
        return replace(machine, gpus_per_pack=0.0), words
    kept = _kept_size(planned, records)
    if machine.gpus_per_pack or not waiting:
        return replace(machine, gpus_per_pack=machine.gpus_per_pack or 1.0, pack_size=kept), words
    kinds = Counter(run.static_key for run in waiting)
    run = next(run for run in waiting if run.static_key == kinds.most_common(1)[0][0])
    num_runs = -(-kinds[run.static_key] // max(1, int(resources.num_gpus)))
    if machine.ray is False:
        together = _one_at_a_time
    choice = choose(run, num_runs, machine.threads, measure, together, kept)
    chosen = replace(
        machine, gpus_per_pack=1 / choice.num_packs, max_pack=choice.size, pack_size=kept and choice.size
    )
    at_once = "one pack" if choice.num_packs == 1 else f"{choice.num_packs} packs"
    words += (
        f"{resources.num_gpus:g} x {resources.gpu}: {at_once} of up to {choice.size} runs at once on each"
        f" ({choice.reason})."
    )
    return chosen, words


def _device(
    machine: Machine, planned: Sequence[Planned], records: Records | None, resources: Resources
) -> tuple[str, str]:
    """Return `cpu` or `gpu`, and the reason if it may surprise."""
    has_gpus = resources.num_gpus > 0
    if machine.device == "gpu" and not has_gpus:
        raise InputError(
            f"--device gpu: the cluster at {machine.address} has no GPU.\n"
            "Use --device cpu, or set --cluster-gpus to the number that it may grow to."
        )
    if machine.device != "auto":
        return machine.device, ""
    wanted = "gpu" if machine.gpus_per_pack or (machine.gpus_per_pack is None and has_gpus) else "cpu"
    begun = _begun_on([each for each in planned if each.waiting(records)], records)
    others = [name for name, device in begun.items() if device != wanted]
    if not others:
        is_expected = resources.problem and machine.gpus_per_pack is None and machine.address is None
        return wanted, f"{resources.problem}: packs train on the CPU." if is_expected else ""
    sweep, device = others[0], begun[others[0]]
    if len(set(begun.values())) > 1:
        raise InputError(
            f"Some of these sweeps began on a CPU, others on a GPU: {', '.join(begun)}.\n"
            "Run them one by one, or resume all of them with --device cpu or --device gpu."
        )
    if machine.gpus_per_pack is None and device == "cpu":
        note = f"Sweep {sweep} began on a CPU and resumes there, so that its numerics are not mixed"
        return "cpu", f"{note}; --device gpu moves it to the GPU."
    raise InputError(
        f"Sweep {sweep} began on a {device.upper()}; on a {wanted.upper()} its numerics would be mixed.\n"
        f"Resume with --device {device} on such a machine, or force --device {wanted}."
    )


def _begun_on(planned: Sequence[Planned], records: Records | None) -> dict[str, str]:
    """Return the kind of device that trained the runs of each sweep; sweeps with none or several are left out."""
    known = set(records.sweeps()) if records else set()
    found = {}
    for each in planned:
        if records is None or each.question.id not in known:
            continue
        kinds = {_kind(row.numerics) for row in records.members(each.question.id)} - {""}
        if len(kinds) == 1:
            found[str(each.question.id)] = kinds.pop()
    return found


def _kind(numerics: str | None) -> str:
    """Return `cpu` or `gpu` for a numerics class; empty if nothing was trained, or on both."""
    return {"cpu": "cpu", "cuda": "gpu"}.get((numerics or "").partition(" ")[0], "")


def _kept_size(planned: Sequence[Planned], records: Records | None) -> int | None:
    """Return how many runs the packs of these sweeps computed, None if that was not always the same."""
    known = set(records.sweeps()) if records else set()
    sizes = {
        int(found[1])
        for each in planned
        if records is not None and each.question.id in known
        for row in records.members(each.question.id)
        if (found := re.search(r", (\d+) stacked", row.numerics or ""))
    }
    return sizes.pop() if len(sizes) == 1 else None


def _one_at_a_time(*_: object) -> None:
    """Measure nothing: without Ray one pack trains at a time, so no packs share a GPU."""


def _check_precision(waiting: Sequence[Waiting]) -> None:
    if any(run.spec["precision"] == "tf32" for run in waiting):
        raise InputError(
            "precision=tf32: not available on a CPU.\nUse precision=fp32, or a machine with a GPU."
        )
