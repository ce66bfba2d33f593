import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from trainables.encoding import Encoding
from trainables.metrics import elbo_decomposition
from trainables.metrics.elbo_decomposition import log_densities

few_examples = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def encoding_of(mu_ND: np.ndarray, std_ND: np.ndarray | float, discrete: Sequence[int] = ()) -> Encoding:
    num_images, num_codes = mu_ND.shape
    var_ND = np.broadcast_to(np.square(std_ND), mu_ND.shape)
    kl_ND = 0.5 * (np.square(mu_ND) + var_ND - 1 - np.log(var_ND))
    discrete_D = np.isin(np.arange(num_codes), discrete)
    return Encoding(
        data="a test set",
        factor_names=(),
        factor_sizes=(),
        rows_N=np.arange(num_images),
        factors_NK=np.zeros((num_images, 0), dtype=np.int64),
        mu_ND=mu_ND.astype(np.float32),
        logvar_ND=np.log(var_ND).astype(np.float32),
        kl_D=np.where(discrete_D, 0, kl_ND.mean(axis=0)),
        discrete_D=discrete_D,
        recon_nats_N=None,
        recon_mse_N=np.zeros(num_images),
    )


def score(encoding: Encoding, num_seeds: int = 8) -> dict[str, float]:
    """Mean over generators, by short names."""
    draws = [elbo_decomposition.score(encoding, np.random.default_rng(seed)) for seed in range(num_seeds)]
    means = {name.rpartition("/")[2]: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}
    means["total_correlation"] = means.pop("elbo_decomposition")
    return means


def integrated(encoding: Encoding, limit: float = 8, step: float = 0.01) -> dict[str, float]:
    """The four terms for one or two codes, by Riemann sums over a fine grid and entropies of mixtures."""
    axis_g = np.arange(-limit, limit, step)
    assert encoding.logvar_ND is not None
    mu_ND, std_ND = encoding.mu_ND.astype(float), np.exp(0.5 * encoding.logvar_ND.astype(float))
    pdf_DNg = [stats.norm.pdf(axis_g, mu_ND[:, [d]], std_ND[:, [d]]) for d in range(mu_ND.shape[1])]
    # The density of one code is an array over the axis, that of two codes one over the square.
    joint = pdf_DNg[0].mean(axis=0) if len(pdf_DNg) == 1 else pdf_DNg[0].T @ pdf_DNg[1] / len(mu_ND)
    prior = stats.norm.pdf(axis_g)
    prior_entropy_joint = -sum((pdf.mean(axis=0) * np.log(prior)).sum() * step for pdf in pdf_DNg)

    def entropy(density: np.ndarray) -> float:
        positive = density[density > 0]
        return -float((positive * np.log(positive)).sum()) * step**density.ndim

    marginals = sum(entropy(pdf.mean(axis=0)) for pdf in pdf_DNg)
    posteriors = float(np.mean(np.sum(np.log(std_ND) + 0.5 * np.log(2 * np.pi * np.e), axis=1)))
    return {
        "total_correlation": marginals - entropy(joint),
        "information": entropy(joint) - posteriors,
        "marginal_kl": prior_entropy_joint - entropy(joint),
        "dimension_kl": prior_entropy_joint - marginals,
    }


def a_vae(seed: int, num_images: int = 300, num_codes: int = 4) -> Encoding:
    generator = np.random.default_rng(seed)
    mu_ND = generator.normal(size=(num_images, num_codes)) @ generator.normal(size=(num_codes, num_codes))
    return encoding_of(mu_ND, 0.3 + generator.random(mu_ND.shape))


def test_log_densities_are_those_of_a_loop_with_scipy() -> None:
    generator = np.random.default_rng(0)
    mu_ND, logvar_ND = generator.normal(size=(40, 3)) * 3, generator.normal(size=(40, 3)) * 4
    z_SD = generator.normal(size=(11, 3)) * 5
    log_joint_S, log_marginal_SD = log_densities(z_SD, mu_ND, logvar_ND)
    for s, z_D in enumerate(z_SD):
        log_ND = stats.norm.logpdf(z_D, mu_ND, np.exp(logvar_ND / 2))
        assert log_joint_S[s] == pytest.approx(logsumexp(log_ND.sum(axis=1)) - math.log(40), rel=1e-12)
        assert log_marginal_SD[s] == pytest.approx(logsumexp(log_ND, axis=0) - math.log(40), rel=1e-12)


