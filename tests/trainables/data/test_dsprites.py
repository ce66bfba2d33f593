import bisect
import cmath
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import dsprites
from trainables.images import Images
from trainables.pixels import Packed

CPU = torch.device("cpu")
REAL = Path(__file__).parents[4] / "shared/data/dsprites_real_12.npz"
OFFICIAL_ONES = 128_328_862


@pytest.fixture(scope="module")
def images() -> Images:
    """The set in the cache of whoever runs the tests: rendered by the first test run, in some seconds."""
    return dsprites.rendered().load(CPU)


def stored(images: Images) -> torch.Tensor:
    """Bit-packed, (737280, 512)."""
    assert isinstance(images.pixels, Packed)
    return images.pixels.stored_NB


def rendered(factors_N5: np.ndarray) -> np.ndarray:
    """Images rendered now, whatever the cache holds, (N, 64, 64)."""
    blocks = [dsprites._block(*sprite)[32 * x + y] for *sprite, x, y in factors_N5.tolist()]
    return np.unpackbits(np.stack(blocks), axis=1).reshape(-1, 64, 64)


def random_factors(num_images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, dsprites.FACTOR_SIZES, (num_images, 5))


def is_inside(shape: int, point: complex) -> bool:
    """Whether a point, x right and y up, is in the sprite of scale 1 at angle 0, said another way."""
    if shape == 0:  # on the inner side of all four edges, each turned to the right in its turn
        return all(bool((point * 1j**k).real <= 9.6) for k in range(4))
    if shape == 1:  # the gardener's ellipse
        focus = math.sqrt(12.77**2 - 7.21**2)
        return abs(point - focus) + abs(point + focus) <= 2 * 12.77
    angle_deg = abs(math.degrees(cmath.phase(point * 1j)))  # from "down", on either side
    angles, radii = zip(*dsprites.HEART_OUTLINE.tolist(), strict=True)
    k = min(bisect.bisect_right(angles, angle_deg), len(angles) - 1)
    share = (angle_deg - angles[k - 1]) / (angles[k] - angles[k - 1])
    radius: float = (1 - share) * radii[k - 1] + share * radii[k]
    return abs(point) <= radius


def slow_image(shape: int, scale: int, orientation: int, pos_x: int, pos_y: int) -> list[list[bool]]:
    """The definition, a pixel at a time."""
    turned = cmath.exp(2j * math.pi * orientation / 39) * (0.5 + 0.1 * scale)
    center = complex(16 + 32 * pos_x / 31, -(16 + 32 * pos_y / 31))
    return [
        [is_inside(shape, (complex(j + 0.5, -(i + 0.5)) - center) / turned) for j in range(64)]
        for i in range(64)
    ]


def test_random_images_are_those_of_the_definition() -> None:
    factors_N5 = random_factors(20)
    for found, factors in zip(rendered(factors_N5), factors_N5.tolist(), strict=True):
        np.testing.assert_array_equal(found, slow_image(*factors))


def test_twelve_official_images_differ_in_three_pixels() -> None:
    if not REAL.exists():
        pytest.skip(f"no official images at {REAL}")
    with np.load(REAL, allow_pickle=False) as real:
        values_N6, official_NHW = real["latents_values"], real["imgs"]
    grids = [
        np.arange(1, 4),
        np.linspace(0.5, 1, 6),
        np.linspace(0, 2 * np.pi, 40),
        *[np.linspace(0, 1, 32)] * 2,
    ]
    factors = [np.abs(values_N6[:, [k + 1]] - grid).argmin(1) for k, grid in enumerate(grids)]
    assert (rendered(np.stack(factors, 1)) != official_NHW).sum() == 3


def test_a_mirrored_sprite_gives_the_mirrored_image() -> None:
    factors_N5 = random_factors(40)
    mirrored_N5 = factors_N5.copy()
    mirrored_N5[:, 2:4] = [39, 31] - factors_N5[:, 2:4]
    np.testing.assert_array_equal(rendered(mirrored_N5), rendered(factors_N5)[:, :, ::-1])


def test_the_last_orientation_is_the_first() -> None:
    for shape in range(3):
        np.testing.assert_array_equal(dsprites._block(shape, 4, 0), dsprites._block(shape, 4, 39))


def test_the_whole_set_is_the_grid_that_it_declares(images: Images) -> None:
    assert (images.recipe, images.shape) == (dsprites.RECIPE, (1, 64, 64))
    assert images.factor_names == ("shape", "scale", "orientation", "pos_x", "pos_y")
    assert images.factor_sizes == (3, 6, 40, 32, 32)
    assert len(images) == 737_280
    rows_N = np.random.default_rng(1).integers(0, len(images), 100)
    found = images.at(torch.from_numpy(rows_N))[:, 0].numpy()
    np.testing.assert_array_equal(found, rendered(images.factors(rows_N)))


def test_the_cached_images_are_those_that_are_rendered_now(images: Images) -> None:
    blocks_SNB = stored(images).numpy().reshape(720, 1024, 512)
    for k, sprite in enumerate(np.ndindex(3, 6, 40)):
        if k % 29 == 0:
            np.testing.assert_array_equal(dsprites._block(*sprite), blocks_SNB[k])


def test_the_whole_set_has_the_pinned_bits(images: Images) -> None:
    packed_NB = stored(images).numpy()
    assert hashlib.sha256(packed_NB.data).hexdigest() == dsprites.SHA256
    ones = sum(int(np.bitwise_count(part).sum()) for part in np.array_split(packed_NB, 100))
    assert ones == 128_299_332
    assert ones == pytest.approx(OFFICIAL_ONES, rel=2.5e-4)


def test_the_images_are_mapped_from_the_file_and_not_copied(images: Images) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list the mappings of a process")
    mapped = [
        line.split() for line in maps.read_text().splitlines() if line.endswith("/dsprites_rendered_v1.h5")
    ]
    ranges = [[int(end, 16) for end in fields[0].split("-")] for fields in mapped]
    assert any(start <= stored(images).data_ptr() < stop for start, stop in ranges)
