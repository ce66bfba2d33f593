"""DCI disentanglement: whether each code matters for only one factor, by what classifiers of the factors use.

Definition: For every factor a gradient boosting classifier learns its value from all codes; its importances, which sum
    to 1, are a column of a matrix of codes by factors. `dci` is the mean over codes, weighted by their total importance,
    of 1 - H / log K, with H the entropy of the code's row normalised to sum 1. `dci/completeness` is the same of
    factors: columns, log D. 1e-11 is added to every importance before an entropy. `dci/informativeness` is the mean over
    factors of the accuracy on test images.
    Both are 1 by definition where the entropy is over one thing only, and 0 where all importances are. A constant code
    has no importance and no weight, though it counts in D. A factor that has one value is left out and not counted in
    K; one that has a single value in the training images has no importance and that value is its prediction. The labels
    of a category are ordered by their numbers, as trees see them. All nan where codes are not finite.
    Codes are first multiplied by powers of two to a standard deviation between 1 and 2, since scikit-learn's trees see no
    step below 1e-7; this is exact, so that the score does not depend on the unit of a code.
Images: The encoding's rows are shuffled by the generator: the first 1,000, or half of them if they are fewer than
    2,000, are for training, and the next 5,000 at most are for testing.
Range: 0 to 1, all three. A perfect code of 10,000 random rows of dsprites reaches 1.00, 1.00 and 1.00 (.999, .993 and
    1.00 with 5 codes of noise beside); the same rotated at random .08, .08 and .41.
Direction: higher is better, of all three.
Chance: Codes of pure noise: .002, .002 and .12 (10 codes, 10,000 random rows of dsprites), .003, .003 and .09 (6 codes,
    the 1,536 images of 6 x 16 x 16 values). Two generators differ by .01.
Cost: 25 s on one core for 10 codes and 10,000 images of dsprites, whose 113 values take 11,300 trees.
Source: Eastwood & Williams, A Framework for the Quantitative Evaluation of Disentangled Representations, ICLR 2018;
    classifier, entropies and weights as in disentanglement_lib, which trains on 10,000 images.

Shape suffixes: N images, D codes, K factors.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, ground_truth

VERSION: int = 2
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "DCI disentanglement"
UNIT: str = ""
NEEDS_FACTORS: int = 1
IS_CHEAP: bool = False

NUM_TRAIN = 1000
NUM_TEST = 5000
SMOOTHING = 1e-11
BOOSTING: dict[str, int | float] = {"learning_rate": 0.1, "max_depth": 3, "n_estimators": 100}
SETTINGS: dict[str, int | float | str] = {
    **BOOSTING,
    "smoothing": SMOOTHING,
    "solver": "sklearn_gradient_boosting",
    "test": NUM_TEST,
    "train": NUM_TRAIN,
}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run.

    Raises:
        InputError: The images, or those for training, have no ground-truth factor with two values.
    """
    varying = ground_truth.varying_factors(encoding, "dci")
    if activity.has_diverged(encoding):
        return {name: float("nan") for name in ("dci", "dci/completeness", "dci/informativeness")}
    training_n, test_n = split(len(encoding.mu_ND), generator)
    ground_truth.varying_factors(encoding, "dci", training_n)  # without one there is nothing to learn
    codes_ND = rescaled(encoding.mu_ND)
    columns, accuracies = [], []
    for k in varying:
        importance_D, told_n = _boost(
            codes_ND[training_n], encoding.factors_NK[training_n, k], codes_ND[test_n], generator
        )
        columns.append(importance_D)
        accuracies.append(np.mean(told_n == encoding.factors_NK[test_n, k]))
    importance_DK = np.stack(columns, axis=1)
    return {
        "dci": concentration(importance_DK),
        "dci/completeness": concentration(importance_DK.T),
        "dci/informativeness": float(np.mean(accuracies)),
    }


def rescaled(codes_ND: np.ndarray) -> np.ndarray:
    """Codes times powers of two, with standard deviations in [1, 2); constant codes stay. (N, D), float32."""
    deviation_D = codes_ND.std(axis=0, dtype=np.float64)
    exponent_D = np.frexp(np.where(deviation_D > 0, deviation_D, 1.0))[1] - 1
    return np.ldexp(codes_ND.astype(np.float64), -exponent_D).astype(np.float32)


def split(num_images: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and other rows for testing."""
    order_N = generator.permutation(num_images)
    num_train = min(NUM_TRAIN, num_images // 2)
    return order_N[:num_train], order_N[num_train : num_train + NUM_TEST]


def concentration(importance_DK: np.ndarray) -> float:
    """Mean over rows, weighted by their sums, of 1 - entropy / log K: 1 where each row has one entry, 0 if all equal."""
    num_columns = importance_DK.shape[1]
    if not importance_DK.any():
        return 0.0
    if num_columns == 1:
        return 1.0
    share_DK = importance_DK + SMOOTHING
    share_DK /= share_DK.sum(axis=1, keepdims=True)
    entropy_D = -np.sum(share_DK * np.log(share_DK), axis=1) / np.log(num_columns)
    return float((1 - entropy_D) @ importance_DK.sum(axis=1) / importance_DK.sum())


def _boost(
    training_codes_ND: np.ndarray,
    training_values_N: np.ndarray,
    test_codes_ND: np.ndarray,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Importance of every code for one factor, (D,), and the predictions of its values for the test images."""
    from sklearn import config_context
    from sklearn.ensemble import GradientBoostingClassifier

    # The random state decides between equally good splits.
    classifier = GradientBoostingClassifier(**BOOSTING, random_state=int(generator.integers(2**31)))
    if (training_values_N == training_values_N[0]).all():
        return np.zeros(training_codes_ND.shape[1]), np.full(len(test_codes_ND), training_values_N[0])
    # A tenth of the time would go into checks that every one of the thousands of trees makes of the same numbers.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        classifier.fit(training_codes_ND, training_values_N)
        return classifier.feature_importances_, classifier.predict(test_codes_ND)
