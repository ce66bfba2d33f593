"""Full names of metrics, under which values are recorded: which estimator, its settings, how many images, which file."""

import re
from collections.abc import Iterable

from trainables import contracts, plugins

DIGITS = 16
"""Digits of the sha256 of a metric in a file of your own."""


def identity(name: str, num_images: int) -> str:
    """Full name of a metric's estimator; values are comparable where these names are equal.

    For example `factor_vae_score(v2, images=1536, prune_kl=0.01, prune_std=0.05, samples=100, votes=800)`.

    Args:
        name: Entry of `trainables.metrics`.
        num_images: Rows of the encodings that are scored.

    Raises:
        UnknownNameError: No such metric.
    """
    metric = contracts.metric(name)
    settings = [f"{setting}={value}" for setting, value in sorted(metric.SETTINGS.items())]
    own = plugins.file_of(plugins.reference(contracts.METRICS, name))
    file = [f"file={own.sha256[:DIGITS]}"] if own else []
    return f"{name}({', '.join([f'v{metric.VERSION}', f'images={num_images}', *settings, *file])})"


def identities(names: Iterable[str], num_images: int) -> dict[str, str]:
    """The full name of the metric of each value, by the value's name.

    A part of a metric, for example `kl/dim_0`, has the metric's full name; other values, for example `train/loss`, are left out.
    """
    known, parents = contracts.metric_names(), {name: name.partition("/")[0] for name in names}
    return {name: identity(parent, num_images) for name, parent in parents.items() if parent in known}


def is_current(name: str, recorded: str) -> bool:
    """Whether a recorded full name of a metric, or of a part of it, is the current one, on any number of images."""
    parent, images = name.partition("/")[0], re.search(r"images=(\d+)", recorded)
    if images is None or parent not in contracts.metric_names():
        return False
    return identity(parent, int(images[1])) == recorded
