"""The figures: fronts of two objectives with their error bars, and grids of pictures.

Drawn with matplotlib's object interface on Agg, under its default style whatever the user's settings, and without
dates or versions in the files: equal input gives equal bytes under one matplotlib. Nothing global changes.
Objectives are as reported here: reconstruction error (lower is better) and score (higher is better).
Shape suffixes: N draws, 2 objectives, S seeds, Q quantiles, G grid points, K obstacles, J candidate places;
pictures are GKCHW, G rows of K.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from sweeper import pareto
from trainables.errors import InputError

DPI = 200
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito, colorblind-safe
MARKERS = ("o", "s", "^", "D", "v", "P")
LOG_ABOVE = 4
"""Ratio of the largest to the smallest reconstruction error from which on the axis is logarithmic."""


@dataclass(frozen=True)
class FamilyFront:
    """The draws of one model as points with error bars, and the band of their front.

    Columns of the (N, 2) arrays: reconstruction error, score. NaN limits (one seed) draw no bar.

    Attributes:
        name: Model, as in the legend.
        labels: Each draw's hyperparameter, for example `gamma=10`; a name that all share goes to the legend.
        means_N2: Means over seeds. Draws without finite means are left out and counted in the caption.
        lower_N2: Lower confidence limits.
        upper_N2: Upper confidence limits.
        on_front_N: Draws that no other draw of this model beats.
        num_seeds_N: Seeds of each draw.
        grid_G: Reconstruction errors at which the band is known, ascending.
        band_QG: 2.5, 50 and 97.5 % quantiles of the best score at or below them, (3, G); -inf where there is none.
    """

    name: str
    labels: tuple[str, ...]
    means_N2: np.ndarray
    lower_N2: np.ndarray
    upper_N2: np.ndarray
    on_front_N: np.ndarray
    num_seeds_N: np.ndarray
    grid_G: np.ndarray
    band_QG: np.ndarray

    @classmethod
    def from_runs(
        cls, name: str, runs_by_label: dict[str, np.ndarray], generator: np.random.Generator
    ) -> "FamilyFront":
        """Summarise runs: intervals by `pareto.mean_interval`, the band by `pareto.bootstrap_front`.

        Args:
            name: Model, as in the legend.
            runs_by_label: For each draw, its seeds' reconstruction errors and scores (S, 2).
            generator: Decides the bootstrap.
        """
        losses = [pareto.to_losses(runs_S2, ("minimize", "maximize")) for runs_S2 in runs_by_label.values()]
        means_N2, lower_N2, upper_N2 = (
            np.stack(limits)
            for limits in zip(*map(pareto.mean_interval, runs_by_label.values()), strict=True)
        )
        reference_2 = pareto.reference_point(np.concatenate(losses))
        resampled_BN2 = pareto.bootstrap_front(losses, reference_2, generator).means_BNM
        finite_recon = resampled_BN2[..., 0][np.isfinite(resampled_BN2[..., 0])]
        ends = (finite_recon.min(), finite_recon.max()) if finite_recon.size else (0.0, 0.0)
        grid_G = np.linspace(*ends, 500)
        return cls(
            name=name,
            labels=tuple(runs_by_label),
            means_N2=means_N2,
            lower_N2=lower_N2,
            upper_N2=upper_N2,
            on_front_N=pareto.is_non_dominated(pareto.to_losses(means_N2, ("minimize", "maximize"))),
            num_seeds_N=np.array([len(runs_S2) for runs_S2 in runs_by_label.values()]),
            grid_G=grid_G,
            band_QG=-pareto.attainment_band(resampled_BN2, grid_G, (0.975, 0.5, 0.025)),
        )


@dataclass(frozen=True)
class FrontFigure:
    """All that a front figure says.

    Attributes:
        title: One line.
        recon: Name and unit of the horizontal axis, for example `Reconstruction error (nats per image)`.
        score: Name of the vertical axis, for example `FactorVAE score`.
        families: Models, in the order of their colors; at most six.
        num_steps: Steps of every run.
        data: Recipe of the images, for example `dsprites (rendered v1)`.
        scale: Scale of the protocol.
        caveat: A last sentence of the caption, for example how the setting was chosen.
    """

    title: str
    recon: str
    score: str
    families: tuple[FamilyFront, ...]
    num_steps: int
    data: str
    scale: str
    caveat: str = ""


def draw_front(figure: FrontFigure, path: Path) -> tuple[Path, Path]:
    """Draw the fronts of several models in the plane of reconstruction error and score.

    Args:
        figure: What to show.
        path: Where to, without a suffix.

    Returns:
        The files written, PNG at 200 dots per inch and SVG.

    Raises:
        InputError: More than six models, or no draw with finite means.
    """
    families = [_finite(family) for family in figure.families]
    means_N2 = np.concatenate([np.zeros((0, 2)), *(family.means_N2 for family in families)])
    if len(families) > len(COLORS) or not len(means_N2):
        raise InputError(
            f"A front of {len(families)} models and {len(means_N2)} finished draws cannot be drawn.\n"
            f"Choose 1 to {len(COLORS)} models with at least one draw whose means are finite."
        )
    with _own_style():
        axes = _axes(figure.title, _caption(figure, len(means_N2)), top_in=0.95, height_in=4.6)
        _frame(axes, figure, families)
        for family, color, marker in zip(families, COLORS, MARKERS, strict=False):
            _draw_band(axes, family, color)
            _draw_points(axes, family, color, marker)
        _draw_front_of_all(axes, means_N2)
        _draw_legend(axes, families)
        _place_labels(axes, families)
        return _save(axes, path, ".png"), _save(axes, path, ".svg")


def _finite(family: FamilyFront) -> FamilyFront:
    kept_N = np.isfinite(family.means_N2).all(axis=1)
    return replace(
        family,
        labels=tuple(label for label, kept in zip(family.labels, kept_N, strict=True) if kept),
        means_N2=family.means_N2[kept_N],
        lower_N2=family.lower_N2[kept_N],
        upper_N2=family.upper_N2[kept_N],
        on_front_N=family.on_front_N[kept_N],
        num_seeds_N=family.num_seeds_N[kept_N],
    )


def _caption(figure: FrontFigure, num_shown: int) -> str:
    seeds_N = np.concatenate([family.num_seeds_N for family in figure.families])
    num_left_out = len(seeds_N) - num_shown
    seeds = f"{seeds_N.min()}" if seeds_N.min() == seeds_N.max() else f"{seeds_N.min()} to {seeds_N.max()}"
    sentences = [
        f"Each point is one hyperparameter setting, the mean of {seeds} seeds after {figure.num_steps:,} steps on "
        f"{figure.data}, {figure.scale} scale; bars are 95 % Student t intervals of the mean.",
        "Filled: on the front of its own model; hollow: another setting of that model is no worse in both and better "
        "in one.",
        "Shaded: 95 % of the fronts obtained when the seeds are drawn again (bootstrap, pointwise), the colored line "
        "their median: the best score reached at this reconstruction error or below.",
    ]
    if num_left_out:
        sentences.append(f"Not shown: {num_left_out} of {len(seeds_N)} settings, with a run that diverged.")
    return " ".join([*sentences, figure.caveat]).strip()


@contextmanager
def _own_style() -> Iterator[None]:
    own = {
        "font.size": 9,
        "svg.hashsalt": "disentangle-sweeper",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.style.context(["default", own]):
        yield


def _axes(title: str, caption: str, top_in: float, height_in: float) -> Axes:
    """Axes on a new canvas 9 inches wide: title above, wrapped caption below."""
    lines = textwrap.wrap(caption, 128)
    bottom_in = 0.75 + 0.165 * len(lines)
    total_in = bottom_in + height_in + top_in
    canvas = Figure(figsize=(9.0, total_in), dpi=DPI)
    FigureCanvasAgg(canvas)
    canvas.text(0.08, 1 - 0.16 / total_in, title, fontsize=12, weight="bold", va="top", parse_math=False)
    canvas.text(
        0.08,
        0.1 / total_in,
        "\n".join(lines),
        fontsize=8,
        color="0.25",
        va="bottom",
        linespacing=1.3,
        parse_math=False,
    )
    return canvas.add_axes((0.08, bottom_in / total_in, 0.895, height_in / total_in))


def _frame(axes: Axes, figure: FrontFigure, families: Sequence[FamilyFront]) -> None:
    """Limits, scale, axis labels, grid, and the note that says which corner is better."""
    means_N2, lower_N2, upper_N2 = (
        np.concatenate([getattr(f, name) for f in families]) for name in ("means_N2", "lower_N2", "upper_N2")
    )
    recon_N = means_N2[:, 0]
    is_log = bool(0 < LOG_ABOVE * recon_N.min() < recon_N.max())
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(_limits(recon_N, lower_N2[:, 0], upper_N2[:, 0], is_log))
    axes.set_ylim(_limits(means_N2[:, 1], lower_N2[:, 1], upper_N2[:, 1], is_log=False))
    axes.set_xlabel(f"{figure.recon}, lower is better{' (log scale)' * is_log}", fontsize=10)
    axes.set_ylabel(f"{figure.score}, higher is better", fontsize=10)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.text(
        0.004, 1.012, "\N{NORTH WEST ARROW} better", transform=axes.transAxes, weight="bold", color="0.25"
    )


def _limits(
    means_N: np.ndarray, lower_N: np.ndarray, upper_N: np.ndarray, is_log: bool
) -> tuple[float, float]:
    """The means and their intervals with a margin; an interval longer than the range of the means is cut."""
    to_axis, from_axis = (np.log, np.exp) if is_log else (np.positive, np.positive)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_N, lower_N, upper_N = to_axis(means_N), to_axis(lower_N), to_axis(upper_N)
    low, high = means_N.min(), means_N.max()
    reach = high - low or abs(high) or 1.0
    low = max(low - reach, np.nanmin([low, *lower_N]))
    high = min(high + reach, np.nanmax([high, *upper_N]))
    margin = 0.05 * (high - low or reach)
    return float(from_axis(low - margin)), float(from_axis(high + margin))


def _draw_band(axes: Axes, family: FamilyFront, color: str) -> None:
    """The front's band and median, which hold from the last known value on to the edge."""
    edge, floor = axes.get_xlim()[1], axes.get_ylim()[0]
    grid_G = np.append(family.grid_G, max(edge, family.grid_G[-1]))
    lower_G, median_G, upper_G = np.concatenate([family.band_QG, family.band_QG[:, -1:]], axis=1)
    axes.fill_between(
        grid_G,
        np.maximum(lower_G, floor),
        upper_G,
        where=np.isfinite(upper_G),
        step="post",
        color=color,
        alpha=0.13,
        linewidth=0,
    )
    axes.step(
        grid_G,
        np.where(np.isfinite(median_G), median_G, np.nan),
        where="post",
        color=color,
        linewidth=1.2,
        alpha=0.7,
    )


