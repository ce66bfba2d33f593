import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from search_spaces.protocols.vae import LAPTOP_NOTE
from sweeper.analysis import labels, pareto
from sweeper.analysis.front import Answer, answer, summary, write_csv, write_left_out, write_runs
from sweeper.cli.tables import front_table
from sweeper.figures import front_data
from sweeper.figures.correlation_data import agreement
from sweeper.figures.front import FrontFigure, draw_front
from sweeper.figures.front_data import write_plot
from sweeper.figures.selection import Asked
from sweeper.home import lock_home
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Ledger
from tests.sweeper.analysis.test_results import (
    BETA,
    GAMMA,
    GAN,
    OBJECTIVES,
    SPRITES,
    Outcome,
    Outcomes,
    Params,
    beta,
    gamma,
    settings,
    train,
)
from trainables.durable import write_record
from trainables.errors import InputError, UnknownNameError
from trainables.known_codes import CODES_VERSION

OUTCOMES: dict[Params, Mapping[int, Outcome]] = {
    gamma(1.0): {0: (8.5, 0.7), 1: (8.25, 0.75), 2: (8.4, 0.8)},
    gamma(10.0): {0: (8.1, 0.7), 1: (8.2, 0.8), 2: (8.3, 0.85)},
    gamma(40.0): {0: (8.8, 0.9), 1: (9.1, 0.95), 2: (8.9, 0.99)},
}
OTHERS = {beta(1.5): {0: (8.3, 0.7), 1: (8.35, 0.72)}, beta(4.0): {0: (15.0, 0.65), 1: (16.0, 0.7)}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


@pytest.fixture
def both(ledger: Ledger) -> Answer:
    train(ledger, GAMMA, OUTCOMES)
    train(ledger, BETA, OTHERS, model="beta_vae")
    return answer(ledger.records, [GAMMA, BETA])


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def csv_of(
    home: Path, *trainings: tuple[SweepId, Outcomes, Mapping[str, Any]], sweeps: Sequence[SweepId] = (GAMMA,)
) -> Path:
    """The CSV of a home of its own in which these trainings were committed."""
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        for sweep, outcomes, how in trainings:
            train(ledger, sweep, outcomes, **how)
        return write_csv(answer(ledger.records, sweeps), home / "front.csv")


def test_the_csv_of_one_sweep_is_this(ledger: Ledger, tmp_path: Path) -> None:
    train(ledger, GAMMA, {gamma(10.0): {0: (8.0, 0.75)}, gamma(2.0): {0: (0.1 + 0.2, 0.5), 1: (0.3, 0.5)}})
    path = write_csv(answer(ledger.records, [GAMMA]), tmp_path / "front.csv")
    low, mean, high = (
        float(value) for value in (lines(path)[0][f"recon_error{x}"] for x in ("_lower", "", "_upper"))
    )
    known = f'sprites (rendered v1),"{settings("recon_error")}; {settings("factor_vae_score")}",cpu,1'
    assert path.read_bytes().decode() == (
        "sweep,scale,model,gamma,num_seeds,num_diverged,recon_error,recon_error_lower,recon_error_upper,"
        "factor_vae_score,factor_vae_score_lower,factor_vae_score_upper,on_front,on_model_front,data,"
        "metric_settings,numerics,code_version\n"
        f"factorvae_gamma,laptop,factor_vae,2.0,2,0,{mean!r},{low!r},{high!r},0.5,0.5,0.5,True,True,{known}\n"
        f"factorvae_gamma,laptop,factor_vae,10.0,1,0,8.0,,,0.75,,,True,True,{known}\n"
    )
    assert mean == (0.1 + 0.2 + 0.3) / 2
    half_width = stats.t.ppf(0.975, 1) * abs(0.1 + 0.2 - 0.3) / 2
    assert high - low == pytest.approx(2 * half_width, rel=0.1)  # of the last bits of numbers of size 0.3


def test_several_sweeps_share_a_file_and_hyperparameters_are_empty_where_not_theirs(
    both: Answer, tmp_path: Path
) -> None:
    found = lines(write_csv(both, tmp_path / "front.csv"))
    assert list(found[0])[:6] == ["sweep", "scale", "model", "beta", "gamma", "num_seeds"]
    assert [(row["sweep"], row["beta"], row["gamma"]) for row in found] == [
        ("betavae_beta", "1.5", ""),
        ("betavae_beta", "4.0", ""),
        ("factorvae_gamma", "", "1.0"),
        ("factorvae_gamma", "", "10.0"),
        ("factorvae_gamma", "", "40.0"),
    ]
    assert [row["on_model_front"] for row in found] == ["True", "False", "False", "True", "True"]
    assert [row["on_front"] for row in found] == ["False", "False", "False", "True", "True"]


def test_the_csv_can_be_computed_again_from_the_export_of_runs(ledger: Ledger, tmp_path: Path) -> None:
    train(
        ledger, GAMMA, OUTCOMES | {gamma(90.0): {0: (8.0, 0.99), 1: "diverged"}, gamma(95.0): {0: "planned"}}
    )
    train(ledger, BETA, OTHERS, model="beta_vae")
    found = answer(ledger.records, [GAMMA, BETA])
    runs = lines(write_runs(found, tmp_path / "runs.csv"))
    assert len(runs) == 2 * (12 + 4)
    values: defaultdict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
    first: dict[tuple[str, str, str], dict[str, str]] = {}
    diverged = set()
    for run in runs:
        draw = run["sweep"], run["beta"], run["gamma"]
        first.setdefault(draw, run)
        if run["status"] == "done":
            values[draw].setdefault(run["metric"], []).append(float(run["value"]))
        if run["status"] == "diverged":
            diverged.add(draw)
    points = {
        draw: [float(np.mean(of[name])) for name in OBJECTIVES]
        for draw, of in values.items()
        if draw not in diverged
    }

    def is_on_front(draw: tuple[str, str, str], others: Iterable[Sequence[float]]) -> bool:
        recon, score = points[draw]
        return not any(r <= recon and s >= score and (r, s) != (recon, score) for r, s in others)

    rows = lines(write_csv(found, tmp_path / "front.csv"))
    assert len(rows) == len(values) == 6
    for row in rows:
        draw = row["sweep"], row["beta"], row["gamma"]
        for name in OBJECTIVES:
            of_seeds = values[draw][name]
            assert float(row[name]) == pytest.approx(np.mean(of_seeds), rel=1e-15)
            if len(of_seeds) > 1:
                low, high = stats.t.interval(0.95, len(of_seeds) - 1, np.mean(of_seeds), stats.sem(of_seeds))
                assert float(row[f"{name}_lower"]) == pytest.approx(low, rel=1e-9)
                assert float(row[f"{name}_upper"]) == pytest.approx(high, rel=1e-9)
        own = [point for other, point in points.items() if other[0] == draw[0]]
        assert row["on_front"] == str(draw in points and is_on_front(draw, points.values()))
        assert row["on_model_front"] == str(draw in points and is_on_front(draw, own))
        assert int(row["num_seeds"]) == len(of_seeds)
        assert int(row["num_diverged"]) == (draw in diverged)
        for name in ("scale", "model", "data", "numerics", "code_version"):
            assert row[name] == first[draw][name]


def test_a_file_made_again_has_the_same_bytes(both: Answer, ledger: Ledger, tmp_path: Path) -> None:
    again = answer(ledger.records, [BETA, GAMMA, BETA])
    writers = (write_csv, write_left_out, write_runs, write_plot)
    for write, name in zip(writers, ("front.csv", "front.csv", "runs.csv", "front.png"), strict=True):
        one, two = write(both, tmp_path / "one" / name), write(again, tmp_path / "two" / name)
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()
    assert not list(tmp_path.rglob("*.partial"))
    assert summary(both) == summary(again)


def test_the_csv_does_not_depend_on_the_order_in_which_runs_were_committed(tmp_path: Path) -> None:
    backwards = dict(reversed(OUTCOMES.items()))
    one = csv_of(tmp_path / "one", (GAMMA, OUTCOMES, {}))
    two = csv_of(tmp_path / "two", (GAMMA, backwards, {"order": lambda keys: sorted(keys, reverse=True)}))
    by_seed: list[tuple[SweepId, Outcomes, dict[str, Any]]] = [
        (GAMMA, {params: {seed: of[seed]} for params, of in OUTCOMES.items()}, {}) for seed in (2, 0, 1)
    ]
    three = csv_of(tmp_path / "three", *by_seed)
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


def test_another_sweep_in_the_home_changes_nothing(tmp_path: Path) -> None:
    one = csv_of(tmp_path / "one", (GAMMA, OUTCOMES, {}))
    two = csv_of(tmp_path / "two", (BETA, OTHERS, {"model": "beta_vae"}), (GAMMA, OUTCOMES, {}))
    assert one.read_bytes() == two.read_bytes()


def test_a_seed_more_changes_the_row_of_its_draw_and_no_other(tmp_path: Path) -> None:
    more = {gamma(1.0): {}, gamma(10.0): {3: (8.2, 0.79)}}
    one = csv_of(tmp_path / "one", (GAMMA, OUTCOMES, {})).read_text().splitlines()
    two = csv_of(tmp_path / "two", (GAMMA, OUTCOMES, {}), (GAMMA, more, {})).read_text().splitlines()
    assert [before == after for before, after in zip(one, two, strict=True)] == [True, True, False, True]
    assert ",10.0,4,0," in two[2]


def test_what_is_missing_is_in_a_second_file_beside_the_first(ledger: Ledger, tmp_path: Path) -> None:
    train(
        ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9), 1: "running"}, gamma(2.0): {0: "diverged", 1: "failed"}}
    )
    path = write_left_out(answer(ledger.records, [GAMMA]), tmp_path / "front.csv")
    assert path.name == "front_left_out.csv"
    assert path.read_text() == (
        "sweep,scale,model,gamma,num_seeds,num_diverged,num_planned,reason\n"
        "factorvae_gamma,laptop,factor_vae,1.0,1,0,2,1 of 2 seeds done (1 running)\n"
        'factorvae_gamma,laptop,factor_vae,2.0,0,1,2,"0 of 2 seeds done (1 diverged, 1 failed)"\n'
    )


