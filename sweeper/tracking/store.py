"""The few operations on an MLflow store that mirroring needs; the only file that imports mlflow."""

import os
import re
import sqlite3
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.home import Home
from sweeper.ledger.rows import SweepId
from sweeper.tracking import empty_store
from sweeper.tracking.content import Content, MetricPoint
from sweeper.tracking.moved import bring_artifacts_along
from sweeper.tracking.outline import title
from sweeper.tracking.process import sqlite_file
from trainables import durable
from trainables.errors import InputError
from trainables.importing import without_collection

ENTRY, LEDGER, PARENT = "sweeper.entry", "sweeper.ledger", "mlflow.parentRunId"
"""Tags that identify an MLflow run; they are set when it is created."""


class UndeliveredError(Exception):
    """MLflow was unreachable, refused a request, or a file could not be made; the text has one line per reason."""


class HeldError(InputError):
    """Another process is syncing this home."""


class Found(NamedTuple):
    """An MLflow run of this ledger, as found in MLflow."""

    entry: str
    run_id: str
    parent_id: str
    status: str
    metrics: tuple[str, ...]


_PAGE = 1000


class Store:
    """An MLflow store, reduced to the few operations that mirroring needs.

    Args:
        home: Home that keeps the artifacts, unless a server does.
        uri: Address of the store; an SQLite file is created if it is missing.
    """

    def __init__(self, home: Home, uri: str) -> None:
        self._mlflow = _import_mlflow()
        if (file := sqlite_file(uri)) and not file.exists():
            _make_file(file, home)
        if file == home.mlflow:
            bring_artifacts_along(home)
        self._uri, self._client = uri, self._mlflow.MlflowClient(uri)
        self._artifacts = None if uri.startswith("http") else home.artifacts

    def experiment(self, sweep: SweepId) -> str | None:
        """Return the id of a sweep's experiment, None if it does not exist.

        Raises:
            UndeliveredError: The experiment was deleted in MLflow, which keeps its name reserved.
        """
        name = title(sweep)
        found = self._client.get_experiment_by_name(name)
        if found and found.lifecycle_stage != "active":
            raise UndeliveredError(
                f"Experiment '{name}' was deleted in MLflow: restore it (mlflow experiments restore -x"
                f" {found.experiment_id}) or delete it permanently (mlflow gc)."
            )
        return found.experiment_id if found else None

    def make_experiment(self, sweep: SweepId) -> str:
        """Create the experiment of a sweep and return its id."""
        location = (self._artifacts / str(sweep)).as_uri() if self._artifacts else None
        # Without this tag MLflow's pages open on agents and their traces instead of on model training.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(title(sweep), artifact_location=location, tags=kind))

    def runs(self, experiment: str, ledger: str) -> list[Found]:
        """Return the runs of a ledger in an experiment, without deleted ones."""
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
        """Create a run with status RUNNING and return its id."""
        made = self._client.create_run(
            experiment, start_time=what.start_ms, tags=dict(tags), run_name=what.name
        )
        return str(made.info.run_id)

    def delete(self, run_id: str) -> None:
        """Move a run to MLflow's trash."""
        self._client.delete_run(run_id)

    def log(
        self, run_id: str, points: Sequence[MetricPoint], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Add points, parameters and tags, in as many requests as MLflow's limits require."""
        entities = self._mlflow.entities
        self._client.log_batch(
            run_id,
            [entities.Metric(point.name, point.value, point.time_ms, point.step) for point in points],
            [entities.Param(*param) for param in params.items()],
            [entities.RunTag(*tag) for tag in tags.items()],
        )

    def set_status(self, run_id: str, status: str, end_ms: int | None) -> None:
        """Set the status of a run and, if it has ended, its end time."""
        if end_ms is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_ms)

    def upload(self, run_id: str, path: Path) -> None:
        """Attach a file to a run, replacing a file of the same name."""
        self._client.log_artifact(run_id, str(path))

    def artifacts(self, run_id: str) -> dict[str, int]:
        """Return the files attached to a run, with their sizes in bytes."""
        found = self._client.list_artifacts(run_id)
        return {file.path: file.file_size or 0 for file in found if not file.is_dir}

    def remove(self, run_id: str, name: str) -> None:
        """Delete a file that is attached to a run."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = self._client.get_run(run_id).info.artifact_uri
        get_artifact_repository(place, tracking_uri=self._uri).delete_artifacts(name)

    def history(self, run_id: str, name: str) -> list[MetricPoint]:
        """Return all points of one metric of a run."""
        points = self._client.get_metric_history(run_id, name)
        return [MetricPoint(point.key, point.step, point.timestamp, point.value) for point in points]


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn errors of MLflow into a one-line message; all other errors pass through.

    Raises:
        UndeliveredError: Replaces MLflow's errors.
    """
    mlflow = _import_mlflow()
    from sqlalchemy.exc import SQLAlchemyError

    # Connections fail with an OSError, a database without its driver with an ImportError.
    faults = (
        mlflow.exceptions.MlflowException,
        SQLAlchemyError,
        sqlite3.DatabaseError,
        ImportError,
        OSError,
    )
    try:
        yield
    except faults as error:
        raise UndeliveredError(f"MLflow at {uri}: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """Return the part of a long error text that a user needs."""
    known = re.search(
        r"Connection refused|Name or service not known|timed out|Network is unreachable"
        r"|file is not a database|unable to open database file|database is locked|disk I/O error",
        text,
    )
    return known[0] if known else textwrap.shorten(text, 160, placeholder=" ...")


def warm_up() -> None:
    """Import what a store needs, which takes seconds."""
    with without_collection():
        _import_mlflow()
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401


def _import_mlflow() -> Any:
    """Import mlflow without telemetry, repeated requests, log output, or a run to join from the environment."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"):
        os.environ.pop(name, None)
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        # Repeating a creation request could create a second run: our retries begin with a search.
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0",
        MLFLOW_LOGGING_LEVEL="CRITICAL",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
    )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    import mlflow

    return mlflow


def _make_file(path: Path, home: Home) -> None:
    """Create an empty store; a kill while the tables are created must not leave a partial file in its place."""
    from mlflow.version import VERSION

    partial = path.with_name(f"{path.name}.partial")
    for name in (partial, partial.with_name(f"{partial.name}-journal")):
        name.unlink(missing_ok=True)
    if not empty_store.copy(VERSION, partial, home.artifacts):
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(f"sqlite:///{partial}", str(home.artifacts)).engine.dispose()
        empty_store.keep(VERSION, partial)
    partial.replace(path)
    durable.sync_folder(path.parent)
