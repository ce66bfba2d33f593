"""MLflow shows what the ledger has: a projection, by a process of its own, the only one that imports mlflow.

    python -m sweeper.tracking HOME [--storage DIR] [--uri URI] [--sweep NAME-SCALE[-LABEL] ...] --once

An experiment is a sweep; in it are MLflow runs of three levels: the sweep, its draws, their runs. Everything is made
from committed blocks and can be made again: an MLflow run is looked for by its tags before it is created, and a point
sent twice has the time it was stored with, so MLflow keeps it once. Hence this process may be killed at any moment,
and MLflow may be away for as long as it likes.

`--follow` goes on until its standard input ends or has a line. Exit codes: 0 all is delivered, 1 `--verify` found
something, 2 it cannot be done as asked, 3 it could not be delivered now.
"""

import argparse
import os
import select
import shlex
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

from sweeper._comparison import differences
from sweeper._contents import Content, MetricPoint
from sweeper._deliveries import Deliveries
from sweeper._delivering import (
    ENTRY,
    LEDGER,
    PARENT,
    Found,
    HeldError,
    Projection,
    UndeliveredError,
    lock_projection,
)
from sweeper._entries import outline, title
from sweeper.home import Home
from sweeper.projection import command, delivery_record, sqlite_file, store_uri
from sweeper.records import Records
from sweeper.rows import SweepId
from trainables import durable
from trainables.errors import InputError

POLL_S = 5.0
REST = 9
"""Following rests this many times as long as it worked, so it takes a tenth of a core at most."""
MAX_WAIT_S = 60.0

_PAGE = 1000


