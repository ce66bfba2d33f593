"""What the sweeps of the VAE family share: protocol, data and networks at each scale.

The laptop sizes were found by experiment, see docs/laptop_scale.md.
"""

from collections.abc import Mapping, Sequence

from optuna.distributions import CategoricalDistribution

from search_spaces import Scale
from trainables.config import Value

OBJECTIVES = ("recon_error", "factor_vae_score")
METRICS = ("recon_error", "factor_vae_score", "recon_mse", "kl", "active_dims", "gaussian_tc")

LAPTOP_NOTE = (
    "The small data set was chosen because it shows the effect; most small settings tried do not "
    "(docs/laptop_scale.md)."
)


def scales(
    hyperparameter: str, paper: Sequence[float], laptop: Sequence[float], discriminator: Mapping[str, Value]
) -> dict[str, Scale]:
    """Paper, laptop and smoke scale of a sweep over one hyperparameter.

    Args:
        hyperparameter: Field of the model's configuration.
        paper: Its values at paper scale.
        laptop: Its values at laptop scale; the first and the last are used at smoke scale.
        discriminator: Fields of the small discriminator; empty for a model without a discriminator.
    """
    small: dict[str, Value] = {
        "vae.network": "mlp",
        "vae.latent_dim": 6,
        "vae.width": 64,
        "adam.learning_rate": 1e-3,
    }
    return {
        "paper": Scale(
            data="dsprites",
            space={hyperparameter: CategoricalDistribution(list(paper))},
            num_seeds=10,
            steps=300_000,
            report_every=1_000,
            evaluate_every=30_000,
            block_s=60.0,
            fields={},
        ),
        "laptop": Scale(
            data="sprites",
            space={hyperparameter: CategoricalDistribution(list(laptop))},
            num_seeds=5,
            steps=12_000,
            report_every=400,
            evaluate_every=1_200,
            block_s=5.0,
            fields={**small, **discriminator},
            data_note=LAPTOP_NOTE,
        ),
        "smoke": Scale(
            data="sprites",
            space={hyperparameter: CategoricalDistribution([laptop[0], laptop[-1]])},
            num_seeds=2,
            steps=200,
            report_every=50,
            evaluate_every=100,
            block_s=1.0,
            fields={**small, **discriminator},
            note="Smoke scale tests the plumbing: its numbers mean nothing.",
        ),
    }
