"""Separated attribute predictability: how much better one code predicts each factor than any other code.

Definition: Every factor is predicted from every single code by a linear support vector machine, one against the rest;
    of every factor, the test accuracy of the code that predicts it best less that of the second; the mean over
    factors. A category predicts the value that goes with its label most often in training. Without a second code,
    that one is constant. Factors with one value are left out; nan where codes are not finite.
Estimator: scikit-learn's LinearSVC, C = .01, classes balanced, primal solver. Codes are first standardized over the
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
from trainables.metrics.estimators import activity, examples, ground_truth

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
    accuracy_DK = np.array(
        [
            [_accuracy(code_N, is_category, encoding.factors_NK[:, k], train, test) for k in varying]
            for code_N, is_category in _codes(encoding)
        ]
    )
    second_K, first_K = np.sort(accuracy_DK, axis=0)[-2:]
    return ground_truth.mean_and_parts("sap", dict(zip(names, (first_K - second_K).tolist(), strict=True)))


def _codes(encoding: Encoding) -> list[tuple[np.ndarray, bool]]:
    """Every code, and whether it is a category; a constant is added to a lone code."""
    codes = [
        (code_N.astype(np.float64), bool(d))
        for code_N, d in zip(encoding.mu_ND.T, encoding.discrete_D, strict=True)
    ]
    return codes if len(codes) > 1 else [*codes, (np.zeros(len(encoding.rows_N)), False)]


def _accuracy(
    code_N: np.ndarray, is_category: bool, factor_N: np.ndarray, train: np.ndarray, test: np.ndarray
) -> float:
    """Fraction of the test images whose factor is predicted from one code."""
    if is_category:
        labels_N = np.unique(code_N, return_inverse=True)[1]
        predicted = _most_frequent(labels_N, factor_N, train)[labels_N[test]]
        return float(np.mean(predicted == factor_N[test]))
    from sklearn.svm import LinearSVC

    standard_N1 = examples.standardized(code_N[:, None], train)
    # The primal problem has no random order, but without a seed the global generator would still be used.
    machine = LinearSVC(C=PENALTY_C, class_weight="balanced", dual=False, random_state=0)
    return float(machine.fit(standard_N1[train], factor_N[train]).score(standard_N1[test], factor_N[test]))


def _most_frequent(labels_N: np.ndarray, factor_N: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The factor's most frequent value among the training images of every label, (C,).

    The value that is more frequent overall decides ties, and is used for labels without a training image.
    """
    counts_CV = np.zeros((labels_N.max() + 1, factor_N.max() + 1), dtype=np.int64)
    np.add.at(counts_CV, (labels_N[train], factor_N[train]), 1)
    return (counts_CV * len(labels_N) + counts_CV.sum(axis=0)).argmax(axis=1)
