"""A home's calibration: asked of a real child process, kept by the metrics' full names, read back."""

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from sweeper.analysis import calibration
from sweeper.analysis.calibration import Calibrated
from sweeper.cli.tables import calibration_table
from sweeper.home import Home
from sweeper.machines.probe import Evaluated, Probe
from tests.sweeper.lent_probe import Lender
from trainables.durable import DamagedBlockError
from trainables.errors import InputError, UnknownNameError
from trainables.known_codes import CODES, CODES_VERSION, SEEDLESS
from trainables.metric_identity import identity

RECIPE = "sprites (rendered v1)"
METRICS = ("mig", "gaussian_tc")


def calibrated(
    home: Home, metrics: Sequence[str], num_seeds: int, data: str = "sprites"
) -> tuple[Calibrated, str]:
    text = io.StringIO()
    console = Console(file=text, width=200)
    return calibration.calibrate(home, data, metrics, num_seeds, console), text.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _one_process(lender: Lender) -> Iterator[None]:
    """All of these tests ask the process that other tests ask, too."""
    with pytest.MonkeyPatch.context() as patch:
        lender.lend(patch)
        yield


@pytest.fixture
def probe() -> Iterator[Probe]:
    with Probe() as probe:
        yield probe


@pytest.fixture(scope="module")
def kept(_one_process: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Calibrated, str]:
    """A home with two metrics at three seeds, and the answer; not to be changed."""
    home = Home.at(tmp_path_factory.mktemp("calibration") / "home")
    return home, *calibrated(home, METRICS, 3)


@pytest.fixture
def home(kept: tuple[Home, Calibrated, str], tmp_path: Path) -> Home:
    """A copy of it."""
    copy = Home.at(tmp_path / "home")
    (copy.path / "calibration").mkdir(parents=True)
    (copy.path / "calibration" / kept[1].path.name).write_bytes(kept[1].path.read_bytes())
    return copy


# The probe.


def test_the_probe_answers_with_a_value_a_seed(probe: Probe) -> None:
    assert probe.evaluated("sprites") == Evaluated(RECIPE, 1536)
    for code in CODES:
        values = probe.calibrate("sprites", code, "mig", 2)
        assert len(values) == (1 if code in SEEDLESS else 2)
        assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert probe.calibrate("sprites", "random", "mig", 2) == probe.calibrate("sprites", "random", "mig", 2)


def test_the_probe_hands_on_what_is_infinite(probe: Probe) -> None:
    assert probe.calibrate("sprites", "duplicated", "gaussian_tc", 1)[0] > 10


def test_the_probe_refuses_images_without_ground_truth_and_goes_on(probe: Probe, tmp_path: Path) -> None:
    path = tmp_path / "blind.npz"
    np.savez(path, images=np.zeros((40, 8, 8), dtype=bool))
    for ask in (lambda: probe.evaluated(str(path)), lambda: probe.calibrate(str(path), "oracle", "mig", 1)):
        with pytest.raises(InputError, match="no ground truth: nothing to calibrate"):
            ask()
    assert probe.evaluated("sprites").num_images == 1536


# The file.


def test_a_calibration_is_kept_by_the_full_names_of_its_metrics(kept: tuple[Home, Calibrated, str]) -> None:
    home, answer, said = kept
    found = calibration.references(home.path, RECIPE)
    assert found == answer.references
    assert list(answer.references) == [identity(name, 1536) for name in METRICS]
    assert answer.path == home.path / "calibration" / "sprites_rendered_v1.json"
    assert answer.num_computed == 2
    assert answer.sentence().startswith("Calibrated 2 metrics (0 done before)")
    assert "calibrating: 100% of 22 scores" in said


def test_another_estimator_another_number_of_images_or_other_images_have_no_reference(
    kept: tuple[Home, Calibrated, str],
) -> None:
    home, _, _ = kept
    found = calibration.references(home.path, RECIPE)
    assert identity("mig", 1536) in found
    assert identity("mig", 10_000) not in found
    assert identity("mig", 1536).replace("bins=20", "bins=30") not in found
    assert not calibration.references(home.path, "sprites (rendered v2)")
    assert not calibration.references(home.path / "elsewhere", RECIPE)


