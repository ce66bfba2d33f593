"""The contract of every metric, over all that are found, and the closed forms of the small ones."""

import dataclasses
import importlib
import random
import re
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from trainables import plugins
from trainables.encoding import Encoding
from trainables.errors import InputError, UnknownNameError
from trainables.metric_identity import identity
from trainables.metrics.estimators import activity

NAMES = plugins.names("trainables.metrics")
ARRAYS = [field.name for field in dataclasses.fields(Encoding) if field.name.rpartition("_")[2].isupper()]
FACTOR_SIZES = (3, 4, 8)


def a_vae() -> Encoding:
    """96 images, 5 codes: three noisy factors, a mixture of them, one collapsed."""
    generator = np.random.default_rng(0)
    rows_N = np.arange(np.prod(FACTOR_SIZES))
    factors_NK = np.stack(np.unravel_index(rows_N, FACTOR_SIZES), axis=1).astype(np.int64)
    z_NK = (factors_NK - factors_NK.mean(axis=0)) / factors_NK.std(axis=0)
    mixed_N1 = z_NK.sum(axis=1, keepdims=True)
    mu_ND = np.concatenate([z_NK, mixed_N1, np.zeros_like(mixed_N1)], axis=1)
    mu_ND += 0.1 * generator.normal(size=mu_ND.shape) * [1, 1, 1, 1, 0.01]
    return Encoding(
        data="sprites (rendered v1)",
        factor_names=("shape", "scale", "pos_x"),
        factor_sizes=FACTOR_SIZES,
        rows_N=rows_N,
        factors_NK=factors_NK,
        mu_ND=mu_ND.astype(np.float32),
        logvar_ND=np.full(mu_ND.shape, -3.0, dtype=np.float32),
        kl_D=np.array([1.5, 2.0, 2.5, 0.25, 1e-5]),
        discrete_D=np.zeros(5, dtype=bool),
        recon_nats_N=generator.random(len(rows_N)),
        recon_mse_N=generator.random(len(rows_N)),
    )


def a_gan() -> Encoding:
    vae = a_vae()
    mu_ND = vae.mu_ND.copy()
    mu_ND[:, 0] = vae.factors_NK[:, 0]
    return dataclasses.replace(
        vae,
        mu_ND=mu_ND,
        logvar_ND=None,
        kl_D=np.zeros(5),
        discrete_D=np.arange(5) == 0,
        recon_nats_N=None,
    )


def without_factors(encoding: Encoding) -> Encoding:
    none_NK = np.zeros((len(encoding.rows_N), 0), dtype=np.int64)
    return dataclasses.replace(encoding, factor_names=(), factor_sizes=(), factors_NK=none_NK)


def read_only(encoding: Encoding) -> Encoding:
    for name in ARRAYS:
        if getattr(encoding, name) is not None:
            getattr(encoding, name).setflags(write=False)
    return encoding


def score(name: str, encoding: Encoding, seed: int = 0) -> dict[str, float]:
    metric = plugins.load("trainables.metrics", name, "metric")
    values: dict[str, float] = metric.score(encoding, np.random.default_rng(seed))
    return values


@pytest.fixture(params=NAMES)
def metric(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"trainables.metrics.{request.param}")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


ENCODINGS = {"vae": read_only(a_vae()), "gan": read_only(a_gan())}
_KNOWN: dict[tuple[str, int], dict[str, float]] = {}


def known(name: str, encoding: Encoding) -> dict[str, float]:
    """The score of one of `ENCODINGS`, computed once."""
    place = name, id(encoding)
    if place not in _KNOWN:
        _KNOWN[place] = score(name, encoding)
    return _KNOWN[place]


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> Encoding:
    return ENCODINGS[request.param]


def test_the_metrics_of_the_paper_are_there() -> None:
    assert {"active_dims", "factor_vae_score", "kl", "recon_error", "recon_mse"} <= set(NAMES)


def test_a_metric_says_what_it_is(metric: ModuleType) -> None:
    for word in ("Definition", "Range", "Direction", "Chance", "Source"):
        assert re.search(rf"^{word}: \S", metric.__doc__ or "", re.MULTILINE), word


