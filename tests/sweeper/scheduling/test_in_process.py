"""Training without Ray: everything happens in the process of the driver, where a debugger finds it."""

import ast
import bdb
import inspect
import json
import signal
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from subprocess import Popen
from types import FrameType, FunctionType
from typing import Any

import pytest
import torch

from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import AttemptRow, SweepId
from sweeper.ledger.verify import check
from sweeper.ledger.writer import Ledger
from tests.sweeper.conftest import Typed
from trainables import engine
from trainables.layout import Layout
from trainables.models import beta_vae

pytestmark = pytest.mark.system

ONE = ["betavae_beta", "--scale", "smoke", "--as", "one", "--set", "beta=1", "--seeds", "0", "--no-ray"]
SWEEP = SweepId("betavae_beta", "smoke", "one")


@pytest.fixture
def home(make_home: Callable[[str], tuple[Home, ExitStack]]) -> Home:
    return make_home("home")[0]


def attempts(home: Home) -> list[AttemptRow]:
    with closing(Records.open(home.ledger)) as records:
        return records.attempts()


class Debugger(bdb.Bdb):
    """Stops once, in the middle of a function, notes the functions on the way there, and goes on or quits."""

    def __init__(self, function: Callable[..., object], is_quitting: bool = False) -> None:
        super().__init__()
        self.way: list[str] = []
        self._is_quitting = is_quitting
        assert isinstance(function, FunctionType)
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(definition, ast.FunctionDef)
        self._line = function.__code__.co_firstlineno - 1 + definition.body[1].lineno
        assert self.set_break(str(inspect.getsourcefile(function)), self._line) is None

    def user_line(self, frame: FrameType) -> None:
        if not self.break_here(frame):
            self.set_continue()
            return
        outer: FrameType | None = frame
        while outer:
            self.way.insert(0, outer.f_code.co_qualname)
            outer = outer.f_back
        self.clear_all_breaks()
        self.set_quit() if self._is_quitting else self.set_continue()


def test_a_breakpoint_in_the_loss_is_reached_from_the_command(
    home: Home, typed: Callable[..., Typed]
) -> None:
    debugger = Debugger(beta_vae.Model.update)
    ran = debugger.runcall(typed, "run", *ONE, "--set", "steps=20", "--home", home.path)
    assert ran is not None
    assert ran.code == 0
    assert debugger.way[-1] == "Model.update"
    expected = [
        "main",
        "run",
        "Pipeline.run",
        "train",
        "work",
        "PackWorker.step",
        "Attempt.work",
        "Pack.advance",
    ]
    assert [name for name in debugger.way if name in expected] == expected
    assert check(home.ledger, home.storage) == []


def test_who_quits_the_debugger_stops_the_run_which_goes_on_later(
    home: Home, typed: Callable[..., Typed]
) -> None:
    words = ["run", *ONE, "--set", "steps=20", "--home", home.path]
    ran = Debugger(beta_vae.Model.update, is_quitting=True).runcall(typed, *words)
    assert ran is not None
    assert ran.code == 130
    assert [attempt.outcome for attempt in attempts(home)] == ["stopped"]
    assert typed(*words).code == 0
    assert check(home.ledger, home.storage) == []


def test_an_error_in_the_loss_is_shown_and_kept_with_its_traceback_and_other_draws_go_on(
    home: Home, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    update = beta_vae.Model.update

    def failing(self: beta_vae.Model, *inputs: Any, **settings: Any) -> dict[str, torch.Tensor]:
        if (self.beta_R == 4).any():
            raise ZeroDivisionError("in the loss")
        return update(self, *inputs, **settings)

    monkeypatch.setattr(beta_vae.Model, "update", failing)
    two = [word if word != "beta=1" else "beta=1,4" for word in ONE]
    ran = typed("run", *two, "--set", "steps=20", "--home", home.path, "--json")
    told = json.loads(ran.out)
    assert (ran.code, told["trained"], told["failed"]) == (1, 1, 1)
    assert ", in failing" in ran.err
    assert "ZeroDivisionError: in the loss" in ran.err
    (line,) = [line for line in ran.err.splitlines() if line.startswith("failed: ")]
    assert "beta=4 seed 0: ZeroDivisionError: in the loss" in line
    with closing(Records.open(home.ledger)) as records:
        (failure,) = records.failures()
    assert ", in advance" in failure.message


def test_memory_that_is_short_halves_a_pack_and_is_no_error(
    home: Home, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = engine.Pack.advance
    sizes: list[int] = []

    def short(self: engine.Pack, num_steps: int) -> None:
        sizes.append(len(self.runs))
        if len(self.runs) > 1:
            raise MemoryError("out of memory")
        advance(self, num_steps)

    monkeypatch.setattr(engine.Pack, "advance", short)
    two = [word if word != "beta=1" else "beta=1,4" for word in ONE]
    ran = typed("run", *two, "--set", "steps=20", "--home", home.path)
    assert ran.code == 0, ran.err
    assert sizes[0] == 2
    assert set(sizes[1:]) == {1}
    assert "Traceback" not in ran.err


def test_a_ledger_that_cannot_be_written_any_more_ends_the_run(
    home: Home, typed: Callable[..., Typed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(self: Ledger, path: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "take", take)
        failed = typed("run", *ONE, "--set", "steps=20", "--home", home.path)
    assert (failed.code, "disk full" in failed.err) == (3, True)
    assert typed("run", *ONE, "--set", "steps=20", "--home", home.path).code == 0
    assert check(home.ledger, home.storage) == []


def test_who_is_asked_to_stop_writes_states_and_goes_on_to_the_same_numbers(
    make_home: Callable[[str], tuple[Home, ExitStack]],
    start_driver: Callable[..., Popen[str]],
    typed: Callable[..., Typed],
) -> None:
    home, other = make_home("stopped")[0], make_home("whole")[0]
    words = ["run", *ONE, "--set", "steps=800", "--set", "evaluate_every=800"]
    driver = start_driver(*words, "--home", home.path)
    while not Layout(home.storage).manifests():
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate()
    assert driver.returncode == 130, err
    assert "Traceback" not in err
    with closing(Records.open(home.ledger)) as records:
        assert [attempt.outcome for attempt in records.attempts()] == ["stopped"]
        (row,) = records.members(SWEEP)
        assert 0 < row.step < 800
        assert records.resume_steps([row.key]) == {row.key: row.step}
    for each in (home, other):
        assert typed(*words, "--home", each.path).code == 0
    assert numbers(home) == numbers(other)
    assert check(home.ledger, home.storage) == []


def numbers(home: Home) -> list[tuple[str, int, float]]:
    with closing(Records.open(home.ledger)) as records:
        points = records.points(SWEEP)
    return sorted(zip(points.name, points.step, points.value, strict=True))


def test_a_cluster_and_no_ray_are_refused_together(refused: Callable[..., None], tmp_path: Path) -> None:
    words = ["run", *ONE, "--home", tmp_path / "home", "--address", "127.0.0.1:1"]
    refused(words, ["--no-ray", "--address 127.0.0.1:1"])
