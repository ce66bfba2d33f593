"""The sweeps that a figure is asked of: what their finished runs have, and the words that go with every picture."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sweeper import display
from sweeper.analysis import calibration, front, labels, results
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from trainables import plugins
from trainables.errors import InputError

RECON = ("recon_error", "recon_mse")

_ORDER = ("beta_vae", "factor_vae")
"""Models from left to right as in the paper; others follow by name."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Sweeps with finished runs, from left to right, and what goes with every figure of them.

    Attributes:
        records: The ledger.
        tables: Sweep -> its `results.run_table`.
        left_out: Sweeps that were asked for and have no finished run.
        home: Where calibrations are looked for.
    """

    records: Records
    tables: Mapping[SweepId, pd.DataFrame]
    left_out: tuple[SweepId, ...]
    home: Path | None = None

    @classmethod
    def of(cls, records: Records, sweeps: Iterable[SweepId], home: Path | None = None) -> "Asked":
        """What there is of sweeps.

        Raises:
            UnknownNameError: No such sweep.
            InputError: None has a finished run.
        """
        known = sorted(set(sweeps), key=lambda sweep: _place(records, sweep))
        tables = {sweep: results.run_table(records, sweep) for sweep in known}
        begun = {sweep: table for sweep, table in tables.items() if "done" in set(table["status"])}
        if not begun:
            front.answer(records, known)  # says what to train
        return cls(records, begun, tuple(sweep for sweep in known if sweep not in begun), home)

    @property
    def runs(self) -> pd.DataFrame:
        """All runs under one another; one that several sweeps share is there once."""
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
        """Their names, without repetition."""
        return list(dict.fromkeys(table["model"].iloc[0] for table in self.tables.values()))

    def computed(self, sweep: SweepId) -> set[str]:
        """Metrics, without parts, that a finished run of a sweep has at its horizon."""
        table = self.tables[sweep]
        known = table.loc[(table["status"] == "done") & table["value"].notna(), "metric"]
        return set(known) & set(plugins.names("trainables.metrics"))

    def shared(self) -> set[str]:
        """Metrics that all of the sweeps have."""
        return set.intersection(*map(self.computed, self.tables))

    @property
    def recon(self) -> str:
        """The reconstruction error that all of the sweeps have, that of the paper if they can; empty if there is none."""
        return next((name for name in RECON if name in self.shared()), "")

    @property
    def objectives(self) -> tuple[str, ...]:
        """Those of the first sweep."""
        return tuple(labels.words(self.records, next(iter(self.tables)))["objectives"])

    def check(self, metrics: Sequence[str]) -> None:
        """Accept metrics that all of the sweeps have, and sweeps that compare by them.

        Raises:
            UnknownNameError: No such metric.
            InputError: A sweep lacks a metric, or the sweeps do not compare.
        """
        for name in metrics:
            plugins.check("trainables.metrics", name, "metric")
            for sweep in self.tables:
                if name not in (known := self.computed(sweep)):
                    raise InputError(
                        f"The finished runs of sweep {sweep} have no {name}. They have: {', '.join(sorted(known))}.\n"
                        f"Score them: {evaluate_command(sweep, name, self.home)}"
                    )
        results.draw_table(self.runs, list(metrics))  # refuses what does not compare

    def levels(self, metric: str, rows: pd.DataFrame | None = None) -> tuple[tuple[str, float], ...]:
        """What a metric is read by as it was computed in these rows, by default `runs`; see `calibration.levels`."""
        runs = self.runs if rows is None else rows
        known = calibration.references(self.home, runs["data"].iloc[0]) if self.home else {}
        return calibration.levels(known, results.metric_settings(runs, metric))

    def caption(self, *sentences: str) -> str:
        """Sentences, then what was left out, then the notes of the sweeps."""
        notes = [labels.words(self.records, sweep)["note"] for sweep in self.tables]
        absent = f"Not shown, without a finished run: {', '.join(map(str, self.left_out))}."
        return " ".join(filter(None, (*sentences, absent * bool(self.left_out), *dict.fromkeys(notes))))

    def trained(self) -> str:
        """How far and on what, for example `3,000 updates on sprites (rendered v1), laptop scale`."""
        run = self.runs.iloc[0]
        return f"{results.training(self.runs)} on {run['data']}, {run['scale']} scale"

    def title(self, of_several: str) -> str:
        """The question of a lone sweep; else what is given."""
        (sweep, *others) = self.tables
        return of_several if others else str(labels.words(self.records, sweep)["question"])

    def heading(self, sweep: SweepId) -> str:
        """The model of a sweep, and what tells it from another sweep of the same model."""
        model = self.tables[sweep]["model"].iloc[0]
        alike = [
            (each.name, each.label) for each, table in self.tables.items() if table["model"].iloc[0] == model
        ]
        return f"{model} ({labels.told_apart(sweep.name, sweep.label, alike)})" if len(alike) > 1 else model


def _place(records: Records, sweep: SweepId) -> tuple[int, str, str]:
    model = records.spec(sweep)["model"]
    return _ORDER.index(model) if model in _ORDER else len(_ORDER), model, str(sweep)


def evaluate_command(sweep: SweepId, metric: str, home: Path | None) -> str:
    """What to type to give a sweep a metric."""
    return display.command(
        "evaluate", sweep.name, scale=sweep.scale, label=sweep.label, metric=metric, home=home
    )
