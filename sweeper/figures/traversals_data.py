"""Data of the traversal figure: the best run of each sweep.

Shape suffixes: V pictures side by side, C H W picture in levels of 255.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeper.analysis import labels, results
from sweeper.analysis.labels import draw_name
from sweeper.figures import factor_matching
from sweeper.figures.selection import Asked
from sweeper.figures.traversals import Panel, Row, TraversalFigure
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import contracts
from trainables.blocks import unpack_arrays
from trainables.encoding import Encoding
from trainables.errors import InputError
from trainables.metrics import mig
from trainables.metrics.estimators import activity


def traversals(asked: Asked, storage: Path, score: str, metrics: Sequence[str] = ()) -> TraversalFigure:
    """Collect the traversals of the best run of each sweep, with rows labeled by the factors they match.

    Args:
        asked: Sweeps to show.
        storage: Folder of the blocks.
        score: Metric that decides which run is best; for images without ground truth, which have no such score, the
            best run by each objective of the first sweep is shown.
        metrics: At most one metric to use instead.

    Raises:
        UnknownNameError: The metric is unknown.
        InputError: There are several metrics, a sweep lacks the metric, or the best run has no pictures.
        DamagedBlockError: The stored data of the run is missing or changed.
    """
    if len(metrics) > 1:
        raise InputError(
            f"Got {len(metrics)} metrics: {', '.join(metrics)}. The best run is chosen by one.\n"
            "Give a single metric, or leave --metrics out."
        )
    chosen = metrics or _chosen(asked, storage, score)
    asked.check(chosen)
    shown = [
        (sweep, metric, _best(sweep, table, metric))
        for sweep, table in asked.tables.items()
        for metric in chosen
    ]
    kept = [_kept(asked.records, storage, sweep, run) for sweep, _, run in shown]
    is_one = len(chosen) == 1
    panels = [
        _panel(asked, *which, *files, "best" if is_one else f"best {which[1]}")
        for which, files in zip(shown, kept, strict=True)
    ]
    names = [contracts.metric(metric).TITLE for metric in chosen]
    which = " and one with the best ".join(names)
    doubt = "" if is_one else "Without ground truth, no number says which run disentangles best."
    return TraversalFigure(
        title=f"Latent traversals, best run by {' and by '.join(names)}",
        panels=tuple(panels),
        caption=asked.caption(
            f"Of each sweep the finished run with the best {which} after {asked.trained()}; single runs, without "
            "intervals.",
            *filter(None, [doubt]),
            *_rows_words([encoding for encoding, _ in kept]),
        ),
    )


def _chosen(asked: Asked, storage: Path, score: str) -> Sequence[str]:
    """Return the score, or all objectives if the first finished run shows that the images have no ground truth."""
    if score in asked.shared():
        return (score,)
    sweep, table = next(iter(asked.tables.items()))
    encoding, _ = _kept(asked.records, storage, sweep, dict(table[table["status"] == "done"].iloc[0]))
    return (score,) if encoding.factor_names else asked.objectives[::-1]


def _best(sweep: SweepId, table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """Return the finished run with the best value of a metric; the first of equal ones."""
    (direction,) = results.directions([metric])
    runs = _scored(table, metric)
    if runs.empty:
        raise InputError(
            f"No finished run of sweep {sweep} has a finite {metric}.\nChoose another metric with --metrics."
        )
    ranked = runs.sort_values("value", ascending=direction == "minimize", kind="stable")
    return dict(ranked.iloc[0])


def _scored(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the rows of finished runs with a finite value of a metric."""
    return table[(table["metric"] == metric) & (table["status"] == "done") & np.isfinite(table["value"])]


def _kept(
    records: Records, storage: Path, sweep: SweepId, run: Mapping[str, Any]
) -> tuple[Encoding, dict[str, np.ndarray]]:
    """Return the encoding of a run at its horizon, and its pictures."""
    found = []
    for name in ("encoding", "pictures"):
        stored = records.slices(run["run_key"], name, limit=1_000_000)
        at_horizon = [each for each in stored if each.step == run["step"]]
        if not at_horizon:
            raise InputError(
                f"Sweep {sweep}: draw {run['draw']}, seed {run['seed']} kept no {name} at step {run['step']:,}.\n"
                "A run keeps them only where its training ended: choose the sweep that trained it further, or train this "
                "one in another --home."
            )
        found.append(at_horizon[0].read(storage))
    return Encoding.from_bytes(found[0]), unpack_arrays(found[1])


def _panel(
    asked: Asked,
    sweep: SweepId,
    metric: str,
    run: Mapping[str, Any],
    encoding: Encoding,
    pictures: Mapping[str, np.ndarray],
    best: str,
) -> Panel:
    table = asked.tables[sweep]
    params = {name: run[name] for name in results.hyperparameters(table)}
    done = _scored(table, metric).drop_duplicates("run_key")
    of_run = table[table["run_key"] == run["run_key"]].set_index("metric")["value"]
    scores = [labels.quantity(name, of_run[name]) for name in dict.fromkeys([metric, asked.recon]) if name]
    matching = factor_matching.match(encoding)
    traversal = pictures["traversal"]
    num_values, moved = traversal.shape[1], len(pictures["inputs"]) // 2
    shown = slice(max(0, moved - num_values // 2), max(0, moved - num_values // 2) + num_values)
    return Panel(
        heading=asked.heading(sweep),
        words=(
            f"{draw_name(params, run['draw'])}, seed {run['seed']}",
            ", ".join(scores),
            f"{best} of {_many(len(done), 'run')}: {_many(done['draw'].nunique(), 'draw')}, "
            f"{_many(done['seed'].nunique(), 'seed')}",
        ),
        originals_VCHW=pictures["inputs"][shown],
        reconstructions_VCHW=pictures["reconstructions"][shown],
        moved=moved - shown.start,
        rows=tuple(Row(each.label, each.is_active, traversal[each.index]) for each in matching.dimensions),
        ends=("-2", "0", "2") if encoding.logvar_ND is not None else ("low", "", "high"),
        below=_unmatched(matching),
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _unmatched(matching: factor_matching.Matching) -> str:
    lacking = [f"{name} (at most {factor_matching.fraction(value)})" for name, value in matching.unmatched]
    return f"Matched by no dimension: {', '.join(lacking)}." if lacking else ""


def _rows_words(encodings: Sequence[Encoding]) -> list[str]:
    """Return the sentences that explain the rows and their labels."""
    spans = {
        True: "-2 to 2 standard deviations of a normal prior",
        False: "one end to the other of a uniform prior, or over all labels",
    }
    kinds = dict.fromkeys(encoding.logvar_ND is not None for encoding in encodings)
    ways = "; ".join(spans[kind] for kind in kinds)
    moved = (
        "First row: originals. Second: their reconstructions. Others: those of the framed image as one dimension of "
        f"its code moves from {ways}."
    )
    inactive = f"Inactive: standard deviation over the images of at most {activity.PRUNE_STD:g}"
    if True in kinds:
        inactive += f", or mean KL to the prior of at most {activity.PRUNE_KL:g} nats"
    if not encodings[0].factor_names:
        return [moved, "A row says the mean KL of its dimension to the prior.", f"{inactive}."]
    named = (
        "A row is named by the factor that its dimension tells most of: their mutual information over the factor's "
        f"entropy ({len(encodings[0].rows_N):,} images, {mig.NUM_BINS} bins), by two if the second has at "
        f"least {factor_matching.fraction(factor_matching.NEARLY)} of it, by none below {factor_matching.fraction(factor_matching.NO_FACTOR)}."
    )
    return [moved, named, f"{inactive}."]
