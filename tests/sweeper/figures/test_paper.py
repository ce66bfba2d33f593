"""The paper's figures from a ledger: what they say, whom they choose, what they refuse, equal bytes."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import stats

from search_spaces.protocols.vae import LAPTOP_NOTE
from sweeper.figures import style
from sweeper.figures.correlation_data import agreement
from sweeper.figures.curves_data import curves
from sweeper.figures.paper import FIGURES, KINDS, draw
from sweeper.figures.selection import Asked
from sweeper.figures.traversals_data import traversals
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Ledger
from tests.sweeper.analysis.test_results import (
    BETA,
    GAMMA,
    GAN,
    SPRITES,
    STEPS,
    Outcomes,
    Params,
    beta,
    gamma,
    train,
)
from tests.sweeper.figures.test_factor_matching import encoding, grid
from trainables.blocks import Manifest, RunEntry, pack_arrays, write_block
from trainables.encoding import Encoding
from trainables.errors import InputError, UnknownNameError

SCORED = ("recon_error", "beta_vae_score", "factor_vae_score")
OUTCOMES = {
    gamma(10.0): {0: (8.0, 0.9, 0.5), 1: (8.5, 0.8, 0.625), 2: (9.0, 0.95, 0.75)},
    gamma(2.0): {0: (7.0, 0.99, 0.5), 1: (7.5, 0.7, 0.5), 2: (7.25, 0.8, 0.25)},
}
OTHERS = {beta(4.0): {0: (15.0, 0.6, 0.25), 1: (16.0, 0.75, 0.5)}, beta(1.5): {0: (8.0, 0.5, 0.375)}}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures instead of files, which take longer to write: PNG and SVG in turn."""
    kept: list[Figure] = []

    def keep(self: Figure, path: Path, **options: object) -> None:
        kept.append(self)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def pictures(num_codes: int, channels: int = 1, shade: int = 0) -> dict[str, np.ndarray]:
    """Eight inputs of which each is as bright as its place; traversals as bright as their dimension."""
    inputs = np.repeat(np.arange(8, dtype=np.uint8) * 10, channels * 64).reshape(8, channels, 8, 8)
    rows = np.arange(num_codes, dtype=np.uint8) * 20 + shade
    traversal = np.repeat(rows, 7 * channels * 64).reshape(num_codes, 7, channels, 8, 8)
    return {"inputs": inputs, "reconstructions": inputs + 1, "traversal": traversal}


def keep(ledger: Ledger, sweep: SweepId, made: Encoding | None = None, step: int = STEPS, **how: int) -> None:
    """Give every finished run of a sweep the encoding and pictures that a trained one has."""
    made = made or encoding(grid()[:, [2, 0, 1]])
    rows = [row for row in ledger.records.members(sweep) if row.status == "done"]
    entries = tuple(RunEntry(row.key, row.seed, "done", step, step, row.spec) for row in rows)
    drawings = pictures(len(made.kl_D), **how)
    blobs = {
        row.key: {"encoding": made.to_bytes(), "pictures": pack_arrays(drawings), "weights": b""}
        for row in rows
    }
    attempt = ledger.begin_attempt([row.key for row in rows])
    manifest = Manifest(attempt, 0, STEPS, step, "cpu", "1", 1e9, 0.0, entries, ())
    assert ledger.take(write_block(ledger.storage, manifest, blobs)) == "taken"
    ledger.end_attempt(attempt, "done")


def fill(ledger: Ledger) -> None:
    train(ledger, GAMMA, OUTCOMES, objectives=SCORED)
    train(ledger, BETA, OTHERS, model="beta_vae", objectives=SCORED)
    keep(ledger, GAMMA)
    keep(ledger, BETA, shade=5)


@pytest.fixture
def both(ledger: Ledger) -> Ledger:
    fill(ledger)
    return ledger


def asked_of(ledger: Ledger, *sweeps: SweepId) -> Asked:
    return Asked.of(ledger.records, sweeps)


