"""Adapt a sweep to images with little or no ground truth: drop metrics that need more, and replace such objectives."""

from dataclasses import replace

from search_spaces import Sweep
from trainables import contracts

OBJECTIVE = "gaussian_tc"
"""Dependence of the codes: what disentangling models reduce, as far as it is visible without ground truth."""


def answerable(sweep: Sweep, num_factors: int) -> Sweep:
    """Return the sweep with only what can be computed on images with this many varying factors."""
    objectives = [name if needs_factors(name) <= num_factors else OBJECTIVE for name in sweep.objectives]
    metrics = [name for name in sweep.metrics if needs_factors(name) <= num_factors]
    if objectives == list(sweep.objectives) and metrics == list(sweep.metrics):
        return sweep
    return replace(
        sweep,
        objectives=tuple(dict.fromkeys(objectives)),
        metrics=tuple(dict.fromkeys([*objectives, *metrics])),
    )


def needs_factors(metric: str) -> int:
    """Return how many ground-truth factors must vary for a metric, 0 if it needs no ground truth.

    Raises:
        UnknownNameError: The metric is unknown.
    """
    return contracts.metric(metric).NEEDS_FACTORS
