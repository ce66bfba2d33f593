"""What metrics with a classifier learn from and are tested on.

Shape suffixes: N images or examples, F features.
"""

import numpy as np

NUM_TRAIN = 10_000
"""Training examples (those of disentanglement_lib)."""

NUM_TEST = 5_000
"""Test examples (those of disentanglement_lib)."""


def split_rows(num_images: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw training and test rows of an encoding, uniformly without replacement.

    Where there are fewer images than `NUM_TRAIN + NUM_TEST`, all are used, two thirds of them for training.
    """
    rows_N = generator.permutation(num_images)
    num_train = min(NUM_TRAIN, num_images * NUM_TRAIN // (NUM_TRAIN + NUM_TEST))
    return rows_N[:num_train], rows_N[num_train : num_train + NUM_TEST]


def standardized(features_NF: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features less their mean over the training rows, by their deviation there, float64 (N, F).

    A feature that is constant over the training rows is only shifted, to 0 there.
    """
    # Less its first value a constant is exactly 0; less its rounded mean it would keep some deviation.
    features_NF = features_NF.astype(np.float64) - features_NF[train[:1]]
    features_NF -= features_NF[train].mean(axis=0)
    deviation_F = features_NF[train].std(axis=0)
    return features_NF / np.where(deviation_F > 0, deviation_F, 1)
