"""Variance of codes over images, and the one rule for which codes are active: those that metrics count and let vote.

Shape suffixes: G groups of images, L images of a group, N images, D code dimensions, C categories.
"""

import numpy as np

from trainables.encoding import Encoding

PRUNE_KL = 0.01
"""Mean KL to the prior, nats, up to which a code with a Gaussian posterior has collapsed to it."""

PRUNE_STD = 0.05
"""Standard deviation over the images up to which a code is constant (as in disentanglement_lib)."""

CHUNK = 250
"""Groups whose images are gathered at once: few enough for a processor's cache."""

BLOCK = 4000
"""Images whose codes are summed at once."""


def has_diverged(encoding: Encoding) -> bool:
    """Whether the codes hold values that cannot be scored."""
    return not np.isfinite(encoding.mu_ND).all() or not np.isfinite(encoding.kl_D).all()


def is_active(encoding: Encoding, variance_D: np.ndarray | None = None) -> np.ndarray:
    """Which dimensions carry information about the image, (D,).

    A code is active if the root of its `variance` over all images exceeds `PRUNE_STD`, and, where it has a Gaussian
    posterior, its mean KL to the prior exceeds `PRUNE_KL`. Either alone is not enough: a narrow posterior has a KL even
    if its mean is the same for all images. The KL is at least half the variance, so it decides only up to a deviation
    of 0.14.

    Args:
        encoding: Codes of a run.
        variance_D: Their `variance` over all images, if it is known.
    """
    if variance_D is None:
        variance_D = variance_of_images(encoding.mu_ND, encoding.discrete_D)
    varies_D = np.sqrt(variance_D) > PRUNE_STD
    if encoding.logvar_ND is None:
        return varies_D
    return varies_D & (encoding.discrete_D | (encoding.kl_D > PRUNE_KL))


def variance(codes_GLD: np.ndarray, discrete_D: np.ndarray) -> np.ndarray:
    """Variance of every code inside every group of images, unbiased, float64 (G, D).

    Where a code is a category this is `gini_variance`, which equals the usual variance for two categories 0 and 1.
    """
    deviations_GLD = codes_GLD.astype(np.float64)
    deviations_GLD -= deviations_GLD.mean(axis=1, keepdims=True)
    variance_GD = np.einsum("gld,gld->gd", deviations_GLD, deviations_GLD) / (codes_GLD.shape[1] - 1)
    for d in np.flatnonzero(discrete_D):
        variance_GD[:, d] = gini_variance(codes_GLD[:, :, d])
    return variance_GD


def variance_of_images(codes_ND: np.ndarray, discrete_D: np.ndarray) -> np.ndarray:
    """Variance of every code over all images, as `variance` of the one group of all, float64 (D,)."""
    mean_D = _total(codes_ND) / len(codes_ND)
    variance_D = _total(codes_ND, mean_D) / (len(codes_ND) - 1)
    for d in np.flatnonzero(discrete_D):
        variance_D[d] = gini_variance(codes_ND[None, :, d])[0]
    return variance_D


def _total(codes_ND: np.ndarray, mean_D: np.ndarray | None = None) -> np.ndarray:
    """Sum over the images, from the first to the last, of the codes or of their squared distances from a mean, (D,)."""
    num_images, num_codes = codes_ND.shape
    # The first row is the sum of what came before.
    rows_BD = np.zeros((min(num_images, BLOCK) + 1, num_codes))
    mean_BD = None if mean_D is None else np.tile(mean_D, (len(rows_BD), 1))
    for start in range(0, num_images, BLOCK):
        block_BD = codes_ND[start : start + BLOCK]
        new_BD = rows_BD[1 : len(block_BD) + 1]
        new_BD[...] = block_BD
        if mean_BD is not None:
            new_BD -= mean_BD[: len(block_BD)]
            np.square(new_BD, out=new_BD)
        rows_BD[0] = np.einsum("bd->d", rows_BD[: len(block_BD) + 1])
    return rows_BD[0]


def variance_of_groups(codes_ND: np.ndarray, rows_GL: np.ndarray, discrete_D: np.ndarray) -> np.ndarray:
    """Variance of every code inside every group of rows, as `variance` of `codes_ND[rows_GL]`, float64 (G, D)."""
    num_groups, num_rows = rows_GL.shape
    codes_ND = codes_ND.astype(np.float64, order="C")
    variance_GD = np.empty((num_groups, codes_ND.shape[1]))
    for start in range(0, num_groups, CHUNK):
        chunk = slice(start, start + CHUNK)
        # The rows of a group come first, so that every operation runs over many groups at once.
        codes_LGD = codes_ND.take(rows_GL[chunk].T, axis=0)
        deviations_LGD = codes_LGD - codes_LGD.mean(axis=0)
        variance_GD[chunk] = np.einsum("lgd,lgd->gd", deviations_LGD, deviations_LGD) / (num_rows - 1)
        for d in np.flatnonzero(discrete_D):
            variance_GD[chunk, d] = gini_variance(codes_LGD[:, :, d].T)
    return variance_GD


def gini_variance(labels_GL: np.ndarray) -> np.ndarray:
    """Gini's variance of the labels of every group, float64 (G,).

    1 / (2 L (L - 1)) times the number of ordered pairs that differ (Kim & Mnih 2018, section 5).
    """
    num_groups, num_labels = labels_GL.shape
    values, index_GL = np.unique(labels_GL, return_inverse=True)
    cells_GL = index_GL.reshape(labels_GL.shape) + len(values) * np.arange(num_groups)[:, None]
    counts_GC = np.bincount(cells_GL.ravel(), minlength=num_groups * len(values)).reshape(num_groups, -1)
    num_differing = num_labels**2 - np.square(counts_GC).sum(axis=1)
    return num_differing / (2 * num_labels * (num_labels - 1))
