"""The driver's side of MLflow: check the store, start the sync process, count what is pending.

Nothing here imports mlflow, which takes seconds; only the sync process needs it (`sweeper.tracking.worker`).
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal
from urllib.parse import urlsplit

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.tracking.command import How, command
from sweeper.tracking.outline import outline
from sweeper.tracking.sync_state import delivered_states
from trainables.errors import InputError

SCHEMES = ("http", "https", "postgresql", "sqlite")

_REFUSED, _UNDELIVERED = 2, 3
_LAST_CHANCE_S = 2.0

MAX_RESTARTS = 2
"""Processes that a `Projector` starts again at the end, if each is killed."""


def check_uri(uri: str, option: str = "--tracking-uri") -> None:
    """Reject an address that cannot be an MLflow store, without connecting to it.

    Raises:
        InputError: The scheme is not supported, host or file are missing, or the address contains a password, which
            every user of the machine could read.
    """
    scheme = uri.partition("://")[0].partition("+")[0]
    try:
        parts = urlsplit(uri)
        has_password, host, _ = parts.password is not None, parts.hostname, parts.port
    except ValueError:
        has_password, host = False, None
    if has_password:
        raise InputError(
            f"{option} contains a password, which every user of this machine can read.\n"
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead, or PGPASSWORD for PostgreSQL."
        )
    is_whole = bool(sqlite_file(uri)) if scheme == "sqlite" else bool(host)
    if scheme not in SCHEMES or "://" not in uri or not is_whole:
        raise InputError(
            f"{option} {uri}: not an MLflow store; valid addresses begin with {', '.join(SCHEMES)}.\n"
            "Examples: http://127.0.0.1:5000, or sqlite:////tmp/mlflow.db for a file."
        )


def sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite store, None for any other store."""
    scheme, _, rest = uri.partition("://")
    name = rest.removeprefix("/").partition("?")[0]
    is_file = scheme.partition("+")[0] == "sqlite" and rest.startswith("/") and name not in ("", ":memory:")
    return Path(name) if is_file else None


def store_uri(home: Home, uri: str | None) -> str:
    """Return the address of the store to use: the given one, or the file in the home.

    Raises:
        InputError: The address is invalid, see `check_uri`.
    """
    chosen = uri or f"sqlite:///{home.mlflow}"
    check_uri(chosen)
    return chosen


def delivery_record(home: Home) -> Path:
    """Return the file that records what MLflow has; everything is delivered again if it is deleted while no sync runs."""
    return home.path / "tracking.db"


