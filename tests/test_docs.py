"""Every command that the documentation shows is one that the program takes; what it links to is there."""

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from benchmarks import __main__ as bench
from benchmarks import packs
from benchmarks.gpu import __main__ as gpu
from sweeper.cli import app
from tests import extending
from trainables import command_line, plugins

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [*PAGES, ROOT / "Makefile", *sorted((ROOT / "search_spaces").glob("[a-z]*.py"))]


def commands(module: str) -> list[pytest.ParameterSet]:
    """Command lines of a module in the documentation, without comments and pipes."""
    found = []
    for source in SOURCES:
        text = source.read_text().replace("\\\n", " ")
        for match in re.finditer(rf"python -m {module} ([^`'\n#|]+)", text):
            line = match[1].replace("$(SWEEPS)", "factorvae_gamma").replace("$(QUICKSTART)", "sweeps")
            found.append(pytest.param(shlex.split(line), id=f"{source.name}: {line.strip()}"))
    return found


@pytest.fixture
def files_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_files: None) -> None:
    """A working folder with the files of docs/extending.md."""
    monkeypatch.chdir(tmp_path)
    extending.write_files(tmp_path)


@pytest.mark.parametrize("arguments", commands("sweeper"))
@pytest.mark.usefixtures("files_of_the_page")
def test_a_documented_command_of_the_sweeper_parses(arguments: list[str]) -> None:
    name, *rest = arguments
    command = app.sweeper.commands[name]
    with click.Context(app.sweeper, info_name="sweeper") as parent:
        context = command.make_context(name, rest, parent=parent)
    for sweep in context.params.get("names") or [context.params.get("name", "factorvae_gamma")]:
        assert sweep in [*plugins.names("search_spaces"), "annealing"]


@pytest.mark.parametrize("arguments", commands("trainables"))
def test_a_documented_command_of_the_core_parses(arguments: list[str]) -> None:
    options = command_line.build_parser(None).parse_args(arguments)
    plugins.check("trainables.models", options.model, "model")


@pytest.mark.parametrize(
    ("parser", "arguments"),
    [
        pytest.param(module.build_parser, *found.values, id=found.id)
        for module in (bench, gpu, packs)
        for found in commands(module.__name__.removesuffix(".__main__"))
    ],
)
def test_a_documented_measurement_parses(
    parser: Callable[[], argparse.ArgumentParser], arguments: list[str]
) -> None:
    parser().parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_tests_that_are_named_are_there() -> None:
    named = re.findall(r"`(tests/\S+)::(test_\w+)`", (ROOT / "docs" / "faults.md").read_text())
    assert len(named) > 10
    for path, test in named:
        assert f"\ndef {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


def test_the_tour_names_every_room_and_every_entry() -> None:
    tour = (ROOT / "README.md").read_text().partition("## A guided tour")[2].partition("## Adding")[0]
    for path in sorted((ROOT / "sweeper").glob("[a-z]*")):
        assert path.suffix != ".py" or path.name in tour, path
        assert path.is_file() or f"  {path.name}/ " in tour, path
    for package in ("trainables.models", "trainables.data", "trainables.metrics", "search_spaces"):
        assert [name for name in plugins.names(package) if not re.search(rf"\b{name}\b", tour)] == []


def test_architecture_has_a_line_for_every_file_and_for_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Every file")[2]
    named = set()
    for section in text.split("\n### ")[1:]:
        folder, _, lines = section.partition("\n")
        for names in re.findall(r"^- ((?:`\w+\.py`(?:, )?)+): \S", lines, re.MULTILINE):
            named |= {f"{folder.strip()}/{name}" for name in re.findall(r"`(\w+\.py)`", names)}
    packages = ("search_spaces", "sweeper", "trainables")
    files = {str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py")}
    says_itself = {
        file for file in files if file.endswith("__init__.py") and file != "search_spaces/__init__.py"
    }
    assert named == files - says_itself


def test_make_targets_of_the_documentation_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`?make ([a-z]+(?:-[a-z]+)*)", page.read_text())) <= targets
