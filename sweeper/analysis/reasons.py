"""Why a draw is missing, incomplete or off the fronts, in words.

Shape suffixes: M objectives, S finished seeds of a draw.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

_INFINITE = {
    "gaussian_tc": " (a code is a linear function of others, as always with no more images than codes)",
}
"""What it means that a metric is infinite."""


def not_finite(values_SM: np.ndarray, objectives: Sequence[str], settings: Sequence[str]) -> str:
    """Return the objectives without a finite value, with what is known of the cause; empty if there are none."""
    found = []
    for name, setting, values_S in zip(objectives, settings, values_SM.T, strict=True):
        worst = values_S[~np.isfinite(values_S)]
        if len(worst) and np.isinf(worst).any():
            images = re.search(r"images=(\d+)", setting)
            where = f" on {int(images[1]):,} images" if images else ""
            found.append(f"{name} is infinite{where}{_INFINITE.get(name, '')}")
        elif len(worst):
            found.append(f"{name} is not finite or not committed")
    return ", ".join(found)


def words(statuses: Counter[str], unknown: str, is_eligible: bool) -> str:
    """Return why a draw is missing, incomplete or off the fronts; empty otherwise."""
    others = ", ".join(f"{statuses[status]} {status}" for status in sorted(statuses) if status != "done")
    seeds = f"{statuses['done']} of {statuses.total()} seeds done ({others})" if others else ""
    off = "off the front" if statuses["done"] and not is_eligible else ""
    return "; ".join(filter(None, (seeds, unknown, off)))
