"""The name under which a metric's values are recorded: what was computed, by which estimator, on how many images."""

from trainables import plugins


def identity(name: str, num_images: int) -> str:
    """Full name of a metric's estimator; values are comparable where these names are equal.

    For example `factor_vae_score(v1, images=1536, prune_kl=0.01, prune_std=0.05, samples=100, votes=800)`.

    Args:
        name: Entry of `trainables.metrics`.
        num_images: Rows of the encodings that are scored.

    Raises:
        UnknownNameError: There is no such metric.
    """
    metric = plugins.load("trainables.metrics", name, "metric")
    settings = [f"{setting}={value}" for setting, value in sorted(metric.SETTINGS.items())]
    return f"{name}({', '.join([f'v{metric.VERSION}', f'images={num_images}', *settings])})"