def words_of(path: Path) -> str:
    """All that an SVG says: matplotlib writes each text as a comment beside its outlines."""
    return " ".join(" ".join(re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)).split())


def test_there_is_a_line_of_help_for_every_kind() -> None:
    assert KINDS == ("3", "4", "5", "6", "metrics")
    assert tuple(FIGURES) == KINDS
    assert all(text and "\n" not in text for text in FIGURES.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Path]]]:
    """A function that draws a figure of two sweeps in a home of its own, committed anew; files by kind and name.

    The pictures have a sixteenth of the pixels, which take most of the time.
    """
    folder = tmp_path_factory.mktemp("figures")

    @cache
    def make(kind: str, name: str = "first", sweeps: tuple[SweepId, ...] = (GAMMA, BETA)) -> list[Path]:
        with Ledger(folder / kind / name / "ledger.db", folder / kind / name / "storage") as ledger:
            fill(ledger)
            return draw(
                kind, ledger.records, ledger.storage, sweeps, folder / kind / name / "out" / "a.figure"
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", style.DPI // 4)
        yield make


@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_is_a_picture_and_an_svg_of_equal_bytes_each_time(
    made: Callable[..., list[Path]], kind: str
) -> None:
    one, two = made(kind), made(kind, "again", (BETA, GAMMA, BETA))
    assert [path.name for path in one] == ["a.figure.png", "a.figure.svg"]
    assert sorted(one[0].parent.iterdir()) == sorted(one)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    with Image.open(one[0]) as picture:
        picture.load()
    assert ElementTree.parse(one[1]).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("kind", "interval"),
    {
        "3": "single runs, without intervals",
        "4": "95 % Student t intervals of the means",
        "5": "95 % Student t intervals",
        "6": "single runs, without intervals",
        "metrics": "with 95 % percentile intervals over 1,000 bootstrap resamples of the draws",
    }.items(),
)
def test_the_caption_says_seeds_steps_data_scale_intervals_and_the_note(
    made: Callable[..., list[Path]], kind: str, interval: str
) -> None:
    said = words_of(made(kind)[1])
    for words in (f"{STEPS} updates on {SPRITES}, laptop scale", LAPTOP_NOTE, " seeds", interval):
        assert words in said


def test_models_are_in_the_order_of_the_paper_then_by_name(ledger: Ledger) -> None:
    another = SweepId("another", "laptop")
    train(ledger, another, OUTCOMES, model="annealed_vae", objectives=SCORED)
    train(ledger, GAMMA, OUTCOMES, objectives=SCORED)
    train(ledger, BETA, OTHERS, model="beta_vae", objectives=SCORED)
    found = curves(asked_of(ledger, GAMMA, another, BETA))
    assert [column.heading for column in found.columns] == ["beta_vae", "factor_vae", "annealed_vae"]


def test_two_sweeps_of_a_model_are_told_apart(ledger: Ledger) -> None:
    longer = SweepId(GAMMA.name, GAMMA.scale, "again")
    train(ledger, GAMMA, OUTCOMES, objectives=SCORED)
    train(ledger, longer, OUTCOMES, objectives=SCORED)
    found = curves(asked_of(ledger, GAMMA, longer))
    assert [column.heading for column in found.columns] == [
        "factor_vae (factorvae_gamma)",
        "factor_vae (again)",
    ]


def test_a_curve_is_the_mean_and_the_t_interval_of_the_seeds_at_every_step(both: Ledger) -> None:
    found = curves(asked_of(both, GAMMA, BETA))
    assert found.rows == (
        "Reconstruction error (nats per image)",
        "beta-VAE score",
        "FactorVAE score",
    )
    _, column = found.columns
    assert (column.hyperparameters, column.labels, column.unit) == ("gamma", ("2", "10"), "updates")
    line = column.lines[0][1]
    assert line.step_T.tolist() == [10, STEPS]
    assert line.mean_T.tolist() == [18.5, 8.5]  # `train` adds the steps that are left
    half_width = stats.t.ppf(0.975, 2) * 0.5 / np.sqrt(3)
    assert line.lower_T == pytest.approx(line.mean_T - half_width)
    assert line.upper_T == pytest.approx(line.mean_T + half_width)
    lone = found.columns[0].lines[0][0]
    assert lone.mean_T.tolist() == [18.0, 8.0]
    assert np.isnan(lone.lower_T).all()