def test_far_from_every_posterior_a_density_is_small_and_no_infinity() -> None:
    log_joint_S, _ = log_densities(np.full((1, 1), 1e4), np.zeros((5, 1)), np.zeros((5, 1)))
    assert log_joint_S[0] == pytest.approx(stats.norm.logpdf(1e4), rel=1e-12)


def test_equal_posteriors_carry_no_information_and_have_the_closed_kl() -> None:
    mu_ND, std_ND = np.tile([0.5, -1.0], (500, 1)), np.tile([0.5, 2.0], (500, 1))
    found = score(encoding_of(mu_ND, std_ND), num_seeds=16)
    kl = sum(0.5 * (m**2 + s**2 - 1) - math.log(s) for m, s in ((0.5, 0.5), (-1.0, 2.0)))
    assert found["information"] == pytest.approx(0, abs=1e-6)
    assert found["total_correlation"] == pytest.approx(0, abs=1e-6)
    assert found["marginal_kl"] == pytest.approx(kl, abs=0.1)
    assert found["dimension_kl"] == pytest.approx(kl, abs=0.1)


def test_a_collapsed_encoder_has_zero_of_all() -> None:
    assert list(score(encoding_of(np.zeros((200, 3)), 1.0)).values()) == pytest.approx([0] * 4, abs=1e-12)


@pytest.mark.parametrize("num_images", [2, 50, 1000])
def test_well_separated_posteriors_tell_the_image(num_images: int) -> None:
    mu_ND = np.arange(num_images)[:, None] * [1.0, 0.0]
    assert score(encoding_of(mu_ND, 0.01), 1)["information"] == pytest.approx(math.log(num_images), abs=1e-6)


def test_copied_codes_have_the_entropy_of_what_they_copy() -> None:
    # 32 separated values, each known from either code; a third copy adds as much again.
    values_N1 = np.repeat(np.arange(32.0), 4)[:, None] - 15.5
    for num_copies in (2, 3):
        found = score(encoding_of(np.tile(values_N1, (1, num_copies)), 0.02), 1)
        assert found["total_correlation"] == pytest.approx((num_copies - 1) * math.log(32), abs=1e-6)
        assert found["information"] == pytest.approx(math.log(32), abs=1e-6)


def test_codes_of_a_whole_grid_are_independent() -> None:
    mu_ND = np.stack(np.unravel_index(np.arange(5 * 7 * 9), (5, 7, 9)), axis=1) - [2.0, 3.0, 4.0]
    for std in (0.02, 0.5, 2.0):
        found = score(encoding_of(mu_ND, std), 1)
        assert found["total_correlation"] == pytest.approx(0, abs=1e-9)
        assert found["marginal_kl"] == pytest.approx(found["dimension_kl"], abs=1e-9)


