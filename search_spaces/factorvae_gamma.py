"""Does FactorVAE disentangle better at no cost in reconstruction as gamma grows? See Figures 4 and 5 of Kim & Mnih (2018).

Command: python -m sweeper run factorvae_gamma --scale paper
Cost: paper, 60 runs of 300,000 steps on dSprites; by arithmetic, days on a GPU one run after the other and hours in
    packs, unmeasured; laptop, 25 runs of 12,000 steps in about two minutes on 2 CPU cores; smoke, seconds.
Expected: at paper scale a score of about .82 at gamma = 40, at a reconstruction error of about 45 nats, where
    beta-VAE reaches about .73. The paper's exact grid is not known: the values here include all that it names (10, 35, 40)
    and cover the range of later work.
"""

from search_spaces import Sweep
from search_spaces.protocols import vae

SWEEP = Sweep(
    question="Does FactorVAE disentangle better at no cost in reconstruction as gamma grows?",
    model="factor_vae",
    objectives=vae.OBJECTIVES,
    metrics=vae.METRICS,
    scales=vae.scales(
        "gamma",
        paper=(1.0, 10.0, 20.0, 35.0, 40.0, 100.0),
        laptop=(1.0, 10.0, 20.0, 40.0, 60.0),
        discriminator={
            "discriminator.depth": 3,
            "discriminator.width": 64,
            "discriminator.adam.learning_rate": 2e-3,
        },
    ),
)
