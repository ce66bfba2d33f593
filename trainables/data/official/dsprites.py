"""The official dSprites file, npz or HDF5 as published: checked image by image against the rendered set, then stored packed.

Source: Matthey, Higgins, Hassabis & Lerchner, dSprites, 2017, https://github.com/google-deepmind/dsprites-dataset. Put the file
into SWEEPER_DATA (default ~/.cache/sweeper). Its pickled metadata are never read.

Shape suffixes: n images of a block, N all, B bytes of a bit-packed image.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from trainables.data.readers import preparation
from trainables.data.readers.arrays import open_arrays
from trainables.data.readers.files import is_there, state
from trainables.data.readers.stored_array import StoredArray
from trainables.errors import InputError

RECIPE = "dsprites (official)"
STEM = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
SHAPE = (1, 64, 64)
CLASSES = (1, 3, 6, 40, 32, 32)
"""Number of values of color, which has one, and of the factors of the grid of images, the last fastest."""
NUM_IMAGES = 737_280
NUM_ONES = 128_328_862
"""White pixels of the whole set; follows from its published mean, 0.042494423521889584."""
MAX_OTHER_PIXELS = 12
"""Most pixels in which an image may differ from the rendered one; labelled official images differ in 2 at most."""
MAX_MEAN_OTHER_PIXELS = 2.0
"""The same, mean over the positions of a sprite: neighbors in scale or orientation differ in more, except the smallest."""
POSITIONS = 32 * 32
"""Images of one sprite, which are converted together."""

Render = Callable[[int], Iterator[np.ndarray]]


def conversion(render: Render) -> preparation.Preparation | None:
    """How to convert the official file to the packed set; None if it is missing and was never converted.

    Args:
        render: The rendered images from a row on, bit-packed, in blocks.
    """
    files = [preparation.folder() / (STEM + suffix) for suffix in (".npz", ".hdf5", ".h5")]
    found = [file for file in files if is_there(file)]

    def blocks(first: int) -> Iterator[np.ndarray]:
        return _converted(found[0], render, first)

    kept = preparation.Preparation(
        RECIPE,
        SHAPE,
        NUM_IMAGES,
        blocks,
        verb="Checking and converting",
        origin=state(file for file in found if file.exists()),
        check=_check_ones,
    )
    return kept if found or kept.path.exists() else None


def _converted(path: Path, render: Render, first: int) -> Iterator[np.ndarray]:
    with open_arrays(path, ["imgs"], ["latents_classes", "latents/classes"]) as arrays:
        images = arrays.pop("imgs")
        if images.shape != (NUM_IMAGES, 64, 64) or images.dtype != np.uint8:
            raise _refusal(
                path, f"imgs are {images.dtype} {images.shape}; expected uint8 {(NUM_IMAGES, 64, 64)}"
            )
        for classes in arrays.values():
            _check_classes(path, classes)
        row = first
        # Closed at once if an image is refused, so that no file stays open until garbage collection.
        with closing(images.blocks(first, POSITIONS)) as stored:
            for levels_nHW, rendered_nB in zip(_rejoined(stored), render(first), strict=False):
                yield _packed(path, row, levels_nHW, rendered_nB)
                row += POSITIONS


def _rejoined(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The images of one sprite at a time, from blocks that may be shorter."""
    parts: list[np.ndarray] = []
    for block in blocks:
        parts.append(block)
        if sum(map(len, parts)) >= POSITIONS:
            joined = np.concatenate(parts)
            yield joined[:POSITIONS]
            parts = [joined[POSITIONS:]]


def _packed(path: Path, row: int, levels_nHW: np.ndarray, rendered_nB: np.ndarray) -> np.ndarray:
    if levels_nHW.max() > 1:
        raise _refusal(
            path, f"images from row {row} on have levels up to {levels_nHW.max()}; expected 0 and 1"
        )
    packed_nB = np.packbits(levels_nHW.reshape(len(levels_nHW), -1), axis=1)
    others_n = np.bitwise_count(packed_nB ^ rendered_nB).sum(axis=1, dtype=np.int64)
    if (worst := others_n.max()) > MAX_OTHER_PIXELS:
        raise _refusal(
            path,
            f"image {row + int(others_n.argmax())} differs in {worst} pixels from the rendering of its factors;"
            f" expected at most {MAX_OTHER_PIXELS}",
        )
    if (mean := others_n.mean()) > MAX_MEAN_OTHER_PIXELS:
        found = f"images from row {row} on differ in {mean:.1f} pixels on average from the rendering of their factors"
        raise _refusal(path, f"{found}; expected at most {MAX_MEAN_OTHER_PIXELS:g}")
    return packed_nB


def _check_classes(path: Path, classes: StoredArray) -> None:
    if classes.shape != (NUM_IMAGES, len(CLASSES)):
        raise _refusal(
            path, f"{classes.name} have shape {classes.shape}; expected {(NUM_IMAGES, len(CLASSES))}"
        )
    row = 0
    for found_n6 in classes.blocks(rows=65_536):
        expected_n6 = np.stack(np.unravel_index(np.arange(row, row + len(found_n6)), CLASSES), axis=1)
        if not np.array_equal(found_n6, expected_n6):
            raise _refusal(
                path, f"{classes.name} from row {row} on do not follow the factor grid (last factor fastest)"
            )
        row += len(found_n6)


def _check_ones(packed_NB: np.ndarray) -> None:
    ones = sum(
        int(np.bitwise_count(part_nB).sum(dtype=np.int64)) for part_nB in np.array_split(packed_NB, 100)
    )
    if ones != NUM_ONES:
        raise _refusal(preparation.folder() / STEM, f"it has {ones:,} white pixels; expected {NUM_ONES:,}")


def _refusal(path: Path, found: str) -> InputError:
    return InputError(
        f"{path} is not the official dSprites: {found}.\nDownload it again, or move it away to use rendered dSprites."
    )
