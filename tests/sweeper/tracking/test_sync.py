"""The projection into a real MLflow store, of ledgers built from real blocks."""

import contextlib
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.analysis.pareto import mean_interval
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import rebuild
from sweeper.ledger.writer import Draw, Ledger, Member
from sweeper.tracking import process, worker
from sweeper.tracking.artifacts import artifacts
from sweeper.tracking.outline import outline
from sweeper.tracking.store import HeldError, Store, UndeliveredError
from sweeper.tracking.sync import lock_projection
from tests.specs import run_spec, sweep_spec
from tests.sweeper import here
from trainables.blocks import Manifest, Point, RunEntry, Status, pack_arrays, write_block
from trainables.config import StoredSpec
from trainables.errors import InputError, UnknownNameError

SWEEP = SweepId("factorvae_gamma", "smoke")
SPEC = sweep_spec(question="Does it disentangle?", note="Numbers mean nothing.")
HORIZON = 40
DEAD = "http://127.0.0.1:9"
IDENTITY = "factor_vae_score(v1, images=64)"


def spec_of(gamma: float, seed: int) -> StoredSpec:
    fields = {"gamma": gamma, "vae.latent_dim": 3}
    return run_spec("factor_vae", fields=fields, seed=seed)


def key_of(gamma: float, seed: int) -> str:
    return f"key {gamma} {seed}"


def register(
    ledger: Ledger,
    gammas: tuple[float, ...] = (1.0, 10.0),
    seeds: tuple[int, ...] = (0, 1),
    horizon: int = HORIZON,
    sweep: SweepId = SWEEP,
) -> None:
    draws = [
        Draw(
            number,
            {"gamma": gamma},
            tuple(Member(key_of(gamma, seed), seed, horizon, spec_of(gamma, seed)) for seed in seeds),
        )
        for number, gamma in enumerate(gammas)
    ]
    ledger.register_sweep(sweep, SPEC, draws)


def value(key: str, name: str, step: int) -> float:
    return random.Random(f"{key} {name} {step}").uniform(-1, 1)


def points(key: str, start: int, end: int, begun_s: float = 1e9) -> list[Point]:
    """Training statistics every 5 steps, an evaluation every 20."""
    names = [(5, ("train/loss",)), (20, ("recon_error", "factor_vae_score", "kl/dim_0"))]
    return [
        Point(key, step, begun_s + step / 8, name, value(key, name, step))
        for step in range(start + 1, end + 1)
        for every, reported in names
        for name in reported
        if step % every == 0
    ]


