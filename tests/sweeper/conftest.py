"""What the tests that train share: Ray clusters of their own, drivers in this process and in others.

MLflow is out of reach for most of them, as it may be for a whole sweep, and nothing waits for it.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sweeper import here

if TYPE_CHECKING:
    from sweeper.home import Home
    from tests.conftest import MakeOnce
    from tests.sweeper.lent_probe import Lender

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from sweeper import pipeline
from sweeper.cli.app import main
pipeline.DELIVERY_S = 0.0
sys.exit(main(sys.argv[1:]))
"""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
num_cpus, num_gpus = map(int, sys.argv[1:])
head = {"num_cpus": num_cpus, "num_gpus": num_gpus, "include_dashboard": False}
print(Cluster(initialize_head=True, head_node_args=head).address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Typed:
    """What a command answered."""

    code: int
    out: str
    err: str


def end_session(process: subprocess.Popen[str]) -> None:
    """Kill a process started in a session of its own, and all that it started and that Ray scattered over groups."""
    pids = subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout.split()
    for pid in map(int, pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == process.pid:
                os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[None]:
    """Ray keeps its files in a folder of the tests, without a token; its socket paths end at 107 bytes."""
    folder = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running_cluster(num_cpus: int, num_gpus: int = 0) -> Iterator[str]:
    """A cluster of so many CPUs and GPUs, which need not exist: its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(num_cpus), str(num_gpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        end_session(process)


@pytest.fixture
def start_cluster(ray_environment: None) -> Iterator[Callable[..., str]]:
    """A function that starts a cluster, see `running_cluster`, until the test ends: an idle one takes CPU, too."""
    with contextlib.ExitStack() as stack:
        yield lambda *size: stack.enter_context(running_cluster(*size))


@pytest.fixture(scope="session")
def cluster(ray_environment: None) -> Iterator[str]:
    """The address of a cluster of two CPUs."""
    with running_cluster(2) as address:
        yield address


@pytest.fixture(scope="module")
def make_home(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], tuple[Home, contextlib.ExitStack]]]:
    """A function that makes a home, and what keeps all deliveries to MLflow from it until it is closed."""
    from sweeper.home import Home
    from sweeper.tracking.sync import lock_projection

    with contextlib.ExitStack() as stack:

        def make(name: str) -> tuple[Home, contextlib.ExitStack]:
            home = Home.at(tmp_path_factory.mktemp(name) / "home")
            home.path.mkdir()
            lock = stack.enter_context(contextlib.ExitStack())
            lock.enter_context(lock_projection(home))
            return home, lock

        yield make


@pytest.fixture(scope="session")
def empty_store(make_once: MakeOnce) -> Path:
    """A file with MLflow's tables, to be copied into homes: making it takes seconds, in which a kill came in between."""
    from mlflow.version import VERSION

    from sweeper.home import Home
    from sweeper.tracking import empty_store
    from sweeper.tracking.store import Store, reaching

    def fill(folder: Path) -> None:
        home = Home.at(folder)
        partial = home.mlflow.with_name("mlflow.db.partial")
        with pytest.MonkeyPatch.context() as patch, reaching("a new file"):
            patch.setenv("SWEEPER_DATA", str(folder.with_name("no-store-is-kept-here")))
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    Store(home, f"sqlite:///{home.mlflow}")
                os._exit(1)
            while not (partial.exists() and partial.stat().st_size > 50_000):
                time.sleep(0.01)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert not home.mlflow.exists()
            assert not empty_store.kept(VERSION).exists()
            Store(home, f"sqlite:///{home.mlflow}")
        assert sorted(path.name for path in home.path.iterdir()) == ["mlflow.db"]

    return Home.at(make_once("empty-store", fill)).mlflow


@pytest.fixture(scope="session")
def trained_home(make_once: MakeOnce, empty_store: Path, typed: Callable[..., Typed]) -> Path:
    """A home in which `factorvae_gamma --scale smoke` was trained without Ray and delivered; to be copied."""

    from sweeper.home import Home
    from sweeper.tracking import worker
    from sweeper.tracking.sync import lock_projection

    def fill(folder: Path) -> None:
        home = Home.at(folder)
        shutil.copyfile(empty_store, home.mlflow)
        with lock_projection(home):
            ran = typed("run", "factorvae_gamma", "--scale", "smoke", "--home", folder, "--no-ray")
        assert ran.code == 0, ran.err
        worker.deliver(home, None)

    return make_once("trained-home", fill)


@pytest.fixture
def lent_probe(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands of this test ask a process that has torch already, and deliver to MLflow in this process."""
    lender.lend(monkeypatch)
    here.deliver_here(monkeypatch)


@pytest.fixture(scope="session")
def typed(lender: Lender) -> Callable[..., Typed]:
    """A function that types words in this process, which has a process with torch at hand; a run delivers nothing to MLflow."""

    def run(*words: object) -> Typed:
        from sweeper import pipeline
        from sweeper.cli import app

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "DELIVERY_S", 0.0)
            lender.lend(patch)
            here.deliver_here(patch)
            here.deliver_nothing_meanwhile(patch)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = app.main([str(word) for word in words])
        return Typed(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """A function that types words, which are refused in one to three lines that say all of this."""

    def refuse(words: Iterable[object], said: Iterable[object], code: int = 2) -> None:
        from sweeper.cli.app import main

        assert main([str(word) for word in words]) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert 1 <= len(err.splitlines()) <= 3, err
        assert "Traceback" not in err
        for each in said:
            assert str(each) in err, f"{each!r} is not in: {err}"

    return refuse


@pytest.fixture(scope="module")
def start_driver(ray_environment: None) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that types words in a process that leads a session of its own; all of it is gone in the end."""
    with contextlib.ExitStack() as stack:

        def start(*words: object) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                start_new_session=True,
            )
            stack.callback(end_session, process)
            return process

        yield start
