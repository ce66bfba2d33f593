"""Which factors can be scored, and the values of a metric that has one per factor.

Shape suffixes: N images, K factors.
"""

import numpy as np

from trainables.encoding import Encoding
from trainables.errors import InputError


def varying_factors(encoding: Encoding, metric: str, *parts: np.ndarray, num_needed: int = 1) -> list[int]:
    """Indices of the factors that have two values or more, in the order of the data set.

    Args:
        encoding: The encoding to score.
        metric: Name of the metric, for the message.
        parts: Sets of rows in each of which a factor must vary; all rows by default.
        num_needed: Fewest factors that the metric needs.

    Raises:
        InputError: There are fewer of them than needed, in all images or in a part of them.
    """
    blocks = [encoding.factors_NK[rows] for rows in parts] or [encoding.factors_NK]
    found = [
        k
        for k in range(len(encoding.factor_names))
        if all((factors_NK[:, k] != factors_NK[:1, k]).any() for factors_NK in blocks)
    ]
    if len(found) < num_needed and parts and len(varying_factors(encoding, metric)) >= num_needed:
        raise InputError(
            f"{metric} needs images that differ in a ground-truth factor wherever it learns and tests; "
            f"the {len(encoding.rows_N)} of {encoding.data} are too few.\nUse more images, or other metrics."
        )
    if len(found) < num_needed:
        raise InputError(
            f"{metric} needs ground-truth factors that vary over the images, at least {num_needed}; "
            f"{encoding.data} has {len(found)}.\n"
            "Use other metrics, or train on a factor grid such as dsprites."
        )
    return found


def mean_and_parts(metric: str, values: dict[str, float]) -> dict[str, float]:
    """The mean of a metric's parts under its own name, then the parts, for example `mig/scale`."""
    mean = sum(values.values()) / len(values)
    return {metric: mean} | {f"{metric}/{part}": value for part, value in values.items()}
