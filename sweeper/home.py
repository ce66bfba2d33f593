"""A home: the folder of one ledger and what is made from it, held by one driver at a time; where it may be."""

import fcntl
import os
import re
import socket
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path
from typing import IO

from sweeper.ledger import schema
from trainables import durable
from trainables.errors import InputError
from trainables.layout import Layout

_NETWORK_FILE_SYSTEMS = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "gcsfuse", "glusterfs", "gpfs"),
    *("lustre", "nfs", "nfs4", "s3fs", "smb3", "smbfs", "sshfs"),
)

STORAGE_PATH = "storage.path"
"""File of a home whose one line is the path of its storage, if that is not inside."""

MAX_NAME_BYTES = 200
"""Of one name in a path; file systems take 255, and we append."""
MAX_PATH_BYTES = 400
"""Of a path; SQLite takes 512, and we append."""

MAX_STEM = 200
"""Letters of the name of an export or figure; file systems end at 255 bytes."""


@dataclass(frozen=True)
class Home:
    """Where things are in a home.

    Attributes:
        path: The folder, on a local disk.
        storage: Folder of the blocks; give another one, shared, where packs train on several machines.
    """

    path: Path
    storage: Path

    @classmethod
    def at(cls, path: Path, storage: Path | None = None) -> "Home":
        """A home whose storage is the one that it keeps, or a new one, inside unless given; paths become absolute.

        Raises:
            InputError: A storage is given, and the home keeps another.
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
        """The SQLite file."""
        return self.path / "ledger.db"

    @property
    def mlflow(self) -> Path:
        """MLflow's SQLite file."""
        return self.path / "mlflow.db"

    @property
    def exports(self) -> Path:
        """Folder of tables, plots and pages."""
        return self.path / "exports"

    @property
    def is_settled(self) -> bool:
        """Whether its storage is found without being told."""
        return os.path.realpath(self.storage) == os.path.realpath(Home.at(self.path).storage)

    def remember_storage(self) -> None:
        """Note where the storage is, if it would not be found otherwise."""
        if self.is_settled:
            return
        partial = self.path / f"{STORAGE_PATH}.partial"
        durable.write_file(partial, [os.fsencode(self.storage), b"\n"])
        partial.replace(self.path / STORAGE_PATH)
        durable.sync_folder(self.path)

    def damage(self) -> str:
        """What SQLite finds wrong with the ledger's file, empty if nothing; reads all of it.

        Raises:
            sqlite3.OperationalError: It cannot be read.
        """
        try:
            with closing(schema.connect_for_reading(self.ledger)) as db:
                (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            return str(error)
        return "" if found == "ok" else " ".join(found.split())


GLANCE_S = 0.05
"""How long nobody needs to see whether a home is held."""


@contextmanager
def lock_home(path: Path, mounts: str | None = None) -> Iterator[None]:
    """Hold a home as its one driver; the kernel lets go of it however this process ends.

    Args:
        path: The home's folder; made if it is not there.
        mounts: Text of `/proc/mounts`, read if not given and there is one.

    Raises:
        InputError: Another driver holds it, or it is on a network file system, where locks and SQLite's
            write-ahead log do not work.
    """
    path.mkdir(parents=True, exist_ok=True)
    _refuse_network(path.resolve(), _read_mounts() if mounts is None else mounts)
    with (path / "lock").open("a+") as file:
        if not _lock(file):
            time.sleep(GLANCE_S)  # another process may only have looked whether a driver holds it
            if not _lock(file):
                raise InputError(
                    f"Home {path} is in use by {_holder(file)}.\n"
                    "Wait for it, stop it, or choose another home with --home."
                )
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Whether a driver holds a home right now."""
    try:
        with (path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _lock(file: IO[str]) -> bool:
    """Lock a file for this process alone, and say whether that worked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"


def _read_mounts() -> str:
    mounts = Path("/proc/mounts")
    return mounts.read_text() if mounts.exists() else ""


def _refuse_network(path: Path, mounts: str) -> None:
    """Refuse a path whose innermost mount is a network file system."""
    kind, place = "", Path("/")
    for line in mounts.splitlines():
        _, escaped, found, *_ = line.split()
        # Blanks in mount points are written as octal escapes.
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        # Of several mounts at one place the last hides the others.
        if path.is_relative_to(point) and len(point.parts) >= len(place.parts):
            kind, place = found, point
    if kind.removeprefix("fuse.") in _NETWORK_FILE_SYSTEMS:
        raise InputError(
            f"Home {path} is on {place}, a network file system ({kind}), where a ledger is not safe.\n"
            "Use a local disk for --home, and the network folder for --storage."
        )


def check_length(option: str, path: Path) -> None:
    """Accept a path that file systems and SQLite take."""
    longest = max(len(os.fsencode(part)) for part in path.absolute().parts)
    total = max(len(os.fsencode(each)) for each in (path.absolute(), os.path.realpath(path)))
    if longest > MAX_NAME_BYTES or total > MAX_PATH_BYTES:
        raise InputError(
            f"{option} {path}: too long; a path may have {MAX_PATH_BYTES} bytes, each name in it {MAX_NAME_BYTES}.\n"
            "Choose another."
        )


def check_folder(option: str, path: Path, folder: Path) -> None:
    """Accept a path whose folder can be written in, or can be made."""
    found = _nearest(folder)
    try:
        tempfile.TemporaryFile(dir=found).close()
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT, EIO):  # nobody has mistyped anything
            raise
        raise InputError(f"{option} {path}: {found} is not a writable folder.\nChoose another.") from None


def check_visible(option: str, path: Path, folder: Path) -> None:
    """Accept a path that can be looked up, whether anything is there or not."""
    found = _nearest(folder)
    if not (os.path.isdir(found) and os.access(found, os.X_OK)):  # noqa: PTH112 (a Path raises)
        raise InputError(f"{option} {path}: {found} is not a readable folder.\nChoose another.")


def _nearest(folder: Path) -> Path:
    """The innermost part of a path that is there."""
    while not os.path.lexists(folder):
        folder = folder.absolute().parent
    return folder


def check_letters(path: Path) -> None:
    """Accept a home in which MLflow finds its file; of an address it reads these letters in its own way."""
    for letter in str(path.absolute()):
        if letter in "%?#" or letter < " ":
            raise InputError(
                f"--home {path}: MLflow cannot keep a store in a path with {letter!r}.\nChoose another folder."
            )
