"""Match the dimensions of a code to factors: the labels and order of the rows of a traversal figure.

Strength is the mutual information of a dimension and a factor divided by the entropy of the factor, with the bins of
`mig`: 1 if the dimension alone determines the factor. Twenty bins cannot separate 40 values, so a perfect dimension of
dsprites reaches only .90.

Shape suffixes: D code dimensions, K factors.
"""

from dataclasses import dataclass

import numpy as np

from trainables.encoding import Encoding
from trainables.metrics.estimators import activity, information
from trainables.metrics.mig import NUM_BINS

NEARLY = 0.75
"""Share of its greatest strength above which a dimension also matches a second factor."""

NO_FACTOR = 0.1
"""Strength below which a dimension matches no factor."""


@dataclass(frozen=True)
class Dimension:
    """A dimension of the code and its label.

    Attributes:
        index: Index in the code.
        label: For example `pos_x .93`, `scale .41, pos_y .38`, `no factor` or `inactive`; `1.52 nats` of KL if the
            images have no ground truth.
        is_active: Whether the dimension is active, see `activity.is_active`.
        factors: Factors that it matches, the strongest first.
    """

    index: int
    label: str
    is_active: bool
    factors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matching:
    """The matching of all dimensions of a code.

    Attributes:
        dimensions: Sorted by factor, in the order of the data set, and by strength; then the unmatched ones, then the
            inactive ones. Without ground truth, sorted by KL, the greatest first.
        unmatched: Factors that no active dimension matches, with the greatest strength of any; 0 if none is active.
    """

    dimensions: tuple[Dimension, ...]
    unmatched: tuple[tuple[str, float], ...]


def strengths(encoding: Encoding) -> np.ndarray:
    """Return the strength of every dimension for every factor, 0 .. 1, (D, K); NaN for a factor with one value."""
    bins_ND = information.discretized(encoding.mu_ND, encoding.discrete_D, NUM_BINS)
    information_DK = information.mutual_information(bins_ND, encoding.factors_NK)
    with np.errstate(invalid="ignore"):
        return information_DK / information.entropy(encoding.factors_NK)


def match(encoding: Encoding) -> Matching:
    """Label and sort the dimensions of a code."""
    active_D = activity.is_active(encoding)
    if not encoding.factor_names:
        return _by_kl(encoding, active_D)
    varying = [k for k in range(len(encoding.factor_names)) if np.ptp(encoding.factors_NK[:, k])]
    names = [encoding.factor_names[k] for k in varying]
    strength_DK = strengths(encoding)[:, varying]
    found = [_dimension(d, strength_DK[d], names, bool(active)) for d, active in enumerate(active_D)]
    ranked = sorted(found, key=lambda each: _rank(each, names, strength_DK))
    matched = {name for each in found for name in each.factors}
    greatest_K = strength_DK[active_D].max(axis=0, initial=0.0)
    lacking = [(name, float(greatest_K[k])) for k, name in enumerate(names) if name not in matched]
    return Matching(tuple(ranked), tuple(lacking))


def _dimension(index: int, strength_K: np.ndarray, names: list[str], is_active: bool) -> Dimension:
    if not is_active:
        return Dimension(index, "inactive", is_active)
    best = np.argsort(-strength_K, kind="stable")[:2]
    shown = [k for k in best if strength_K[k] >= max(NO_FACTOR, NEARLY * strength_K[best[0]])]
    if not shown:
        return Dimension(index, "no factor", is_active)
    label = ", ".join(f"{names[k]} {fraction(float(strength_K[k]))}" for k in shown)
    return Dimension(index, label, is_active, tuple(names[k] for k in shown))


def _rank(each: Dimension, names: list[str], strength_DK: np.ndarray) -> tuple[int, int, float, int]:
    if not each.factors:
        return 1 + (not each.is_active), 0, 0.0, each.index
    first = names.index(each.factors[0])
    return 0, first, -float(strength_DK[each.index, first]), each.index


def _by_kl(encoding: Encoding, active_D: np.ndarray) -> Matching:
    has_kl = encoding.logvar_ND is not None
    order = sorted(range(len(active_D)), key=lambda d: (not active_D[d], -encoding.kl_D[d], d))
    words = {d: f"{encoding.kl_D[d]:.2f} nats" if has_kl else f"z{d}" for d in order}
    return Matching(
        tuple(Dimension(d, words[d] if active_D[d] else "inactive", bool(active_D[d])) for d in order), ()
    )


def fraction(value: float) -> str:
    """Return two decimals as written in tables: `.93`, `1.00`, `-.20`."""
    return f"{value:z.2f}".replace("0.", ".", 1)
