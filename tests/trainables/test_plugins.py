"""Plug-ins: entries of packages, and files of your own."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from trainables import contracts, plugin_files, plugin_store, plugins
from trainables.durable import DamagedBlockError
from trainables.errors import InputError, UnknownNameError
from trainables.layout import Layout
from trainables.metric_identity import identity, is_current
from trainables.plugin_files import SIGNS

pytestmark = pytest.mark.usefixtures("own_files")

METRIC = """
VERSION = 1
TITLE = "mean square of the codes"
DIRECTION = "minimize"
RANGE = (0.0, float("inf"))
UNIT = ""
NEEDS_FACTORS = 0
IS_CHEAP = True
SETTINGS = {}

def score(encoding, generator):
    return {"code_norm": float((encoding.mu_ND**2).mean())}
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("SWEEP = 1", "search_spaces"),
        ("SWEEP: object = 1", "search_spaces"),
        ("from trainables.models.beta_vae import Config, Model, check_shape", "trainables.models"),
        ("class Model: pass\ndef helper(): pass", "trainables.models"),
        (METRIC, "trainables.metrics"),
        ("def find(): pass", "trainables.data"),
    ],
)
def test_the_kind_is_read_without_running_the_file(tmp_path: Path, text: str, package: str) -> None:
    file = plugin_files.read(written(tmp_path, "mine.py", f"{text}\nraise SystemExit"))
    assert (file.package, file.name) == (package, "mine")
    assert plugins.add(file) == f"mine@{file.sha256}"
    assert "mine" in plugins.names(package)


def test_every_entry_of_a_package_has_the_sign_of_its_kind() -> None:
    for package in SIGNS:
        folder = Path(__import__(package, fromlist=["__path__"]).__path__[0])
        for name in plugins.names(package):
            assert plugin_files.read(folder / f"{name}.py").package == package


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("mine.py", "x = 1", "not a plug-in"),
        ("mine.py", "SWEEP = 1\ndef find(): pass", "several kinds"),
        ("mine.py", "SWEEP = = 1", r"mine\.py, line 1: invalid syntax"),
        ("Mine.py", "SWEEP = 1", "lowercase"),
        ("my-sweep.py", "SWEEP = 1", "lowercase"),
        ("mine.txt", "SWEEP = 1", "not a Python file"),
        ("mine.py", "from . import other\nSWEEP = 1", "line 1: imports \\. from its own folder"),
        ("mine.py", "SWEEP = 1\ndef f():\n    from .other import x", "line 3: imports .other from its own"),
        (
            "mine.py",
            "import numpy\nimport beside_it\nSWEEP = 1",
            "line 2: imports beside_it from its own folder",
        ),
        ("mine.py", "from beside_it.deep import x\nSWEEP = 1", "imports beside_it from its own folder"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path, name: str, text: str, error: str) -> None:
    written(tmp_path, "beside_it.py", "")
    with pytest.raises(InputError, match=error):
        plugin_files.read(written(tmp_path, name, text))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import json\n\nx = 1 / 0\nSWEEP = x", r"line 3: ZeroDivisionError: division by zero"),
        (
            "import no_such_package\nSWEEP = 1",
            r"line 1: ModuleNotFoundError: No module named 'no_such_package'",
        ),
    ],
)
def test_a_file_that_fails_says_where(tmp_path: Path, text: str, error: str) -> None:
    path = written(tmp_path, "mine.py", text)
    name = plugins.add_path(path).name
    with pytest.raises(InputError, match=error):
        plugins.load("search_spaces", name, "sweep")


def test_a_missing_file_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        plugins.add_path(tmp_path / "mine.py")
    path = written(tmp_path, "mine.py", METRIC)
    with pytest.raises(InputError, match="is a metric; expected a model"):
        plugins.named(str(path), contracts.MODELS)
    with pytest.raises(InputError, match="there is a metric mig already"):
        plugins.named(str(written(tmp_path, "mig.py", METRIC)), contracts.METRICS)


def test_a_name_stands_for_the_content_that_was_read_first(tmp_path: Path) -> None:
    path = written(tmp_path, "code_norm.py", METRIC)
    first = plugins.reference(contracts.METRICS, plugins.named(str(path), contracts.METRICS))
    path.write_text(METRIC + "\n# changed")
    assert plugins.reference(contracts.METRICS, plugins.named(str(path), contracts.METRICS)) == first
    assert plugins.load(contracts.METRICS, "code_norm", "metric") is plugins.load(
        contracts.METRICS, first, "metric"
    )
    assert plugins.shown(contracts.METRICS, first) == "code_norm"
    newer = plugins.add(plugin_files.read(path))
    assert plugins.shown(contracts.METRICS, first) == first[: len("code_norm@") + 8]
    assert plugins.load(contracts.METRICS, first, "metric") is not plugins.load(
        contracts.METRICS, newer, "metric"
    )


