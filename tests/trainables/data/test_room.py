import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.data import shapes3d
from trainables.data.official import shapes3d as official
from trainables.data.rendering import room, solids
from trainables.images import Images
from trainables.pixels import Layered

REAL = Path(__file__).parents[4] / "shared/data/shapes3d_real_50.npy"
FLOOR, WALL, OBJECT, SKY, WHITE = range(5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> Images:
    """The lookalike in the cache of whoever runs the tests: rendered by the first test run, in some seconds."""
    return shapes3d.lookalike().load(CPU)


@pytest.fixture(scope="module")
def weights(images: Images) -> np.ndarray:
    """(scale, shape, orientation, M, 64, 64)."""
    assert isinstance(images.pixels, Layered)
    weights_GMS: np.ndarray = images.pixels.weights_GMS.numpy()
    return weights_GMS.reshape(8, 4, 15, 5, 64, 64)


def test_the_layers_have_the_pinned_bits_and_are_those_that_are_rendered_now(weights: np.ndarray) -> None:
    assert hashlib.sha256(weights.tobytes()).hexdigest() == room.SHA256
    np.testing.assert_array_equal(next(room.blocks(450)), weights[7, 2])


def test_the_layers_do_not_hang_on_the_last_bits_of_a_ray(weights: np.ndarray) -> None:
    np.testing.assert_array_equal(next(room.blocks(300, turn=1e-9)), weights[5, 0])


def test_every_pixel_shows_something(weights: np.ndarray) -> None:
    assert weights.sum(axis=3, dtype=np.int64).min() > 20


def test_an_image_is_composed_of_the_layers_of_its_factors(images: Images, weights: np.ndarray) -> None:
    rows = np.random.default_rng(0).integers(0, 480_000, 20)
    found = images.at(torch.from_numpy(rows)).numpy()
    for image, (floor, wall, hue, scale, shape, orientation) in zip(found, images.factors(rows), strict=True):
        expected = room.compose(weights[scale, shape, orientation], room.colors(floor, wall, hue))
        np.testing.assert_array_equal(image.transpose(1, 2, 0), expected.astype(np.float32) / 255)


def test_a_hue_changes_nothing_but_its_material(weights: np.ndarray) -> None:
    layers = weights[3, 1, 4]
    before = room.compose(layers, room.colors(0, 0, 0)).astype(int)
    for material, hues in ((FLOOR, (6, 0, 0)), (WALL, (0, 6, 0)), (OBJECT, (0, 0, 6))):
        changed = (room.compose(layers, room.colors(*hues)) != before).any(axis=2)
        assert changed.any()
        assert not changed[layers[material] == 0].any()


def test_an_object_grows_with_its_scale(weights: np.ndarray) -> None:
    area = (weights[:, :, :, OBJECT] > 0).sum(axis=(3, 4))
    assert (np.diff(area, axis=0) > 0).all()


def test_round_objects_look_alike_from_all_sides(weights: np.ndarray) -> None:
    area = (weights[:, 1:, :, OBJECT] > 0).sum(axis=(3, 4))
    assert (np.ptp(area, axis=2) <= 2).all()
    assert (np.ptp((weights[:, 0, :, OBJECT] > 0).sum(axis=(2, 3)), axis=1) > 20).all()


def test_from_the_front_every_object_and_the_room_are_symmetric_but_not_the_light(
    weights: np.ndarray,
) -> None:
    silhouette = weights[:, :, 7, OBJECT] > 0
    np.testing.assert_array_equal(silhouette, silhouette[..., ::-1])
    sky = weights[:, :, 7, SKY]
    np.testing.assert_array_equal(sky, sky[..., ::-1])
    floor = weights[:, :, 7, FLOOR].astype(int)
    assert floor[..., :20].mean() > 1.2 * floor[..., 44:].mean()


def test_orientations_of_opposite_sign_show_opposite_walls(weights: np.ndarray) -> None:
    np.testing.assert_array_equal(weights[2, 2, 0, SKY], weights[2, 2, 14, SKY][:, ::-1])
    assert not np.array_equal(weights[2, 2, 0, SKY], weights[2, 2, 0, SKY][:, ::-1])


# Solids, against points sampled along the rays.


def inside(solid: int, r: float, point: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(point, -1, 0)
    if solid == solids.CUBE:
        is_in: np.ndarray = (np.abs(x) <= r) & (np.abs(y) <= r) & (z >= 0) & (z <= 2 * r)
    elif solid == solids.CYLINDER:
        is_in = (x * x + y * y <= r * r) & (z >= 0) & (z <= 2 * r)
    else:
        core = np.full_like(z, r) if solid == solids.SPHERE else np.clip(z, r, 3 * r)
        is_in = x * x + y * y + (z - core) ** 2 <= r * r
    return is_in


@pytest.mark.parametrize("solid", range(4))
def test_rays_enter_and_leave_solids_where_their_points_do(solid: int) -> None:
    generator = np.random.default_rng(solid)
    origin = generator.normal(size=(400, 3)) * [0.1, 0.1, 0.1] + [2, -2, 1]
    direction = generator.normal(size=(400, 3)) * 0.15 + [-2, 2, -0.4]
    near, far = solids.interval(solid, 0.45, origin, direction)
    t = np.linspace(0, 3, 3001)
    is_in = inside(solid, 0.45, origin[:, None] + t[:, None] * direction[:, None])
    is_met = is_in.any(axis=1)
    assert 50 < is_met.sum() < 400
    assert (near[is_met] < far[is_met]).all()
    np.testing.assert_allclose(near[is_met], t[is_in.argmax(axis=1)[is_met]], atol=2e-3)
    np.testing.assert_allclose(far[is_met], t[3000 - is_in[:, ::-1].argmax(axis=1)[is_met]], atol=2e-3)
    assert ((far - near)[~is_met] < 0.05).all()
    surface = origin[is_met] + near[is_met, None] * direction[is_met]
    normal = solids.normal(solid, 0.45, surface)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-9)
    assert ((normal * direction[is_met]).sum(axis=1) <= 1e-9).all()
    assert not inside(solid, 0.45, surface + 1e-6 * normal).any()
    assert inside(solid, 0.45, surface - 1e-6 * normal).all()


# Beside official images.


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    if not REAL.exists():
        pytest.skip(f"no official images at {REAL}")
    images_NHWC: np.ndarray = np.load(REAL)
    return images_NHWC


def hues(images_NHWC: np.ndarray) -> np.ndarray:
    """Hues of floor, wall and object, as the check of the official file reads them."""
    found = []
    for rows, columns in official.ZONES.values():
        color_N3 = images_NHWC[:, rows, columns].mean(axis=(1, 2))
        color_N3 /= color_N3.max(axis=1, keepdims=True)
        found.append(((color_N3[:, None] - room.HUE_COLORS / 255) ** 2).sum(axis=2).argmin(axis=1))
    return np.stack(found, axis=1)


def test_official_images_are_told_apart_by_the_zones_that_the_check_reads(real: np.ndarray) -> None:
    assert (hues(real[25:])[:, 0] == 0).all()
    assert all(len(np.unique(column)) >= 9 for column in hues(real).T)


def test_the_lookalike_comes_within_five_levels_of_official_images(
    real: np.ndarray, weights: np.ndarray
) -> None:
    layers = weights.reshape(480, 5, 64, 64).astype(np.float32)
    errors = []
    for image, (floor, wall, hue) in zip(real.astype(np.float32), hues(real), strict=True):
        # The nearest of all geometries; coarse first, every fourth pixel.
        colors = room.colors(floor, wall, hue).astype(np.float32)
        coarse = np.minimum(np.einsum("gmhw,mc->ghwc", layers[..., ::4, ::4], colors) / 128, 255)
        few = np.abs(coarse - image[::4, ::4]).mean(axis=(1, 2, 3)).argsort()[:20]
        composed = np.stack(
            [room.compose(weights.reshape(480, 5, 64, 64)[g], room.colors(floor, wall, hue)) for g in few]
        )
        errors.append(np.abs(composed - image).mean(axis=(1, 2, 3)).min())
    assert np.mean(errors) < 5.2
    assert np.max(errors) < 11


def test_the_channels_are_as_bright_as_those_of_the_official_set(images: Images) -> None:
    rows = np.random.default_rng(0).integers(0, 480_000, 2_000)
    means = images.at(torch.from_numpy(rows)).mean(dim=(0, 2, 3)).numpy()
    np.testing.assert_allclose(means, official.CHANNEL_MEANS, atol=0.02)