def test_a_metric_declares_its_identity(metric: ModuleType) -> None:
    assert isinstance(metric.VERSION, int)
    assert metric.VERSION >= 1
    assert isinstance(metric.UNIT, str)
    assert re.fullmatch(r"[A-Za-z][\w -]{2,40}", metric.TITLE), "an axis is called so"
    assert metric.NEEDS_FACTORS in (0, 1, 2), "how many factors must vary"
    assert isinstance(metric.IS_CHEAP, bool)
    assert all(type(value) in (int, float, str) for value in metric.SETTINGS.values())


def test_the_direction_is_the_one_that_the_docstring_gives(metric: ModuleType) -> None:
    said = re.search(r"^Direction: (higher|lower)", metric.__doc__ or "", re.MULTILINE)
    assert said is not None
    assert {"higher": "maximize", "lower": "minimize"}[said.group(1)] == metric.DIRECTION


def test_the_range_is_the_one_that_the_docstring_gives(metric: ModuleType) -> None:
    said = re.search(r"^Range: 0 to 1(, all three)?(\.|,| for)", metric.__doc__ or "", re.MULTILINE)
    assert bool(said) == (metric.RANGE == (0.0, 1.0))


def test_values_are_floats_named_after_the_metric(name: str, encoding: Encoding) -> None:
    values = known(name, encoding)
    assert next(iter(values)) == name
    assert all(key == name or key.startswith(f"{name}/") for key in values)
    assert all(type(value) is float for value in values.values())
    low, high = plugins.load("trainables.metrics", name, "metric").RANGE
    assert low <= values[name] <= high or np.isnan(values[name])


def test_a_sound_vae_gets_finite_values(name: str) -> None:
    assert np.isfinite(list(known(name, ENCODINGS["vae"]).values())).all()


def test_the_generator_decides_everything_and_global_random_state_is_left_alone(
    name: str, encoding: Encoding
) -> None:
    # The encoding is read-only, so this also shows that scoring changes nothing; one that was kept scores the same.
    first, kept = known(name, encoding), Encoding.from_bytes(encoding.to_bytes())
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = random.random(), np.random.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_equal(score(name, kept), first)
    assert (random.random(), np.random.random()) == expected  # noqa: NPY002


def test_images_without_factors_are_scored_or_refused_in_words(
    metric: ModuleType, encoding: Encoding
) -> None:
    blind = without_factors(encoding)
    name = metric.__name__.rpartition(".")[2]
    if metric.NEEDS_FACTORS:
        with pytest.raises(InputError, match=f"{name} needs .*factors"):
            metric.score(blind, np.random.default_rng(0))
    else:
        np.testing.assert_equal(score(name, blind), known(name, encoding))


def test_a_diverged_run_gets_nan_and_no_number_that_looks_like_one(name: str) -> None:
    vae = a_vae()
    floats = [array for array in ARRAYS if getattr(vae, array).dtype.kind == "f"]
    diverged = dataclasses.replace(vae, **{a: np.full_like(getattr(vae, a), np.nan) for a in floats})
    assert np.isnan(score(name, diverged)[name])


def test_the_driver_can_import_every_metric_without_torch() -> None:
    heavy = ["torch", "ray", "mlflow", "optuna", "pandas", "scipy", "sweeper"]
    modules = ", ".join(["trainables.metric_identity", *(f"trainables.metrics.{name}" for name in NAMES)])
    program = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_number_of_images_and_every_setting_are_in_the_identity(metric: ModuleType) -> None:
    name = metric.__name__.rpartition(".")[2]
    text = identity(name, 1536)
    assert text.startswith(f"{name}(v{metric.VERSION}, images=1536")
    assert all(f", {setting}={value}" in text for setting, value in metric.SETTINGS.items())
    assert text != identity(name, 10_000)


def test_an_identity_is_spelt_in_one_way() -> None:
    expected = "factor_vae_score(v3, images=1536, prune_kl=0.01, prune_std=0.05, samples=100, votes=800)"
    assert identity("factor_vae_score", 1536) == expected
    assert identity("recon_error", 10_000) == "recon_error(v1, images=10000)"


