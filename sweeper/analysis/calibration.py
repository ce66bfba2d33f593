"""What to read scores by: for each metric, what codes that know nothing, or everything, get on a data set.

HOME/calibration holds a file per data set. A value stands under its metric's full name, so that it is never set beside
a score of another estimator or of another number of images.
"""

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from sweeper import display
from sweeper.analysis import pareto
from sweeper.home import Home
from sweeper.machines.probe import Probe
from trainables import __version__, calibration, durable, plugins
from trainables.calibration import CODES, CODES_VERSION, METRICS, SEEDLESS
from trainables.durable import DamagedBlockError
from trainables.errors import UnknownNameError
from trainables.metric_identity import identity

SLOW_S = 5.0
"""What the oracle, the easiest code, may take without a remark; noise takes trees five times as long, a minute for few seeds."""

Values = Mapping[str, Sequence[float]]
"""By code, one a seed; one for a code without seeds."""


@dataclass(frozen=True)
class Reference:
    """What one metric says of codes that are known, means over seeds.

    The limits are 95 % t intervals of the means, as for draws everywhere: how well a level is known, not how far a single
    code strays from it; NaN for one seed. All is NaN where the images lack what the metric needs.

    Attributes:
        identity: The metric's full name, see `trainables.metrics._identity`.
        num_seeds: Codes behind each mean that has limits.
        chance: Of noise.
        untrained: Of an encoder before its first step.
        rotated: Of the oracle, rotated at random.
        ceiling: Of the oracle, which has every factor in a code of its own. No bound: an estimator may like others better.
        duplicated: Of the oracle, every code twice.
    """

    identity: str
    num_seeds: int
    chance: float
    chance_lower: float
    chance_upper: float
    untrained: float
    untrained_lower: float
    untrained_upper: float
    rotated: float
    rotated_lower: float
    rotated_upper: float
    ceiling: float
    duplicated: float


@dataclass(frozen=True)
class Calibrated:
    """An answer.

    Attributes:
        recipe: What the images are.
        path: File that holds it.
        references: Those that were asked for, by identity.
        num_computed: How many of them were computed now.
    """

    recipe: str
    path: Path
    references: Mapping[str, Reference]
    num_computed: int

    def sentence(self) -> str:
        """What was done, for a person."""
        if not self.num_computed:
            return f"Nothing to do: {self.path} has all {len(self.references)} metrics."
        num_kept = len(self.references) - self.num_computed
        return f"{self.num_computed} metrics calibrated, {num_kept} were before: {self.path}"


def calibrate(home: Home, data: str, metrics: Sequence[str], num_seeds: int, console: Console) -> Calibrated:
    """Compute what a home lacks of a data set's calibration; each metric is kept as soon as it is whole.

    Args:
        home: Where it is kept.
        data: Name of a data set, or path of one's own.
        metrics: Entries of `trainables.metrics`; all that can be calibrated if none is given.
        num_seeds: Seeds of the codes that have some, at least 1; what was computed with more is kept.
        console: Where progress is shown.

    Raises:
        InputError: No such data set or metric, no ground truth, or a metric of more than codes and ground truth.
        DamagedBlockError: What the home has is damaged.
        OSError: It could not be written.
    """
    valid = calibration.metrics()
    for name in metrics:
        plugins.check(METRICS, name, "metric")
        if name not in valid:
            raise UnknownNameError("metric of codes and ground truth", name, valid)
    with Probe() as probe:
        found = probe.evaluated(data)
        path = _path(home.path, found.recipe)
        names = {name: identity(name, found.num_images) for name in dict.fromkeys(metrics or valid)}
        entries = _read(path, found.recipe)
        lacking = [name for name, full in names.items() if not _has(entries.get(full), num_seeds)]

        def keep(name: str, values: Values) -> None:
            kept = _read(path, found.recipe) | {names[name]: _entry(values)}
            durable.write_record(path, {"recipe": found.recipe, "data": data, "metrics": kept})

        if lacking:
            durable.make_folder(path.parent)
            _compute(probe, data, lacking, num_seeds, keep, console)
    known = references(home.path, found.recipe)
    return Calibrated(found.recipe, path, {full: known[full] for full in names.values()}, len(lacking))


