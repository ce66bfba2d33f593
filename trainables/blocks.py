"""Blocks: how the work of a pack is written, committed, read back and verified.

A pack commits block after block into the folder of its attempt and writes nowhere else:

    attempts/<attempt>/block-<index>.slices   states to resume from, not in every block; deleted once newer ones exist
    attempts/<attempt>/block-<index>.kept     what is kept of runs that ended in this block; never deleted
    attempts/<attempt>/block-<index>.json     the manifest: renaming it into place commits the block
    attempts/<attempt>.stop                   created to make the attempt write its states and end

Nothing is pickled.
"""

import hashlib
import io
import zipfile
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainables import durable, layout
from trainables.config import StoredSpec
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.layout import Layout, block_of

FORMAT = 1
"""Version of the manifest format; newer versions cannot be read."""

STATE = "state"
"""The slice a run resumes from."""

KEPT = ("encoding", "pictures", "weights")
"""Slices that outlive pruning once their run is done or diverged."""

Status = Literal["running", "done", "diverged"]


@dataclass(frozen=True)
class Slice:
    """Bytes of one run in a file beside the manifest."""

    file: str
    offset: int
    length: int
    sha256: str


@dataclass(frozen=True)
class RunEntry:
    """One run of the pack at the end of a block.

    A run that is done or diverged has no entry in later blocks of its attempt.

    Attributes:
        key: The run key, see `trainables.config.run_key`.
        status: `done` at the horizon, `diverged` if frozen, else `running`.
        step: Updates done since the run's first.
        horizon: Step at which the run is done.
        spec: The specification for the ledger, opaque here.
        first_bad_step: First step with a non-finite value; set if and only if diverged.
        slices: Filled in by `write_block`.
    """

    key: str
    seed: int
    status: Status
    step: int
    horizon: int
    spec: StoredSpec
    first_bad_step: int | None = None
    slices: Mapping[str, Slice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.status == "diverged") != (self.first_bad_step is not None):
            raise ValueError(f"Run {self.key} is {self.status}, but first_bad_step is {self.first_bad_step}.")


@dataclass(frozen=True)
class Point:
    """One value of one run; any float, NaN and infinities included."""

    key: str
    step: int
    time_s: float
    name: str
    value: float


@dataclass(frozen=True)
class Manifest:
    """Everything that one block commits.

    Attributes:
        attempt: Number of the attempt, from 1.
        index: Number of the block in its attempt, from 0, without gaps.
        start_step: Committed step of all runs of the block when it began.
        end_step: Largest step of a run when it ended.
        numerics: The numerics class.
        code_version: Version of the code that trained.
        written_at_s: Unix time.
        train_s: Seconds spent on the block.
        runs: Runs that were still running when the block began.
        points: All points since the previous block of the attempt.
        metric_identities: Full name of the metric of each point, by the point's name; training statistics are left out.
        provenance: Where and by what the block was trained: `host`, `pid`, `git_commit` and the like.
        sha256: Hash of the manifest's file; filled in by `read_manifest`.
    """

    attempt: int
    index: int
    start_step: int
    end_step: int
    numerics: str
    code_version: str
    written_at_s: float
    train_s: float
    runs: tuple[RunEntry, ...]
    points: tuple[Point, ...]
    metric_identities: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    sha256: str = ""


def write_block(storage: Path, manifest: Manifest, blobs: Mapping[str, Mapping[str, bytes]]) -> Path:
    """Commit a block, or leave nothing of it; it is on the disk on return.

    Args:
        storage: Folder that holds `attempts/`.
        manifest: The block, its runs without slices.
        blobs: Run key -> slice name -> bytes; requested one run after the other, so that they can be made on demand.

    Returns:
        Path of the manifest.

    Raises:
        OSError: The disk is full or failing.
        ValueError: The block exists, contains a run or a point twice, or a point or bytes of a run not in it.
    """
    path = Layout(storage).manifest(manifest.attempt, manifest.index)
    _check_whole(path, manifest, blobs)
    durable.make_folder(path.parent)
    try:
        runs = _write_slices(path, manifest.runs, blobs)
        durable.sync_folder(path.parent)
        durable.write_record(path, _to_body(replace(manifest, runs=runs)))
    except BaseException:
        if not path.exists():
            for suffix in (layout.STATES, layout.KEPT):
                path.with_suffix(suffix).unlink(missing_ok=True)
        raise
    return path


def read_manifest(path: Path) -> Manifest:
    """Read and verify a manifest.

    Raises:
        DamagedBlockError: It is missing, changed, or in the place of another block.
        InputError: It was written by a newer version of this program.
    """
    body, sha256 = durable.read_record(path)
    version = body.pop("format")
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}; this program reads up to {FORMAT}.\nUpdate the program."
        )
    if block_of(path) != (body["attempt"], body["index"]):
        raise DamagedBlockError(
            f"{path} is misplaced: it belongs to attempt {body['attempt']}, block {body['index']}."
        )
    for run in body["runs"]:
        run["slices"] = {name: Slice(**values) for name, values in run["slices"].items()}
    runs = tuple(RunEntry(**run) for run in body["runs"])
    points = tuple(
        Point(runs[r].key, step, time_s, name, float(value))
        for r, step, time_s, name, value in body["points"]
    )
    return Manifest(**(body | {"runs": runs, "points": points, "sha256": sha256}))


