"""The room of 3D Shapes, rendered: an object on the floor of a square room, seen from a camera that orbits it.

A lookalike, not a copy. Camera, sizes and lights were fitted to 50 official images; the room's half-width fixes the unit of
length. Hues only recolor, so a scene is stored as layers, one per material, for each of the 480 geometries, and
an image is composed from them:

    level = min(255, (sum over materials of weight * color + 64) // 128)

with whole numbers, so that every machine and device gives the same image. A weight of 128 is fully lit, more is overlit.

Axes: x to the right, y away from the camera of orientation 0, z up; the object stands at the origin. Which way the official
orientation turns is unknown; here the camera of a positive one stands to the right.

Shape suffixes: G geometries, M materials, H W image, h w rays (SAMPLES a pixel and side), n points, 3 coordinates or channels.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainables.data.rendering import solids as shapes

FACTOR_NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
FACTOR_SIZES = (10, 10, 10, 8, 4, 15)
NUM_GEOMETRIES = 8 * 4 * 15
MATERIALS = ("floor", "wall", "object", "sky", "white")

HUE_COLORS = np.array(
    [
        *((255, 0, 0), (255, 153, 0), (204, 255, 0), (51, 255, 0), (0, 255, 102)),
        *((0, 255, 255), (0, 102, 255), (51, 0, 255), (204, 0, 255), (255, 0, 153)),
    ],
    dtype=np.uint8,
)
SKY = (153, 226, 249)

SHA256 = "3cf5951aff85d113284abd099e4176bcdc9b7bb916533cf2cdbcce29577b99cb"
"""sha256 of all weights. They stay the same when every ray is turned by 1e-9, and double precision errs by about 1e-14: machines
agree."""

SIZE = 64
SAMPLES = 4
"""Rays along each side of a pixel."""

HALF_WIDTH = 3.5
WALL_HEIGHT = 2.25
CAMERA_RADIUS = 2.95
CAMERA_HEIGHT = 0.96
TARGET_HEIGHT = 0.90
FIELD_OF_VIEW = 50.0  # degrees, vertical

SCALES = np.linspace(0.75, 1.25, 8)
ORIENTATIONS = np.radians(np.linspace(-30, 30, 15))
RADIUS = (0.40, 0.40, 0.50, 0.40)
"""Radius of each of the four shapes at scale 1, see `solids`."""

TO_LIGHT = np.array([-0.30, 0.25, 1.0])
SHADOW = 0.33
FLOOR_LIGHT = (1.103, 0.154, -0.649, 0.119, -0.584, -0.11, 0.409, -0.312, 0.034, 0.285)
"""Polynomial of degree 3 in x and y over the half-width, x ** i * y ** j, i the slower: bright at the left, where the light is."""
WALL_LIGHT = (1.055, -0.124, 0.072, -0.074, -0.002, -0.026)
"""The same for the back wall: of degree 2 in x over the half-width and z over the wall's height."""
LEFT_LIGHT = (0.614, 0.008, -0.123, -0.027)
RIGHT_LIGHT = (0.45, 0.009, -0.032, -0.05)
"""Light of a side wall: constant, per degree of orientation, per y over the half-width, per z over the wall's height."""

AMBIENT, HEADLIGHT = 0.50, 0.46
DIFFUSE = (0.40, 0.35, 0.67, 0.67)
"""Diffuse light of each shape; includes a share of the highlight of the round ones."""
HIGHLIGHT, HIGHLIGHT_RANGE = 0.105, (0.35, 0.80)
"""White on round sides, by the cosine between normal and the middle of light and view."""

TILE = HALF_WIDTH / 3
TILE_CONTRAST = 0.015
SMUDGES = ((-2.0, 1.5), (0.1, 1.15), (2.1, 1.2))
"""x and z of dark smudges on every wall; on side walls along y."""
SMUDGE_DEPTH = 0.07


@dataclass(frozen=True)
class _Rays:
    """Rays from a camera; a point is origin + t * direction."""

    origin_3: np.ndarray
    direction_hw3: np.ndarray

    def at(self, t_hw: np.ndarray) -> np.ndarray:
        return self.origin_3 + t_hw[..., None] * self.direction_hw3


