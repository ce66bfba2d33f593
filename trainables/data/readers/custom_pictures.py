"""Your own images as pictures: each cropped to its central square and resized to 64 x 64; ground truth is a table or folders.

They are grey if the first 16 are grey. Pictures are turned upright as their EXIF data say.
"""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from trainables.data.official.picture_set import in_blocks
from trainables.data.readers import labels
from trainables.data.readers.factors import Factors
from trainables.data.readers.files import listed, state
from trainables.data.readers.own import Found
from trainables.data.readers.pictures import NUM_NAMED, SUFFIXES, TIFF_SUFFIXES, Pictures, open_pictures
from trainables.data.readers.preparation import Preparation, of_own
from trainables.errors import InputError
from trainables.reading import FOLDERS, Reading

PICTURE_SIZE = (64, 64)
NUM_LOOKED_AT = 16
"""Pictures that decide whether all are grey."""


def read(path: Path, kinds: str, reading: Reading | None = None) -> Found:
    """Describe the pictures of a folder or archive.

    Args:
        path: A folder or an archive.
        kinds: What is expected at the path, for errors.
        reading: How to read it, by default as usual.

    Raises:
        InputError: There are no pictures, one of them or their ground truth is invalid, or an option is for arrays.
    """
    reading = reading or Reading()
    _check_options(path, reading)
    with open_pictures(path, kinds, is_following=reading.follow_links) as pictures:
        factors, notes = _factors(path, pictures, reading)
        looked_at = itertools.islice(pictures.levels((3, *PICTURE_SIZE), "square"), NUM_LOOKED_AT)
        is_grey = all((rgb_CHW == rgb_CHW[:1]).all() for rgb_CHW in looked_at)
        shape = (1 if is_grey else 3, *PICTURE_SIZE)
        blocks = partial(_blocks, path, shape, reading.follow_links)
        older = of_own(path, shape, len(pictures), blocks, _origin(path, pictures), is_packed=False)
        wanted = replace(older, stem=f"{older.stem}_upright")
        if older.path.exists() and not wanted.path.exists() and _are_upright(older, pictures):
            wanted = older
        return Found([wanted], factors, (*_left_out(pictures, reading), *notes))


def _check_options(path: Path, reading: Reading) -> None:
    for option in ("images", "factors"):
        if value := getattr(reading, option):
            remedy = "Leave it out; the ground truth of pictures is given with --labels or --factor-sizes."
            raise InputError(f"--{option} {value}: for arrays; {path} is read as pictures.\n{remedy}")
    if reading.follow_links and not path.is_dir():
        raise InputError(f"--follow-links is for folders; {path} is a file.\nLeave it out.")


def _factors(path: Path, pictures: Pictures, reading: Reading) -> tuple[Factors | None, tuple[str, ...]]:
    if reading.labels == FOLDERS:
        return labels.of_folders(path, pictures.names)
    if reading.labels:
        return labels.of_table(Path(reading.labels).expanduser(), path, pictures.names)
    return None, () if reading.factor_sizes else labels.suggestion(path, pictures.names)


def _origin(path: Path, pictures: Pictures) -> str:
    """What the pictures are made from; TIFF files in an archive were not always read."""
    if path.is_dir():
        return state([path / name for name in pictures.names])
    has_tiff = any(PurePosixPath(name).suffix.lower() in TIFF_SUFFIXES for name in pictures.names)
    return state([path]) + (" with TIFF" if has_tiff else "")


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


def _left_out(pictures: Pictures, reading: Reading) -> tuple[str, ...]:
    """A note about files that are not read as pictures; one that is read as labels is not among them."""
    left_out = dict(pictures.left_out)
    file = Path(reading.labels).expanduser().absolute() if reading.files.get("labels") else None
    if file and file.is_relative_to(pictures.path.absolute()) and left_out.get(file.suffix.lower()):
        left_out[file.suffix.lower()] -= 1
    counts = sorted(
        ((suffix, n) for suffix, n in left_out.items() if n), key=lambda item: (-item[1], item[0])
    )
    if not counts:
        return ()
    kinds = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts[:5]]
    rest = sum(count for _, count in counts[5:])
    said = ", ".join([*kinds, *([f"{rest:,} others"] if rest else [])])
    used = f"{len(pictures):,} pictures are" if len(pictures) > 1 else "1 picture is"
    return (f"{pictures.path}: {used} used. Left out: {said}; only {' '.join(SUFFIXES)} are read.",)


def _blocks(path: Path, shape: tuple[int, int, int], is_following: bool, first: int) -> Iterator[np.ndarray]:
    with open_pictures(path, is_following=is_following) as pictures:
        levels = pictures.levels((3, *PICTURE_SIZE), "square", first, is_turned_upright=True)
        yield from in_blocks(_grey(pictures, first, levels) if shape[0] == 1 else levels)


def _grey(pictures: Pictures, first: int, levels: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """One channel of grey pictures; those in color are named together."""
    colored = []
    for name, rgb_CHW in zip(pictures.names[first:], levels, strict=True):
        if (rgb_CHW != rgb_CHW[:1]).any():
            colored.append(name)
        elif not colored:
            yield rgb_CHW[:1]
    if colored:
        are = "picture is" if len(colored) == 1 else "pictures are"
        some = listed(colored[:NUM_NAMED]) + (", ..." if len(colored) > NUM_NAMED else "")
        raise InputError(
            f"{pictures.path}: {len(colored):,} {are} in color, but the first {NUM_LOOKED_AT} are grey: {some}.\n"
            "Convert all to grey, or rename a color picture so that it comes first."
        )
