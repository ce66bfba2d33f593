"""Explicitness: how reliably a linear classifier predicts every value of every factor from all codes together.

Definition: Of every factor a multinomial logistic regression on all codes; of every value, the area under the ROC curve
    of its probability on the test images, against the rest; the mean over the values, then over factors. Codes are
    standardized over the training images, a category is one code of 0 and 1 for each label. A value without a test
    image is left out, one without a training image has .5. Factors with one value are left out; nan where codes are
    not finite.
Estimator: scikit-learn's LogisticRegression, C = 1, lbfgs, see `estimators.softmax_regression`. `_examples.split_rows`
    draws the images.
Range: 0 to 1. Neighbors of 40 values in a row stay alike: a perfect code reaches .982 on 10,000 random rows of
    dsprites, .976 with 5 codes of noise beside it, rotated or not.
Direction: higher is better; codes need not be disentangled.
Chance: .50, the normaliser of the paper: the area itself, not rescaled to 0 at chance as some later work does.
Source: Ridgeway & Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, NeurIPS 2018, section 4; with
    one classifier for a factor, as in Locatello et al. 2019. The paper has one for each value, which is blind to the
    middle ones of an ordered factor: a perfect code on dsprites reaches .78 there.

Shape suffixes: N images, D codes, F features, V values of a factor.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, examples, ground_truth, softmax_regression

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "Explicitness"
UNIT: str = ""
NEEDS_FACTORS: int = 1
IS_CHEAP: bool = False  # needs scikit-learn

PENALTY_C = 1.0
MAX_ITERATIONS = 1000
SETTINGS: dict[str, int | float | str] = {
    "C": PENALTY_C,
    "classifier": "LogisticRegression",
    "max_iterations": MAX_ITERATIONS,
    "test": examples.NUM_TEST,
    "train": examples.NUM_TRAIN,
}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run, with `explicitness/FACTOR` for every factor that varies.

    Raises:
        InputError: The images have no ground-truth factor with two values.
    """
    train, test = examples.split_rows(len(encoding.rows_N), generator)
    varying = ground_truth.varying_factors(encoding, "explicitness", train, test)
    values = dict.fromkeys([encoding.factor_names[k] for k in varying], float("nan"))
    if not activity.has_diverged(encoding):
        features_NF = examples.standardized(_features(encoding), train)
        for k in varying:
            factor_N = encoding.factors_NK[:, k]
            probability_NV = np.zeros((len(test), encoding.factor_sizes[k]))
            occurring, found_NV = softmax_regression.probabilities(
                features_NF[train], factor_N[train], features_NF[test], PENALTY_C, MAX_ITERATIONS
            )
            probability_NV[:, occurring] = found_NV
            values[encoding.factor_names[k]] = mean_area(probability_NV, factor_N[test])
    return ground_truth.mean_and_parts("explicitness", values)


def mean_area(score_NV: np.ndarray, value_N: np.ndarray) -> float:
    """Mean over the values that occur of the area under the ROC curve of a value's score; ties count half."""
    return float(np.mean([_area(score_NV[:, value], value_N == value) for value in np.unique(value_N)]))


def _area(score_N: np.ndarray, is_value_N: np.ndarray) -> float:
    """Share of the pairs of an image with the value and another whose scores are in order; ties count half."""
    sorted_N, score_n = np.sort(score_N), score_N[is_value_N]
    num_with, num_rest = len(score_n), len(score_N) - len(score_n)
    # Twice the number of pairs; among themselves, images with the value are in order in half of theirs.
    twice = (np.searchsorted(sorted_N, score_n) + np.searchsorted(sorted_N, score_n, side="right")).sum()
    return float((twice - num_with**2) / (2 * num_with * num_rest))


def _features(encoding: Encoding) -> np.ndarray:
    """Codes, with categories expanded to one column per label, float64 (N, F)."""
    columns = []
    for code_N, is_category in zip(encoding.mu_ND.T, encoding.discrete_D, strict=True):
        columns.append(code_N[:, None] == np.unique(code_N) if is_category else code_N[:, None])
    return np.concatenate(columns, axis=1, dtype=np.float64)
