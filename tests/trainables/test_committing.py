"""Which blocks carry states, how an attempt is asked to end, and that a resume goes on exactly from what is kept."""

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from trainables import blocks, committing
from trainables.attempt import Attempt, Start
from trainables.blocks import STATE, Manifest, unpack_arrays
from trainables.committing import Committed, Committer
from trainables.config import Schedule
from trainables.engine import ResolvedRun
from trainables.images import Images
from trainables.layout import Layout

pytestmark = pytest.mark.usefixtures("arithmetic")

SCHEDULE = Schedule(steps=40, report_every=4, evaluate_every=40, metrics=("kl",))


@pytest.fixture(autouse=True)
def a_block_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of no time stay so, however slow the disk."""
    monkeypatch.setattr(committing, "WORK_PER_WRITE", 0.0)


@pytest.fixture
def free_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """States as often as is said, whatever they cost."""
    monkeypatch.setattr(committing, "STATE_SHARE", 1e9)


@pytest.fixture(scope="module")
def runs(small_run: Callable[..., ResolvedRun]) -> list[ResolvedRun]:
    return [small_run("factor_vae", seed) for seed in range(2)]


def started(
    runs: list[ResolvedRun],
    images: Images,
    storage: Path,
    number: int = 1,
    start: Start | None = None,
    schedule: Schedule = SCHEDULE,
    **how: float,
) -> tuple[Attempt, Committer]:
    attempt = Attempt(number, runs, schedule, images, start)
    Layout(storage).stop(number).parent.mkdir(parents=True, exist_ok=True)
    return attempt, Committer(storage, attempt, **({"block_s": 0.0} | how))


def commit(committer: Committer) -> Committed:
    block = committer.commit()
    assert block is not None
    return block


def commit_all(committer: Committer) -> list[Committed]:
    found = []
    while not committer.is_over:
        found.append(commit(committer))
    return found


def steps_with_states(committed: list[Committed]) -> list[int]:
    return [
        block.manifest.end_step for block in committed if any(STATE in run.slices for run in read(block).runs)
    ]


def read(block: Committed) -> Manifest:
    return blocks.read_manifest(block.path)


def values(committed: list[Committed]) -> dict[tuple[str, str, int], float]:
    return {(p.key, p.name, p.step): p.value for block in committed for p in block.manifest.points}


def start_from(block: Committed, runs: list[ResolvedRun]) -> Start:
    states = {run.key: run.slices[STATE] for run in read(block).runs}
    found = [unpack_arrays(blocks.read_slice(block.path.parent, states[run.key])) for run in runs]
    return Start(block.manifest.end_step, tuple(found))


def test_every_block_has_its_points_and_the_last_one_alone_states_where_they_are_not_due(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    attempt, committer = started(runs, sprites, tmp_path)
    committed = commit_all(committer)
    assert attempt.is_done
    assert not committer.is_stopped
    assert steps_with_states(committed) == [40]
    steps = {step for _, _, step in values(committed)}
    assert steps == set(range(4, 41, 4))
    assert committed[-1].reached == {run.key: 40 for run in runs}
    assert [block.has_states for block in committed] == [*[False] * (len(committed) - 1), True]


def test_states_come_as_often_as_is_said_and_the_newest_two_stay(
    free_writes: None, runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    _, committer = started(runs, sprites, tmp_path, state_every_s=0.0)
    committed = [commit(committer) for _ in range(5)]
    assert [block.manifest.end_step for block in committed] == [1, 2, 3, 4, 5]
    assert steps_with_states(committed) == [1, 2, 3, 4, 5]
    kept = sorted(path.stem for path in committed[0].path.parent.glob("*.slices"))
    assert kept == ["block-000003", "block-000004"]


def test_states_that_take_long_to_write_come_seldom(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a fifth of a second, so there is one in ten seconds of training or more, not one a block."""
    write = blocks.write_block

    def slow(storage: Path, manifest: Manifest, blobs: Mapping[str, Mapping[str, bytes]]) -> Path:
        time.sleep(0.2 * bool(blobs))
        return write(storage, manifest, blobs)

    monkeypatch.setattr(blocks, "write_block", slow)
    assert committing.STATE_SHARE == 0.02
    _, committer = started(runs, sprites, tmp_path, state_every_s=0.0)
    committed = [commit(committer) for _ in range(6)]
    assert steps_with_states(committed) == [1]
    committer._since_state_s = 20.0  # as if it had trained for so long
    assert steps_with_states([commit(committer)]) == [7]


