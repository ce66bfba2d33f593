import math
from typing import Any

import numpy as np
import pytest
import torch

from trainables.images import Images, Source
from trainables.pixels import Layered, Levels, Packed, Pixels

CPU = torch.device("cpu")


def set_of(name: str, shape: tuple[int, int, int], pixels: Pixels, **ground_truth: Any) -> Images:
    return Source(name, shape, len(pixels), lambda _: pixels, **ground_truth).load(CPU)


def packed_images(bits_NCHW: np.ndarray) -> Images:
    stored = torch.from_numpy(np.packbits(bits_NCHW.reshape(len(bits_NCHW), -1), axis=1))
    return set_of("bits (test)", bits_NCHW.shape[1:], Packed(stored, bits_NCHW[0].size))


def level_images(levels_NCHW: np.ndarray, num_levels: int) -> Images:
    stored = torch.from_numpy(levels_NCHW.reshape(len(levels_NCHW), -1))
    return set_of("levels (test)", levels_NCHW.shape[1:], Levels(stored, num_levels, CPU))


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 5, 7), (1, 1, 1), (2, 3, 4)])
def test_packed_bits_come_back_as_the_pixels_that_were_packed(shape: tuple[int, int, int]) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (9, *shape), dtype=np.uint8)
    images = packed_images(bits)
    assert len(images) == 9
    assert images.num_pixels == math.prod(shape)
    np.testing.assert_array_equal(images.at(torch.arange(9)).numpy(), bits)


def test_levels_come_back_as_exact_fractions() -> None:
    levels = np.arange(65, dtype=np.uint8).reshape(5, 1, 13, 1)
    images = level_images(levels, num_levels=64)
    np.testing.assert_array_equal(images.at(torch.arange(5)).numpy(), levels / 64)


@pytest.mark.parametrize("rows_shape", [(), (4,), (3, 2), (2, 3, 4), (0,)])
def test_images_keep_the_shape_of_the_rows_that_are_asked_for(rows_shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(1)
    bits = generator.integers(0, 2, (9, 2, 3, 5), dtype=np.uint8)
    rows = generator.integers(0, 9, rows_shape)
    for images, num_levels in ((packed_images(bits), 1), (level_images(bits, num_levels=2), 2)):
        found = images.at(torch.as_tensor(rows))
        assert found.dtype == torch.float32
        assert found.shape == (*rows_shape, 2, 3, 5)
        np.testing.assert_array_equal(found.numpy() * num_levels, bits[rows])


def test_the_last_factor_of_a_row_is_the_fastest() -> None:
    sizes = (3, 6, 40, 32, 32)
    stored = torch.zeros((1, 1), dtype=torch.uint8).expand(math.prod(sizes), 1)
    names = ("shape", "scale", "orientation", "pos_x", "pos_y")
    images = set_of("grid (test)", (1, 2, 4), Packed(stored, 8), factor_names=names, factor_sizes=sizes)
    factors_NK = np.random.default_rng(2).integers(0, sizes, (500, 5))
    shape, scale, orientation, x, y = factors_NK.T
    rows_N = (((shape * 6 + scale) * 40 + orientation) * 32 + x) * 32 + y
    found_NK = images.factors(rows_N)
    assert found_NK.dtype == np.int64
    np.testing.assert_array_equal(found_NK, factors_NK)


def test_a_set_without_ground_truth_has_no_factors() -> None:
    images = level_images(np.zeros((4, 1, 2, 2), dtype=np.uint8), num_levels=255)
    assert images.factors(np.array([0, 3])).shape == (2, 0)


def test_factors_that_are_no_grid_are_those_of_a_table() -> None:
    table_NK = np.array([[0, 2], [1, 0], [1, 1], [0, 2]])
    pixels = Levels(torch.zeros((4, 4), dtype=torch.uint8), 255, CPU)
    ground_truth = {"factor_names": ("a", "b"), "factor_sizes": (2, 3), "factors_NK": table_NK}
    images = set_of("table (test)", (1, 2, 2), pixels, **ground_truth)
    np.testing.assert_array_equal(images.factors(np.array([3, 0, 1])), table_NK[[3, 0, 1]])


@pytest.mark.parametrize("ground_truth", [{}, {"factor_names": ("a",), "factor_sizes": (3,)}])
def test_a_source_that_says_another_number_of_images_is_a_bug(ground_truth: dict[str, Any]) -> None:
    pixels = Levels(torch.zeros((4, 4), dtype=torch.uint8), 255, CPU)
    with pytest.raises(ValueError, match="4 images"):
        Source("test", (1, 2, 2), 4 + (not ground_truth), lambda _: pixels, **ground_truth).load(CPU)


def test_layers_are_composed_as_in_whole_numbers() -> None:
    generator = np.random.default_rng(3)
    weights_GMS = generator.integers(0, 256, (5, 4, 6), dtype=np.uint8)
    colors_KMC = generator.integers(0, 256, (7, 4, 3), dtype=np.uint8)
    images = set_of(
        "layers (test)", (3, 2, 3), Layered(torch.from_numpy(weights_GMS), torch.from_numpy(colors_KMC))
    )
    assert len(images) == 35
    rows = generator.integers(0, 35, 50)
    sums = np.einsum("nms,nmc->ncs", weights_GMS[rows % 5].astype(int), colors_KMC[rows // 5].astype(int))
    levels = np.minimum((sums + 64) // 128, 255).reshape(50, 3, 2, 3)
    assert (levels == 255).any()
    assert (levels < 255).any()
    np.testing.assert_array_equal(images.at(torch.from_numpy(rows)), levels.astype(np.float32) / 255)
