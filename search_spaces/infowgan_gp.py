"""Does InfoWGAN-GP disentangle, for any weight of its information term? See Figure 8 of Kim & Mnih (2018).

Command: python -m sweeper run infowgan_gp --scale paper
Cost: paper, 2,640 runs of 300,000 generator steps on dSprites, five critic steps each: this needs a cluster; laptop,
    25 runs of 1,500 steps in about two minutes on 2 CPU cores; smoke, seconds.
Expected: at paper scale scores well below those of the VAEs, the best at lambda = 0.2; it learns scale, and puts position
    into the category. Noise variables and learning rates cannot differ inside a pack, so there are 24 kinds of packs.
    There is no likelihood: with the VAEs it shares the axis recon_mse, here of the generator's image of Q's codes, with
    zero noise. The paper gives no number of steps; that of its VAEs is used.
"""

from optuna.distributions import CategoricalDistribution

from search_spaces import Scale, Sweep
from trainables.config import Value

_SMALL: dict[str, Value] = {
    "network": "mlp",
    "width": 64,
    "continuous": 5,
    "categories": 0,
    "generator.noise_dim": 5,
    "critic.adam.learning_rate": 1e-3,
}
"""Fields for the small images, which have no factor that is a category."""

SWEEP = Sweep(
    question="Does InfoWGAN-GP disentangle, for any weight of its information term?",
    model="info_wgan_gp",
    objectives=("recon_mse", "factor_vae_score"),
    metrics=("recon_mse", "factor_vae_score", "active_dims", "gaussian_tc"),
    step="generator update",
    scales={
        "paper": Scale(
            data="dsprites",
            space={
                "information": CategoricalDistribution([round(0.1 * step, 1) for step in range(11)]),
                "generator.noise_dim": CategoricalDistribution([5, 10, 20, 40, 80, 160]),
                "generator.adam.learning_rate": CategoricalDistribution([1e-3, 1e-4]),
                "critic.adam.learning_rate": CategoricalDistribution([1e-4, 1e-5]),
            },
            num_seeds=10,
            steps=300_000,
            report_every=1_000,
            evaluate_every=30_000,
            block_s=60.0,
            fields={},
        ),
        "laptop": Scale(
            data="sprites",
            space={"information": CategoricalDistribution([0.0, 0.1, 0.3, 1.0, 3.0])},
            num_seeds=5,
            steps=1_500,
            report_every=50,
            evaluate_every=150,
            block_s=5.0,
            fields=_SMALL,
        ),
        "smoke": Scale(
            data="sprites",
            space={"information": CategoricalDistribution([0.0, 1.0])},
            num_seeds=2,
            steps=60,
            report_every=20,
            evaluate_every=30,
            block_s=1.0,
            fields=_SMALL,
            note="Smoke scale tests the plumbing: its numbers mean nothing.",
        ),
    },
)
