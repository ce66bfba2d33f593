"""Pictures in a user's folder, .zip or .tar, decoded one by one; invalid ones are refused by name.

Nothing is ever unpacked to the disk, and only the formats listed here are decoded. Imports no torch, and Pillow
only to decode.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from trainables.data.readers.files import (
    check_zip_member,
    file_head,
    foreign,
    is_zip,
    listed,
    quoted,
    refusal,
    refusing,
)
from trainables.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FILTER = "BOX"
"""Pillow's name for the resampling: the mean over the area of a new pixel. No weight is negative, so a sharp edge,
such as a chair on white, gets no halo; at an integer factor it is the plain mean of a square."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_KINDS = "a folder, .zip or .tar of pictures"
_PICTURE = "a complete PNG, JPEG, BMP, PPM or WEBP picture"
_UNPACK = "Unpack it and give the path of the folder."
_LEAVE_OUT = "Remove it or replace it."
_MAX_MEMBERS = 5_000_000
_MAX_PICTURE_BYTES = 64 * 2**20
_MAX_PIXELS = 64_000_000
_MAX_UNPACKED_BYTES = 256 * 2**20
"""Largest size of a compressed tar: it is unpacked in memory, since reading it out of order is too slow."""

_UNPACKERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}

_Crop = tuple[int, int] | Literal["square"] | None
_Member = tuple[str, int, Callable[[], bytes]]
"""Name, declared size in bytes, and a function that reads it."""


@dataclass(frozen=True)
class Pictures:
    """Pictures in a folder or archive, read on demand.

    Attributes:
        path: The folder or archive.
        names: Paths inside it with forward slashes, in the order of their bytes.
    """

    path: Path
    names: tuple[str, ...]
    _contents: tuple[Callable[[], bytes], ...] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def levels(
        self, shape_CHW: tuple[int, int, int], crop: _Crop = None, first: int = 0
    ) -> Iterator[np.ndarray]:
        """The pictures from index `first` on, in order of name, each uint8 (C, H, W).

        A transparent picture is composited on white, converted to grey (C = 1, the luma of ITU-R 601) or
        RGB (C = 3), cropped, and resized by `FILTER`. An orientation in EXIF is not applied.

        Args:
            shape_CHW: The shape to give them; C is 1 or 3.
            crop: Height and width of the central part that is kept, before resizing; `square` is the largest
                square in a picture, None the whole picture.
            first: Index into names.

        Raises:
            InputError: A picture cannot be decoded or is truncated, has over 64 megapixels or 8 bits a channel, or
                is smaller than the crop; or Pillow is missing.
        """
        channels, height, width = shape_CHW
        mode = {1: "L", 3: "RGB"}[channels]
        with refusing(self.path, "Decoding pictures needs Pillow: pip install pillow."):
            from PIL import Image
        for name, content in zip(self.names[first:], self._contents[first:], strict=True):
            place = f"{self.path}: {quoted(name)}"
            with refusing(place), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow warns about sizes that are refused here anyway
                picture = _cropped(place, _decoded(place, content()), crop)
                picture = _opaque(picture).convert(mode)
                # One axis at a time, since Pillow rounds after each and its versions differ in the order of axes.
                for size in ((width, picture.height), (width, height)):
                    picture = picture.resize(size, Image.Resampling[FILTER])
            yield np.array(picture).reshape(height, width, channels).transpose(2, 0, 1).copy()


@contextmanager
def open_pictures(path: Path) -> Iterator[Pictures]:
    """All pictures below a folder or in an archive; they can be read until the `with` block ends.

    A picture is a file with a suffix .png .jpg .jpeg .bmp .ppm .pgm .webp in either case. Hidden files and folders
    and `__MACOSX` are skipped, and a link to a folder is not entered.

    Args:
        path: A folder, a .zip, a .tar, or a .tar of at most 256 MiB under gzip, bzip2 or xz, whatever its suffix.

    Raises:
        InputError: It is missing, damaged or of another kind; it has no pictures or over 5,000,000 members; or one of
            them has a name or a link that leads elsewhere, is a device, is encrypted or has over 64 MiB.
    """
    with ExitStack() as stack:
        with refusing(path):
            members = _in_folder(path) if path.is_dir() else _in_archive(path, stack)
            contents = _indexed(path, members)
        yield Pictures(path, tuple(contents), tuple(contents.values()))


def _indexed(path: Path, members: Iterable[_Member]) -> dict[str, Callable[[], bytes]]:
    """The pictures among the members by name, in order."""
    contents: dict[str, Callable[[], bytes]] = {}
    others: list[str] = []
    for count, (name, size, content) in enumerate(members):
        if count == _MAX_MEMBERS:
            raise refusal(path, f"has more than {_MAX_MEMBERS} members", "Split it.")
        parts = PurePosixPath(name).parts
        if PurePosixPath(name).suffix.lower() not in _SUFFIXES or not all(map(_is_visible, parts)):
            others += [name] if len(others) <= 10 else []
            continue
        if name in contents:
            raise refusal(path, f"has two members {quoted(name)}; expected one", _UNPACK)
        if size > _MAX_PICTURE_BYTES:
            found = f"declares {size} bytes; expected at most {_MAX_PICTURE_BYTES}"
            raise refusal(f"{path}: {quoted(name)}", found, _LEAVE_OUT)
        contents[name] = content
    if not contents:
        found = f"contains no pictures ({' '.join(_SUFFIXES)}); it contains {listed(others)}"
        raise refusal(path, found, "Check the path, or download it again.")
    return dict(sorted(contents.items(), key=lambda item: item[0].encode("utf-8", "surrogateescape")))