def test_no_more_training_than_the_interval_and_a_block_lies_between_two_states(
    free_writes: None, runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    schedule = dataclasses.replace(SCHEDULE, steps=120, evaluate_every=120)
    _, committer = started(runs, sprites, tmp_path, schedule=schedule, block_s=0.006, state_every_s=0.03)
    committed = commit_all(committer)
    with_states = set(steps_with_states(committed))
    assert len(committed) > len(with_states) > 2
    longest, since = max(block.manifest.train_s for block in committed), 0.0
    for block in committed:
        since += block.manifest.train_s
        assert since <= 0.03 + longest
        since = 0.0 if block.manifest.end_step in with_states else since


def test_a_slow_write_makes_the_next_block_long_and_no_other(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "WORK_PER_WRITE", 20.0)
    _, committer = started(runs, sprites, tmp_path)
    committer._account(commit(committer).manifest, False, 30.0)
    assert committer._block_s == 600.0
    committer._account(read_last(tmp_path), False, 0.001)
    assert committer._block_s == pytest.approx(0.02)


def read_last(storage: Path) -> Manifest:
    return blocks.read_manifest(Layout(storage).manifests()[-1])


def test_who_is_asked_to_stop_writes_states_and_ends(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    _, committer = started(runs, sprites, tmp_path)
    assert steps_with_states([commit(committer), commit(committer)]) == []
    Layout(tmp_path).stop(1).touch()
    last = commit(committer)
    assert (committer.is_over, committer.is_stopped) == (True, True)
    assert steps_with_states([last]) == [3]


def test_a_long_block_ends_soon_when_asked_to(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    schedule = dataclasses.replace(SCHEDULE, steps=10**7, evaluate_every=10**7, report_every=10**6)
    _, committer = started(runs, sprites, tmp_path, schedule=schedule, block_s=600.0)
    timer = threading.Timer(0.5, Layout(tmp_path).stop(1).touch)
    timer.start()
    begun = time.monotonic()
    last = commit(committer)
    timer.join()
    assert time.monotonic() - begun < 60.0
    assert committer.is_stopped
    assert steps_with_states([last]) == [last.manifest.end_step]


def test_who_is_asked_to_stop_with_nothing_new_writes_nothing(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    _, committer = started(runs, sprites, tmp_path)
    Layout(tmp_path).stop(1).touch()
    assert committer.commit() is None
    assert committer.is_stopped
    assert Layout(tmp_path).manifests() == []


@pytest.mark.parametrize("num_blocks", [2, 5, 6])
def test_a_resume_computes_again_what_is_true_already_and_equal(
    free_writes: None, runs: list[ResolvedRun], sprites: Images, tmp_path: Path, num_blocks: int
) -> None:
    """States are at steps 3 and 6; points beyond them are computed once more, bit for bit."""
    undisturbed = commit_all(started(runs, sprites, tmp_path / "whole")[1])
    _, committer = started(runs, sprites, tmp_path)
    committed = []
    for number in range(num_blocks):
        committer._state_every_s = 0.0 if number % 3 == 2 else 1e9
        committed.append(commit(committer))
    with_states = [block for block in committed if steps_with_states([block])]
    start = start_from(with_states[-1], runs) if with_states else None
    assert (start.step if start else 0) == num_blocks // 3 * 3
    _, again = started(runs, sprites, tmp_path, number=2, start=start)
    rest = commit_all(again)
    expected = values(undisturbed)
    assert values(committed).items() <= expected.items()
    assert {place: value for place, value in expected.items() if place[2] > num_blocks // 3 * 3} == values(
        rest
    )
    assert values(committed) | values(rest) == expected
    last = {run.key: run.slices[STATE].sha256 for run in read(rest[-1]).runs}
    assert last == {run.key: run.slices[STATE].sha256 for run in read(undisturbed[-1]).runs}


def test_a_run_that_is_done_keeps_one_state(runs: list[ResolvedRun], sprites: Images, tmp_path: Path) -> None:
    committed = commit_all(started(runs, sprites, tmp_path, state_every_s=0.0)[1])
    assert [path.stem for path in committed[0].path.parent.glob("*.slices")] == [committed[-1].path.stem]