def test_mixed_numerics_are_in_the_csv(tmp_path: Path) -> None:
    more = {gamma(1.0): {3: (8.4, 0.75)}}
    path = csv_of(tmp_path, (GAMMA, OUTCOMES, {}), (GAMMA, more, {"numerics": "gpu", "code_version": "2"}))
    origin = [(row["numerics"], row["code_version"]) for row in lines(path)]
    assert origin == [("mixed", "mixed"), ("cpu", "1"), ("cpu", "1")]


def test_labelled_sweeps_have_a_column_for_the_label(ledger: Ledger, tmp_path: Path) -> None:
    other = SweepId("factorvae_gamma", "laptop", "again")
    train(ledger, GAMMA, OUTCOMES)
    train(ledger, other, {gamma(1.0): OUTCOMES[gamma(1.0)]})
    found = answer(ledger.records, [GAMMA, other])
    rows = lines(write_csv(found, tmp_path / "front.csv"))
    assert list(rows[0])[:4] == ["sweep", "scale", "label", "model"]
    assert [(row["label"], row["gamma"]) for row in rows] == [
        ("", "1.0"),
        ("", "10.0"),
        ("", "40.0"),
        ("again", "1.0"),
    ]
    assert "label" in (tmp_path / "front.csv").read_text()
    assert "label" in write_left_out(found, tmp_path / "front.csv").read_text()
    assert write_plot(found, tmp_path / "front.png").exists()


