"""Entropy and mutual information of labels, and codes cut into bins to make them labels.

All are plug-in estimates from counts, in nats, biased upward on few images: two independent labels of a and b values
share about (a - 1) (b - 1) / (2 N) nats. Labels are integers from 0, and small ones: tables of counts are dense.

Shape suffixes: N images, D codes, K factors, A and B values of a label.
"""

import numpy as np


def discretized(codes_ND: np.ndarray, discrete_D: np.ndarray, num_bins: int) -> np.ndarray:
    """Cut every code into bins of equal width between its least and its greatest value.

    A category is not cut: its bins are its labels. A constant code falls into one bin.

    Args:
        codes_ND: Finite codes.
        discrete_D: Which codes are categories.
        num_bins: Bins of a code that is not a category; some may be empty.

    Returns:
        Bins from 0, int64 (N, D).
    """
    bins_ND = np.empty(codes_ND.shape, dtype=np.int64)
    for d, is_category in enumerate(discrete_D):
        # If float32 codes differ only in their last bits, edges in float32 would coincide.
        code_N = codes_ND[:, d].astype(np.float64)
        if is_category:
            bins_ND[:, d] = np.unique(code_N, return_inverse=True)[1]
        else:
            # Without its last edge the greatest value stays in the last bin.
            bins_ND[:, d] = np.digitize(code_N, np.histogram(code_N, num_bins)[1][:-1]) - 1
    return bins_ND


def mutual_information(a_ND: np.ndarray, b_NK: np.ndarray) -> np.ndarray:
    """Mutual information of every column of `a_ND` with every column of `b_NK`, nats (D, K).

    Exactly 0 where one of the two is constant.
    """
    return np.array([[_information(a_N, b_N) for b_N in b_NK.T] for a_N in a_ND.T]).reshape(
        a_ND.shape[1], b_NK.shape[1]
    )


def entropy(a_NK: np.ndarray) -> np.ndarray:
    """Entropy of every column, nats (K,)."""
    # The information of a label about itself is its entropy.
    return np.array([_information(a_N, a_N) for a_N in a_NK.T], dtype=np.float64)


def _information(a_N: np.ndarray, b_N: np.ndarray) -> float:
    num_b = int(b_N.max()) + 1
    counts_AB = np.bincount(a_N * num_b + b_N, minlength=(int(a_N.max()) + 1) * num_b).reshape(-1, num_b)
    a, b = np.nonzero(counts_AB)
    count = counts_AB[a, b]
    # The ratio is formed from whole numbers, so independence by construction gives log 1 = 0 and no rounding error.
    independent = counts_AB.sum(axis=1)[a] * counts_AB.sum(axis=0)[b]
    return float(np.maximum(0, count @ np.log(len(a_N) * count / independent) / len(a_N)))
