"""Locks on files: the kernel releases them however a process ends. They do not work on network file systems."""

import fcntl
import os
import socket
from typing import IO


def try_lock(file: IO[str], *, is_shared: bool = False) -> bool:
    """Lock an open file unless another process holds it; return whether that worked.

    Args:
        file: Stays locked until it is closed.
        is_shared: Only check that nobody holds it alone.

    Raises:
        OSError: The file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(file: IO[str]) -> None:
    """Lock an open file, after waiting for as long as another process holds it."""
    fcntl.flock(file, fcntl.LOCK_EX)


def sign(file: IO[str]) -> None:
    """Write into a locked file who holds it."""
    file.truncate(0)
    file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def holder(file: IO[str]) -> str:
    """Return who signed a locked file, for example `pid 123 on host`."""
    file.seek(0)
    return file.read().strip() or "another process"
