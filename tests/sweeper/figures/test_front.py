"""The figure of fronts: everything that it says is inside it, and equal input gives equal bytes."""

import dataclasses
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sweeper.analysis import pareto
from sweeper.figures import front, point_labels
from trainables.errors import InputError


def runs(
    settings: Mapping[str, tuple[float, float]],
    spread: tuple[float, float],
    num_seeds: int = 5,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Seeds of each setting around (reconstruction error, score)."""
    generator = np.random.default_rng(seed)
    noise = {label: generator.normal(size=(num_seeds, 2)) * spread for label in settings}
    return {label: np.array(mean) + noise[label] for label, mean in settings.items()}


LAPTOP = {
    "beta_vae": {
        "beta=1": (8.2, 0.70),
        "beta=1.5": (9.2, 0.79),
        "beta=2": (10.4, 0.76),
        "beta=4": (15.4, 0.69),
    },
    "factor_vae": {
        "gamma=1": (8.3, 0.74),
        "gamma=10": (8.33, 0.75),
        "gamma=20": (8.3, 0.85),
        "gamma=60": (8.8, 0.96),
    },
}
WIDE = {
    name: {f"{name}={i}": (20 * 1.2**i * stretch, 0.5 + 0.03 * i) for i in range(10)}
    for name, stretch in (("beta", 1.3), ("gamma", 1.0))
}


def family_of(name: str, runs_by_label: Mapping[str, np.ndarray], num_left_out: int = 0) -> front.FamilyFront:
    runs = list(runs_by_label.values())
    means_N2, lower_N2, upper_N2 = map(np.stack, zip(*map(pareto.mean_interval, runs), strict=True))
    losses = [runs_S2 * [1, -1] for runs_S2 in runs]
    resampled = pareto.bootstrap_front(losses, np.array([99.0, 99.0]), np.random.default_rng(0))
    grid_G, losses_QG = pareto.front_band(resampled.means_BNM)
    num_seeds_N = np.array([len(runs_S2) for runs_S2 in runs])
    return front.FamilyFront(
        name=name,
        labels=tuple(runs_by_label),
        means_N2=means_N2,
        lower_N2=lower_N2,
        upper_N2=upper_N2,
        on_front_N=pareto.is_non_dominated(means_N2 * [1, -1]),
        num_seeds_N=num_seeds_N,
        grid_G=grid_G,
        band_QG=-losses_QG if num_seeds_N.min() > 1 else np.full_like(losses_QG, -np.inf),
        num_left_out=num_left_out,
    )


def figure_of(
    models: Mapping[str, Mapping[str, tuple[float, float]]], num_seeds: int = 5
) -> front.FrontFigure:
    families = tuple(
        family_of(name, runs(settings, (0.1, 0.03), num_seeds)) for name, settings in models.items()
    )
    return front.FrontFigure(
        title="Score against error",
        recon="Error (nats per image)",
        score="Score",
        caveat="A caveat.",
        families=families,
        training="12,000 updates",
        data="sprites",
        scale="laptop",
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures instead of files, which take longer to write: PNG and SVG in turn."""
    kept: list[Figure] = []

    def keep(self: Figure, path: Path, **options: object) -> None:
        kept.append(self)
        path.touch()

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("models", [LAPTOP, WIDE], ids=["laptop", "wide"])
def test_everything_that_is_said_is_inside_the_figure(
    models: Mapping[str, Mapping[str, tuple[float, float]]], drawn: list[Figure], tmp_path: Path
) -> None:
    front.draw_front(figure_of(models), tmp_path / "front")
    figure = drawn[0]
    figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    texts = [*figure.texts, *axes.texts, axes.xaxis.label, axes.yaxis.label, legend]
    for text in texts:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0, text
        assert box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0, text
        assert box.y1 <= figure.bbox.y1, text


@pytest.mark.parametrize("models", [LAPTOP, WIDE], ids=["laptop", "wide"])
def test_labels_do_not_cover_one_another_or_the_names_of_levels(
    models: Mapping[str, Mapping[str, tuple[float, float]]], drawn: list[Figure], tmp_path: Path
) -> None:
    rightmost = max(mean for settings in models.values() for mean in settings.values())
    levels = (("untrained encoder", rightmost[1]), ("perfect code", 1.0))
    front.draw_front(dataclasses.replace(figure_of(models), levels=levels), tmp_path / "front")
    drawn[0].draw_without_rendering()
    values = {label.partition("=")[2] for settings in models.values() for label in settings}
    labels = [text for text in drawn[0].axes[0].texts if text.get_text() in {*values, *dict(levels)}]
    assert len(labels) == sum(map(len, models.values())) + len(levels)
    boxes = [text.get_window_extent().shrunk(0.8, 0.8) for text in labels]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_the_front_of_all_models_is_there_only_where_there_are_several(
    drawn: list[Figure], tmp_path: Path
) -> None:
    front.draw_front(figure_of(LAPTOP), tmp_path / "two")
    front.draw_front(figure_of({"beta_vae": LAPTOP["beta_vae"]}), tmp_path / "one")
    words = [legend_of(figure) for figure in (drawn[0], drawn[2])]
    assert "front of all models" in words[0]
    assert "front of all models" not in words[1]


def test_equal_input_gives_equal_bytes_and_files_of_the_promised_kind(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in front.draw_front(figure_of(LAPTOP), tmp_path / "a")]
    again = [path.read_bytes() for path in front.draw_front(figure_of(LAPTOP), tmp_path / "b")]
    assert first == again
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 9 * front.DPI
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")


def test_one_seed_and_one_draw_and_equal_points_are_drawn(tmp_path: Path) -> None:
    front.draw_front(figure_of(LAPTOP, num_seeds=1), tmp_path / "one_seed")
    front.draw_front(figure_of({"beta_vae": {"beta=1": (8.0, 0.7)}}), tmp_path / "one_draw")
    same = family_of("twins", {name: np.full((3, 2), 0.5) for name in ("beta=1", "beta=2")})
    base = figure_of(LAPTOP)
    twins = front.FrontFigure(**{**vars(base), "families": (same,)})
    assert all(Path(path).stat().st_size for path in front.draw_front(twins, tmp_path / "twins"))


def test_a_band_is_drawn_only_where_it_is_known(drawn: list[Figure], tmp_path: Path) -> None:
    front.draw_front(figure_of(LAPTOP), tmp_path / "five")
    front.draw_front(figure_of(LAPTOP, num_seeds=1), tmp_path / "one")
    words = ["95 % band of a front" in str(legend_of(figure)) for figure in drawn]
    assert words == [True, True, False, False]
    captions = ["Bands:" in figure.texts[-1].get_text() for figure in drawn]
    assert captions == words


def test_the_few_seeds_of_one_draw_do_not_stretch_the_axes(drawn: list[Figure], tmp_path: Path) -> None:
    settings = runs(LAPTOP["beta_vae"], (0.1, 0.03))
    settings["beta=1"] = settings["beta=1"][:2]
    front.draw_front(
        front.FrontFigure(**{**vars(figure_of(LAPTOP)), "families": (family_of("b", settings),)}),
        tmp_path / "f",
    )
    low, high = drawn[0].axes[0].get_ylim()
    assert high - low < 0.3


def test_draws_that_are_left_out_are_counted_in_the_caption(drawn: list[Figure], tmp_path: Path) -> None:
    family = family_of("beta_vae", runs(LAPTOP["beta_vae"], (0.1, 0.03)), num_left_out=2)
    figure = front.FrontFigure(**{**vars(figure_of(LAPTOP)), "families": (family,)})
    front.draw_front(figure, tmp_path / "front")
    caption = " ".join(drawn[0].texts[-1].get_text().split())
    assert "Not shown: 2 draws" in caption
    assert "means of 5 seeds" in caption


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    family = family_of("x", {"a=1": np.full((2, 2), 0.5)})
    nothing = {name: getattr(family, name)[:0] for name in ("labels", "means_N2", "lower_N2", "upper_N2")}
    family = replace(family, **nothing, on_front_N=np.zeros(0, bool), num_seeds_N=np.zeros(0, int))
    with pytest.raises(InputError, match="cannot be drawn"):
        front.draw_front(
            front.FrontFigure(**{**vars(figure_of(LAPTOP)), "families": (family,)}), tmp_path / "f"
        )


def test_a_bar_beyond_the_frame_ends_in_an_arrowhead(drawn: list[Figure], tmp_path: Path) -> None:
    wide = runs(LAPTOP["factor_vae"], (0.1, 0.2), num_seeds=3)
    family = family_of("factor_vae", wide)
    front.draw_front(
        front.FrontFigure(**{**vars(figure_of(LAPTOP)), "families": (family,)}), tmp_path / "front"
    )
    axes = drawn[0].axes[0]
    low, high = axes.get_ylim()
    num_cut = int((family.lower_N2[:, 1] < low).sum() + (family.upper_N2[:, 1] > high).sum())
    assert (
        num_cut == sum(line.get_marker() in ("v", "^") and not line.get_clip_on() for line in axes.lines) > 0
    )


def test_a_name_is_shared_only_if_every_label_has_it() -> None:
    assert point_labels.shared_name(["gamma=1", "gamma=10"]) == "gamma"
    assert point_labels.shared_name(["gamma=1", "beta=10"]) == ""
    assert point_labels.shared_name(["plain"]) == ""
