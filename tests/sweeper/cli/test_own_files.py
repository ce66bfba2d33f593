"""A model, a metric and a sweep of one's own, as docs/extending.md shows them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from sweeper import __main__ as sweeper_main
from sweeper.cli.app import main
from tests import extending
from trainables import plugins
from trainables.layout import Layout

COMMANDS = re.findall(r"^python -m sweeper (.*)$", extending.TEXT, re.MULTILINE)
HOME = ["--scale", "smoke", "--home", "home"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_files: None) -> Path:
    """A folder with the files of the page, where commands are typed."""
    monkeypatch.chdir(tmp_path)
    extending.write_files(tmp_path)
    return tmp_path


def forget() -> None:
    """Begin a new process, as far as plug-ins are concerned."""
    for known in (plugins._by_path, plugins._by_reference, plugins._current):
        known.clear()


def typed(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    forget()
    words = shlex.split(line)
    without_ray = ["--no-ray"] if words[0] == "run" else []
    assert main([*words, *without_ray]) == 0, line
    return capsys.readouterr().out


@pytest.mark.system
def test_the_page_about_extending_works(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweeper import pipeline

    monkeypatch.setattr(pipeline, "DELIVERY_S", 0.0)
    checked, ran, front, evaluated = (typed(line, capsys) for line in COMMANDS)
    assert "broken" not in checked
    assert checked.count("\n  ok ") == 10 + 6 + 3
    assert ran.startswith("8 runs trained")
    assert front.count("annealed_vae beta=") == 4
    assert evaluated.startswith("8 runs scored")

    # The originals are gone: everything still works, by name alone.
    for path in folder.glob("*.py"):
        shutil.move(path, f"{path}.moved")
    assert typed("run annealing --scale smoke", capsys).startswith("0 runs trained, 8 done before")
    assert re.search(r"warm_up=3.?000", typed("pareto annealing --scale smoke", capsys))
    csv = Path("sweeps/exports/annealing-smoke.csv").read_text()
    assert "annealed_vae," in csv
    kept = sorted(
        path.name.partition("@")[0] for path in Layout(Path("sweeps/storage")).plugins.rglob("*.py")
    )
    assert kept == ["annealed_vae", "annealing", "code_entropy"]

    # They are back, and the model was changed: the label's rows would be of two models.
    for path in folder.glob("*.moved"):
        shutil.move(path, path.with_suffix(""))
    with Path("annealed_vae.py").open("a") as file:
        file.write("\n# changed\n")
    forget()
    assert main(["run", "./annealing.py", "--scale", "smoke", "--no-ray"]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"already exists in this home with the model annealed_vae@\w{8}, not annealed_vae@\w{8}", said
    )


@pytest.mark.system
def test_a_sweep_is_checked_with_the_files_that_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert "broken" not in typed("check ./annealing.py", capsys)
    Path("annealing.py").write_text(Path("annealing.py").read_text().replace('"vae.width"', '"vae.with"'))
    forget()
    assert main(["check", "./annealing.py"]) == 1
    assert "Unknown field 'vae.with'. Did you mean 'vae.width'?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "remedy"),
    [("optuna", "Activate the environment: . .venv/bin/activate"), ("click.x", "Activate")],
)
def test_an_interpreter_without_the_packages_says_what_to_do(package: str, remedy: str, folder: Path) -> None:
    said = sweeper_main._not_installed(ModuleNotFoundError(name=package))
    assert said.endswith(
        "has no package 'optuna'.\nInstall first: make install".replace("optuna", package.split(".")[0])
    )
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    assert remedy in sweeper_main._not_installed(ModuleNotFoundError(name=package))
    with pytest.raises(ModuleNotFoundError):
        sweeper_main._not_installed(ModuleNotFoundError(name="sweeper.gone"))


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ("", ["run", "./missing.py"], "missing.py: No such file"),
        ("", ["run", "./annealed_vae.py"], "annealed_vae.py is a model; expected a sweep"),
        ("", ["pareto", "./code_entropy.py"], "code_entropy.py is a metric; expected a sweep"),
        ("", ["run", "annealing"], "Unknown sweep 'annealing'."),
        ("", ["check", "nonsense"], "Unknown plug-in 'nonsense'"),
        ("rm annealed_vae.py", ["run", "./annealing.py"], "annealed_vae.py: No such file"),
        ("rm code_entropy.py", ["plan", "./annealing.py"], "code_entropy.py: No such file"),
        (
            "cp annealing.py betavae_beta.py",
            ["run", "./betavae_beta.py"],
            "there is a sweep betavae_beta already",
        ),
        ("echo 'SWEEP = 1' > annealing.py", ["run", "./annealing.py"], "SWEEP is not a search_spaces.Sweep"),
        ("echo 'import torc' >> annealed_vae.py", ["run", "./annealing.py"], "No module named 'torc'"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(
    change: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess

    subprocess.run(change, shell=True, check=True)
    extra = [] if arguments[0] == "check" else HOME
    assert main([*arguments, *extra]) == 2
    assert said in capsys.readouterr().err