def test_the_identity_of_an_unknown_metric_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="recon_error"):
        identity("recon_eror", 10)


def test_reconstruction_errors_are_means_over_images() -> None:
    vae = a_vae()
    ramp_N = np.arange(len(vae.rows_N), dtype=np.float64)
    mean = (len(ramp_N) - 1) / 2
    vae = dataclasses.replace(vae, recon_nats_N=ramp_N, recon_mse_N=ramp_N / 1000)
    assert score("recon_error", vae) == {"recon_error": mean}
    assert score("recon_mse", vae) == {"recon_mse": pytest.approx(mean / 1000, rel=1e-14)}


def test_a_model_without_likelihood_has_no_reconstruction_error_in_nats() -> None:
    assert np.isnan(score("recon_error", a_gan())["recon_error"])
    assert np.isfinite(score("recon_mse", a_gan())["recon_mse"])


def test_kl_is_the_sum_of_its_dimensions() -> None:
    values = score("kl", a_vae())
    dims = {"kl/dim_0": 1.5, "kl/dim_1": 2.0, "kl/dim_2": 2.5, "kl/dim_3": 0.25, "kl/dim_4": 1e-5}
    assert values == {"kl": pytest.approx(6.25001), **dims}


def test_a_model_without_posterior_has_no_kl() -> None:
    values = score("kl", a_gan())
    assert len(values) == 6
    assert np.isnan(list(values.values())).all()


def test_active_dims_are_counted_by_kl_where_the_code_varies() -> None:
    assert score("active_dims", a_vae()) == {"active_dims": 4.0}
    at_threshold = dataclasses.replace(a_vae(), kl_D=np.array([0.0, 0.01, 0.010001, 1.0, 5.0]))
    assert score("active_dims", at_threshold) == {"active_dims": 2.0}


def of_codes(mu_ND: np.ndarray, logvar: float) -> Encoding:
    """Codes with Gaussian posteriors of one width, and their mean KL in closed form."""
    kl_D = 0.5 * (np.exp(logvar) - logvar - 1 + np.square(mu_ND).mean(axis=0))
    columns = np.arange(mu_ND.shape[1])
    return dataclasses.replace(
        a_vae(),
        mu_ND=mu_ND.astype(np.float32),
        logvar_ND=np.full_like(mu_ND, logvar, dtype=np.float32),
        kl_D=kl_D,
        discrete_D=columns < 0,
    )


def test_a_constant_code_is_not_active_however_narrow_its_posterior() -> None:
    constant = of_codes(np.full((len(a_vae().rows_N), 3), 0.3), -3.0)
    assert constant.kl_D.min() > 1.0
    for name in ("active_dims", "factor_vae_score", "factor_vae_score_heldout"):
        assert score(name, constant) == {name: 0.0}


@pytest.mark.parametrize("trace", [0.0, 1e-6, 1e-3])
def test_the_votes_and_their_count_go_by_one_rule(trace: float) -> None:
    """A trace of the factors on codes that are otherwise constant: without pruning it scores 1."""
    factors_NK = a_vae().factors_NK
    faint = of_codes(0.3 + trace * factors_NK, -3.0)
    strong = of_codes(np.column_stack([faint.mu_ND, 2.0 * factors_NK[:, 0]]), -3.0)
    for name in ("factor_vae_score", "factor_vae_score_heldout"):
        assert score(name, faint)[name] == 0.0
        assert score(name, strong) == score(name, of_codes(2.0 * factors_NK[:, :1], -3.0))
    assert [score("active_dims", each)["active_dims"] for each in (faint, strong)] == [0.0, 1.0]


def test_a_code_of_unit_scale_is_active_whatever_its_posterior() -> None:
    """The KL is at least half the variance, so it cannot prune a deviation above .1415."""
    ramp_N = np.arange(len(a_vae().rows_N)) % 2 * 2 - 1.0
    for logvar in (-5.0, 0.0, 0.3):
        assert score("active_dims", of_codes(np.outer(ramp_N, [0.1415, 1.0]), logvar))["active_dims"] == 2.0
    assert score("active_dims", of_codes(np.outer(ramp_N, [0.1414, 0.049]), 0.0))["active_dims"] == 0.0
    assert score("active_dims", of_codes(np.outer(ramp_N, [0.051, 0.049]), -5.0))["active_dims"] == 1.0


