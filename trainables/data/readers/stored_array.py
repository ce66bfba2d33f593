"""An array in a user's file that was checked before it is read: numbers only, in rows. Imports no torch."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import h5py
import numpy as np

from trainables.data.readers.files import refusal

RESTORE = "Save it again as plain numbers in the file itself."
_TEXT = ("text", "Save a number in place of each text, for example np.unique(texts, return_inverse=True)[1].")
_OTHER_VALUES = {
    "U": _TEXT,
    "S": _TEXT,
    "O": ("objects, which are never unpickled", RESTORE),
    "V": ("records of several fields", "Save the fields as columns of numbers."),
    "c": ("complex numbers", "Save real numbers, for example np.abs of them."),
    "M": ("dates", "Save numbers in their place."),
    "m": ("durations", "Save numbers in their place."),
}
"""What arrays that are refused hold, by the kind of their type, and what to do."""

Blocks = Callable[[int, int], Generator[np.ndarray, None, None]]
"""Makes the rows from one on, in arrays of at most so many rows."""


@dataclass(frozen=True)
class StoredArray:
    """An array of booleans, integers or floats, read from its file on demand.

    Attributes:
        name: The requested name.
        shape: At least one axis; no axis is empty.
        dtype: As stored, with the byte order of the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    _blocks: Blocks = field(repr=False, compare=False)

    def blocks(self, first: int = 0, rows: int = 1024) -> Generator[np.ndarray, None, None]:
        """Rows from `first` to the last, in order, in C-contiguous arrays of at most `rows` rows.

        Uses the memory of one block. To begin at `first`, an .npz member is read and dropped up to there, at the speed
        of inflating it; HDF5 goes there at once. If HDF5 chunks span many rows (23,040 in the official dSprites file),
        `rows` should be a multiple of that height: otherwise the rows of a chunk, if they take at most 512 MiB, are
        still read together and returned in parts, so that no chunk is decompressed twice.

        Raises:
            InputError: The data ends early or is damaged, which is found only when it is read.
        """
        if first < 0 or rows < 1:
            raise ValueError(f"first = {first} must be at least 0 and rows = {rows} at least 1")
        return self._blocks(first, rows)


def checked(place: str, name: str, shape: tuple[int, ...], dtype: np.dtype, blocks: Blocks) -> StoredArray:
    """The array, unless it has no rows or holds anything but numbers.

    Args:
        place: The file and the name, for errors.
        name: See `StoredArray`, as the arguments below.
        shape: As it is declared; it may be invalid.
        dtype: As it is declared.
        blocks: Reads it.

    Raises:
        InputError: It is refused.
    """
    if dtype.kind not in "biuf":
        kind = "U" if h5py.check_string_dtype(dtype) else dtype.kind
        what, remedy = _OTHER_VALUES.get(kind, (f"values of type {dtype.name}", RESTORE))
        raise refusal(place, f"holds {what}; expected numbers", remedy)
    if 0 in shape:
        raise refusal(place, f"is empty: its shape is {shape}", "Save at least 2 rows, none of them empty.")
    if not shape or min(shape) < 1:
        raise refusal(place, f"has shape {shape}; expected rows", RESTORE)
    return StoredArray(name, shape, dtype, blocks)