class Store:
    """An MLflow store, in the few words that a projection needs.

    Args:
        home: Keeps the artifacts, unless a server does.
        uri: The store; a file is made if it is not there.
    """

    def __init__(self, home: Home, uri: str) -> None:
        self._mlflow = _import_mlflow()
        if (file := sqlite_file(uri)) and not file.exists():
            _make_file(file, home)
        self._client = self._mlflow.MlflowClient(uri)
        self._artifacts = None if uri.startswith("http") else home.path / "mlartifacts"

    def experiment(self, sweep: SweepId) -> str | None:
        """Id of a sweep's experiment, if there is one.

        Raises:
            UndeliveredError: It was deleted in MLflow, which keeps its name.
        """
        name = title(sweep)
        found = self._client.get_experiment_by_name(name)
        if found and found.lifecycle_stage != "active":
            raise UndeliveredError(
                f"Experiment '{name}' is deleted there: restore it (mlflow experiments restore -x"
                f" {found.experiment_id}) or remove it for good (mlflow gc)."
            )
        return found.experiment_id if found else None

    def make_experiment(self, sweep: SweepId) -> str:
        """Make the experiment of a sweep."""
        location = (self._artifacts / str(sweep)).as_uri() if self._artifacts else None
        # MLflow's pages open on agents and their traces unless an experiment says that it trains models.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return self._client.create_experiment(title(sweep), artifact_location=location, tags=kind)

    def runs(self, experiment: str, ledger: str) -> list[Found]:
        """What there is of a ledger in an experiment; deleted runs are not there."""
        found, token = [], None
        while True:
            page = self._client.search_runs(
                [experiment], f"tags.`{LEDGER}` = '{ledger}'", max_results=_PAGE, page_token=token
            )
            for run in page:
                tags = run.data.tags
                words = (tags.get(ENTRY, ""), run.info.run_id, tags.get(PARENT, ""), run.info.status)
                found.append(Found(*words, tuple(run.data.metrics)))
            if not (token := page.token):
                return found

    def create(self, experiment: str, what: Content, tags: Mapping[str, str]) -> str:
        """Make a run, RUNNING; returns its id."""
        made = self._client.create_run(
            experiment, start_time=what.start_ms, tags=dict(tags), run_name=what.name
        )
        return made.info.run_id

    def delete(self, run_id: str) -> None:
        """Put a run into MLflow's bin."""
        self._client.delete_run(run_id)

    def log(
        self, run_id: str, points: Sequence[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Add points, parameters and tags, in as many requests as MLflow's limits ask for."""
        entities = self._mlflow.entities
        self._client.log_batch(
            run_id,
            [entities.Metric(point.name, point.value, point.time_ms, point.step) for point in points],
            [entities.Param(*param) for param in params.items()],
            [entities.RunTag(*tag) for tag in tags.items()],
        )

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        """Say how a run goes, and when it ended."""
        if end_ms is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_ms)

    def upload(self, run_id: str, path: Path) -> None:
        """Keep a file with a run, in the place of one of its name."""
        self._client.log_artifact(run_id, str(path))

    def history(self, run_id: str, name: str) -> list[MetricPoint]:
        """All points of a metric of a run."""
        points = self._client.get_metric_history(run_id, name)
        return [MetricPoint(point.key, point.step, point.timestamp, point.value) for point in points]


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Say what goes wrong with MLflow in one line; what is no fault of it passes.

    Raises:
        UndeliveredError: In the place of MLflow's errors.
    """
    mlflow = _import_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    # Connections fail with an OSError, a database without its driver with an ImportError.
    faults = (
        mlflow.exceptions.MlflowException,
        SQLAlchemyError,
        sqlite3.OperationalError,
        ImportError,
        OSError,
    )
    try:
        yield
    except faults as error:
        line = " ".join(str(error).split())[:120]
        raise UndeliveredError(f"MLflow at {uri}: {line}") from error


def project_once(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> None:
    """Deliver what the ledger has and MLflow lacks.

    Raises:
        HeldError: Another process is at it.
        InputError: No ledger, no such sweep, or a store that cannot be one.
        UndeliveredError: Some or all of it could not be delivered.
    """
    uri = store_uri(home, uri)
    with _projection(home, uri) as projection, reaching(uri):
        projection.catch_up(sweeps)


def follow(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, stop: TextIO) -> None:
    """Deliver what is committed until asked to stop, and then what is left; complains of the same thing once.

    Args:
        home: Whose ledger.
        uri: MLflow store, None for the one in the home.
        sweeps: Which ones, None for all.
        stop: Ends, or has a line, when this shall stop.

    Raises:
        InputError: No ledger, no such sweep, or a store that cannot be one.
        UndeliveredError: What was left could not be delivered.
    """
    uri, projection = store_uri(home, uri), None
    complaint, num_failures, wait_s, is_last = "", 0, 0.0, False
    with ExitStack() as stack:
        while not is_last:
            is_last = bool(select.select([stop], [], [], wait_s)[0])
            began_s = time.monotonic()
            try:
                projection = projection or stack.enter_context(_projection(home, uri))
                with reaching(uri):
                    projection.catch_up(sweeps)
                complaint, num_failures = "", 0
                wait_s = max(POLL_S, REST * (time.monotonic() - began_s))
            except (UndeliveredError, HeldError) as error:
                stack.close()
                projection = None
                if is_last:
                    raise UndeliveredError(str(error)) from error
                if str(error) != complaint:
                    complaint = str(error)
                    print(complaint, file=sys.stderr, flush=True)
                num_failures += 1
                wait_s = min(2.0**num_failures, MAX_WAIT_S)


@contextmanager
def _projection(home: Home, uri: str) -> Iterator[Projection]:
    with ExitStack() as stack:
        records = stack.enter_context(closing(Records.open(home.ledger)))
        stack.enter_context(lock_projection(home))
        with reaching(uri):
            deliveries = stack.enter_context(closing(Deliveries(delivery_record(home), uri)))
            store = Store(home, uri)
        yield Projection(home, records, deliveries, store)


def verify_projection(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> list[str]:
    """What MLflow lacks or has too much of compared with the ledger, one line each; asks MLflow itself.

    Raises:
        InputError: No ledger, no such sweep, or a store that cannot be one.
        UndeliveredError: MLflow cannot be reached.
    """
    uri = store_uri(home, uri)
    if (file := sqlite_file(uri)) and not file.exists():
        return [f"There is no {file}."]
    with closing(Records.open(home.ledger)) as records, reaching(uri):
        store, chosen = Store(home, uri), records.sweeps() if sweeps is None else sweeps
        shown = [outline(records, home, sweep) for sweep in chosen]
        return [line for each in shown for line in differences(records, each, store)]


def _import_mlflow() -> Any:
    """Import mlflow where nothing around it makes it phone home, repeat a request, talk, or join another run."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        # A creation that is sent again could make a second run: a new try begins with a search.
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_LOGGING_LEVEL="CRITICAL",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    return mlflow


def _make_file(path: Path, home: Home) -> None:
    """Make an empty store: a kill while the tables are made must not leave half of them."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    partial = path.with_name(f"{path.name}.partial")
    for name in (partial, partial.with_name(f"{partial.name}-journal")):
        name.unlink(missing_ok=True)
    SqlAlchemyStore(f"sqlite:///{partial}", str(home.path / "mlartifacts")).engine.dispose()
    partial.replace(path)
    durable.sync_folder(path.parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sweeper.tracking", description="Project a ledger into MLflow."
    )
    parser.add_argument("home", type=Path, help="folder of the ledger")
    parser.add_argument("--storage", type=Path, help="folder of the blocks, if it is not in the home")
    parser.add_argument("--uri", help="MLflow store, if it is not the file in the home")
    parser.add_argument("--sweep", action="append", dest="sweeps", metavar="NAME-SCALE[-LABEL]")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--once", action="store_true", help="deliver what is committed")
    how.add_argument("--follow", action="store_true", help="go on until standard input ends or has a line")
    how.add_argument("--verify", action="store_true", help="compare MLflow with the ledger")
    given = parser.parse_args(arguments)
    home = Home.at(given.home, given.storage)
    try:
        sweeps = [_sweep(text) for text in given.sweeps] if given.sweeps else None
        return _do(given, home, sweeps)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _do(given: argparse.Namespace, home: Home, sweeps: Sequence[SweepId] | None) -> int:
    deliver = shlex.join(["python", *command(home, given.uri, sweeps, "--once")[1:]])
    try:
        if given.verify:
            lines = verify_projection(home, given.uri, sweeps)
            if lines:
                print(*lines, sep="\n")
                print("`python -m sweeper sync` mends what MLflow lacks.", file=sys.stderr)
            return 1 if lines else 0
        if given.once:
            project_once(home, given.uri, sweeps)
        else:
            os.nice(10)
            follow(home, given.uri, sweeps, sys.stdin)
        return 0
    except UndeliveredError as error:
        if given.verify:
            print(error)
            return 1
        if given.once:
            print(f"To deliver it: {deliver}", file=sys.stderr)
        print(error, file=sys.stderr)
        return 3


def _sweep(text: str) -> SweepId:
    words = text.split("-", 2)
    if len(words) < 2:
        raise InputError(f"'{text}' is no sweep; write NAME-SCALE or NAME-SCALE-LABEL, as in the ledger.")
    return SweepId(*words)


if __name__ == "__main__":
    sys.exit(main())
