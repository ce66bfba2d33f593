import io
from dataclasses import replace

import pytest
from rich.console import Console

from sweeper import display
from sweeper.ledger.writer import Draw, Member
from sweeper.machines.probe import Measured, ProbedRun
from sweeper.machines.resources import Machine
from sweeper.scheduling.estimate import MAX_MEASURED_CPU, Estimate, estimate, forecast, form_packs, plan_table
from sweeper.scheduling.pace import Pace
from sweeper.scheduling.packing import PackPlan, Waiting
from sweeper.scheduling.plan import Planned, find_question
from tests.specs import run_spec
from trainables.config import RunSpec, Schedule
from trainables.errors import InputError
from trainables.ladder import rung

SPEC = run_spec()
CPU, GPU = Machine(None, 0.0), Machine(None, 0.25)


def pack(num_runs: int, static_key: str = "a", steps: int = 100, step: int = 0) -> PackPlan:
    run = Waiting("key", static_key, SPEC, step, Schedule(steps, 10, 10, ()), 1.0)
    return PackPlan(tuple(replace(run, key=f"{static_key}{number}") for number in range(num_runs)))


def planned(*keys: str, name: str = "betavae_beta") -> Planned:
    """A question of one draw whose seeds are runs of these keys."""
    members = tuple(Member(key, seed, 200, SPEC) for seed, key in enumerate(keys))
    runs = {key: ProbedRun(key, "a", SPEC, num_factors=2) for key in keys}
    return Planned(find_question(name, "smoke"), (Draw(0, {"beta": 1.0}, members),), runs, 2)


class Stopwatch:
    """A machine on which a step of a run takes a tenth of a second and a gibibyte of memory."""

    def __init__(self, room_gib: float = 0.0) -> None:
        self.asked: list[tuple[str, int, float, int]] = []
        self.room_gib = room_gib

    def __call__(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured:
        self.asked.append((run.model, num_runs, gpus, threads))
        return Measured(0.1 * num_runs, 1.0 * num_runs, self.room_gib)


def test_time_and_memory_are_in_proportion_to_runs_and_steps() -> None:
    watch = Stopwatch()
    found = estimate([pack(8, steps=100), pack(3, steps=100, step=40)], CPU, 2, watch)
    assert found is not None
    assert found.duration_s == pytest.approx(0.1 * (8 * 100 + 3 * 60) / 2)
    assert found.pack_memory_gib == pytest.approx(8)
    assert (found.num_runs, found.num_packs, found.num_slots) == (11, 2, 2)
    assert found.least_s == pytest.approx(0.7 * found.duration_s)
    assert found.most_s == pytest.approx(1.4 * found.duration_s)
    alone = found.one_by_one()
    assert (alone.duration_s, alone.least_s, alone.most_s) == pytest.approx(
        (2 * found.duration_s, 2 * found.least_s, 2 * found.most_s)
    )


def test_what_is_known_of_a_pace_is_not_what_a_second_of_training_says() -> None:
    known = {"a": Pace(0.3, (0.8, 1.5))}
    found = estimate([pack(8), pack(8, "b")], CPU, 1, Stopwatch(), known)
    assert found is not None
    assert found.duration_s == pytest.approx((0.3 + 0.1) * 800)
    assert found.least_s == pytest.approx((0.3 * 0.8 + 0.1 * 0.7) * 800)
    assert found.most_s == pytest.approx((0.3 * 1.5 + 0.1 * 1.4) * 800)
    assert found.pack_memory_gib == pytest.approx(8)


def test_one_small_pack_of_each_kind_is_measured_on_a_cpu_the_whole_one_on_a_gpu() -> None:
    packs = [pack(2), pack(8), pack(1, "b")]
    on_cpu, on_gpu = Stopwatch(), Stopwatch()
    estimate(packs, CPU, 2, on_cpu)
    estimate([replace(each, size=rung(len(each.runs))) for each in packs], GPU, 2, on_gpu)
    assert on_cpu.asked == [("beta_vae", MAX_MEASURED_CPU, 0.0, 1), ("beta_vae", 1, 0.0, 1)]
    assert on_gpu.asked == [("beta_vae", 8, 0.25, 1), ("beta_vae", 8, 0.25, 1)]


def test_slots_without_a_pack_do_not_help() -> None:
    found = estimate([pack(1)], CPU, 64, Stopwatch())
    assert found is not None
    assert found.duration_s == pytest.approx(10)


def test_nothing_to_train_takes_no_time() -> None:
    assert estimate([], CPU, 2, Stopwatch()) == Estimate(0.0, 0.0, 0.0, 0.0, 0, 0, 2)


def test_an_estimate_reads_as_a_sentence() -> None:
    assert (
        Estimate(90.0, 63.0, 126.0, 0.5, 8, 4, 2).sentence()
        == "8 runs to train in 4 packs, 2 at once: 1.1 to 2.1 min, 512 MiB a pack."
    )
    assert Estimate(0.0, 0.0, 0.0, 0.0, 0, 0, 2).sentence() == "Nothing is left to train."


def test_a_run_that_two_questions_want_is_trained_once() -> None:
    packs = form_packs([planned("x", "y"), planned("y", "z")], None, CPU, 2, Stopwatch())
    assert sorted(run.key for each in packs for run in each.runs) == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("room_gib", "num_runs", "size"),
    [(0.0, [8, 7], 8), (1000.0, [8, 7], 8), (5.0, [4, 4, 4, 3], 4), (0.1, [2] * 7 + [1], 2)],
)
def test_packs_on_a_gpu_are_no_larger_than_its_memory_holds(
    room_gib: float, num_runs: list[int], size: int
) -> None:
    asked = [planned(*map(str, range(15)))]
    packs = form_packs(asked, None, GPU, 2, Stopwatch(room_gib))
    assert sorted((len(each.runs) for each in packs), reverse=True) == num_runs
    assert {each.size for each in packs} == {size}


