"""Pictures in a user's folder, .zip or .tar, decoded one by one; invalid ones are refused by name.

Nothing is ever unpacked to the disk, and only the formats listed here are decoded. Imports no torch, and Pillow
only to decode.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np

from trainables.data.readers.decoding import Crop, decoded, is_upright
from trainables.data.readers.files import LEAVE_OUT, RENEW, UNPACK, listed, quoted, refusal, refusing
from trainables.data.readers.members import Member, is_visible, members
from trainables.errors import InputError

NUM_NAMED = 3
"""Pictures that an error about many names."""
TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp", *TIFF_SUFFIXES)
_KINDS = "a folder, .zip or .tar of pictures"
_ARRAYS = (".npz", ".npy", ".h5", ".hdf5")
_CONVERTIBLE = (".gif", ".heic", ".heif", ".avif", ".jfif", ".jp2", ".tga")
_MAX_MEMBERS = 5_000_000
_MAX_PICTURE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Pictures:
    """Pictures in a folder or archive, read on demand.

    Attributes:
        path: The folder or archive.
        names: Paths inside it with forward slashes, in the order of their bytes.
        left_out: How many other files there are, by suffix; hidden ones are not counted.
    """

    path: Path
    names: tuple[str, ...]
    left_out: Mapping[str, int]
    _contents: tuple[Callable[[], bytes], ...] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def levels(
        self,
        shape_CHW: tuple[int, int, int],
        crop: Crop = None,
        first: int = 0,
        *,
        is_turned_upright: bool = False,
    ) -> Iterator[np.ndarray]:
        """The pictures from index `first` on, in order of name, each uint8 (C, H, W).

        Args:
            shape_CHW: The shape to give them.
            crop: Central part that is kept, before resizing, see `decoding.decoded`.
            first: Index into names.
            is_turned_upright: Whether each is turned as its EXIF data say; published sets have none.

        Raises:
            InputError: A picture is invalid; all others from it on are looked at, and those that are invalid counted.
        """
        for index in range(first, len(self)):
            try:
                level_CHW = self._level(index, shape_CHW, crop, is_turned_upright)
            except InputError as error:
                later = self._errors(range(index + 1, len(self)), shape_CHW, crop)
                raise self._refusal([error, *later]) from error
            yield level_CHW

    def _level(self, index: int, shape_CHW: tuple[int, int, int], crop: Crop, is_turned: bool) -> np.ndarray:
        place = f"{self.path}: {quoted(self.names[index])}"
        return decoded(place, self._contents[index], shape_CHW, crop, is_turned_upright=is_turned)

    def _errors(
        self, indices: Iterable[int], shape_CHW: tuple[int, int, int], crop: Crop
    ) -> Iterator[InputError]:
        for index in indices:
            try:
                self._level(index, shape_CHW, crop, False)
            except InputError as error:
                yield error

    def _refusal(self, errors: Sequence[InputError]) -> InputError:
        """One error for all pictures that are invalid."""
        if len(errors) == 1:
            return errors[0]
        found = [str(error).partition("\n")[0].removeprefix(f"{self.path}: ") for error in errors[:NUM_NAMED]]
        more = ["..."] if len(errors) > NUM_NAMED else []
        return InputError(
            f"{self.path}: {len(errors):,} of {len(self):,} pictures cannot be used.\n"
            f"{' '.join([*found, *more])}\nRemove or replace them."
        )

    def are_upright(self) -> bool:
        """Whether no picture has EXIF data that say to turn it; those that cannot be read count as upright."""
        return all(map(is_upright, self._contents))


@contextmanager
def open_pictures(path: Path, kinds: str = _KINDS, *, is_following: bool = False) -> Iterator[Pictures]:
    """All pictures below a folder or in an archive; they can be read until the `with` block ends.

    A picture is a file with one of `SUFFIXES` in either case. Hidden files and folders and `__MACOSX` are skipped, and a
    link to a folder is not entered unless links are followed.

    Args:
        path: A folder, a .zip, a .tar, or a .tar of at most 256 MiB under gzip, bzip2 or xz, whatever its suffix.
        kinds: What is expected at the path, for errors.
        is_following: Whether links in a folder may lead out of it.

    Raises:
        InputError: It is missing, damaged or of another kind; it has no pictures or over 5,000,000 members; one of
            them has a name or a link that leads elsewhere, is a device, is encrypted or has over 64 MiB; or Pillow
            is missing.
    """
    with ExitStack() as stack:
        with refusing(path):
            pictures = _indexed(path, members(path, stack, kinds, is_following))
        if find_spec("PIL") is None:
            raise refusal(
                path, "has pictures, which only Pillow can decode", "Install it: pip install pillow"
            )
        yield pictures


def _indexed(path: Path, members_found: Iterable[Member]) -> Pictures:
    """The pictures among the members, in order of name."""
    contents: dict[str, Callable[[], bytes]] = {}
    left_out: Counter[str] = Counter()
    others: list[str] = []
    for count, (name, size, content) in enumerate(members_found):
        if count == _MAX_MEMBERS:
            raise refusal(path, f"has more than {_MAX_MEMBERS} members", "Split it.")
        suffix = PurePosixPath(name).suffix.lower()
        if not all(map(is_visible, PurePosixPath(name).parts)):
            continue
        if suffix not in SUFFIXES:
            others += [name] if len(others) <= 10 else []
            left_out[suffix if len(suffix) <= 10 and suffix.isascii() else "of other kinds"] += 1
            continue
        if name in contents:
            raise refusal(path, f"has two members {quoted(name)}; expected one", UNPACK)
        if size > _MAX_PICTURE_BYTES:
            found = f"declares {size} bytes; expected at most {_MAX_PICTURE_BYTES}"
            raise refusal(f"{path}: {quoted(name)}", found, LEAVE_OUT)
        contents[name] = content
    if not contents:
        raise _without_pictures(path, others)
    ordered = dict(sorted(contents.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))
    return Pictures(path, tuple(ordered), left_out, tuple(ordered.values()))


def _without_pictures(path: Path, others: list[str]) -> InputError:
    kinds = " ".join(SUFFIXES)
    if not others:
        what = "an empty folder" if path.is_dir() else "an empty archive"
        return refusal(
            path, f"is {what}; expected pictures ({kinds})", "Check the path, or put pictures into it."
        )
    inside = next((name for name in others if PurePosixPath(name).suffix in _ARRAYS), None)
    if inside is not None and path.is_dir():
        remedy = f"Give the path of the file: {path / inside}"
    elif PurePosixPath(others[0]).suffix.lower() in _CONVERTIBLE:
        remedy = "Convert them to .png."
    else:
        remedy = RENEW
    return refusal(path, f"has no pictures ({kinds}); it has {listed(others)}", remedy)
