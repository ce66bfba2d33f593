"""Durable files: complete and on the disk, or absent.

A record is a JSON object that ends with the sha256 of its own bytes, so that any flipped bit is detected.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from errno import EMLINK, ENOSYS, ENOTSUP, EPERM
from pathlib import Path
from types import TracebackType
from typing import Any

from trainables.config import canonical_json


class DamagedBlockError(Exception):
    """A file of the storage is missing or differs from what was written; the text names it."""


class ConflictError(Exception):
    """A block contradicts what is committed; nothing of it was ingested."""


def write_record(path: Path, body: Mapping[str, Any], *, is_contended: bool = False) -> None:
    """Write a record and rename it into place; it is on the disk on return.

    Args:
        path: Where to.
        body: What the record holds.
        is_contended: Whether several processes may write it at the same time; the last one counts.

    Raises:
        OSError: The disk is full or failing; a previous file at the path is unchanged.
    """
    own = f".{secrets.token_hex(4)}" if is_contended else ""
    partial = path.with_name(f"{path.name}{own}.partial")
    try:
        write_file(partial, _sealed(body))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def create_record(path: Path, body: Mapping[str, Any]) -> bool:
    """Write a record unless there is one; return whether this process wrote it. Of several that try, one succeeds.

    Where the file system has no hard links, a process that dies meanwhile may leave half a record, which is reported as damaged.

    Raises:
        OSError: The disk is full or failing.
    """
    parts = _sealed(body)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        write_file(partial, parts)
        try:
            os.link(partial, path)  # the name appears with all of its content, or there is one already
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with path.open("xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


_NO_LINKS = (EPERM, ENOTSUP, ENOSYS, EMLINK)
"""Errors of a file system without hard links."""


def read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Read and verify a record.

    Returns:
        What was written, and its sha256.

    Raises:
        DamagedBlockError: It is missing or changed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedBlockError(f"{path} is missing.") from None
    text, seal = data[:-_SEAL_LENGTH] + b"}", data[-_SEAL_LENGTH:]
    if seal != _seal(text):
        raise DamagedBlockError(f"{path} is damaged: its content does not match its sha256.")
    return json.loads(text), hashlib.sha256(text).hexdigest()


class Appender:
    """A new file, written part by part: complete and on the disk after `with`; for its name see `sync_folder`.

    Raises:
        OSError: The disk is full or failing.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._length = path, path.open("wb"), 0

    def append(self, part: bytes) -> int:
        """Write a part and return its offset in bytes."""
        offset = self._length
        self._length += self._file.write(part)
        return offset

    def __enter__(self) -> "Appender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file as file:
            if error is not None:
                return
            file.flush()
            os.fsync(file.fileno())
            found = os.fstat(file.fileno()).st_size
        if found != self._length:
            raise OSError(f"{self._path}: wrote {self._length} bytes, found {found} on the disk.")


def write_file(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that is complete and on the disk on return; for its name see `sync_folder`.

    Raises:
        OSError: The disk is full or failing.
    """
    with Appender(path) as file:
        for part in parts:
            file.append(part)


def replace_file(path: Path, content: bytes) -> Path:
    """Write a file that is either complete or unchanged, and create its folder.

    Raises:
        OSError: The disk is full or failing.
    """
    make_folder(path.parent)
    partial = path.with_name(f"{path.name}.partial")
    try:
        write_file(partial, [content])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)
    return path


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, all on the disk on return."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def file_in_the_way(folder: Path) -> Path | None:
    """The file that is where this folder or one above it should be; None if there is none."""
    return next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sealed(body: Mapping[str, Any]) -> list[bytes]:
    """The bytes of a record, in parts."""
    text = canonical_json(body).encode()
    return [text[:-1], _seal(text)]


def _seal(text: bytes) -> bytes:
    return b',"sha256":"' + hashlib.sha256(text).hexdigest().encode() + b'"}\n'


_SEAL_LENGTH = len(_seal(b""))
