"""Sweeps, one per file: the file's name is the sweep's name; `Sweep` and `Scale` describe them.

A sweep says what to train, never on which machines. A draw is one setting of the hyperparameters; every draw is trained
with the same seeds and judged by the mean over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # listing the sweeps imports nothing heavy
    from optuna.distributions import CategoricalDistribution

    from trainables.config import Precision, Value
    from trainables.plugin_files import PluginFile


@dataclass(frozen=True)
class Scale:
    """How large the protocol of a sweep is.

    Attributes:
        data: Name of a module of `trainables.data`, or the path of your own images.
        space: Hyperparameters and their values, by dotted field of the model's configuration; a draw is one combination
            of their values.
        num_seeds: Seeds 0 .. num_seeds - 1 of every draw.
        steps: Horizon of a run, in updates.
        report_every: Updates between training statistics.
        evaluate_every: Updates between evaluations.
        block_s: Seconds of training that are committed at once, as one block.
        fields: Other fields of the model's configuration to set.
        precision: Arithmetic of matrix products and convolutions; tf32 and bf16 are several times as fast on a GPU.
        note: A sentence that accompanies every picture of this scale, if readers need one.
        data_note: The same, about the choice of the data; dropped if other data is chosen.
    """

    data: str
    space: Mapping[str, CategoricalDistribution]
    num_seeds: int
    steps: int
    report_every: int
    evaluate_every: int
    block_s: float
    fields: Mapping[str, Value]
    precision: Precision = "fp32"
    note: str = ""
    data_note: str = ""

    def notes(self, data: str) -> str:
        """The notes that accompany pictures of this scale on some data."""
        return " ".join(filter(None, (self.note, self.data_note * (data == self.data))))

    def draws(self) -> list[dict[str, Value]]:
        """All combinations of the values in the space, in order."""
        values = itertools.product(*(distribution.choices for distribution in self.space.values()))
        return [dict(zip(self.space, point, strict=True)) for point in values]


@dataclass(frozen=True)
class Sweep:
    """A sweep: a question, and what answers it.

    Attributes:
        question: The question that its front answers, one sentence.
        model: Name of a module of `trainables.models`.
        objectives: Metrics that are the axes of the front, the x axis first: names of modules of `trainables.metrics`.
        metrics: Metrics that are computed at every evaluation, including the objectives.
        scales: The scales by name: `paper`, `laptop`, `smoke`.
        step: What a step of the model is. Horizons in different steps are not comparable; in the same steps they must agree.
    """

    question: str
    model: str
    objectives: tuple[str, ...]
    metrics: tuple[str, ...]
    scales: Mapping[str, Scale]
    step: str = "update"


def load(name: str) -> Sweep:
    """Load a sweep.

    A sweep in a file of your own may name a model, data set or metric by the path of its file, relative to its own folder.

    Raises:
        UnknownNameError: There is no such sweep.
        InputError: It is a file of your own that is invalid, or that names such a file.
    """
    from trainables import plugins

    sweep: Sweep = plugins.load(__name__, name, "sweep").SWEEP
    own = plugins.file_of(plugins.reference(__name__, name))
    return _with_own_files(sweep, own) if own else sweep


def _with_own_files(sweep: Sweep, file: PluginFile) -> Sweep:
    """Add the files that a sweep names by path, and return the sweep with their names."""
    from trainables import plugins
    from trainables.errors import InputError
    from trainables.plugin_files import is_file

    if not isinstance(sweep, Sweep):
        raise InputError(f"{file.path}: SWEEP is not a search_spaces.Sweep.\nSee docs/extending.md.")

    def named(text: str, package: str) -> str:
        path = Path(text).expanduser()
        is_kept = (
            is_file(text) and not (file.path.parent / path).exists() and path.stem in plugins.names(package)
        )
        return (
            path.stem
            if is_kept
            else plugins.named(str(file.path.parent / path) if is_file(text) else text, package)
        )

    def data(text: str) -> str:
        if text.endswith(".py"):
            return named(text, "trainables.data")
        return str(file.path.parent / Path(text).expanduser()) if "/" in text else text

    def metrics(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(named(name, "trainables.metrics") for name in names)

    scales = {name: replace(scale, data=data(scale.data)) for name, scale in sweep.scales.items()}
    return replace(
        sweep,
        model=named(sweep.model, "trainables.models"),
        objectives=metrics(sweep.objectives),
        metrics=metrics(sweep.metrics),
        scales=scales,
    )


def names() -> list[str]:
    """Return the names of all sweeps, sorted, without importing them."""
    from trainables import plugins

    return plugins.names(__name__)


def check(name: str) -> None:
    """Check the name of a sweep without importing it.

    Raises:
        UnknownNameError: There is no such sweep.
    """
    from trainables import plugins

    plugins.check(__name__, name, "sweep")