def pictures(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {"inputs": (8, 1, 5, 4), "reconstructions": (8, 1, 5, 4), "traversal": (3, 7, 1, 5, 4)}
    return {name: generator.integers(0, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}


def work(
    ledger: Ledger,
    keys: Sequence[str],
    start: int,
    end: int,
    horizon: int = HORIZON,
    found: Sequence[Point] | None = None,
    bad: Collection[str] = (),
    numerics: str = "toy",
    identity: str = IDENTITY,
    has_pictures: bool = False,
) -> None:
    """One attempt at a pack that commits one block and ends; with pictures, MLflow is given two files for each draw."""
    number = ledger.begin_attempt(keys)
    specs = {row.key: row for sweep in ledger.records.sweeps() for row in ledger.records.members(sweep)}
    entries = []
    for key in keys:
        status: Status = "diverged" if key in bad else "done" if end == horizon else "running"
        step, first_bad = (end - 1, end - 1) if key in bad else (end, None)
        entries.append(RunEntry(key, specs[key].seed, status, step, horizon, specs[key].spec, first_bad))
    blobs = {
        key: {
            "state": b"s",
            **(
                {"pictures": pack_arrays(pictures(specs[key].seed))}
                if has_pictures and end == horizon
                else {}
            ),
        }
        for key in keys
    }
    given = found if found is not None else [p for key in keys for p in points(key, start, end)]
    manifest = Manifest(
        attempt=number,
        index=0,
        start_step=start,
        end_step=end,
        numerics=numerics,
        code_version="1",
        written_at_s=2e9 + end,
        train_s=1.0,
        runs=tuple(entries),
        points=tuple(p for p in given if p.key not in bad or p.step < end - 1),
        metric_identities={"factor_vae_score": identity},
    )
    ledger.take(write_block(ledger.storage, manifest, blobs))
    ledger.end_attempt(number, "done")


KEYS = [key_of(gamma, seed) for gamma in (1.0, 10.0) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def _deliver_here(monkeypatch: pytest.MonkeyPatch) -> None:
    here.deliver_here(monkeypatch)


@pytest.fixture
def home(tmp_path: Path, empty_store: Path) -> Home:
    home = Home.at(tmp_path / "home")
    home.path.mkdir()
    shutil.copyfile(empty_store, home.mlflow)
    return home


@pytest.fixture
def ledger(home: Home) -> Iterator[Ledger]:
    with Ledger(home.ledger, home.storage) as ledger:
        register(ledger)
        yield ledger


@dataclass
class Seen:
    """An MLflow run as its tables have it."""

    run_id: str
    name: str
    status: str
    start_ms: int
    end_ms: int
    tags: dict[str, str]
    params: dict[str, str]
    points: list[tuple[str, int, int, float | None]]


def query(home: Home, text: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(home.mlflow)) as db:
        return db.execute(text).fetchall()


def seen(home: Home, experiment: str = "factorvae_gamma smoke") -> dict[str, Seen]:
    """Active runs by the entry that they stand for; each is there once."""
    found = {}
    for run_id, name, status, start_ms, end_ms in query(
        home,
        "SELECT run_uuid, runs.name, status, start_time, end_time FROM runs JOIN experiments USING (experiment_id)"
        f" WHERE experiments.name = '{experiment}' AND runs.lifecycle_stage = 'active'",
    ):
        tags = dict(query(home, f"SELECT key, value FROM tags WHERE run_uuid = '{run_id}'"))
        params = dict(query(home, f"SELECT key, value FROM params WHERE run_uuid = '{run_id}'"))
        rows = query(
            home,
            f"SELECT key, step, timestamp, CASE WHEN is_nan THEN NULL ELSE value END FROM metrics"
            f" WHERE run_uuid = '{run_id}'",
        )
        assert tags["sweeper.entry"] not in found
        found[tags["sweeper.entry"]] = Seen(
            run_id, name, status, start_ms, end_ms, tags, params, sorted(rows)
        )
    return found


def everything(home: Home) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the tables that a projection writes, but times of change and identities of experiments."""
    tables = ("experiments", "runs", "metrics", "latest_metrics", "params", "tags")
    return {table: sorted(query(home, f"SELECT * FROM {table}"), key=repr) for table in tables}


def expected_points(
    keys: Sequence[str] = KEYS, end: int = HORIZON
) -> dict[str, list[tuple[str, int, int, float]]]:
    return {
        key: sorted((p.name, p.step, round(p.time_s * 1000), p.value) for p in points(key, 0, end))
        for key in keys
    }


def run_points(home: Home) -> dict[str, list[tuple[str, int, int, float | None]]]:
    return {
        run.tags["sweeper.run_key"]: run.points
        for run in seen(home).values()
        if "sweeper.run_key" in run.tags
    }


def artifact_folder(home: Home, run: Seen) -> Path:
    return home.path / "mlartifacts" / str(SWEEP) / run.run_id / "artifacts"


def test_a_finished_sweep_has_three_levels_with_all_that_was_committed(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 20)
    work(ledger, KEYS, 20, 40, has_pictures=True)
    worker.deliver(home, None)
    found = seen(home)
    draws = ["draw 0", "draw 1"]
    runs = [f"draw {n} run {key_of(gamma, seed)}" for n, gamma in enumerate((1.0, 10.0)) for seed in (0, 1)]
    assert set(found) == {"sweep", *draws, *runs}
    assert "mlflow.parentRunId" not in found["sweep"].tags
    assert {found[draw].tags["mlflow.parentRunId"] for draw in draws} == {found["sweep"].run_id}
    for run in runs:
        assert found[run].tags["mlflow.parentRunId"] == found[run[:6]].run_id
    assert [found[entry].name for entry in ("sweep", *draws, runs[3])] == [
        *("factorvae_gamma smoke", "gamma=1", "gamma=10", "seed 1, gamma=10"),
    ]
    assert {run.status for run in found.values()} == {"FINISHED"}
    assert run_points(home) == expected_points()
    one = found[runs[3]]
    assert one.params == {
        "model": "factor_vae",
        "data": "sprites",
        "precision": "fp32",
        "recipe": "sprites (rendered v1)",
        "seed": "1",
        "gamma": "10.0",
        "vae.latent_dim": "3",
    }
    assert found["draw 1"].params == {"gamma": "10.0"}
    shown = {name.removeprefix("sweeper."): text for name, text in one.tags.items()}
    assert shown["run_key"] == key_of(10.0, 1)
    assert (shown["seed"], shown["numerics"], shown["code_version"]) == ("1", "toy", "1")
    assert (shown["status"], shown["step"]) == ("done", "40")
    assert shown["metric.factor_vae_score"] == IDENTITY
    assert found["sweep"].tags["mlflow.note.content"] == "Does it disentangle? Numbers mean nothing."
    (started_s,) = {round(row.started_at_s * 1000) for row in ledger.records.attempts()[:1]}
    assert (one.start_ms, one.end_ms) == (started_s, 2_000_000_040_000)
    assert worker.compare(home, None) == []
    assert process.pending(home, None) == 0


def test_a_draw_has_the_mean_of_its_seeds_and_at_the_end_its_interval(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    worker.deliver(home, None)
    found = {(name, step): (time_ms, value) for name, step, time_ms, value in seen(home)["draw 1"].points}
    for name in ("recon_error", "factor_vae_score"):
        for step in (20, 40):
            mean = np.mean([value(key, name, step) for key in KEYS[2:]])
            assert found[name, step][0] == round((1e9 + step / 8) * 1000) + 2
            assert found[name, step][1] == pytest.approx(mean)
        interval = mean_interval(np.array([value(key, name, 40) for key in KEYS[2:]]))
        assert found[f"{name}_lower", 40][1] == pytest.approx(float(interval.lower))
        assert found[f"{name}_upper", 40][1] == pytest.approx(float(interval.upper))
    assert {name for name, _ in found if "/" in name} == set()
    assert len(found) == 2 * 2 + 2 * 2 + 2
    assert found["num_seeds", 40][1] == 2


def test_statuses_follow_the_ledger(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:1], 0, 40)
    work(ledger, KEYS[1:2], 0, 40, bad=KEYS[1:2])
    failed = ledger.begin_attempt(KEYS[2:3])
    ledger.end_attempt(failed, "failed")
    ledger.record_failure(KEYS[2], failed, "out of memory", "too large")
    running = ledger.begin_attempt(KEYS[3:])
    worker.deliver(home, None)
    found = seen(home)
    statuses = {
        run.tags["sweeper.run_key"]: run.status for run in found.values() if "sweeper.run_key" in run.tags
    }
    assert statuses == dict(zip(KEYS, ["FINISHED", "FAILED", "FAILED", "RUNNING"], strict=True))
    shown = [found[f"draw {i // 2} run {key}"].tags for i, key in enumerate(KEYS)]
    assert [tags["sweeper.status"] for tags in shown] == ["done", "diverged", "failed", "running"]
    assert shown[1]["sweeper.first_bad_step"] == "39"
    assert shown[2]["sweeper.failure"] == "out of memory: too large"
    assert [found[entry].status for entry in ("sweep", "draw 0", "draw 1")] == [
        "RUNNING",
        "FINISHED",
        "RUNNING",
    ]
    assert {step for name, step, *_ in found["draw 0"].points if name == "recon_error"} == {20}
    assert worker.compare(home, None) == []
    ledger.end_attempt(running, "lost")
    work(ledger, KEYS[2:], 0, 20)
    worker.deliver(home, None)
    assert {entry: run.status for entry, run in seen(home).items() if "draw 1" in entry} == dict.fromkeys(
        ["draw 1", f"draw 1 run {KEYS[2]}", f"draw 1 run {KEYS[3]}"], "SCHEDULED"
    )
    assert seen(home)[f"draw 1 run {KEYS[2]}"].tags["sweeper.failure"] == "none"
    assert worker.compare(home, None) == []


def test_what_has_not_begun_is_not_shown(home: Home, ledger: Ledger) -> None:
    worker.deliver(home, None)
    assert query(home, "SELECT COUNT(*) FROM runs") == [(0,)]
    work(ledger, KEYS[:1], 0, 20)
    worker.deliver(home, None)
    assert set(seen(home)) == {"sweep", "draw 0", f"draw 0 run {KEYS[0]}"}


def test_projecting_again_changes_nothing_and_following_adds_only_what_is_new(
    home: Home, ledger: Ledger
) -> None:
    for start in range(0, 40, 10):
        work(ledger, KEYS[:2], start, start + 10)
        assert process.pending(home, None) >= 3
        worker.deliver(home, None)
        assert process.pending(home, None) == 0
        before = everything(home)
        worker.deliver(home, None)
        assert everything(home) == before
    process.delivery_record(home).unlink()
    assert process.pending(home, None) == 4
    worker.deliver(home, None)
    assert everything(home) == before
    process.delivery_record(home).write_bytes(b"no database at all" * 100)
    worker.deliver(home, None)
    assert everything(home) == before
    assert process.pending(home, None) == 0


@pytest.mark.system
def test_killed_at_any_moment_and_begun_again_it_delivers_everything_once(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40, has_pictures=True)
    generator = random.Random(0)
    began_s = time.monotonic()
    kill_after(home, None)
    whole_s = time.monotonic() - began_s
    before = everything(home)
    for _ in range(3):
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            with contextlib.closing(sqlite3.connect(home.mlflow)) as db:
                db.execute(f"DELETE FROM {table}")
                db.commit()
        num_kills = 0
        while num_kills < 4:
            num_kills += kill_after(home, generator.uniform(0, whole_s / 2))
            found = seen(home)
            if "sweep" in found and found["sweep"].status == "FINISHED":
                assert run_points(home) == expected_points()
            if generator.random() < 0.3:
                process.delivery_record(home).unlink(missing_ok=True)
        assert kill_after(home, None) == 0
        assert run_points(home) == expected_points()
        assert {table: len(rows) for table, rows in everything(home).items()} == {
            table: len(rows) for table, rows in before.items()
        }
        assert len(seen(home)) == 7
    assert worker.compare(home, None) == []


def kill_after(home: Home, delay_s: float | None, is_anew: bool = False) -> int:
    """Project in another process and kill it after a while, or let it end; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            worker.deliver(home, None, is_anew=is_anew)
            os._exit(0)
        os._exit(1)
    if delay_s is not None:
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return int(status == signal.SIGKILL)


@pytest.mark.parametrize("is_seen_half_way", [True, False])
def test_a_seed_added_later_replaces_the_means_by_later_ones(
    home: Home, ledger: Ledger, is_seen_half_way: bool
) -> None:
    work(ledger, KEYS[:2], 0, 40)
    worker.deliver(home, None)
    old = seen(home)["draw 0"]
    assert old.tags["sweeper.num_seeds"] == "2"
    register(ledger, seeds=(0, 1, 2))
    added = [key_of(1.0, 2)]
    # It was trained at the same time as the others, so only the number of seeds dates the new means later.
    work(ledger, added, 0, 20)
    if is_seen_half_way:
        worker.deliver(home, None)
        assert seen(home)["draw 0"].status == "SCHEDULED"
    work(ledger, added, 20, 40)
    worker.deliver(home, None)
    draw = seen(home)["draw 0"]
    keys = [key_of(1.0, seed) for seed in range(3)]
    assert (draw.run_id, draw.tags["sweeper.num_seeds"], draw.status) == (old.run_id, "3", "FINISHED")
    for name in ("recon_error", "factor_vae_score"):
        mean = np.mean([value(key, name, 40) for key in keys])
        (last,) = query(
            home, f"SELECT value FROM latest_metrics WHERE run_uuid = '{draw.run_id}' AND key = '{name}'"
        )
        assert last == (pytest.approx(mean),)
        assert len([row for row in draw.points if row[0] == name]) == 4
    assert len(seen(home)) == 1 + 1 + 3
    assert worker.compare(home, None) == []


def test_a_longer_horizon_adds_points_and_those_beyond_it_are_not_shown(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:2], 0, 40)
    register(ledger, horizon=80, sweep=SweepId("factorvae_gamma", "smoke", "long"))
    work(ledger, KEYS[:2], 40, 80, horizon=80)
    worker.deliver(home, None)
    assert run_points(home) == expected_points(KEYS[:2])
    assert {run.tags.get("sweeper.step", "40") for run in seen(home).values()} == {"40"}
    long = seen(home, "factorvae_gamma smoke long")
    assert {max(row[1] for row in run.points) for run in long.values() if run.points} == {80}
    register(ledger, horizon=80)
    worker.deliver(home, None)
    assert run_points(home) == expected_points(KEYS[:2], end=80)
    assert worker.compare(home, None) == []


def test_values_that_are_not_finite_are_nan(home: Home, ledger: Ledger) -> None:
    odd = {0: math.nan, 1: math.inf, 2: -math.inf, 3: 1.0}
    found = [Point(key, 20, 1e9, "factor_vae_score", odd[i]) for i, key in enumerate(KEYS)]
    work(ledger, KEYS, 0, 20, found=found)
    for _ in range(2):
        worker.deliver(home, None)
        process.delivery_record(home).unlink()
    assert [run_points(home)[key][0][3] for key in KEYS] == [None, None, None, 1.0]
    assert [row[3] for row in seen(home)["draw 0"].points if row[0] == "factor_vae_score"] == [None]
    assert query(home, "SELECT COUNT(*) FROM metrics") == [(4 + 2 + 2,)]
    assert worker.compare(home, None) == []


def test_more_points_than_one_request_takes_arrive_whole(home: Home, ledger: Ledger) -> None:
    found = [Point(KEYS[0], 1 + i // 30, 1e9, f"metric {i % 30}", float(i)) for i in range(1050)]
    work(ledger, KEYS[:1], 0, 40, found=found)
    worker.deliver(home, None)
    assert len(run_points(home)[KEYS[0]]) == 1050
    assert worker.compare(home, None) == []


def test_a_metric_computed_in_another_way_gets_another_name(home: Home, ledger: Ledger) -> None:
    def scores(step: int, time_s: float) -> list[Point]:
        return [Point(key, step, time_s, "factor_vae_score", float(step)) for key in KEYS[:2]]

    work(ledger, KEYS[:2], 0, 20, found=scores(20, 1e9))
    worker.deliver(home, None)
    work(ledger, KEYS[:2], 20, 30, found=scores(30, 1e9 + 1), identity="factor_vae_score(v2)")
    worker.deliver(home, None)
    run = seen(home)[f"draw 0 run {KEYS[0]}"]
    (new,) = {name for name, *_ in run.points} - {"factor_vae_score"}
    assert run.tags["sweeper.metric.factor_vae_score"] == IDENTITY
    assert run.tags[f"sweeper.metric.{new}"] == "factor_vae_score(v2)"
    assert [(name, step) for name, step, *_ in run.points] == [("factor_vae_score", 20), (new, 30)]
    assert {name for name, *_ in seen(home)["draw 0"].points} == {"factor_vae_score", new, "num_seeds"}
    assert worker.compare(home, None) == []


def test_a_metric_that_is_computed_afterwards_arrives_too(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:1], 0, 20)
    worker.deliver(home, None)
    work(ledger, KEYS[:1], 20, 40, found=[Point(KEYS[0], step, 2e9, "mig", 0.5) for step in (10, 40)])
    worker.deliver(home, None)
    work(ledger, KEYS[:1], 40, 40, found=[Point(KEYS[0], 40, 2e9, "sap", 0.6)])
    worker.deliver(home, None)
    added = [("mig", 10, 2 * 10**12, 0.5), ("mig", 40, 2 * 10**12, 0.5), ("sap", 40, 2 * 10**12, 0.6)]
    assert run_points(home)[KEYS[0]] == sorted(expected_points(KEYS[:1], 20)[KEYS[0]] + added)


def test_a_draw_shows_pictures_of_its_best_seed_and_the_sweep_its_front(home: Home, ledger: Ledger) -> None:
    other = SweepId("betavae_beta", "smoke")
    register(ledger, gammas=(7.0,), sweep=other)
    export(ledger, home.exports / f"{SWEEP}.csv", "a,b\n", NEWEST_S)
    work(ledger, KEYS, 0, 20)
    worker.deliver(home, None)
    draw, sweep = seen(home)["draw 0"], seen(home)["sweep"]
    assert not artifact_folder(home, draw).exists()
    work(ledger, KEYS, 20, 40, has_pictures=True)
    export(ledger, home.exports / "both.csv", "both\n", NEWEST_S, SWEEP, other)
    export(ledger, home.exports / f"{SWEEP}.csv", "a,b\n1,2\n", NEWEST_S)
    export(ledger, home.exports / "betavae_beta-smoke.csv", "other\n", NEWEST_S, other)
    (home.exports / f"{SWEEP}+not_ours.csv").write_text("named alike")
    worker.deliver(home, None)
    assert sorted(path.name for path in artifact_folder(home, draw).iterdir()) == [
        "reconstructions.png",
        "traversal.png",
    ]
    for path in artifact_folder(home, draw).iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
    kept = {path.name: path.read_text() for path in artifact_folder(home, sweep).iterdir()}
    assert kept == {f"{SWEEP}.csv": "a,b\n1,2\n", "both.csv": "both\n"}
    records = Records.open(home.ledger)
    shown = outline(records, home, SWEEP)
    found = artifacts(records, home.storage, shown, next(e for e in shown.entries if e.id == "draw 0"))
    best = max((0, 1), key=lambda seed: value(key_of(1.0, seed), "factor_vae_score", 40))
    assert [f"seed {best}: the best of 2 by factor_vae_score" in one.stamp for one in found] == [True, True]
    records.close()


def hidden_pictures(home: Home) -> list[tuple[Path, Path]]:
    """The files of the storage that pictures are made from, moved away."""
    paths = list(home.storage.glob("attempts/*/*.kept"))
    assert paths
    return [(path.rename(path.with_suffix(".hidden")), path) for path in paths]


def test_an_entry_whose_picture_cannot_be_made_stays_pending_until_it_can(
    home: Home, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    work(ledger, KEYS, 0, 40, has_pictures=True)
    hidden = hidden_pictures(home)
    for _ in range(2):
        with pytest.raises(UndeliveredError) as caught:
            worker.deliver(home, None)
        lines = str(caught.value).splitlines()
        assert sorted(line.partition(" for ")[0] for line in lines) == [
            *("Cannot make reconstructions.png",) * 2,
            *("Cannot make traversal.png",) * 2,
        ]
        assert all(f"for {SWEEP}, draw " in line and ".kept is missing" in line for line in lines)
        assert process.pending(home, None) == process.run_sync(home, None) == 2
    assert "Cannot make traversal.png" in capsys.readouterr().err
    assert run_points(home) == expected_points()
    lines = worker.compare(home, None)
    draws = {name: seen(home)[f"draw {n}"].run_id for n, name in enumerate(("gamma=1", "gamma=10"))}
    assert sorted(lines) == sorted(
        f"{SWEEP}, draw '{name}': {picture}.png is missing in MLflow (run {run_id})."
        for name, run_id in draws.items()
        for picture in ("reconstructions", "traversal")
    )
    for now, then in hidden:
        now.rename(then)
    worker.deliver(home, None)
    assert process.pending(home, None) == 0
    assert worker.compare(home, None) == []


@pytest.mark.system
def test_following_goes_on_past_a_picture_that_cannot_be_made_and_says_so_once(
    home: Home, ledger: Ledger
) -> None:
    work(ledger, KEYS[:2], 0, 40, has_pictures=True)
    hidden_pictures(home)
    requests: list[str] = []
    with served(home, requests.append) as uri, worker._projecting(home, uri, None) as catch_up:
        (first, second) = catch_up()
        requests.clear()
        assert catch_up() == [first, second]
        assert requests == []
        work(ledger, KEYS[2:], 0, 40, has_pictures=True)
        assert catch_up() == [first, second]
    assert run_points(home) == expected_points()
    with process.Projector.start(home, None) as projector:
        projector.deliver()
        assert projector.stop(timeout_s=200) == 1
    assert projector.complaint() == second


def test_a_sync_while_a_projector_is_at_it_disturbs_nothing(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:2], 0, 20)
    with worker._projecting(home, None, None) as catch_up:
        catch_up()
        with pytest.raises(InputError, match="being synced by pid"):
            process.run_sync(home, None, is_anew=True)
        assert process.pending(home, None) == 0
        work(ledger, KEYS[:2], 20, 40)
        assert catch_up() == []
    assert process.pending(home, None) == 0
    assert run_points(home) == expected_points(KEYS[:2])


def test_a_file_that_is_no_database_is_said_in_a_line(
    home: Home, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    work(ledger, KEYS, 0, 40)
    home.mlflow.write_bytes(b"no database at all" * 100)
    assert worker.main([str(home.path), "--once"]) == 3
    said, remedy = capsys.readouterr().err.splitlines()
    assert said == f"MLflow at sqlite:///{home.mlflow}: file is not a database"
    assert remedy.startswith("Nothing is lost.")


def test_a_sync_forgets_only_what_it_is_asked_to_deliver(home: Home, ledger: Ledger) -> None:
    other = SweepId("factorvae_gamma", "smoke", "b")
    register(ledger, sweep=other)
    work(ledger, KEYS[:2], 0, 40)
    worker.deliver(home, None)
    before = everything(home)
    assert process.run_sync(home, DEAD, is_anew=True) == 8
    assert process.pending(home, None) == 0
    Store(home, f"sqlite:///{home.mlflow}").delete(seen(home)["draw 0"].run_id)
    shutil.move(home.mlflow, home.path / "away.db")
    home.mlflow.write_bytes(b"no database at all" * 100)
    assert process.run_sync(home, None, [SWEEP], is_anew=True) == 4
    assert process.pending(home, None) == 4
    shutil.move(home.path / "away.db", home.mlflow)
    assert process.run_sync(home, None, [SWEEP], is_anew=True) == 0
    assert process.pending(home, None) == 0
    assert {run.status for entry, run in seen(home).items() if entry != "sweep"} == {"FINISHED"}
    assert len(everything(home)["metrics"]) == len(before["metrics"]) + len(seen(home)["draw 0"].points)
    assert worker.compare(home, None) == []


@pytest.mark.parametrize("is_killed", [False, True])
def test_points_that_a_rebuilt_ledger_has_not_are_replaced_by_those_it_has(
    home: Home, ledger: Ledger, is_killed: bool
) -> None:
    work(ledger, KEYS, 0, 20)
    work(ledger, KEYS, 20, 40)
    worker.deliver(home, None)
    old = seen(home)
    ledger.close()
    newest = max(home.storage.glob("attempts/*/block-*.json"))
    newest.write_bytes(newest.read_bytes().replace(b"2", b"3", 1))
    home.ledger.unlink()
    assert rebuild(home.ledger, home.storage).problems
    with Ledger(home.ledger, home.storage) as rebuilt:
        # Trained again: one run to another value at the very same time, the others later, one not yet.
        found = [Point(p.key, p.step, p.time_s, p.name, p.value + 1.0) for p in points(KEYS[0], 20, 40)] + [
            p for key in KEYS[1:3] for p in points(key, 20, 40, begun_s=1.5e9)
        ]
        work(rebuilt, KEYS[:3], 20, 40, found=found)
        worker.deliver(home, None)
        lines = worker.compare(home, None)
        assert [sum("points in MLflow that are not in the ledger" in line for line in lines)] == [4], lines
        if is_killed:
            while not kill_after(home, random.random(), is_anew=True):
                pass
        worker.deliver(home, None, is_anew=True)
        assert worker.compare(home, None) == []
        kept = {entry for entry, run in seen(home).items() if run.run_id == old[entry].run_id}
        assert kept == {"sweep"}
        expected = expected_points(end=20)
        for point in found:
            expected[point.key].append((point.name, point.step, round(point.time_s * 1000), point.value))
        assert run_points(home) == {key: sorted(rows) for key, rows in expected.items()}
        before = everything(home)
        worker.deliver(home, None, is_anew=True)
        assert everything(home) == before


def test_a_sync_replaces_what_holds_points_or_runs_that_are_not_committed(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    worker.deliver(home, None)
    old = seen(home)
    client = Store(home, f"sqlite:///{home.mlflow}")._client
    client.log_metric(old[f"draw 0 run {KEYS[0]}"].run_id, "train/loss", 5.0, 123, 3)
    # A mean that a later value hides is wrong; what is noted beside the means hides none.
    client.log_metric(old["draw 1"].run_id, "recon_error", 5.0, 3 * 10**12, 40)
    client.log_metric(old["sweep"].run_id, "mine", 5.0, 123, 3)
    stranger = client.create_run(
        client.get_run(old["sweep"].run_id).info.experiment_id,
        tags=old["draw 0"].tags | {"sweeper.entry": "draw 9"},
    ).info.run_id
    assert len(worker.compare(home, None)) == 3
    worker.deliver(home, None, is_anew=True)
    assert worker.compare(home, None) == []
    replaced = {entry for entry, run in seen(home).items() if run.run_id != old[entry].run_id}
    assert replaced == {"draw 0", "draw 1", f"draw 0 run {KEYS[0]}"}
    assert client.get_run(stranger).info.lifecycle_stage == "deleted"
    assert run_points(home) == expected_points()


def test_a_sync_keeps_a_draw_with_means_of_fewer_seeds(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:2], 0, 40)
    worker.deliver(home, None)
    old = seen(home)["draw 0"]
    register(ledger, seeds=(0, 1, 2))
    added = [key_of(1.0, 2)]
    for start in (0, 20):
        work(ledger, added, start, start + 20)
        worker.deliver(home, None, is_anew=True)
        assert worker.compare(home, None) == []
        assert seen(home)["draw 0"].run_id == old.run_id


NEWEST_S = 2e9 + 40
"""When `work` writes the blocks that end at step 40."""


def export(ledger: Ledger, path: Path, text: str, changed_at_s: float, *sweeps: SweepId) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (changed_at_s, changed_at_s))
    ledger.record_export(path, "front", sweeps or [SWEEP])


@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_answer_to_two_sweeps_goes_once_one_of_them_has_newer_blocks(
    home: Home, ledger: Ledger, is_recorded: bool
) -> None:
    beta, longer = SweepId("betavae_beta", "smoke"), SweepId("factorvae_gamma", "smoke", "long")
    register(ledger, gammas=(7.0,), seeds=(0,), sweep=beta)
    work(ledger, [*KEYS[:2], key_of(7.0, 0)], 0, 40)
    both = [f"{beta}+{SWEEP}.csv", f"{beta}+{SWEEP}.png", f"{beta}+{SWEEP}_left_out.csv"]
    for name in both:
        export(ledger, home.exports / name, name, NEWEST_S, beta, SWEEP)
    export(ledger, home.exports / f"{SWEEP}.csv", "alone", NEWEST_S)
    # What another sweep adds beyond the horizon says nothing about these.
    register(ledger, horizon=80, sweep=longer)
    work(ledger, KEYS[:1], 40, 80, horizon=80)
    worker.deliver(home, None)
    front = seen(home)["sweep"]
    other = seen(home, "betavae_beta smoke")["sweep"]
    folders = [
        artifact_folder(home, front),
        home.path / "mlartifacts" / str(beta) / other.run_id / "artifacts",
    ]
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [
        sorted([*both, f"{SWEEP}.csv"]),
        sorted(both),
    ]
    (folders[0] / "notes+of mine.txt").write_text("a user's")
    assert worker.compare(home, None) == []
    register(ledger, seeds=(0, 1, 2))
    work(ledger, [key_of(1.0, 2)], 0, 39)
    work(ledger, [key_of(1.0, 2)], 39, 41, horizon=41)
    assert process.pending(home, None, [beta]) == 1
    lines = worker.compare(home, None)
    assert sum(line.endswith(f".csv in MLflow is out of date (run {front.run_id}).") for line in lines) == 2
    assert sum(f"is out of date (run {other.run_id})" in line for line in lines) == 3
    worker.deliver(home, None, is_anew=not is_recorded)
    assert sorted(path.name for path in folders[0].iterdir()) == [f"{SWEEP}.csv", "notes+of mine.txt"]
    assert list(folders[1].iterdir()) == []
    assert worker.compare(home, None) == []
    assert process.pending(home, None) == 0
    export(ledger, home.exports / both[0], "new", NEWEST_S + 1, beta, SWEEP)
    worker.deliver(home, None)
    assert {(folder / both[0]).read_text() for folder in folders} == {"new"}
    assert worker.compare(home, None) == []


def test_files_that_mlflow_lacks_or_has_cut_are_named_and_mended(home: Home, ledger: Ledger) -> None:
    export(ledger, home.exports / f"{SWEEP}.csv", "a,b\n", NEWEST_S)
    work(ledger, KEYS, 0, 40, has_pictures=True)
    worker.deliver(home, None)
    assert worker.compare(home, None) == []
    found = seen(home)
    (artifact_folder(home, found["draw 1"]) / "traversal.png").unlink()
    (artifact_folder(home, found["sweep"]) / f"{SWEEP}.csv").write_text("a")
    assert worker.compare(home, None) == [
        f"{SWEEP}, sweep 'factorvae_gamma smoke': {SWEEP}.csv has 1 bytes in MLflow, but 4 here"
        f" (run {found['sweep'].run_id}).",
        f"{SWEEP}, draw 'gamma=10': traversal.png is missing in MLflow (run {found['draw 1'].run_id}).",
    ]
    worker.deliver(home, None, is_anew=True)
    assert worker.compare(home, None) == []
    assert {entry: run.run_id for entry, run in seen(home).items()} == {
        entry: run.run_id for entry, run in found.items()
    }


def test_two_homes_with_a_sweep_of_one_name_share_an_experiment_and_no_run(
    home: Home, ledger: Ledger, tmp_path: Path
) -> None:
    work(ledger, KEYS[:2], 0, 40)
    worker.deliver(home, None)
    other = Home.at(tmp_path / "other")
    with Ledger(other.ledger, other.storage) as second:
        register(second)
        work(second, KEYS[:2], 0, 40)
        uri = f"sqlite:///{home.mlflow}"
        worker.deliver(other, uri)
        assert worker.compare(other, uri) == []
    assert worker.compare(home, None) == []
    assert query(home, "SELECT COUNT(*) FROM runs") == [(8,)]
    assert len(query(home, "SELECT name FROM experiments WHERE name <> 'Default'")) == 1


def test_only_the_sweeps_asked_for_are_projected(home: Home, ledger: Ledger) -> None:
    other = SweepId("factorvae_gamma", "smoke", "b")
    register(ledger, sweep=other)
    work(ledger, KEYS[:2], 0, 40)
    worker.deliver(home, None, [other])
    assert seen(home) == {}
    assert len(seen(home, "factorvae_gamma smoke b")) == 4
    assert (process.pending(home, None, [other]), process.pending(home, None)) == (0, 4)
    with pytest.raises(UnknownNameError):
        worker.deliver(home, None, [SweepId("factorvae_gamma", "paper")])


def test_what_is_changed_in_mlflow_is_seen_and_mended(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    worker.deliver(home, None)
    found = seen(home)
    gone, doubled, stopped, robbed = (found[f"draw {i // 2} run {key}"] for i, key in enumerate(KEYS))
    draw = found["draw 1"]
    client = Store(home, f"sqlite:///{home.mlflow}")._client
    client.delete_run(gone.run_id)
    experiment = client.get_run(gone.run_id).info.experiment_id
    for _ in range(2):
        client.create_run(experiment, tags=doubled.tags)
    client.set_terminated(stopped.run_id, "KILLED")
    client.set_tag(draw.run_id, "mlflow.parentRunId", "elsewhere")
    with contextlib.closing(sqlite3.connect(home.mlflow)) as db:
        db.execute(f"DELETE FROM metrics WHERE run_uuid = '{robbed.run_id}' AND step = 20")
        db.commit()
    client.log_metric(robbed.run_id, "train/loss", 5.0, 123, 3)
    lines = worker.compare(home, None)
    words = ["': missing in MLflow", "3 copies in MLflow", "KILLED in MLflow, but FINISHED in the ledger"]
    words += [
        "points missing in MLflow: 4 of 14 (",
        "points in MLflow that are not in the ledger: 1 (",
        "not under its parent",
    ]
    for word in words:
        assert len([line for line in lines if word in line]) == 1, (word, lines)
    worker.deliver(home, None)
    left = worker.compare(home, None)
    assert ["points missing in MLflow" in left[0], "not in the ledger" in left[1], len(left)] == [
        True,
        True,
        2,
    ]
    process.delivery_record(home).unlink()
    worker.deliver(home, None)
    (line,) = worker.compare(home, None)
    assert "points in MLflow that are not in the ledger: 1 (" in line
    worker.deliver(home, None, is_anew=True)
    assert worker.compare(home, None) == []


def test_a_deleted_experiment_is_said_to_be_so(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS[:1], 0, 40)
    worker.deliver(home, None)
    client = Store(home, f"sqlite:///{home.mlflow}")._client
    experiment = client.get_experiment_by_name("factorvae_gamma smoke").experiment_id
    client.delete_experiment(experiment)
    with pytest.raises(UndeliveredError, match=f"experiments restore -x {experiment}"):
        worker.deliver(home, None)


def test_a_dead_server_is_given_up_quickly_and_a_live_store_takes_all_later(
    home: Home, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    work(ledger, KEYS[:2], 0, 40)
    began_s = time.monotonic()
    assert worker.main([str(home.path), "--uri", DEAD, "--once"]) == 3
    assert worker.main([str(home.path), "--uri", DEAD, "--verify"]) == 1
    assert time.monotonic() - began_s < 10
    printed = capsys.readouterr()
    assert f"MLflow at {DEAD}: Connection refused\nNothing is lost." in printed.err
    assert f"python -m sweeper sync NAME --home {home.path} --tracking-uri {DEAD}" in printed.err
    assert process.pending(home, DEAD) == 4
    assert worker.main([str(home.path), "--once"]) == 0
    assert (process.pending(home, None), process.pending(home, DEAD)) == (0, 4)
    assert worker.main([str(home.path), "--sweep", str(SWEEP), "--verify"]) == 0
    assert run_points(home) == expected_points(KEYS[:2])


@contextlib.contextmanager
def served(home: Home, spoil: Callable[[str], object]) -> Iterator[str]:
    """MLflow's server on the store of a home; `spoil` is asked whether the answer to a request gets lost."""
    from mlflow.server import app, handlers
    from werkzeug.serving import make_server

    def flaky(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer: Iterable[bytes] = app.wsgi_app(environ, start_response)
        if spoil(environ["PATH_INFO"]):
            raise ConnectionError("the answer is lost")
        return answer

    server = make_server("127.0.0.1", 0, flaky)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server, "log", lambda *_: None)
            patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{home.mlflow}")
            patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", str(home.path / "served"))
            patch.setenv("MLFLOW_TRACKING_URI", "")  # the server sets it, which must not outlive it
            yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        handlers._tracking_store = None


def test_answers_of_a_server_that_get_lost_double_nothing(home: Home, ledger: Ledger) -> None:
    lost: list[str] = []
    generator, is_flaky = random.Random(0), True

    def spoil(path: str) -> bool:
        is_lost = is_flaky and (path not in lost or generator.random() < 0.2)
        lost.extend([path] * is_lost)
        return is_lost

    with served(home, spoil) as uri:
        found = [Point(KEYS[0], 20, 1e9, "odd", math.nan)]
        work(ledger, KEYS[:2], 0, 20, found=found + [p for key in KEYS[:2] for p in points(key, 0, 20)])
        for start in (20, 40):
            num_tries = 0
            while process.pending(home, uri) and num_tries < 200:
                num_tries += 1
                with contextlib.suppress(UndeliveredError):
                    worker.deliver(home, uri)
            if start == 20:
                work(ledger, KEYS[:2], 20, 40, has_pictures=True)
        is_flaky = False
        assert {"create", "log-batch", "update", "search"} <= {path.rpartition("/")[2] for path in lost}
        assert worker.compare(home, uri) == []
    points_of_others = {key: rows for key, rows in run_points(home).items() if key != KEYS[0]}
    assert points_of_others == {
        key: rows for key, rows in expected_points(KEYS[:2]).items() if key != KEYS[0]
    }
    assert ("odd", 20, 10**12, None) in run_points(home)[KEYS[0]]
    assert query(home, "SELECT COUNT(*) FROM runs") == [(4,)]
    assert len(list((home.path / "served").rglob("*.png"))) == 2


def test_a_round_sends_only_what_is_new(home: Home, ledger: Ledger) -> None:
    requests: list[str] = []
    work(ledger, KEYS, 0, 20)
    with served(home, requests.append) as uri, worker._projecting(home, uri, None) as catch_up:
        catch_up()
        requests.clear()
        catch_up()
        assert requests == []
        work(ledger, KEYS[:1], 20, 30)
        catch_up()
        # The run and its draw; nothing is looked for again.
        assert [path.rpartition("/")[2] for path in requests] == ["log-batch"] * 2
    assert run_points(home)[KEYS[0]] == expected_points(KEYS[:1], 30)[KEYS[0]]


def test_runs_move_under_a_sweep_that_was_made_again(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    worker.deliver(home, None)
    Store(home, f"sqlite:///{home.mlflow}").delete(seen(home)["sweep"].run_id)
    lines = worker.compare(home, None)
    assert [sum(word in line for line in lines) for word in ("missing in", "not under its parent")] == [1, 2]
    worker.deliver(home, None)
    assert worker.compare(home, None) == []
    assert {seen(home)[draw].tags["mlflow.parentRunId"] for draw in ("draw 0", "draw 1")} == {
        seen(home)["sweep"].run_id
    }


def test_one_process_at_a_time_projects_a_home(
    home: Home, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    work(ledger, KEYS[:1], 0, 40)
    with lock_projection(home):
        with pytest.raises(HeldError, match="being synced by pid"):
            worker.deliver(home, None)
        assert worker.main([str(home.path), "--once"]) == 2
        assert "being synced by pid" in capsys.readouterr().err
    worker.deliver(home, None)


@pytest.mark.system
def test_following_delivers_while_it_goes_on_and_the_rest_when_stopped(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 20)
    with process.Projector.start(home, None, [SWEEP]) as projector:
        projector.deliver()
        while process.pending(home, None):
            assert projector._process.poll() is None, projector.complaint()
            time.sleep(0.2)
        assert run_points(home) == expected_points(end=20)
        with pytest.raises(InputError, match="being synced by pid"):
            process.run_sync(home, None)
        work(ledger, KEYS, 20, 40, has_pictures=True)
        assert projector.stop(timeout_s=200) == 0
        assert projector.complaint() == ""
    assert run_points(home) == expected_points()
    assert process.run_verify(home, None) == []


@pytest.mark.system
def test_a_projector_without_a_server_harms_nobody_and_says_why(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    with process.Projector.start(home, DEAD) as projector:
        projector.deliver()
        while not projector.complaint():
            assert projector._process.poll() is None
            time.sleep(0.2)
        began_s = time.monotonic()
        assert projector.stop(timeout_s=20) == 7
        assert time.monotonic() - began_s < 10
    assert f"MLflow at {DEAD}: Connection refused" in projector.complaint()
    with process.Projector.start(home, None) as projector:
        assert projector.stop(timeout_s=0) == 7


@pytest.mark.system
def test_a_projector_that_is_asked_for_nothing_delivers_nothing(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    with process.Projector.start(home, None) as projector:
        assert projector.stop(timeout_s=60) == 7
        assert projector.complaint() == ""
    assert seen(home) == {}


@pytest.mark.system
def test_a_projector_that_is_killed_is_started_again_for_what_is_left(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    with process.Projector.start(home, None, [SWEEP]) as projector:
        projector._process.kill()
        projector._process.wait()
        assert projector.stop(timeout_s=60) == 0
    assert run_points(home) == expected_points()


def test_a_projector_that_is_killed_again_and_again_is_given_up_with_a_reason(
    home: Home, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    work(ledger, KEYS, 0, 40)
    starts: list[str] = []

    def killed(*_: object) -> list[str]:
        starts.append("")
        return [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]

    monkeypatch.setattr(process, "command", killed)
    with process.Projector.start(home, None, [SWEEP]) as projector:
        assert projector.stop(timeout_s=60) == 7
        assert projector.complaint() == "the process that delivers was killed by SIGKILL"
    assert len(starts) == 1 + process.MAX_RESTARTS


@pytest.mark.system
def test_a_projector_whose_driver_is_killed_ends_by_itself(home: Home, ledger: Ledger) -> None:
    work(ledger, KEYS, 0, 40)
    code = (
        "import sys, time; from pathlib import Path; from sweeper.home import Home; from sweeper.tracking import process\n"
        "projector = process.Projector.start(Home.at(Path(sys.argv[1])), None); projector.deliver()\n"
        "print(projector._process.pid, flush=True); time.sleep(60)"
    )
    driver = subprocess.Popen([sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    driver.kill()
    driver.wait()
    driver.stdout.close()
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.2)
    assert process.pending(home, None) == 0


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://a.b/c", "sqlite:////tmp/x.db", "postgresql://h/d"]
)
def test_stores_that_can_be_are_accepted(uri: str) -> None:
    process.check_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "mlruns",
            "file:///tmp/mlruns",
            "ftp://host",
            "http://",
            "http://host:port",
            "",
            "://",
            "sqlite://",
        ),
        *("sqlite:///", "sqlite:///:memory:", "postgresql://", "databricks", "http:/host"),
    ],
)
def test_what_cannot_be_a_store_is_refused_with_what_can(uri: str) -> None:
    with pytest.raises(InputError, match="valid addresses begin with http, https, postgresql, sqlite"):
        process.check_uri(uri)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        process.check_uri("https://me:secret@host")
    assert "secret" not in str(caught.value)


def test_a_wrong_command_line_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker.main([str(tmp_path), "--uri", "ftp://host", "--once"]) == 2
    assert worker.main([str(tmp_path), "--once"]) == 2
    assert worker.main([str(tmp_path), "--sweep", "gamma", "--once"]) == 2
    text = capsys.readouterr().err
    assert ["ftp://host" in text, "No ledger" in text, "'gamma' is not a sweep" in text] == [True] * 3


def test_the_drivers_side_imports_no_mlflow() -> None:
    slow = "{'mlflow', 'torch', 'pandas', 'matplotlib'}"
    code = f"import sys, sweeper.tracking.process; print(sorted({slow} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
