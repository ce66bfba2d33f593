"""beta-VAE score: how reliably the factor that two images share is predicted from the distances of their codes.

Definition: An example picks a factor uniformly and takes 64 pairs of images that share its value, which may be another
    for every pair; its features are the mean distance |z1 - z2| of every code over the pairs. A linear classifier
    learns the factor from 10,000 examples; the score is its accuracy on 5,000 others. The distance of a category is
    whether the labels differ. Factors with one value are never picked; nan where codes are not finite.
Estimator: scikit-learn's multinomial LogisticRegression, C = 1, lbfgs, run until it has converged, see
    `estimators.softmax_regression`; every feature is
    standardized over the training examples, and a constant one (a constant code) is 0.
Images: Drawn from the encoding's rows with replacement, the first uniformly, the second from the rows that share its
    value; a pair may thus be one image twice, on the whole grid as often as in the paper.
Range: 0 to 1.
Direction: higher is better, though it saturates: a factor may have two codes, a code may mix two factors, and one
    factor may even have no code, since it is known by none of the others standing still.
Chance: 1 / K, and what chance correlations help: .21 for 10 codes of noise on 10,000 random rows of dsprites, .36 for 6
    on the 1,536 images of 6 x 16 x 16 values.
    The scale of a code does not matter here, so a nearly collapsed one counts like any other. The reference library,
    disentanglement_lib, learns from raw distances: where two of three factors are in codes with a deviation of .002, the
    score is 1.00 here and .92 there.
Source: Higgins et al., beta-VAE, ICLR 2017, section 3; sizes of Locatello et al. 2019. Kim & Mnih 2018 take 200 pairs,
    10,000 steps of Adagrad (rate .01) on 10 examples each and 800 examples to test. Accuracy still rises after those
    steps, while this classifier has converged: expect higher scores than theirs on the same codes.

Shape suffixes: N images, D codes, E examples, L pairs of an example.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, ground_truth, softmax_regression
from trainables.metrics.estimators.examples import NUM_TEST, NUM_TRAIN, standardized

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "beta-VAE score"
UNIT: str = ""
NEEDS_FACTORS: int = 2
IS_CHEAP: bool = False  # needs scikit-learn

NUM_PAIRS = 64
PENALTY_C = 1.0
MAX_ITERATIONS = 1000
SETTINGS: dict[str, int | float | str] = {
    "C": PENALTY_C,
    "classifier": "LogisticRegression",
    "features": "standardized",
    "max_iterations": MAX_ITERATIONS,
    "pairs": NUM_PAIRS,
    "test": NUM_TEST,
    "train": NUM_TRAIN,
}

CHUNK = 250
"""Examples whose codes are gathered at once: few enough for a processor's cache."""


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run.

    Raises:
        InputError: The images have fewer than two ground-truth factors with two values.
    """
    varying = ground_truth.varying_factors(encoding, "beta_vae_score", num_needed=2)
    if activity.has_diverged(encoding):
        return {"beta_vae_score": float("nan")}
    num_examples = NUM_TRAIN + NUM_TEST
    factor_E = generator.choice(varying, num_examples)
    first_EL, second_EL = sample_pairs(encoding.factors_NK, factor_E, generator)
    return {"beta_vae_score": _accuracy(mean_distance(encoding, first_EL, second_EL), factor_E)}


def sample_pairs(
    factors_NK: np.ndarray, factor_E: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample the rows of the first and of the second images of every example's pairs, (E, L) each."""
    first_EL = generator.integers(0, len(factors_NK), (len(factor_E), NUM_PAIRS))
    second_EL = np.empty_like(first_EL)
    narrow = np.min_scalar_type(factors_NK.max(initial=0))
    for k in np.unique(factor_E):
        values_N, examples = factors_NK[:, k].astype(narrow), np.flatnonzero(factor_E == k)
        counts = np.bincount(values_N)
        sorted_rows_N = np.argsort(values_N, kind="stable")
        start = np.cumsum(counts) - counts
        for some in np.split(examples, range(CHUNK, len(examples), CHUNK)):
            value_eL = values_N.take(first_EL[some])
            place_eL = generator.integers(0, counts.take(value_eL))
            place_eL += start.take(value_eL)
            second_EL[some] = sorted_rows_N.take(place_eL)
    return first_EL, second_EL


def mean_distance(encoding: Encoding, first_EL: np.ndarray, second_EL: np.ndarray) -> np.ndarray:
    """Mean distance of every code over the pairs of every example, float64 (E, D)."""
    codes_ND, discrete_D = encoding.mu_ND.astype(np.float64, order="C"), encoding.discrete_D
    distance_ED = np.empty((len(first_EL), codes_ND.shape[1]))
    for start in range(0, len(first_EL), CHUNK):
        chunk = slice(start, start + CHUNK)
        # The pairs of an example come first, so that every operation runs over many examples at once.
        distance_LeD = codes_ND.take(first_EL[chunk].T, axis=0)
        distance_LeD -= codes_ND.take(second_EL[chunk].T, axis=0)
        np.abs(distance_LeD, out=distance_LeD)
        distance_LeD[:, :, discrete_D] = distance_LeD[:, :, discrete_D] > 0
        distance_ED[chunk] = distance_LeD.mean(axis=0)
    return distance_ED


def _accuracy(distance_ED: np.ndarray, factor_E: np.ndarray) -> float:
    train, test = np.split(np.arange(len(factor_E)), [NUM_TRAIN])
    standard_ED = standardized(distance_ED, train)
    factors, probability_EK = softmax_regression.probabilities(
        standard_ED[train], factor_E[train], standard_ED[test], PENALTY_C, MAX_ITERATIONS
    )
    return float(np.mean(factors[probability_EK.argmax(axis=1)] == factor_E[test]))
