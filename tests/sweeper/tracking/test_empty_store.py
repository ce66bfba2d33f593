"""The MLflow store that is made once and copied."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.home import Home
from sweeper.tracking import empty_store as kept_store
from sweeper.tracking.store import Store

VERSION = "1.2.3"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_a_copy_is_the_store_with_artifacts_in_its_own_home(empty_store: Path, tmp_path: Path) -> None:
    path, artifacts = tmp_path / "mlflow.db", tmp_path / "home" / "mlartifacts"
    assert not kept_store.copy(VERSION, path, artifacts)
    assert not path.exists()
    kept_store.keep(VERSION, empty_store)
    assert kept_store.copy(VERSION, path, artifacts)
    assert rows(path, "SELECT name, artifact_location FROM experiments") == [("Default", f"{artifacts}/0")]
    tables = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
    assert rows(path, tables) == rows(empty_store, tables)
    assert not kept_store.copy("1.2.4", path.with_name("other.db"), artifacts)


@pytest.mark.parametrize("damage", ["cut", "bytes", "used"])
def test_a_kept_store_that_is_damaged_or_was_used_is_not_copied(
    empty_store: Path, tmp_path: Path, damage: str
) -> None:
    kept_store.keep(VERSION, empty_store)
    kept = kept_store.kept(VERSION)
    if damage == "used":
        with closing(sqlite3.connect(kept)) as db:
            db.execute(
                "INSERT INTO experiments (experiment_id, name, workspace) VALUES (1, 'mine', 'default')"
            )
            db.commit()
    else:
        whole = kept.read_bytes()
        middle = len(whole) // 2
        kept.write_bytes(whole[:middle] if damage == "cut" else whole[:4096] + b"\xff" * middle)
    assert not kept_store.copy(VERSION, tmp_path / "mlflow.db", tmp_path)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_home_gets_its_store_from_the_one_that_is_kept_and_mlflow_takes_it(
    empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.tracking import sqlalchemy_store
    from mlflow.version import VERSION as INSTALLED

    def upgrade(*_: object) -> None:
        raise AssertionError("the tables are made again")

    kept_store.keep(INSTALLED, empty_store)
    monkeypatch.setattr(sqlalchemy_store.mlflow.store.db.utils, "_upgrade_db", upgrade)
    home = Home.at(tmp_path / "home")
    home.path.mkdir()
    Store(home, f"sqlite:///{home.mlflow}")
    assert rows(home.mlflow, "SELECT artifact_location FROM experiments") == [(f"{home.artifacts}/0",)]


def test_where_nothing_can_be_kept_nothing_is_said(
    empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_DATA", "/proc/nowhere")
    kept_store.keep(VERSION, empty_store)


def test_the_folder_is_made(empty_store: Path) -> None:
    shutil.rmtree(kept_store.kept(VERSION).parent, ignore_errors=True)
    kept_store.keep(VERSION, empty_store)
    assert kept_store.kept(VERSION).read_bytes() == empty_store.read_bytes()
