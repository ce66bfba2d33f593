"""The laws of metrics and data sets."""

import re
from pathlib import Path

import pytest

from tests.trainables.test_plugins import METRIC
from trainables import contracts, plugins
from trainables.checking import data_sets, metrics
from trainables.checking.laws import Verdict

pytestmark = pytest.mark.usefixtures("own_files")

DOCS = '"""Mean square.\n\nDefinition: mean.\nRange: 0 .. inf.\nDirection: smaller.\nChance: any.\nSource: none.\n"""\n'


def problems(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.law: verdict.problem for verdict in verdicts if verdict.problem}


@pytest.mark.parametrize("name", [name for name in plugins.names(contracts.METRICS) if name != "dci"])
def test_every_metric_keeps_its_contract(name: str) -> None:
    verdicts = metrics.check(name)
    assert len(verdicts) == len(metrics.LAWS)
    assert not problems(verdicts)


def test_a_sound_metric_in_a_file_of_its_own_passes(tmp_path: Path) -> None:
    assert not checked(tmp_path, DOCS + METRIC)


def checked(folder: Path, text: str) -> dict[str, str]:
    path = folder / "code_norm.py"
    path.write_text(text)
    plugins.add_path(path)
    return problems(metrics.check("code_norm"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("DIRECTION = ", "DIRECTION_ = "), "DIRECTION is missing"),
        (('"minimize"', '"min"'), "DIRECTION is 'min'; expected minimize or maximize"),
        (("NEEDS_FACTORS = 0", "NEEDS_FACTORS = 7"), "expected 0, 1 or 2"),
        (("Chance: ", "Chances: "), "lacks 'Chance: ...'"),
        (('"code_norm":', '"norm":'), "does not return 'code_norm', but norm"),
        (("return {", 'return {"other": 1.0, '), "parts are named 'code_norm/part'"),
        (("float((encoding.mu_ND**2).mean())", "(encoding.mu_ND**2).mean()"), "is float32; expected float"),
        (("RANGE = (0.0, float(", "RANGE = (5.0, float("), "outside RANGE 5 .. inf"),
        (("return {", "encoding.mu_ND.sort(0)\n    return {"), "changes the encoding"),
        (("return {", "import random\n    return {'code_norm/x': random.random(), "), "Use only `generator`"),
        (("return {", "encoding.factors_NK[0, 0]\n    return {"), "IndexError"),
    ],
)
def test_a_metric_that_breaks_a_law_is_told_which(
    tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    assert change[0] in DOCS + METRIC
    (found,) = checked(tmp_path, (DOCS + METRIC).replace(*change)).values()
    assert re.search(re.escape(problem), found), found


DATA = '''"""Noise."""

from dataclasses import replace

import torch

from trainables.images import random_images


def find():
    """Images."""
    return {}
'''


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ('random_images((1, 8, 8), 100, torch.device("cpu")).source', ""),
        ('random_images((1, 8, 8), 100, torch.device("cpu"))', "find returns Images"),
        (
            'replace(random_images((1, 8, 8), 100, torch.device("cpu")).source, factor_names=("a",), factor_sizes=(7,))',
            "100 images, but 7",
        ),
        (
            'replace(random_images((1, 8, 8), 100, torch.device("cpu")).source, recipe=str(torch.rand(1)))',
            "recipe differs",
        ),
    ],
)
def test_a_data_set_is_checked(tmp_path: Path, returned: str, problem: str) -> None:
    path = tmp_path / "noise.py"
    path.write_text(DATA.format(returned))
    plugins.add_path(path)
    found = problems(data_sets.check("noise"))
    assert bool(found) == bool(problem)
    assert problem in "".join(found.values())


def test_a_built_in_data_set_keeps_its_contract() -> None:
    assert not problems(data_sets.check("sprites"))