def read_slice(folder: Path, part: Slice) -> bytes:
    """Read and verify one slice of a block in an attempt's folder.

    Raises:
        DamagedBlockError: The file is missing or changed.
    """
    path = folder / part.file
    try:
        with path.open("rb") as file:
            file.seek(part.offset)
            blob = file.read(part.length)
    except FileNotFoundError:
        raise DamagedBlockError(f"{path} is missing.") from None
    if hashlib.sha256(blob).hexdigest() != part.sha256:
        raise DamagedBlockError(
            f"{path} is damaged between bytes {part.offset} and {part.offset + part.length}."
        )
    return blob


def is_fenced(folder: Path) -> bool:
    """Whether a newer attempt at one of its runs has begun: an attempt's blocks are then refused, and it may stop."""
    record = Layout(folder.parents[1]).attempt_record(int(folder.name))
    return record.exists() and durable.read_record(record)[0]["fence"] is not None


def prune(folder: Path, keep: int = 2, without: Collection[str] = ()) -> None:
    """Delete states that newer blocks of an attempt supersede; the attempt's writer calls this between blocks.

    The newest `keep` states of an unfinished run are needed; of a run that is done only the last one, since the run can
    still be continued to more steps. Diverged runs need none. Manifests and `.kept` files stay. An attempt that is
    fenced, or about to be, deletes nothing: a newer one resumes from its older blocks.

    Args:
        folder: Folder of the attempt.
        keep: Number of states to keep of an unfinished run.
        without: Keys of runs known to have diverged, possibly in a block without states, which is not read here.
    """
    if Layout(folder.parents[1]).keep(int(folder.name)).exists() or is_fenced(folder):
        return
    num_newer: Counter[str] = Counter(dict.fromkeys(without, keep))
    for slices in sorted(folder.glob(f"block-*{layout.STATES}"), key=block_of, reverse=True):
        path = slices.with_suffix(".json")
        if not path.exists():
            continue
        runs = read_manifest(path).runs
        num_newer.update({run.key: keep for run in runs if run.status == "diverged"})
        with_state = {run.key: run.status for run in runs if STATE in run.slices}
        if all(num_newer[key] >= keep for key in with_state):
            slices.unlink()
        num_newer.update({key: keep if status == "done" else 1 for key, status in with_state.items()})


def pack_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Serialise arrays as an uncompressed npz; equal arrays give equal bytes.

    Raises:
        ValueError: An array holds Python objects.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            # A ZipInfo made from a bare name is dated 1980, so the bytes do not depend on the clock.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(arrays[name], order="C"), allow_pickle=False)
    return buffer.getvalue()


def unpack_arrays(blob: bytes) -> dict[str, np.ndarray]:
    """Read what `pack_arrays` wrote."""
    with np.load(io.BytesIO(blob), allow_pickle=False) as members:
        return dict(members)


def _check_whole(path: Path, manifest: Manifest, blobs: Mapping[str, Any]) -> None:
    keys = [run.key for run in manifest.runs]
    names = [(point.key, point.name, point.step) for point in manifest.points]
    if path.exists():
        raise ValueError(f"{path} already exists; a block is written once.")
    if len(set(keys)) < len(keys) or len(set(names)) < len(names):
        raise ValueError(f"{path}: a run or a point occurs twice.")
    if not {key for key, _, _ in names} | set(blobs) <= set(keys):
        raise ValueError(f"{path}: a point or a blob does not belong to a run of the block.")


def _write_slices(
    path: Path, runs: tuple[RunEntry, ...], blobs: Mapping[str, Mapping[str, bytes]]
) -> tuple[RunEntry, ...]:
    written = []
    with ExitStack() as stack:
        files: dict[str, durable.Appender] = {}
        for run in runs:
            slices = {}
            for name, blob in blobs.get(run.key, {}).items():
                is_kept = run.status != "running" and name in KEPT
                file = path.with_suffix(layout.KEPT if is_kept else layout.STATES)
                if file.name not in files:
                    files[file.name] = stack.enter_context(durable.Appender(file))
                offset = files[file.name].append(blob)
                slices[name] = Slice(file.name, offset, len(blob), hashlib.sha256(blob).hexdigest())
            written.append(replace(run, slices=slices))
    return tuple(written)


def _to_body(manifest: Manifest) -> dict[str, Any]:
    body = {f.name: getattr(manifest, f.name) for f in fields(manifest) if f.name != "sha256"}
    position = {run.key: r for r, run in enumerate(manifest.runs)}
    # Strict JSON has no NaN: a value that is not finite is written as the text that float() reads.
    body["points"] = [
        [position[p.key], p.step, p.time_s, p.name, float(p.value) if isfinite(p.value) else f"{p.value}"]
        for p in manifest.points
    ]
    return body | {"format": FORMAT, "runs": [asdict(run) for run in manifest.runs]}
