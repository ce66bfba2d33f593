"""The benchmark of commands in a large home, at a small size."""

from contextlib import closing
from pathlib import Path

import pytest

from benchmarks import size
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import check
from tests.sweeper.lent_probe import Lender


def test_a_home_is_made_whose_runs_are_done_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    lender.lend(monkeypatch)
    home = Home.at(tmp_path)
    size.make(home, 10)
    assert capsys.readouterr().err == "10 of 10 runs\n"
    with closing(Records.open(home.ledger)) as records:
        sweep = SweepId(size.NAME, size.SCALE)
        assert records.counts(sweep) == {"done": 10}
        assert len(records.points(sweep).key) == 10 * size.NUM_EVALUATIONS * len(size.METRICS)
    assert check(home.ledger, home.storage) == []
    found = size.timed(["status"], tmp_path)
    assert found["exit_code"] == 0
    assert found["seconds"] > 0.1
    assert 20 < found["memory_mib"] < 200
