"""Tune's side of a queue, driven by hand as its loop would: no Ray runs here."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from ray.tune.search import Searcher

from sweeper.machines import clusters
from sweeper.scheduling import ray_tune
from sweeper.scheduling.pack_queue import FINISHED, PackQueue
from sweeper.scheduling.ray_tune import BlockListener, PackSearcher, StopEarly
from tests.sweeper.scheduling.test_pack_queue import Book, assignment_of, pack_of, report_of
from trainables.stopping import StopRequest


def stop_of(book: Book, asked: list[bool] | None = None) -> tuple[StopEarly, StopRequest]:
    """What ends an experiment, and the user's request that it looks at."""
    request = StopRequest()

    def ask() -> None:
        if asked is not None:
            asked.append(True)

    return StopEarly(book.queue, request, ask, 60.0), request


def test_the_searcher_hands_out_assignments_and_ends_as_the_queue_does() -> None:
    given = [assignment_of(1), None, FINISHED]
    queue = SimpleNamespace(num_live=0, hand_out=lambda _: given.pop(0))
    searcher = PackSearcher(cast(PackQueue, queue), lambda: 1)
    assert searcher.suggest("1") == {"assignment": assignment_of(1)}
    assert searcher.suggest("2") is None, "a pack that runs may still come back"
    assert searcher.suggest("2") == Searcher.FINISHED


def test_as_many_packs_are_handed_out_as_there_is_room_for_at_the_moment() -> None:
    book, room = Book(*(pack_of(key) for key in "abcd")), [1]
    searcher = PackSearcher(book.queue, lambda: room[0])
    assert searcher.suggest("1")
    assert searcher.suggest("2") is None
    room[0] = 3  # two nodes join
    assert searcher.suggest("2")
    assert searcher.suggest("3")
    assert searcher.suggest("4") is None
    room[0] = 1  # and leave, with the packs that they had
    book.queue.ended("2", "the node is gone")
    book.queue.ended("3", "the node is gone")
    assert searcher.suggest("5") is None
    book.queue.ended("1", "")
    assert searcher.suggest("5")


def test_the_listener_passes_on_blocks_and_how_trials_end(tmp_path: Path) -> None:
    text = tmp_path / "error.txt"
    text.write_text("Traceback ... ValueError: bad")
    book = Book(pack_of("a"), pack_of("b"))
    listener = BlockListener(book.queue)
    done = SimpleNamespace(trial_id="1", error_file=None, last_result={"is_stopped": False})
    failed = SimpleNamespace(trial_id="2", error_file=str(text))
    book.queue.hand_out("1"), book.queue.hand_out("2")
    listener.on_trial_start(0, [], done)
    assert book.queue.has_live
    listener.on_trial_result(1, [], done, asdict(report_of()) | {"done": False, "pid": 7})
    listener.on_trial_complete(2, [], done)
    listener.on_trial_error(2, [], failed)
    assert book.taken == [report_of()]
    assert book.ended == [(1, "done", ""), (2, "failed", "Traceback ... ValueError: bad")]


def test_a_failure_without_a_text_is_a_failure_all_the_same(tmp_path: Path) -> None:
    for file in (None, str(tmp_path / "missing")):
        book = Book(pack_of("a"))
        book.queue.hand_out("1")
        listener = BlockListener(book.queue)
        listener.on_trial_error(1, [], SimpleNamespace(trial_id="1", error_file=file))
        assert book.ended == [(1, "failed", "unknown error")]


def test_tune_may_pickle_what_it_is_given_and_learns_nothing() -> None:
    book = Book(pack_of("a"))
    listener = BlockListener(book.queue)
    for each in (PackSearcher(book.queue, lambda: 1), listener, stop_of(book)[0]):
        assert vars(pickle.loads(pickle.dumps(each))) == {}


