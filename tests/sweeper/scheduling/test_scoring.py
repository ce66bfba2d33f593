"""Metrics that change their version: finished runs are scored anew, and old and new are never read as one."""

import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from sweeper.analysis import results
from sweeper.figures.curves_data import curves
from sweeper.figures.selection import Asked
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import check
from sweeper.ledger.writer import Ledger
from sweeper.scheduling import scoring
from tests.sweeper.analysis import test_results
from tests.sweeper.analysis.test_results import GAMMA, Outcomes, gamma, train
from tests.sweeper.figures.test_factor_matching import grid
from tests.sweeper.figures.test_paper import keep
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.layout import Layout
from trainables.metric_identity import identities, identity, is_current
from trainables.metrics import mig

OBJECTIVES = ("recon_error", "mig")
OUTCOMES: Outcomes = {gamma(1.0): {0: (1.0, 0.5), 1: (2.0, 0.625)}, gamma(10.0): {0: (2.0, 0.25)}}
NUM_IMAGES = len(grid())


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """Runs with the estimators of today, and the encodings that finished runs keep."""
    monkeypatch.setattr(test_results, "settings", identity)
    # Threads see the version that a test sets; the processes of a user see that of the file.
    monkeypatch.setattr(scoring, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        train(ledger, GAMMA, OUTCOMES, objectives=OBJECTIVES, images=NUM_IMAGES)
        keep(ledger, GAMMA)
        yield ledger


def evaluate(ledger: Ledger) -> str:
    return scoring.evaluate(ledger, GAMMA, ["mig"], Console(quiet=True))


def migs(
    ledger: Ledger, table: Callable[[Records, SweepId], pd.DataFrame] = results.run_table
) -> dict[Hashable, Any]:
    """Values of the metric by full name."""
    runs = table(ledger.records, GAMMA)
    rows = runs[runs["metric"] == "mig"]
    assert not rows.duplicated(["run_key", "step"]).any()
    return rows.groupby("metric_settings")["value"].agg(list).to_dict()


def test_a_metric_of_a_newer_version_takes_the_place_of_the_old_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = identity("mig", NUM_IMAGES)
    assert migs(ledger) == {old: [0.5, 0.625, 0.25]}
    assert evaluate(ledger) == "0 runs scored, 3 had mig before."
    monkeypatch.setattr(mig, "VERSION", mig.VERSION + 1)
    assert migs(ledger) == {old: [0.5, 0.625, 0.25]}, "comparable among themselves until they are scored anew"
    assert evaluate(ledger) == "3 runs scored, 0 had mig before."
    assert migs(ledger) == {identity("mig", NUM_IMAGES): [1.0] * 3}
    assert check(ledger.path, ledger.storage) == []


def test_runs_scored_in_two_ways_are_refused_until_they_are_scored_alike(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mig, "VERSION", mig.VERSION + 1)
    train(ledger, GAMMA, {gamma(10.0): {1: (2.0, 0.75)}}, objectives=OBJECTIVES, images=NUM_IMAGES)
    runs = results.run_table(ledger.records, GAMMA)
    with pytest.raises(InputError, match=r"mig\(v1, .*mig\(v2, (.|\n)*evaluate NAME --metric mig"):
        results.draw_table(runs, OBJECTIVES)
    assert evaluate(ledger) == "3 runs scored, 1 had mig before."
    draws, _ = results.draw_table(results.run_table(ledger.records, GAMMA), OBJECTIVES)
    assert draws["mig"].tolist() == [1.0, 0.875]


def test_parts_of_a_metric_are_told_apart_as_the_metric_is(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts() -> tuple[set[float], set[str]]:
        runs = results.run_table(ledger.records, GAMMA)
        rows = runs[runs["metric"].str.startswith("mig/") & (runs["status"] == "done")]
        return set(rows["value"]), set(rows["metric_settings"])

    monkeypatch.setattr(mig, "VERSION", 2)
    evaluate(ledger)
    assert parts() == ({1.0}, {identity("mig", NUM_IMAGES)})
    whole = mig.score
    monkeypatch.setattr(mig, "VERSION", 3)
    monkeypatch.setattr(mig, "score", lambda *given: {name: v / 2 for name, v in whole(*given).items()})
    evaluate(ledger)
    assert parts() == ({0.5}, {identity("mig", NUM_IMAGES)})


def test_an_interrupt_does_not_wait_for_what_is_being_scored() -> None:
    begun: list[Future[None]] = []

    def interrupted() -> None:
        with scoring._processes() as pool:
            begun.extend(pool.submit(time.sleep, 600.0) for _ in range(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(future.cancelled() or future.exception() for future in begun)
    # One that another thread has waited for may still be listed.
    assert not any(Path(f"/proc/{process.pid}").exists() for process in active_children())


def test_a_damaged_encoding_is_named_when_all_others_are_scored(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = ledger.records.slices(ledger.records.members(GAMMA)[1].key, "encoding")[0]
    path = Layout(ledger.storage).manifest(stored.attempt, stored.index).with_name(stored.slice.file)
    before = path.read_bytes()
    content = bytearray(before)
    content[stored.slice.offset + 100] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(mig, "VERSION", mig.VERSION + 1)
    for _ in range(2):
        with pytest.raises(DamagedBlockError, match=str(path)):
            evaluate(ledger)
        found = ledger.records.points(GAMMA)
        assert (
            list(zip(found.name, found.identity, strict=True)).count(("mig", identity("mig", NUM_IMAGES)))
            == 2
        )
        assert len(migs(ledger)) == 1, "the older values of all remain, and compare"
    path.write_bytes(before)
    evaluate(ledger)
    assert migs(ledger) == {identity("mig", NUM_IMAGES): [1.0] * 3}


def test_a_curve_stays_what_it_was_when_its_end_is_scored_anew(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = identity("mig", NUM_IMAGES)
    before = migs(ledger, results.curve_table)
    monkeypatch.setattr(mig, "VERSION", mig.VERSION + 1)
    evaluate(ledger)
    assert migs(ledger, results.curve_table) == before == {old: [10.5, 0.5, 10.625, 0.625, 10.25, 0.25]}
    (column,) = curves(Asked.of(ledger.records, [GAMMA]), ["mig"]).columns
    assert column.lines[0][0].mean_T.tolist() == [10.5625, 0.5625]


def test_a_curve_of_two_estimators_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mig, "VERSION", mig.VERSION + 1)
    later = {gamma(1.0): {2: (1.0, 0.5), 3: (1.0, 0.5), 4: (1.0, 0.5), 5: (1.0, 0.5)}}
    train(ledger, GAMMA, later, objectives=OBJECTIVES, images=NUM_IMAGES)
    evaluate(ledger)
    asked = Asked.of(ledger.records, [GAMMA])
    with pytest.raises(InputError, match=r"mig\(v1, .*mig\(v2, (.|\n)*--metrics other than mig"):
        curves(asked, ["mig"])
    assert curves(asked, ["recon_error"]).columns


def test_an_estimator_is_current_on_any_number_of_images() -> None:
    found = identities(["mig", "mig/scale", "train/loss", "kl/dim_0"], 7)
    assert found == {
        "mig": identity("mig", 7),
        "mig/scale": identity("mig", 7),
        "kl/dim_0": identity("kl", 7),
    }
    assert all(is_current(name, full) for name, full in found.items())
    assert not is_current("mig", identity("sap", 7))
    assert not is_current("mig", "")
    assert not is_current("gone", "gone(v1, images=7)")