def test_packs_compute_what_packs_of_the_sweep_computed_before() -> None:
    asked = [planned(*map(str, range(15)))]
    (one,) = form_packs(asked, None, replace(GPU, pack_size=64), 1, Stopwatch(1000.0))
    assert (len(one.runs), one.size) == (15, 64)
    (small, _) = form_packs(asked, None, replace(GPU, pack_size=64), 1, Stopwatch(12.0))
    assert small.size == 8, "which memory no longer holds"


def test_what_a_ghost_takes_is_counted() -> None:
    on_gpu = replace(pack(3), size=8)
    found = estimate([on_gpu], GPU, 1, Stopwatch())
    assert found is not None
    assert found.duration_s == pytest.approx(0.1 * 8 * 100)
    assert found.pack_memory_gib == pytest.approx(8)


def test_where_nothing_can_be_measured_packs_are_formed_and_no_time_is_told() -> None:
    cluster = Machine("somewhere:6379", 0.25)
    packs, expected = forecast([planned("x", "y")], None, cluster, 1, lambda *_: None)
    assert [len(each.runs) for each in packs] == [2]
    assert expected is None


def test_a_pack_that_does_not_fit_this_machine_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit into memory here"):
        forecast([planned("x", "y")], None, CPU, 1, lambda *_: None)


def test_the_plan_says_what_each_question_asks_for() -> None:
    out = io.StringIO()
    Console(file=out, width=100).print(plan_table([planned("x", "y", "z")], None))
    (row,) = [line for line in out.getvalue().splitlines() if "betavae_beta" in line]
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["betavae_beta-smoke", "sprites", "1", "3", "3", "200"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (600, "10 min"),
        (5400, "1.5 h"),
        (86400, "24 h"),
        (216000, "2.5 days"),
    ],
)
def test_durations_read_as_people_say_them(seconds: int, text: str) -> None:
    assert display.duration(seconds) == text


@pytest.mark.parametrize(
    ("least_s", "most_s", "text"),
    [
        (7, 13, "7 to 13 s"),
        (50, 100, "0.8 to 1.7 min"),
        (60 * 9.6, 60 * 14, "9.6 to 14 min"),
        (10.2, 10.4, "10 s"),
    ],
)
def test_ranges_of_durations_have_one_unit(least_s: float, most_s: float, text: str) -> None:
    assert display.durations(least_s, most_s) == text


def test_memory_reads_as_people_say_it() -> None:
    assert [display.memory(gib) for gib in (0, 0.25, 1, 12.34)] == ["0 MiB", "256 MiB", "1.0 GiB", "12.3 GiB"]


def test_progress_off_a_terminal_is_a_line_now_and_then_and_one_at_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    with display.counting(console, "training", "run-steps", 1000) as progress:
        for _ in range(9):
            progress(100)
        assert out.getvalue() == "", "no line a block"
        progress(100)
    assert progress.done == 1000
    (line,) = out.getvalue().splitlines()
    assert line.startswith("training: 100% of 1,000 run-steps")


def test_progress_on_a_terminal_is_a_bar_that_leaves_nothing_behind() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    with display.counting(console, "training", "run-steps", 10) as progress:
        progress(10)
    assert progress.done == 10
    assert out.getvalue().endswith("\x1b[2K")


def test_numbers_of_a_table_are_set_right_and_grouped() -> None:
    out = io.StringIO()
    Console(file=out, width=60).print(display.table("T", ("name", "steps"), [("a", 300_000), ("b", 5)]))
    rows = [line for line in out.getvalue().splitlines() if line.startswith("│")]
    assert [row.split("│")[2] for row in rows] == [" 300,000 ", "       5 "]
