"""Sweeps trained at smoke scale: what a person types, the answer, and what typing again does.

What does not depend on who trains is trained without Ray, which takes many seconds less to start.
"""

import csv
import dataclasses
import json
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from search_spaces import betavae_beta
from sweeper import pipeline
from sweeper.home import Home
from sweeper.ledger.lease import Lease
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import MemberRow, SweepId
from sweeper.ledger.verify import check
from tests.sweeper.conftest import Typed
from trainables.__main__ import main as train_alone
from trainables.config import Value
from trainables.layout import Layout

GAMMA, BETA = SweepId("factorvae_gamma", "smoke"), SweepId("betavae_beta", "smoke")
BOTH = [GAMMA.name, BETA.name, "--scale", "smoke"]
CSV = "factorvae_gamma-smoke+betavae_beta-smoke.csv"

MakeHome = Callable[[str], tuple[Home, ExitStack]]
Run = Callable[..., tuple[Typed, dict[str, Any]]]
Longer = tuple[list[object], list[object], bytes, Typed]
"""Of fixtures, each of which says what it gives."""


@pytest.fixture(scope="module")
def home_and_lock(make_home: MakeHome) -> tuple[Home, ExitStack]:
    return make_home("run")


@pytest.fixture(scope="module")
def home(home_and_lock: tuple[Home, ExitStack]) -> Home:
    return home_and_lock[0]


@pytest.fixture(scope="module")
def first(home: Home, typed: Callable[..., Typed]) -> Typed:
    """The answer to both sweeps in one launch."""
    return typed("run", *BOTH, "--home", home.path, "--no-ray", "--json")


@pytest.fixture
def run(first: Typed, home: Home, typed: Callable[..., Typed]) -> Run:
    """A function that runs more in the home where both sweeps have run, and returns the answer and its JSON."""

    def run(*words: object) -> tuple[Typed, dict[str, Any]]:
        answer = typed("run", *words, "--home", home.path, "--no-ray", "--json")
        return answer, json.loads(answer.out)

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def members(home: Home, sweep: SweepId) -> list[MemberRow]:
    with closing(Records.open(home.ledger)) as records:
        return records.members(sweep)


def files(storage: Path) -> dict[Path, int]:
    """All files but those of leases, of which each driver has one."""
    leases = Layout(storage).drivers
    found = (path for path in storage.rglob("*") if path.is_file() and not path.is_relative_to(leases))
    return {path: path.stat().st_mtime_ns for path in found}


def test_both_sweeps_are_trained_in_one_launch(first: Typed, home: Home) -> None:
    assert first.code == 0, first.err
    told = json.loads(first.out)
    pending = told.pop("tracking_pending")
    assert told == {
        "trained": 8,
        "already_done": 0,
        "failed": 0,
        "diverged": 0,
        "steps_trained": 8 * 200,
    }
    assert pending > 0
    assert "8 runs to train" in first.err
    assert "100% of 1,600 run-steps" in first.err
    assert f"python -m sweeper sync {' '.join(BOTH)} --home {home.path}" in first.err, (
        "how to deliver to MLflow later"
    )
    assert check(home.ledger, home.storage) == []


