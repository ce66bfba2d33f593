"""The lease of a storage: one driver at a time plans, begins attempts and changes records, from whatever home or machine.

It needs what every shared file system has, exclusive creation of folders and renaming, and no locks:

    drivers/<n>/               a lease that is held; its number grows
    drivers/<n>/holder.json    who holds it: host, boot, pid, start of the process, command
    drivers/<n>/beat           a count that its holder increases every few seconds
    drivers/<n>/begun-<a>.json an attempt that its holder began, and where that ended earlier attempts
    drivers/<n>.over/          a lease that was released, or taken from its holder

A lease ends by one rename of its folder. What its holder writes into the folder counts, and whatever it writes after the rename fails:
so a driver that lost its lease cannot begin an attempt, however late it finds out.

Clocks of machines are never compared: a holder is taken to be dead when its count has not moved for `STALE_S` by the clock of
whoever waits for it; on the holder's own machine, when its process is gone.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainables import durable
from trainables.durable import DamagedBlockError
from trainables.layout import Layout

HOLDER, BEAT = "holder.json", "beat"
"""Files in the folder of a lease."""

SOMEBODY = "another driver"
"""A holder that has not said who it is."""

BEAT_S = 5.0
"""Seconds between two beats of a holder."""

STALE_S = 30.0
"""Seconds without a beat after which another driver takes a lease over."""

LOOK_EVERY_S = 0.5
"""Seconds between looks at a lease that is waited for."""

NAMELESS_S = 1.0
"""Longest time in which a new holder writes who it is."""

MAX_COMMAND = 200
"""Most characters of a command that are kept."""


class LeaseLostError(OSError):
    """Another driver took the storage over, since this one was not heard of."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lease.

    Attributes:
        host: Its machine.
        boot: Identity of the machine's current boot and of its numbering of processes, which a container has for itself; empty if
            unknown.
        pid: Its process.
        started: Start of the process in ticks since the boot, 0 if unknown: a process id is used again.
        command: What was typed.
    """

    host: str
    boot: str
    pid: int
    started: int
    command: str

    @classmethod
    def here(cls) -> "Holder":
        """Return this process."""
        words = " ".join(["sweeper", *sys.argv[1:]])
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()), words[:MAX_COMMAND])

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and has ended; False if that cannot be known."""
        is_here = self.boot and (self.host, self.boot) == (socket.gethostname(), _boot())
        return bool(is_here) and self.started != _started(self.pid)

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} ({self.command})"


