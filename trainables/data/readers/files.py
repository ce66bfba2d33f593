"""Helpers for readers of user files: identify a file, and refuse it by name.

Imports no torch.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from trainables.errors import InputError

RENEW = "Check the path, or download it again."


def state(paths: Iterable[Path]) -> str:
    """A digest that changes when files change: of their names, sizes, times and inode numbers."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(os.fsencode(path) + f" {facts}\n".encode())
    return digest.hexdigest()


def is_there(path: Path) -> bool:
    """Whether something exists at a path, including a dangling link, which is later refused by name."""
    return os.path.lexists(path)


def file_head(path: Path, expected: str) -> bytes:
    """The first 512 bytes of a file.

    Raises:
        InputError: It is missing, empty, unreadable, a folder or not a regular file.
    """
    with refusing(path, "Check its permissions."):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(512)
            if head:
                return head
            found = "empty"
        else:
            found = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "missing"
    raise refusal(path, f"is {found}; expected {expected}", RENEW)


def is_zip(head: bytes) -> bool:
    """Whether a file with this head is a zip archive, possibly an empty one."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def foreign(place: Path | str, head: bytes, expected: str) -> InputError:
    """The error for bytes of no valid kind; recognizes web pages and text."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:40].partition(b"\n")[0].rstrip()
    found, remedy = f"{head[:8]!r}", RENEW
    if line and line.isascii() and line.decode().isprintable():
        found = f"{line.decode()!r}"
        kind = "A web page" if line.startswith(b"<") else "Text"
        remedy = f"{kind} was saved instead of the data. Download it again."
    return refusal(place, f"begins with {found}; expected {expected}", remedy)


def check_zip_member(place: str, info: zipfile.ZipInfo) -> None:
    """Refuse a member that is encrypted or has an unsupported compression.

    Raises:
        InputError: The member is refused.
    """
    if info.flag_bits & 1:
        raise refusal(place, "is encrypted", "Unpack it, then pack it again without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = f"is compressed with zip method {info.compress_type}; expected none or deflate"
        raise refusal(place, found, "Unpack it, then pack it again.")


@contextmanager
def refusing(
    place: Path | str, remedy: str = "It is truncated or damaged: download or copy it again."
) -> Iterator[None]:
    """Turn any exception of a reader into an `InputError` that names the file.

    Only for calls into parsing libraries: they may raise almost anything for forged or damaged bytes.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
        raise refusal(place, f"cannot be read ({text})", remedy) from error


def refusal(place: Path | str, found: str, remedy: str) -> InputError:
    """An error that says what was found in a file, what was expected, and what to do."""
    return InputError(f"{place} {found[:1000]}.\n{remedy}")


def quoted(name: str) -> str:
    """A name from a file, made fit for a terminal: escaped and shortened."""
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


def listed(names: Iterable[str]) -> str:
    """The first ten names, or `nothing`."""
    some = [quoted(name) for name in islice(names, 11)]
    return ", ".join([*some[:10], *(["..."] if len(some) > 10 else [])]) or "nothing"
