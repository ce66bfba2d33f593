"""Codes of which everything is known: their algebra, and what the metrics must say of them."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import config, engine, evaluation, known_codes, plugins, scoring
from trainables.config import RunSpec
from trainables.engine import Pack
from trainables.errors import InputError, UnknownNameError
from trainables.images import Images, Source
from trainables.metric_identity import identity
from trainables.pixels import Levels

pytestmark = pytest.mark.usefixtures("arithmetic")

SIZES = (4, 5, 10, 10)


def images_of(factors_NK: np.ndarray, shape: tuple[int, int, int] = (1, 4, 4)) -> Images:
    """Noise with these factors."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(
        0, 256, (len(factors_NK), math.prod(shape)), dtype=torch.uint8, generator=generator
    )
    names = tuple(f"factor_{k}" for k in range(factors_NK.shape[1]))
    sizes = tuple(int(size) for size in factors_NK.max(axis=0) + 1)
    pixels = partial(Levels, levels, 255)
    return Source("toy", shape, len(factors_NK), pixels, names, sizes, factors_NK).load(torch.device("cpu"))


def grid(*sizes: int) -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(math.prod(sizes)), sizes), axis=1)


@pytest.fixture(scope="module")
def toy() -> Images:
    """2,000 images, the grid of four factors in no order."""
    return images_of(np.random.default_rng(0).permutation(grid(*SIZES)))


def scored(metric: str, code: str, images: Images, num_seeds: int = 2) -> list[float]:
    found = known_codes.encodings(code, images, num_seeds)
    return [scoring.scores(encoding, [metric])[metric] for encoding in found]


# The codes.


def test_the_oracle_is_each_factor_standardized(toy: Images) -> None:
    (oracle,) = known_codes.encodings("oracle", toy, 3)
    assert oracle.mu_ND.dtype == np.float32
    np.testing.assert_allclose(oracle.mu_ND.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(oracle.mu_ND.std(axis=0, dtype=np.float64), 1, rtol=1e-6)
    for k, size in enumerate(SIZES):
        values = [np.unique(oracle.mu_ND[oracle.factors_NK[:, k] == value, k]) for value in range(size)]
        assert np.shape(values) == (size, 1), "a value of the factor, a value of the code"
        np.testing.assert_allclose(np.diff(np.ravel(values)), np.sqrt(12 / (size**2 - 1)), rtol=1e-5)


def test_a_factor_of_one_value_is_a_constant_code() -> None:
    (oracle,) = known_codes.encodings("oracle", images_of(grid(3, 1, 4)), 1)
    assert not oracle.mu_ND[:, 1].any()
    assert scored("mig", "oracle", images_of(grid(3, 1, 4))) == [pytest.approx(1)]


def test_duplicated_is_the_oracle_twice(toy: Images) -> None:
    (oracle,), (twice,) = (known_codes.encodings(code, toy, 3) for code in ("oracle", "duplicated"))
    np.testing.assert_array_equal(twice.mu_ND, np.hstack([oracle.mu_ND, oracle.mu_ND]))


def test_rotated_keeps_every_distance_and_mixes_every_code(toy: Images) -> None:
    (oracle,) = known_codes.encodings("oracle", toy, 1)
    for rotated in known_codes.encodings("rotated", toy, 3):
        found, expected = (codes_ND[:200] @ codes_ND[:200].T for codes_ND in (rotated.mu_ND, oracle.mu_ND))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert (np.abs(np.corrcoef(rotated.mu_ND.T, oracle.mu_ND.T)[:4, 4:]) < 0.999).all()


def test_rotations_are_orthogonal_and_favor_no_direction() -> None:
    generator = np.random.default_rng(0)
    drawn = np.array([known_codes.rotation(2, generator) for _ in range(2000)])
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), np.tile(np.eye(2), (2000, 1, 1)), atol=1e-12)
    # Entries have mean 0 and variance 1/2, determinants are 1 or -1: five standard errors.
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 * np.sqrt(0.5 / 2000))
    assert abs(np.linalg.det(drawn).mean()) < 5 / np.sqrt(2000)


