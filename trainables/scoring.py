"""Metrics of an encoding, the same right after training and years later; needs no torch."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np

from trainables import contracts
from trainables.encoding import Encoding


def scores(encoding: Encoding, metrics: Iterable[str]) -> dict[str, float]:
    """Values of metrics by name; parts of a metric are named after it, for example `kl/dim_0`.

    Raises:
        UnknownNameError: No such metric.
        InputError: The images lack what a metric needs.
    """
    found: dict[str, float] = {}
    for name in metrics:
        metric = contracts.metric(name)
        found |= metric.score(encoding, metric_generator(name))
    return found


def cheap_metrics(num_factors: int) -> tuple[str, ...]:
    """Metrics for every evaluation: about a second with NumPy alone; the others take minutes or need a library.

    Args:
        num_factors: Number of ground-truth factors that vary; metrics that need more are left out.
    """
    names = contracts.metric_names()
    metrics = {name: contracts.metric(name) for name in names}
    return tuple(name for name, m in metrics.items() if m.IS_CHEAP and num_factors >= m.NEEDS_FACTORS)


def metric_generator(metric: str) -> np.random.Generator:
    """The random generator of a metric, the same for all runs, so that runs are compared on equal terms."""
    seed = int.from_bytes(sha256(metric.encode()).digest()[:8], "big")
    return np.random.Generator(np.random.PCG64(seed))
