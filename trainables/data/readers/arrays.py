"""Named arrays of a user's .npz or HDF5 file, or the one of an .npy file, read in pieces; invalid ones are refused by name.

Nothing in such a file is trusted unchecked, and nothing is ever unpickled. Its kind is detected from its content,
since a download may have any suffix.

Imports no torch.
"""

import math
import warnings
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from numpy.lib import format as npy

from trainables.data.readers.files import (
    RENEW,
    check_zip_member,
    file_head,
    foreign,
    is_zip,
    listed,
    quoted,
    refusal,
    refusing,
)
from trainables.data.readers.stored_array import RESTORE, StoredArray, checked
from trainables.errors import InputError

_KINDS = "an .npz or HDF5 file"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_REPACK = "Save it again in small chunks with gzip, for example with h5repack."
_MAX_HEADER_BYTES = 2**16
_MAX_NAMES = 1000
_MAX_READ_BYTES = 2**29
"""Limit on HDF5 rows that are read together only because they share chunks, and on one chunk."""


NAMELESS = ""
"""Name of the array of an .npy file."""

_Found = tuple[dict[str, StoredArray], Iterable[str]]
"""The requested arrays that exist, and the names of all arrays."""


@contextmanager
def open_arrays(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), max_bytes: int = 256 * 2**30
) -> Iterator[dict[str, StoredArray]]:
    """Named arrays of a file, readable until the `with` block ends; other arrays in the file are ignored.

    Args:
        path: An .npz, .npy or HDF5 file, whatever its suffix.
        required: Names: for .npz those of its members without `.npy`, for HDF5 paths such as `latents/classes`, for
            .npy `NAMELESS`.
        optional: Names that are left out of the result if the file does not have them.
        max_bytes: Limit on the uncompressed size of all named arrays together.

    Raises:
        InputError: The file or one of these arrays is missing, damaged, not what it declares, or of an
            unsupported kind: pickled objects, links, virtual or external HDF5 data, and others.
    """
    head, names = file_head(path, _KINDS), [*required, *optional]
    with ExitStack() as stack:
        with refusing(path):
            if is_zip(head):
                arrays, there = _in_npz(path, stack.enter_context(zipfile.ZipFile(path)), names)
            elif head.startswith(_HDF5_SIGNATURE):
                file = stack.enter_context(h5py.File(path, "r", locking=False))
                arrays, there = _in_hdf5(path, file, names)
            elif head.startswith(npy.MAGIC_PREFIX):
                if names != [NAMELESS]:
                    raise _nameless(path, names)
                only = _npy_array(str(path), NAMELESS, lambda: path.open("rb"), path.stat().st_size)
                arrays, there = {NAMELESS: only}, [NAMELESS]
            else:
                raise foreign(path, head, _KINDS)
            missing = [name for name in required if name not in arrays]
            if missing:
                raise refusal(path, f"has no array {missing[0]!r}; it has {listed(there)}", RENEW)
            total = sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays.values())
            if total > max_bytes:
                found = f"declares {total / 2**30:.3g} GiB in {listed(arrays)}"
                raise refusal(path, f"{found}; expected at most {max_bytes / 2**30:.3g} GiB", RENEW)
        yield arrays


def array_names(path: Path) -> list[str]:
    """Names of the arrays of a file, at most 1,000; `NAMELESS` alone for .npy.

    Raises:
        InputError: As in `open_arrays`.
    """
    with refusing(path):
        head = file_head(path, _KINDS)
        if head.startswith(npy.MAGIC_PREFIX):
            return [NAMELESS]
        if is_zip(head):
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
            return [name.removesuffix(".npy") for name in members if name.endswith(".npy")][:_MAX_NAMES]
        if not head.startswith(_HDF5_SIGNATURE):
            raise foreign(path, head, _KINDS)
        with h5py.File(path, "r", locking=False) as file:
            return list(_hdf5_names(file))


def _nameless(path: Path, names: list[str]) -> InputError:
    """The error for an .npy file where arrays with names are expected."""
    saved = f"np.savez({path.stem + '.npz'!r}, {names[0]}=np.load({path.name!r}))"
    found = f"is one array without a name (.npy); expected {_KINDS}"
    return refusal(path, found, f"Save it under the name '{names[0]}': {saved}")


# .npz and .npy


def _in_npz(path: Path, archive: zipfile.ZipFile, names: list[str]) -> _Found:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if info.filename in members:
            raise refusal(path, f"has two members {quoted(info.filename)}; expected one", RENEW)
        members[info.filename] = info
    infos = {name: members[f"{name}.npy"] for name in names if f"{name}.npy" in members}
    arrays = {}
    for name, info in infos.items():
        place = f"{path}: array {name!r}"
        check_zip_member(place, info)
        arrays[name] = _npy_array(place, name, partial(archive.open, info), info.file_size)
    return arrays, (name.removesuffix(".npy") for name in members)