def test_nothing_finished_says_what_to_run(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: "planned", 1: "running", 2: "diverged"}})
    with pytest.raises(InputError) as error:
        answer(ledger.records, [GAMMA])
    assert str(error.value) == (
        "Sweep factorvae_gamma-laptop has no finished run yet (1 diverged, 1 planned, 1 running).\n"
        "Train first: python -m sweeper run factorvae_gamma --scale laptop"
    )


@pytest.mark.parametrize(("is_training", "said"), [(False, "Train first: "), (True, "It is training: ")])
def test_nothing_finished_yet_names_the_command_that_helps(
    is_training: bool, said: str, ledger: Ledger, tmp_path: Path
) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: "planned"}})
    with (
        lock_home(tmp_path) if is_training else nullcontext(),
        pytest.raises(InputError, match=said) as raised,
    ):
        answer(ledger.records, [GAMMA], home=tmp_path)
    word = "status" if is_training else "run"
    assert f"python -m sweeper {word} {GAMMA.name} --scale {GAMMA.scale}" in str(raised.value)
    assert f"--home {tmp_path}" in str(raised.value)


def test_a_sweep_that_has_not_begun_is_left_out_beside_one_that_has(ledger: Ledger, tmp_path: Path) -> None:
    train(ledger, GAMMA, OUTCOMES)
    train(ledger, BETA, {beta(1.5): {0: "planned", 1: "planned"}}, model="beta_vae")
    found = answer(ledger.records, [GAMMA, BETA])
    assert {row["sweep"] for row in lines(write_csv(found, tmp_path / "front.csv"))} == {"factorvae_gamma"}
    (row,) = lines(write_left_out(found, tmp_path / "front.csv"))
    assert (row["sweep"], row["reason"]) == ("betavae_beta", "0 of 2 seeds done (2 planned)")
    assert write_plot(found, tmp_path / "front.svg").exists()


