import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.cli.app import main
from sweeper.home import Home
from sweeper.tracking.moved import bring_artifacts_along

pytestmark = pytest.mark.usefixtures("lent_probe")


def places(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / "mlflow.db")) as db:
        rows = db.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        return {place for (place,) in rows}


@pytest.mark.system
def test_a_home_that_was_moved_takes_its_artifacts_along_and_leaves_nothing_behind(
    trained_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = trained_home, tmp_path / "second one"
    shutil.copytree(before, after)
    left = sorted(before.rglob("*"))
    words = ["factorvae_gamma", "--scale", "smoke"]
    assert any(place.startswith(f"{before.as_uri()}/mlartifacts/") for place in places(after))
    assert main(["run", *words, "--no-ray", "--home", str(after), "--seeds", "0-2"]) == 0
    assert sorted(before.rglob("*")) == left
    assert all(before.name not in place for place in places(after))
    assert any(place.startswith(f"{after.as_uri()}/mlartifacts/") for place in places(after))
    capsys.readouterr()
    assert main(["verify", *words, "--home", str(after)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "now"),
    [
        ("file:///old/mlartifacts/a-smoke", "file://{home}/mlartifacts/a-smoke"),
        ("file:///an%20old/home/mlartifacts/a/7/artifacts", "file://{home}/mlartifacts/a/7/artifacts"),
        ("/old/mlartifacts/0", "{home}/mlartifacts/0"),
        ("file://{home}/mlartifacts/a", "file://{home}/mlartifacts/a"),
        ("s3://bucket/mlartifacts2/a", "s3://bucket/mlartifacts2/a"),
        ("mlflow-artifacts:/0", "mlflow-artifacts:/0"),
    ],
)
def test_only_places_in_a_home_are_moved(place: str, now: str, tmp_path: Path) -> None:
    home = Home.at(tmp_path)
    with closing(sqlite3.connect(home.mlflow)) as db, db:
        db.execute("CREATE TABLE experiments (artifact_location TEXT)")
        db.execute("CREATE TABLE runs (artifact_uri TEXT)")
        db.execute("INSERT INTO experiments VALUES (?)", (place.format(home=tmp_path),))
    bring_artifacts_along(home)
    assert places(tmp_path) == {now.format(home=tmp_path)}
