"""What all figures share: their style, colors, page with title and caption, and files of equal bytes.

Drawn with matplotlib's object interface on Agg, under its default style whatever the user's settings, and without
dates or versions in the files: equal input gives equal bytes under one matplotlib. Nothing global changes.
"""

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 200
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito, colorblind-safe
MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH_IN = 9.0
LEFT_IN = 0.855
"""Where title, caption and axes begin."""

LINE_IN = 0.165
"""Height of a line of the caption."""

_RIGHT_IN = 0.145
_CHARS_PER_IN = 16
_TITLE_CHARS_PER_IN = 10.5
_TITLE_LINE_IN = 0.2


Level = tuple[str, float]
"""A value to read others by, and what it is the value of, for example `perfect code`."""

LEVELS_CAPTION = "Dotted: what a code that knows every factor scores, and one that knows none."


@contextmanager
def own_style() -> Iterator[None]:
    """The style to draw and save under."""
    own = {
        "font.size": 9,
        "svg.hashsalt": "disentangle-sweeper",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.style.context(["default", own]):
        yield


@dataclass(frozen=True)
class Sheet:
    """A page: its title above, its wrapped caption below, and room for axes between.

    Attributes:
        figure: Where to draw.
        caption_in: Height of the caption, from where on there is room.
    """

    figure: Figure
    caption_in: float

    def axes(self, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
        """New axes; left from the edge of the page, bottom from the top of the caption."""
        across_in, high_in = self.figure.get_size_inches()
        return self.figure.add_axes(
            (
                left_in / across_in,
                (self.caption_in + bottom_in) / high_in,
                width_in / across_in,
                height_in / high_in,
            )
        )


def sheet(
    title: str, caption: str, room_in: float, width_in: float = WIDTH_IN, left_in: float = LEFT_IN
) -> Sheet:
    """A new page; call it under `own_style`.

    Args:
        title: In bold, wrapped; lines beyond the first make the page higher.
        caption: Wrapped.
        room_in: Height between the caption and the upper edge, of which the title's first line takes 0.3 inches.
        width_in: Of the page.
        left_in: Where title and caption begin.
    """
    text_in = width_in - left_in - _RIGHT_IN
    lines = textwrap.wrap(caption, round(_CHARS_PER_IN * text_in))
    titles = textwrap.wrap(title, round(_TITLE_CHARS_PER_IN * text_in))
    caption_in = LINE_IN * len(lines)
    total_in = caption_in + room_in + _TITLE_LINE_IN * (len(titles) - 1)
    figure = Figure(figsize=(width_in, total_in), dpi=DPI)
    FigureCanvasAgg(figure)
    left = left_in / width_in
    figure.text(
        left,
        1 - 0.1 / total_in,
        "\n".join(titles),
        fontsize=12,
        weight="bold",
        va="top",
        parse_math=False,
    )
    figure.text(
        left,
        0.1 / total_in,
        "\n".join(lines),
        fontsize=8,
        color="0.25",
        va="bottom",
        linespacing=1.3,
        parse_math=False,
    )
    return Sheet(figure, caption_in)


def save(figure: Figure, path: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG; call it under `own_style`.

    Args:
        figure: What to write.
        path: Where to, without a suffix.
    """
    return _save(figure, path, ".png"), _save(figure, path, ".svg")


def _save(figure: Figure, path: Path, suffix: str) -> Path:
    file = path.with_name(path.name + suffix)
    absent = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
    figure.savefig(file, metadata=absent)
    return file


def draw_levels(axes: Axes, levels: Iterable[Level], size: float = 8) -> None:
    """Draw horizontal lines across axes whose limits are set, each named at its right end."""
    for name, value in levels:
        axes.axhline(value, color="0.45", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1.5)
        axes.annotate(
            name,
            (1.0, value),
            (-2, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=size,
            color="0.35",
            zorder=1.6,
        )
