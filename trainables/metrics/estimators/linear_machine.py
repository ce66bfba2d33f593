"""Linear support vector machines of single codes, one for each value of each factor against the rest, all at once.

A machine minimizes 1/2 (w^2 + b^2) + sum of cost max(0, 1 - sign (w x + b))^2 over the training images, as scikit-learn's
LinearSVC(dual=False, class_weight="balanced") does: by the same steps, to the same tolerance. Its liblinear stops near
the optimum, not at it, so another way there would draw other boundaries. What differs is the order of sums, 1e-13 in the
weights. With one code, the images with slack are those on one side of a bound, so their sums are read from running sums.
LinearSVC takes ten times as long, for sums over all images and for checks of its input.

Source: Lin, Weng & Keerthi, Trust Region Newton Method for Logistic Regression, JMLR 2008, algorithms 1 and 2, as in
    liblinear.

Shape suffixes: N training images, T test images, D codes, K factors, B pairs of a code and a factor, code by code, P
machines: all values of all factors, for one code after another; M a machine's weight and bias.
"""

from dataclasses import dataclass, fields

import numpy as np

TOLERANCE = 1e-4
"""Norm of the gradient, as a fraction of that at the start, times the share of the rarer side of a machine."""

MAX_STEPS = 1000

CLOSE = 1e-9
"""Decisions closer than this may differ from LinearSVC's; there is much room for what the order of sums changes."""


@dataclass(frozen=True)
class _Machines:
    """What machines learn from; `sums` have the number, the sum and the sum of squares of codes, from the least up."""

    sorted_DN: np.ndarray
    sums_DN3: np.ndarray
    member_key_N: np.ndarray
    member_sums_BN3: np.ndarray
    code_P: np.ndarray
    block_P: np.ndarray
    start_P: np.ndarray
    count_P: np.ndarray
    cost_P: np.ndarray
    rest_cost_P: np.ndarray


@dataclass(frozen=True)
class _Point:
    """The objective at the weights of every machine."""

    weights_PM: np.ndarray
    value_P: np.ndarray
    slope_PM: np.ndarray
    curvature_PMM: np.ndarray


def predicted(
    train_ND: np.ndarray, values_NK: np.ndarray, test_TD: np.ndarray, penalty_c: float
) -> list[list[np.ndarray | None]]:
    """Predict the values of every factor on the test images from every code as LinearSVC does.

    Args:
        train_ND: Codes of the training images, standardized.
        values_NK: Factors of the training images, each with two different values at least.
        test_TD: Codes of the test images.
        penalty_c: LinearSVC's C.

    Returns:
        For each code, for each factor: values (T,), or none where a decision is too close for this way of computing it.
    """
    values_by_factor = [np.unique(values_N) for values_N in values_NK.T]
    weights_PM = _minimized(_machines(train_ND, values_NK, penalty_c), len(train_ND))
    weights_DPM = weights_PM.reshape(train_ND.shape[1], -1, 2)
    ends = np.cumsum([len(values) for values in values_by_factor])[:-1]
    return [
        [
            _decided(weights_VM, values, test_T)
            for weights_VM, values in zip(np.split(weights_pM, ends), values_by_factor, strict=True)
        ]
        for weights_pM, test_T in zip(weights_DPM, test_TD.T, strict=True)
    ]


def _decided(weights_VM: np.ndarray, values: np.ndarray, test_T: np.ndarray) -> np.ndarray | None:
    margin_VT = weights_VM[:, :1] * test_T + weights_VM[:, 1:]
    greatest_T = margin_VT.max(axis=0)
    is_near_VT = margin_VT >= greatest_T - CLOSE * (1 + np.abs(greatest_T))
    if np.count_nonzero(is_near_VT) != len(test_T):
        return None
    return values[margin_VT.argmax(axis=0)]


def _machines(train_ND: np.ndarray, values_NK: np.ndarray, penalty_c: float) -> _Machines:
    (num_images, num_codes), num_factors = train_ND.shape, values_NK.shape[1]
    order_DN = np.argsort(train_ND.T, axis=1, kind="stable")
    sorted_DN = np.take_along_axis(train_ND.T, order_DN, axis=1)
    labels = [np.unique(values_N, return_inverse=True, return_counts=True)[1:] for values_N in values_NK.T]
    count_V = np.concatenate([counts for _, counts in labels])
    keys, member_codes, first = [], [], 0
    for order_N, sorted_N in zip(order_DN, sorted_DN, strict=True):
        for label_N, counts in labels:
            label_N = label_N.astype(np.min_scalar_type(len(counts)))[order_N]
            place_N = np.argsort(label_N, kind="stable")
            keys.append((first + label_N[place_N].astype(np.int64)) * (num_images + 1) + place_N)
            member_codes.append(sorted_N[place_N])
            first += len(counts)
    cost_V = np.concatenate([penalty_c * num_images / (len(counts) * counts) for _, counts in labels])
    # Of two values, each machine's rest is the other value, with its own cost.
    rest_cost_V = np.concatenate(
        [
            (penalty_c * num_images / (2 * counts))[::-1]
            if len(counts) == 2
            else np.full(len(counts), penalty_c)
            for _, counts in labels
        ]
    )
    factor_V = np.repeat(np.arange(num_factors), [len(counts) for _, counts in labels])
    return _Machines(
        sorted_DN=sorted_DN,
        sums_DN3=_running_sums(sorted_DN),
        member_key_N=np.concatenate(keys),
        member_sums_BN3=_running_sums(np.stack(member_codes)),
        code_P=np.repeat(np.arange(num_codes), len(count_V)),
        block_P=(np.arange(num_codes)[:, None] * num_factors + factor_V).ravel(),
        start_P=np.tile(np.concatenate([np.cumsum(counts) - counts for _, counts in labels]), num_codes),
        count_P=np.tile(count_V, num_codes),
        cost_P=np.tile(cost_V, num_codes),
        rest_cost_P=np.tile(rest_cost_V, num_codes),
    )