def test_the_rows_are_those_that_every_sweep_has_or_those_that_are_named(ledger: Ledger) -> None:
    train(ledger, GAMMA, OUTCOMES, objectives=SCORED)
    train(
        ledger,
        BETA,
        {beta(1.5): {0: (0.5, 0.25)}},
        model="beta_vae",
        objectives=("recon_mse", "factor_vae_score"),
    )
    found = curves(asked_of(ledger, GAMMA, BETA))
    assert found.rows == ("FactorVAE score",)
    assert [len(column.lines) for column in found.columns] == [1, 1]
    assert len(curves(asked_of(ledger, GAMMA), ["kl", "recon_error", "kl"]).rows) == 2


def test_a_curve_ends_before_a_seed_diverged_and_unfinished_draws_are_counted(ledger: Ledger) -> None:
    outcomes: Outcomes = {
        gamma(1.0): {0: (8.0, 0.5), 1: "diverged"},
        gamma(2.0): {0: (8.0, 0.5), 1: "running"},
        gamma(3.0): {0: "planned"},
    }
    train(ledger, GAMMA, outcomes)
    found = curves(asked_of(ledger, GAMMA))
    (column,) = found.columns
    assert column.labels == ("1", "2")
    assert [line.step_T.tolist() for line in column.lines[0]] == [[], [10, STEPS]]
    assert "a seed that diverged (1)" in found.caption
    assert "Not shown: 1 draw without a finished seed." in found.caption
    assert "Lines: means of 1 to 2 seeds" in found.caption


def test_a_legend_names_the_hyperparameters_that_differ(ledger: Ledger) -> None:
    draws: Outcomes = {
        (("information", 0.5), ("noise", noise), ("rate", rate)): {0: (8.0, 0.5)}
        for noise in (20, 5)
        for rate in (0.001, 0.0001)
    }
    train(ledger, GAN, draws, model="info_wgan_gp")
    (column,) = curves(asked_of(ledger, GAN)).columns
    assert column.hyperparameters == "noise, rate"
    assert column.labels == ("5, 0.0001", "5, 0.001", "20, 0.0001", "20, 0.001")
    assert column.unit == "generator updates"


def test_a_sweep_without_a_finished_run_is_left_out_and_said(both: Ledger) -> None:
    train(both, GAN, {(("information", 0.1),): {0: "planned"}}, model="info_wgan_gp", objectives=SCORED)
    for found in (curves(asked_of(both, GAN, GAMMA)), agreement(asked_of(both, GAN, GAMMA))):
        assert "Not shown, without a finished run: infowgan_gp-laptop." in found.caption


def test_the_best_run_of_a_sweep_is_shown(both: Ledger) -> None:
    asked = asked_of(both, GAMMA, BETA)
    found = traversals(asked, both.storage, "factor_vae_score")
    assert [panel.words for panel in found.panels] == [
        (
            "beta=4, seed 1",
            "factor_vae_score 0.5, recon_error 16 nats per image",
            "best of 3 runs: 2 draws, 2 seeds",
        ),
        (
            "gamma=10, seed 2",
            "factor_vae_score 0.75, recon_error 9 nats per image",
            "best of 6 runs: 2 draws, 3 seeds",
        ),
    ]
    by_other = traversals(asked, both.storage, "beta_vae_score")
    assert [panel.words[0] for panel in by_other.panels] == ["beta=4, seed 1", "gamma=2, seed 0"]
    by_loss = traversals(asked, both.storage, "factor_vae_score", ["recon_error"])
    assert [panel.words[0] for panel in by_loss.panels] == ["beta=1.5, seed 0", "gamma=2, seed 0"]


