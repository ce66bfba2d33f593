"""An MLflow store in a file, without experiments: made once per user and copied, since MLflow makes its tables in seconds."""

import contextlib
import shutil
import sqlite3
import time
from pathlib import Path

from trainables import durable
from trainables.data.readers import preparation


def kept(version: str) -> Path:
    """Return where the store of a version of MLflow is kept for this user."""
    return preparation.folder() / f"mlflow_{version}_empty.db"


def copy(version: str, path: Path, artifacts: Path) -> bool:
    """Copy the store that is kept.

    Args:
        version: Version of MLflow.
        path: The new file.
        artifacts: Folder of the artifacts of its runs.

    Returns:
        Whether there was one that is whole; if not, there is no new file either.
    """
    now_ms = int(time.time() * 1000)
    default = (str(artifacts / "0"), now_ms, now_ms)
    with contextlib.suppress(OSError, sqlite3.Error):
        shutil.copyfile(kept(version), path)
        with contextlib.closing(sqlite3.connect(path)) as db:
            (state,) = db.execute("PRAGMA integrity_check").fetchone()
            changed = db.execute(
                "UPDATE experiments SET (artifact_location, creation_time, last_update_time) = (?, ?, ?)"
                " WHERE name = 'Default' AND 1 = (SELECT COUNT(*) FROM experiments)",
                default,
            )
            db.commit()
        if state == "ok" and changed.rowcount == 1:
            return True
    path.unlink(missing_ok=True)
    return False


def keep(version: str, path: Path) -> None:
    """Keep a store that was just made for others, if there is a place for it."""
    with contextlib.suppress(OSError):
        durable.replace_file(kept(version), path.read_bytes())
