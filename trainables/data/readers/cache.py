"""Images prepared once per user, in an HDF5 file that every process maps into its memory.

The folder is SWEEPER_DATA, else ~/.cache/sweeper. A file is prepared under a lock, under another name, and renamed
last, so it is complete or absent; an interrupted preparation resumes where it stopped. It may be copied to another machine,
or be on a read-only disk.

Shape suffixes: N images, B bytes of one image as it is kept. Imports no torch.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from trainables import durable
from trainables.data.readers.preparation import Preparation
from trainables.durable import DamagedBlockError
from trainables.errors import InputError, reason
from trainables.locking import try_lock, wait_for_lock

NOTE_EVERY_S = 5.0
"""Most work that is lost when a preparation is interrupted."""


def check_bits(recipe: str, found: str, pinned: str) -> None:
    """Refuse rendered images that differ from those that all other runs were trained on.

    Args:
        recipe: What was rendered.
        found: sha256 of the bits rendered here.
        pinned: sha256 of the bits of this recipe.

    Raises:
        InputError: They differ.
    """
    if found != pinned:
        raise InputError(
            f"{recipe}: this machine renders different bits "
            f"(sha256 {found[:12]}, expected {pinned[:12]}).\n"
            "Runs here would not be comparable with others: use another NumPy version or machine."
        )


def load(wanted: Preparation) -> np.ndarray:
    """All images, uint8 (N, B), mapped from the cache; prepared first if absent.

    The array may be written to, which changes neither the file nor other processes; until then they share its
    pages. The content is hashed once per version of the file; later only its header is checked.

    Raises:
        InputError: The file is damaged, foreign or not writable, or this machine renders different bits.
    """
    prepare(wanted)
    path = wanted.path
    with _told(wanted):
        with h5py.File(path, "r", locking=False) as file:
            offset, sha256 = _checked(file, wanted)
        # Mode "c", not "r": torch warns about arrays that are not writable.
        stored_NB = np.memmap(path, np.uint8, "c", offset, wanted.stored_shape)
        _check_content_once(path, stored_NB, sha256)
    return stored_NB


def prepare(wanted: Preparation) -> str:
    """Create the file unless it exists, or wait for the process that does.

    Returns:
        sha256 of its images, as recorded in the file.

    Raises:
        InputError: As in `load`.
    """
    path = wanted.path
    if not path.exists():
        _create(wanted, path)
    with _told(wanted), h5py.File(path, "r", locking=False) as file:
        return _checked(file, wanted)[1]


@contextlib.contextmanager
def _told(wanted: Preparation) -> Iterator[None]:
    """Turn h5py's errors about unexpected files into helpful ones."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{wanted.path} is not a complete copy of {wanted.recipe}: {reason(error)}.\nDelete it; it will be created again."
        ) from None


def _checked(file: h5py.File, wanted: Preparation) -> tuple[int, str]:
    """Position of the images in the file, in bytes, and their sha256."""
    images = file.get("images")
    if (
        not isinstance(images, h5py.Dataset)
        or images.dtype != np.uint8
        or images.shape != wanted.stored_shape
    ):
        raise ValueError(f"it has no uint8 dataset 'images' of shape {wanted.stored_shape}")
    for name, value in wanted.attributes.items():
        found = images.attrs.get(name, "")
        if not np.array_equal(found, value):
            raise ValueError(f"its {name} is {found}; expected {value}")
    sha256 = str(images.attrs.get("sha256"))
    if wanted.sha256 not in (None, sha256):
        raise ValueError(f"its sha256 is {sha256}; expected {wanted.sha256}")
    offset = images.id.get_offset()
    if offset is None:
        raise ValueError("its images are not contiguous")
    return offset, sha256


def _check_content_once(path: Path, stored_NB: np.ndarray, sha256: str) -> None:
    """Hash the images unless a note beside the file says that this version of it was hashed before."""
    stat = path.stat()
    state = f"{sha256} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}\n"
    note = path.with_suffix(".verified")
    with contextlib.suppress(OSError):
        if note.read_text() == state:
            return
    if hashlib.sha256(stored_NB.data).hexdigest() != sha256:
        raise ValueError("its images are damaged")
    with contextlib.suppress(OSError):  # on a read-only disk every process hashes
        note.write_text(state)


