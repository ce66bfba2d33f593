"""Draw the metrics figure: metrics against one another over runs, and their correlations.

Rank correlations are sums over pairs of runs: with s_ij the sign of a_i - a_j, t_ij the sign of b_i - b_j, and w_i the
number of times that a resample has run i,
    Kendall's tau-b is sum w_i w_j s_ij t_ij over the root of (sum w_i w_j s_ij^2) (sum w_i w_j t_ij^2),
    Spearman's rho is the correlation of the centered midranks r_i = sum_j w_j s_ij / 2.

Shape suffixes: N runs, M metrics, B bootstrap resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sweeper.figures import style
from sweeper.figures.factor_matching import fraction

NUM_RESAMPLES = 1000
MAX_MODELS = len(style.COLORS)

_MIN_CELL_IN = 1.12
_MAX_CELL_IN = 2.6
_BETWEEN_IN = 0.12
_RIGHT_IN = 0.15
_BELOW_IN = 0.5
_ABOVE_IN = 0.66


class Estimate(NamedTuple):
    """A correlation and its 95 % bootstrap interval, NaN if unknown."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Agreement:
    """Correlations of two metrics over runs; NaN if one of them is constant."""

    spearman: Estimate
    kendall: Estimate
    pearson: float

    @classmethod
    def from_values(cls, a_N: np.ndarray, b_N: np.ndarray, weights_BN: np.ndarray) -> "Agreement":
        """Compute the correlations over runs, with percentile intervals over resamples, see `resamples`."""
        weights_BN = np.concatenate([np.ones((1, len(a_N))), weights_BN])
        s_NN, t_NN = (np.sign(v_N[:, None] - v_N).astype(np.float32) for v_N in (a_N, b_N))
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(
                _estimate(_spearman(s_NN, t_NN, weights_BN)),
                _estimate(_kendall(s_NN, t_NN, weights_BN)),
                float(np.corrcoef(a_N, b_N)[0, 1]) if np.ptp(a_N) and np.ptp(b_N) else float("nan"),
            )


