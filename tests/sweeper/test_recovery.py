"""Whatever is killed, and whenever: running again gives the answer of an undisturbed run, and every run ends once."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import Popen

import pytest

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.verify import check
from sweeper.ledger.writer import Ledger
from tests.sweeper.conftest import Typed
from trainables import blocks
from trainables.layout import Layout

pytestmark = pytest.mark.system

SWEEP = SweepId("betavae_beta", "smoke", "kill")
QUESTION = [SWEEP.name, "--scale", SWEEP.scale, "--as", SWEEP.label]
TRAINING_S = 16.0
"""Of an undisturbed run, so that there is something left to do after every kill."""

MOMENTS = random.Random(0)
"""A block takes a second."""

StartDriver = Callable[..., Popen[str]]
Words = Callable[..., list[object]]
Answer = tuple[bytes, list[tuple[str, str, int, float]]]


@pytest.fixture(scope="module")
def steps(typed: Callable[..., Typed], tmp_path_factory: pytest.TempPathFactory) -> int:
    """So many steps that training takes seconds, on this machine."""
    words = ["plan", *QUESTION, "--set", "steps=1000", "--home", tmp_path_factory.mktemp("plan"), "--json"]
    speed: float = 1000 / json.loads(typed(*words).out)["duration_s"]
    return max(2, round(speed * TRAINING_S / 500)) * 500


@pytest.fixture(scope="module")
def words(steps: int) -> Words:
    """A function that says what is typed to run the question in a home."""
    changes = {"steps": steps, "evaluate_every": steps // 2, "report_every": 250}
    sets = [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    return lambda home, *more: ["run", *QUESTION, *sets, "--home", home.path, *more]


def committed(home: Home) -> list[Path]:
    return Layout(home.storage).manifests()


def wait_for_a_block(home: Home, num_before: int, is_over: Callable[[], object]) -> Path:
    """The newest manifest once there are more than before, which must come before the driver is done."""
    while len(found := committed(home)) <= num_before:
        assert not is_over(), "it was done before it could be killed"
        time.sleep(0.02)
    return found[-1]


def disturb(home: Home, driver: Popen[str], kill: Callable[[], None]) -> None:
    """Let a driver get some blocks done, and kill in the middle of another one."""
    wait_for_a_block(home, len(committed(home)), lambda: driver.poll() is not None)
    time.sleep(MOMENTS.uniform(0.0, 0.5))
    assert driver.poll() is None, "it was done before it could be killed"
    kill()


def kill_session(leader: int) -> None:
    """Kill a driver, its Ray and its workers at one moment."""
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == leader:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


def answer(home: Home, typed: Callable[..., Typed]) -> Answer:
    """The front's bytes, and every committed number."""
    path = home.path / "front.csv"
    assert typed("pareto", *QUESTION, "--home", home.path, "--csv", path).code == 0
    with closing(Records.open(home.ledger)) as records:
        points = records.points(SWEEP)
    return path.read_bytes(), sorted(zip(points.key, points.name, points.step, points.value, strict=True))


def assert_every_run_ended_once(home: Home) -> None:
    with closing(Records.open(home.ledger)) as records:
        rows = records.members(SWEEP)
        assert [(row.status, row.step) for row in rows] == [("done", row.horizon_steps) for row in rows]
        assert len(rows) == 4
        done = records.db.execute("SELECT run, COUNT(*) FROM block_runs WHERE status = 'done' GROUP BY run")
        assert [count for _, count in done] == [1] * 4
        assert all(row.outcome for row in records.attempts()), "every attempt has an end"
    assert check(home.ledger, home.storage) == []


@pytest.fixture(scope="module")
def undisturbed(
    make_home: Callable[[str], tuple[Home, ExitStack]], typed: Callable[..., Typed], words: Words
) -> Answer:
    home, _ = make_home("undisturbed")
    ran = typed(*words(home, "--no-ray"))
    assert ran.code == 0, ran.err
    assert_every_run_ended_once(home)
    return answer(home, typed)


