"""Names, units and numbers as they are written in tables, sentences, captions and on axes."""

import math
from collections.abc import Iterable, Mapping

import search_spaces
from sweeper import display
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId, SweepSpec
from sweeper.scheduling.label_free import answerable
from trainables import contracts
from trainables.config import Value
from trainables.errors import InputError


def words(records: Records, sweep: SweepId) -> SweepSpec:
    """Return a sweep's objectives, question and note from its current module; as registered if the module is gone or invalid."""
    spec = records.spec(sweep)
    try:
        current = search_spaces.load(sweep.name)
    except InputError:
        return spec
    asked = answerable(current, spec.get("num_factors", 2))
    scale = asked.scales.get(sweep.scale)
    spec["objectives"], spec["question"] = asked.objectives, asked.question
    if scale:
        spec["note"] = scale.notes(spec["data"])
    return spec


def told_apart(name: str, label: str, asked: Iterable[tuple[str, str]]) -> str:
    """Return what distinguishes a sweep from the others, each given as (name, label): the part that differs, or both."""
    names, labels = (set(words) for words in zip(*asked, strict=True))
    if len(names) == 1 and name not in labels:
        return label or name
    return name if len(labels) == 1 else f"{name} {label}".strip()


def axis(objective: str) -> str:
    """Return the title of an objective's axis: the title and unit of its metric."""
    metric = contracts.metric(objective)
    return f"{metric.TITLE} ({metric.UNIT})" if metric.UNIT else metric.TITLE


def quantity(objective: str, value: float, limits: str = "") -> str:
    """Return a metric's value with its name and unit, for example `recon_error 8.31 [8.2, 8.4] nats per image`."""
    unit = contracts.metric(objective).UNIT
    return " ".join(filter(None, (objective, number(value), limits, unit)))


def limits(lower: float, upper: float) -> str:
    """Return an interval as text, empty if it is unknown."""
    return "" if math.isnan(lower) else f"[{number(lower)}, {number(upper)}]"


def number(value: float) -> str:
    """Return a number as text, with three significant digits or as a whole number."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def draw_name(params: Mapping[str, Value], number: int) -> str:
    """Return the name of a draw, for example `gamma=10`; its number if the sweep varies no hyperparameter."""
    return ", ".join(hyperparameter(*each) for each in params.items()) or f"draw {number}"


def hyperparameter(name: str, value: Value) -> str:
    """Return a hyperparameter as a user types it, for example `gamma=10`."""
    return f"{name}={display.typed_value(value)}"
