import numpy as np
import pytest
import torch

from trainables.data import sprites
from trainables.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pixels_NHW() -> np.ndarray:
    images = sprites.find().load(CPU)
    pixels_N1HW: np.ndarray = images.at(torch.arange(len(images))).numpy()
    return pixels_N1HW[:, 0].astype(np.float64)


def centers(factors_NK: np.ndarray) -> np.ndarray:
    """The definition: (x, y) from 4 to 12 pixels in 16 steps."""
    centers_N2: np.ndarray = np.linspace(4, 12, 16)[factors_NK[:, 1:]]
    return centers_N2


def test_the_set_is_the_grid_that_it_declares() -> None:
    images = sprites.find().load(CPU)
    assert (
        (images.recipe, images.shape)
        == (sprites.RECIPE, sprites.SHAPE)
        == ("sprites (rendered v1)", (1, 16, 16))
    )
    assert images.factor_names == ("scale", "pos_x", "pos_y")
    assert images.factor_sizes == (6, 16, 16)
    assert len(images) == 1536


def test_a_perfect_model_still_pays_5_99_nats_per_image(pixels_NHW: np.ndarray) -> None:
    p = pixels_NHW[(pixels_NHW > 0) & (pixels_NHW < 1)]
    entropy_nats = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum() / len(pixels_NHW)
    assert entropy_nats == pytest.approx(5.99, abs=0.005)


def test_random_pixels_count_the_samples_inside_the_ellipse(pixels_NHW: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    images = sprites.find().load(CPU)
    rows_N = generator.integers(0, 1536, 200)
    factors_NK = images.factors(rows_N)
    for row, (scale, _, _), (x, y) in zip(rows_N, factors_NK, centers(factors_NK), strict=True):
        a, b = (axis / 4 * (0.5 + 0.1 * scale) for axis in (12.77, 7.21))
        focus = np.sqrt(a * a - b * b)
        for i, j in generator.integers(0, 16, (8, 2)):
            inside = 0
            for k in range(64):
                dx, dy = j + (k % 8 + 0.5) / 8 - x, i + (k // 8 + 0.5) / 8 - y
                # The gardener's ellipse: the distances to the foci add up to at most the long axis.
                inside += np.hypot(dx - focus, dy) + np.hypot(dx + focus, dy) <= 2 * a
            assert pixels_NHW[row, i, j] == inside / 64


def test_the_white_area_is_that_of_the_ellipse_at_its_place(pixels_NHW: np.ndarray) -> None:
    factors_NK = sprites.find().load(CPU).factors(np.arange(1536))
    area_N = pixels_NHW.sum((1, 2))
    scale_N = 0.5 + 0.1 * factors_NK[:, 0]
    np.testing.assert_allclose(area_N, np.pi * 12.77 * 7.21 / 16 * scale_N**2, atol=0.3)
    middle = np.arange(16) + 0.5
    x_N = (pixels_NHW.sum(1) * middle).sum(1) / area_N
    y_N = (pixels_NHW.sum(2) * middle).sum(1) / area_N
    np.testing.assert_allclose(np.stack([x_N, y_N], 1), centers(factors_NK), atol=0.05)


def test_a_mirrored_position_gives_the_mirrored_image(pixels_NHW: np.ndarray) -> None:
    grid = pixels_NHW.reshape(6, 16, 16, 16, 16)
    np.testing.assert_array_equal(grid[:, ::-1], np.flip(grid, 4))
    np.testing.assert_array_equal(grid[:, :, ::-1], np.flip(grid, 3))


def test_a_machine_that_renders_other_bits_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "SEMI_AXES", (12.78 / 4, 7.21 / 4))
    with pytest.raises(InputError, match="different bits"):
        sprites.find().load(CPU)
