"""Reference scores of a data set: what each metric gives to codes that know nothing, or everything.

HOME/calibration has one file per data set. A value is stored under its metric's full name, so that it is never compared
with a score of another estimator or of another number of images.
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
from trainables import __version__, contracts, durable, known_codes
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.known_codes import CODES, CODES_VERSION, SEEDLESS
from trainables.metric_identity import identity
from trainables.shell import program

SLOW_S = 5.0
"""Seconds on the oracle, the easiest code, above which a metric is reported as slow.

Trees take five times as long on noise, a minute for few seeds.
"""

Values = Mapping[str, Sequence[float]]
"""Code -> one score per seed, or a single score for a code without seeds."""


@dataclass(frozen=True)
class Reference:
    """Scores that one metric gives to known codes, as means over seeds.

    The limits are 95 % t intervals of the means, as for draws: they show how well a mean is known, not how far a single
    code strays from it; NaN for one seed. Everything is NaN if the images lack what the metric needs.

    Attributes:
        identity: The metric's full name, see `trainables.metric_identity`.
        num_seeds: Number of codes behind each mean that has limits.
        chance: Score of noise.
        untrained: Score of an encoder before its first step.
        rotated: Score of the oracle after a random rotation.
        ceiling: Score of the oracle, which has each factor in a separate code. Not a bound: other codes may score higher.
        duplicated: Score of the oracle with every code twice.
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
    """Result of a calibration.

    Attributes:
        recipe: Recipe of the images.
        path: File that contains the calibration.
        references: Requested references, by identity.
        num_computed: Number of metrics that were computed now.
    """

    recipe: str
    path: Path
    references: Mapping[str, Reference]
    num_computed: int

    def sentence(self) -> str:
        """Return what was done, as a sentence for a terminal."""
        if not self.num_computed:
            return f"Nothing to do: {self.path} already has all requested metrics ({len(self.references)})."
        num_kept = len(self.references) - self.num_computed
        metrics = f"{self.num_computed} metric{'s' * (self.num_computed != 1)}"
        return f"Calibrated {metrics} ({num_kept} done before): {self.path}"


def calibrate(home: Home, data: str, metrics: Sequence[str], num_seeds: int, console: Console) -> Calibrated:
    """Compute the missing part of a data set's calibration; each metric is saved as soon as it is complete.

    Args:
        home: Home that keeps the calibration.
        data: Name of a data set, or path of the user's own images.
        metrics: Entries of `trainables.metrics`; all that can be calibrated if none is given.
        num_seeds: Number of seeds for codes that have seeds, at least 1; values with more seeds are kept.
        console: Console that shows the progress.

    Raises:
        InputError: The data set or a metric is unknown, the data set has no ground truth, or a metric needs more than
            codes and ground truth.
        DamagedBlockError: The file in the home is damaged.
        OSError: The file cannot be written.
    """
    valid = known_codes.metrics()
    for name in metrics:
        contracts.check_metrics([name])
        if name not in valid:
            raise InputError(
                f"{name} needs more than codes and ground truth, so it cannot be calibrated.\n"
                f"Valid: {', '.join(sorted(valid))}."
            )
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
    """Score all codes, one metric after the other, starting with the metric that was fastest on the oracle."""
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
                    f"{name} is slow: {took} on the oracle, and longer per seed on the other codes (seeds: {num_seeds})."
                )
            values = {"oracle": oracles[name]}
            for code in CODES:
                if code not in values:
                    values[code] = probe.calibrate(data, code, name, num_seeds)
                    progress(len(values[code]))
            keep(name, values)


def references(home_path: Path, recipe: str) -> Mapping[str, Reference]:
    """Read the references of a data set by full metric name; empty if it was never calibrated with these codes.

    Args:
        home_path: Folder of the home.
        recipe: Recipe of the images, see `trainables.images.Source`.

    Raises:
        DamagedBlockError: The file is damaged.
    """
    entries = _read(_path(home_path, recipe), recipe)
    return {full: _reference(full, _values(entry)) for full, entry in entries.items() if _is_current(entry)}


def levels(known: Mapping[str, Reference], metric_settings: str) -> tuple[tuple[str, float], ...]:
    """Return the reference lines for a figure of a metric: finite scores of a perfect code, an untrained encoder and a random code.

    Args:
        known: From `references`.
        metric_settings: The metric's full name.
    """
    if metric_settings not in known:
        return ()
    reference = known[metric_settings]
    found = (
        ("perfect code", reference.ceiling),
        ("untrained encoder", reference.untrained),
        ("random code", reference.chance),
    )
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
    # A long recipe of the user's own images ends with a digest of their content, which keeps the names distinct.
    slug = re.sub("[^A-Za-z0-9]+", "_", recipe).strip("_")[-100:]
    return home_path / "calibration" / f"{slug}.json"


def _read(path: Path, recipe: str) -> dict[str, Any]:
    """Read the entries of a file by full metric name."""
    if not path.exists():
        return {}
    try:
        body, _ = durable.read_record(path)
        if body["recipe"] != recipe:
            raise DamagedBlockError(f"{path} was calibrated on {body['recipe']}, not on {recipe}.")
    except DamagedBlockError as error:
        remedy = f"Remove it, then run `{program('sweeper')} calibrate` again: it needs only the images."
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
