"""A home: the folder of one ledger and what is made from it, held by one driver at a time."""

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError

_NETWORK_FILE_SYSTEMS = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "gcsfuse", "glusterfs", "gpfs"),
    *("lustre", "nfs", "nfs4", "s3fs", "smb3", "smbfs", "sshfs"),
)


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
        """A home whose storage is inside unless told otherwise; paths become absolute."""
        return cls(path.absolute(), (storage or path / "storage").absolute())

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
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InputError(
                f"Home {path} is held by {holder}.\nWait for it or stop it, or name another home with --home."
            ) from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


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
            f"Home {path} is on {place}, a network file system ({kind}), where the ledger is not safe.\n"
            "Put it on a local disk with --home, and only what machines share there with --storage."
        )