def test_active_dims_without_a_posterior_are_counted_by_their_spread() -> None:
    vae = a_vae()
    ramp_N = np.arange(len(vae.rows_N)) % 2 - 0.5  # standard deviation 1/2
    mu_ND = np.outer(ramp_N, [0.0, 0.098, 0.102, 1.0, 1.0]).astype(np.float32)
    mu_ND[:, 4] = 7  # a category that is always the same
    gan = dataclasses.replace(a_gan(), mu_ND=mu_ND, discrete_D=np.arange(5) == 4)
    assert score("active_dims", gan) == {"active_dims": 2.0}


def test_a_category_beside_a_posterior_is_judged_by_its_spread() -> None:
    labels_N = np.arange(len(a_vae().rows_N)) % 3
    mu_ND = np.stack([labels_N, np.zeros_like(labels_N)], axis=1).astype(np.float32)
    mixed = dataclasses.replace(
        a_vae(), mu_ND=mu_ND, logvar_ND=mu_ND, kl_D=np.zeros(2), discrete_D=np.array([True, False])
    )
    assert score("active_dims", mixed) == {"active_dims": 1.0}


def test_gini_variance_is_its_double_sum() -> None:
    labels_GL = np.random.default_rng(0).choice(
        [0.0, 2.0, 5.0, -1.0], p=[0.5, 0.3, 0.15, 0.05], size=(20, 37)
    )
    pairs = [sum(a != b for a in labels for b in labels) / (2 * 37 * 36) for labels in labels_GL]
    np.testing.assert_allclose(activity.gini_variance(labels_GL), pairs, rtol=1e-14)


def test_gini_variance_of_two_categories_is_the_usual_variance() -> None:
    labels_GL = np.random.default_rng(0).integers(0, 2, (20, 37))
    np.testing.assert_allclose(activity.gini_variance(labels_GL), labels_GL.var(axis=1, ddof=1), rtol=1e-13)


def test_variance_keeps_its_digits_far_from_zero() -> None:
    codes_GLD = 1000 + np.random.default_rng(0).normal(size=(3, 50, 2)).astype(np.float32) / 8
    exact_GD = codes_GLD.astype(np.longdouble).var(axis=1, ddof=1)
    found_GD = activity.variance(codes_GLD.astype(np.float32), np.zeros(2, dtype=bool))
    np.testing.assert_allclose(found_GD, exact_GD.astype(np.float64), rtol=1e-11)


@pytest.mark.parametrize("num_groups", [2, activity.CHUNK + 3])
def test_variance_of_groups_is_that_of_each_group_alone_to_the_last_bit(num_groups: int) -> None:
    generator = np.random.default_rng(0)
    codes_ND = 10 + generator.normal(size=(300, 3)).astype(np.float32)
    codes_ND[:, 1] = generator.integers(0, 4, 300)
    rows_GL, discrete_D = generator.integers(0, 300, (num_groups, 37)), np.array([False, True, False])
    found_GD = activity.variance_of_groups(codes_ND, rows_GL, discrete_D)
    np.testing.assert_array_equal(found_GD, activity.variance(codes_ND[rows_GL], discrete_D))


@pytest.mark.parametrize("num_images", [2, 1999, activity.BLOCK + 1, 3 * activity.BLOCK])
def test_variance_of_all_images_is_that_of_one_group_to_the_last_bit(num_images: int) -> None:
    codes_ND = (10 + np.random.default_rng(0).normal(size=(num_images, 3))).astype(np.float32)
    codes_ND[:, 1] = np.arange(num_images) % 3
    discrete_D = np.array([False, True, False])
    found_D = activity.variance_of_images(codes_ND, discrete_D)
    np.testing.assert_array_equal(found_D, activity.variance(codes_ND[None], discrete_D)[0])