def test_a_correlated_gaussian_has_its_closed_form() -> None:
    # Posteriors of deviation .5 about means of covariance S make q(z) nearly Gaussian with covariance S + .25.
    generator = np.random.default_rng(0)
    mu_ND = generator.multivariate_normal([0, 0], [[0.75, 0.6], [0.6, 0.75]], size=5000)
    found = score(encoding_of(mu_ND, 0.5))
    covariance_DD = np.cov(mu_ND.T, ddof=0) + 0.25 * np.eye(2)
    deviations = np.sqrt(np.diag(covariance_DD))
    correlation = covariance_DD[0, 1] / deviations.prod()
    assert found["total_correlation"] == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.03)
    assert found["information"] == pytest.approx(
        0.5 * math.log(np.linalg.det(covariance_DD) / 0.25**2), abs=0.03
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_codes", [1, 2])
def test_numerical_integration_agrees(seed: int, num_codes: int) -> None:
    generator = np.random.default_rng(seed)
    mu_ND = 1.2 * generator.normal(size=(12, num_codes)).clip(-2, 2)
    encoding = encoding_of(mu_ND, 0.2 + 0.6 * generator.random((12, num_codes)))
    expected = integrated(encoding)
    found = score(encoding, num_seeds=40)
    # 40,000 samples of terms that deviate by one nat or so.
    assert found == {name: pytest.approx(value, abs=0.025) for name, value in expected.items()}
    assert expected["information"] > 0.5
    if num_codes == 1:
        assert found["total_correlation"] == pytest.approx(0, abs=1e-12)


@few_examples
@given(seed=st.integers(0, 1000), num_codes=st.integers(1, 5))
def test_total_correlation_and_dimensions_make_up_the_marginal_kl_exactly(seed: int, num_codes: int) -> None:
    found = score(a_vae(seed, num_codes=num_codes), 1)
    assert found["marginal_kl"] == pytest.approx(found["total_correlation"] + found["dimension_kl"], abs=1e-9)
    assert found["information"] <= math.log(300) + 1e-9


@settings(few_examples, max_examples=5)
@given(seed=st.integers(0, 1000))
def test_information_and_marginal_kl_make_up_the_kl(seed: int) -> None:
    encoding = a_vae(seed, num_images=100)
    sums = []
    for generator_seed in range(24):
        values = elbo_decomposition.score(encoding, np.random.default_rng(generator_seed))
        sums.append(values["elbo_decomposition/information"] + values["elbo_decomposition/marginal_kl"])
    bound = stats.t.ppf(1 - 5e-7, len(sums) - 1)  # once in a million examples by chance
    assert abs(np.mean(sums) - encoding.kl_D.sum()) < bound * np.std(sums, ddof=1) / math.sqrt(len(sums))


@few_examples
@given(images=st.permutations(range(20)), codes=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_the_order_of_images_and_of_codes_does_not_matter(
    images: list[int], codes: list[int], seed: int
) -> None:
    encoding, z_SD = a_vae(seed, num_images=20), np.random.default_rng(seed).normal(size=(9, 4))
    assert encoding.logvar_ND is not None
    log_joint_S, log_marginal_SD = log_densities(z_SD, encoding.mu_ND, encoding.logvar_ND)
    moved = np.ix_(images, codes)
    moved_S, moved_SD = log_densities(z_SD[:, codes], encoding.mu_ND[moved], encoding.logvar_ND[moved])
    np.testing.assert_allclose(moved_S, log_joint_S, rtol=1e-12)
    np.testing.assert_allclose(moved_SD, log_marginal_SD[:, codes], rtol=1e-12)


@few_examples
@given(exponents=st.lists(st.integers(-3, 3), min_size=4, max_size=4))
def test_scale_and_sign_change_neither_total_correlation_nor_information(exponents: list[int]) -> None:
    encoding = a_vae(1)
    assert encoding.logvar_ND is not None
    scales = np.exp2(exponents)
    scaled = dataclasses.replace(
        encoding,
        mu_ND=encoding.mu_ND * scales.astype(np.float32),
        logvar_ND=encoding.logvar_ND + np.float32(2) * np.log(scales).astype(np.float32),
    )
    before, after = score(encoding, 1), score(scaled, 1)
    for name in ("total_correlation", "information"):
        assert after[name] == pytest.approx(before[name], abs=1e-4)


def test_a_category_is_left_out() -> None:
    encoding = a_vae(2)
    assert encoding.logvar_ND is not None
    labels_N1 = np.arange(300)[:, None] % 3
    with_category = encoding_of(
        np.concatenate([labels_N1, encoding.mu_ND], axis=1),
        np.concatenate([np.ones((300, 1)), np.exp(encoding.logvar_ND / 2)], axis=1),
        discrete=[0],
    )
    assert score(with_category, 1) == pytest.approx(score(encoding, 1), abs=1e-4)


def test_codes_without_a_posterior_have_no_value() -> None:
    point = dataclasses.replace(a_vae(0), logvar_ND=None, kl_D=np.zeros(4))
    all_categories = dataclasses.replace(a_vae(0), discrete_D=np.ones(4, dtype=bool))
    broken = a_vae(0)
    assert broken.logvar_ND is not None
    broken.logvar_ND[0, 0] = np.nan
    for encoding in (point, all_categories, broken):
        values = elbo_decomposition.score(encoding, np.random.default_rng(0))
        assert len(values) == 4
        assert np.isnan(list(values.values())).all()
