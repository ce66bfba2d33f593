"""An MLflow store in the few words that a projection needs: the only file that imports mlflow."""

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
from sweeper.tracking.content import Content, MetricPoint
from sweeper.tracking.outline import title
from sweeper.tracking.process import sqlite_file
from trainables import durable
from trainables.errors import InputError

ENTRY, LEDGER, PARENT = "sweeper.entry", "sweeper.ledger", "mlflow.parentRunId"
"""Tags that say what an MLflow run is: they are there from its creation on."""


class UndeliveredError(Exception):
    """MLflow could not be reached, or refused, or a file could not be made; the text says why, a line for each."""


class HeldError(InputError):
    """Another process projects this home."""


class Found(NamedTuple):
    """An MLflow run of this ledger, as MLflow has it."""

    entry: str
    run_id: str
    parent_id: str
    status: str
    metrics: tuple[str, ...]


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
        self._uri, self._client = uri, self._mlflow.MlflowClient(uri)
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

    def artifacts(self, run_id: str) -> dict[str, int]:
        """Files that are kept with a run, and their sizes in bytes."""
        found = self._client.list_artifacts(run_id)
        return {file.path: file.file_size or 0 for file in found if not file.is_dir}

    def remove(self, run_id: str, name: str) -> None:
        """Delete a file that is kept with a run."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        place = self._client.get_run(run_id).info.artifact_uri
        get_artifact_repository(place, tracking_uri=self._uri).delete_artifacts(name)

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
        raise UndeliveredError(f"MLflow at {uri}: {_reason(str(error))}") from error


def _reason(text: str) -> str:
    """The one thing that a person needs of a long error."""
    network = re.search(
        r"Connection refused|Name or service not known|timed out|Network is unreachable", text
    )
    return network[0] if network else textwrap.shorten(text, 160, placeholder=" ...")


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