@pytest.fixture(scope="module")
def stopped(
    make_home: Callable[[str], tuple[Home, ExitStack]], cluster: str, start_driver: StartDriver, words: Words
) -> tuple[Home, int, str]:
    """A home whose driver was asked to stop, and what the driver said."""
    home, _ = make_home("battered")
    driver = start_driver(*words(home, "--address", cluster))
    disturb(home, driver, driver.terminate)
    _, err = driver.communicate()
    return home, driver.returncode, err


@pytest.fixture(scope="module")
def battered(stopped: tuple[Home, int, str], cluster: str, start_driver: StartDriver, words: Words) -> Home:
    """The same home after its driver, and then everything, was killed."""
    home, _, _ = stopped
    often = ["--state-every", 1]
    driver = start_driver(*words(home, "--address", cluster, *often))
    disturb(home, driver, driver.kill)
    # Its workers may live on for a while: what they write late must not count.
    driver = start_driver(*words(home, "--ray", *often))
    disturb(home, driver, lambda: kill_session(driver.pid))
    driver.wait()
    return home


def test_a_driver_that_is_asked_to_stop_commits_and_says_so(stopped: tuple[Home, int, str]) -> None:
    home, code, err = stopped
    assert code == 130, err
    assert "run the same command to resume" in err
    assert "Traceback" not in err
    with closing(Records.open(home.ledger)) as records:
        attempts = records.attempts()
        assert attempts
        assert {attempt.outcome for attempt in attempts} <= {"stopped", "done"}
        assert any(attempt.outcome == "stopped" for attempt in attempts)
        members = records.members(SWEEP)
        assert {row.status for row in members} <= {"planned", "done"}
        # States are due every two minutes, and whenever somebody asks to stop: nothing is trained again.
        steps = records.resume_steps(row.key for row in members)
        assert {row.key: row.step for row in members} == steps
        assert max(steps.values()) > 0
    # A worker may have committed what the driver was not there to hear.
    assert all(line.endswith("the next run reads it.") for line in check(home.ledger, home.storage))


def test_kills_of_driver_all_and_worker_and_a_damaged_block_change_no_number(
    battered: Home, undisturbed: Answer, cluster: str, typed: Callable[..., Typed], words: Words
) -> None:
    home = battered
    killed: list[int] = []
    is_over = threading.Event()
    older_step = damage_a_newest_state(home)
    num_before = len(committed(home))

    def kill_a_worker() -> None:
        manifest = wait_for_a_block(home, num_before, is_over.is_set)
        killed.append(int(blocks.read_manifest(manifest).provenance["pid"]))
        time.sleep(MOMENTS.uniform(0.0, 0.5))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    ran = typed(*words(home, "--address", cluster, "--json"))
    is_over.set()
    killer.join()
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert (told["trained"] + told["already_done"], told["failed"], told["diverged"]) == (4, 0, 0)
    assert older_step in {blocks.read_manifest(path).start_step for path in committed(home)[num_before:]}
    assert_every_run_ended_once(home)
    with closing(Records.open(home.ledger)) as records:
        attempts = records.attempts()
    assert {attempt.outcome for attempt in attempts} == {"stopped", "lost", "failed", "done"}
    assert str(killed[0]) in {attempt.pid for attempt in attempts if attempt.outcome == "failed"}
    assert answer(home, typed) == undisturbed


def damage_a_newest_state(home: Home) -> int:
    """Flip a bit of the state that a run would resume from; returns the step of the one before, 0 if there is none yet."""
    with Ledger(home.ledger, home.storage) as ledger:
        ledger.ingest()
        keys = [row.key for row in ledger.records.members(SWEEP) if row.status != "done"]
        newest, *older = max(ledger.records.resume_points(keys).values(), key=len)
    path = Layout(home.storage).manifest(newest.attempt, newest.index).with_name(newest.slice.file)
    content = bytearray(path.read_bytes())
    content[newest.slice.offset + newest.slice.length // 2] ^= 1
    path.write_bytes(content)
    assert any(str(path) in line for line in check(home.ledger, home.storage))
    return older[0].step if older else 0
