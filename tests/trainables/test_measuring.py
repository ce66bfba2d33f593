"""What packs cost: measured, kept where it took long, and of a small pack in place of a slow one."""

import math
from pathlib import Path

import pytest

from trainables import measuring, memory
from trainables.config import RunSpec, Value
from trainables.data.readers import preparation
from trainables.engine import Pack, ResolvedRun
from trainables.errors import InputError
from trainables.images import Images

pytestmark = pytest.mark.usefixtures("arithmetic")

FIELDS: dict[str, Value] = {"vae.network": "mlp", "vae.width": 8, "vae.latent_dim": 2}
RUN = RunSpec("beta_vae", "sprites", FIELDS, 0)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "MEASURE_S", 0.05)
    monkeypatch.setattr(preparation, "folder", lambda: tmp_path)


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("measured/*.json"))


def test_a_quick_measurement_is_not_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "KEEP_S", math.inf)
    found = measuring.measure(RUN, 3, 0.0, 1)
    assert found["step_time_s"] > 0
    assert found["room_gib"] == 0
    assert kept(tmp_path) == []


def test_a_long_one_is_kept_until_it_is_damaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "KEEP_S", 0.0)
    first = measuring.measure(RUN, 3, 0.0, 1)
    (path,) = kept(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "Bench", None)
        assert measuring.measure(RUN, 3, 0.0, 1) == first
        patch.setattr(memory, "check", refuse)
        assert measuring.measure(RUN, 3, 0.0, 1) == first
        patch.setattr(memory, "available_bytes", lambda: 0.0)
        with pytest.raises(InputError, match="too large"):
            measuring.measure(RUN, 3, 0.0, 1)
    path.write_text(path.read_text().replace("step", "stop", 1))
    assert "step_time_s" in measuring.measure(RUN, 3, 0.0, 1)
    assert kept(tmp_path) == [path]


def refuse(*_: object) -> None:
    raise InputError("too large")


@pytest.mark.parametrize(
    ("run", "num_runs", "threads"),
    [(RUN, 4, 1), (RUN, 3, 2), (RunSpec("beta_vae", "sprites", FIELDS | {"vae.width": 16}, 0), 3, 1)],
)
def test_another_pack_is_measured_by_itself(
    run: RunSpec, num_runs: int, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measuring, "KEEP_S", 0.0)
    measuring.measure(RUN, 3, 0.0, 1)
    measuring.measure(run, num_runs, 0.0, threads)
    assert len(kept(tmp_path)) == 2


def test_a_seed_or_a_weight_makes_no_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measuring, "KEEP_S", 0.0)
    measuring.measure(RUN, 3, 0.0, 1)
    measuring.measure(RunSpec("beta_vae", "sprites", FIELDS | {"beta": 16.0}, 7), 3, 0.0, 1)
    assert len(kept(tmp_path)) == 1


def test_where_a_step_is_slow_two_runs_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def build(runs: list[ResolvedRun], images: Images) -> Pack:
        built.append(len(runs))
        return Pack(runs, images)

    monkeypatch.setattr(measuring, "Pack", build)
    quick = measuring.Bench(RUN, 8, 0.0, 1)
    assert built == [2, 8]
    monkeypatch.setattr(measuring, "MEASURE_S", 0.0)
    slow = measuring.Bench(RUN, 8, 0.0, 1)
    assert built == [2, 8, 2]
    assert slow.step_time_s() == pytest.approx(4 * slow._first_step_s)
    assert quick.step_time_s() > 0
