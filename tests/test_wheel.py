"""The wheel: what is in it, and that it answers on its own, far from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests import extending
from trainables import __version__, plugins

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "sweeper", "trainables")
WHERE = """
import importlib.metadata, json, search_spaces, sweeper, trainables
files = [module.__file__ for module in (search_spaces, sweeper, trainables)]
print(json.dumps([importlib.metadata.version("disentangle-sweeper"), files]))
"""


def run(*words: object, cwd: Path) -> str:
    """What a command prints, which finds nothing of the checkout by its environment and downloads nothing."""
    names = {name for name in os.environ if name.startswith(("PYTHON", "PYTEST", "PIP_", "SWEEPER_"))}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    ran = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves files behind and takes in what an earlier one left."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder / "dist", source, cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that has the wheel, and of the tests' own environment all but the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    scripts = folder / "bin"
    site = Path(
        run(scripts / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    # A folder named in a .pth is searched, but the .pth files in it are not read: not that of `pip install -e`.
    (site / "dependencies.pth").write_text(
        "\n".join(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    )
    pip = (sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet", "--no-deps")
    run(*pip, wheel, cwd=folder)
    return scripts


def test_the_wheel_has_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    kept = {path.relative_to(ROOT).as_posix() for path in files if path.parent.name != "__pycache__"}
    assert names == kept
    assert {f"{package}/py.typed" for package in PACKAGES} < names
    assert {"sweeper/__main__.py", "trainables/models/factor_vae.py"} < names
    assert wheel.name == f"disentangle_sweeper-{__version__}-py3-none-any.whl"


def test_the_installed_packages_are_those_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    version, files = json.loads(run(installed / "python", "-P", "-c", WHERE, cwd=tmp_path))
    assert version == __version__
    for file in files:
        assert Path(file).is_relative_to(installed.parent)
        assert not Path(file).is_relative_to(ROOT)


@pytest.mark.parametrize("words", [("python", "-P", "-m", "sweeper"), ("sweeper",)], ids=["module", "script"])
def test_the_installed_program_lists_the_sweeps(
    installed: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    command, *options = words
    listed = json.loads(run(installed / command, *options, "list", "--json", cwd=tmp_path))
    assert set(listed) == set(plugins.names("search_spaces"))


@pytest.mark.system
def test_the_installed_program_takes_files_of_ones_own_from_any_folder(
    installed: Path, tmp_path: Path
) -> None:
    """With Ray, whose workers get the content of the files; then without the files."""
    extending.write_files(tmp_path)
    own = ["annealing", "--scale", "smoke", "--home", "home"]

    def typed(*words: str) -> str:
        return run(installed / "sweeper", *words, cwd=tmp_path)

    assert typed("run", "./annealing.py", *own[1:], "--ray").startswith(
        "8 runs trained, 0 done before, 0 failed, 0 diverged."
    )
    for path in tmp_path.glob("*.py"):
        path.unlink()
    assert typed("evaluate", *own, "--metric", "mig").startswith("8 runs scored")
    assert typed("pareto", *own, "--objectives", "mig,code_entropy").count("annealed_vae") >= 4
    typed("sync", *own)
    assert "MLflow agree" in typed("verify", *own)
