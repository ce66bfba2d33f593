"""Draw the front figure: fronts of two objectives with error bars.

Objectives are as reported: reconstruction error (lower is better) and score (higher is better).
Shape suffixes: N draws, 2 objectives, S seeds, Q quantiles, G grid points.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from sweeper.analysis import pareto
from sweeper.figures import style
from sweeper.figures.point_labels import place_labels, shared_name
from sweeper.figures.style import COLORS, MARKERS
from sweeper.figures.style import DPI as DPI
from trainables.errors import InputError

LOG_ABOVE = 4
"""Ratio of the largest to the smallest reconstruction error above which the axis is logarithmic."""


@dataclass(frozen=True)
class FamilyFront:
    """The draws of one model as points with error bars, and the band of their front.

    Columns of the (N, 2) arrays: reconstruction error, score. NaN limits (one seed) draw no bar.

    Attributes:
        name: Name of the model in the legend.
        labels: Each draw's hyperparameter, for example `gamma=10`; a name that all share is shown in the legend.
        means_N2: Means over seeds, finite.
        lower_N2: Lower confidence limits.
        upper_N2: Upper confidence limits.
        on_front_N: Whether no other draw of this model dominates the draw.
        num_seeds_N: Seeds of each draw.
        grid_G: Reconstruction errors of the band, ascending.
        band_QG: 2.5, 50 and 97.5 % quantiles of the best score at or below them, (3, G); -inf where unknown.
        num_left_out: Number of draws that are not shown, because a seed diverged or a mean is not finite.
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
    num_left_out: int = 0

    @property
    def has_band(self) -> bool:
        """Whether the band is known anywhere."""
        return bool(np.isfinite(self.band_QG[0]).any())


@dataclass(frozen=True)
class FrontFigure:
    """Everything that a front figure shows.

    Attributes:
        title: Title above the axes.
        recon: Name and unit of the horizontal axis, for example `Reconstruction error (nats per image)`.
        score: Name of the vertical axis, for example `FactorVAE score`.
        families: Draws of each model, in the order of the colors; at most six.
        training: How far every run was trained, for example `12,000 updates`.
        data: Recipe of the images, for example `dsprites (rendered v1)`.
        scale: Scale of the protocol.
        caveat: Last sentence of the caption, for example how the setting was chosen.
        levels: Reference lines of the score.
        is_negated: Whether the score is to be minimized and was negated, so that up is better; the axis shows the
            original values.
    """

    title: str
    recon: str
    score: str
    families: tuple[FamilyFront, ...]
    training: str
    data: str
    scale: str
    caveat: str = ""
    levels: tuple[style.Level, ...] = ()
    is_negated: bool = False


def draw_front(figure: FrontFigure, path: Path, suffixes: Iterable[str] = style.SUFFIXES) -> tuple[Path, ...]:
    """Draw the fronts of several models in the plane of reconstruction error and score.

    Args:
        figure: Data to draw.
        path: Path of the files, without a suffix.
        suffixes: Suffixes of the files: PNG at 200 dots per inch, SVG, or both.

    Returns:
        The files written.

    Raises:
        InputError: There are more than six models, or no draw has finite means.
    """
    families = figure.families
    means_N2 = np.concatenate([np.zeros((0, 2)), *(family.means_N2 for family in families)])
    if len(families) > len(COLORS) or not len(means_N2):
        raise InputError(
            f"Fronts of {len(families)} models with {len(means_N2)} finished draws cannot be drawn.\n"
            f"Choose 1 to {len(COLORS)} models with at least one draw whose means are finite."
        )
    with style.own_style():
        sheet = style.sheet(figure.title, _caption(figure, families), room_in=0.6 + 4.6 + 0.92)
        axes = sheet.axes(style.LEFT_IN, 0.6, 0.88 * style.WIDTH_IN, 4.6)
        _frame(axes, figure, families)
        for family, color, marker in zip(families, COLORS, MARKERS, strict=False):
            _draw_band(axes, family, color)
            _draw_points(axes, family, color, marker)
        if len(families) > 1:
            _draw_front_of_all(axes, means_N2)
        _draw_legend(axes, families)
        place_labels(axes, families, COLORS)
        return style.save(sheet.figure, path, suffixes)


def _caption(figure: FrontFigure, shown: Sequence[FamilyFront]) -> str:
    seeds_N = np.concatenate([family.num_seeds_N for family in shown])
    num_left_out = sum(family.num_left_out for family in shown)
    seeds = f"{seeds_N.min()}" if seeds_N.min() == seeds_N.max() else f"{seeds_N.min()} to {seeds_N.max()}"
    sentences = [
        f"Markers: means of {seeds} seeds after {figure.training} on {figure.data}, {figure.scale} scale. "
        "Bars: 95 % Student t intervals; an arrowhead marks a bar that continues beyond the plot.",
        "Filled: on the front of its own model.",
    ]
    if any(family.has_band for family in shown):
        sentences.append(
            "Bands: the best score at this reconstruction error or below, median and 95 % of 1,000 resampled sets of means "
            "(from their Student t distributions), shown from where 97.5 % of the sets have a point."
        )
    if figure.levels:
        sentences.append(style.LEVELS_CAPTION)
    if num_left_out:
        sentences.append(
            f"Not shown: {num_left_out} draw{'s' * (num_left_out > 1)} with a seed that diverged or has no finite value."
        )
    return " ".join([*sentences, figure.caveat]).strip()


