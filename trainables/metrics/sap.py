"""Separated attribute predictability: how much better one code predicts each factor than any other code.

Definition: Every factor is predicted from every single code by a linear support vector machine, one against the rest;
    of every factor, the test accuracy of the code that predicts it best less that of the second; the mean over
    factors. A category predicts the value that goes with its label most often in training. Without a second code,
    that one is constant. Factors with one value are left out; nan where codes are not finite.
Estimator: scikit-learn's LinearSVC, C = .01, classes balanced, primal solver, see `estimators.linear_machine`. Codes are first standardized over the
    training images, so that their scale does not matter: the reference takes them raw, where a code of deviation .3
    is held back by the penalty more than one of deviation 1. `_examples.split_rows` draws the images.
Range: 0 to 1. Straight cuts cannot tell many values in a row: a perfect code reaches .25 on dsprites (.66 on its shape,
    .50 on its scale, .03 on the factors of 32 and 40 values), .11 on 6 x 16 x 16 values.
Direction: higher is better.
Chance: .003 for 10 codes of noise on 10,000 random rows of dsprites, .010 for 6 on the 1,536 images of 6 x 16 x 16
    values. Factors that have two codes have 0 as well.
Source: Kumar et al., Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, ICLR 2018,
    section 3; with the classifier of Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of
    Disentangled Representations, ICML 2019.

Shape suffixes: N images, D codes, K factors, C categories, V values of a factor.
"""

from typing import Literal

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, examples, ground_truth, linear_machine

VERSION: int = 1
DIRECTION: Literal["minimize", "maximize"] = "maximize"
RANGE: tuple[float, float] = (0.0, 1.0)
TITLE: str = "Separated attribute predictability"
UNIT: str = ""
NEEDS_FACTORS: int = 1
IS_CHEAP: bool = False  # needs scikit-learn

PENALTY_C = 0.01
SETTINGS: dict[str, int | float | str] = {
    "C": PENALTY_C,
    "classifier": "LinearSVC",
    "codes": "standardized",
    "test": examples.NUM_TEST,
    "train": examples.NUM_TRAIN,
}


def score(encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
    """Score one run, with `sap/FACTOR` for every factor that varies.

    Raises:
        InputError: The images have no ground-truth factor with two values.
    """
    train, test = examples.split_rows(len(encoding.rows_N), generator)
    varying = ground_truth.varying_factors(encoding, "sap", train, test)
    names = [encoding.factor_names[k] for k in varying]
    if activity.has_diverged(encoding):
        return ground_truth.mean_and_parts("sap", dict.fromkeys(names, float("nan")))
    accuracy_DK = _accuracies(encoding, varying, train, test)
    second_K, first_K = np.sort(accuracy_DK, axis=0)[-2:]
    return ground_truth.mean_and_parts("sap", dict(zip(names, (first_K - second_K).tolist(), strict=True)))


def _accuracies(encoding: Encoding, varying: list[int], train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fraction of the test images whose factor is predicted from one code, (D, K); a lone code is joined by a constant."""
    factors_NK, codes_DN = encoding.factors_NK[:, varying], encoding.mu_ND.T.astype(np.float64)
    is_category_D = encoding.discrete_D
    if len(codes_DN) == 1:
        codes_DN, is_category_D = np.pad(codes_DN, ((0, 1), (0, 0))), np.append(is_category_D, False)
    accuracy_DK = np.empty((len(codes_DN), len(varying)))
    for d in np.flatnonzero(is_category_D):
        labels_N = np.unique(codes_DN[d], return_inverse=True)[1]
        for k, factor_N in enumerate(factors_NK.T):
            predicted = _most_frequent(labels_N, factor_N, train)[labels_N[test]]
            accuracy_DK[d, k] = np.mean(predicted == factor_N[test])
    if not is_category_D.all():
        accuracy_DK[~is_category_D] = _machine_accuracies(codes_DN[~is_category_D], factors_NK, train, test)
    return accuracy_DK


def _machine_accuracies(
    codes_DN: np.ndarray, factors_NK: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    standard_ND = np.concatenate(
        [examples.standardized(code_N[:, None], train) for code_N in codes_DN], axis=1
    )
    predicted = linear_machine.predicted(standard_ND[train], factors_NK[train], standard_ND[test], PENALTY_C)
    accuracy_DK = np.empty((len(codes_DN), factors_NK.shape[1]))
    for d, k in np.ndindex(*accuracy_DK.shape):
        values_T = predicted[d][k]
        if values_T is None:
            values_T = _predicted_by_library(standard_ND[:, d : d + 1], factors_NK[:, k], train, test)
        accuracy_DK[d, k] = np.mean(values_T == factors_NK[test, k])
    return accuracy_DK


def _predicted_by_library(
    standard_N1: np.ndarray, factor_N: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    from sklearn.svm import LinearSVC

    # The primal problem has no random order, but without a seed the global generator would still be used.
    machine = LinearSVC(C=PENALTY_C, class_weight="balanced", dual=False, random_state=0)
    return machine.fit(standard_N1[train], factor_N[train]).predict(standard_N1[test])


def _most_frequent(labels_N: np.ndarray, factor_N: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The factor's most frequent value among the training images of every label, (C,).

    The value that is more frequent overall decides ties, and is used for labels without a training image.
    """
    counts_CV = np.zeros((labels_N.max() + 1, factor_N.max() + 1), dtype=np.int64)
    np.add.at(counts_CV, (labels_N[train], factor_N[train]), 1)
    return (counts_CV * len(labels_N) + counts_CV.sum(axis=0)).argmax(axis=1)
