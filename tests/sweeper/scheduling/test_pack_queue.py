"""The queue driven by hand, as those who train its packs would."""

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.scheduling.pack_queue import FINISHED, MAX_FAILURES, PackQueue
from sweeper.scheduling.packing import PackPlan, Waiting
from tests.specs import run_spec
from trainables.assignment import Assignment, Report
from trainables.config import Schedule
from trainables.errors import DamagedStatesError

SPEC = run_spec()
SCHEDULE = Schedule(100, 10, 10, ())
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def pack_of(*keys: str) -> PackPlan:
    return PackPlan(tuple(Waiting(key, "static", SPEC, 0, SCHEDULE, 1.0) for key in keys))


class Book:
    """What the queue asks and tells: attempts begun and ended, runs given up."""

    def __init__(self, *packs: PackPlan, finished: Iterable[str] = ()) -> None:
        self.finished = set(finished)
        self.runs_of: dict[int, set[str]] = {}
        self.begun: list[str] = []
        self.ended: list[tuple[int, str, str]] = []
        self.given_up: list[tuple[str, int, str, str]] = []
        self.taken: list[Report] = []
        self.problems: list[Exception] = []
        self.queue = PackQueue(packs, self)

    def begin(self, pack: PackPlan) -> tuple[int, PackPlan, Assignment] | None:
        left = replace(pack, runs=tuple(run for run in pack.runs if run.key not in self.finished))
        if not left.runs:
            return None
        self.begun.append(keys(left))
        self.runs_of[len(self.begun)] = {run.key for run in left.runs}
        return len(self.begun), left, assignment_of(len(self.begun))

    def take(self, report: Report) -> bool:
        self.taken.append(report)
        if self.problems:
            raise self.problems.pop(0)
        return True

    def end(self, number: int, outcome: str, error: str) -> None:
        if outcome == "done":
            self.finished.update(self.runs_of[number])
        self.ended.append((number, outcome, error))

    def give_up(self, pack: PackPlan, number: int, kind: str, error: str) -> None:
        self.given_up.append((keys(pack), number, kind, error))


def assignment_of(number: int) -> Assignment:
    return Assignment(number, "", [], SCHEDULE, [], 1.0, 1.0, None, 1, 0.0)


def report_of(manifest: str = "x", has_states: bool = True) -> Report:
    return Report(manifest, {}, has_states, is_over=False, is_stopped=False)


def keys(pack: PackPlan) -> str:
    return "".join(run.key for run in pack.runs)


def test_packs_come_in_order_then_the_end() -> None:
    book = Book(pack_of("a"), pack_of("b", "c"))
    assert book.queue.hand_out("1") == assignment_of(1)
    assert book.queue.hand_out("2") == assignment_of(2)
    assert book.begun == ["a", "bc"]
    assert book.queue.hand_out("3") is None, "a pack that runs may still come back"
    book.queue.ended("1", "")
    assert book.queue.hand_out("3") is None
    book.queue.ended("2", "")
    assert book.queue.hand_out("3") == FINISHED
    assert book.ended == [(1, "done", ""), (2, "done", "")]


def test_an_empty_queue_is_finished() -> None:
    assert Book().queue.hand_out("1") == FINISHED


def test_a_pack_of_which_nothing_is_left_is_passed_over() -> None:
    book = Book(pack_of("a"), pack_of("b"), finished="a")
    assert book.queue.hand_out("1") == assignment_of(1)
    assert book.begun == ["b"]
    assert Book(pack_of("a"), finished="a").queue.hand_out("1") == FINISHED


def test_a_pack_that_fails_is_tried_again_after_the_others() -> None:
    book = Book(pack_of("a"), pack_of("b"))
    book.queue.hand_out("1")
    book.queue.ended("1", "worker died")
    book.queue.hand_out("2")
    book.queue.hand_out("3")
    assert book.begun == ["a", "b", "a"]
    assert book.ended == [(1, "failed", "worker died")]
    assert not book.given_up


def test_a_run_is_given_up_after_three_tries_without_a_block() -> None:
    book = Book(pack_of("a"))
    for number in range(MAX_FAILURES):
        assert book.queue.hand_out(f"{number}") == assignment_of(number + 1)
        assert not book.given_up
        book.queue.ended(f"{number}", f"error {number}")
    assert MAX_FAILURES == 3
    assert book.given_up == [("a", 3, "error", "error 2")]
    assert [outcome for _, outcome, _ in book.ended] == ["failed"] * 3
    assert book.queue.hand_out("4") == FINISHED