def _draw_points(axes: Axes, family: FamilyFront, color: str, marker: str) -> None:
    for mean_2, lower_2, upper_2, on_front in zip(
        family.means_N2, family.lower_N2, family.upper_N2, family.on_front_N, strict=True
    ):
        for m in (0, 1):
            bar_22 = np.stack([mean_2, mean_2])
            bar_22[:, m] = lower_2[m], upper_2[m]
            axes.plot(*bar_22.T, color=color, linewidth=1.0, alpha=0.55)
        axes.plot(
            *mean_2,
            marker,
            markersize=8 if on_front else 6,
            markerfacecolor=color if on_front else "white",
            markeredgecolor="white" if on_front else color,
            markeredgewidth=0.8 if on_front else 1.4,
            zorder=4,
        )


def _draw_front_of_all(axes: Axes, means_N2: np.ndarray) -> None:
    losses_N2 = pareto.to_losses(means_N2, ("minimize", "maximize"))
    front_N2 = means_N2[pareto.is_non_dominated(losses_N2)]
    front_N2 = front_N2[np.argsort(front_N2[:, 0])]
    recon_N, score_N = (
        np.append(front_N2[:, 0], axes.get_xlim()[1]),
        np.append(front_N2[:, 1], front_N2[-1, 1]),
    )
    axes.step(recon_N, score_N, where="post", color="black", linewidth=1.4, linestyle=(0, (4, 2)), zorder=3)