def pending(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> int:
    """Count the MLflow runs, including those of draws and sweeps, that lack something that is committed.

    Raises:
        InputError: There is no ledger.
        UnknownNameError: A sweep is unknown.
    """
    uri, records = store_uri(home, uri), Records.open(home.ledger)
    try:
        num_pending = 0
        for sweep in records.sweeps() if sweeps is None else sweeps:
            delivered = delivered_states(delivery_record(home), uri, sweep)
            entries = outline(records, home, sweep).entries
            num_pending += sum(delivered.get(entry.id) != entry.state for entry in entries)
        return num_pending
    finally:
        records.close()


def is_delivered(home: Home, uri: str | None, sweeps: Sequence[SweepId]) -> bool:
    """Return whether MLflow has all of some sweeps, as far as can be told without asking it: never of a server.

    Raises:
        InputError: The address of the store is invalid.
    """
    file = sqlite_file(store_uri(home, uri))
    return file is not None and file.exists() and pending(home, uri, sweeps) == 0


class Projector:
    """A process that mirrors the ledger in MLflow while a driver works; training never waits for it.

    It starts before there is anything to deliver, since importing MLflow takes seconds, and delivers from the first call of
    `deliver` on. It ends when it is stopped or, if the driver is gone, after delivering its backlog. It writes its complaints to
    `tracking.log` in the home. If somebody kills it, what is left is delivered by another one when it is stopped.
    """

    def __init__(self, home: Home, uri: str | None, sweeps: Sequence[SweepId] | None) -> None:
        self._home, self._uri, self._sweeps = home, uri, sweeps
        self._process = self._start("wb")
        self._death = ""

    @classmethod
    def start(cls, home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> "Projector":
        """Start the process for sweeps, which must be registered when it first delivers.

        Args:
            home: Home whose ledger is mirrored.
            uri: Address of the MLflow store, None for the file in the home.
            sweeps: Sweeps to mirror, None for all.

        Raises:
            InputError: The address of the store is invalid.
        """
        store_uri(home, uri)
        return cls(home, uri, sweeps)

    def _start(self, mode: Literal["wb", "ab"]) -> subprocess.Popen[bytes]:
        with _log(self._home).open(mode) as log:
            # In a new session, so that Ctrl-C reaches only the driver, which then stops this process.
            return subprocess.Popen(
                command(self._home, self._uri, self._sweeps, "--follow"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def deliver(self) -> None:
        """Let the process deliver at once what is committed by now, and from then on what is committed."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def stop(self, timeout_s: float) -> int:
        """Let the process deliver what is left for at most this long, then end it; start it again if somebody kills it.

        Returns:
            Number of MLflow runs that are `pending`; `sweeper.tracking.worker --once` delivers them later.
        """
        end_s = time.monotonic() + timeout_s
        self._end(timeout_s)
        for _ in range(MAX_RESTARTS):
            if not self._death or time.monotonic() >= end_s:
                break
            self._process = self._start("ab")
            self.deliver()
            self._end(max(0.0, end_s - time.monotonic()))
        return pending(self._home, self._uri, self._sweeps)

    def complaint(self) -> str:
        """Return why something is pending: that the process died, or the last line that it wrote; empty if none."""
        return self._death or (_log(self._home).read_text(errors="replace").strip().splitlines() or [""])[-1]

    def __enter__(self) -> "Projector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(0.0)

    def _end(self, timeout_s: float) -> None:
        """End the process, and remember if it died by itself."""
        assert self._process.stdin
        if not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        for wait_s, kill in ((timeout_s, signal.SIGTERM), (_LAST_CHANCE_S, signal.SIGKILL)):
            try:
                code = self._process.wait(wait_s)
            except subprocess.TimeoutExpired:
                self._process.send_signal(kill)
            else:
                is_ours = kill is signal.SIGKILL  # it was asked to end
                self._death = "" if is_ours else _death(code)
                return
        self._process.wait()


def _death(code: int) -> str:
    """Return how the process died, empty if it ended as it should or could not deliver."""
    if code < 0:
        return f"the process that delivers was killed by {signal.Signals(-code).name}"
    return (
        ""
        if code in (0, _REFUSED, _UNDELIVERED)
        else f"the process that delivers ended with exit code {code}"
    )


def run_sync(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None, *, is_anew: bool = False
) -> int:
    """Bring MLflow up to date in another process; if that fails, the reason is written to standard error.

    Args:
        home: Home whose ledger is delivered.
        uri: Address of the MLflow store, None for the file in the home.
        sweeps: Sweeps to deliver, None for all.
        is_anew: Trust only MLflow itself: forget what was delivered, deliver everything that MLflow lacks, and replace
            the MLflow runs that contain points that are not in the ledger.

    Returns:
        Number of MLflow runs that are `pending`.

    Raises:
        InputError: There is no ledger, a sweep is unknown, or another process is syncing this home.
    """
    store_uri(home, uri)
    done = _run(home, uri, sweeps, "--anew" if is_anew else "--once")
    return 0 if done.returncode == 0 else pending(home, uri, sweeps)


def run_verify(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> list[str]:
    """Compare MLflow itself with the ledger in another process; return one line for each difference.

    Raises:
        InputError: There is no ledger, or a sweep is unknown.
    """
    store_uri(home, uri)
    done = _run(home, uri, sweeps, "--verify")
    lines = done.stdout.splitlines()
    if done.returncode != int(bool(lines)):
        raise RuntimeError(f"Comparing MLflow with the ledger failed with exit code {done.returncode}.")
    return lines


def _run(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, how: How
) -> subprocess.CompletedProcess[str]:
    done = _completed(command(home, uri, sweeps, how))
    if done.returncode == _REFUSED:
        raise InputError(done.stderr.strip())
    sys.stderr.write(done.stderr)
    return done


def _completed(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def _log(home: Home) -> Path:
    return home.path / "tracking.log"