def test_codes_that_were_made_in_an_older_way_are_no_reference(
    kept: tuple[Home, Calibrated, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _, _ = kept
    monkeypatch.setattr(calibration, "CODES_VERSION", CODES_VERSION + 1)
    assert not calibration.references(home.path, RECIPE)


def test_means_and_limits_are_those_of_the_seeds(kept: tuple[Home, Calibrated, str], probe: Probe) -> None:
    home, _, _ = kept
    reference = calibration.references(home.path, RECIPE)[identity("mig", 1536)]
    for name, code in (("chance", "random"), ("untrained", "untrained"), ("rotated", "rotated")):
        values = probe.calibrate("sprites", code, "mig", 3)
        mean, error = np.mean(values), stats.sem(values)
        found = [getattr(reference, f"{name}{limit}") for limit in ("", "_lower", "_upper")]
        assert found == pytest.approx([mean, *stats.t.interval(0.95, 2, mean, error)], rel=1e-9)
    assert reference.ceiling == pytest.approx(1)
    assert reference.duplicated == 0
    assert reference.num_seeds == 3
    assert reference.chance < reference.untrained < reference.ceiling


def test_what_is_not_finite_comes_back(tmp_path: Path) -> None:
    values = {code: [0.5] for code in CODES} | {"random": [math.nan, 1.0], "duplicated": [math.inf]}
    entry = calibration._entry(values)
    reference = calibration._reference("mig(v1)", calibration._values(entry))
    assert reference.duplicated == math.inf
    assert math.isnan(reference.chance)


def test_calibrating_again_does_nothing_and_says_so(home: Home) -> None:
    path = home.path / "calibration" / "sprites_rendered_v1.json"
    before = path.read_bytes(), path.stat().st_mtime_ns
    answer, said = calibrated(home, METRICS[:1], 2)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert answer.num_computed == 0
    assert answer.sentence() == f"Nothing to do: {path} already has all requested metrics (1)."
    assert said == ""


def test_only_what_is_lacking_is_computed_and_what_was_there_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calibration.references(home.path, RECIPE)
    monkeypatch.setattr(calibration, "SLOW_S", 0.0)
    answer, said = calibrated(home, ("mig", "modularity"), 3)
    assert answer.num_computed == 1
    assert "modularity is slow" in said
    assert "mig is slow" not in said
    after = calibration.references(home.path, RECIPE)
    assert after.items() >= before.items()
    assert set(after) == {*before, identity("modularity", 1536)}


def test_more_seeds_take_the_place_of_fewer(home: Home) -> None:
    answer, _ = calibrated(home, ("mig",), 4)
    found = calibration.references(home.path, RECIPE)
    assert answer.num_computed == 1
    assert found[identity("mig", 1536)].num_seeds == 4
    assert found[identity("gaussian_tc", 1536)].num_seeds == 3


def test_a_damaged_file_is_named_with_the_remedy(home: Home) -> None:
    path = home.path / "calibration" / "sprites_rendered_v1.json"
    path.write_bytes(path.read_bytes().replace(b"random", b"randon"))
    for ask in (lambda: calibration.references(home.path, RECIPE), lambda: calibrated(home, ("mig",), 1)):
        with pytest.raises(DamagedBlockError, match=rf"{path} is damaged[^$]*Remove it"):
            ask()


def test_a_file_of_other_images_is_not_taken_for_theirs(home: Home) -> None:
    path = home.path / "calibration" / "sprites_rendered_v1.json"
    path.rename(path.with_name("sprites_rendered_v2.json"))
    with pytest.raises(
        DamagedBlockError, match=r"sprites_rendered_v2.*was calibrated on sprites \(rendered v1\)"
    ):
        calibration.references(home.path, "sprites (rendered v2)")


def test_a_metric_of_more_than_codes_and_ground_truth_is_refused(home: Home) -> None:
    with pytest.raises(InputError, match=r"kl needs more than codes and ground truth[^$]*Valid: .*mig"):
        calibrated(home, ("mig", "kl"), 1)
    with pytest.raises(UnknownNameError, match="Did you mean 'mig'"):
        calibrated(home, ("migs",), 1)


# For a person.


def shown(answer: Calibrated) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=80).print(calibration_table(answer))
    return text.getvalue().splitlines()


def test_the_table_has_a_row_a_metric_and_fits_80_columns(kept: tuple[Home, Calibrated, str]) -> None:
    _, answer, _ = kept
    lines = shown(answer)
    assert lines[0].strip() == "sprites (rendered v1): means over 3 seeds \N{PLUS-MINUS SIGN} 95 % intervals"
    assert lines[1].split() == ["metric", "best", "random", "untrained", "rotated", "duplicated", "oracle"]
    mig, tc = (line.split() for line in lines[2:4])
    assert mig[:3] == ["mig", "max", ".001"]
    assert mig[-2:] == [".000", "1.00"]
    assert tc[:2] == ["gaussian_tc", "min"]
    assert all(len(line) <= 80 for line in lines)
    assert "rotated" in " ".join(lines[4:])


def test_the_longest_name_and_the_widest_numbers_are_not_cut(kept: tuple[Home, Calibrated, str]) -> None:
    _, answer, _ = kept
    reference = answer.references[identity("mig", 1536)]
    changes: dict[str, Any] = {
        "identity": identity("factor_vae_score_heldout", 1536),
        **{f"{name}": 0.4254 for name in ("chance", "untrained", "rotated")},
        **{f"{name}_upper": 0.4254 + 12.71 for name in ("chance", "untrained", "rotated")},
    }
    wide = dataclasses.replace(reference, **changes)
    lines = shown(dataclasses.replace(answer, references={wide.identity: wide}))
    assert lines[2].split()[0] == "factor_vae_score_heldout"
    assert lines[2].count(".425 \N{PLUS-MINUS SIGN}12.7") == 3


def test_one_seed_has_no_half_width(kept: tuple[Home, Calibrated, str]) -> None:
    _, answer, _ = kept
    reference = answer.references[identity("mig", 1536)]
    changes: dict[str, Any] = {f"{name}_upper": math.nan for name in ("chance", "untrained", "rotated")}
    alone = dataclasses.replace(reference, **changes)
    assert (
        "\N{PLUS-MINUS SIGN}" not in shown(dataclasses.replace(answer, references={alone.identity: alone}))[2]
    )