def _draw_legend(axes: Axes, families: Sequence[FamilyFront]) -> None:
    handles: list[Line2D | Patch] = []
    for family, color, marker in zip(families, COLORS, MARKERS, strict=False):
        shared = _shared_name(family.labels)
        name = f"{family.name}, labeled by {shared}" if shared else family.name
        handles.append(Line2D([], [], color=color, marker=marker, markersize=7, linewidth=1.2, label=name))
    handles.append(Patch(color="0.5", alpha=0.25, linewidth=0, label="95 % band of a front"))
    handles.append(
        Line2D([], [], color="black", linewidth=1.4, linestyle=(0, (4, 2)), label="front of all models")
    )
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.09, 0.985),
        ncols=4,
        frameon=False,
        columnspacing=1.6,
        handlelength=2.2,
        borderaxespad=0.2,
    )


def _shared_name(labels: Sequence[str]) -> str:
    """`gamma` where every label reads `gamma=...`, else nothing."""
    names = {label.partition("=")[0] for label in labels}
    return names.pop() if len(names) == 1 and all("=" in label for label in labels) else ""


# Candidate places of a label around its point: directions (turns from the right, counterclockwise) by distances.
TURNS = (0.06, 0.44, 0.94, 0.56, 0.0, 0.5, 0.12, 0.38, 0.88, 0.62, 0.2, 0.3, 0.8, 0.7)
DISTANCES_PT = (6, 10, 15, 21, 28, 36, 46)
LEADER_PT = 12
"""Distance from which on a thin line connects a label to its point."""