def test_the_content_of_a_metric_is_part_of_its_full_name(tmp_path: Path) -> None:
    path = written(tmp_path, "code_norm.py", METRIC)
    plugins.add(plugin_files.read(path))
    before = identity("code_norm", 10)
    assert before == f"code_norm(v1, images=10, file={plugin_files.read(path).sha256[:16]})"
    path.write_text(METRIC.replace("**2", "**4"))
    assert is_current("code_norm", before)
    plugins.add(plugin_files.read(path))
    assert not is_current("code_norm", before)
    assert "file=" not in identity("mig", 10)


def test_another_process_learns_what_names_stand_for(tmp_path: Path) -> None:
    path = written(tmp_path, "code_norm.py", METRIC)
    older = plugins.add(plugin_files.read(path))
    path.write_text(METRIC.replace("**2", "**4"))
    newer = plugins.add(plugin_files.read(path))
    path.unlink()
    carried = plugins.carried()
    plugins._by_reference.clear()
    plugins._current.clear()
    plugins.learn(carried)
    assert plugins.reference(contracts.METRICS, "code_norm") == newer
    assert "**4" in plugins.file_of(newer).text  # type: ignore[union-attr]
    plugins.check(contracts.METRICS, older, "metric")
    with pytest.raises(UnknownNameError):
        plugins.check(contracts.METRICS, "code_norm@0", "metric")


def test_a_storage_keeps_files_and_what_their_names_stand_for(tmp_path: Path) -> None:
    path = written(tmp_path, "code_norm.py", METRIC)
    older = plugins.add(plugin_files.read(path))
    plugin_store.keep(tmp_path, [older, "mig"])
    path.write_text(METRIC.replace("**2", "**4"))
    newer = plugins.add(plugin_files.read(path))
    plugin_store.keep(tmp_path, [newer, newer])
    plugins._by_reference.clear()
    plugins._current.clear()
    plugin_store.add_kept(tmp_path)
    assert plugins.reference(contracts.METRICS, "code_norm") == newer
    kept = plugins.file_of(newer)
    assert kept
    assert kept.path == path
    assert plugins.load(contracts.METRICS, older, "metric").TITLE == "mean square of the codes"
    assert len(list(Layout(tmp_path).plugins.rglob("*.*"))) == 3


def test_what_was_typed_goes_before_what_a_storage_keeps(tmp_path: Path) -> None:
    path = written(tmp_path, "code_norm.py", METRIC)
    plugin_store.keep(tmp_path, [plugins.add(plugin_files.read(path))])
    plugins._by_reference.clear()
    path.write_text(METRIC.replace("**2", "**4"))
    typed = plugins.add(plugin_files.read(path))
    plugin_store.add_kept(tmp_path)
    assert plugins.reference(contracts.METRICS, "code_norm") == typed


def test_a_kept_file_with_the_name_of_an_entry_is_known_by_its_reference_alone(tmp_path: Path) -> None:
    file = dataclasses.replace(plugin_files.read(written(tmp_path, "code_norm.py", METRIC)), name="mig")
    reference = plugins.add(file, is_current=False)
    assert plugins.reference(contracts.METRICS, "mig") == "mig"
    plugins.check(contracts.METRICS, reference, "metric")


def test_a_kept_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    reference = plugins.add(plugin_files.read(written(tmp_path, "code_norm.py", METRIC)))
    plugin_store.keep(tmp_path, [reference])
    with (Layout(tmp_path).plugins / "metrics" / f"{reference}.py").open("a") as kept:
        kept.write(" ")
    with pytest.raises(DamagedBlockError, match="is damaged"):
        plugin_store.add_kept(tmp_path)


def test_folders_of_the_environment_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "code_norm.py", METRIC)
    written(tmp_path, "_shared.py", "x = 1")
    monkeypatch.setenv(plugins.FOLDERS, str(tmp_path))
    plugins.add_from_environment()
    assert "code_norm" in contracts.metric_names()
    monkeypatch.setenv(plugins.FOLDERS, f"{tmp_path}:{tmp_path / 'missing'}")
    with pytest.raises(InputError, match=r"SWEEPER_PLUGINS=.*missing: no such folder"):
        plugins.add_from_environment()


@pytest.mark.system
def test_a_model_in_a_file_of_its_own_trains_without_ray(tmp_path: Path) -> None:
    text = (
        '"""A VAE."""\n\nfrom trainables.models.beta_vae import Config, Model, check_shape\n\nVERSION = 1\n'
    )
    path = written(tmp_path, "my_vae.py", text)
    common = ["--data", "sprites", "--set", "vae.network=mlp", "--set", "vae.width=8", "--steps", "2"]
    ran = subprocess.run(
        [sys.executable, "-m", "trainables", str(path), *common], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    own = subprocess.run(
        [sys.executable, "-m", "trainables", "beta_vae", *common], capture_output=True, text=True, check=False
    )
    mine, theirs = (each.stdout.splitlines()[-1].split('"params_sha256": ')[1][:66] for each in (ran, own))
    assert mine == theirs
    keys = {each.stdout.split('"run_key": ')[1][:66] for each in (ran, own)}
    assert len(keys) == 2, "the content of the file is part of the key"
