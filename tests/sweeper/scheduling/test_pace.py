"""The pace of earlier blocks: of the same runs, on such a device, with as many threads."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.ledger.rows import PaceRow
from sweeper.ledger.writer import Draw, Ledger, Member
from sweeper.machines.probe import ProbedRun
from sweeper.machines.resources import Machine
from sweeper.scheduling.pace import learned
from sweeper.scheduling.plan import Planned, find_question
from tests.specs import run_spec
from tests.sweeper.ledger.toy_pack import HORIZON, KEYS, SWEEP, finish, register

SPEC = run_spec()
CPU, GPU = Machine(None, 0.0), Machine(None, 1.0)
ON_CPU = "cpu x86_64 AVX2, a processor, 1 thread(s), torch"


class Blocks:
    """A ledger with these blocks, all of one kind of run."""

    def __init__(self, *rows: PaceRow) -> None:
        self.rows = list(rows)

    def paces(self, keys: list[str]) -> list[PaceRow]:
        assert sorted(keys) == ["x", "y"]
        return self.rows


def asked() -> Planned:
    members = tuple(Member(key, seed, 200, SPEC) for seed, key in enumerate("xy"))
    runs = {key: ProbedRun(key, "a", SPEC, num_factors=2) for key in "xy"}
    return Planned(find_question("betavae_beta", "smoke"), (Draw(0, {"beta": 1.0}, members),), runs, 2)


def pace(machine: Machine, *rows: PaceRow) -> tuple[float, tuple[float, float]] | None:
    found = learned([asked()], Blocks(*rows), machine)  # type: ignore[arg-type]
    return (found["a"].run_step_s, found["a"].spread) if found else None


def test_a_step_of_a_run_is_its_share_of_all_blocks() -> None:
    rows = [PaceRow(100, 8.0, ON_CPU, 8), PaceRow(300, 12.0, ON_CPU, 4)]
    found = pace(CPU, *rows)
    assert found is not None
    assert found[0] == pytest.approx(20 / (800 + 1200))
    assert found[1] == pytest.approx((0.9, 1.1)), "both took the same"


def test_most_blocks_lie_within_the_spread() -> None:
    rows = [PaceRow(100, float(seconds), ON_CPU, 1) for seconds in range(1, 12)]
    found = pace(CPU, *rows)
    assert found is not None
    assert found[0] == pytest.approx(0.06)
    assert found[1] == pytest.approx((2 / 6, 10 / 6))


@pytest.mark.parametrize(
    ("machine", "numerics"),
    [
        (CPU, "cuda NVIDIA L4, 8 stacked, torch"),
        (GPU, ON_CPU),
        (replace(CPU, threads=2), ON_CPU),
        (replace(CPU, threads=1), ON_CPU.replace("1 thread(s)", "11 thread(s)")),
    ],
)
def test_blocks_of_another_kind_of_device_say_nothing(machine: Machine, numerics: str) -> None:
    assert pace(machine, PaceRow(100, 8.0, numerics, 8)) is None


def test_a_little_training_says_nothing() -> None:
    assert pace(CPU, PaceRow(100, 4.9, ON_CPU, 8)) is None
    assert pace(CPU, PaceRow(100, 4.9, ON_CPU, 8), PaceRow(1, 0.2, ON_CPU, 8)) is not None
    assert learned([asked()], None, CPU) == {}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        register(ledger, KEYS)
        finish(ledger)
        yield ledger


def test_a_ledger_tells_the_blocks_of_runs(ledger: Ledger) -> None:
    found = ledger.records.paces(KEYS[:1])
    assert sum(row.num_steps for row in found) == HORIZON
    assert {row.num_runs for row in found} <= {3, 4}
    assert sum(row.train_s for row in found) == HORIZON
    assert {row.numerics for row in found} == {"toy"}
    assert ledger.records.paces(["unknown"]) == []
    assert len(ledger.records.members(SWEEP)) == len(KEYS)
