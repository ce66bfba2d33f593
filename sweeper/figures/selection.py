"""The sweeps shown in a figure: their tables, and the texts that all figures share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeper import display
from sweeper.analysis import calibration, comparability, front, labels, results
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import contracts
from trainables.errors import InputError

RECON = ("recon_error", "recon_mse")

_ORDER = ("beta_vae", "factor_vae")
"""Models from left to right as in the paper; others follow by name."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Sweeps with finished runs, from left to right, and the texts of their figures.

    Attributes:
        records: The ledger.
        tables: Sweep -> its `results.run_table`.
        left_out: Requested sweeps without a finished run.
        home: Home whose calibrations are used.
    """

    records: Records
    tables: Mapping[SweepId, pd.DataFrame]
    left_out: tuple[SweepId, ...]
    home: Path | None = None

    @classmethod
    def of(cls, records: Records, sweeps: Iterable[SweepId], home: Path | None = None) -> "Asked":
        """Read the tables of sweeps, in the order of the paper.

        Raises:
            UnknownNameError: A sweep is unknown.
            InputError: No sweep has a finished run.
        """
        known = sorted(set(sweeps), key=lambda sweep: _place(records, sweep))
        tables = results.run_tables(records, known)
        begun = {sweep: table for sweep, table in tables.items() if "done" in set(table["status"])}
        if not begun:
            front.answer(records, known)  # raises an error that names the command to train
        return cls(records, begun, tuple(sweep for sweep in known if sweep not in begun), home)

    @property
    def runs(self) -> pd.DataFrame:
        """All runs in one table; a run that several sweeps share is included once."""
        return results.each_run_once(results.stack(list(self.tables.values())))

    @property
    def distinct_draws(self) -> dict[tuple[str, str, int], int]:
        """See `results.distinct_draws`."""
        return results.distinct_draws(results.stack(list(self.tables.values())))

    @property
    def has_factors(self) -> bool:
        """Whether the images have ground truth."""
        return all(self.records.spec(sweep).get("num_factors", 2) for sweep in self.tables)

    @property
    def models(self) -> list[str]:
        """Names of the models, without repetition."""
        return list(dict.fromkeys(table["model"].iloc[0] for table in self.tables.values()))

    def computed(self, sweep: SweepId) -> set[str]:
        """Return the metrics, without parts, that a finished run of a sweep has at its horizon."""
        table = self.tables[sweep]
        known = table.loc[(table["status"] == "done") & table["value"].notna(), "metric"]
        return set(known) & set(contracts.metric_names())

    def shared(self) -> set[str]:
        """Return the metrics that all sweeps have."""
        return set.intersection(*map(self.computed, self.tables))

    @property
    def recon(self) -> str:
        """Reconstruction error that all sweeps have, preferably the paper's; empty if they share none."""
        return next((name for name in RECON if name in self.shared()), "")

    @property
    def objectives(self) -> tuple[str, ...]:
        """Objectives of the first sweep."""
        return tuple(labels.words(self.records, next(iter(self.tables)))["objectives"])

    def check(self, metrics: Sequence[str]) -> None:
        """Check that all sweeps have these metrics and are comparable by them.

        Raises:
            UnknownNameError: A metric is unknown.
            InputError: A sweep lacks a metric, or the sweeps are not comparable.
        """
        for name in metrics:
            contracts.check_metrics([name])
            for sweep in self.tables:
                if name not in (known := self.computed(sweep)):
                    raise InputError(
                        f"The finished runs of sweep {sweep} have no {name}; they have {', '.join(sorted(known))}.\n"
                        f"Compute it: {evaluate_command(sweep, name, self.home)}"
                    )
        results.draw_table(self.runs, list(metrics))  # raises if the sweeps are not comparable

    def levels(self, metric: str, rows: pd.DataFrame | None = None) -> tuple[tuple[str, float], ...]:
        """Return the reference lines of a metric, as computed in these rows or in `runs`; see `calibration.levels`."""
        runs = self.runs if rows is None else rows
        known = calibration.references(self.home, runs["data"].iloc[0]) if self.home else {}
        return calibration.levels(known, results.metric_settings(runs, metric))

    def caption(self, *sentences: str) -> str:
        """Build a caption: the sentences, then the sweeps that are left out, then the notes of the sweeps."""
        notes = [labels.words(self.records, sweep)["note"] for sweep in self.tables]
        absent = f"Not shown, without a finished run: {', '.join(map(str, self.left_out))}."
        return " ".join(filter(None, (*sentences, absent * bool(self.left_out), *dict.fromkeys(notes))))

    def trained(self) -> str:
        """Return how and on what runs were trained, for example `3,000 updates on sprites (rendered v1), laptop scale`."""
        run = self.runs.iloc[0]
        return f"{comparability.training(self.runs)} on {run['data']}, {run['scale']} scale"

    def title(self, of_several: str) -> str:
        """Return the question of a single sweep, or the given title for several sweeps."""
        (sweep, *others) = self.tables
        return of_several if others else str(labels.words(self.records, sweep)["question"])

    def heading(self, sweep: SweepId) -> str:
        """Return the model of a sweep, with what distinguishes it from other sweeps of the same model."""
        model = self.tables[sweep]["model"].iloc[0]
        alike = [
            (each.name, each.label) for each, table in self.tables.items() if table["model"].iloc[0] == model
        ]
        return f"{model} ({labels.told_apart(sweep.name, sweep.label, alike)})" if len(alike) > 1 else model


def _place(records: Records, sweep: SweepId) -> tuple[int, str, str]:
    model = records.spec(sweep)["model"]
    return _ORDER.index(model) if model in _ORDER else len(_ORDER), model, str(sweep)


def evaluate_command(sweep: SweepId, metric: str, home: Path | None) -> str:
    """Return the command that computes a metric for a sweep."""
    return display.command(
        "evaluate", sweep.name, scale=sweep.scale, label=sweep.label, metric=metric, home=home
    )