def test_a_sweep_whose_module_is_gone_is_answered_from_the_ledger(ledger: Ledger) -> None:
    gone = SweepId("gone", "laptop")
    train(ledger, gone, OUTCOMES, objectives=("recon_mse", "factor_vae_score"))
    found = answer(ledger.records, [gone])
    assert (found.objectives, found.question, found.note) == (
        ("recon_mse", "factor_vae_score"),
        "Does it?",
        "A note.",
    )
    train(ledger, GAMMA, OUTCOMES)
    assert answer(ledger.records, [gone, GAMMA]).objectives == ("recon_mse", "factor_vae_score")


def test_the_words_of_a_sweep_are_those_of_its_module(both: Answer) -> None:
    assert both.objectives == OBJECTIVES
    assert both.note == LAPTOP_NOTE
    assert "beta grows? Does FactorVAE" in both.question


def test_objectives_may_be_named_and_an_unknown_one_is_refused(
    both: Answer, ledger: Ledger, tmp_path: Path
) -> None:
    found = answer(ledger.records, [GAMMA], objectives=["recon_error", "kl"])
    assert lines(write_csv(found, tmp_path / "kl.csv"))[0]["kl"] == "3.0"
    flipped = answer(ledger.records, [GAMMA], objectives=["factor_vae_score", "recon_error"])
    with pytest.raises(InputError, match="two objectives, the first one to minimize"):
        write_plot(flipped, tmp_path / "flipped.png")
    with pytest.raises(UnknownNameError, match="Unknown metric 'mug'"):
        answer(ledger.records, [GAMMA], objectives=["recon_error", "mug"])


def test_two_objectives_to_minimize_are_drawn_with_the_lower_up(
    both: Answer, ledger: Ledger, tmp_path: Path
) -> None:
    found = answer(ledger.records, [GAMMA], objectives=["recon_error", "kl"])
    assert write_plot(found, tmp_path / "kl.png").stat().st_size > 10_000
    family = front_data._family(found, "factor_vae")
    np.testing.assert_allclose(-family.means_N2[:, 1], found.draws["kl"].astype(float))


def test_sweeps_that_ask_for_different_reconstruction_errors_are_compared_by_the_one_that_all_have(
    ledger: Ledger,
) -> None:
    shared = ("recon_mse", "factor_vae_score")
    three = {beta(1.0): {0: (9.0, 0.9, 0.1), 1: (8.0, 0.8, 0.2)}}
    two: Outcomes = {(("information", 0.0),): {0: (0.3, 0.5), 1: (0.4, 0.6)}}
    train(ledger, BETA, three, model="beta_vae", objectives=(*OBJECTIVES, "recon_mse"))
    train(ledger, GAN, two, model="info_wgan_gp", objectives=shared, steps=7)
    found = answer(ledger.records, [BETA, GAN])
    assert found.objectives == shared
    assert "20 updates (beta_vae) and 7 generator updates (info_wgan_gp)" in summary(found)[0]
    assert answer(ledger.records, [BETA]).objectives == OBJECTIVES
    train(ledger, GAMMA, {gamma(1.0): {0: (9.0, 0.9)}})
    with pytest.raises(
        InputError, match=r"has the objectives recon_error.*\nChoose .*--objectives recon_mse"
    ):
        answer(ledger.records, [GAMMA, GAN])


