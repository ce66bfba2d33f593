"""The official 3D Shapes file, `3dshapes.h5` as published: checked image by image, then stored with one byte per level.

Source: Burgess & Kim, 3D Shapes Dataset, 2018, https://github.com/google-deepmind/3d-shapes. Put the file into SWEEPER_DATA (default
~/.cache/sweeper). Its images are compressed in chunks and never in memory all at once.

Shape suffixes: n images of a block, N all, P = 64 * 64 * 3 levels.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from trainables.data.readers import preparation
from trainables.data.readers.arrays import open_arrays
from trainables.data.readers.files import is_there, state
from trainables.data.readers.stored_array import StoredArray
from trainables.data.rendering import room
from trainables.errors import InputError

RECIPE = "shapes3d (official)"
FILE = "3dshapes.h5"
SHAPE = (3, 64, 64)
SIZES = room.FACTOR_SIZES
HUES = np.arange(10) / 10
VALUES = (HUES, HUES, HUES, np.linspace(0.75, 1.25, 8), np.arange(4), np.linspace(-30, 30, 15))
"""Labels of each factor, the last factor the fastest; the published description differs for the hues."""
NUM_IMAGES = 480_000
CHANNEL_MEANS = (0.50258, 0.57876, 0.60345)

ZONES = {
    "floor": (slice(60, 64), slice(0, 64)),
    "wall": (slice(20, 26), slice(0, 6)),
    "object": (slice(43, 49), slice(30, 34)),
}
"""Rows and columns where an image shows only this, in light or shadow; verified on 50 official images."""

BLOCK = 512
NUM_SCENES = 1000
"""Images that are compared with the lookalike's."""
MIN_AGREEMENT = 0.8
"""Least share of them that agree in each factor; scenes in another order agree in half."""


def conversion() -> preparation.Preparation | None:
    """How to convert the official file; None if it is missing and was never converted."""
    path = preparation.folder() / FILE

    def blocks(first: int) -> Iterator[np.ndarray]:
        return _converted(path, first)

    kept = preparation.Preparation(
        RECIPE,
        SHAPE,
        NUM_IMAGES,
        blocks,
        is_packed=False,
        verb="Checking and converting",
        origin=state([path] if path.exists() else []),
        check=_check_whole,
    )
    return kept if is_there(path) or kept.path.exists() else None


def _converted(path: Path, first: int) -> Iterator[np.ndarray]:
    with open_arrays(path, ["images", "labels"]) as arrays:
        images, labels = arrays["images"], arrays["labels"]
        if images.shape != (NUM_IMAGES, 64, 64, 3) or images.dtype != np.uint8:
            expected = f"uint8 {(NUM_IMAGES, 64, 64, 3)}"
            raise _refusal(path, f"images are {images.dtype} {images.shape}; expected {expected}")
        _check_labels(path, labels)
        row = first
        with closing(images.blocks(first, BLOCK)) as stored:
            for levels_nHWC in stored:
                _check_hues(path, row, levels_nHWC)
                row += len(levels_nHWC)
                yield np.ascontiguousarray(levels_nHWC.transpose(0, 3, 1, 2)).reshape(len(levels_nHWC), -1)


def _check_labels(path: Path, labels: StoredArray) -> None:
    if labels.shape != (NUM_IMAGES, len(SIZES)):
        raise _refusal(path, f"labels have shape {labels.shape}; expected {(NUM_IMAGES, len(SIZES))}")
    row = 0
    for found_n6 in labels.blocks(rows=65_536):
        indices = np.unravel_index(np.arange(row, row + len(found_n6)), SIZES)
        expected_n6 = np.stack([values[index] for values, index in zip(VALUES, indices, strict=True)], axis=1)
        if not np.allclose(found_n6, expected_n6, atol=1e-6):
            raise _refusal(
                path, f"labels from row {row} on do not follow the factor grid (last factor fastest)"
            )
        row += len(found_n6)


