from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.scheduling.packing import PackPlan, Sizes, Waiting, pack_up
from tests.specs import run_spec
from trainables.config import Schedule
from trainables.ladder import LADDER

SPEC = run_spec()


def waiting(key: str, static_key: str = "a", step: int = 0, steps: int = 100) -> Waiting:
    return Waiting(key, static_key, SPEC, step, Schedule(steps, 10, 10, ()), 1.0)


def place(run: Waiting) -> tuple[str, int, Schedule]:
    """What the runs of a pack share."""
    return run.static_key, run.step, run.schedule


@st.composite
def many_runs(draw: st.DrawFn) -> list[Waiting]:
    kinds = draw(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0, 50]), st.sampled_from([100, 200])))
    )
    return [waiting(f"{number}", *kind) for number, kind in enumerate(kinds)]


@given(many_runs(), st.integers(1, 9), st.integers(1, 16))
def test_every_run_is_in_one_pack_with_its_like(runs: list[Waiting], num_slots: int, max_runs: int) -> None:
    packs = pack_up(runs, num_slots, dict.fromkeys("ab", max_runs))
    assert sorted(run.key for pack in packs for run in pack.runs) == sorted(run.key for run in runs)
    assert all(len({place(run) for run in pack.runs}) == 1 for pack in packs)
    assert all(1 <= len(pack.runs) <= max_runs for pack in packs)
    assert all(pack.num_failures == 0 for pack in packs)


@given(many_runs(), st.integers(1, 9), st.integers(1, 16))
def test_packs_of_a_group_are_even_and_all_packs_together_fill_the_slots(
    runs: list[Waiting], num_slots: int, max_runs: int
) -> None:
    packs = sorted(
        pack_up(runs, num_slots, dict.fromkeys("ab", max_runs)), key=lambda pack: repr(place(pack.runs[0]))
    )
    least = 0
    for _, group in groupby(packs, key=lambda pack: place(pack.runs[0])):
        sizes = [len(pack.runs) for pack in group]
        assert max(sizes) - min(sizes) <= 1
        least += -(-sum(sizes) // max_runs)
    # No slot idles while others work, unless there is not a run for each; and no pack is there without need.
    wanted = -(-least // num_slots) * num_slots
    assert len(packs) == min(wanted, len(runs))


def test_packs_that_were_stopped_at_steps_of_their_own_stay_whole() -> None:
    """Each would be spread over all slots otherwise, stop after stop."""
    runs = [waiting(f"{pack} {r}", step=pack + 1) for pack in range(16) for r in range(16)]
    packs = pack_up(runs, 16, dict.fromkeys("ab", 16))
    assert [len(pack.runs) for pack in packs] == [16] * 16
    few = pack_up(runs[:64], 8, dict.fromkeys("ab", 16))
    assert sorted(len(pack.runs) for pack in few) == [8] * 8, "slots that would idle are filled"


@given(many_runs(), st.integers(1, 9), st.integers(1, 16))
def test_the_longest_pack_comes_first(runs: list[Waiting], num_slots: int, max_runs: int) -> None:
    work = [
        len(pack.runs) * pack.num_steps for pack in pack_up(runs, num_slots, dict.fromkeys("ab", max_runs))
    ]
    assert work == sorted(work, reverse=True)


def test_packs_of_known_sizes() -> None:
    def sizes(num_runs: int, num_slots: int, max_runs: int) -> list[int]:
        runs = [waiting(f"{number}") for number in range(num_runs)]
        return [len(pack.runs) for pack in pack_up(runs, num_slots, dict.fromkeys("ab", max_runs))]

    assert sizes(25, 2, 16) == [13, 12]
    assert sizes(60, 2, 16) == [15, 15, 15, 15]
    assert sizes(1, 4, 16) == [1]
    assert sizes(3, 8, 16) == [1, 1, 1]
    assert sizes(0, 2, 16) == []


def test_a_pack_counts_the_updates_to_go() -> None:
    assert PackPlan((waiting("a", step=30, steps=100),)).num_steps == 70


@given(st.integers(2, 20))
def test_halves_hold_all_runs_and_count_no_failure(num_runs: int) -> None:
    pack = PackPlan(tuple(waiting(f"{number}") for number in range(num_runs)), num_failures=2)
    first, second = pack.halves()
    assert first.runs + second.runs == pack.runs
    assert 0 <= len(second.runs) - len(first.runs) <= 1
    assert first.num_failures == second.num_failures == 0


@given(many_runs(), st.integers(1, 9), st.sampled_from([2, 4, 8, 16, 32]), st.sampled_from([None, 8, 16]))
def test_packs_on_a_gpu_have_one_size_of_the_ladder_and_seldom_more_ghosts_than_runs(
    runs: list[Waiting], num_slots: int, max_runs: int, kept: int | None
) -> None:
    packs = pack_up(runs, num_slots, dict.fromkeys("ab", max_runs), Sizes(kept))
    assert sorted(run.key for pack in packs for run in pack.runs) == sorted(run.key for run in runs)
    for pack in packs:
        assert pack.size is not None
        assert len(pack.runs) <= pack.size <= max(max_runs, 2)
        like = [each for each in packs if place(each.runs[0]) == place(pack.runs[0])]
        assert {each.size for each in like} == {pack.size}
        if kept and len(pack.runs) <= kept <= max_runs:
            assert pack.size == kept
        else:
            assert pack.size in (2, 4, *LADDER)
        if len(like) > 1 and not kept:
            assert sum(len(each.runs) for each in like) > pack.size * len(like) / 4


@pytest.mark.parametrize(
    ("num_runs", "size", "halves"),
    [
        (60, 64, [(30, 32), (30, 32)]),
        (33, 64, [(16, 32), (17, 32)]),
        (5, 8, [(2, 4), (3, 4)]),
        (1, 8, [(1, 4)]),
    ],
)
def test_halves_on_a_gpu_are_of_the_size_below(
    num_runs: int, size: int, halves: list[tuple[int, int]]
) -> None:
    pack = PackPlan(tuple(waiting(f"{number}") for number in range(num_runs)), size=size)
    assert [(len(half.runs), half.size) for half in pack.halves()] == halves
    assert not pack.is_smallest


def test_a_split_pack_computes_as_many_runs_and_one_without_some_runs_too() -> None:
    pack = PackPlan(tuple(waiting(f"{number}") for number in range(5)), size=8)
    assert [(len(part.runs), part.size) for part in pack.split()] == [(2, 8), (3, 8)]
    assert [("".join(run.key for run in part.runs), part.size) for part in pack.without({"1", "3"})] == [
        ("024", 8),
        ("13", 8),
    ]
    assert pack.without({run.key for run in pack.runs}) == (pack,)


def test_a_failure_is_counted_on_the_same_runs() -> None:
    pack = PackPlan((waiting("a"),))
    again = pack.failed_again().failed_again()
    assert (again.num_failures, again.runs) == (2, pack.runs)