class Lease:
    """A lease that this process holds, until it is released or taken from it.

    Args:
        storage: Folder of the storage.
        number: Number of the lease, whose folder this process created.
    """

    def __init__(self, storage: Path, number: int) -> None:
        self._layout, self.number = Layout(storage), number
        self._folder = self._layout.lease(number)
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        with self._reporting_its_loss():
            durable.write_record(self._folder / HOLDER, asdict(Holder.here()))
        self._beats.start()

    @property
    def is_held(self) -> bool:
        """Whether this process still holds the lease."""
        return self._folder.is_dir()

    def check(self) -> None:
        """Make sure that this process still holds the lease.

        Raises:
            LeaseLostError: It does not.
        """
        if not self.is_held:
            newest = _newest(self._layout)
            who = (newest > self.number and _holder(self._layout.lease(newest))) or SOMEBODY
            raise LeaseLostError(
                f"storage {self._layout.storage} was taken over by {who}, since this driver was not heard of for"
                f" {STALE_S:.0f} s; the same command goes on once that one is done"
            )

    def begin(self, number: int, body: Mapping[str, Any]) -> None:
        """Record that an attempt begins; on return it has begun.

        Raises:
            LeaseLostError: The lease was lost before, and nothing has begun.
        """
        with self._reporting_its_loss():
            durable.write_record(self._layout.begun(self.number, number), body)

    def release(self) -> None:
        """Let the next driver have the storage at once."""
        self._ended.set()
        self._beats.join()
        with suppress(OSError):  # it was taken over, or the next driver waits a little longer
            end(self._layout, self.number)

    @contextmanager
    def _reporting_its_loss(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            self.check()
            raise

    def _keep_beating(self) -> None:
        count = 0
        while True:
            with suppress(OSError):  # the storage is full or away for a while, or the lease is lost
                partial = self._folder / f"{BEAT}.partial"
                partial.write_text(str(count))
                partial.replace(self._folder / BEAT)
            count += 1
            if self._ended.wait(BEAT_S):
                return


@contextmanager
def leased(storage: Path, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease of a storage in this context, after waiting for whoever holds it.

    Args:
        storage: Folder of the storage; created if missing.
        say: Tells the user who is waited for, and from whom this process takes over.

    Raises:
        OSError: The storage cannot be written.
        KeyboardInterrupt: The user does not want to wait.
    """
    layout = Layout(storage)
    durable.make_folder(layout.drivers)
    lease = Lease(storage, _wait(layout, say))
    try:
        _delete_empty(layout)
        yield lease
    finally:
        lease.release()


def _wait(layout: Layout, say: Callable[[str], None]) -> int:
    """Wait until no lease is held by a living driver, and create the next one; return its number."""
    seen, since_s, told = (0, ""), time.monotonic(), 0
    while True:
        newest = _newest(layout)
        folder = layout.lease(newest)
        if not folder.is_dir():
            if _create(layout, newest + 1):
                return newest + 1
            continue
        beat = (newest, _read(folder / BEAT))
        if beat != seen:
            seen, since_s = beat, time.monotonic()
        holder = _holder(folder)
        who = holder or SOMEBODY
        is_gone = holder is not None and holder.is_gone
        silent_s = time.monotonic() - since_s
        if is_gone or silent_s > STALE_S:
            with suppress(FileNotFoundError):  # another one was faster
                end(layout, newest)
                why = "is gone" if is_gone else f"was not heard of for {STALE_S:.0f} s"
                say(f"Takes over storage {layout.storage} from {who}, which {why}.")
            continue
        if told != newest and (holder or silent_s > NAMELESS_S):
            told = newest
            say(
                f"Storage {layout.storage} is in use by {who}: waits until that is done, or not heard of for"
                f" {STALE_S:.0f} s. Ctrl-C to give up."
            )
        time.sleep(LOOK_EVERY_S)


def end(layout: Layout, number: int) -> None:
    """End a lease: from now on nothing can be written into its folder.

    Raises:
        FileNotFoundError: It has ended before.
    """
    folder = layout.lease(number)
    folder.rename(folder.with_name(f"{folder.name}.over"))
    durable.sync_folder(layout.drivers)


def _create(layout: Layout, number: int) -> bool:
    """Create the folder of a lease; return whether this process did, and not another one."""
    try:
        layout.lease(number).mkdir()
    except FileExistsError:
        return False
    durable.sync_folder(layout.drivers)
    return True


def _delete_empty(layout: Layout) -> None:
    """Delete the folders of leases that are over and in which no attempt was begun, but for the newest."""
    over = [folder for folder in layout.leases() if folder.suffix]
    for folder in over[:-1]:
        if not any(folder.glob("begun-*")):
            with suppress(OSError):
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()


def _newest(layout: Layout) -> int:
    """Return the largest number of a lease, over or not; 0 if there is none."""
    return max((int(folder.stem) for folder in layout.leases()), default=0)


def _holder(folder: Path) -> Holder | None:
    """Return who holds a lease; None while that is not written."""
    try:
        return Holder(**durable.read_record(folder / HOLDER)[0])
    except (OSError, DamagedBlockError):
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _boot() -> str:
    try:
        numbering = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{_read(Path('/proc/sys/kernel/random/boot_id')).strip()} {numbering}"


def _started(pid: int) -> int:
    """Return the start of a process in ticks since the boot; 0 if there is no such process, or it cannot be known."""
    # The name of the program is in parentheses and may contain any character.
    *_, after = _read(Path(f"/proc/{pid}/stat")).rpartition(")")
    fields = after.split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else 0
