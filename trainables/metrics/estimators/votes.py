"""The votes of the FactorVAE score: images that share the value of one factor, drawn from an encoding's rows.

Shape suffixes: N images, D codes, K factors, V votes, L images of a vote.
"""

import numpy as np

from trainables.encoding import Encoding
from trainables.errors import InputError


def sample(
    metric: str, encoding: Encoding, num_votes: int, num_samples: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample the factor of every vote (V,) and the rows of the encoding, 0 .. N - 1, of its images (V, L).

    Factor and value are uniform; a value of less than two rows is never picked, since one image moves no code, nor a
    factor that has one value to pick. The images are uniform on the rows that have the value, distinct where there are
    at least `num_samples` of them.

    Raises:
        InputError: The images have no ground-truth factor with two values of two images each, as `metric` needs.
    """
    # A narrow type makes a copy of the factors cheap, and a stable sort a radix sort, ten times as fast as on int64.
    narrow = np.min_scalar_type(max(encoding.factor_sizes, default=0))
    columns = [np.ascontiguousarray(values_N) for values_N in encoding.factors_NK.astype(narrow).T]
    counts_by_factor = [np.bincount(values_N) for values_N in columns]
    values_by_factor = [np.flatnonzero(counts > 1) for counts in counts_by_factor]
    varied = [k for k, values in enumerate(values_by_factor) if len(values) > 1]
    if not varied:
        raise InputError(
            f"{metric} needs ground-truth factors with two values of two images each; {encoding.data} has none.\n"
            "Use other metrics, or train on a factor grid such as dsprites."
        )
    factor_V = generator.choice(varied, num_votes)
    rows_VL = np.empty((num_votes, num_samples), dtype=np.int64)
    for k in varied:
        votes = np.flatnonzero(factor_V == k)
        counts = counts_by_factor[k]
        value_v = generator.choice(values_by_factor[k], len(votes))
        start_v = (np.cumsum(counts) - counts)[value_v]
        sorted_rows_N = np.argsort(columns[k], kind="stable")
        picks_Lv = _picks(counts[value_v], num_samples, generator)
        rows_VL[votes] = sorted_rows_N.take(start_v + picks_Lv).T
    return factor_V, rows_VL


def _picks(counts_V: np.ndarray, num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """L of the numbers 0 .. count - 1 for each vote, distinct if the count allows it, (L, V).

    Floyd's method, for all votes at once: the i-th of L picks is uniform on 0 .. count - L + i, and becomes that upper
    end itself where it was picked before. Every subset of L is equally likely.
    """
    is_distinct_V = counts_V >= num_samples
    step_L1 = np.arange(num_samples)[:, None]
    top_LV = np.where(is_distinct_V, counts_V - num_samples + step_L1, counts_V - 1)
    picks_LV = generator.integers(0, top_LV, endpoint=True)
    # Each pick is compared with all before it, and numbers of one or two bytes are compared several times as fast.
    narrow = np.min_scalar_type(counts_V.max(initial=0))
    picks_LV, top_LV = picks_LV.astype(narrow), top_LV.astype(narrow)
    for i in range(1, num_samples):
        is_taken_V = is_distinct_V & (picks_LV[:i] == picks_LV[i]).any(axis=0)
        np.maximum(picks_LV[i], top_LV[i] * is_taken_V, out=picks_LV[i])
    return picks_LV
