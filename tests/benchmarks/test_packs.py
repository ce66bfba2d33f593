"""The benchmark of packs, at a small size and without other processes."""

import json
import multiprocessing
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks import machine, packs, processes, pythae_steps
from benchmarks.products import products_of
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images

pytestmark = pytest.mark.usefixtures("arithmetic")


def test_the_products_of_a_step_leave_what_was_trained_alone(
    small_run: Callable[..., ResolvedRun], noise_images: Callable[..., Images]
) -> None:
    pack = Pack([small_run("factor_vae", seed) for seed in range(2)], noise_images(1, is_binary=False))
    advance = products_of(pack)
    before = pack.states()
    advance(2)
    assert pack.step == 1
    assert all(
        old[name].tobytes() == new[name].tobytes()
        for old, new in zip(before, pack.states(), strict=True)
        for name in old
    )


def test_all_take_turns_and_are_compared_with_ordinary_modules(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(packs, "SIZES", {"smoke": (1, 2)})
    monkeypatch.setattr(packs, "TURN_S", {"smoke": 0.01})
    monkeypatch.setattr(packs, "SWEEPS", {"factor_vae": packs.SWEEPS["factor_vae"]})
    monkeypatch.setattr(pythae_steps, "is_installed", lambda: False)
    monkeypatch.setattr(processes, "rates", lambda makers, *_: {name: [1.0] for name, _, _ in makers})
    out = tmp_path / "packs.json"
    assert packs.main(["--scale", "smoke", "--rounds", "1", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    alone = ["ordinary modules", "pack of 1", "pack of 2", "products of the pack of 2"]
    assert [row["what"] for row in rows][:4] == alone
    assert [row["what"].partition(" in each ")[2] for row in rows[4:]] == ["ordinary modules", "a pack of 2"]
    assert all(0 < row["low"] <= row["run_steps_per_s"] <= row["high"] for row in rows)
    assert rows[0]["times_plain"] == 1.0
    assert rows[3]["run_steps_per_s"] > rows[2]["run_steps_per_s"]
    assert "| factor_vae | smoke | pack of 2 |" in capsys.readouterr().out


def test_a_process_trains_in_its_turns_until_nobody_asks() -> None:
    ours, theirs = multiprocessing.Pipe()
    taken: list[tuple[str, int]] = []

    def make(name: str) -> Callable[[], Callable[[int], None]]:
        return lambda: lambda num_steps: taken.append((name, num_steps))

    makers = [("one run", 1, make("run")), ("a pack", 8, make("pack"))]
    server = threading.Thread(target=processes._serve, args=(theirs, makers, 0.01))
    server.start()
    assert ours.recv() == "ready"
    ours.send("a pack")
    assert ours.recv() > 0
    assert set(taken) == {("pack", 1)}
    ours.close()
    server.join(10)
    assert not server.is_alive()


@pytest.mark.parametrize("fails", [False, True])
def test_the_stages_are_one_file_and_one_page(
    fails: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if not fails:
            Path(words[-1]).write_text(json.dumps({"rows": [{"command": words[2], "seconds": 1.5}]}))
        return subprocess.CompletedProcess(words, 2 if fails else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(machine, "describe", lambda _: {"cpu": "a processor"})
    out = tmp_path / "new" / "bench.json"
    assert bench.main(["--stage", "size", "--out", str(out)]) == int(fails)
    said = capsys.readouterr().out
    assert ("size: failed" in said) == fails
    assert ("| benchmarks.size | 1.5 |" in said) == (not fails)
    assert json.loads(out.read_text())["stages"]["size"]["status"] == ("failed" if fails else "done")
