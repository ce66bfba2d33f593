import json
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.specs import run_spec
from trainables.blocks import (
    FORMAT,
    Manifest,
    Point,
    RunEntry,
    Status,
    pack_arrays,
    prune,
    read_manifest,
    read_slice,
    unpack_arrays,
    write_block,
)
from trainables.durable import DamagedBlockError, write_record
from trainables.errors import InputError
from trainables.layout import Layout, block_of


def entry(
    key: str = "a", status: Status = "running", step: int = 10, first_bad_step: int | None = None
) -> RunEntry:
    return RunEntry(key, 3, status, step, 100, run_spec(seed=3), first_bad_step)


def manifest(
    attempt: int = 1, index: int = 0, runs: tuple[RunEntry, ...] = (), points: tuple[Point, ...] = ()
) -> Manifest:
    return Manifest(
        attempt=attempt,
        index=index,
        start_step=index * 10,
        end_step=index * 10 + 10,
        numerics="cpu x86 avx2, torch 2.13, 1 thread, fp32",
        code_version="0.1.0",
        written_at_s=1700000000.25,
        train_s=12.5,
        runs=runs or (entry(),),
        points=points,
        metric_identities={"mig": "mig(n=10000, bins=20)"},
        provenance={"host": "box", "pid": "17"},
    )


def bits(value: float) -> str | bytes:
    return "nan" if math.isnan(value) else struct.pack("<d", value)


@given(st.lists(st.floats(), max_size=20), st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=25, deadline=None)
def test_a_block_comes_back_as_it_was_written(values: list[float], time_s: float) -> None:
    points = tuple(Point("a", step, time_s, "loss", value) for step, value in enumerate(values))
    wanted = manifest(points=points)
    with tempfile.TemporaryDirectory() as folder:
        path = write_block(Path(folder), wanted, {"a": {"state": b"weights", "encoding": b"codes"}})
        found = read_manifest(path)
        blobs = {name: read_slice(path.parent, part) for name, part in found.runs[0].slices.items()}
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert blobs == {"state": b"weights", "encoding": b"codes"}
    assert [bits(p.value) for p in found.points] == [bits(value) for value in values]
    assert [replace(p, value=0.0) for p in found.points] == [replace(p, value=0.0) for p in points]
    assert replace(found, runs=wanted.runs, points=points, sha256="") == wanted


def test_blocks_are_listed_by_attempt_and_index(tmp_path: Path) -> None:
    places = [(10, 0), (2, 1), (2, 0), (2, 10), (1, 0)]
    for attempt, index in places:
        write_block(tmp_path, manifest(attempt, index), {})
    assert [block_of(path) for path in Layout(tmp_path).manifests()] == sorted(places)
    assert [block_of(path) for path in Layout(tmp_path).manifests(2)] == [(2, 0), (2, 1), (2, 10)]


def test_every_flipped_bit_and_every_cut_of_a_manifest_is_noticed(tmp_path: Path) -> None:
    points = (Point("a", 1, 1e-5, "loss", math.nan), Point("a", 2, 2e22, "loss", 1e-300))
    path = write_block(tmp_path, manifest(points=points), {"a": {"state": b"weights"}})
    good = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for i, byte in enumerate(good):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), i)
                with pytest.raises(DamagedBlockError, match=path.name):
                    read_manifest(path)
            os.pwrite(file.fileno(), bytes([byte]), i)
        read_manifest(path)
        file.seek(0, os.SEEK_END)
        file.write(b" ")
        for length in range(len(good) + 1, -1, -1):
            file.truncate(length)
            if length != len(good):
                with pytest.raises(DamagedBlockError, match=path.name):
                    read_manifest(path)


def test_every_flipped_byte_and_cut_of_a_slice_is_noticed(tmp_path: Path) -> None:
    runs = (entry("a"), entry("b"))
    blobs = {key: {"state": random.Random(key).randbytes(40)} for key in "ab"}
    path = write_block(tmp_path, manifest(runs=runs), blobs)
    file = path.with_suffix(".slices")
    good = file.read_bytes()
    a, b = (run.slices["state"] for run in read_manifest(path).runs)
    for i in range(80):
        file.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        hit, spared, key = (a, b, "b") if i < 40 else (b, a, "a")
        with pytest.raises(DamagedBlockError, match=file.name):
            read_slice(path.parent, hit)
        assert read_slice(path.parent, spared) == blobs[key]["state"]
    file.write_bytes(good[:-1])
    with pytest.raises(DamagedBlockError):
        read_slice(path.parent, b)
    file.unlink()
    with pytest.raises(DamagedBlockError, match="missing"):
        read_slice(path.parent, a)


def test_a_manifest_in_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    path = write_block(tmp_path, manifest(), {})
    other = Layout(tmp_path).manifest(1, 1)
    other.write_bytes(path.read_bytes())
    with pytest.raises(DamagedBlockError, match="belongs to attempt 1, block 0"):
        read_manifest(other)


def test_a_manifest_of_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    write_record(tmp_path / "newer.json", {"format": FORMAT + 1})
    with pytest.raises(InputError, match=f"format {FORMAT + 1}; this program reads up to {FORMAT}"):
        read_manifest(tmp_path / "newer.json")


def test_a_block_is_written_once_and_only_with_its_own_runs(tmp_path: Path) -> None:
    path = write_block(tmp_path, manifest(), {"a": {"state": b"first"}})
    with pytest.raises(ValueError, match="written once"):
        write_block(tmp_path, manifest(), {"a": {"state": b"second"}})
    assert read_slice(path.parent, read_manifest(path).runs[0].slices["state"]) == b"first"
    for wrong in (
        manifest(index=1, points=(Point("b", 1, 0.0, "loss", 1.0),)),
        manifest(index=1, points=(Point("a", 1, 0.0, "loss", 1.0),) * 2),
        manifest(index=1, runs=(entry(), entry())),
    ):
        with pytest.raises(ValueError):
            write_block(tmp_path, wrong, {})
    with pytest.raises(ValueError):
        write_block(tmp_path, manifest(index=1), {"b": {"state": b""}})
    assert Layout(tmp_path).manifests() == [path]


