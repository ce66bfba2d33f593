"""Queries over many runs give what a query for each run would."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.ledger.reader import Records
from sweeper.ledger.rows import Standing, SweepId
from sweeper.ledger.writer import Ledger
from tests.sweeper.ledger.toy_pack import BAD_STEP, HORIZON, KEYS, SWEEP, begin, finish, register, rows


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """A ledger with runs that are done, one that diverged, one that is half trained, and one that another sweep trained further."""
    home = tmp_path_factory.mktemp("home")
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        register(ledger, KEYS)
        finish(ledger)
        register(ledger, [*KEYS, "e", "f"], sweep=SweepId("toy", "smoke", "wider"))
        pack = begin(ledger, ["e"])
        ledger.take(pack.commit())
        register(ledger, ["a"], horizon=2 * HORIZON, sweep=SweepId("toy", "smoke", "longer"))
        pack = begin(ledger, ["a"], horizon=2 * HORIZON)
        ledger.take(pack.commit())
    with closing(Records.open(home / "ledger.db")) as records:
        yield records


def test_last_points_are_the_points_at_the_horizon(records: Records) -> None:
    found = [row for row in rows(records.points(SWEEP)) if row[2] == HORIZON]
    assert found
    assert rows(records.last_points(SWEEP)) == found


def test_what_is_computed_at_a_step_is_what_the_points_say(records: Records) -> None:
    horizons = {"a": HORIZON, "b": 20, "bad c": 20, "d": 15, "e": HORIZON}
    points = {key: records.run_points(key) for key in horizons}
    for names in (["score"], ["loss", "score"], []):
        expected = {
            key: {
                (name, identity)
                for name, identity, step in zip(p.name, p.identity, p.step, strict=True)
                if step == horizons[key] and name in names
            }
            for key, p in points.items()
        }
        assert records.computed(horizons, names) == expected
    assert records.computed(horizons, ["score"])["a"] == {("score", "score(n=10)")}


def test_standing_is_of_the_runs_that_are_known(records: Records) -> None:
    assert records.standing(["a", "bad c", "e", "f", "nobody"]) == {
        "a": Standing(HORIZON + 10, None),
        "bad c": Standing(BAD_STEP, BAD_STEP),
        "e": Standing(10, None),
        "f": Standing(0, None),
    }
    assert records.standing([]) == {}


def test_a_draws_parameters_and_a_runs_specification_are_those_that_were_registered(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        register(ledger, KEYS)
        members = ledger.records.members(SWEEP)
    assert [dict(row.params) for row in members] == [{"gamma": 0.0}] * 2 + [{"gamma": 0.25}] * 2
    assert [row.spec["fields"] for row in members] == [{"key": key} for key in KEYS]
