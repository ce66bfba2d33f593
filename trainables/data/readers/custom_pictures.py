"""Your own images as pictures: each cropped to its central square and resized to 64 x 64, without ground truth.

They are grey if the first 16 are grey. Pictures are turned upright as their EXIF data say.
"""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from trainables.data.official.picture_set import in_blocks
from trainables.data.readers.files import quoted, state
from trainables.data.readers.pictures import SUFFIXES, Pictures, open_pictures
from trainables.data.readers.preparation import Preparation, of_own
from trainables.errors import InputError

PICTURE_SIZE = (64, 64)
NUM_LOOKED_AT = 16
"""Pictures that decide whether all are grey."""


def read(path: Path, kinds: str) -> tuple[list[Preparation], None, tuple[str, ...]]:
    """How to convert the pictures, no factors, and what a person should know of them.

    Args:
        path: A folder or an archive.
        kinds: What is expected at the path, for errors.

    Raises:
        InputError: There are no pictures, or one of them is invalid.
    """
    with open_pictures(path, kinds) as pictures:
        looked_at = itertools.islice(pictures.levels((3, *PICTURE_SIZE), "square"), NUM_LOOKED_AT)
        is_grey = all((rgb_CHW == rgb_CHW[:1]).all() for rgb_CHW in looked_at)
        origin = state([path / name for name in pictures.names] if path.is_dir() else [path])
        shape = (1 if is_grey else 3, *PICTURE_SIZE)
        blocks = partial(_blocks, path, shape)
        older = of_own(path, shape, len(pictures), blocks, origin, is_packed=False)
        wanted = replace(older, stem=f"{older.stem}_upright")
        if older.path.exists() and not wanted.path.exists() and _are_upright(older, pictures):
            wanted = older
        return [wanted], None, _notes(pictures)


def _are_upright(older: Preparation, pictures: Pictures) -> bool:
    """Whether a conversion of a version that did not read EXIF data is as it would be now; looked up once."""
    note = older.path.with_suffix(".upright")
    if note.exists():
        return True
    are_upright = pictures.are_upright()
    if are_upright:
        with suppress(OSError):  # on a read-only disk every process looks
            note.touch()
    return are_upright


def _notes(pictures: Pictures) -> tuple[str, ...]:
    if not pictures.left_out:
        return ()
    counts = sorted(pictures.left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts[:5]]
    rest = sum(count for _, count in counts[5:])
    left_out = ", ".join([*kinds, *([f"{rest:,} others"] if rest else [])])
    used = f"{len(pictures):,} pictures are" if len(pictures) > 1 else "1 picture is"
    return (f"{pictures.path}: {used} used. Left out: {left_out}; only {' '.join(SUFFIXES)} are read.",)


def _blocks(path: Path, shape: tuple[int, int, int], first: int) -> Iterator[np.ndarray]:
    with open_pictures(path) as pictures:
        levels = pictures.levels((3, *PICTURE_SIZE), "square", first, is_turned_upright=True)
        if shape[0] == 1:
            names = pictures.names[first:]
            levels = (_grey(path, name, rgb) for name, rgb in zip(names, levels, strict=True))
        yield from in_blocks(levels)


def _grey(path: Path, name: str, rgb_CHW: np.ndarray) -> np.ndarray:
    if (rgb_CHW != rgb_CHW[:1]).any():
        raise InputError(
            f"{path}: {quoted(name)} is in color, but the first {NUM_LOOKED_AT} pictures are grey.\n"
            "Convert it to grey, or rename a color picture so that it comes first."
        )
    return rgb_CHW[:1]
