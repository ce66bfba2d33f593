"""What does beta-VAE pay in reconstruction for disentangling as beta grows? See Figures 4 and 5 of Kim & Mnih (2018).

Command: python -m sweeper run betavae_beta --scale paper
Cost: paper, 60 runs of 300,000 steps on dSprites, about half of factorvae_gamma; laptop, 25 runs of 12,000 steps in
    about one minute on 2 CPU cores; smoke, seconds.
Expected: at paper scale the best score, about .73, at beta = 4, at a reconstruction error of about 45 nats that climbs
    steeply with beta. The paper's exact grid is not known: the values here include all that it names (1, 4) and
    cover the range of later work.
"""

from search_spaces import Sweep
from search_spaces.protocols import vae

SWEEP = Sweep(
    question="What does beta-VAE pay in reconstruction for disentangling as beta grows?",
    model="beta_vae",
    objectives=vae.OBJECTIVES,
    metrics=vae.METRICS,
    scales=vae.scales(
        "beta",
        paper=(1.0, 2.0, 4.0, 6.0, 8.0, 16.0),
        laptop=(1.0, 1.5, 2.0, 3.0, 4.0),
        discriminator={},
    ),
)
