"""Homes made by earlier versions are read, verified and resumed; each archive in tests/homes is one as it was then."""

import csv
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import MemberRow, SweepId
from sweeper.ledger.verify import check
from tests.sweeper.conftest import Typed

HOMES = Path(__file__).parents[1] / "homes"
DONE = SweepId("factorvae_gamma", "smoke", "tiny")
DIVERGED = SweepId("betavae_beta", "smoke", "bad")
STOPPED = SweepId("betavae_beta", "smoke", "stopped")
SETTINGS = {"vae.width": 8, "vae.latent_dim": 2, "steps": 8000, "evaluate_every": 4000, "report_every": 1000}
"""Of the sweep that was stopped."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The home of the first version: a sweep that is done, one with a diverged run, one stopped halfway."""
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(HOMES / "first.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # from Python 3.11.4 on
        archive.extractall(folder)
    return Home.at(folder / "home")


def points(home: Home, sweep: SweepId) -> set[tuple[str, str, int, float, str]]:
    with closing(Records.open(home.ledger)) as records:
        found = records.points(sweep)
    return set(zip(found.key, found.name, found.step, found.time_s, map(repr, found.value), strict=True))


def members(home: Home, sweep: SweepId) -> list[MemberRow]:
    with closing(Records.open(home.ledger)) as records:
        return records.members(sweep)


def test_an_old_home_is_verified_and_its_answers_are_read(home: Home, typed: Callable[..., Typed]) -> None:
    assert check(home.ledger, home.storage) == []
    assert [row.status for row in members(home, DONE)] == ["done", "done"]
    assert [row.status for row in members(home, DIVERGED)] == ["done", "diverged"]
    assert [row.status for row in members(home, STOPPED)] == ["planned", "planned"]
    for sweep in (DONE, DIVERGED):
        front = home.path / f"{sweep.label}.csv"
        words = ["pareto", sweep.name, "--scale", "smoke", "--as", sweep.label, "--home", home.path]
        assert typed(*words, "--csv", front).code == 0
        assert answers(front) == answers(home.exports / f"{sweep}.csv")


def answers(path: Path) -> list[dict[str, str]]:
    """The means of a front, by draw."""
    with path.open(newline="") as file:
        return [
            {name: row[name] for name in ("recon_error", "factor_vae_score", "numerics", "num_diverged")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.system
def test_a_sweep_that_was_stopped_then_goes_on_where_it_stood(
    home: Home, typed: Callable[..., Typed], cluster: str
) -> None:
    before = points(home, STOPPED)
    stood = {row.key: row.step for row in members(home, STOPPED)}
    assert all(0 < step < 8000 for step in stood.values())
    sets = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    words = [STOPPED.name, "--scale", "smoke", "--as", STOPPED.label, *sets, "--seeds", "0"]
    ran = typed("run", *words, "--home", home.path, "--address", cluster)
    assert ran.code == 0, ran.err
    assert before < points(home, STOPPED)
    assert [(row.status, row.step) for row in members(home, STOPPED)] == [("done", 8000)] * 2
    with closing(Records.open(home.ledger)) as records:
        (attempts,) = records.db.execute("SELECT COUNT(*) FROM attempts WHERE number > 6").fetchone()
        started = records.db.execute("SELECT MIN(start_step) FROM blocks WHERE attempt > 6").fetchone()
    assert attempts
    assert started[0] == min(stood.values()), "nothing is trained again"
    assert check(home.ledger, home.storage) == []
