"""Files in a user's folder, .zip or .tar, one by one; what leads elsewhere is refused by name.

Nothing is ever unpacked to the disk. Imports no torch.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any

from trainables.data.readers.files import (
    LEAVE_OUT,
    UNPACK,
    check_zip_member,
    file_head,
    foreign,
    is_zip,
    quoted,
    refusal,
    refusing,
)

_MAX_UNPACKED_BYTES = 256 * 2**20
"""Largest size of a compressed tar: it is unpacked in memory, since reading it out of order is too slow."""

FOLLOW = "Remove it, or for images of your own add --follow-links to read what it leads to."

_UNPACKERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}

Member = tuple[str, int, Callable[[], bytes]]
"""Name, declared size in bytes, and a function that reads it."""


def members(path: Path, stack: ExitStack, kinds: str, is_following: bool = False) -> Iterator[Member]:
    """The files below a folder or in an archive, in any order; they can be read until the stack is closed.

    Hidden files and folders of a folder are skipped, and a link to a folder is not entered unless links are followed.

    Args:
        path: A folder, a .zip, a .tar, or a .tar of at most 256 MiB under gzip, bzip2 or xz, whatever its suffix.
        stack: Keeps the archive open.
        kinds: What is expected at the path, for errors.
        is_following: Whether links in a folder may lead out of it.

    Raises:
        InputError: It is missing, damaged or of another kind, or one of the files has a name or a link that leads
            elsewhere, is a device or is encrypted.
    """
    return _in_folder(path, is_following) if path.is_dir() else _in_archive(path, stack, kinds)


def is_visible(part: str) -> bool:
    """Whether a folder or file of this name is neither hidden nor made by macOS."""
    return not part.startswith(".") and part != "__MACOSX"


def _in_folder(path: Path, is_following: bool) -> Iterator[Member]:
    root = path.resolve()
    for folder, folders, files in os.walk(root, onerror=_raise, followlinks=is_following):
        folders[:] = filter(is_visible, folders)
        inside = Path(folder).relative_to(root)
        for basename in (*folders, *filter(is_visible, files)):
            file, name = Path(folder, basename), (inside / basename).as_posix()
            place = f"{path}: {quoted(name)}"
            with refusing(place):
                found = file.lstat()
                if stat.S_ISLNK(found.st_mode):
                    if not is_following and not file.resolve().is_relative_to(root):
                        raise refusal(place, "is a link that leads outside the folder", FOLLOW)
                    found = file.stat()
                    if is_following and stat.S_ISDIR(found.st_mode) and _is_above(found, file):
                        raise refusal(place, "is a link to a folder that it is in", LEAVE_OUT)
            if stat.S_ISREG(found.st_mode):
                yield name, found.st_size, file.read_bytes
            elif not stat.S_ISDIR(found.st_mode):
                raise refusal(place, "is neither a file nor a folder", LEAVE_OUT)


def _is_above(found: os.stat_result, file: Path) -> bool:
    return any(os.path.samestat(found, folder.stat()) for folder in file.parents)


def _raise(error: OSError) -> None:
    raise error  # otherwise os.walk skips folders that it cannot read


def _in_archive(path: Path, stack: ExitStack, kinds: str) -> Iterator[Member]:
    head = file_head(path, kinds)
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
        raise foreign(path, head, kinds) from None
    return _in_tar(path, file)


def _in_zip(path: Path, archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        name = _safe_name(path, info.orig_filename)
        if info.is_dir():
            continue
        place = f"{path}: {quoted(name)}"
        check_zip_member(place, info)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise refusal(place, "is a link", UNPACK)
        yield name, info.file_size, partial(_zip_content, archive, info)


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as member:
        return _whole(member, info.file_size)


def _in_tar(path: Path, file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep 1 KB of each
            name = _safe_name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or member.size < 0:
                found = "is a link, a device or something else than a plain file"
                raise refusal(f"{path}: {quoted(name)}", found, UNPACK)
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
        raise refusal(path, f"has a member {quoted(name)}; expected names inside the archive", UNPACK)
    return PurePosixPath(name).as_posix()