def test_a_run_without_a_finite_score_is_not_the_best(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (8.0, np.inf), 1: (8.0, 0.25), 2: (9.0, np.nan)}})
    keep(ledger, GAMMA)
    found = traversals(asked_of(ledger, GAMMA), ledger.storage, "factor_vae_score")
    assert found.panels[0].words[0] == "gamma=1, seed 1"
    assert found.panels[0].words[2] == "best of 1 run: 1 draw, 1 seed", "of those that have the score"
    lost = SweepId("lost", "laptop")
    train(ledger, lost, {gamma(9.0): {0: (8.0, np.inf)}})
    with pytest.raises(InputError, match="No finished run of sweep lost-laptop has a finite"):
        traversals(asked_of(ledger, lost), ledger.storage, "factor_vae_score")


def test_rows_are_in_the_order_of_the_factors_and_show_their_own_dimension(both: Ledger) -> None:
    (panel,) = traversals(asked_of(both, GAMMA), both.storage, "factor_vae_score").panels
    assert [row.label for row in panel.rows] == ["scale 1.00", "pos_x 1.00", "pos_y 1.00"]
    assert [int(row.pictures_VCHW[0, 0, 0, 0]) for row in panel.rows] == [20, 40, 0]
    assert panel.originals_VCHW[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 50, 60, 70]
    assert panel.originals_VCHW[panel.moved, 0, 0, 0] == 40  # the fifth, of which evaluations move the code
    assert panel.ends == ("-2", "0", "2")
    assert panel.below == ""


def test_factors_that_no_dimension_matches_are_listed(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (8.0, 0.5)}})
    keep(ledger, GAMMA, encoding(grid(), kl_D=[0.0, 1.0, 1.0]))
    (panel,) = traversals(asked_of(ledger, GAMMA), ledger.storage, "factor_vae_score").panels
    assert panel.below == "Matched by no dimension: scale (at most .00)."
    assert [row.is_active for row in panel.rows] == [True, True, False]


def test_without_ground_truth_rows_say_kl_and_the_best_run_by_each_objective_is_shown(
    ledger: Ledger, tmp_path: Path
) -> None:
    plain = SweepId("plain", "laptop")
    outcomes = {gamma(1.0): {0: (7.0, 0.5), 1: (8.0, 0.25)}}
    train(ledger, plain, outcomes, objectives=("recon_error", "gaussian_tc"))
    keep(ledger, plain, encoding(grid(), names=(), kl_D=[0.5, 1.25, 0.0]), channels=3)
    _, svg = draw("6", ledger.records, ledger.storage, [plain], tmp_path / "figure")
    said = words_of(svg)
    assert "gamma=1, seed 1 gaussian_tc 0.25" in said
    assert "gamma=1, seed 0 recon_error 7" in said
    assert "best gaussian_tc of 2 runs" in said
    assert "best recon_error of 2 runs" in said
    assert "no number says which run disentangles best" in said
    assert said.index("1.25 nats") < said.index("0.50 nats") < said.index("inactive")
    assert "mutual information" not in said
    with pytest.raises(InputError, match="have no mig"):  # a named metric is never replaced by another
        draw("6", ledger.records, ledger.storage, [plain], tmp_path / "none", ["mig"])


def test_a_run_that_kept_no_pictures_at_the_horizon_is_said(ledger: Ledger) -> None:
    train(ledger, GAMMA, {gamma(1.0): {0: (8.0, 0.5)}})
    with pytest.raises(InputError, match="kept no encoding at step 20"):
        traversals(asked_of(ledger, GAMMA), ledger.storage, "factor_vae_score")
    keep(ledger, GAMMA, step=30)
    with pytest.raises(InputError, match="draw 0, seed 0 kept no encoding at step 20"):
        traversals(asked_of(ledger, GAMMA), ledger.storage, "factor_vae_score")