def test_a_calibrated_metric_is_read_by_what_known_codes_score(
    both: Answer, ledger: Ledger, tmp_path: Path
) -> None:
    values = {
        "random": [0.2, 0.4],
        "untrained": [0.5],
        "rotated": [0.9],
        "duplicated": [1.0],
        "oracle": [0.98],
    }
    known = {
        settings("factor_vae_score"): values,
        settings("factor_vae_score", images=7): values | {"oracle": [0.1]},
    }
    entries = {
        full: {"values": each, "codes": CODES_VERSION, "code_version": "1"} for full, each in known.items()
    }
    (tmp_path / "calibration").mkdir()
    write_record(
        tmp_path / "calibration" / "sprites_rendered_v1.json",
        {"recipe": SPRITES, "data": "sprites", "metrics": entries},
    )
    assert answer(ledger.records, [GAMMA]).levels == {"recon_error": (), "factor_vae_score": ()}
    found = answer(ledger.records, [GAMMA], home=tmp_path)
    (ceiling, untrained, chance) = found.levels["factor_vae_score"]
    assert untrained[0] == "untrained encoder"
    assert ceiling == ("perfect code", 0.98)
    assert chance[0] == "random code"
    assert chance[1] == pytest.approx(0.3)
    console = Console(record=True, width=80)
    console.print(front_table(found))
    assert re.search(
        r"a perfect code +0\.98\b.*\n *an untrained encoder.*\n *a random code +0\.3\b", console.export_text()
    )
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"
    write_plot(answer(ledger.records, [GAMMA]), plain)
    write_plot(found, marked)
    assert plain.read_bytes() != marked.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_plot_is_drawn_in_the_format_of_its_suffix(both: Answer, tmp_path: Path, suffix: str) -> None:
    path = write_plot(both, tmp_path / f"a.front{suffix}")
    assert sorted(file.name for file in tmp_path.glob("*front*")) == [path.name]
    if suffix == ".png":
        with Image.open(path) as image:
            image.load()
            assert image.width == 1800
            assert 1100 < image.height < 1600
    else:
        assert path.read_text().startswith("<?xml")
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        write_plot(both, tmp_path / "front.pdf")


def test_the_caption_says_seeds_steps_data_scale_and_the_note(both: Answer, tmp_path: Path) -> None:
    text = write_plot(both, tmp_path / "front.svg").read_text()
    comments = " ".join(re.findall(r"<!-- (.*?) -->", text, re.DOTALL)).replace("\n", " ")
    for said in ("2 to 3 seeds after 20 updates", SPRITES, "laptop scale", LAPTOP_NOTE):
        assert said in comments
    assert "Reconstruction error (nats per image)" in comments
    assert "FactorVAE score" in comments


def test_a_draw_off_the_fronts_is_not_shown(ledger: Ledger, tmp_path: Path) -> None:
    train(ledger, GAMMA, OUTCOMES | {gamma(90.0): {0: (8.0, 0.99), 1: "diverged"}})
    shown = [
        "gamma=90" in summary(answer(ledger.records, [GAMMA], allow_diverged=allowed))[0]
        for allowed in (False, True)
    ]
    assert shown == [False, True]
    text = write_plot(answer(ledger.records, [GAMMA]), tmp_path / "front.svg").read_text()
    assert "Not shown: 1 draw with" in re.sub(r"\s+", " ", text)


def test_a_sweep_whose_draws_are_all_off_the_front_has_no_front(ledger: Ledger, tmp_path: Path) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (1.0, 0.9), 1: "diverged"}})
    found = answer(ledger.records, [GAMMA])
    assert "Front of 1 draw (" in summary(found)[0]
    assert "none; every draw has a diverged seed" in summary(found)[0]
    assert [row["on_front"] for row in lines(write_csv(found, tmp_path / "front.csv"))] == ["False"]
    with pytest.raises(InputError, match="0 finished draws"):
        write_plot(found, tmp_path / "front.png")


