"""Sweeps, one a file: the file's name is the sweep's name. Here is what they are written in: `Sweep` and `Scale`.

A sweep says what is asked, never on what machines. A seed is a replicate: every draw is trained with the same seeds
and judged by their mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # listing the sweeps imports nothing heavy
    from optuna.distributions import CategoricalDistribution

    from trainables.config import Precision


@dataclass(frozen=True)
class Scale:
    """How large the protocol of a question is.

    Attributes:
        data: Entry of `trainables.data`, or the path of one's own images.
        space: Hyperparameters and their values, by dotted field of the model's configuration; a draw is one point of
            their product.
        num_seeds: Seeds 0 .. num_seeds - 1 of every draw.
        steps: Horizon of a run, in updates.
        report_every: Updates between training statistics.
        evaluate_every: Updates between evaluations.
        block_s: Seconds of work that are committed at once.
        fields: Other fields of the model's configuration that are set.
        precision: Arithmetic of matrix products and convolutions; tf32 and bf16 are several times as fast on a GPU.
        note: A sentence that goes with every picture of this scale, where readers need one.
        data_note: The same, on the choice of the data; it goes where other data are chosen.
    """

    data: str
    space: Mapping[str, CategoricalDistribution]
    num_seeds: int
    steps: int
    report_every: int
    evaluate_every: int
    block_s: float
    fields: Mapping[str, Any]
    precision: Precision = "fp32"
    note: str = ""
    data_note: str = ""

    def notes(self, data: str) -> str:
        """What goes with pictures of this scale on some data."""
        return " ".join(filter(None, (self.note, self.data_note * (data == self.data))))

    def draws(self) -> list[dict[str, Any]]:
        """All points of the space, in its order."""
        values = itertools.product(*(distribution.choices for distribution in self.space.values()))
        return [dict(zip(self.space, point, strict=True)) for point in values]


@dataclass(frozen=True)
class Sweep:
    """A named question.

    Attributes:
        question: What its front answers, one sentence.
        model: Entry of `trainables.models`.
        objectives: Entries of `trainables.metrics` whose trade-off is asked for, the front's x axis first.
        metrics: Entries of `trainables.metrics` that are computed at every evaluation, objectives among them.
        scales: By name: `paper`, `laptop`, `smoke`.
        step: What a step of the model is. Horizons in other steps do not compare; in the same ones they must agree.
    """

    question: str
    model: str
    objectives: tuple[str, ...]
    metrics: tuple[str, ...]
    scales: Mapping[str, Scale]
    step: str = "update"