@pytest.mark.parametrize(("status", "first_bad_step"), [("diverged", None), ("running", 3), ("done", 3)])
def test_only_a_diverged_run_has_a_first_bad_step(status: Status, first_bad_step: int | None) -> None:
    with pytest.raises(ValueError, match="first_bad_step"):
        entry(status=status, first_bad_step=first_bad_step)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.trainables.test_blocks import manifest, write_block, Point
storage, state, num_points = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
write_block(storage, manifest(), {"a": {"state": b"good"}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
points = tuple(Point("a", step, 0.0, "loss", 0.5) for step in range(num_points))
try:
    write_block(storage, manifest(index=1, points=points), {"a": {"state": b"x" * state}})
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.parametrize(("state", "num_points"), [(30_000, 1), (100, 2_000)], ids=["slices", "manifest"])
def test_a_full_disk_raises_and_leaves_nothing(tmp_path: Path, state: int, num_points: int) -> None:
    command = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(Path(__file__).parents[2]),
        str(tmp_path),
        str(state),
        str(num_points),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert run.stdout.startswith("OSError 27"), run.stdout
    assert [path.name for path in sorted((tmp_path / "attempts" / "00000001").iterdir())] == [
        "block-000000.json",
        "block-000000.slices",
    ]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, Status]]:
    """How many blocks each of a few runs lives, and how it ends."""
    return draw(
        st.lists(st.tuples(st.integers(1, 7), st.sampled_from(["done", "diverged"])), min_size=1, max_size=4)
    )


@given(histories())
@settings(max_examples=15, deadline=None)
def test_pruning_keeps_what_any_run_needs_and_little_more(lives: list[tuple[int, Status]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        for index in range(max(length for length, _ in lives)):
            runs, blobs = [], {}
            for run, (length, end) in enumerate(lives):
                if index < length:
                    status = end if index == length - 1 else "running"
                    bad = index if status == "diverged" else None
                    runs.append(entry(f"{run}", status, index + 1, bad))
                    blobs[f"{run}"] = {"state": b"s%d" % index, "encoding": b"e%d" % index}
            path = write_block(storage, manifest(index=index, runs=tuple(runs)), blobs)
            prune(path.parent)
            check_pruned(storage, lives, index)
        assert len(Layout(storage).manifests()) == index + 1


def check_pruned(storage: Path, lives: list[tuple[int, Status]], index: int) -> None:
    blocks = [read_manifest(path) for path in Layout(storage).manifests()]
    folder = Layout(storage).manifest(1, 0).parent
    needed = {index, index - 1}
    for run, (length, end) in enumerate(lives):
        last = min(index, length - 1)
        has_ended = last == length - 1
        entries = {b.index: r for b in blocks for r in b.runs if r.key == f"{run}"}
        if has_ended:
            assert read_slice(folder, entries[last].slices["encoding"]) == b"e%d" % last
        if not (has_ended and end == "diverged"):
            states = {last} if has_ended else {last, max(last - 1, 0)}
            needed |= states
            for i in states:
                assert read_slice(folder, entries[i].slices["state"]) == b"s%d" % i
    left = {block_of(path)[1] for path in folder.glob("*.slices")}
    assert left <= needed


def test_a_run_that_diverged_in_a_block_without_states_needs_none(tmp_path: Path) -> None:
    folder = write_block(tmp_path, manifest(), {"a": {"state": b"s"}}).parent
    write_block(tmp_path, manifest(index=1, runs=(entry(status="diverged", step=17, first_bad_step=17),)), {})
    prune(folder)
    assert (folder / "block-000000.slices").exists(), "not known of here"
    prune(folder, without={"a"})
    assert not (folder / "block-000000.slices").exists()


def test_pruning_leaves_a_block_that_is_being_written_alone(tmp_path: Path) -> None:
    folder = write_block(tmp_path, manifest(), {"a": {"state": b"s"}}).parent
    (folder / "block-000001.slices").write_bytes(b"half")
    prune(folder, keep=0)
    assert sorted(path.name for path in folder.iterdir()) == ["block-000000.json", "block-000001.slices"]


def test_arrays_come_back_and_equal_arrays_give_equal_bytes() -> None:
    arrays = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),
        "scalar": np.array(-0.0),
        "empty": np.zeros((0, 3), dtype=np.int64),
        "flags": np.array([True, False]),
        "names": np.array(["scale", "x"]),
        "nan": np.array([np.nan, np.inf]),
    }
    blob = pack_arrays(arrays)
    found = unpack_arrays(blob)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    columns_first = {
        name: np.asfortranarray(arrays[name]).reshape(arrays[name].shape) for name in reversed(arrays)
    }
    assert pack_arrays(columns_first) == blob


def test_no_clock_enters_the_bytes_of_arrays() -> None:
    code = "import numpy as np, hashlib, trainables.blocks as b; print(hashlib.sha256(b.pack_arrays({'a': np.ones(3)})).hexdigest())"
    root = Path(__file__).parents[2]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"TZ": zone, "SOURCE_DATE_EPOCH": epoch},
            cwd=root,
            capture_output=True,
            check=True,
        ).stdout
        for zone, epoch in (("UTC", "0"), ("Asia/Tokyo", "1700000000"))
    }
    assert len(seen) == 1


def test_arrays_of_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        pack_arrays({"a": np.array([{}], dtype=object)})
