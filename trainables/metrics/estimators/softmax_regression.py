"""Softmax regression: scikit-learn's LogisticRegression of a factor's value, by the same minimizer from the same start.

It minimizes the mean of -log p(value | features) + 1 / (2 C N) times the sum of squared weights, biases being free, with
SciPy's L-BFGS-B and LogisticRegression's options. Weights differ by the order of sums, some 1e-14, or 1e-9 where
features are copies of one another; LogisticRegression takes twice as long, for checks and for rows of few numbers.

Shape suffixes: N images or examples, F features, V values.
"""

from typing import Any

import numpy as np

TOLERANCE = 1e-4
"""Greatest entry of the gradient at the minimum."""


def probabilities(
    train_NF: np.ndarray, values_N: np.ndarray, test_NF: np.ndarray, penalty_c: float, max_iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur in training, ascending (V,), and the probability of each on the test rows, (N, V).

    Args:
        train_NF: Features of the training rows, standardized.
        values_N: Their values, at least two different ones.
        test_NF: Features of the test rows.
        penalty_c: LogisticRegression's C.
        max_iterations: Its limit.
    """
    values, label_N = np.unique(values_N, return_inverse=True)
    if len(values) == 2:  # one weight for both, another penalty
        from sklearn.linear_model import LogisticRegression

        classifier = LogisticRegression(C=penalty_c, max_iter=max_iterations).fit(train_NF, values_N)
        return values, classifier.predict_proba(test_NF)
    weights_VF = _fitted(train_NF, label_N, penalty_c, max_iterations)
    logits_NV = test_NF @ np.ascontiguousarray(weights_VF[:, :-1]).T + weights_VF[:, -1]
    logits_NV -= logits_NV.max(axis=1, keepdims=True)
    odds_NV = np.exp(logits_NV, out=logits_NV)
    return values, odds_NV / odds_NV.sum(axis=1, keepdims=True)


def _fitted(train_NF: np.ndarray, label_N: np.ndarray, penalty_c: float, max_iterations: int) -> np.ndarray:
    """Weights, the bias last, (V, F + 1)."""
    from scipy import optimize

    num_rows, num_values = len(train_NF), label_N.max() + 1
    rows_NF = np.column_stack([train_NF, np.ones(num_rows)])
    rows_FN, own = rows_NF.T.copy(), (label_N, np.arange(num_rows))
    penalty = 1 / (penalty_c * num_rows)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights_VF = flat.reshape(-1, num_values).T
        # Values come first, so that every operation runs over all rows.
        logits_VN = weights_VF @ rows_FN
        logits_VN -= logits_VN.max(axis=0)
        nats = -logits_VN[own].sum()
        odds_VN = np.exp(logits_VN, out=logits_VN)
        total_N = odds_VN.sum(axis=0)
        nats += np.log(total_N).sum()
        error_VN = np.multiply(odds_VN, 1 / (num_rows * total_N), out=odds_VN)
        error_VN[own] -= 1 / num_rows
        slope_VF = error_VN @ rows_NF
        slope_VF[:, :-1] += penalty * weights_VF[:, :-1]
        return nats / num_rows + 0.5 * penalty * np.square(weights_VF[:, :-1]).sum(), slope_VF.ravel(
            order="F"
        )

    options: dict[str, Any] = {"maxiter": max_iterations, "maxls": 50, "gtol": TOLERANCE}
    options["ftol"] = 64 * np.finfo(np.float64).eps
    start = np.zeros(rows_NF.shape[1] * num_values)
    flat = optimize.minimize(loss, start, method="L-BFGS-B", jac=True, options=options).x
    return flat.reshape(-1, num_values).T