def _create(wanted: Preparation, path: Path) -> None:
    try:
        if blocked_by := durable.file_in_the_way(path.parent):
            place = f"SWEEPER_DATA={path.parent}"
            found = "is a file" if blocked_by == path.parent else f"{blocked_by} is a file"
            raise InputError(f"{place}: {found}; expected a folder.\nSet it to a folder on a local disk.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock"), wanted):
            if not path.exists():
                _write(wanted, path)
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise InputError(
            f"Cannot store {wanted.recipe} in {path.parent}: {reason(error)}.\n"
            f"Set SWEEPER_DATA to a folder on a local disk with {_size(wanted.num_bytes)} free."
        ) from None


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g} GiB" if num_bytes >= 2**30 else f"{num_bytes // 2**20 + 1} MiB"


@contextlib.contextmanager
def _locked(path: Path, wanted: Preparation) -> Iterator[None]:
    """Hold a lock that is released when the process ends, however it ends."""
    with path.open("w") as lock:
        if not try_lock(lock):
            text = f"Waiting for another process: {wanted.verb.lower()} {wanted.recipe} ({path})"
            print(text, file=sys.stderr, flush=True)
            wait_for_lock(lock)
        yield


def _write(wanted: Preparation, path: Path) -> None:
    """Fill the file under another name, note the progress, and rename it last."""
    partial, note = path.with_suffix(".partial"), path.with_suffix(".progress")
    offset, row = _noted(partial, note, wanted)
    try:
        if offset is None:
            # First, so that an old note is never applied to a new file.
            note.unlink(missing_ok=True)
            durable.sync_folder(note.parent)
            row, offset = 0, _allocate(partial, wanted)
        with partial.open("r+b") as file:
            file.seek(offset + row * wanted.stored_shape[1])
            noted_s = time.monotonic()
            for block_nB in _with_progress(wanted, row):
                # Not through the mapping, which kills the process if the disk is full.
                file.write(np.ascontiguousarray(block_nB).data)
                row += len(block_nB)
                if time.monotonic() - noted_s > NOTE_EVERY_S:
                    file.flush()
                    os.fsync(file.fileno())
                    durable.write_record(note, {"offset": offset, "row": row, "of": _identity(wanted)})
                    noted_s = time.monotonic()
        if row != wanted.num_images:
            raise ValueError(f"{wanted.recipe}: got {row} images; expected {wanted.num_images}")
        _finish(partial, wanted, offset)
        partial.replace(path)
        durable.sync_folder(path.parent)
    except BaseException as error:
        # The noted progress is kept for resuming, unless the content itself is wrong.
        if not note.exists() or isinstance(error, ValueError):
            note.unlink(missing_ok=True)
            partial.unlink(missing_ok=True)
        raise
    note.unlink(missing_ok=True)


def _identity(wanted: Preparation) -> str:
    return f"{wanted.recipe} {wanted.stored_shape} {wanted.origin}"


def _noted(partial: Path, note: Path, wanted: Preparation) -> tuple[int | None, int]:
    """Position of the images of an interrupted preparation, and how many are done; None and 0 if there is none."""
    with contextlib.suppress(OSError, DamagedBlockError):
        noted, _ = durable.read_record(note)
        is_whole = partial.stat().st_size >= noted["offset"] + wanted.num_bytes
        if noted["of"] == _identity(wanted) and is_whole:
            return noted["offset"], noted["row"]
    return None, 0


def _allocate(partial: Path, wanted: Preparation) -> int:
    """Create a file with room for all images; returns their position."""
    # Checked explicitly, because HDF5 2.0 can crash if the disk is full.
    if shutil.disk_usage(partial.parent).free < wanted.num_bytes + 2**20:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(partial, "w", locking=False) as file:
        space = h5py.h5s.create_simple(wanted.stored_shape)
        images = h5py.Dataset(h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U8LE, space, plist))
        images.attrs.update(wanted.attributes)
        images.attrs["sha256"] = "0" * 64
        offset: int = images.id.get_offset()
    return offset


def _finish(partial: Path, wanted: Preparation, offset: int) -> None:
    """Hash what was written, and record the hash in the file."""
    stored_NB = np.memmap(partial, np.uint8, "r", offset, wanted.stored_shape)
    if wanted.check is not None:
        wanted.check(stored_NB)
    sha256 = hashlib.sha256(stored_NB.data).hexdigest()
    del stored_NB
    if wanted.sha256 is not None:
        check_bits(wanted.recipe, sha256, wanted.sha256)
    with h5py.File(partial, "r+", locking=False) as file:
        file["images"].attrs["sha256"] = sha256
    with partial.open("rb") as file:
        os.fsync(file.fileno())


def _with_progress(wanted: Preparation, first: int) -> Iterator[np.ndarray]:
    """The blocks, with a line on stderr that a terminal overwrites and a log file gets every 5 s."""
    text = f"{wanted.verb} {wanted.recipe}, once per user"
    start, end, period_s = ("\r", "", 0.2) if sys.stderr.isatty() else ("", "\n", 5.0)
    done, next_s = first, 0.0
    for block_nB in wanted.blocks(first):
        if time.monotonic() >= next_s:
            share = done / wanted.num_images
            print(f"{start}{text}: {share:4.0%}", end=end, file=sys.stderr, flush=True)
            next_s = time.monotonic() + period_s
        yield block_nB
        done += len(block_nB)
    print(f"{start}{text}: 100%", file=sys.stderr, flush=True)
