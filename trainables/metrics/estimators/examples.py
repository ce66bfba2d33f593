"""Training and test examples of metrics that use a classifier.

Shape suffixes: N images or examples, F features.
"""

import numpy as np

NUM_TRAIN = 10_000
"""Training examples (as in disentanglement_lib)."""

NUM_TEST = 5_000
"""Test examples (as in disentanglement_lib)."""


def split_rows(num_images: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sample training and test rows of an encoding, uniformly without replacement.

    If there are fewer images than `NUM_TRAIN + NUM_TEST`, all are used, two thirds of them for training.
    """
    rows_N = generator.permutation(num_images)
    num_train = min(NUM_TRAIN, num_images * NUM_TRAIN // (NUM_TRAIN + NUM_TEST))
    return rows_N[:num_train], rows_N[num_train : num_train + NUM_TEST]


def standardized(features_NF: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features minus their mean over the training rows, divided by their deviation there, float64 (N, F).

    A feature that is constant over the training rows is only shifted, to 0 there.
    """
    # Minus its first value a constant is exactly 0; minus its rounded mean it would keep some deviation.
    features_NF = features_NF.astype(np.float64) - features_NF[train[:1]]
    features_NF -= features_NF[train].mean(axis=0)
    deviation_F = features_NF[train].std(axis=0)
    return features_NF / np.where(deviation_F > 0, deviation_F, 1)
