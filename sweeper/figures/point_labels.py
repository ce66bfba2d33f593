"""Place the labels of points so that they do not cover words, markers, bars or one another.

Shape suffixes: N points, 2 axes, K obstacles, J candidate places.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from sweeper.figures.style import HALO

# Candidate places of a label around its point: directions (turns from the right, counterclockwise) by distances.
TURNS = (0.06, 0.44, 0.94, 0.56, 0.0, 0.5, 0.12, 0.38, 0.88, 0.62, 0.2, 0.3, 0.8, 0.7)
DISTANCES_PT = (6, 10, 15, 21, 28, 36, 46)
LEADER_PT = 12
"""Distance from which a thin line connects a label to its point."""


class Points(Protocol):
    """Labeled points with error bars; the columns of the (N, 2) arrays are x and y."""

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each point."""
        ...

    @property
    def means_N2(self) -> np.ndarray:
        """Positions of the points."""
        ...

    @property
    def lower_N2(self) -> np.ndarray:
        """Lower ends of the bars."""
        ...

    @property
    def upper_N2(self) -> np.ndarray:
        """Upper ends of the bars."""
        ...


def shared_name(labels: Sequence[str]) -> str:
    """Return the name that all labels share, for example `gamma` if all read `gamma=...`; else an empty text."""
    names = {label.partition("=")[0] for label in labels}
    return names.pop() if len(names) == 1 and all("=" in label for label in labels) else ""


def place_labels(axes: Axes, families: Sequence[Points], colors: Sequence[str]) -> None:
    """Put each label where it covers the least of words, markers, bars and other labels; nearer places are preferred."""
    dpi = axes.figure.dpi
    obstacles = _obstacles(axes, families)
    for family, color in zip(families, colors, strict=False):
        shared = shared_name(family.labels)
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
                path_effects=HALO,
            )
            anchor_2 = axes.transData.transform(mean_2)
            half_2 = np.array(text.get_window_extent().size) / 2
            turns_J1 = np.tile(TURNS, len(DISTANCES_PT))[:, None] * 2 * np.pi
            distance_J1 = np.repeat(DISTANCES_PT, len(TURNS))[:, None]
            direction_J2 = np.concatenate([np.cos(turns_J1), np.sin(turns_J1)], axis=1)
            offset_J2 = direction_J2 * distance_J1 * dpi / 72 + np.clip(1.5 * direction_J2, -1, 1) * half_2
            boxes_J4 = np.concatenate([anchor_2 + offset_J2 - half_2, anchor_2 + offset_J2 + half_2], axis=1)
            covered_J = _overlap(boxes_J4, np.array(obstacles)).sum(axis=1) / (4 * half_2.prod())
            outside_J = 1 - _overlap(boxes_J4, np.array([axes.bbox.extents]))[:, 0] / (4 * half_2.prod())
            best = np.argmin(covered_J + 10 * outside_J + 0.01 * distance_J1[:, 0])
            obstacles.append(boxes_J4[best])
            text.xyann = tuple(offset_J2[best] * 72 / dpi)
            if distance_J1[best, 0] >= LEADER_PT:
                end_2 = (direction_J2 * distance_J1)[best]
                axes.annotate(
                    "",
                    mean_2,
                    end_2,
                    textcoords="offset points",
                    arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6},
                )


def _obstacles(axes: Axes, families: Sequence[Points]) -> list[np.ndarray]:
    """Return the boxes of words, markers and bars in pixels, (x0, y0, x1, y1); a bar counts as 3 points thick."""
    boxes, dpi = [np.array(text.get_window_extent().extents) for text in axes.texts], axes.figure.dpi
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
                            [corners_22[0] - reach_pt * dpi / 72, corners_22[1] + reach_pt * dpi / 72]
                        )
                    )
    return boxes


def _overlap(boxes_J4: np.ndarray, others_K4: np.ndarray) -> np.ndarray:
    """Return the area that each box shares with each of the others, (J, K)."""
    low_JK2 = np.maximum(boxes_J4[:, None, :2], others_K4[:, :2])
    high_JK2 = np.minimum(boxes_J4[:, None, 2:], others_K4[:, 2:])
    return np.clip(high_JK2 - low_JK2, 0, None).prod(axis=-1)