def test_metrics_are_compared_over_the_runs_of_all_sweeps(both: Ledger) -> None:
    found = agreement(asked_of(both, GAMMA, BETA))
    assert found.metrics == ("beta_vae_score", "factor_vae_score")
    assert found.models == ("beta_vae", "factor_vae")
    outcomes = [
        (m, outcome[1:])
        for m, of in enumerate((OTHERS, OUTCOMES))
        for s in of.values()
        for outcome in s.values()
    ]
    expected = sorted((m, *scores) for m, scores in outcomes)
    rows = zip(found.model_N.tolist(), *found.values_NM.T.tolist(), strict=True)
    assert sorted(rows) == expected
    known = found.agreements[0, 1]
    _, first, second = zip(*expected, strict=True)
    assert known.spearman.value == pytest.approx(stats.spearmanr(first, second).statistic)
    assert known.kendall.value == pytest.approx(stats.kendalltau(first, second).statistic)
    assert known.pearson == pytest.approx(stats.pearsonr(first, second).statistic)


def test_the_runs_of_one_draw_have_correlations_without_intervals(ledger: Ledger, tmp_path: Path) -> None:
    train(ledger, GAMMA, {gamma(1.0): {s: (8.0 + s, 0.5 + s % 2 / 4) for s in range(4)}})
    metrics = ["recon_error", "factor_vae_score"]
    files = draw("metrics", ledger.records, ledger.storage, [GAMMA], tmp_path / "f", metrics)
    said = words_of(files[1])
    assert "nan" not in said.lower()
    assert "intervals" not in said
    assert "each of 1 draw with 4 seeds" in said
    assert "Spearman .45" in said


def test_runs_with_a_value_that_is_not_finite_are_left_out_and_counted(ledger: Ledger) -> None:
    seeds = {n: (8.0 + n, 0.5, 0.25 * n) for n in range(4)} | {4: (8.0, np.inf, 0.5)}
    train(ledger, GAMMA, {gamma(1.0): seeds}, objectives=SCORED)
    found = agreement(asked_of(ledger, GAMMA))
    assert len(found.values_NM) == 4
    assert np.isnan(found.agreements[0, 1].spearman.value)
    assert "Not shown: 1 run with a value that is not finite." in found.caption


def test_what_cannot_be_drawn_is_refused_with_the_remedy(both: Ledger, tmp_path: Path) -> None:
    def refused(
        kind: str,
        said: Iterable[str],
        sweeps: Sequence[SweepId] = (GAMMA, BETA),
        metrics: Sequence[str] = (),
        error: type[InputError] = InputError,
    ) -> None:
        with pytest.raises(error) as found:
            draw(kind, both.records, both.storage, sweeps, tmp_path / "none", metrics)
        assert len(str(found.value).splitlines()) <= 3
        for words in said:
            assert words in str(found.value)
        assert not list(tmp_path.glob("none*"))

    evaluate = "python -m sweeper evaluate betavae_beta --scale laptop --metric mig"
    refused("7", ["Unknown figure '7'", "3, 4, 5, 6, metrics"], error=UnknownNameError)
    refused("metrics", ["beta_vae", evaluate], metrics=["mig", "factor_vae_score"])
    refused("metrics", ["compared in pairs", evaluate], metrics=["mig"])
    refused("6", [evaluate], metrics=["mig"])
    refused("6", ["kl, recon_error"], metrics=["kl", "recon_error"])
    refused("5", [evaluate], metrics=["recon_error", "mig"])
    refused("5", ["two objectives, the first one to minimize"], metrics=["factor_vae_score", "recon_error"])
    refused("4", ["fewer than two steps", "factor_vae_score"], metrics=["mig"])
    refused("4", ["Unknown metric 'mug'"], metrics=["mug"], error=UnknownNameError)
    refused("4", ["Unknown sweep"], sweeps=[SweepId("none", "laptop")], error=UnknownNameError)
    begun = SweepId("begun", "laptop")
    train(both, begun, {gamma(1.0): {0: "planned"}})
    refused("4", ["no finished run yet", "Train first"], sweeps=[begun])
    few = SweepId("few", "laptop")
    train(both, few, {gamma(7.0): {0: (8.0, 0.5, 0.5), 1: (8.0, 0.5, 0.25)}}, objectives=SCORED)
    refused("metrics", ["2 runs of 1 models"], sweeps=[few])


