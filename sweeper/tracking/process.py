"""MLflow from the driver's side: which store, a process that follows the ledger into it, what it lacks.

Nothing here imports mlflow, which takes seconds and is needed by that process alone (`sweeper.tracking.worker`).
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
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


def check_uri(uri: str) -> None:
    """Refuse what cannot be an MLflow store, without asking it.

    Raises:
        InputError: Another scheme, no host or file, or a password, which every user of a machine could read.
    """
    scheme = uri.partition("://")[0].partition("+")[0]
    try:
        parts = urlsplit(uri)
        has_password, host, _ = parts.password is not None, parts.hostname, parts.port
    except ValueError:
        has_password, host = False, None
    if has_password:
        raise InputError(
            "The MLflow store has its password in the address, which every user of this machine can read.\n"
            "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead, for PostgreSQL PGPASSWORD."
        )
    is_whole = bool(sqlite_file(uri)) if scheme == "sqlite" else bool(host)
    if scheme not in SCHEMES or "://" not in uri or not is_whole:
        raise InputError(
            f"'{uri}' is no MLflow store; valid are addresses that begin with {', '.join(SCHEMES)}.\n"
            "For example http://127.0.0.1:5000, or sqlite:////tmp/mlflow.db for a file."
        )


def sqlite_file(uri: str) -> Path | None:
    """The file of a store that is one."""
    scheme, _, rest = uri.partition("://")
    name = rest.removeprefix("/").partition("?")[0]
    is_file = scheme.partition("+")[0] == "sqlite" and rest.startswith("/") and name not in ("", ":memory:")
    return Path(name) if is_file else None


def store_uri(home: Home, uri: str | None) -> str:
    """The store that is meant: the one given, or the file in the home.

    Raises:
        InputError: It cannot be one.
    """
    chosen = uri or f"sqlite:///{home.mlflow}"
    check_uri(chosen)
    return chosen


def delivery_record(home: Home) -> Path:
    """What MLflow has by now. May be deleted while no process projects the home: everything is then delivered again."""
    return home.path / "tracking.db"


def pending(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> int:
    """Number of MLflow runs, those of draws and sweeps included, that lack something that is committed.

    Raises:
        InputError: No ledger.
        UnknownNameError: No such sweep.
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


class Projector:
    """A process that follows the ledger into MLflow while a driver works; training never waits for it.

    It ends when it is stopped, or by itself after its backlog when the driver is gone. What it complains of is in
    `tracking.log` in the home.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], home: Home, uri: str | None, sweeps: Sequence[SweepId] | None
    ) -> None:
        self._process = process
        self._home, self._uri, self._sweeps = home, uri, sweeps

    @classmethod
    def start(cls, home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> "Projector":
        """Start it on registered sweeps.

        Args:
            home: Whose ledger.
            uri: MLflow store, None for the one in the home.
            sweeps: Which ones, None for all.

        Raises:
            InputError: The store cannot be one.
        """
        store_uri(home, uri)
        with _log(home).open("wb") as log:
            # In a session of its own, so that Ctrl-C reaches the driver alone, which then stops it.
            process = subprocess.Popen(
                command(home, uri, sweeps, "--follow"),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return cls(process, home, uri, sweeps)

    def stop(self, timeout_s: float) -> int:
        """Let it deliver what is left, at most this long.

        Returns:
            What is `pending`; `sweeper.tracking.worker --once` delivers it later.
        """
        self._end(timeout_s)
        return pending(self._home, self._uri, self._sweeps)

    def complaint(self) -> str:
        """Why something is pending: the last line that it wrote, empty if none."""
        return (_log(self._home).read_text(errors="replace").strip().splitlines() or [""])[-1]

    def __enter__(self) -> "Projector":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(0.0)

    def _end(self, timeout_s: float) -> None:
        assert self._process.stdin
        if not self._process.stdin.closed:
            self._process.stdin.close()
        for wait_s, kill in ((timeout_s, signal.SIGTERM), (_LAST_CHANCE_S, signal.SIGKILL)):
            try:
                self._process.wait(wait_s)
                return
            except subprocess.TimeoutExpired:
                self._process.send_signal(kill)
        self._process.wait()


def run_sync(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None, *, is_anew: bool = False
) -> int:
    """Bring MLflow up to date, in another process; the reason why it could not be goes to standard error.

    Args:
        home: Whose ledger.
        uri: MLflow store, None for the one in the home.
        sweeps: Which ones, None for all.
        is_anew: Believe MLflow alone: forget what was delivered, deliver everything that it lacks, and replace the
            MLflow runs that hold what is not committed.

    Returns:
        What is `pending`.

    Raises:
        InputError: No ledger, no such sweep, or a driver's projector is at it.
    """
    store_uri(home, uri)
    done = _run(home, uri, sweeps, "--anew" if is_anew else "--once")
    return 0 if done.returncode == 0 else pending(home, uri, sweeps)


def run_verify(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> list[str]:
    """What MLflow lacks or has too much of compared with the ledger, one line each; asks MLflow itself.

    Raises:
        InputError: No ledger, or no such sweep.
    """
    store_uri(home, uri)
    done = _run(home, uri, sweeps, "--verify")
    lines = done.stdout.splitlines()
    if done.returncode != int(bool(lines)):
        raise RuntimeError(f"The comparison with MLflow ended with exit code {done.returncode}.")
    return lines


def _run(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, how: How
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(home, uri, sweeps, how), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode == _REFUSED:
        raise InputError(done.stderr.strip())
    sys.stderr.write(done.stderr)
    return done


def _log(home: Home) -> Path:
    return home.path / "tracking.log"