def test_hypervolume_is_that_of_the_means_against_the_stated_reference(ledger: Ledger) -> None:
    train(
        ledger,
        GAMMA,
        {gamma(1.0): {0: (1.0, 0.5), 1: (1.0, 0.5)}, gamma(2.0): {0: (2.0, 1.0), 1: (2.0, 1.0)}},
    )
    train(ledger, BETA, {beta(1.0): {0: (2.0, 0.5), 1: (2.0, 0.5)}}, model="beta_vae")
    found = answer(ledger.records, [GAMMA, BETA])
    assert found.reference_M == pytest.approx([2.1, 0.45])  # a tenth of the range behind the worst
    expected = 1.1 * 0.05 + 0.1 * 0.5
    assert found.volumes["factor_vae"] == pytest.approx((expected, expected, expected))
    assert found.volumes["beta_vae"][0] == pytest.approx(0.1 * 0.05)
    assert found.draws["front_probability"].tolist() == [0.0, 1.0, 1.0]


def test_sweeps_of_one_model_and_label_are_told_apart_by_name(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the plot, too, where a draw of either has the same hyperparameters."""
    drawn = []

    def draw(figure: FrontFigure, path: Path, suffixes: Iterable[str]) -> tuple[Path, ...]:
        drawn.append(figure)
        return draw_front(figure, path, suffixes)

    monkeypatch.setattr(front_data, "draw_front", draw)
    wide, deep = (SweepId(name, "laptop", "x") for name in ("gamma_wide", "gamma_depth"))
    train(ledger, wide, {gamma(10.0): {0: (8.0, 0.5), 1: (8.2, 0.55)}})
    train(ledger, deep, {gamma(10.0): {2: (4.0, 0.9), 3: (4.1, 0.95)}})
    write_plot(answer(ledger.records, [wide, deep]), tmp_path / "front.svg")
    (family,) = drawn[0].families
    assert family.labels == ("gamma=10 (gamma_depth)", "gamma=10 (gamma_wide)")
    assert family.means_N2[:, 0].tolist() == [4.05, 8.1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([("a", ""), ("a", "wide")], ["a", "wide"]),
        ([("a", ""), ("a", "a")], ["a", "a a"]),
        ([("a", "x"), ("b", "x")], ["a", "b"]),
        ([("a", "x"), ("b", "x"), ("b", "")], ["a x", "b x", "b"]),
    ],
)
def test_sweeps_are_told_apart_by_what_differs(asked: list[tuple[str, str]], told: list[str]) -> None:
    assert [labels.told_apart(*sweep, asked) for sweep in asked] == told


def test_a_run_that_two_sweeps_share_counts_once(ledger: Ledger) -> None:
    """A label for the same question has the same runs: none competes with itself, none is a point more."""
    twin = SweepId(GAMMA.name, GAMMA.scale, "twin")
    draws = {
        gamma(float(g)): {s: (5 + g / 10 + s / 5 % 0.3, 0.5 + g / 100 - s * g / 500) for s in range(5)}
        for g in (1, 5, 9)
    }
    for sweep in (GAMMA, twin):
        train(ledger, sweep, draws)
    alone, both = (answer(ledger.records, sweeps) for sweeps in ([GAMMA], [GAMMA, twin]))
    assert both.volumes == alone.volumes
    probabilities = both.draws.groupby("label")["front_probability"].agg(list)
    assert probabilities["twin"] == probabilities[""] == alone.draws["front_probability"].tolist()
    assert min(probabilities[""]) < 1
    one, two = (
        agreement(Asked.of(ledger.records, sweeps), OBJECTIVES) for sweeps in ([GAMMA], [GAMMA, twin])
    )
    assert one.agreements == two.agreements


def test_a_label_with_more_seeds_of_the_same_draws_does_not_compete_with_them(ledger: Ledger) -> None:
    more = SweepId(GAMMA.name, GAMMA.scale, "more")
    draws = {
        gamma(float(g)): {s: (5 + g / 10 + s / 5 % 0.3, 0.5 + g / 100 - s * g / 900) for s in range(10)}
        for g in (1, 5, 9)
    }
    train(ledger, GAMMA, {draw: {s: seeds[s] for s in range(5)} for draw, seeds in draws.items()})
    train(ledger, more, draws)
    alone, both = (answer(ledger.records, sweeps) for sweeps in ([more], [GAMMA, more]))
    probabilities = both.draws.groupby("label")["front_probability"].agg(list)
    assert probabilities["more"] == probabilities[""] == alone.draws["front_probability"].tolist()
    assert both.volumes["factor_vae"][1:] == alone.volumes["factor_vae"][1:]
    bands = [front_data._family(found, "factor_vae").band_QG for found in (alone, both)]
    np.testing.assert_array_equal(bands[0], bands[1])
    one, two = (agreement(Asked.of(ledger.records, sweeps), OBJECTIVES) for sweeps in ([more], [GAMMA, more]))
    assert two.agreements[0, 1].spearman == pytest.approx(one.agreements[0, 1].spearman, abs=1e-9)
    assert "each of 3 draws with 10 seeds" in two.caption


def test_a_shared_run_keeps_all_its_metrics_where_one_sweep_has_more_of_them(ledger: Ledger) -> None:
    wider = SweepId(GAMMA.name, GAMMA.scale, "wider")
    shared = {s: (5.0 + s, 0.5 + s / 10) for s in range(3)}
    train(ledger, GAMMA, {gamma(1.0): shared})
    train(ledger, wider, {gamma(1.0): {7: (4.0, 0.25, 0.5)}}, objectives=(*OBJECTIVES, "mig"))
    train(ledger, wider, {gamma(1.0): shared}, objectives=OBJECTIVES)
    found = agreement(Asked.of(ledger.records, [GAMMA, wider]), OBJECTIVES)
    assert len(found.values_NM) == 4


def test_the_summary_says_the_front_with_its_uncertainty(ledger: Ledger) -> None:
    train(
        ledger,
        GAMMA,
        {gamma(60.0): {0: (8.0, 0.9), 1: (9.0, 0.9)}, gamma(1.0): {0: (9.5, 0.5), 1: (9.5, 0.5)}},
    )
    said = summary(answer(ledger.records, [GAMMA]))
    half_width = pareto.student_t_bound(0.95, 1) / 2
    assert said[0] == (
        "Front of 2 draws (laptop scale, 20 updates on sprites (rendered v1)): factor_vae gamma=60 (recon_error 8.5"
        f" [{8.5 - half_width:.3g}, {8.5 + half_width:.3g}] nats per image, factor_vae_score 0.9 [0.9, 0.9],"
        " P(front) 1.00, 2 seeds)."
    )
    assert said[1].startswith(
        "Hypervolume against reference (recon_error 9.6 nats per image, factor_vae_score 0.46): "
    )
    assert re.search(r"factor_vae 0\.484 \[\d+\.\d+, \d+\.\d+\]\.$", said[1])
    assert math.isclose(0.484, (9.6 - 8.5) * (0.9 - 0.46))
    assert said[-1] == LAPTOP_NOTE


@pytest.mark.parametrize("num_draws", [6, 7])
def test_a_hypervolume_of_many_draws_is_not_to_be_compared(num_draws: int, ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(float(n)): {0: (8.0 + n, 0.6), 1: (8.5 + n, 0.7)} for n in range(num_draws)})
    said = " ".join(summary(answer(ledger.records, [GAMMA])))
    assert ("do not compare models by it" in said) == (num_draws == 7)


def test_the_export_of_runs_is_in_the_order_of_hyperparameters_and_seeds(
    ledger: Ledger, tmp_path: Path
) -> None:
    train(ledger, GAMMA, {gamma(10.0): {1: "planned", 0: (8.0, 0.7)}, gamma(2.0): {0: (9.0, 0.7)}})
    rows = lines(write_runs(answer(ledger.records, [GAMMA]), tmp_path / "runs.csv"))
    assert [(row["gamma"], row["seed"], row["metric"], row["value"]) for row in rows] == [
        ("2.0", "0", "recon_error", "9.0"),
        ("2.0", "0", "factor_vae_score", "0.7"),
        ("10.0", "0", "recon_error", "8.0"),
        ("10.0", "0", "factor_vae_score", "0.7"),
        ("10.0", "1", "recon_error", ""),
        ("10.0", "1", "factor_vae_score", ""),
    ]