@pytest.mark.parametrize("kind", KINDS)
def test_sweeps_that_do_not_compare_are_refused(both: Ledger, tmp_path: Path, kind: str) -> None:
    longer = SweepId(BETA.name, BETA.scale, "longer")
    train(both, longer, {beta(2.0): {0: (8.0, 0.5, 0.5)}}, model="beta_vae", steps=40, objectives=SCORED)
    with pytest.raises(InputError, match=r"Not comparable, .*number of updates: 20 .* and 40"):
        draw(kind, both.records, both.storage, [GAMMA, longer], tmp_path / "none")


LONG: Params = (
    ("generator.adam.learning_rate", 0.0001),
    ("critic.adam.learning_rate", 0.00001),
    ("a.very.long.name", "conv"),
)


def crowded(
    ledger: Ledger, num_sweeps: int, num_draws: int, num_seeds: int, metrics: tuple[str, ...]
) -> list[SweepId]:
    """Sweeps with long words, many draws and metrics."""
    generator = np.random.default_rng(0)
    sweeps = []
    for number in range(num_sweeps):
        sweep = SweepId("a_sweep_of_a_long_name", "laptop", f"label{number}")
        draws: Outcomes = {
            (*LONG, ("information", float(n)), (f"other{number}", n % 3)): {
                seed: tuple(generator.uniform(0, 1, len(metrics))) for seed in range(num_seeds)
            }
            for n in range(num_draws)
        }
        train(ledger, sweep, draws, model=f"info_wgan_gp_{number}", objectives=metrics)
        keep(ledger, sweep, encoding(np.concatenate([grid(), grid()[:, :1] * 4 + grid()[:, 1:2]], axis=1)))
        sweeps.append(sweep)
    return sweeps


MANY = (
    "recon_error",
    "active_dims",
    "beta_vae_score",
    "explicitness",
    "factor_vae_score",
    "mig",
    "sap",
    "modularity",
)


def texts_of(figure: Figure) -> list[Text]:
    """Every text that is drawn; ticks outside the limits of their axis exist and are not."""
    figure.draw_without_rendering()
    texts = [*figure.texts]
    for axes in figure.axes:
        texts += axes.texts
        if legend := axes.get_legend():
            texts += [legend.get_title(), *legend.get_texts()]
        for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
            low, high = sorted(axis.get_view_interval())
            texts += [
                axis.label,
                *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high),
            ]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


CROWDS = {
    "one": (1, 3, 1, SCORED),
    "many": (2, 15, 2, SCORED),
    "four": (4, 3, 2, SCORED),
    "all": (4, 2, 2, MANY),
}
"""Sweeps, draws, seeds, metrics."""


@pytest.mark.parametrize(
    ("kind", "crowd"),
    [
        ("4", "one"),
        ("4", "many"),
        ("4", "four"),
        ("6", "one"),
        ("6", "four"),
        ("metrics", "one"),
        ("metrics", "all"),
    ],
)
def test_everything_that_is_said_is_legible_inside_the_figure_and_covers_nothing(
    ledger: Ledger, drawn: list[Figure], tmp_path: Path, kind: str, crowd: str
) -> None:
    sweeps = crowded(ledger, *CROWDS[crowd])
    draw(kind, ledger.records, ledger.storage, sweeps, tmp_path / "figure")
    figure = drawn[0]
    texts = texts_of(figure)
    boxes = {text: text.get_window_extent() for text in texts}
    for text, box in boxes.items():
        assert float(text.get_fontsize()) >= 7
        assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1, text
    for one, other in combinations(texts, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
