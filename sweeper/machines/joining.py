"""Which running Ray cluster a command joins, if any.

Never by Ray's own `auto`, which looks through all processes of the machine and would join another driver's private Ray.
"""

import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import InputError

ANSWER_S = 3.0
"""Longest time for a cluster to answer."""

LOCAL, AUTO = "local", "auto"
"""Addresses of no cluster, and of the one that is found."""


@dataclass(frozen=True)
class Joined:
    """Where a command trains.

    Attributes:
        address: Address of the cluster, HOST:PORT; None for this machine.
        note: What a person may not expect of this choice; mostly empty.
    """

    address: str | None
    note: str = ""


def find_cluster(asked: str | None, option: str = "--address") -> Joined:
    """Return the cluster to join: the one that is asked for, else RAY_ADDRESS, else the one that `ray start` left here.

    Args:
        asked: HOST:PORT, `auto` for one that must be found, `local` for this machine, None for one if it is found.
        option: The option or variable that asks, for error texts.

    Raises:
        InputError: The address is invalid, nothing answers there, or none is found.
    """
    if asked == LOCAL:
        return Joined(None)
    if asked not in (None, AUTO):
        return Joined(_checked(asked or "", option))
    named = os.environ.get("RAY_ADDRESS", "")
    note = ""
    if named.startswith(("http://", "https://")):
        note = f"RAY_ADDRESS={named} is for `ray job`, not the address of a cluster to join."
    elif named == LOCAL and asked is None:
        return Joined(None)
    elif named not in ("", AUTO, LOCAL):
        return Joined(_checked(named, "RAY_ADDRESS"))
    for file in _left_by_ray_start():
        address = file.read_text(errors="replace").strip()
        if is_there(address):
            return Joined(address)
        note = (
            f"No Ray cluster answers at {address}, which `ray start` left in {file}: trains on this machine."
        )
    if asked == AUTO:
        raise InputError(
            f"{option} auto: no Ray cluster of yours was found on this machine.\n"
            "Start one with `ray start --head`, or use its HOST:PORT, or leave out --address."
        )
    return Joined(None, note)


def _left_by_ray_start() -> list[Path]:
    """Return the files in which `ray start` of this user wrote the address of its cluster, most likely one."""
    folders = [os.environ["RAY_TMPDIR"]] if os.environ.get("RAY_TMPDIR") else [tempfile.gettempdir(), "/tmp"]  # noqa: S108
    files = (Path(folder, "ray", "ray_current_cluster") for folder in dict.fromkeys(folders))
    return [file for file in files if _is_own(file)]


def _is_own(file: Path) -> bool:
    try:
        return file.stat().st_uid == os.getuid() and file.is_file()
    except OSError:
        return False


def _checked(address: str, option: str) -> str:
    """Return an address where something answers; Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise InputError(
            f"{option} {address}: Ray Client is not supported; Tune's driver must run inside the cluster.\n"
            "Run this command on the head node, where it finds the cluster by itself."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(
            f"{option} {address or repr('')}: expected HOST:PORT, for example 10.0.0.4:6379, or auto, or local."
        )
    if not is_there(address):
        raise InputError(
            f"{option} {address}: no Ray cluster answers there.\n"
            "Check it, start a cluster with `ray start --head` and use the address that it prints, or leave out --address."
        )
    return address


def is_there(address: str) -> bool:
    """Return whether something answers at HOST:PORT within `ANSWER_S`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, OverflowError, ValueError):
        return False
    return True