def _is_visible(part: str) -> bool:
    return not part.startswith(".") and part != "__MACOSX"


def _in_folder(path: Path) -> Iterator[_Member]:
    root = path.resolve()
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders[:] = filter(_is_visible, folders)
        inside = Path(folder).relative_to(root)
        for basename in (*folders, *filter(_is_visible, files)):
            file, name = Path(folder, basename), (inside / basename).as_posix()
            place = f"{path}: {quoted(name)}"
            with refusing(place):
                found = file.lstat()
                if stat.S_ISLNK(found.st_mode):
                    if not file.resolve().is_relative_to(root):
                        raise refusal(place, "is a link that leads outside the folder", _LEAVE_OUT)
                    found = file.stat()
            if stat.S_ISREG(found.st_mode):
                yield name, found.st_size, file.read_bytes
            elif not stat.S_ISDIR(found.st_mode):
                raise refusal(place, "is neither a file nor a folder", _LEAVE_OUT)


def _raise(error: OSError) -> None:
    raise error  # otherwise os.walk skips folders that it cannot read


def _in_archive(path: Path, stack: ExitStack) -> Iterator[_Member]:
    head = file_head(path, _KINDS)
    if is_zip(head):
        return _in_zip(path, stack.enter_context(zipfile.ZipFile(path)))
    file: IO[bytes] = stack.enter_context(path.open("rb"))
    for magic, unpacker in _UNPACKERS.items():
        if head.startswith(magic):
            content = unpacker(file).read(_MAX_UNPACKED_BYTES + 1)
            if len(content) > _MAX_UNPACKED_BYTES:
                found = (
                    f"is compressed and has over {_MAX_UNPACKED_BYTES / 2**20:.0f} MiB; expected a plain .tar"
                )
                raise refusal(path, found, "Decompress it with gunzip, bunzip2 or unxz, or unpack it.")
            file, head = BytesIO(content), content[:512]
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        raise foreign(path, head, _KINDS) from None
    return _in_tar(path, file)


def _in_zip(path: Path, archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        name = _safe_name(path, info.orig_filename)
        if info.is_dir():
            continue
        place = f"{path}: {quoted(name)}"
        check_zip_member(place, info)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise refusal(place, "is a link", _UNPACK)
        yield name, info.file_size, partial(_zip_content, archive, info)


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return _whole(member, info.file_size)


def _in_tar(path: Path, file: IO[bytes]) -> Iterator[_Member]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep 1 KB of each
            name = _safe_name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or member.size < 0:
                found = "is a link, a device or something else than a plain file"
                raise refusal(f"{path}: {quoted(name)}", found, _UNPACK)
            yield name, member.size, partial(_tar_content, file, member.offset_data, member.size)
        file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # tarfile mistakes damage for the end
        raise EOFError("the archive has no end marker")


def _tar_content(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return _whole(file, size)


def _whole(file: IO[bytes], size: int) -> bytes:
    """Exactly as many bytes as were declared, even if a compressed member would give more."""
    content = file.read(size)
    if len(content) != size:
        raise EOFError("the data ends early")
    return content


def _safe_name(path: Path, name: str) -> str:
    """The name of a member without `.` parts."""
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or ".." in slashed.split("/") or "\0" in name or re.match("[A-Za-z]:", name):
        raise refusal(path, f"has a member {quoted(name)}; expected names inside the archive", _UNPACK)
    return PurePosixPath(name).as_posix()


def _decoded(place: str, content: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError:
        raise foreign(place, content[:512], _PICTURE) from None
    except Image.DecompressionBombError:
        raise _too_large(place) from None
    if picture.width * picture.height > _MAX_PIXELS:
        raise _too_large(place)
    if picture.mode.startswith(("I", "F")):
        raise refusal(
            place, f"has more than 8 bits per channel (mode {picture.mode})", "Convert it to 8 bits."
        )
    picture.load()
    return picture


def _too_large(place: str) -> InputError:
    return refusal(place, f"has more than {_MAX_PIXELS / 1e6:.0f} megapixels", _LEAVE_OUT)


def _cropped(place: str, picture: "Image.Image", crop: _Crop) -> "Image.Image":
    """The central part; half a pixel above and left of the center if the rest is odd."""
    if crop is None:
        return picture
    height, width = (min(picture.size),) * 2 if crop == "square" else crop
    if picture.height < height or picture.width < width:
        found = (
            f"has {picture.height} x {picture.width} pixels; expected at least the crop, {height} x {width}"
        )
        raise refusal(place, found, _LEAVE_OUT)
    top, left = (picture.height - height) // 2, (picture.width - width) // 2
    return picture.crop((left, top, left + width, top + height))


def _opaque(picture: "Image.Image") -> "Image.Image":
    """The picture, on white if it is transparent."""
    from PIL import Image

    if not picture.has_transparency_data:
        return picture
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA"))
