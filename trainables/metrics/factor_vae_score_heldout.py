"""FactorVAE score on fresh votes, as in the field's reference library, comparable with published numbers.

Definition: A vote picks a factor and one of its values, both uniformly, takes 64 images that have this value and
    names the code with the least variance over them, after division by its variance over all images (the first of
    equals). Only active codes vote, see `estimators.activity`; the library goes by the deviation alone, and so keeps a
    code that is weaker than 0.14 and has a KL of at most 0.01 nats. A classifier gives each code the factor that most of its 10,000 training votes had (the first of equals, factor 0
    for a code without a vote); the score is the fraction of 5,000 other votes that it gets right. Variances are
    unbiased; categories use Gini's. 0 where no code is active; nan where codes are not finite.
Images: Those of a vote are drawn from the encoding's rows that have the value, uniformly without replacement where
    there are at least 64 of them, else with replacement. A value without a row is never picked, nor a factor that has
    one value. Training and evaluation votes are drawn independently, from the same rows.
Range: 0 to 1, in steps of 1 / 5,000.
Direction: higher is better.
Chance: 1 / K plus little: no majority is gained by luck. Codes of pure noise: .21 (10 codes, 10,000
    random rows of dsprites), .38 (6 codes, the 1,536 images of 6 x 16 x 16 values, where training and evaluation votes
    share chance correlations). A perfect code has 1.
Source: Kim & Mnih, Disentangling by Factorising, ICML 2018, section 4; in the variant of Locatello et al., Challenging
    Common Assumptions in the Unsupervised Learning of Disentangled Representations, ICML 2019 (disentanglement_lib).

Shape suffixes: N images, D codes, V votes, L images of a vote.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, votes

VERSION: int = 3
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "FactorVAE score on fresh votes"
UNIT: str = ""
NEEDS_FACTORS: int = 1
IS_CHEAP: bool = True

NUM_TRAINING_VOTES = 10_000
NUM_EVALUATION_VOTES = 5_000
NUM_SAMPLES = 64
SETTINGS: dict[str, int | float | str] = {
    "evaluation_votes": NUM_EVALUATION_VOTES,
    "prune_kl": activity.PRUNE_KL,
    "prune_std": activity.PRUNE_STD,
    "samples": NUM_SAMPLES,
    "training_votes": NUM_TRAINING_VOTES,
}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run.

    Raises:
        InputError: The images have no ground-truth factor with two values.
    """
    factor_V, rows_VL = sample_votes(encoding, generator)
    if activity.has_diverged(encoding):
        return {"factor_vae_score_heldout": float("nan")}
    active_D = activity.is_active(encoding)
    if not active_D.any():
        return {"factor_vae_score_heldout": 0.0}
    codes_ND, discrete_D = encoding.mu_ND[:, active_D], encoding.discrete_D[active_D]
    whole_D = activity.variance(codes_ND[None], discrete_D)[0]
    variance_VD = activity.variance_of_groups(codes_ND, rows_VL, discrete_D) / whole_D
    return {"factor_vae_score_heldout": heldout_accuracy(variance_VD.argmin(axis=1), factor_V)}


def heldout_accuracy(code_V: np.ndarray, factor_V: np.ndarray) -> float:
    """Fraction of the evaluation votes, the last ones, whose factor most training votes of the same code had."""
    votes_DK = np.zeros((code_V.max() + 1, factor_V.max() + 1), dtype=np.int64)
    np.add.at(votes_DK, (code_V[:NUM_TRAINING_VOTES], factor_V[:NUM_TRAINING_VOTES]), 1)
    told_V = votes_DK.argmax(axis=1)[code_V[NUM_TRAINING_VOTES:]]
    return float(np.mean(told_V == factor_V[NUM_TRAINING_VOTES:]))


def sample_votes(encoding: Encoding, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sample the factor of every vote (V,) and the rows of its images (V, L): training votes, then evaluation votes.

    Raises:
        InputError: The images have no ground-truth factor with two values.
    """
    num_votes = NUM_TRAINING_VOTES + NUM_EVALUATION_VOTES
    return votes.sample("factor_vae_score_heldout", encoding, num_votes, NUM_SAMPLES, generator)