def _place_labels(axes: Axes, families: Sequence[FamilyFront]) -> None:
    """Put each label where it covers least of markers, bars and other labels, the nearest such place first."""
    obstacles = _obstacles(axes, families)
    for family, color in zip(families, COLORS, strict=False):
        shared = _shared_name(family.labels)
        for label, mean_2 in zip(family.labels, family.means_N2, strict=True):
            text = axes.annotate(
                label.removeprefix(f"{shared}=") if shared else label,
                mean_2,
                (0, 0),
                textcoords="offset points",
                ha="center",
                va="center",
                color=color,
                fontsize=9,
                weight="bold",
                zorder=5,
                parse_math=False,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
            anchor_2 = axes.transData.transform(mean_2)
            half_2 = np.array(text.get_window_extent().size) / 2
            turns_J1 = np.tile(TURNS, len(DISTANCES_PT))[:, None] * 2 * np.pi
            distance_J1 = np.repeat(DISTANCES_PT, len(TURNS))[:, None]
            direction_J2 = np.concatenate([np.cos(turns_J1), np.sin(turns_J1)], axis=1)
            offset_J2 = direction_J2 * distance_J1 * DPI / 72 + np.clip(1.5 * direction_J2, -1, 1) * half_2
            boxes_J4 = np.concatenate([anchor_2 + offset_J2 - half_2, anchor_2 + offset_J2 + half_2], axis=1)
            covered_J = _overlap(boxes_J4, np.array(obstacles)).sum(axis=1) / (4 * half_2.prod())
            outside_J = 1 - _overlap(boxes_J4, np.array([axes.bbox.extents]))[:, 0] / (4 * half_2.prod())
            best = np.argmin(covered_J + 10 * outside_J + 0.01 * distance_J1[:, 0])
            obstacles.append(boxes_J4[best])
            text.xyann = tuple(offset_J2[best] * 72 / DPI)
            if distance_J1[best, 0] >= LEADER_PT:
                end_2 = (direction_J2 * distance_J1)[best]
                axes.annotate(
                    "",
                    mean_2,
                    end_2,
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6},
                )


def _obstacles(axes: Axes, families: Sequence[FamilyFront]) -> list[np.ndarray]:
    """Boxes of the markers and bars in pixels, (x0, y0, x1, y1) each; a bar counts as 3 points thick."""
    boxes = []
    for family in families:
        for mean_2, lower_2, upper_2 in zip(family.means_N2, family.lower_N2, family.upper_N2, strict=True):
            ends = [(mean_2, mean_2, 5.0)]
            for m in (0, 1):
                low_2, high_2 = mean_2.copy(), mean_2.copy()
                low_2[m], high_2[m] = lower_2[m], upper_2[m]
                ends.append((low_2, high_2, 1.5))
            for low_2, high_2, reach_pt in ends:
                corners_22 = axes.transData.transform([low_2, high_2])
                if np.isfinite(corners_22).all():
                    boxes.append(
                        np.concatenate(
                            [corners_22[0] - reach_pt * DPI / 72, corners_22[1] + reach_pt * DPI / 72]
                        )
                    )
    return boxes


def _overlap(boxes_J4: np.ndarray, others_K4: np.ndarray) -> np.ndarray:
    """Area that each box shares with each other one, (J, K)."""
    low_JK2 = np.maximum(boxes_J4[:, None, :2], others_K4[:, :2])
    high_JK2 = np.minimum(boxes_J4[:, None, 2:], others_K4[:, 2:])
    return np.clip(high_JK2 - low_JK2, 0, None).prod(axis=-1)


def _save(axes: Axes, path: Path, suffix: str) -> Path:
    file = path.with_name(path.name + suffix)
    absent = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
    axes.figure.savefig(file, metadata=absent)
    return file
