"""The GPU kit, rehearsed at tiny sizes on a CPU: every stage runs, and what it writes can be read at any moment."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import table
from benchmarks.gpu import __main__ as kit
from benchmarks.gpu.stages import ALL, ORDER, train
from search_spaces import factorvae_gamma
from trainables import plugins

ROOT = Path(__file__).parents[2]

Rehearsal = tuple[subprocess.CompletedProcess[str], Path]
"""What ran, and the folder with all that it wrote."""


def measure(*words: object, timeout_s: int = 220) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=timeout_s)


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """All stages, the long one in two parts that go on from one another."""
    folder = tmp_path_factory.mktemp("gpu")
    words = ["--rehearse", "--out", folder / "out", "--keep", folder / "keep", "--commit", "abc"]
    ran = measure(*words, "--seconds", 200, "--stages", ",".join(ALL))
    return ran, folder


def result(rehearsal: Rehearsal) -> dict[str, Any]:
    ran, folder = rehearsal
    assert ran.returncode == 0, ran.stderr + (folder / "out" / "log.txt").read_text()
    found: dict[str, Any] = json.loads((folder / "out" / "gpu.json").read_text())
    return found


@pytest.mark.system
def test_every_stage_is_measured(rehearsal: Rehearsal) -> None:
    found = result(rehearsal)
    assert {name: stage["status"] for name, stage in found["stages"].items()} == dict.fromkeys(ALL, "done")
    assert all(stage["rows"] for stage in found["stages"].values())
    assert len(list((rehearsal[1] / "out").iterdir())) <= 8


@pytest.mark.system
def test_the_result_names_machine_versions_and_commit(rehearsal: Rehearsal) -> None:
    machine = result(rehearsal)["machine"]
    assert machine["commit"] == "abc"
    assert machine["torch"] == torch.__version__
    assert {"date", "cpu", "cores", "python", "numpy", "device"} <= set(machine)


@pytest.mark.system
def test_what_is_promised_on_a_cpu_is_equal_there(rehearsal: Rehearsal) -> None:
    stages = result(rehearsal)["stages"]
    rows = stages["equality"]["rows"]
    assert all(row["is_equal"] for row in rows if "is_equal" in row)
    digests = {(row["model"], row["first"]) for row in rows if row["what"] == "size and slot"}
    assert len(digests) == 2, "one a model, whatever the size"
    errors = [
        row["error"] for row in rows if row["what"].startswith("gradients") and row["precision"] == "fp32"
    ]
    assert errors
    assert max(errors) < 1e-5
    for row in stages["smoke"]["rows"]:
        assert row["is_resume_equal"]
        assert row["diverged"] == 0
    assert {row["model"] for row in stages["smoke"]["rows"]} == set(plugins.names("trainables.models"))


@pytest.mark.system
def test_rates_have_a_spread(rehearsal: Rehearsal) -> None:
    stages = result(rehearsal)["stages"]
    rated = [row for name in ("rates", "launches", "convolutions", "models") for row in stages[name]["rows"]]
    for row in rated:
        assert 0 < row["low"] <= row["run_steps_per_s"] <= row["high"]
    assert {row["runs"] for row in stages["rates"]["rows"]} == {1, 2, 3}
    assert all(0 < row["inputs_share"] < 1 for row in stages["rates"]["rows"])


@pytest.mark.system
def test_a_table_comes_from_it(rehearsal: Rehearsal) -> None:
    found = result(rehearsal)
    text = (rehearsal[1] / "out" / "gpu.md").read_text()
    assert text == table.markdown(found)
    assert "these numbers mean nothing" in text
    for stage in ALL:
        assert f"### {stage}: done" in text


@pytest.mark.system
def test_training_goes_on_from_what_it_kept(rehearsal: Rehearsal, tmp_path: Path) -> None:
    (first,) = [row for row in result(rehearsal)["stages"]["train"]["rows"] if row.get("what") == "trained"]
    assert first["steps"] == [0, 40]
    words = ["--rehearse", "--out", tmp_path, "--keep", rehearsal[1] / "keep", "--stages", "train"]
    ran = measure(*words)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())["stages"]["train"]["rows"]
    (again,) = [row for row in rows if row.get("what") == "trained"]
    assert again["steps"] == [40, 40], "it was at its end"
    assert {row["name"] for row in rows if "name" in row} >= {"recon_error", "factor_vae_score"}


def test_training_is_the_protocol_of_the_sweep() -> None:
    scale = factorvae_gamma.SWEEP.scales["paper"]
    assert scale.space["gamma"].choices == train.GAMMAS
    assert tuple(range(scale.num_seeds)) == train.SEEDS
    assert (scale.steps, scale.report_every, scale.evaluate_every) == (
        train.STEPS,
        train.REPORT_EVERY,
        train.EVALUATE_EVERY,
    )
    assert factorvae_gamma.SWEEP.metrics == train.METRICS


def test_a_stage_whose_process_dies_is_failed_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(options: argparse.Namespace, stages: list[str], seconds: float) -> None:
        """The first stage dies in its second line, and so does whatever comes after it once."""
        path = options.out / "gpu.json"
        found = json.loads(path.read_text())
        rows = [{"what": "first line"}]
        is_fatal = stages[0] == ORDER[1]
        status = "running" if is_fatal else "done"
        found["stages"][stages[0]] = {"status": status, "seconds": 1.0, "rows": rows, "error": ""}
        path.write_text(json.dumps(found))

    monkeypatch.setattr(kit, "_run_worker", crash)
    words = ["--rehearse", "--out", str(tmp_path), "--stages", ",".join(ORDER[:3])]
    assert kit.main(words) == 1
    stages = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert [stages[name]["status"] for name in ORDER[:3]] == ["done", "failed", "done"]
    assert stages[ORDER[1]]["rows"] == [{"what": "first line"}], "a cut loses nothing"
    assert "the process ended in the middle of it" in capsys.readouterr().out


HANGING = """
import json, subprocess, sys, time
from pathlib import Path
path = Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
found = json.loads(path.read_text())
found["stages"]["smoke"] = {"status": "running", "seconds": 0.0, "rows": [], "error": ""}
found["deadline_s"] = time.monotonic() - 1
path.with_name("child").write_text(str(child.pid))
path.write_text(json.dumps(found))
time.sleep(600)
"""


@pytest.mark.system
def test_a_stage_that_hangs_is_ended_with_all_that_it_started_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(words: list[str], **how: Any) -> subprocess.Popen[str]:
        """The first worker hangs; the second measures what is left. Other programs are started as they are."""
        if "--work" not in words:
            return popen(words, **how)
        started.append(words)
        hanging = [sys.executable, "-c", HANGING, str(tmp_path / "gpu.json")]
        return popen(hanging if len(started) == 1 else words, **how)

    started: list[list[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(kit, "GRACE_S", 0.2)
    assert kit.main(["--rehearse", "--out", str(tmp_path), "--stages", "smoke,ceilings"]) == 1
    stages = json.loads((tmp_path / "gpu.json").read_text())["stages"]
    assert {name: stage["status"] for name, stage in stages.items()} == {
        "smoke": "failed",
        "ceilings": "done",
    }
    assert len(started) == 2
    child = Path(f"/proc/{(tmp_path / 'child').read_text()}/stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_stages_that_cannot_be_started_end_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kit, "_run_worker", lambda *_: None)
    assert kit.main(["--rehearse", "--out", str(tmp_path)]) == 1
    assert "cannot be started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--stages", "rate"], "Unknown stage 'rate'.\nValid: ceilings,"), ([], "finds no CUDA device here")],
)
def test_wrong_words_are_answered(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kit.main(["--out", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_committed_results_are_tables_of_real_machines() -> None:
    for path in (ROOT / "benchmarks" / "results").glob("gpu-*.json"):
        found = json.loads(path.read_text())
        assert found["machine"]["card"]
        assert not found["settings"]["is_rehearsal"]
        assert table.markdown(found)


def test_the_kit_needs_torch_numpy_and_h5py_alone() -> None:
    code = (
        "import sys, benchmarks.gpu.__main__, benchmarks.gpu.process\nfrom importlib import import_module\n"
    )
    code += f"[import_module(f'benchmarks.gpu.stages.{{name}}') for name in {ALL}]\nprint(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    loaded = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not {"ray", "mlflow", "optuna", "pandas", "sweeper", "search_spaces", "rich", "click"} & loaded