def test_a_pack_that_fails_again_is_split_since_one_run_may_be_to_blame() -> None:
    book = Book(pack_of("a", "b", "c", "d"))
    for number in range(2):
        book.queue.hand_out(f"{number}")
        book.queue.ended(f"{number}", "killed by SIGSEGV")
    book.queue.hand_out("2"), book.queue.hand_out("3")
    assert sorted(book.begun) == ["ab", "abcd", "abcd", "cd"]
    assert not book.given_up


def test_a_pack_that_ends_unfinished_is_begun_again() -> None:
    """Its attempt was fenced off by a driver that is gone."""
    book = Book(pack_of("a"))
    book.queue.hand_out("1")
    book.runs_of[1] = set()
    book.queue.ended("1", "")
    assert book.queue.hand_out("2") == assignment_of(2)


def test_a_block_forgives_the_failures_before_it() -> None:
    book = Book(pack_of("a"))
    for number in range(20):
        assert book.queue.hand_out(f"{number}") == assignment_of(number + 1)
        if number % 2 == 0:
            book.queue.reported(f"{number}", report_of())
        book.queue.ended(f"{number}", "spot node gone")
    assert not book.given_up


def test_out_of_memory_splits_a_pack_until_it_fits() -> None:
    book = Book(pack_of("a", "b", "c", "d", "e"), pack_of("z"))
    book.queue.hand_out("1")
    book.queue.ended("1", OUT_OF_MEMORY)
    assert book.ended == [(1, "out of memory", OUT_OF_MEMORY)]
    for trial in "2345":
        book.queue.hand_out(trial)
    # Halves go before what waits, and are not counted as failures.
    assert sorted(book.begun[1:3]) == ["ab", "cde"]
    assert book.begun[3:] == ["z"]


def test_a_lone_run_that_does_not_fit_is_given_up_as_out_of_memory() -> None:
    book = Book(pack_of("a"))
    for number in range(MAX_FAILURES):
        book.queue.hand_out(f"{number}")
        book.queue.ended(f"{number}", OUT_OF_MEMORY)
    assert book.given_up == [("a", 3, "out of memory", OUT_OF_MEMORY)]


def test_a_cpu_that_has_no_memory_left_counts_as_out_of_memory() -> None:
    import numpy as np
    import torch

    for allocate in (torch.empty, np.empty):
        book = Book(pack_of("a", "b"))
        book.queue.hand_out("1")
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            allocate(2**50)
        book.queue.ended("1", f"{type(raised.value).__name__}: {raised.value}")
        assert book.ended[0][1] == "out of memory"


def test_what_goes_wrong_in_begin_is_kept_and_nothing_more_is_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem, book = OSError("disk full"), Book(pack_of("a"), pack_of("b"))

    def begin(pack: PackPlan) -> None:
        raise problem

    monkeypatch.setattr(book, "begin", begin)
    assert book.queue.hand_out("1") == FINISHED
    assert book.queue.error is problem
    assert book.queue.hand_out("2") == FINISHED