def _npy_array(
    place: str, name: str, opened: Callable[[], AbstractContextManager[IO[bytes]]], num_bytes: int
) -> StoredArray:
    """The array of an .npy file, which may be a member of a zip."""
    with refusing(place), opened() as member:
        shape, is_fortran, dtype = _npy_header(place, member)
        offset = member.tell()

    def blocks(first: int, rows: int) -> Generator[np.ndarray, None, None]:
        with ExitStack() as stack:
            with refusing(place):
                member = stack.enter_context(opened())
                member.seek(offset + min(first, shape[0]) * math.prod(shape[1:]) * dtype.itemsize)
            for start in range(first, shape[0], rows):
                with refusing(place):
                    block = np.empty((min(rows, shape[0] - start), *shape[1:]), dtype)
                    _fill(member, block)
                yield block

    array = checked(place, name, shape, dtype, blocks)
    if is_fortran:
        raise refusal(place, "is in Fortran order; expected C order", "Save np.ascontiguousarray of it.")
    size = offset + math.prod(shape) * dtype.itemsize
    if size != num_bytes:
        raise refusal(place, f"has {num_bytes} bytes; expected {size} for {dtype.name} {shape}", RENEW)
    return array


def _npy_header(place: str, member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran order, and dtype; leaves the member positioned at the first value."""
    version = npy.read_magic(BytesIO(member.read(npy.MAGIC_LEN)))
    if version not in ((1, 0), (2, 0)):
        raise refusal(place, f"has .npy format {version}; expected (1, 0) or (2, 0)", RESTORE)
    # The length is checked here, because NumPy would read as many bytes as declared, up to 4 GiB.
    prefix = member.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER_BYTES:
        raise refusal(place, f"has a header of {length} bytes; expected at most {_MAX_HEADER_BYTES}", RENEW)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about files written by Python 2, such as official ones
        return read_header(BytesIO(prefix + member.read(length)), max_header_size=_MAX_HEADER_BYTES)


def _fill(member: IO[bytes], block: np.ndarray) -> None:
    """Read an array, 1 MiB at a time because reading a zip member copies it."""
    view = block.reshape(-1).view(np.uint8).data
    filled = 0
    while filled < len(view):
        part = member.read(min(2**20, len(view) - filled))
        if not part:
            raise EOFError("the data ends early")
        view[filled : filled + len(part)] = part
        filled += len(part)


# HDF5


def _in_hdf5(path: Path, file: h5py.File, names: list[str]) -> _Found:
    arrays: dict[str, StoredArray] = {}
    for name in names:
        place = f"{path}: dataset {name!r}"
        with refusing(place):
            dataset = _hdf5_dataset(place, file, name)
            if dataset is not None:
                arrays[name] = _hdf5_array(place, name, dataset)
    return arrays, _hdf5_names(file)


def _hdf5_names(file: h5py.File) -> Iterator[str]:
    """Paths of the datasets, at most 1,000."""
    names: list[str] = []

    def visit(name: str, item: object) -> bool | None:
        names.extend([name] if isinstance(item, h5py.Dataset) else [])
        return len(names) >= _MAX_NAMES or None  # anything but None ends the visit

    file.visititems(visit)  # follows hard links only
    yield from names


def _hdf5_dataset(place: str, file: h5py.File, name: str) -> h5py.Dataset | None:
    """A dataset in the file itself; None if there is none of that name."""
    item = file
    for part in name.split("/"):
        link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise refusal(
                place, f"is behind {part!r}, a soft or external link; expected the data itself", RESTORE
            )
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise refusal(place, f"is a {type(item).__name__.lower()}; expected a dataset", RESTORE)
    return item


def _hdf5_array(place: str, name: str, dataset: h5py.Dataset) -> StoredArray:
    dtype, shape = dataset.dtype, dataset.shape
    if dataset.is_virtual or dataset.external:
        kind = "virtual" if dataset.is_virtual else "external"
        raise refusal(place, f"is {kind}, with its data in other files; expected it in this one", RESTORE)
    chunk_shape = dataset.chunks or (1,)
    chunk_bytes = math.prod(chunk_shape) * dtype.itemsize
    if chunk_bytes > _MAX_READ_BYTES:
        found = f"has chunks of {chunk_bytes / 2**20:.0f} MiB, each read whole"
        raise refusal(place, f"{found}; expected at most {_MAX_READ_BYTES / 2**20:.0f} MiB", _REPACK)
    properties = dataset.id.get_create_plist()
    for k in range(properties.get_nfilters()):
        code = properties.get_filter(k)[0]
        if not h5py.h5z.filter_avail(code):
            raise refusal(
                place, f"is compressed with HDF5 filter {code}, which is not installed here", _REPACK
            )
    rows_bytes = chunk_shape[0] * math.prod((shape or ())[1:]) * dtype.itemsize
    height = chunk_shape[0] if rows_bytes <= _MAX_READ_BYTES else 1

    def blocks(first: int, rows: int) -> Generator[np.ndarray, None, None]:
        step = max(rows // height, 1) * height
        while first < shape[0]:
            # A band ends where chunks end, so that a chunk is in one band only.
            stop = min((first + step) // height * height, shape[0])
            with refusing(place):
                band = dataset[first:stop]
            yield from (band[at : at + rows] for at in range(0, stop - first, rows))
            first = stop

    return checked(place, name, shape or (), dtype, blocks)