def colors(floor_hue: int, wall_hue: int, object_hue: int) -> np.ndarray:
    """Colors of the materials, uint8 (M, 3)."""
    hues = HUE_COLORS[[floor_hue, wall_hue, object_hue]]
    return np.concatenate([hues, np.array([SKY, (255, 255, 255)], dtype=np.uint8)])


def compose(weights_MHW: np.ndarray, colors_M3: np.ndarray) -> np.ndarray:
    """The image composed from layers, uint8 (H, W, 3)."""
    sums_HW3 = np.einsum("mhw,mc->hwc", weights_MHW.astype(np.int64), colors_M3.astype(np.int64))
    return np.minimum((sums_HW3 + 64) // 128, 255).astype(np.uint8)


def blocks(first: int = 0, turn: float = 0.0) -> Iterator[np.ndarray]:
    """Layers of the geometries, in mixed-radix order of scale, shape, orientation; about 8 s of one core for all.

    Args:
        first: Where to begin, a multiple of the number of orientations.
        turn: Radians that every camera is turned by; for a test of how stable the weights are.

    Returns:
        Arrays of all orientations of a solid, uint8 (15, M, H, W).
    """
    cameras = [_camera(orientation + turn) for orientation in ORIENTATIONS]
    rooms = [
        _room(rays, np.degrees(abs(orientation)))
        for rays, orientation in zip(cameras, ORIENTATIONS, strict=True)
    ]
    solids = list(itertools.product(SCALES, range(4)))
    for scale, shape in solids[first // len(ORIENTATIONS) :]:
        yield np.stack([_layers(rays, room, shape, scale) for rays, room in zip(cameras, rooms, strict=True)])


def _camera(azimuth: float) -> _Rays:
    origin_3 = np.array([CAMERA_RADIUS * np.sin(azimuth), -CAMERA_RADIUS * np.cos(azimuth), CAMERA_HEIGHT])
    forward_3 = np.array([0.0, 0.0, TARGET_HEIGHT]) - origin_3
    forward_3 /= np.linalg.norm(forward_3)
    right_3 = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    up_3 = np.cross(right_3, forward_3)
    across = (np.arange(SIZE * SAMPLES) + 0.5) / SAMPLES - SIZE / 2
    focal = SIZE / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
    direction_hw3 = forward_3 * focal + across[:, None] * right_3 - across[:, None, None] * up_3
    return _Rays(origin_3, direction_hw3)


@dataclass(frozen=True)
class _Room:
    """What the rays of a camera meet in the empty room.

    Attributes:
        t_hw: Where, as t of the ray.
        light_hw: Light of floor or wall there, with texture; 0 in the sky.
        is_floor_hw: Whether it is the floor.
        is_sky_hw: Whether it is neither floor nor wall.
    """

    t_hw: np.ndarray
    light_hw: np.ndarray
    is_floor_hw: np.ndarray
    is_sky_hw: np.ndarray


def _room(rays: _Rays, orientation_deg: float) -> _Room:
    x, y, z = np.moveaxis(rays.direction_hw3, -1, 0)
    with np.errstate(divide="ignore"):
        t_floor = np.where(z < 0, -rays.origin_3[2] / z, np.inf)
        t_back = np.where(y > 0, (HALF_WIDTH - rays.origin_3[1]) / y, np.inf)
        t_side = np.where(x != 0, (np.copysign(HALF_WIDTH, x) - rays.origin_3[0]) / x, np.inf)
    t_wall = np.minimum(t_back, t_side)
    is_floor = t_floor < t_wall
    t = np.where(is_floor, t_floor, t_wall)
    point_hw3 = rays.at(t)
    is_sky = ~is_floor & (point_hw3[..., 2] > WALL_HEIGHT)
    u, v, w = np.moveaxis(point_hw3 / [HALF_WIDTH, HALF_WIDTH, WALL_HEIGHT], -1, 0)
    sides = [_side(side, orientation_deg, v, w) for side in (LEFT_LIGHT, RIGHT_LIGHT)]
    wall = np.where(t_back <= t_side, _polynomial(WALL_LIGHT, 2, u, w), np.where(x < 0, *sides))
    along = np.where(t_back <= t_side, point_hw3[..., 0], point_hw3[..., 1])
    wall = wall * (1 - _smudges(along, point_hw3[..., 2]))
    floor = _polynomial(FLOOR_LIGHT, 3, u, v) * (1 + _tiles(point_hw3))
    return _Room(t, np.where(is_floor, floor, np.where(is_sky, 0.0, wall)), is_floor, is_sky)


def _polynomial(coefficients: tuple[float, ...], degree: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.sum([c * a**i * b**j for c, (i, j) in zip(coefficients, powers, strict=True)], axis=0)


def _side(light: tuple[float, ...], orientation_deg: float, v: np.ndarray, w: np.ndarray) -> np.ndarray:
    return light[0] + light[1] * orientation_deg + light[2] * v + light[3] * w


def _tiles(point_hw3: np.ndarray) -> np.ndarray:
    column, row = np.moveaxis(np.floor((point_hw3[..., :2] + HALF_WIDTH) / TILE), -1, 0)
    return np.where((column + row) % 2 == 0, TILE_CONTRAST, -TILE_CONTRAST)


def _smudges(along: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Diagonal ellipses that fade out."""
    depth = np.zeros_like(z)
    for center, height in SMUDGES:
        a, b = along - center, z - height
        depth += np.exp(-(((a + b) / 0.45) ** 2) - ((a - b) / 0.2) ** 2)
    return SMUDGE_DEPTH * depth


def _layers(rays: _Rays, room: _Room, shape: int, scale: float) -> np.ndarray:
    """Layers of a geometry, uint8 (M, H, W)."""
    radius = RADIUS[shape] * scale
    t_hw, _ = shapes.interval(shape, radius, rays.origin_3, rays.direction_hw3)
    is_object = t_hw < room.t_hw
    normal_hw3 = shapes.normal(shape, radius, rays.at(np.where(is_object, t_hw, 0.0)))
    floor = np.where(room.is_floor_hw & ~is_object, room.light_hw, 0.0)
    is_floor = floor > 0
    near_n, far_n = shapes.interval(shape, radius, rays.at(room.t_hw)[is_floor], TO_LIGHT)
    floor[is_floor] *= np.where((near_n < far_n) & (far_n > 0), SHADOW, 1.0)
    lit, white = _lit(shape, rays.direction_hw3, normal_hw3)
    layers = [
        floor,
        np.where(room.is_floor_hw | is_object, 0.0, room.light_hw),
        np.where(is_object, lit, 0.0),
        np.where(room.is_sky_hw & ~is_object, 1.0, 0.0),
        np.where(is_object, white, 0.0),
    ]
    blocks = np.stack(layers).reshape(len(MATERIALS), SIZE, SAMPLES, SIZE, SAMPLES)
    return np.clip(np.rint(128 * blocks.mean(axis=(2, 4))), 0, 255).astype(np.uint8)


def _lit(shape: int, direction_hw3: np.ndarray, normal_hw3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Light of an object's own color, and white of its highlight."""
    light_3 = TO_LIGHT / np.linalg.norm(TO_LIGHT)
    view_hw3 = -direction_hw3 / np.linalg.norm(direction_hw3, axis=-1, keepdims=True)
    half_hw3 = light_3 + view_hw3
    half_hw3 /= np.linalg.norm(half_hw3, axis=-1, keepdims=True)
    lambert = np.maximum(normal_hw3 @ light_3, 0)
    facing = np.maximum((normal_hw3 * view_hw3).sum(axis=-1), 0)
    low, high = HIGHLIGHT_RANGE
    shine = np.clip(((normal_hw3 * half_hw3).sum(axis=-1) - low) / (high - low), 0, 1)
    is_round = shape != shapes.CUBE
    return AMBIENT + DIFFUSE[shape] * lambert + HEADLIGHT * facing, HIGHLIGHT * shine * is_round
