"""A question asked of images with little or no ground truth: the metrics that need no more, and an objective for those that do."""

from dataclasses import replace

from search_spaces import Sweep
from trainables import contracts

OBJECTIVE = "gaussian_tc"
"""How dependent the codes are: what the models that disentangle lower, as far as it shows without ground truth."""


def answerable(sweep: Sweep, num_factors: int) -> Sweep:
    """The sweep with what can be computed of images of which so many factors vary."""
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
    """How many ground-truth factors must vary for a metric, 0 for one without ground truth.

    Raises:
        UnknownNameError: There is no such metric.
    """
    return contracts.metric(metric).NEEDS_FACTORS
