"""The files attached to a sweep in MLflow: its exported fronts, and pictures of each draw's best seed.

Shape suffixes: G rows of K pictures, D code dimensions, C H W picture; levels of 255.
"""

import shutil
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sweeper.analysis.labels import draw_name
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import StoredSlice
from sweeper.tracking.outline import Entry, Outline, Run, ended_at_s, file_digest
from trainables import contracts
from trainables.blocks import unpack_arrays
from trainables.metric_identity import is_current

_DPI = 100
_GAP = 1
_WIDTH_PX = 80


@dataclass(frozen=True)
class Artifact:
    """A file attached to an MLflow run.

    Attributes:
        name: File name in MLflow.
        stamp: Text that changes whenever the file does.
        num_bytes: Size of the file, None if it is only known once the file is made.
        write: Writes the file to a path. Raises DamagedBlockError if the data that it is made from is gone.
    """

    name: str
    stamp: str
    num_bytes: int | None
    write: Callable[[Path], object]


def artifacts(records: Records, storage: Path, outline: Outline, entry: Entry) -> list[Artifact]:
    """Return the files that an entry should have by now."""
    if entry.level == "sweep":
        return [
            Artifact(path.name, file_digest(path), path.stat().st_size, partial(shutil.copyfile, path))
            for path in outline.exports
        ]
    if entry.level == "draw" and ended_at_s(entry.runs) is not None:
        return _of_draw(records, storage, outline, entry)
    return []


def outdated(names: Iterable[str], outline: Outline, entry: Entry) -> list[str]:
    """Return the attached files that answer several sweeps and are out of date."""
    return [name for name in names if name in outline.outdated] if entry.level == "sweep" else []


def _of_draw(records: Records, storage: Path, outline: Outline, entry: Entry) -> list[Artifact]:
    """Return the pictures of the draw's best seed by the sweep's second objective."""
    metric = dict(enumerate(outline.spec.get("objectives", ()))).get(1)
    if metric not in contracts.metric_names():
        return []
    sign = -1.0 if contracts.metric(metric).DIRECTION == "minimize" else 1.0
    scores = {
        run.row.seed: (_score(records, run, metric), run) for run in entry.runs if run.row.status == "done"
    }
    finite = [(sign * score, -seed) for seed, (score, _) in scores.items() if np.isfinite(score)]
    if not finite:
        return []
    score, run = scores[-max(finite)[1]]
    stored = records.slices(run.row.key, "pictures")
    if not stored:
        return []
    name = draw_name(run.row.params, run.row.draw)
    best = f"{name}, seed {run.row.seed}: the best of {len(scores)} by {metric} ({score:.4g})."
    caption = " ".join(filter(None, (best, outline.spec.get("note"))))
    drawing = {"reconstructions.png": _draw_reconstructions, "traversal.png": _draw_traversal}
    return [
        Artifact(
            name, f"{stored[0].slice.sha256} {caption}", None, partial(draw, stored[0], storage, caption)
        )
        for name, draw in drawing.items()
    ]


def _score(records: Records, run: Run, metric: str) -> float:
    """Return a run's metric at the horizon, by its current version if available; NaN if it was not computed."""
    points = records.run_points(run.row.key)
    columns = zip(points.name, points.step, points.identity, points.time_s, points.value, strict=True)
    found = [
        (is_current(name, identity), time_s, value)
        for name, step, identity, time_s, value in columns
        if (name, step) == (metric, run.row.horizon_steps)
    ]
    return max(found)[-1] if found else np.nan


def _draw_reconstructions(stored: StoredSlice, storage: Path, caption: str, path: Path) -> None:
    pictures = unpack_arrays(stored.read(storage))
    rows_2KCHW = np.stack([pictures["inputs"], pictures["reconstructions"]])
    text = f"Above: images of the evaluation. Below: their reconstructions. {caption}"
    _draw_grid(rows_2KCHW, ["inputs", "rebuilt"], text, path)


def _draw_traversal(stored: StoredSlice, storage: Path, caption: str, path: Path) -> None:
    rows_DKCHW = unpack_arrays(stored.read(storage))["traversal"]
    text = (
        "Each row moves one dimension of the code of one image over its prior (a normal one from -2 to 2 standard "
        f"deviations, a uniform one from end to end, a category label by label); the others stay fixed. {caption}"
    )
    _draw_grid(rows_DKCHW, [f"z{d}" for d in range(len(rows_DKCHW))], text, path)


def _draw_grid(rows_GKCHW: np.ndarray, labels: list[str], caption: str, path: Path) -> None:
    """Draw rows of pictures as a PNG, with a label to the left of each row and a caption below."""
    num_rows, num_columns, _, height, width = rows_GKCHW.shape
    padded = np.pad(rows_GKCHW, ((0, 0),) * 3 + ((_GAP, 0), (_GAP, 0)), constant_values=160)
    tiled_HWC = padded.transpose(0, 3, 1, 4, 2).reshape(
        num_rows * (height + _GAP), num_columns * (width + _GAP), -1
    )
    rgb_HWC = np.broadcast_to(tiled_HWC, (*tiled_HWC.shape[:2], 3)) if tiled_HWC.shape[2] == 1 else tiled_HWC
    zoom = max(1, round(_WIDTH_PX / width))
    high_in, wide_in = (zoom * size / _DPI for size in rgb_HWC.shape[:2])
    left_in = 0.7
    lines = textwrap.wrap(caption, max(40, int(13 * (left_in + wide_in))))
    below_in = 0.2 + 0.16 * len(lines)
    figure = Figure(figsize=(left_in + wide_in, below_in + high_in), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (
            left_in / (left_in + wide_in),
            below_in / (below_in + high_in),
            wide_in / (left_in + wide_in),
            high_in / (below_in + high_in),
        )
    )
    axes.imshow(rgb_HWC, interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * (height + _GAP) for row in range(num_rows)], labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.text(
        0.01, 0.06 / (below_in + high_in), "\n".join(lines), fontsize=8, va="bottom", parse_math=False
    )
    figure.savefig(path, format="png", metadata={"Software": None})