@pytest.mark.parametrize("error", ["", "worker died", OUT_OF_MEMORY])
def test_what_goes_wrong_while_ending_an_attempt_is_kept(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, book = OSError("disk full"), Book(pack_of("a", "b"))

    def end(number: int, outcome: str, text: str) -> None:
        raise problem

    monkeypatch.setattr(book, "end", end)
    book.queue.hand_out("1")
    book.queue.ended("1", error)
    assert book.queue.error is problem


def test_a_block_that_cannot_be_taken_ends_the_queue_and_the_first_error_stays() -> None:
    first, later = OSError("disk full"), OSError("later")
    book = Book(pack_of("a"), pack_of("b"))
    book.problems = [first, later]
    book.queue.hand_out("1")
    book.queue.started("1")
    for _ in range(2):
        book.queue.reported("1", report_of())
    assert book.queue.error is first
    assert book.queue.hand_out("2") is None, "the pack that runs is asked to write its states"
    book.queue.ended("1", "", is_stopped=True)
    assert book.ended == [(1, "stopped", "")]
    assert book.queue.hand_out("3") == FINISHED


def test_only_states_that_are_true_forgive_and_a_worker_that_was_stopped_may_have_no_block() -> None:
    book = Book(pack_of("a"))
    book.queue.hand_out("1")
    book.queue.reported("1", report_of(has_states=False))
    assert not book.queue._moved, "the next attempt would start where this one did"
    book.queue.reported("1", report_of(manifest="", has_states=False))
    book.queue.reported("1", report_of())
    assert book.queue._moved == {"1"}
    assert [report.has_states for report in book.taken] == [False, True]


def test_a_trial_ends_once_and_strangers_do_not_matter() -> None:
    book = Book(pack_of("a"))
    book.queue.hand_out("1")
    for trial in ("1", "1", "stranger"):
        book.queue.ended(trial, "")
    book.queue.ended("1", "late error")
    assert book.ended == [(1, "done", "")]


def test_a_pack_of_which_some_states_are_damaged_goes_on_in_two() -> None:
    book = Book(pack_of("a", "b", "c"))
    book.queue.hand_out("1")
    book.queue.ended("1", f"Traceback ...\n{DamagedStatesError.__name__}: {DamagedStatesError(['b'])}")
    book.queue.hand_out("2"), book.queue.hand_out("3")
    assert sorted(book.begun[1:]) == ["ac", "b"]
    assert book.ended[0][:2] == (1, "failed")


@pytest.mark.parametrize("error", ["worker died", OUT_OF_MEMORY])
@pytest.mark.parametrize("size", [None, 2, 4, 8])
@pytest.mark.parametrize("num_runs", [1, 2, 3, 8])
def test_a_pack_that_always_fails_is_given_up(num_runs: int, size: int | None, error: str) -> None:
    book = Book(PackPlan(pack_of(*"abcdefgh"[:num_runs]).runs[: size or 99], size=size))
    for number in range(200):
        if book.queue.hand_out(f"{number}") == FINISHED:
            break
        book.queue.ended(f"{number}", error)
    assert number < 80
    assert sorted("".join(runs for runs, *_ in book.given_up)) == list(
        "abcdefgh"[: min(num_runs, size or 99)]
    )


def test_a_pack_of_ghosts_and_one_run_gets_smaller_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    book = Book(PackPlan(pack_of("a").runs, size=8))
    sizes, begin = [], book.begin

    def noted(pack: PackPlan) -> tuple[int, PackPlan, Assignment] | None:
        sizes.append(pack.size)
        return begin(pack)

    monkeypatch.setattr(book, "begin", noted)
    for number in range(5):
        book.queue.hand_out(f"{number}")
        book.queue.ended(f"{number}", OUT_OF_MEMORY)
    assert sizes == [8, 4, 2, 2, 2]
    assert book.given_up == [("a", 5, "out of memory", OUT_OF_MEMORY)]


@given(
    sizes=st.lists(st.integers(1, 9), max_size=6),
    num_slots=st.integers(1, 4),
    fates=st.lists(st.sampled_from(["done", "done", "block, then error", "error", OUT_OF_MEMORY])),
    picks=st.randoms(use_true_random=False),
)
def test_whatever_happens_every_run_ends_once(
    sizes: list[int], num_slots: int, fates: list[str], picks: random.Random
) -> None:
    """Tune's loop with failures in any order: each run is trained to its end or given up, never both, never lost."""
    names = iter(range(1000))
    book = Book(*(pack_of(*(f"{next(names)}," for _ in range(size))) for size in sizes))
    live: dict[str, str] = {}
    ended: list[str] = []
    next_fate = iter(fates)
    for number in range(1000):
        config = book.queue.hand_out(f"{number}") if len(live) < num_slots else None
        if config == FINISHED:
            break
        if config is not None:
            live[f"{number}"] = book.begun[-1]
            continue
        trial = picks.choice(sorted(live))
        runs, fate = live.pop(trial), next(next_fate, "done")
        if fate == "block, then error":
            book.queue.reported(trial, report_of())
        if fate == "done":
            ended += runs.split(",")[:-1]
        book.queue.ended(trial, "" if fate == "done" else fate)
    assert book.queue.hand_out("last") == FINISHED
    assert not live
    given_up = [name for runs, *_ in book.given_up for name in runs.split(",")[:-1]]
    assert sorted(ended + given_up) == sorted(f"{number}" for number in range(sum(sizes)))
    assert len(book.ended) == len(book.begun)
