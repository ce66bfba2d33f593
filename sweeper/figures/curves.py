"""Draw the curves figure: metrics against steps, a column per sweep and a line per draw (Figure 4).

Shape suffixes: S seeds, T steps.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sweeper.analysis import pareto
from sweeper.figures import style

COLORMAP = "viridis"
LIGHTEST = 0.85
"""Upper end of the used part of the colormap, whose yellow end is hard to see on white."""

MAX_LISTED = 12
"""Maximum number of draws in a legend; if there are more, it lists this many, evenly spaced from first to last."""

_AXES_HIGH_IN = 1.75
_BETWEEN_IN = 0.3
_ROWS_APART_IN = 0.2
_CHAR_IN = 0.062
_MIN_COLUMN_IN = 1.9
_RIGHT_IN = 0.18
_HEADING_IN = 0.2


@dataclass(frozen=True)
class Line:
    """A metric of one draw over training; limits are NaN for one seed.

    Attributes:
        step_T: Steps, ascending.
        mean_T: Means over the seeds.
        lower_T: Lower confidence limits.
        upper_T: Upper confidence limits.
    """

    step_T: np.ndarray
    mean_T: np.ndarray
    lower_T: np.ndarray
    upper_T: np.ndarray

    @classmethod
    def from_seeds(cls, step_T: np.ndarray, values_ST: np.ndarray) -> "Line":
        """Compute means and 95 % limits with `pareto.mean_interval`."""
        return cls(step_T, *pareto.mean_interval(values_ST))


@dataclass(frozen=True)
class Column:
    """A column of the figure: one sweep.

    Attributes:
        heading: Model of the sweep.
        unit: Unit of its steps, for example `updates`.
        hyperparameters: Names of the hyperparameters that differ between draws, the title of the legend.
        labels: Each draw's values of them, in the order of the colors.
        lines: For each row of the figure, one line per draw.
    """

    heading: str
    unit: str
    hyperparameters: str
    labels: tuple[str, ...]
    lines: tuple[tuple[Line, ...], ...]


@dataclass(frozen=True)
class CurveFigure:
    """Everything that the curves figure shows.

    Attributes:
        title: Title above the axes.
        rows: Name and unit of each row's metric.
        columns: Columns from left to right, one per sweep.
        caption: Caption below the axes.
        levels: Reference lines of each row.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    caption: str
    levels: tuple[tuple[style.Level, ...], ...]


def draw_curves(figure: CurveFigure, path: Path) -> tuple[Path, ...]:
    """Draw metrics against steps.

    Args:
        figure: Data to draw.
        path: Path of the files, without a suffix.

    Returns:
        The files written, PNG at 200 dots per inch and SVG.
    """
    num_rows, num_columns = len(figure.rows), len(figure.columns)
    wide_in = style.WIDTH_IN - style.LEFT_IN - _RIGHT_IN + _BETWEEN_IN
    column_in = max(wide_in / num_columns, _MIN_COLUMN_IN) - _BETWEEN_IN
    width_in = style.LEFT_IN + num_columns * (column_in + _BETWEEN_IN) - _BETWEEN_IN + _RIGHT_IN
    legends = [_legend(column, column_in) for column in figure.columns]
    below_in, legend_in = 0.62, max(legend.high_in for legend in legends)
    rows_in = num_rows * (_AXES_HIGH_IN + _ROWS_APART_IN) - _ROWS_APART_IN
    with style.own_style():
        sheet = style.sheet(
            figure.title, figure.caption, below_in + rows_in + 0.08 + legend_in + 0.38, width_in
        )
        for i, name in enumerate(figure.rows):
            limits = _limits(
                [line for column in figure.columns for line in column.lines[i]], figure.levels[i]
            )
            bottom_in = below_in + rows_in - _AXES_HIGH_IN - i * (_AXES_HIGH_IN + _ROWS_APART_IN)
            for j, column in enumerate(figure.columns):
                left_in = style.LEFT_IN + j * (column_in + _BETWEEN_IN)
                axes = sheet.axes(left_in, bottom_in, column_in, _AXES_HIGH_IN)
                _draw_lines(axes, column.lines[i])
                _frame(axes, limits, column, is_last=i == num_rows - 1)
                style.draw_levels(axes, figure.levels[i], size=7)
                if j == 0:
                    axes.set_ylabel("\n".join(_wrapped_axis(name)), fontsize=9)
                    axes.yaxis.set_label_coords(-0.44 / column_in, 0.5)
                else:
                    axes.tick_params(labelleft=False)
                if i == 0:
                    legends[j].draw(axes, legend_in)
        return style.save(sheet.figure, path)


