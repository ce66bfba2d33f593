"""How a sweep ends when Ray is killed under it, or a signal reaches all of its processes; `benchmarks.endings` tries the rest."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import pytest

from sweeper.home import Home
from sweeper.ledger.reader import Records
from trainables.layout import Layout

pytestmark = pytest.mark.system

LONG = ["--scale", "smoke", "--as", "long", "--set", "steps=1000000", "--set", "evaluate_every=1000000"]


@pytest.fixture
def training(start_driver: Callable[..., Popen[str]], tmp_path: Path) -> Iterator[tuple[Home, Popen[str]]]:
    """A home, and a driver that has committed a block of a sweep that never ends; nothing of it is left afterwards."""
    home = Home.at(tmp_path / "home")
    folder = Path(os.environ["RAY_TMPDIR"])
    before = set(folder.iterdir())
    driver = start_driver("run", "betavae_beta", *LONG, "--yes", "--ray", "--home", home.path)
    end = time.monotonic() + 120
    while not Layout(home.storage).manifests():
        assert driver.poll() is None, driver.communicate()[1]
        assert time.monotonic() < end, "no block came"
        time.sleep(0.05)
    yield home, driver
    end = time.monotonic() + 30
    while session_of(driver) or set(folder.iterdir()) - before:
        assert time.monotonic() < end, (session_of(driver), set(folder.iterdir()) - before)
        time.sleep(0.05)


def session_of(driver: Popen[str]) -> dict[int, str]:
    """The other processes of a driver's session, with their names."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(path.name)) == driver.pid and int(path.name) != driver.pid:
                found[int(path.name)] = (path / "comm").read_text().strip()
        except OSError:
            pass
    return found


def test_a_signal_to_all_processes_ends_in_order_and_none_of_ray_is_in_the_group_of_the_command(
    training: tuple[Home, Popen[str]],
) -> None:
    home, driver = training
    session = session_of(driver)
    assert {"gcs_server", "raylet"} <= set(session.values())
    assert [name for pid, name in session.items() if os.getpgid(pid) == driver.pid] == []
    for pid in (driver.pid, *session):
        os.kill(pid, signal.SIGTERM)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 130, err
    assert err.splitlines()[-1].startswith("Stopped. Committed work is kept")
    assert "Traceback" not in err
    with closing(Records.open(home.ledger)) as records:
        assert records.attempts()


def test_a_driver_that_is_killed_leaves_neither_processes_nor_files_of_ray(
    training: tuple[Home, Popen[str]],
) -> None:
    _, driver = training
    driver.kill()
    driver.communicate()


def test_a_ray_that_is_killed_is_a_fault_of_the_machine_and_committed_work_is_kept(
    training: tuple[Home, Popen[str]],
) -> None:
    home, driver = training
    (head,) = (pid for pid, name in session_of(driver).items() if name == "gcs_server")
    num_before = len(Layout(home.storage).manifests())
    os.kill(head, signal.SIGKILL)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode == 3, err
    assert "every node of the Ray cluster is gone" in err.splitlines()[-2]
    assert "Traceback" not in err
    assert len(Layout(home.storage).manifests()) >= num_before
