"""A home that was moved or copied takes the artifacts of its MLflow store along; needs no mlflow."""

import os
import sqlite3
from contextlib import closing, suppress
from urllib.parse import unquote

from sweeper.home import Home

_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"))


def bring_artifacts_along(home: Home) -> None:
    """Let a home's own store find its artifacts where the home is now; MLflow keeps whole paths.

    A store that may only be read, or is not made yet, is left as it is.
    """
    if not home.mlflow.exists():
        return
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(home.mlflow)) as db, db:
        for table, column in _PLACES:
            for (found,) in db.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():  # noqa: S608
                if moved := _moved(found or "", home):
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (moved, found))  # noqa: S608


def _moved(place: str, home: Home) -> str:
    """Return where artifacts of a home are now, empty if they are where they were or not in a home."""
    before, folder, rest = place.rpartition(f"/{home.artifacts.name}")
    if not folder or (rest and not rest.startswith("/")):
        return ""
    is_address = before.startswith("file://")
    if os.path.realpath(unquote(before.removeprefix("file://"))) == os.path.realpath(home.path):
        return ""
    return f"{home.artifacts.as_uri() if is_address else home.artifacts}{rest}"
