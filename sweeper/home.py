"""A home: the folder of one ledger and of everything made from it, its lock for one driver, and where it may be."""

import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.ledger import schema
from trainables import durable
from trainables.errors import InputError
from trainables.layout import Layout
from trainables.locking import holder, sign, try_lock

if TYPE_CHECKING:
    from sweeper.ledger.writer import Ledger

_NETWORK_FILE_SYSTEMS = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "gcsfuse", "glusterfs", "gpfs"),
    *("lustre", "nfs", "nfs4", "s3fs", "smb3", "smbfs", "sshfs"),
)

STORAGE_PATH = "storage.path"
"""File of a home with one line, the path of its storage; only present if the storage is outside the home."""

MAX_NAME_BYTES = 200
"""Longest name in a path; file systems allow 255 bytes, and we append to names."""
MAX_PATH_BYTES = 400
"""Longest path; SQLite allows 512 bytes, and we append to paths."""

MAX_STEM = 200
"""Most characters in the name of an export or figure; file systems allow 255 bytes."""


@dataclass(frozen=True)
class Home:
    """The paths of a home.

    Attributes:
        path: The folder, on a local disk.
        storage: Folder of the blocks; choose a shared folder if packs train on several machines.
    """

    path: Path
    storage: Path

    @classmethod
    def at(cls, path: Path, storage: Path | None = None) -> "Home":
        """Return the home at a path, with the storage that it already uses, else the given one, else a new one inside it.

        Paths become absolute.

        Raises:
            InputError: The given storage is not the one that the home already uses.
        """
        path = path.absolute()
        note, kept = path / STORAGE_PATH, path / "storage"
        if note.is_file():
            kept = path / os.fsdecode(note.read_bytes().rstrip(b"\r\n"))
        if storage is None:
            return cls(path, kept)
        is_used = note.is_file() or any(Layout(kept).attempts.glob("*"))
        if is_used and os.path.realpath(storage) != os.path.realpath(kept):
            raise InputError(
                f"Home {path} keeps its blocks in {kept}, not in --storage {storage}.\n"
                f"Leave out --storage; if the blocks were moved, write their new path into {path / STORAGE_PATH}."
            )
        return cls(path, storage.absolute())

    @property
    def ledger(self) -> Path:
        """The SQLite file of the ledger."""
        return self.path / "ledger.db"

    @property
    def mlflow(self) -> Path:
        """MLflow's SQLite file."""
        return self.path / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.path / "mlartifacts"

    @property
    def exports(self) -> Path:
        """Folder of tables, plots and pages."""
        return self.path / "exports"

    @property
    def is_settled(self) -> bool:
        """Whether the storage is found without `--storage`."""
        return os.path.realpath(self.storage) == os.path.realpath(Home.at(self.path).storage)

    def remember_storage(self) -> None:
        """Record the path of the storage in the home, if it would not be found otherwise."""
        if self.is_settled:
            return
        partial = self.path / f"{STORAGE_PATH}.partial"
        durable.write_file(partial, [os.fsencode(self.storage), b"\n"])
        partial.replace(self.path / STORAGE_PATH)
        durable.sync_folder(self.path)

    def damage(self) -> str:
        """Return what SQLite finds wrong with the ledger's file, empty if nothing; reads the whole file.

        Raises:
            sqlite3.OperationalError: The file cannot be read.
        """
        try:
            with closing(schema.connect_for_reading(self.ledger)) as db:
                (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
        return "" if found == "ok" else " ".join(found.split())


GLANCE_S = 2.0
"""Longest time for which another process holds the lock without being a driver: to look whether one is, or to refresh the ledger."""


@contextmanager
def lock_home(path: Path, mounts: str | None = None) -> Iterator[None]:
    """Hold a home as its only driver; the kernel releases the lock however this process ends.

    Args:
        path: Folder of the home; created if missing.
        mounts: Text of `/proc/mounts`; read from there by default, if the file exists.

    Raises:
        InputError: Another driver holds the home, or it is on a network file system, where locks and SQLite's
            write-ahead log do not work.
    """
    path.mkdir(parents=True, exist_ok=True)
    _refuse_network(path.resolve(), _read_mounts() if mounts is None else mounts)
    with (path / "lock").open("a+") as file:
        end_s = time.monotonic() + GLANCE_S
        while not try_lock(file):
            if time.monotonic() > end_s:
                raise InputError(
                    f"Home {path} is in use by {holder(file)}.\n"
                    "Wait for it, stop it, or choose another home with --home."
                )
            time.sleep(0.02)
        sign(file)
        yield


@contextmanager
def driving(home: Home, say: Callable[[str], None]) -> Iterator["Ledger"]:
    """Hold a home and the lease of its storage as their only driver; yield the ledger.

    Args:
        home: The home.
        say: Tells the user whose lease it waits for, or takes over.

    Raises:
        InputError: As in `lock_home` and `Ledger`.
        OSError: Home or storage cannot be written.
    """
    from sweeper.ledger.lease import leased
    from sweeper.ledger.writer import Ledger

    with lock_home(home.path), leased(home.storage, say) as lease:
        _make_missing(home, say)
        with Ledger(home.ledger, home.storage, lease) as ledger:
            yield ledger


def refresh(home: Home, say: Callable[[str], None]) -> None:
    """Add to the ledger what other homes and machines put into the storage since; make it if only the storage has results.

    A ledger whose driver is at work is up to date, as is one of a storage inside the home. Where the home cannot be written,
    nothing is done.

    Args:
        home: The home.
        say: Tells the user what was made, and which files are damaged.

    Raises:
        InputError: As in `lock_home` and `Ledger`.
    """
    has_ledger = home.ledger.exists() and home.ledger.stat().st_size > 0
    is_whole = has_ledger and home.storage.is_relative_to(home.path)
    if is_whole or not Layout(home.storage).newest_attempt() or is_held(home.path):
        return
    from sweeper.ledger.writer import Ledger

    with suppress(PermissionError), lock_home(home.path):
        _make_missing(home, say)
        home.remember_storage()
        with Ledger(home.ledger, home.storage) as ledger:
            for problem in ledger.ingest().problems:
                say(problem)


def _make_missing(home: Home, say: Callable[[str], None]) -> None:
    """Make the ledger if it is missing and the storage has results; the caller holds the home."""
    if home.ledger.exists() or not Layout(home.storage).newest_attempt():
        return
    from sweeper.ledger.verify import rebuild

    say(f"Makes {home.ledger} from {home.storage} ...")
    rebuild(home.ledger, home.storage)


def is_held(path: Path) -> bool:
    """Return whether a driver currently holds a home."""
    try:
        with (path / "lock").open() as file:
            return not try_lock(file, is_shared=True)
    except OSError:
        return False


def _read_mounts() -> str:
    mounts = Path("/proc/mounts")
    return mounts.read_text() if mounts.exists() else ""


def _refuse_network(path: Path, mounts: str) -> None:
    """Reject a path whose innermost mount is a network file system."""
    kind, place = "", Path("/")
    for line in mounts.splitlines():
        _, escaped, found, *_ = line.split()
        # Spaces in mount points are written as octal escapes.
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        # The last of several mounts at one place hides the others.
        if path.is_relative_to(point) and len(point.parts) >= len(place.parts):
            kind, place = found, point
    if kind.removeprefix("fuse.") in _NETWORK_FILE_SYSTEMS:
        raise InputError(
            f"Home {path} is on {place}, a network file system ({kind}), where a ledger is not safe.\n"
            "Use a local disk for --home, and the network folder for --storage."
        )


def check_length(option: str, path: Path) -> None:
    """Reject a path that is too long for file systems or SQLite."""
    longest = max(len(os.fsencode(part)) for part in path.absolute().parts)
    total = max(len(os.fsencode(each)) for each in (path.absolute(), os.path.realpath(path)))
    if longest > MAX_NAME_BYTES or total > MAX_PATH_BYTES:
        raise InputError(
            f"{option} {path}: too long; a path may have {MAX_PATH_BYTES} bytes, each name in it {MAX_NAME_BYTES}.\n"
            "Choose another."
        )


def check_folder(option: str, path: Path, folder: Path) -> None:
    """Reject a path whose folder is not writable and cannot be created."""
    found = _nearest(folder)
    try:
        tempfile.TemporaryFile(dir=found).close()
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT, EIO):  # the path is not the problem
            raise
        raise InputError(f"{option} {path}: {found} is not a writable folder.\nChoose another.") from None


def check_visible(option: str, path: Path, folder: Path) -> None:
    """Reject a path that cannot be looked up; nothing needs to exist there."""
    found = _nearest(folder)
    if not (os.path.isdir(found) and os.access(found, os.X_OK)):  # noqa: PTH112 (a Path raises)
        raise InputError(f"{option} {path}: {found} is not a readable folder.\nChoose another.")


def _nearest(folder: Path) -> Path:
    """Return the innermost part of a path that exists."""
    while not os.path.lexists(folder):
        folder = folder.absolute().parent
    return folder


def check_letters(path: Path) -> None:
    """Reject a home in which MLflow would not find its file, since it interprets these characters in an address."""
    for letter in str(path.absolute()):
        if letter in "%?#" or letter < " ":
            raise InputError(
                f"--home {path}: MLflow cannot keep a store in a path with {letter!r}.\nChoose another folder."
            )