def _compute(
    probe: Probe,
    data: str,
    metrics: Sequence[str],
    num_seeds: int,
    keep: Callable[[str, Values], None],
    console: Console,
) -> None:
    """Ask for all codes of one metric after the other, those first that took the least time on the oracle."""
    num_scores = sum(1 if code in SEEDLESS else num_seeds for code in CODES)
    oracles, seconds = {}, {}
    with display.counting(console, "calibrating", "scores", len(metrics) * num_scores) as progress:
        for name in metrics:
            begun = time.monotonic()
            oracles[name] = probe.calibrate(data, "oracle", name, num_seeds)
            seconds[name] = time.monotonic() - begun
            progress(1)
        for name in sorted(metrics, key=lambda name: seconds[name]):
            if seconds[name] > SLOW_S:
                took = display.duration(seconds[name])
                console.print(
                    f"{name} is slow: {took} on the oracle, longer on each of {num_seeds} seeds of others."
                )
            values = {"oracle": oracles[name]}
            for code in CODES:
                if code not in values:
                    values[code] = probe.calibrate(data, code, name, num_seeds)
                    progress(len(values[code]))
            keep(name, values)


def references(home_path: Path, recipe: str) -> Mapping[str, Reference]:
    """What a home knows of a data set, by the metrics' full names; empty if it was never calibrated with these codes.

    Args:
        home_path: Folder of the home.
        recipe: What the images are, see `trainables.data._images.Source`.

    Raises:
        DamagedBlockError: The file is damaged.
    """
    entries = _read(_path(home_path, recipe), recipe)
    return {full: _reference(full, _values(entry)) for full, entry in entries.items() if _is_current(entry)}


def levels(known: Mapping[str, Reference], metric_settings: str) -> tuple[tuple[str, float], ...]:
    """What a figure of a metric is read by: the values of a perfect and of a random code, as far as they are finite.

    Args:
        known: From `references`.
        metric_settings: The metric's full name.
    """
    if metric_settings not in known:
        return ()
    reference = known[metric_settings]
    found = (("perfect code", reference.ceiling), ("random code", reference.chance))
    return tuple((name, value) for name, value in found if math.isfinite(value))


def _reference(full: str, values: Values) -> Reference:
    def limits(name: str, code: str) -> dict[str, float]:
        interval = pareto.mean_interval(np.array(values[code]))
        return {
            name: float(interval.mean),
            f"{name}_lower": float(interval.lower),
            f"{name}_upper": float(interval.upper),
        }

    return Reference(
        identity=full,
        num_seeds=len(values["random"]),
        ceiling=values["oracle"][0],
        duplicated=values["duplicated"][0],
        **limits("chance", "random"),
        **limits("untrained", "untrained"),
        **limits("rotated", "rotated"),
    )


def _path(home_path: Path, recipe: str) -> Path:
    # The end of a long recipe tells sets of one's own apart: it is a digest of their content.
    slug = re.sub("[^A-Za-z0-9]+", "_", recipe).strip("_")[-100:]
    return home_path / "calibration" / f"{slug}.json"


def _read(path: Path, recipe: str) -> dict[str, Any]:
    """Entries of a file by the metrics' full names."""
    if not path.exists():
        return {}
    try:
        body, _ = durable.read_record(path)
        if body["recipe"] != recipe:
            raise DamagedBlockError(f"{path} is of {body['recipe']}, not of {recipe}.")
    except DamagedBlockError as error:
        remedy = "Remove it: calibrate computes it again, from nothing but the images."
        raise DamagedBlockError(f"{error}\n{remedy}") from None
    entries: dict[str, Any] = body["metrics"]
    return entries


def _entry(values: Values) -> dict[str, Any]:
    # Strict JSON has no NaN: a value that is not finite is written as the text that float() reads.
    written = {code: [v if math.isfinite(v) else f"{v}" for v in found] for code, found in values.items()}
    return {"values": written, "codes": CODES_VERSION, "code_version": __version__}


def _values(entry: Mapping[str, Any]) -> dict[str, list[float]]:
    return {code: [float(value) for value in found] for code, found in entry["values"].items()}


def _is_current(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("codes") == CODES_VERSION)


def _has(entry: Mapping[str, Any] | None, num_seeds: int) -> bool:
    return entry is not None and _is_current(entry) and len(entry["values"]["random"]) >= num_seeds
