"""`rename` and `forget`: what a home lists changes, what was trained does not, also for a ledger that is made again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.sweeper.conftest import Typed

SMOKE = ["factorvae_gamma", "--scale", "smoke"]


@pytest.fixture
def home(trained_home: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_home, tmp_path / "home")


@pytest.fixture
def type_(home: Path, typed: Callable[..., Typed]) -> Callable[..., Typed]:
    """A function that types words about the home."""
    return lambda *words: typed(*words, "--home", home)


def listed(type_: Callable[..., Typed]) -> dict[str, int]:
    """Labels of the sweeps in the home, with the number of runs that are done."""
    told = json.loads(type_("status", "--json").out)["sweeps"]
    return {each["label"]: each["counts"]["done"] for each in told}


def test_a_renamed_sweep_keeps_its_results_and_a_rebuilt_ledger_has_its_new_label(
    home: Path, type_: Callable[..., Typed]
) -> None:
    before = type_("pareto", *SMOKE, "--csv", home / "before.csv")
    renamed = type_("rename", *SMOKE, "--to", "first")
    assert renamed.code == 0, renamed.err
    assert renamed.out.startswith("factorvae_gamma-smoke is factorvae_gamma-smoke-first now.")
    assert "MLflow keeps its experiment 'factorvae_gamma smoke'" in renamed.out
    assert listed(type_) == {"first": 4}
    assert type_("pareto", *SMOKE, "--as", "first", "--csv", home / "after.csv").code == before.code == 0
    first, second = (pd.read_csv(home / name) for name in ("before.csv", "after.csv"))
    assert list(second.pop("label")) == ["first"] * 2
    pd.testing.assert_frame_equal(first, second)
    (home / "ledger.db").unlink()
    assert type_("rebuild").code == 0
    assert listed(type_) == {"first": 4}
    again = type_("run", *SMOKE, "--as", "first", "--no-ray", "--json")
    assert json.loads(again.out)["trained"] == 0


def test_a_forgotten_sweep_is_not_listed_and_is_not_trained_again(
    home: Path, type_: Callable[..., Typed]
) -> None:
    forgotten = type_("forget", *SMOKE)
    assert forgotten.code == 0, forgotten.err
    assert "The results of its 4 runs stay in" in forgotten.out
    assert listed(type_) == {}
    (home / "ledger.db").unlink()
    assert type_("rebuild").code == 0
    assert listed(type_) == {}
    assert type_("pareto", *SMOKE).code == 2
    again = type_("run", *SMOKE, "--no-ray", "--json")
    assert again.code == 0, again.err
    assert (json.loads(again.out)["trained"], listed(type_)) == (0, {"": 4})


def test_wrong_words_are_answered(
    home: Path, type_: Callable[..., Typed], refused: Callable[..., None]
) -> None:
    where = ["--home", home]
    refused(["rename", *SMOKE, "--to", "a/b", *where], ["--to a/b: use only letters"])
    refused(["rename", *SMOKE, "--to", "", *where], ["--to '': the label is empty"])
    refused(["forget", *SMOKE, "--as", "none", *where], ["no results with --scale smoke --as none"])
    type_("run", *SMOKE, "--as", "taken", "--set", "gamma=1", "--set", "steps=100", "--no-ray")
    refused(["rename", *SMOKE, "--to", "taken", *where], ["factorvae_gamma-smoke-taken already exists"])
    refused(["rename", *SMOKE, "--as", "taken", "--to", "taken", *where], ["that is its label"])