def test_random_codes_are_those_of_any_images_of_that_number(toy: Images) -> None:
    other = images_of(np.random.default_rng(1).permutation(grid(*SIZES)))
    for mine, theirs in zip(
        *(known_codes.encodings("random", each, 2) for each in (toy, other)), strict=True
    ):
        np.testing.assert_array_equal(mine.mu_ND, theirs.mu_ND)
        assert mine.mu_ND.shape == (2000, 10)
        np.testing.assert_allclose(mine.mu_ND.mean(axis=0), 0, atol=5 / np.sqrt(2000))
        np.testing.assert_allclose(mine.mu_ND.var(axis=0), 1, atol=5 * np.sqrt(2 / 2000))


@pytest.mark.parametrize("code", known_codes.CODES)
def test_a_seed_decides_a_code_whatever_others_are_asked_for(toy: Images, code: str) -> None:
    few, many = (known_codes.encodings(code, toy, num_seeds) for num_seeds in (1, 3))
    assert len(few) == 1
    assert len(many) == (1 if code in known_codes.SEEDLESS else 3)
    assert few[0].to_bytes() == many[0].to_bytes()
    assert len({encoding.to_bytes() for encoding in many}) == len(many)


@pytest.mark.parametrize("code", known_codes.CODES)
def test_every_code_counts_as_active(toy: Images, code: str) -> None:
    for encoding in known_codes.encodings(code, toy, 2):
        active = scoring.scores(encoding, ["active_dims"])["active_dims"]
        assert active == encoding.mu_ND.shape[1] or code == "untrained"


def test_codes_are_of_the_evaluation_rows() -> None:
    images = images_of(grid(110, 100))
    for code in ("oracle", "random"):
        encoding = known_codes.encodings(code, images, 1)[0]
        np.testing.assert_array_equal(encoding.rows_N, evaluation.evaluation_rows(11_000))
        np.testing.assert_array_equal(encoding.factors_NK, images.factors(encoding.rows_N))
        assert len(encoding.mu_ND) == 10_000


def test_untrained_is_a_run_before_its_first_step(sprites: Images) -> None:
    runs = [engine.resolve(RunSpec("beta_vae", "sprites", {"vae.network": "mlp"}, seed)) for seed in range(2)]
    expected = evaluation.encodings(Pack(runs, sprites))
    found = known_codes.encodings("untrained", sprites, 2)
    assert [e.to_bytes() for e in found] == [e.to_bytes() for e in expected]


def test_untrained_is_the_paper_s_network_where_that_takes_the_images() -> None:
    run = known_codes._untrained(images_of(grid(3, 4), (1, 64, 64)), 0)
    default = plugins.load("trainables.models", "beta_vae", "model").Config()
    assert run.config == config.replace(default, {"vae.network": "conv"})


def test_a_code_that_there_is_not_is_refused(toy: Images) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'oracle'"):
        known_codes.encodings("orakle", toy, 1)


# What metrics say of them.


@pytest.mark.parametrize(
    ("metric", "ceiling"),
    [
        *(("factor_vae_score", 1), ("factor_vae_score_heldout", 1), ("mig", 1), ("modularity", 1)),
        *(("gaussian_tc", 0), ("mutual_information", 0)),
    ],
)
def test_the_oracle_attains_what_can_be_attained(
    toy: Images, sprites: Images, metric: str, ceiling: float
) -> None:
    for images in (toy, sprites):
        assert scored(metric, "oracle", images) == [pytest.approx(ceiling, abs=1e-9)]