def _running_sums(codes_BN: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of the first 0 .. N codes of every row, (B, N + 1, 3)."""
    sums_BN3 = np.zeros((len(codes_BN), codes_BN.shape[1] + 1, 3))
    powers_BN3 = np.stack([np.ones_like(codes_BN), codes_BN, np.square(codes_BN)], axis=2)
    np.cumsum(powers_BN3, axis=1, out=sums_BN3[:, 1:])
    return sums_BN3


def _minimized(machines: _Machines, num_images: int) -> np.ndarray:
    """Weight and bias of every machine, (P, 2), by trust region Newton steps from 0; nan where they do not end."""
    point = _at(np.zeros((len(machines.code_P), 2)), machines)
    radius_P = _norm(point.slope_PM)
    rarer_P = np.minimum(machines.count_P, num_images - machines.count_P)
    enough_P = TOLERANCE * rarer_P / num_images * radius_P
    going_P = radius_P > enough_P
    for step in range(MAX_STEPS):
        if not going_P.any():
            break
        change_PM, residual_PM = _change(radius_P, point.slope_PM, point.curvature_PMM)
        new = _at(point.weights_PM + change_PM, machines)
        linear_P = _dot(point.slope_PM, change_PM)
        foreseen_P = -0.5 * (linear_P - _dot(change_PM, residual_PM))
        reduction_P = point.value_P - new.value_P
        length_P = _norm(change_PM)
        if step == 0:
            radius_P = np.minimum(radius_P, length_P)
        radius_P = _radius(radius_P, length_P, linear_P, reduction_P, foreseen_P)
        is_better_P = going_P & (reduction_P > 1e-4 * foreseen_P)
        point = _chosen(is_better_P, new, point)
        least_P = 1e-12 * np.abs(point.value_P)
        is_stuck_P = (np.abs(reduction_P) <= least_P) & (np.abs(foreseen_P) <= least_P)
        going_P &= ~is_stuck_P & ~(is_better_P & (_norm(point.slope_PM) <= enough_P))
    return np.where(going_P[:, None], np.nan, point.weights_PM)


def _chosen(is_new_P: np.ndarray, new: _Point, old: _Point) -> _Point:
    chosen = {}
    for field in fields(_Point):
        one, other = getattr(new, field.name), getattr(old, field.name)
        chosen[field.name] = np.where(is_new_P.reshape(-1, *[1] * (one.ndim - 1)), one, other)
    return _Point(**chosen)


def _at(weights_PM: np.ndarray, machines: _Machines) -> _Point:
    weight_P, bias_P = weights_PM.T + 0.0  # no negative zero
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds_2P = np.stack([1 - bias_P, -1 - bias_P]) / weight_P
    is_rising_P1 = (weight_P >= 0)[:, None]
    block, end = machines.block_P, machines.start_P + machines.count_P
    before_P3 = machines.member_sums_BN3[block, machines.start_P]
    members_P3 = machines.member_sums_BN3[block, end] - before_P3
    rest_P3 = machines.sums_DN3[machines.code_P, -1] - members_P3

    # Members have slack where w x + b < 1, the rest where it is more than -1.
    below_P3 = _below(bounds_2P[0], machines)[1] - before_P3
    ours_P3 = np.where(is_rising_P1, below_P3, members_P3 - below_P3) * machines.cost_P[:, None]
    all_below_P3, below_P3 = _below(bounds_2P[1], machines)
    below_P3 = all_below_P3 - (below_P3 - before_P3)
    theirs_P3 = np.where(is_rising_P1, rest_P3 - below_P3, below_P3) * machines.rest_cost_P[:, None]

    num_P, sum_P, squares_P = (ours_P3 + theirs_P3).T
    signed_P, signed_sum_P, _ = (ours_P3 - theirs_P3).T
    # Of the slack 1 - sign z, with z = w x + b: the sums of its square, of z - sign, and of (z - sign) x.
    slope_PM = np.stack(
        [
            weight_P * squares_P + bias_P * sum_P - signed_sum_P,
            weight_P * sum_P + bias_P * num_P - signed_P,
        ],
        axis=1,
    )
    slack_P = _dot(weights_PM, slope_PM) - weight_P * signed_sum_P - bias_P * signed_P + num_P
    curvature_PMM = np.stack([squares_P, sum_P, sum_P, num_P], axis=1).reshape(-1, 2, 2)
    return _Point(
        weights_PM=weights_PM,
        value_P=0.5 * _dot(weights_PM, weights_PM) + slack_P,
        slope_PM=weights_PM + 2 * slope_PM,
        curvature_PMM=np.eye(2) + 2 * curvature_PMM,
    )


def _below(bound_P: np.ndarray, machines: _Machines) -> tuple[np.ndarray, np.ndarray]:
    """Running sums up to a bound of every machine: over all images, and over those of the machine's factor by value."""
    num_codes, num_images = machines.sorted_DN.shape
    place_P = np.concatenate(
        [
            np.searchsorted(sorted_N, bound_p)
            for sorted_N, bound_p in zip(machines.sorted_DN, bound_P.reshape(num_codes, -1), strict=True)
        ]
    )
    key_P = np.arange(len(bound_P)) * (num_images + 1) + place_P
    member_P = np.searchsorted(machines.member_key_N, key_P) - machines.block_P * num_images
    return machines.sums_DN3[machines.code_P, place_P], machines.member_sums_BN3[machines.block_P, member_P]


def _change(
    radius_P: np.ndarray, slope_PM: np.ndarray, curvature_PMM: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A step to the minimum of the quadratic model within the radius, by conjugate gradients, and its residual."""
    change_PM, residual_PM = np.zeros_like(slope_PM), -slope_PM
    direction_PM, enough_P = residual_PM, 0.1 * _norm(slope_PM)
    going_P = _norm(residual_PM) > enough_P
    while going_P.any():
        curved_PM = np.einsum("vmn,vn->vm", curvature_PMM, direction_PM)
        square_P = _dot(residual_PM, residual_PM)
        share_P = square_P / np.where(going_P, _dot(direction_PM, curved_PM), 1)
        is_out_P = _norm(change_PM + share_P[:, None] * direction_PM) > radius_P
        share_P = np.where(is_out_P, _share_to(radius_P, change_PM, direction_PM), share_P) * going_P
        change_PM = change_PM + share_P[:, None] * direction_PM
        residual_PM = residual_PM - share_P[:, None] * curved_PM
        turn_P = _dot(residual_PM, residual_PM) / np.where(square_P > 0, square_P, 1)
        direction_PM = residual_PM + turn_P[:, None] * direction_PM
        going_P = going_P & ~is_out_P & (_norm(residual_PM) > enough_P)
    return change_PM, residual_PM


def _share_to(radius_P: np.ndarray, change_PM: np.ndarray, direction_PM: np.ndarray) -> np.ndarray:
    """The multiple of a direction that takes a step to the radius."""
    along_P, square_P = _dot(change_PM, direction_PM), _dot(direction_PM, direction_PM)
    room_P = np.square(radius_P) - _dot(change_PM, change_PM)
    root_P = np.sqrt(np.maximum(along_P * along_P + square_P * room_P, 0))
    ahead_P = room_P / np.where(along_P + root_P > 0, along_P + root_P, 1)
    return np.where(along_P >= 0, ahead_P, (root_P - along_P) / np.where(square_P > 0, square_P, 1))


def _radius(
    radius_P: np.ndarray,
    length_P: np.ndarray,
    linear_P: np.ndarray,
    reduction_P: np.ndarray,
    foreseen_P: np.ndarray,
) -> np.ndarray:
    """The next radius, by how much of the foreseen reduction came true."""
    curved_P = -reduction_P - linear_P
    is_curved_P = curved_P > 0
    share_P = np.maximum(0.25, -0.5 * linear_P / np.where(is_curved_P, curved_P, 1))
    reach_P = np.where(is_curved_P, share_P, 4.0) * length_P
    return np.select(
        [reduction_P < 1e-4 * foreseen_P, reduction_P < 0.25 * foreseen_P, reduction_P < 0.75 * foreseen_P],
        [
            np.minimum(reach_P, 0.5 * radius_P),
            np.maximum(0.25 * radius_P, np.minimum(reach_P, 0.5 * radius_P)),
            np.maximum(0.25 * radius_P, np.minimum(reach_P, 4 * radius_P)),
        ],
        np.maximum(radius_P, np.minimum(reach_P, 4 * radius_P)),
    )


def _dot(a_PM: np.ndarray, b_PM: np.ndarray) -> np.ndarray:
    return np.einsum("vm,vm->v", a_PM, b_PM)


def _norm(a_PM: np.ndarray) -> np.ndarray:
    return np.sqrt(_dot(a_PM, a_PM))
