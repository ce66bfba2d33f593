"""A question asked of images without ground truth: the metrics that need none, and an objective in place of those that do."""

from dataclasses import replace

from search_spaces._sweep import Sweep
from trainables import plugins

OBJECTIVE = "gaussian_tc"
"""How dependent the codes are: what the models that disentangle lower, as far as it shows without ground truth."""


def without_factors(sweep: Sweep) -> Sweep:
    """The sweep with what can be computed of images without ground truth."""
    objectives = [OBJECTIVE if needs_factors(name) else name for name in sweep.objectives]
    metrics = [name for name in sweep.metrics if not needs_factors(name)]
    return replace(
        sweep,
        objectives=tuple(dict.fromkeys(objectives)),
        metrics=tuple(dict.fromkeys([*objectives, *metrics])),
    )


def needs_factors(metric: str) -> bool:
    """Whether a metric is computed from ground truth.

    Raises:
        UnknownNameError: There is no such metric.
    """
    needs: bool = plugins.load("trainables.metrics", metric, "metric").NEEDS_FACTORS
    return needs