def colors(num_draws: int) -> list[str]:
    """Return the colors of draws from first to last, in perceptual order."""
    places = np.linspace(0, LIGHTEST, num_draws) if num_draws > 1 else [0.3]
    return [to_hex(color) for color in matplotlib.colormaps[COLORMAP](places)]


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    is_crowded = len(lines) > MAX_LISTED
    for line, color in zip(lines, colors(len(lines)), strict=True):
        axes.fill_between(
            line.step_T,
            line.lower_T,
            line.upper_T,
            color=color,
            alpha=0.04 if is_crowded else 0.1,
            linewidth=0,
        )
        for bound_T in () if is_crowded else (line.lower_T, line.upper_T):
            axes.plot(line.step_T, bound_T, color=color, linewidth=0.5, alpha=0.45)
    for line, color in zip(lines, colors(len(lines)), strict=True):
        marker = "o" if len(line.step_T) == 1 else None
        axes.plot(
            line.step_T,
            line.mean_T,
            color=color,
            linewidth=0.8 if is_crowded else 1.5,
            marker=marker,
            markersize=3,
        )


def _frame(axes: Axes, limits: tuple[float, float], column: Column, is_last: bool) -> None:
    axes.set_ylim(limits)
    step = np.concatenate([line.step_T for lines in column.lines for line in lines])
    if step.size and np.ptp(step):
        margin = 0.02 * float(np.ptp(step))
        axes.set_xlim(step.min() - margin, step.max() + margin)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(labelsize=8, labelbottom=is_last)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    if is_last:
        axes.set_xlabel(column.unit, fontsize=9)


def _limits(lines: Sequence[Line], levels: Sequence[style.Level]) -> tuple[float, float]:
    """Return limits that show the means and levels with a margin, and intervals up to a fifth of their range beyond."""
    means = np.concatenate([line.mean_T[np.isfinite(line.mean_T)] for line in lines])
    if not means.size:
        return 0.0, 1.0
    means = np.append(means, [value for _, value in levels])
    low, high = float(means.min()), float(means.max())
    spread = high - low or abs(high) or 1.0
    bounds = np.concatenate([np.concatenate([line.lower_T, line.upper_T]) for line in lines])
    bounds = np.append(bounds[np.isfinite(bounds)], means)
    low, high = max(float(bounds.min()), low - 0.2 * spread), min(float(bounds.max()), high + 0.2 * spread)
    return low - 0.04 * spread, high + 0.04 * spread


def _wrapped_axis(name: str) -> list[str]:
    """Break a name and its unit into two lines that fit the height of the axes."""
    words, parenthesis, unit = name.partition(" (")
    return textwrap.wrap(name, 28) if len(words) > 28 else [words, *[f"({unit}"] * bool(parenthesis)]


@dataclass(frozen=True)
class _Legend:
    """The heading and legend above a column.

    Attributes:
        heading: First line, bold.
        title: Names of the hyperparameters, as lines.
        entries: Colors and values of the listed draws.
        num_columns: Number of columns of entries.
        high_in: Total height.
    """

    heading: str
    title: tuple[str, ...]
    entries: tuple[tuple[str, str], ...]
    num_columns: int

    @property
    def high_in(self) -> float:
        rows = -(-len(self.entries) // self.num_columns)
        return _HEADING_IN + 0.14 * len(self.title) + 0.145 * rows + 0.06

    def draw(self, axes: Axes, high_in: float) -> None:
        """Draw it above the axes of the first row, with its upper edge at a given height."""
        handles = [Line2D([], [], color=color, linewidth=2, label=label) for color, label in self.entries]
        axes_in = axes.get_window_extent().height / style.DPI
        above: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "parse_math": False}
        axes.text(0, 1 + high_in / axes_in, self.heading, fontsize=10, weight="bold", **above)
        legend = axes.legend(
            # Matplotlib fills columns; this order reads in rows.
            handles=[
                handle for first in range(self.num_columns) for handle in handles[first :: self.num_columns]
            ],
            loc="upper left",
            bbox_to_anchor=(0, 1 + (high_in - _HEADING_IN) / axes_in),
            ncols=self.num_columns,
            title="\n".join(self.title),
            frameon=False,
            fontsize=7.5,
            title_fontsize=7.5,
            alignment="left",
            columnspacing=1.0,
            handlelength=1.4,
            handletextpad=0.5,
            labelspacing=0.3,
            borderaxespad=0.0,
            borderpad=0.0,
        )
        for text in (*legend.get_texts(), legend.get_title()):
            text.set_parse_math(False)


def _legend(column: Column, column_in: float) -> _Legend:
    listed = _evenly(len(column.labels))
    shades = colors(len(column.labels))
    longest = max((len(column.labels[n]) for n in listed), default=1)
    num_columns = max(1, min(len(listed), int((column_in + 0.1) / (0.31 + _CHAR_IN * longest))))
    title = textwrap.wrap(column.hyperparameters, int(column_in / _CHAR_IN))
    entries = tuple((shades[n], column.labels[n]) for n in listed)
    return _Legend(column.heading, tuple(title), entries, num_columns)


def _evenly(num_draws: int) -> list[int]:
    """Return the indices of the draws that a legend lists."""
    shown = min(num_draws, MAX_LISTED)
    return [round(n * (num_draws - 1) / max(shown - 1, 1)) for n in range(shown)]
