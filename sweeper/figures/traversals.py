"""Draw the traversal figure: what each dimension of a model's code changes (Figures 3 and 6).

Shape suffixes: V pictures side by side, C H W picture in levels of 255.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from sweeper.figures import style

MAX_BESIDE = 3
"""Maximum number of panels side by side; further ones begin a new line."""

_SIDE_IN = {1: 0.6, 2: 0.44, 3: 0.36}
"""Number of panels side by side -> side length of a picture."""

_LABEL_IN = 1.02
_BETWEEN_IN = 0.3
_EDGE_IN = 0.15
_LINE_IN = 0.15
_AXIS_IN = 0.24
_GAP = 0.06
"""Gap between pictures, as a share of their side length."""

_CHARS_PER_IN = 16


@dataclass(frozen=True)
class Row:
    """A dimension of the code.

    Attributes:
        label: Factors that it matches.
        is_active: Whether the dimension is active.
        pictures_VCHW: Reconstructions as the dimension moves.
    """

    label: str
    is_active: bool
    pictures_VCHW: np.ndarray


@dataclass(frozen=True)
class Panel:
    """A panel of the figure: one run.

    Attributes:
        heading: Model of the run.
        words: Hyperparameters, seed and scores; each wrapped onto separate lines.
        originals_VCHW: Images.
        reconstructions_VCHW: Reconstructions of the images.
        moved: Index of the image that the rows start from.
        rows: Dimensions from top to bottom.
        ends: Labels of the first, middle and last value of a row.
        below: Text below the rows, empty for none.
    """

    heading: str
    words: tuple[str, ...]
    originals_VCHW: np.ndarray
    reconstructions_VCHW: np.ndarray
    moved: int
    rows: tuple[Row, ...]
    ends: tuple[str, str, str]
    below: str


@dataclass(frozen=True)
class TraversalFigure:
    """Everything that the traversal figure shows: title, one panel per run, caption."""

    title: str
    panels: tuple[Panel, ...]
    caption: str


def draw_traversals(figure: TraversalFigure, path: Path) -> tuple[Path, ...]:
    """Draw panels side by side: originals, reconstructions, then a row for each dimension of the code.

    Args:
        figure: Data to draw.
        path: Path of the files, without a suffix.

    Returns:
        The files written, PNG at 200 dots per inch and SVG.
    """
    beside = min(len(figure.panels), MAX_BESIDE)
    side_in = _SIDE_IN[beside]
    num_values = max(len(panel.originals_VCHW) for panel in figure.panels)
    panel_in = _LABEL_IN + side_in * num_values
    width_in = _EDGE_IN + beside * (panel_in + _BETWEEN_IN) - _BETWEEN_IN + _EDGE_IN
    lines = [figure.panels[start : start + beside] for start in range(0, len(figure.panels), beside)]
    measures = [[_Measure.of(panel, side_in, panel_in) for panel in line] for line in lines]
    heights_in = [_line_high_in(of_line) for of_line in measures]
    with style.own_style():
        sheet = style.sheet(figure.title, figure.caption, sum(heights_in) + 0.5, width_in, _EDGE_IN)
        top_in = sum(heights_in) + 0.1
        for line, of_line, high_in in zip(lines, measures, heights_in, strict=True):
            words_in = max(measure.words_in for measure in of_line)
            for j, (panel, measure) in enumerate(zip(line, of_line, strict=True)):
                left_in = _EDGE_IN + j * (panel_in + _BETWEEN_IN)
                high = words_in + measure.rows_in + measure.below_in
                axes = sheet.axes(left_in, top_in - high, panel_in, high)
                _draw_panel(axes, panel, measure, side_in, words_in)
            top_in -= high_in
        return style.save(sheet.figure, path)


@dataclass(frozen=True)
class _Measure:
    """Text lines of a panel, and the heights of its parts."""

    words: tuple[str, ...]
    below: tuple[str, ...]
    words_in: float
    rows_in: float
    below_in: float

    @classmethod
    def of(cls, panel: Panel, side_in: float, panel_in: float) -> "_Measure":
        chars = int(panel_in * _CHARS_PER_IN)
        words = [line for text in panel.words for line in textwrap.wrap(text, chars)]
        below = textwrap.wrap(panel.below, chars)
        return cls(
            tuple(words),
            tuple(below),
            0.22 + _LINE_IN * len(words) + 0.06,
            side_in * (2 + len(panel.rows)) + _AXIS_IN,
            0.08 + _LINE_IN * len(below) if below else 0.0,
        )


def _line_high_in(measures: Sequence[_Measure]) -> float:
    words_in = max(measure.words_in for measure in measures)
    return words_in + max(measure.rows_in + measure.below_in for measure in measures) + 0.15


def _draw_panel(axes: Axes, panel: Panel, measure: _Measure, side_in: float, words_in: float) -> None:
    """Draw a panel in inches, from the upper left corner downwards."""
    axes.set_axis_off()
    high_in = words_in + measure.rows_in + measure.below_in
    axes.set_xlim(0, _LABEL_IN + side_in * len(panel.originals_VCHW))
    axes.set_ylim(high_in, 0)
    plain: dict[str, Any] = {"fontsize": 8, "va": "top", "parse_math": False}
    axes.text(0, 0, panel.heading, weight="bold", **plain | {"fontsize": 10})
    for i, line in enumerate(measure.words):
        axes.text(0, 0.22 + _LINE_IN * i, line, **plain)
    y_in = words_in
    for label, pictures_VCHW in (
        ("original", panel.originals_VCHW),
        ("reconstruction", panel.reconstructions_VCHW),
    ):
        _draw_row(axes, label, "black", pictures_VCHW, y_in, side_in)
        y_in += side_in
    _draw_moved(axes, panel.moved, y_in, side_in)
    y_in = _draw_ends(axes, panel, y_in, side_in)
    for row in panel.rows:
        _draw_row(axes, row.label, "black" if row.is_active else "0.45", row.pictures_VCHW, y_in, side_in)
        y_in += side_in
    for i, line in enumerate(measure.below):
        axes.text(0, y_in + 0.08 + _LINE_IN * i, line, **plain)


def _draw_row(
    axes: Axes, label: str, color: str, pictures_VCHW: np.ndarray, y_in: float, side_in: float
) -> None:
    words = label.replace(", ", ",\n")
    middle_in = y_in + side_in / 2
    axes.text(
        _LABEL_IN - 0.07,
        middle_in,
        words,
        fontsize=7.5,
        color=color,
        ha="right",
        va="center",
        linespacing=1.15,
        parse_math=False,
    )
    for v, picture_CHW in enumerate(pictures_VCHW):
        left_in, gap_in = _LABEL_IN + v * side_in, _GAP * side_in / 2
        picture_HWC = picture_CHW.transpose(1, 2, 0)
        axes.imshow(
            np.broadcast_to(picture_HWC, (*picture_HWC.shape[:2], 3)),
            extent=(
                left_in + gap_in,
                left_in + side_in - gap_in,
                y_in + side_in - gap_in,
                y_in + gap_in,
            ),
            aspect="auto",
            interpolation="nearest",
        )


def _draw_moved(axes: Axes, moved: int, bottom_in: float, side_in: float) -> None:
    """Draw a frame around the image whose code moves, and its reconstruction."""
    corner = (_LABEL_IN + moved * side_in, bottom_in - 2 * side_in)
    axes.add_patch(
        Rectangle(
            corner, side_in, 2 * side_in, fill=False, edgecolor=style.COLORS[1], linewidth=1.6, zorder=3
        )
    )


def _draw_ends(axes: Axes, panel: Panel, y_in: float, side_in: float) -> float:
    """Write the first, middle and last value of the code above the rows; return where the rows begin."""
    num_values = len(panel.originals_VCHW)
    for text, place in zip(panel.ends, (0, (num_values - 1) / 2, num_values - 1), strict=True):
        axes.text(
            _LABEL_IN + (place + 0.5) * side_in,
            y_in + _AXIS_IN - 0.03,
            text,
            fontsize=7.5,
            color="0.25",
            ha="center",
            va="bottom",
        )
    return y_in + _AXIS_IN