def test_few_steps_are_measured_by_the_process_that_trains_them(
    first: Typed, home: Home, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused() -> None:
        raise AssertionError("another process imports torch")

    monkeypatch.setattr(pipeline, "Probe", refused)
    assert typed("run", *BOTH, "--home", home.path).code == 0
    for other in (["--ray"], ["--no-ray"], ["--seeds", "0-99"]):
        with pytest.raises(AssertionError, match="another process"):
            typed("run", *BOTH, "--home", home.path, *other)


@pytest.mark.parametrize("sweep", [GAMMA, BETA], ids=str)
def test_every_run_has_its_points_and_is_done_once(sweep: SweepId, first: Typed, home: Home) -> None:
    with closing(Records.open(home.ledger)) as records:
        assert Counter(row.status for row in records.members(sweep)) == {"done": 4}
        points = records.points(sweep)
        ends = records.db.execute("SELECT run, COUNT(*) FROM block_runs WHERE status = 'done' GROUP BY run")
        assert {count for _, count in ends} == {1}
    steps: dict[tuple[str, str], list[int]] = {}
    for key, name, step, value in zip(points.key, points.name, points.step, points.value, strict=True):
        steps.setdefault((key, name), []).append(step)
        if name == "factor_vae_score":
            assert 0 <= value <= 1
        if name == "recon_error":
            assert 0 < value < 4096
    keys = {key for key, _ in steps}
    assert len(keys) == 4
    for key in keys:
        assert steps[key, "recon_error"] == steps[key, "factor_vae_score"] == [100, 200]
        trained = [
            found for (other, name), found in steps.items() if other == key and name.startswith("train/")
        ]
        assert trained
        assert all(found == [50, 100, 150, 200] for found in trained)


def test_the_answer_is_kept_in_the_home(first: Typed, home: Home) -> None:
    front = rows(home.exports / CSV)
    assert Counter(row["model"] for row in front) == {"beta_vae": 2, "factor_vae": 2}
    assert {row["num_seeds"] for row in front} == {"2"}
    assert any(row["on_front"] == "True" for row in front)
    assert rows(home.exports / CSV.replace(".csv", "_left_out.csv")) == []
    assert (home.exports / CSV).with_suffix(".png").stat().st_size > 10_000


def test_running_again_trains_nothing_and_gives_the_same_bytes(run: Run, home: Home) -> None:
    before, stored = (home.exports / CSV).read_bytes(), files(home.storage)
    answer, told = run(*BOTH)
    assert answer.code == 0
    assert (told["trained"], told["already_done"], told["steps_trained"]) == (0, 8, 0)
    assert (home.exports / CSV).read_bytes() == before
    assert files(home.storage) == stored


@pytest.mark.system
@pytest.mark.parametrize("how", ["--ray", "--no-ray"])
def test_a_driver_in_a_process_of_its_own_trains_and_answers_the_same(
    how: str,
    first: Typed,
    home: Home,
    make_home: MakeHome,
    start_driver: Callable[..., subprocess.Popen[str]],
) -> None:
    other, _ = make_home("of_its_own")
    driver = start_driver("run", *BOTH, "--home", other.path, how, "--json")
    out, err = driver.communicate()
    assert driver.returncode == 0, err
    told = json.loads(out)
    assert (told["trained"], told["steps_trained"]) == (8, 8 * 200)
    for name in (CSV, CSV.replace(".csv", ".png")):
        assert (other.exports / name).read_bytes() == (home.exports / name).read_bytes()
    assert numbers(other, 200) == numbers(home, 200)
    assert kept(other) == kept(home)
    assert check(other.ledger, other.storage) == []


def numbers(home: Home, step: int) -> set[tuple[str, str, int, float]]:
    """All points of both sweeps up to a step, but for their times."""
    with closing(Records.open(home.ledger)) as records:
        found = [records.points(sweep) for sweep in (GAMMA, BETA)]
    rows = {row for each in found for row in zip(each.key, each.name, each.step, each.value, strict=True)}
    return {row for row in rows if row[2] <= step}


def kept(home: Home) -> dict[tuple[str, str, int], str]:
    """Digests of what finished runs of both sweeps keep: state, encoding, weights, pictures."""
    with closing(Records.open(home.ledger)) as records:
        keys = {row.key for sweep in (GAMMA, BETA) for row in records.members(sweep) if row.seed < 2}
        return {
            (key, name, stored.step): stored.slice.sha256
            for key in keys
            for name in ("state", "encoding", "weights", "pictures")
            for stored in records.slices(key, name, limit=9)
            if stored.step == 200
        }


def test_one_more_seed_trains_only_itself_and_changes_no_other_row(
    run: Run, home: Home, typed: Callable[..., Typed], tmp_path: Path
) -> None:
    def exported(name: str) -> list[str]:
        words = ["export", BETA.name, "--scale", "smoke", "--home", home.path, "--runs", tmp_path / name]
        assert typed(*words).code == 0
        return (tmp_path / name).read_text().splitlines()

    before = exported("before.csv")
    answer, told = run(BETA.name, "--scale", "smoke", "--seeds", "2")
    assert answer.code == 0, answer.err
    assert (told["trained"], told["already_done"], told["steps_trained"]) == (2, 4, 2 * 200)
    after = exported("after.csv")
    assert [line for line in after if line in before] == before
    seed = before[0].split(",").index("seed")
    assert {line.split(",")[seed] for line in set(after) - set(before)} == {"2"}
    assert {row["num_seeds"] for row in rows(home.exports / "betavae_beta-smoke.csv")} == {"3"}


@pytest.fixture(scope="module")
def longer(first: Typed, home: Home, typed: Callable[..., Typed]) -> Longer:
    """A changed question: more steps of a run that is there, and a hyperparameter with which nothing stays finite."""
    before = (home.exports / CSV).read_bytes()
    words: list[object] = [GAMMA.name, "--scale", "smoke", "--as", "x", "--home", home.path]
    sets = ["--set", "gamma=1,1e30", "--set", "steps=300", "--seeds", "0"]
    run = ["run", *words, *sets, "--no-ray"]
    return words, run, before, typed(*run, "--json")


def test_a_diverging_draw_is_named_and_off_the_front(
    longer: Longer, typed: Callable[..., Typed], tmp_path: Path
) -> None:
    words, _, _, answer = longer
    assert answer.code == 1
    told = json.loads(answer.out)
    assert (told["trained"], told["diverged"], told["failed"]) == (1, 1, 0)
    named = [line for line in answer.err.splitlines() if line.startswith("diverged: ")]
    assert len(named) == 1
    assert "factorvae_gamma-smoke-x gamma=1e+30 seed 0" in named[0]
    assert named[0] in typed("status", *words).out
    front = typed("pareto", *words, "--csv", tmp_path / "x.csv")
    assert front.code == 0
    assert [row["gamma"] for row in rows(tmp_path / "x.csv")] == ["1.0"]
    (left_out,) = rows(tmp_path / "x_left_out.csv")
    assert (left_out["gamma"], left_out["num_diverged"]) == ("1e+30", "1")
    assert "0 of 1 seeds done (1 diverged)" in front.out


def test_what_diverged_is_not_trained_again(longer: Longer, typed: Callable[..., Typed]) -> None:
    _, run, _, _ = longer
    again = typed(*run)
    assert again.code == 1
    assert again.out.startswith("0 runs trained, 1 done before, 0 failed, 1 diverged.")
    assert "pareto factorvae_gamma --scale smoke" in again.out
    assert "--as x" in again.out


def test_a_run_of_two_questions_is_one_run_that_goes_on(longer: Longer, home: Home) -> None:
    _, _, before, _ = longer
    (run, *_), (same, *_) = members(home, SweepId(GAMMA.name, "smoke", "x")), members(home, GAMMA)
    assert (run.key, run.status, run.step) == (same.key, same.status, same.step) == (run.key, "done", 300)
    assert (home.exports / CSV).read_bytes() == before, "the shorter question's answer stays"
    with closing(Records.open(home.ledger)) as records:
        ends = records.db.execute(
            "SELECT start_step, step FROM block_runs JOIN runs ON runs.id = run JOIN blocks USING (attempt)"
            " WHERE key = ? AND status = 'done' AND blocks.number = block ORDER BY step",
            (run.key,),
        ).fetchall()
    assert [step for _, step in ends] == [200, 300]
    assert ends[1][0] >= 200, "what the shorter question trained is not trained again"


def test_what_was_trained_in_parts_and_packs_is_what_a_run_alone_gives(
    longer: Longer, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    run = members(home, SweepId(GAMMA.name, "smoke", "x"))[0]
    sets = [
        word for name, value in run.spec["fields"].items() for word in ("--set", f"{name}={as_text(value)}")
    ]
    assert train_alone(["factor_vae", "--data", "sprites", "--steps", "300", *sets]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["run_key"] == run.key
    with closing(Records.open(home.ledger)) as records:
        points = records.run_points(run.key)
    last = {
        name: value
        for name, step, value in zip(points.name, points.step, points.value, strict=True)
        if step == 300 and not name.startswith("train/")
    }
    assert {name: told["metrics"][name] for name in last} == last
    assert set(last) >= {"recon_error", "factor_vae_score"}


def as_text(value: Value) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def test_in_the_end_mlflow_is_told_and_all_agree(
    longer: Longer, home_and_lock: tuple[Home, ExitStack], typed: Callable[..., Typed], empty_store: Path
) -> None:
    home, lock = home_and_lock
    lock.close()
    shutil.copyfile(empty_store, home.mlflow)
    told = typed("sync", *BOTH, "--home", home.path)
    assert told.code == 0, told.err
    assert str(home.mlflow) in told.out
    verified = typed("verify", GAMMA.name, "--scale", "smoke", "--home", home.path)
    assert verified.code == 0, verified.out
    assert "agree" in verified.out


ONE_RUN = [
    BETA.name,
    "--scale",
    "smoke",
    "--as",
    "one",
    "--set",
    "beta=1",
    "--set",
    "steps=50",
    "--seeds",
    "0",
]


@contextmanager
def for_each_attempt(home: Home, spoil: Callable[[Path], object]) -> Iterator[None]:
    """In this context something is done with the folder of each attempt as soon as its driver has made it."""
    ended, seen = threading.Event(), set[str]()

    def watch() -> None:
        while not ended.wait(0.01):
            for folder in Layout(home.storage).attempts.glob("0*[0-9]"):
                if folder.name not in seen:
                    seen.add(folder.name)
                    spoil(folder)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.system
def test_runs_that_fail_thrice_are_given_up_and_named(
    make_home: MakeHome, cluster: str, typed: Callable[..., Typed]
) -> None:
    """A file takes the place of each attempt's folder."""
    home, _ = make_home("failing")

    def spoil(folder: Path) -> None:
        folder.rmdir()
        folder.touch()

    words = ["run", *ONE_RUN, "--home", home.path, "--address", cluster]
    with for_each_attempt(home, spoil):
        failed = typed(*words, "--json")
    assert failed.code == 1, failed.err
    told = json.loads(failed.out)
    assert (told["trained"], told["failed"], told["steps_trained"]) == (0, 1, 0)
    (line,) = [line for line in failed.err.splitlines() if line.startswith("failed: ")]
    assert "betavae_beta-smoke-one beta=1 seed 0: " in line
    assert "NotADirectoryError" in line
    with closing(Records.open(home.ledger)) as records:
        assert [attempt.outcome for attempt in records.attempts()] == ["failed"] * 3


@pytest.mark.system
def test_a_pack_that_dies_before_its_first_state_each_time_is_given_up_though_its_blocks_are_true(
    make_home: MakeHome, typed: Callable[..., Typed]
) -> None:
    """Each attempt commits a block, which has no states yet, and cannot write the next: it would go round for ever."""
    home, _ = make_home("round")
    longer = ["--set", "steps=1000000", "--set", "evaluate_every=1000000"]
    words = [BETA.name, "--scale", "smoke", "--as", "long", "--set", "beta=1", "--seeds", "0", *longer]
    with for_each_attempt(home, lambda folder: (folder / "block-000001.json.partial").mkdir()):
        failed = typed("run", *words, "--home", home.path, "--no-ray", "--json")
    assert failed.code == 1, failed.err
    told = json.loads(failed.out)
    assert (told["trained"], told["failed"]) == (0, 1)
    assert told["steps_trained"] > 0
    with closing(Records.open(home.ledger)) as records:
        assert [attempt.outcome for attempt in records.attempts()] == ["failed"] * 3
        (row,) = records.members(SweepId(BETA.name, "smoke", "long"))
        # What was computed again is counted once.
        assert told["steps_trained"] == row.step


def test_a_metric_that_runs_lack_is_computed_from_what_they_kept(
    make_home: MakeHome, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained before `kl` was among the sweep's metrics, and beside it a home that was trained with it."""
    ran = {}
    for name in ("before", "with"):
        home, _ = make_home(name)
        words = ["run", *ONE_RUN, "--home", home.path, "--no-ray", "--json"]
        with monkeypatch.context() as patch:
            if name == "before":
                fewer = dataclasses.replace(betavae_beta.SWEEP, metrics=betavae_beta.SWEEP.objectives)
                patch.setattr(betavae_beta, "SWEEP", fewer)
            first = typed(*words)
            assert first.code == 0
            assert "scoring" not in first.err
        if name == "before":
            again = typed(*words)
            told = json.loads(again.out)
            assert (again.code, told["trained"], told["steps_trained"]) == (0, 0, 0)
            assert "scoring: 100% of 1 runs" in again.err
            assert "scoring" not in typed(*words).err
        assert check(home.ledger, home.storage) == []
        with closing(Records.open(home.ledger)) as records:
            (sweep,) = records.sweeps()
            (member,) = records.members(sweep)
            points = records.run_points(member.key)
        assert member.status == "done"
        assert member.numerics is not None
        assert not member.numerics.startswith("scored"), "what scored a run did not train it"
        found = zip(points.name, points.identity, points.step, points.value, strict=True)
        ran[name] = {point for point in found if point[0].startswith("kl") and point[2] == 50}
    assert len(ran["with"]) > 1
    assert ran["before"] == ran["with"]


def test_a_shorter_horizon_is_answered_where_runs_were_evaluated_and_refused_elsewhere(
    make_home: MakeHome, typed: Callable[..., Typed]
) -> None:
    home, _ = make_home("short")
    where = ["--home", home.path, "--no-ray", "--json"]
    one = [BETA.name, "--scale", "smoke", "--set", "beta=1", "--seeds", "0", *where]
    assert typed("run", *one, "--as", "long").code == 0
    refused = typed("run", *one, "--set", "steps=150", "--as", "odd")
    assert refused.code == 2
    assert "seed 0 was trained past step 150 and has no recon_error there" in refused.err
    answered = typed("run", *one, "--set", "steps=100", "--as", "short")
    assert (answered.code, json.loads(answered.out)["trained"]) == (0, 0), answered.err
    with closing(Records.open(home.ledger)) as records:
        assert [sweep.label for sweep in records.sweeps()] == ["long", "short"]
    (row,) = rows(home.exports / "betavae_beta-smoke-short.csv")
    assert float(row["recon_error"]) > 0


def test_a_sweep_that_cannot_be_drawn_still_tells_how_it_ended(
    make_home: MakeHome, typed: Callable[..., Typed]
) -> None:
    """One of two seeds diverges at once, so no draw is left for a front."""
    home, _ = make_home("undrawn")
    diverging = ["--set", "adam.learning_rate=1", "--set", "beta=1", "--set", "steps=3", "--as", "half"]
    ended = typed("run", BETA.name, "--scale", "smoke", *diverging, "--home", home.path, "--no-ray", "--json")
    told = json.loads(ended.out)
    assert told["diverged"] > 0
    assert ended.code == 1, ended.err
    assert "Traceback" not in ended.err


@pytest.mark.system
def test_a_ledger_that_cannot_be_written_ends_the_run(
    make_home: MakeHome, cluster: str, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = make_home("full")

    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Lease, "begin", full)
    failed = typed("run", *ONE_RUN, "--home", home.path, "--address", cluster)
    assert failed.code == 3, failed.err
    assert "No space left on device" in failed.err
    assert "run the same command to resume" in failed.err
    assert "Traceback" not in failed.err


def test_finished_runs_are_given_a_metric_by_name(run: Run, home: Home, typed: Callable[..., Typed]) -> None:
    run(*BOTH)
    words = ["--scale", "smoke", "--home", home.path]
    assert typed("pareto", BETA.name, *words, "--objectives", "recon_error,mig").code == 2
    scored = typed("evaluate", BETA.name, *words, "--metric", "mig", "--metric", "sap")
    assert scored.code == 0, scored.err
    num_runs = len(members(home, BETA))
    assert scored.out.startswith(f"{num_runs} runs scored, 0 had mig, sap before.")
    again = typed("evaluate", BETA.name, *words, "--metric", "sap")
    assert again.out.startswith(f"0 runs scored, {num_runs} had sap before.")
    assert typed("pareto", BETA.name, *words, "--objectives", "recon_error,mig").code == 0
    assert check(home.ledger, home.storage) == []
    wrong = typed("evaluate", BETA.name, *words, "--metric", "mgi")
    assert (wrong.code, "Did you mean 'mig'?" in wrong.err) == (2, True)