def resamples(draw_N: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return how often each of 1,000 resamples contains each run, (B, N); no resamples if there is only one draw.

    Draws are resampled with replacement, with all their runs, since seeds of one draw are alike. For two metrics that
    vary independently over 10 draws with 5 seeds, only 62 % of the intervals contained 0 when runs were resampled; when
    draws are resampled, 91 to 95 % do, for 3 to 50 draws.

    Args:
        draw_N: Draw of each run.
        generator: Random generator of the resamples.
    """
    draws, place_N = np.unique(draw_N, return_inverse=True)
    count = NUM_RESAMPLES if len(draws) > 1 else 0
    counts_BD = generator.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), count)
    return counts_BD[:, place_N].astype(np.float64)


def _kendall(s_NN: np.ndarray, t_NN: np.ndarray, weights_BN: np.ndarray) -> np.ndarray:
    both_B, s_B, t_B = (
        np.einsum("bn,bn->b", weights_BN @ product_NN, weights_BN)
        for product_NN in (s_NN * t_NN, s_NN * s_NN, t_NN * t_NN)
    )
    return both_B / np.sqrt(s_B * t_B)


def _spearman(s_NN: np.ndarray, t_NN: np.ndarray, weights_BN: np.ndarray) -> np.ndarray:
    rank_s_BN, rank_t_BN = weights_BN @ s_NN.T / 2, weights_BN @ t_NN.T / 2
    both_B, s_B, t_B = (
        (weights_BN * product_BN).sum(axis=1)
        for product_BN in (rank_s_BN * rank_t_BN, rank_s_BN**2, rank_t_BN**2)
    )
    return both_B / np.sqrt(s_B * t_B)


def _estimate(found_B: np.ndarray) -> Estimate:
    """Return the first value with the interval of the others, ignoring resamples in which a metric is constant."""
    known = found_B[1:][np.isfinite(found_B[1:])]
    lower, upper = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Estimate(float(found_B[0]), float(lower), float(upper))


@dataclass(frozen=True)
class AgreementFigure:
    """Everything that the metrics figure shows.

    Attributes:
        title: Title above the panels.
        metrics: Names of the M metrics.
        models: Names of the models, in the order of their colors; at most six.
        model_N: Index of each run's model.
        values_NM: Values of the metrics, all finite.
        agreements: Agreement of each pair of metrics, by their indices; the smaller index is first.
        caption: Caption below the panels.
    """

    title: str
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    model_N: np.ndarray
    values_NM: np.ndarray
    agreements: Mapping[tuple[int, int], Agreement]
    caption: str


def draw_agreement(figure: AgreementFigure, path: Path) -> tuple[Path, ...]:
    """Draw a square of panels: scatter plots below the diagonal, correlations above it, histograms on it.

    Args:
        figure: Data to draw.
        path: Path of the files, without a suffix.

    Returns:
        The files written, PNG at 200 dots per inch and SVG.
    """
    num_metrics = len(figure.metrics)
    across_in = style.WIDTH_IN - style.LEFT_IN - _RIGHT_IN
    cell_in = min(max(across_in / num_metrics - _BETWEEN_IN, _MIN_CELL_IN), _MAX_CELL_IN)
    square_in = num_metrics * (cell_in + _BETWEEN_IN) - _BETWEEN_IN
    width_in = max(style.LEFT_IN + square_in + _RIGHT_IN, 0.6 * style.WIDTH_IN)
    with style.own_style():
        sheet = style.sheet(figure.title, figure.caption, _BELOW_IN + square_in + _ABOVE_IN, width_in)
        for i in range(num_metrics):
            for j in range(num_metrics):
                axes = sheet.axes(
                    style.LEFT_IN + j * (cell_in + _BETWEEN_IN),
                    _BELOW_IN + (num_metrics - 1 - i) * (cell_in + _BETWEEN_IN),
                    cell_in,
                    cell_in,
                )
                if i > j:
                    _draw_scatter(axes, figure, i, j)
                elif i == j:
                    _draw_histogram(axes, figure, i, cell_in)
                else:
                    _draw_numbers(axes, figure.agreements[i, j], cell_in)
                _frame(axes, figure, i, j)
                if (i, j) == (0, 0):
                    _draw_legend(axes, figure)
        return style.save(sheet.figure, path)


def _draw_scatter(axes: Axes, figure: AgreementFigure, i: int, j: int) -> None:
    for number in range(len(figure.models)):
        own_N = figure.model_N == number
        axes.plot(
            figure.values_NM[own_N, j],
            figure.values_NM[own_N, i],
            style.MARKERS[number],
            markersize=4.5,
            markerfacecolor=style.COLORS[number],
            markeredgecolor="white",
            markeredgewidth=0.4,
            alpha=0.8,
        )
    axes.set_ylim(_limits(figure.values_NM[:, i]))


def _draw_histogram(axes: Axes, figure: AgreementFigure, i: int, cell_in: float) -> None:
    """Draw a histogram of the runs, stacked by model, under the metric's name."""
    axes.hist(
        [figure.values_NM[figure.model_N == number, i] for number in range(len(figure.models))],
        bins=list(np.linspace(*_limits(figure.values_NM[:, i]), 13)),
        color=list(style.COLORS[: len(figure.models)]),
        stacked=True,
        linewidth=0,
        alpha=0.75,
    )
    lines = _broken(figure.metrics[i], int(cell_in / 0.085))
    share = (0.17 * len(lines) + 0.1) / cell_in  # height of the name; the bars end below it
    axes.set_ylim(0, axes.dataLim.y1 / (1 - share))
    axes.text(
        0.5,
        1 - 0.05 / cell_in,
        "\n".join(lines),
        transform=axes.transAxes,
        fontsize=9,
        weight="bold",
        ha="center",
        va="top",
        parse_math=False,
    )


def _broken(name: str, chars: int) -> list[str]:
    """Break a name into lines after underscores."""
    lines = [""]
    for part in name.replace("_", "_ ").split(" "):
        if lines[-1] and len(lines[-1]) + len(part) > chars:
            lines.append("")
        lines[-1] += part
    return lines


def _draw_numbers(axes: Axes, agreement: Agreement, cell_in: float) -> None:
    rho = agreement.spearman.value
    color = style.COLORS[0] if rho > 0 else style.COLORS[1]
    axes.set_facecolor((color, 0.45 * min(1.0, abs(rho))) if np.isfinite(rho) else "0.95")
    if not np.isfinite(rho):
        lines = [(0.5, "one of the two\nis constant", "normal")]
    else:
        step = min(0.15, 0.16 / cell_in)
        rows = []
        for name, estimate in (("Spearman", agreement.spearman), ("Kendall", agreement.kendall)):
            rows.append((f"{name} {fraction(estimate.value)}", "bold"))
            if np.isfinite(estimate.lower):
                rows.append((f"[{fraction(estimate.lower)}, {fraction(estimate.upper)}]", "normal"))
        rows.append((f"Pearson {fraction(agreement.pearson)}", "normal"))
        middle = (len(rows) - 1) / 2
        lines = [(0.5 + (middle - n) * step, text, weight) for n, (text, weight) in enumerate(rows)]
    for y, text, weight in lines:
        axes.text(0.5, y, text, transform=axes.transAxes, fontsize=8, weight=weight, ha="center", va="center")


def _frame(axes: Axes, figure: AgreementFigure, i: int, j: int) -> None:
    """Set the limits, and ticks along the left and lower edges of the square."""
    last = len(figure.metrics) - 1
    if i < j:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        return
    axes.set_xlim(_limits(figure.values_NM[:, j]))
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=7.5, labelbottom=i == last, labelleft=j == 0 and i > 0)
    if i == j:
        axes.set_yticks([])
    else:
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)


def _limits(values_N: np.ndarray) -> tuple[float, float]:
    low, high = float(values_N.min()), float(values_N.max())
    margin = 0.08 * (high - low or abs(high) or 1.0)
    return low - margin, high + margin


def _draw_legend(axes: Axes, figure: AgreementFigure) -> None:
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", markersize=6, label=name)
        for name, color, marker in zip(figure.models, style.COLORS, style.MARKERS, strict=False)
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.03, 1.0),
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.4,
        borderaxespad=0.2,
    )
