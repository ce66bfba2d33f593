"""The figures of Kim & Mnih, Disentangling by Factorising (ICML 2018), from committed runs."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sweeper.analysis import front
from sweeper.figures.correlation import draw_agreement
from sweeper.figures.correlation_data import agreement
from sweeper.figures.curves import draw_curves
from sweeper.figures.curves_data import curves
from sweeper.figures.front_data import write_plot
from sweeper.figures.selection import Asked
from sweeper.figures.style import SUFFIXES
from sweeper.figures.traversals import draw_traversals
from sweeper.figures.traversals_data import traversals
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import durable
from trainables.errors import UnknownNameError

FIGURES: Mapping[str, str] = {
    "3": "traversals of the best run of each sweep by beta_vae_score, which a model can fool",
    "4": "metrics against training steps: a column for each sweep, a line for each draw",
    "5": "disentanglement against reconstruction error: the front of each model",
    "6": "traversals of the best run of each sweep by factor_vae_score, rows named by their factors",
    "metrics": "metric against metric over all finished runs, with their correlations",
}
"""Kind of figure -> its content."""

KINDS = tuple(FIGURES)


def draw(
    kind: str,
    records: Records,
    storage: Path,
    sweeps: Sequence[SweepId],
    stem: Path,
    metrics: Sequence[str] = (),
    home: Path | None = None,
) -> list[Path]:
    """Draw a figure of the paper from committed runs, as PNG and SVG; equal results give equal bytes.

    Args:
        kind: One of `KINDS`.
        records: The ledger.
        storage: Folder of the blocks, for the kinds that show pictures.
        sweeps: Sweeps to show, at least one, all of one scale and data set.
        stem: Path of the files, without a suffix.
        metrics: Metrics to use instead of the paper's: the rows of `4`, the two objectives of `5`, the one by which `3`
            and `6` choose runs, or those that `metrics` compares.
        home: Home whose calibrations are used.

    Returns:
        The files written.

    Raises:
        UnknownNameError: The kind, a sweep or a metric is unknown.
        InputError: There is nothing to draw, a sweep lacks a metric, or the sweeps are not comparable.
        DamagedBlockError: The stored data of a run is missing or changed.
    """
    if kind not in FIGURES:
        raise UnknownNameError("figure", kind, KINDS)
    asked = Asked.of(records, sweeps, home)
    if kind == "5":
        return _draw_front(asked, stem, metrics)
    with tempfile.TemporaryDirectory() as folder:
        drawn = _drawn(kind, asked, storage, metrics, Path(folder, "figure"))
        return [durable.replace_file(_named(stem, file.suffix), file.read_bytes()) for file in drawn]


def _drawn(kind: str, asked: Asked, storage: Path, metrics: Sequence[str], path: Path) -> tuple[Path, ...]:
    if kind == "4":
        return draw_curves(curves(asked, metrics), path)
    if kind == "metrics":
        return draw_agreement(agreement(asked, metrics), path)
    score = {"3": "beta_vae_score", "6": "factor_vae_score"}[kind]
    return draw_traversals(traversals(asked, storage, score, metrics), path)


def _named(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _draw_front(asked: Asked, stem: Path, metrics: Sequence[str]) -> list[Path]:
    paper = [asked.recon or "recon_error", "factor_vae_score"]
    objectives = list(metrics) or (paper if asked.has_factors else list(asked.objectives))
    asked.check(objectives)
    answer = front.answer(asked.records, list(asked.tables), objectives=objectives, home=asked.home)
    return [write_plot(answer, _named(stem, suffix)) for suffix in SUFFIXES]