def test_the_ceiling_of_mig_is_what_its_bins_can_tell() -> None:
    counts = np.bincount([min(value * 20 // 39, 19) for value in range(40)]) / 40
    told = -(counts @ np.log(counts)) / np.log(40)
    assert scored("mig", "oracle", images_of(grid(2, 40))) == [pytest.approx((1 + told) / 2)]
    assert told < 0.83


def test_the_order_of_images_and_of_factors_does_not_matter() -> None:
    factors_NK = grid(3, 4, 7)
    shuffled_NK = np.random.default_rng(0).permutation(factors_NK)[:, [2, 0, 1]]
    for metric, code in (("mig", "oracle"), ("modularity", "oracle"), ("mig", "duplicated")):
        expected = scored(metric, code, images_of(factors_NK))
        assert scored(metric, code, images_of(shuffled_NK)) == pytest.approx(expected, abs=1e-12)


def test_two_codes_for_a_factor_are_a_fault_to_mig_and_none_to_modularity(toy: Images) -> None:
    assert scored("mig", "duplicated", toy) == [0]
    assert scored("modularity", "duplicated", toy) == [1]


def test_noise_gets_chance(toy: Images) -> None:
    assert np.mean(scored("factor_vae_score_heldout", "random", toy)) == pytest.approx(1 / 4, abs=0.1)
    assert np.mean(scored("mig", "random", toy)) < 0.02


def test_a_rotation_lowers_mig_far_below_its_ceiling(toy: Images) -> None:
    assert max(scored("mig", "rotated", toy, 5)) < 0.6


def test_a_rotation_costs_the_factor_vae_score_only_where_factors_share_their_strongest_code(
    toy: Images,
) -> None:
    # Given a factor, a code's variance is 1 less its squared weight: each factor votes for its strongest code.
    (oracle,) = known_codes.encodings("oracle", toy, 1)
    shared = []
    for rotated in known_codes.encodings("rotated", toy, 6):
        weight_KD = np.abs(np.corrcoef(oracle.mu_ND.T, rotated.mu_ND.T)[:4, 4:])
        shared.append(len(set(weight_KD.argmax(axis=1))) / 4)
    found = scored("factor_vae_score_heldout", "rotated", toy, 6)
    assert found == pytest.approx(shared, abs=0.1)
    assert min(shared) < 1


def test_metrics_are_those_of_codes_and_ground_truth_cheap_ones_first() -> None:
    found = known_codes.metrics()
    kinds = {
        name: plugins.load("trainables.metrics", name, "metric")
        for name in plugins.names("trainables.metrics")
    }
    assert {name for name, metric in kinds.items() if metric.NEEDS_FACTORS} <= set(found)
    assert {"gaussian_tc", "mutual_information"} <= set(found)
    assert not {"kl", "active_dims", "recon_error", "recon_mse", "elbo_decomposition"} & set(found)
    assert [kinds[name].IS_CHEAP for name in found] == sorted(
        (kinds[name].IS_CHEAP for name in found), reverse=True
    )


# By name.


def test_a_score_has_its_estimator_s_name_and_one_value_a_seed() -> None:
    found = known_codes.score("sprites", "random", "mig", 3)
    assert found["identity"] == identity("mig", 1536)
    assert len(set(found["values"])) == 3
    assert known_codes.score("sprites", "oracle", "mig", 3)["values"] == [pytest.approx(1)]
    assert known_codes.evaluated("sprites") == {"recipe": "sprites (rendered v1)", "num_images": 1536}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that stores images of one's own and returns their path."""
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "cache"))

    def store(name: str, **factors: np.ndarray) -> str:
        images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / name, allow_pickle=False, images=images, **factors)
        return str(tmp_path / name)

    return store


def test_a_metric_that_does_not_apply_is_nan(own: Callable[..., str]) -> None:
    path = own("one_factor.npz", factors=np.arange(60)[:, None] % 5)
    assert np.isnan(known_codes.score(path, "random", "modularity", 2)["values"]).tolist() == [True, True]
    assert known_codes.score(path, "oracle", "mig", 2)["values"] == [pytest.approx(1)]


def test_images_without_ground_truth_are_refused(own: Callable[..., str]) -> None:
    path = own("blind.npz")
    asks: list[Callable[[], object]] = [
        lambda: known_codes.score(path, "oracle", "mig", 1),
        lambda: known_codes.evaluated(path),
    ]
    for ask in asks:
        with pytest.raises(
            InputError, match=r"blind\.npz has no ground truth: nothing to calibrate\.\nSave it in"
        ):
            ask()
    constant = own("constant.npz", factors=np.zeros((60, 2)))
    with pytest.raises(InputError, match=r"constant\.npz: each of its factors has only one value"):
        known_codes.evaluated(constant)


def test_a_metric_that_there_is_not_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mig'"):
        known_codes.score("sprites", "oracle", "migs", 1)
