"""On what packs train: what was asked, what is there, and what a sweep was begun on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from sweeper.ledger.reader import Records
from sweeper.ledger.writer import Draw, Ledger, Member
from sweeper.machines.probe import Measured, ProbedRun
from sweeper.machines.resources import Device, Machine, Resources
from sweeper.scheduling.gpu_packs import Measure
from sweeper.scheduling.placing import prepare, settle
from sweeper.scheduling.plan import Planned, find_question
from tests.specs import run_spec
from trainables.blocks import Manifest, RunEntry, write_block
from trainables.config import Precision, RunSpec
from trainables.errors import InputError

AUTO = Machine(None, None)
NO_GPU, ONE_GPU = Resources(4, 0), Resources(4, 1, "NVIDIA L4, 22 GiB")
CPU_CLASS = "cpu x86_64 AVX2, 1 thread(s), torch 2.13.0, fp32"


def gpu_class(size: int) -> str:
    return f"cuda NVIDIA L4, {size} stacked, torch 2.13.0, fp32"


def planned(num_runs: int = 20, name: str = "betavae_beta", precision: Precision = "fp32") -> Planned:
    """A question of one draw whose seeds are runs of their own."""
    spec = run_spec(precision=precision)
    keys = [f"{name} {seed}" for seed in range(num_runs)]
    members = tuple(Member(key, seed, 200, spec) for seed, key in enumerate(keys))
    runs = {key: ProbedRun(key, name, spec, num_factors=2) for key in keys}
    return Planned(find_question(name, "smoke"), (Draw(0, {"beta": 1.0}, members),), runs, 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


def begin(ledger: Ledger, question: Planned, *classes: str) -> None:
    """Train the first runs of a question for a while, each in one of these classes."""
    question.register(ledger)
    for member, numerics in zip(question.members, classes, strict=False):
        number = ledger.begin_attempt([member.key])
        entry = RunEntry(member.key, member.seed, "running", 100, 200, member.spec)
        manifest = Manifest(number, 0, 0, 100, numerics, "1", 1e9, 1.0, (entry,), ())
        ledger.take(write_block(ledger.storage, manifest, {member.key: {"state": b"x"}}))
        ledger.end_attempt(number, "stopped")


def measure(spec: RunSpec, size: int, share: float, threads: int) -> Measured:
    """A GPU that any pack keeps equally busy."""
    return Measured(0.01, 0.1 * size, 22.0 * share)


def together(spec: RunSpec, size: int, num_packs: int, threads: int) -> float:
    return 0.01 * num_packs


def never(*_: object) -> NoReturn:
    pytest.fail("a pack was measured")


def settled(
    machine: Machine, resources: Resources, *questions: Planned, records: Records | None = None
) -> tuple[Machine, str]:
    return settle(machine, questions or [planned()], records, resources, measure, together)


def test_a_machine_without_a_gpu_trains_on_its_cpu_without_a_word() -> None:
    assert settled(AUTO, NO_GPU) == (replace(AUTO, gpus_per_pack=0.0), "")


def test_a_gpu_is_used_unasked_and_the_choice_is_one_line() -> None:
    machine, words = settled(AUTO, ONE_GPU)
    assert (machine.gpus_per_pack, machine.max_pack, machine.pack_size) == (1.0, 32, None)
    assert words.startswith(
        "1 x NVIDIA L4, 22 GiB: one pack of up to 32 runs at once on each (2,000 run-steps/s"
    )
    assert "\n" not in words


@pytest.mark.parametrize("machine", [replace(AUTO, gpus_per_pack=0.0), replace(AUTO, device="cpu")])
def test_a_cpu_is_used_where_it_is_asked_for(machine: Machine) -> None:
    found, words = settled(machine, ONE_GPU)
    assert (found.gpus_per_pack, words) == (0.0, "")


def test_a_share_that_is_asked_for_is_not_measured() -> None:
    found, words = settle(replace(AUTO, gpus_per_pack=0.25), [planned()], None, ONE_GPU, never, None)
    assert (found.gpus_per_pack, words) == (0.25, "")


def test_without_ray_packs_that_share_a_gpu_are_not_measured() -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("one pack trains at a time")

    settle(replace(AUTO, ray=False), [planned()], None, ONE_GPU, measure, refuse)
    with pytest.raises(AssertionError, match="one pack"):
        settle(AUTO, [planned()], None, ONE_GPU, measure, refuse)


def test_where_nothing_is_left_to_train_nothing_is_measured(ledger: Ledger) -> None:
    question = planned(0)
    assert settle(AUTO, [question], ledger.records, ONE_GPU, never, None)[0].gpus_per_pack == 1.0


def test_a_sweep_begun_on_a_cpu_goes_on_there_and_says_so(ledger: Ledger) -> None:
    question = planned()
    begin(ledger, question, CPU_CLASS)
    machine, words = settled(AUTO, ONE_GPU, question, records=ledger.records)
    assert machine.gpus_per_pack == 0.0
    assert words == (
        "Sweep betavae_beta-smoke began on a CPU and resumes there, so that its numerics are not mixed;"
        " --device gpu moves it to the GPU."
    )
    machine, words = settled(replace(AUTO, device="gpu"), ONE_GPU, question, records=ledger.records)
    assert machine.gpus_per_pack == 1.0
    assert words


@pytest.mark.parametrize(
    ("numerics", "machine", "resources", "said"),
    [
        (CPU_CLASS, replace(AUTO, gpus_per_pack=0.5), ONE_GPU, "began on a CPU; on a GPU.*\n.*--device gpu"),
        (gpu_class(64), AUTO, NO_GPU, "began on a GPU; on a CPU.*\n.*--device gpu on such a machine"),
        (gpu_class(64), replace(AUTO, gpus_per_pack=0.0), ONE_GPU, "began on a GPU.*\n.*--device cpu"),
    ],
)
def test_another_kind_of_device_is_refused_unless_it_is_named(
    ledger: Ledger, numerics: str, machine: Machine, resources: Resources, said: str
) -> None:
    question = planned()
    begin(ledger, question, numerics)
    with pytest.raises(InputError, match=said):
        settled(machine, resources, question, records=ledger.records)
    device: Device = "cpu" if machine.gpus_per_pack == 0 or not resources.num_gpus else "gpu"
    settled(replace(machine, device=device), resources, question, records=ledger.records)


def test_a_sweep_that_is_done_may_have_been_begun_anywhere(ledger: Ledger) -> None:
    question = planned(1)
    question.register(ledger)
    (member,) = question.members
    number = ledger.begin_attempt([member.key])
    entry = RunEntry(member.key, member.seed, "done", 200, 200, member.spec)
    manifest = Manifest(number, 0, 0, 200, gpu_class(8), "1", 1e9, 1.0, (entry,), ())
    ledger.take(write_block(ledger.storage, manifest, {member.key: {"state": b"x"}}))
    settled(AUTO, NO_GPU, question, records=ledger.records)


def test_a_driver_of_gpus_that_fails_is_told() -> None:
    broken = Resources(4, 0, problem="nvidia-smi fails: Driver/library version mismatch")
    machine, words = settled(AUTO, broken)
    assert machine.gpus_per_pack == 0.0
    assert words == "nvidia-smi fails: Driver/library version mismatch: packs train on the CPU."
    assert settled(replace(AUTO, device="cpu"), broken)[1] == ""


def test_what_is_mixed_already_goes_anywhere(ledger: Ledger) -> None:
    question = planned()
    begin(ledger, question, CPU_CLASS, gpu_class(8))
    assert settled(AUTO, ONE_GPU, question, records=ledger.records)[0].gpus_per_pack == 1.0
    assert settled(AUTO, NO_GPU, question, records=ledger.records)[0].gpus_per_pack == 0.0


def test_sweeps_begun_on_different_devices_are_run_one_by_one(ledger: Ledger) -> None:
    one, other = planned(), planned(name="factorvae_gamma")
    begin(ledger, one, CPU_CLASS)
    begin(ledger, other, gpu_class(8))
    with pytest.raises(InputError, match=r"one by one.*--device cpu or --device gpu"):
        settled(AUTO, ONE_GPU, one, other, records=ledger.records)


def test_added_seeds_are_computed_in_packs_of_the_size_of_the_first(ledger: Ledger) -> None:
    """Else the runs of a draw would be of different classes."""
    question = planned()
    begin(ledger, question, gpu_class(64), gpu_class(64))
    prepared = prepare(AUTO, [question], ledger.records, ONE_GPU, measure, together)
    assert {pack.size for pack in prepared.packs} == {64}
    assert "as many as before" in prepared.notes[0]
    prepared = prepare(replace(AUTO, gpus_per_pack=0.5), [question], ledger.records, ONE_GPU, measure, None)
    assert {pack.size for pack in prepared.packs} == {64}, (
        "a share that is asked for changes nothing about it"
    )


def test_precision_that_a_cpu_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"precision=tf32: not available on a CPU\."):
        settled(AUTO, NO_GPU, planned(precision="tf32"))
    settled(AUTO, ONE_GPU, planned(precision="tf32"))
    settled(AUTO, NO_GPU, planned(precision="bf16"))


def test_runs_whose_states_were_dropped_are_said_to_start_over(ledger: Ledger) -> None:
    question = planned(3)
    begin(ledger, question, CPU_CLASS, CPU_CLASS)
    ledger.drop_states([question.members[0].key])
    prepared = prepare(replace(AUTO, ray=True), [question], ledger.records, NO_GPU, measure, None)
    assert prepared.notes == (
        "Trained before but without a state to resume from, so again from step 0: 1 run.",
    )
    assert sorted((run.key, run.step) for pack in prepared.packs for run in pack.runs) == [
        ("betavae_beta 0", 0),
        ("betavae_beta 1", 100),
        ("betavae_beta 2", 0),
    ]


def on_cpu(step_time_s: float) -> Measure:
    """A CPU on which a step of a pack takes so long."""
    return lambda *_: Measured(step_time_s, 0.1, 0.0)


def test_training_of_seconds_needs_no_ray() -> None:
    # 20 runs of 200 steps in four packs of five: 800 pack-steps, measured with five runs; one at a time, two packs hold them.
    prepared = prepare(AUTO, [planned()], None, NO_GPU, on_cpu(0.012), None)
    assert prepared.expected is not None
    assert prepared.expected.duration_s == pytest.approx(9.6)
    assert (prepared.machine.ray, prepared.num_slots, len(prepared.packs)) == (False, 1, 2)
    assert "Trains in this process" in prepared.notes[-1]
    assert "1 at once: 7 to 13 s" in prepared.expected.sentence()


@pytest.mark.parametrize(
    ("machine", "step_time_s"),
    [
        (AUTO, 0.013),
        (replace(AUTO, ray=True), 0.001),
        (replace(AUTO, address="10.0.0.1:6379"), 0.001),
    ],
    ids=["ten seconds", "asked for", "a cluster"],
)
def test_ray_is_used_where_training_takes_longer_or_it_was_asked_for(
    machine: Machine, step_time_s: float
) -> None:
    prepared = prepare(machine, [planned()], None, NO_GPU, on_cpu(step_time_s), None)
    assert (prepared.machine.ray, prepared.num_slots) == (machine.ray, 4)
    assert prepared.expected is not None
    assert prepared.expected.duration_s == pytest.approx(200 * step_time_s)


def test_a_gpu_is_used_with_ray_however_short_training_is() -> None:
    prepared = prepare(AUTO, [planned()], None, ONE_GPU, measure, lambda *_: None)
    assert prepared.machine.ray is None


def test_nothing_to_train_says_nothing_of_ray(ledger: Ledger) -> None:
    assert prepare(AUTO, [], None, NO_GPU, on_cpu(0.001), None).notes == ()