def test_who_wants_to_stop_has_packs_write_their_states_and_end() -> None:
    asked: list[bool] = []
    book = Book(pack_of("a"), pack_of("b"), pack_of("c"))
    stop, request = stop_of(book, asked)
    for trial in "12":
        book.queue.hand_out(trial)
        book.queue.started(trial)
    assert not stop.stop_all()
    assert not asked
    request.is_asked = True
    for _ in range(3):
        assert not stop.stop_all(), "Tune would kill what is being written"
    assert asked == [True], "once"
    assert book.queue.hand_out("3") is None
    assert stop("1", {}) is False
    book.queue.ended("1", "", is_stopped=True)
    book.queue.ended("2", "worker died")
    assert stop.stop_all()
    assert book.queue.hand_out("3") == FINISHED
    assert book.ended == [(1, "stopped", ""), (2, "failed", "worker died")]
    assert book.begun == ["a", "b"]


def test_a_pack_that_does_not_end_when_asked_is_ended_by_tune() -> None:
    book = Book(pack_of("a"))
    stop, request = stop_of(book)
    book.queue.hand_out("1")
    book.queue.started("1")
    request.is_asked = True
    assert not stop.stop_all()
    stop._patience_s = -1.0
    assert stop.stop_all()


def test_nobody_waits_for_packs_that_no_worker_has() -> None:
    book = Book(pack_of("a"))
    stop, request = stop_of(book)
    book.queue.hand_out("1")
    request.is_asked = True
    assert stop.stop_all()


@pytest.fixture
def ray_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, bool], None]:
    """A function that says whether the head of Ray answers, and whether it has a node that lives."""

    def say(is_there: bool, has_node: bool) -> None:
        monkeypatch.setattr(ray_tune, "LOOK_EVERY_S", -1.0)
        monkeypatch.setattr(clusters, "is_there", lambda: is_there)
        monkeypatch.setattr("ray.nodes", lambda: [{"Alive": has_node}])

    return say


def test_where_no_node_is_left_nobody_is_waited_for(ray_is: Callable[[bool, bool], None]) -> None:
    book = Book(pack_of("a"))
    stop, _ = stop_of(book)
    book.queue.hand_out("1")
    ray_is(True, True)
    assert not stop.stop_all()
    ray_is(True, False)
    with pytest.raises(KeyboardInterrupt):
        stop.stop_all()
    assert "every node" in str(book.queue.error)


def test_a_head_that_may_come_back_is_waited_for_unless_the_user_wants_to_stop(
    ray_is: Callable[[bool, bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Book(pack_of("a"))
    stop, request = stop_of(book)
    book.queue.hand_out("1")
    ray_is(False, False)
    assert not stop.stop_all()
    request.is_asked = True
    with pytest.raises(KeyboardInterrupt):
        stop.stop_all()
    assert book.queue.error is None, "the user asked for it"
    request.is_asked = False
    monkeypatch.setattr(ray_tune, "GONE_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        stop.stop_all()
    assert "every node" in str(book.queue.error)


def test_a_gpu_that_torch_cannot_use_ends_the_sweep_as_a_fault_of_the_machine(tmp_path: Path) -> None:
    text = tmp_path / "error.txt"
    text.write_text(
        "Traceback ...\ntrainables.errors.UnusableGpuError: Torch cannot use the NVIDIA GPU of this node.\n"
    )
    book = Book(pack_of("a"))
    book.queue.hand_out("1")
    BlockListener(book.queue).on_trial_error(1, [], SimpleNamespace(trial_id="1", error_file=str(text)))
    assert isinstance(book.queue.error, OSError)
    assert str(book.queue.error) == "Torch cannot use the NVIDIA GPU of this node."
    assert book.queue.hand_out("2") == FINISHED


def test_a_queue_that_cannot_record_has_packs_write_their_states_and_end() -> None:
    asked: list[bool] = []
    book = Book(pack_of("a"))
    stop, _ = stop_of(book, asked)
    book.problems = [OSError("disk full")]
    book.queue.hand_out("1")
    book.queue.started("1")
    assert not stop.stop_all()
    book.queue.reported("1", report_of())
    assert not stop.stop_all()
    assert asked == [True]
    book.queue.ended("1", "", is_stopped=True)
    assert stop.stop_all()


def test_a_signal_that_tune_takes_is_taken_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    listener = BlockListener(Book().queue)
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        listener.setup(stop=None, num_samples=1)
        assert signal.getsignal(signal.SIGUSR1) == before
    finally:
        signal.signal(signal.SIGUSR1, before)
