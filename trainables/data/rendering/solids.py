"""Intersections of rays with convex solids that stand on the origin, and surface normals there.

Shape suffixes: 3 coordinates; origins and directions broadcast over any leading axes.
"""

import numpy as np

CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
"""Cube of half-edge r; upright cylinder of radius r, 2 r high; sphere of radius r; upright capsule of radius r, 4 r high."""

Interval = tuple[np.ndarray, np.ndarray]


def interval(solid: int, r: float, origin: np.ndarray, direction: np.ndarray) -> Interval:
    """Where rays origin + t * direction enter and leave a solid, (...); inf and -inf where they miss it."""
    if solid == SPHERE:
        return _sphere(r, r, origin, direction)
    if solid == CUBE:
        return _meet(
            *[_slab(origin[..., k], direction[..., k], low, low + 2 * r) for k, low in enumerate((-r, -r, 0))]
        )
    middle = (0, 2 * r) if solid == CYLINDER else (r, 3 * r)
    side = _meet(_pipe(r, origin, direction), _slab(origin[..., 2], direction[..., 2], *middle))
    if solid == CYLINDER:
        return side
    parts = [side, *(_sphere(height, r, origin, direction) for height in middle)]
    return np.min([near for near, _ in parts], axis=0), np.max([far for _, far in parts], axis=0)


def normal(solid: int, r: float, point: np.ndarray) -> np.ndarray:
    """Outward unit normals at points of the surface, (..., 3)."""
    if solid == CUBE:
        from_middle = point - [0, 0, r]
        axis = np.abs(from_middle).argmax(axis=-1)[..., None]
        return np.where(np.arange(3) == axis, np.sign(from_middle), 0.0)
    x, y, z = np.moveaxis(point, -1, 0)
    if solid == CYLINDER:
        is_top = z - r >= np.hypot(x, y)
        return np.where(is_top[..., None], [0.0, 0.0, 1.0], np.stack([x, y, np.zeros_like(z)], axis=-1) / r)
    core = np.full_like(z, r) if solid == SPHERE else np.clip(z, r, 3 * r)
    return np.stack([x, y, z - core], axis=-1) / r


def _meet(*parts: Interval) -> Interval:
    """The intersection of several intervals."""
    near, far = np.max([part[0] for part in parts], axis=0), np.min([part[1] for part in parts], axis=0)
    return np.where(near < far, near, np.inf), np.where(near < far, far, -np.inf)


def _slab(origin: np.ndarray, direction: np.ndarray, low: float, high: float) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.stack(np.broadcast_arrays((low - origin) / direction, (high - origin) / direction))
    return ends.min(axis=0), ends.max(axis=0)


def _sphere(height: float, r: float, origin: np.ndarray, direction: np.ndarray) -> Interval:
    offset = origin - [0, 0, height]
    return _roots(
        (direction * direction).sum(axis=-1),
        (offset * direction).sum(axis=-1),
        (offset * offset).sum(axis=-1) - r * r,
    )


def _pipe(r: float, origin: np.ndarray, direction: np.ndarray) -> Interval:
    across, along = origin[..., :2], direction[..., :2]
    return _roots(
        (along * along).sum(axis=-1), (across * along).sum(axis=-1), (across * across).sum(axis=-1) - r * r
    )


def _roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Interval:
    """Both roots of a t**2 + 2 b t + c."""
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    return np.where(square > 0, (-b - root) / a, np.inf), np.where(square > 0, (-b + root) / a, -np.inf)
