"""Where a worker goes on from; the rest of it is tested through Ray, and without it, in tests/sweeper."""

from pathlib import Path

import numpy as np
import pytest

from tests.specs import run_spec
from trainables import blocks
from trainables.assignment import StoredState
from trainables.blocks import STATE, Manifest, RunEntry, pack_arrays
from trainables.errors import DamagedStatesError, damaged_runs
from trainables.worker import newest_intact

KEYS = ["a1", "b2", "c3"]


@pytest.fixture
def candidates(tmp_path: Path) -> list[list[StoredState]]:
    """For each run its states at steps 20 and 10, as a driver names them."""
    found: list[list[StoredState]] = [[] for _ in KEYS]
    for index, step in enumerate((10, 20)):
        entries = tuple(RunEntry(key, 0, "running", step, 100, run_spec()) for key in KEYS)
        manifest = Manifest(1, index, step - 10, step, "here", "1", 1e9, 1.0, entries, ())
        blobs = {key: {STATE: pack_arrays({"x": np.full(3, step + r)})} for r, key in enumerate(KEYS)}
        path = blocks.write_block(tmp_path, manifest, blobs)
        for r, run in enumerate(blocks.read_manifest(path).runs):
            found[r].insert(0, StoredState(step, str(path), run.slices[STATE]))
    return found


def damage(candidates: list[list[StoredState]], r: int, age: int) -> None:
    state = candidates[r][age]
    file = Path(state.manifest).parent / state.slice.file
    content = bytearray(file.read_bytes())
    content[state.slice.offset + state.slice.length // 2] ^= 1
    file.write_bytes(content)


def test_a_pack_goes_on_from_the_newest_states(candidates: list[list[StoredState]]) -> None:
    start = newest_intact(KEYS, candidates)
    assert start.step == 20
    assert [state["x"][0] for state in start.states] == [20, 21, 22]


def test_where_some_states_are_damaged_their_runs_are_named_so_that_the_others_need_not_go_back(
    candidates: list[list[StoredState]],
) -> None:
    damage(candidates, 1, age=0)
    with pytest.raises(DamagedStatesError) as raised:
        newest_intact(KEYS, candidates)
    assert damaged_runs(f"Traceback ...\n{raised.type.__name__}: {raised.value}\n") == {"b2"}
    alone = newest_intact(KEYS[1:2], candidates[1:2])
    assert alone.step == 10
    assert [state["x"][0] for state in alone.states] == [11]
    others = newest_intact(["a1", "c3"], [candidates[0], candidates[2]])
    assert others.step == 20


def test_where_all_are_damaged_all_go_back(
    candidates: list[list[StoredState]], capsys: pytest.CaptureFixture[str]
) -> None:
    for r in range(3):
        damage(candidates, r, age=0)
    assert newest_intact(KEYS, candidates).step == 10
    assert "Falling back to an older block." in capsys.readouterr().err


def test_where_nothing_is_left_all_start_over(
    candidates: list[list[StoredState]], capsys: pytest.CaptureFixture[str]
) -> None:
    for r in range(3):
        for age in range(2):
            damage(candidates, r, age)
    assert newest_intact(KEYS, candidates).step == 0
    assert "starting over from step 0" in capsys.readouterr().err
    assert newest_intact(KEYS, [[], [], []]).step == 0


def test_other_errors_name_no_damaged_runs() -> None:
    assert damaged_runs("ValueError: Damaged goods") == set()
