"""Every entry of a plug-in package has the type of its contract, by the type checker."""

import subprocess
import sys
from pathlib import Path

from trainables import plugins

ROOT = Path(__file__).parents[2]
PROTOCOLS = {"metrics": "Metric", "models": "ModelModule", "data": "DataSet"}


def test_the_type_checker_accepts_every_entry_as_its_contract(tmp_path: Path) -> None:
    lines = [f"from trainables.contracts import {', '.join(PROTOCOLS.values())}"]
    for package, protocol in PROTOCOLS.items():
        for name in plugins.names(f"trainables.{package}"):
            lines += [f"import trainables.{package}.{name}"]
            lines += [f"{package}_{name}: {protocol} = trainables.{package}.{name}"]
    lines += ["wrong: Metric = trainables.models.beta_vae"]
    lines += ["from trainables.contracts import LikelihoodModel, Model"]
    lines += ["def model(built: trainables.models.info_wgan_gp.Model) -> Model: return built"]
    lines += ["def vae(built: trainables.models.factor_vae.Model) -> LikelihoodModel: return built"]
    path = tmp_path / "entries.py"
    path.write_text("\n".join(lines))
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *config, path], capture_output=True, text=True, cwd=ROOT
    )
    errors = [line for line in checked.stdout.splitlines() if ": error: " in line]
    assert len(errors) == 1, checked.stdout + checked.stderr
    assert '"Metric"' in errors[0], "the one that is wrong on purpose"