def _frame(axes: Axes, figure: FrontFigure, families: Sequence[FamilyFront]) -> None:
    """Set limits, scale, axis labels, grid, and the arrow that shows which corner is better."""
    means_N2 = np.concatenate([family.means_N2 for family in families])
    bands = np.concatenate([family.band_QG[:, np.isfinite(family.band_QG[0])].ravel() for family in families])
    recon_N = means_N2[:, 0]
    is_log = bool(0 < LOG_ABOVE * recon_N.min() < recon_N.max())
    if is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(_limits(recon_N, np.empty(0), is_log))
    levels = [(name, -value if figure.is_negated else value) for name, value in figure.levels]
    shown = np.append(means_N2[:, 1], [value for _, value in levels])
    axes.set_ylim(_limits(shown, bands, is_log=False))
    style.draw_levels(axes, levels)
    axes.set_xlabel(f"{figure.recon}, lower is better{' (log scale)' * is_log}", fontsize=10)
    axes.set_ylabel(f"{figure.score}, {'lower' if figure.is_negated else 'higher'} is better", fontsize=10)
    if figure.is_negated:
        axes.yaxis.set_major_formatter(lambda value, _: f"{0.0 - value:.6g}")
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.text(
        *(1.0, 1.012, "\N{NORTH WEST ARROW} better"),
        transform=axes.transAxes,
        weight="bold",
        color="0.25",
        ha="right",
    )


def _limits(means_N: np.ndarray, band: np.ndarray, is_log: bool) -> tuple[float, float]:
    """Return limits that show the means, and finite band values near them, with a margin; error bars may exceed them."""
    to_axis, from_axis = (np.log, np.exp) if is_log else (np.positive, np.positive)
    means_N = to_axis(means_N)
    reach = np.ptp(means_N) or abs(means_N[0]) or 1.0
    near = np.clip(to_axis(band[np.isfinite(band)]), means_N.min() - reach / 2, means_N.max() + reach / 2)
    low, high = np.append(means_N, near).min(), np.append(means_N, near).max()
    margin = 0.06 * (high - low or abs(high) or 1.0)
    return float(from_axis(low - margin)), float(from_axis(high + margin))


def _draw_band(axes: Axes, family: FamilyFront, color: str) -> None:
    """Draw the band and median of a front, which continue from the last known value to the edge."""
    edge, floor = axes.get_xlim()[1], axes.get_ylim()[0]
    grid_G = np.append(family.grid_G, max(edge, family.grid_G[-1]))
    lower_G, median_G, upper_G = np.concatenate([family.band_QG, family.band_QG[:, -1:]], axis=1)
    axes.fill_between(
        grid_G,
        np.maximum(lower_G, floor),
        upper_G,
        where=np.isfinite(lower_G),
        step="post",
        color=color,
        alpha=0.13,
        linewidth=0,
    )
    axes.step(
        grid_G,
        np.where(np.isfinite(lower_G), median_G, np.nan),
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
            _mark_cut_ends(axes, bar_22, m, color)
        axes.plot(
            *mean_2,
            marker,
            markersize=8 if on_front else 6,
            markerfacecolor=color if on_front else "white",
            markeredgecolor="white" if on_front else color,
            markeredgewidth=0.8 if on_front else 1.4,
            zorder=4,
        )


def _mark_cut_ends(axes: Axes, bar_22: np.ndarray, m: int, color: str) -> None:
    """Draw an arrowhead where a bar along axis m continues beyond the frame."""
    limits = (axes.get_xlim(), axes.get_ylim())[m]
    for is_high, marker in enumerate(("<>", "v^")[m]):
        end_2 = bar_22[is_high].copy()
        if end_2[m] > limits[1] if is_high else end_2[m] < limits[0]:
            end_2[m] = limits[is_high]
            axes.plot(*end_2, marker, markersize=5, color=color, markeredgewidth=0, alpha=0.55, clip_on=False)


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
        shared = shared_name(family.labels)
        name = f"{family.name}, labeled by {shared}" if shared else family.name
        handles.append(Line2D([], [], color=color, marker=marker, markersize=7, linewidth=1.2, label=name))
    if any(family.has_band for family in families):
        handles.append(Patch(color="0.5", alpha=0.25, linewidth=0, label="95 % band of a front"))
    if len(families) > 1:
        line = Line2D(
            [], [], color="black", linewidth=1.4, linestyle=(0, (4, 2)), label="front of all models"
        )
        handles.append(line)
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.005),
        ncols=-(-len(handles) // 2),
        frameon=False,
        columnspacing=2.0,
        handlelength=2.2,
        borderaxespad=0.2,
    )