def _check_hues(path: Path, row: int, levels_nHWC: np.ndarray) -> None:
    """Compare the colors of floor, wall and object in each image with its place in the grid."""
    labels_6n = np.unravel_index(np.arange(row, row + len(levels_nHWC)), SIZES)
    for hue_n, (zone, (rows, columns)) in zip(labels_6n, ZONES.items(), strict=False):
        color_n3 = levels_nHWC[:, rows, columns].mean(axis=(1, 2))
        color_n3 /= np.maximum(color_n3.max(axis=1, keepdims=True), 1)
        found_n = ((color_n3[:, None] - room.HUE_COLORS / 255) ** 2).sum(axis=2).argmin(axis=1)
        if (is_wrong_n := found_n != hue_n).any():
            n = int(is_wrong_n.argmax())
            found = f"the {zone} of image {row + n} has hue {found_n[n] / 10:.1f}"
            raise _refusal(path, f"{found}; expected {hue_n[n] / 10:.1f} at its place in the grid")


def _check_whole(levels_NP: np.ndarray) -> None:
    """Compare the channels' means with the published ones, and a sample of scenes with the lookalike's."""
    sums = sum(part.reshape(-1, 3, 64 * 64).sum(axis=(0, 2), dtype=np.int64) for part in _parts(levels_NP))
    means = sums / (len(levels_NP) * 64 * 64 * 255)
    if not np.allclose(means, CHANNEL_MEANS, atol=0.002):
        found = ", ".join(f"{mean:.5f}" for mean in means)
        raise _refusal(
            preparation.folder() / FILE, f"its channels have means {found}; expected {CHANNEL_MEANS}"
        )
    rows_n = np.random.default_rng(0).choice(len(levels_NP), min(NUM_SCENES, len(levels_NP)), replace=False)
    for factor, share in agreement(levels_NP[np.sort(rows_n)], np.sort(rows_n)).items():
        if share < MIN_AGREEMENT:
            found = f"only {share:.0%} of {len(rows_n)} scenes have the {factor} of their place in the grid"
            raise _refusal(preparation.folder() / FILE, f"{found}; expected at least {MIN_AGREEMENT:.0%}")


def agreement(levels_nP: np.ndarray, rows_n: np.ndarray) -> dict[str, float]:
    """Shares of images, by factor, that look more like the lookalike's scene of their factors than like another scene.

    The other has the opposite scale, the next shape, or the opposite orientation. Which way the official orientation turns is not
    known: the way that fits better is used for all images.

    Args:
        levels_nP: uint8, channels first.
        rows_n: Their places in the grid.
    """
    layers = np.concatenate(list(room.blocks())).reshape(8, 4, 15, len(room.MATERIALS), 1, -1)
    floor, wall, hue, scale, shape, turn = np.unravel_index(rows_n, SIZES)
    images_nS3 = levels_nP.reshape(len(levels_nP), 3, -1).transpose(0, 2, 1).astype(np.int16)

    def errors(scale: np.ndarray, shape: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """Mean difference of each image from a scene, levels."""
        found = []
        for n, (i, j, k) in enumerate(zip(scale, shape, turn, strict=True)):
            scene_S3 = room.compose(layers[i, j, k], room.colors(floor[n], wall[n], hue[n]))[0]
            found.append(np.abs(scene_S3 - images_nS3[n]).mean())
        return np.array(found)

    one, other = errors(scale, shape, turn), errors(scale, shape, 14 - turn)
    if other.sum() < one.sum():
        one, other, turn = other, one, 14 - turn
    looks = {
        "scale": (one < errors(7 - scale, shape, turn))[np.abs(2 * scale - 7) >= 3],
        "shape": one < errors(scale, (shape + 1) % 4, turn),
        "orientation": (one < other)[np.abs(turn - 7) >= 3],
    }
    return {factor: float(right.mean()) if len(right) else 1.0 for factor, right in looks.items()}


def _parts(levels_NP: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(levels_NP), BLOCK):
        yield levels_NP[start : start + BLOCK]


def _refusal(path: Path, found: str) -> InputError:
    return InputError(
        f"{path} is not the official 3D Shapes: {found}.\nDownload it again, or move it away to use the rendered lookalike."
    )
