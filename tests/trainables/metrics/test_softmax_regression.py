"""Softmax regression against LogisticRegression, which it stands in for."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tests.trainables.metrics.test_factor_vae_score import SPRITES, entangled_codes, grid
from trainables.metrics.estimators.examples import split_rows, standardized
from trainables.metrics.estimators.softmax_regression import probabilities

CODES_ND = {
    "perfect": grid(SPRITES),
    "entangled": entangled_codes(0),
    "copied": np.repeat(entangled_codes(1, num_codes=2), 2, axis=1),
    "one code and a constant": np.pad(entangled_codes(2, num_codes=1), ((0, 0), (0, 1))),
}


@pytest.mark.parametrize("num_values", [2, 3, 16])
@pytest.mark.parametrize("codes", CODES_ND)
def test_probabilities_are_those_of_the_library(codes: str, num_values: int) -> None:
    train, test = split_rows(1536, np.random.default_rng(0))
    value_N = 5 + 2 * (grid(SPRITES)[:, 1] % num_values)
    standard_ND = standardized(CODES_ND[codes], train)
    values, found_NV = probabilities(standard_ND[train], value_N[train], standard_ND[test], 1.0, 1000)
    library = LogisticRegression(max_iter=1000).fit(standard_ND[train], value_N[train])
    np.testing.assert_array_equal(values, library.classes_)
    np.testing.assert_allclose(found_NV, library.predict_proba(standard_ND[test]), rtol=1e-7)
