"""Style that all figures share: colors, page with title and caption, and reproducible files.

Figures are drawn with matplotlib's object interface on Agg, in its default style whatever the user's settings, without
dates or versions in the files: equal input gives equal bytes under one matplotlib. Global state is not changed.
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
from matplotlib.patheffects import withStroke

DPI = 200
SUFFIXES = (".png", ".svg")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")  # Okabe and Ito, colorblind-safe
HALO = [withStroke(linewidth=2.5, foreground="white")]
"""Keeps words legible on what they lie on."""

MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH_IN = 9.0
LEFT_IN = 0.855
"""Left edge of title, caption and axes."""

LINE_IN = 0.165
"""Height of one line of the caption."""

_RIGHT_IN = 0.145
_CHARS_PER_IN = 16
_TITLE_CHARS_PER_IN = 10.5
_TITLE_LINE_IN = 0.2


Level = tuple[str, float]
"""A reference line: its name, for example `perfect code`, and its value."""

LEVELS_CAPTION = "Dotted: the scores of a perfect code, an untrained encoder and a random code."


@contextmanager
def own_style() -> Iterator[None]:
    """Use the style for drawing and saving figures."""
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
    """A page with its title above, its wrapped caption below, and room for axes between them.

    Attributes:
        figure: Figure to draw on.
        caption_in: Height of the caption; the room for axes begins above it.
    """

    figure: Figure
    caption_in: float

    def axes(self, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
        """Add axes; left is measured from the edge of the page, bottom from the top of the caption."""
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
    """Create a page; call it within `own_style`.

    Args:
        title: Title, drawn in bold and wrapped; lines beyond the first make the page higher.
        caption: Caption, wrapped.
        room_in: Height between the caption and the upper edge, including 0.3 inches for the title's first line.
        width_in: Width of the page.
        left_in: Left edge of title and caption.
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


def save(figure: Figure, path: Path, suffixes: Iterable[str] = SUFFIXES) -> tuple[Path, ...]:
    """Write a figure as PNG and SVG, or as one of them; call it within `own_style`.

    Args:
        figure: Figure to write.
        path: Path of the files, without a suffix.
        suffixes: Suffixes of the files, of `SUFFIXES`.
    """
    return tuple(_save(figure, path, suffix) for suffix in suffixes)


def _save(figure: Figure, path: Path, suffix: str) -> Path:
    file = path.with_name(path.name + suffix)
    absent = {"Software": None} if suffix == ".png" else {"Date": None, "Creator": None}
    figure.savefig(file, metadata=absent)
    return file


def draw_levels(axes: Axes, levels: Iterable[Level], size: float = 8) -> None:
    """Draw reference lines across axes whose limits are set, each with its name at the right end."""
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
            zorder=4,
            path_effects=HALO,
        )
