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

from trainables.errors import InputError, reason

RENEW = "Check the path, or download it again."
UNPACK = "Unpack it and give the path of the folder."
LEAVE_OUT = "Remove it or replace it."

_KINDS = {
    **dict.fromkeys((".h5", ".hdf5"), "an HDF5 file"),
    **{suffix: f"a {suffix} archive" for suffix in (".zip", ".tar")},
    ".npz": "an .npz file",
}
"""What a file should be by its name."""

_UNREAD_ARCHIVES = (".rar", ".7z")
_KNOWN: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"Rar!",), "a .rar archive", UNPACK),
    ((b"7z\xbc\xaf",), "a .7z archive", UNPACK),
    ((b"GIF8",), "a GIF picture", "Convert it to PNG."),
    ((b"II*\0", b"MM\0*"), "a TIFF picture", "Convert it to PNG."),
)
"""Kinds of files that are recognized only to be refused: how they begin, what they are, what to do."""


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


def foreign(place: Path | str, head: bytes, expected: str, remedy: str = "") -> InputError:
    """The error for bytes of no valid kind; recognizes what is often mistaken for data."""
    suffix = Path(place).suffix.lower()
    if not head:
        return refusal(place, f"is empty; expected {expected}", remedy or RENEW)
    if head.startswith(b"version https://git-lfs"):
        return refusal(place, "is a pointer of Git LFS, not the data", "Fetch the data: git lfs pull")
    if isinstance(place, Path) and head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        return refusal(place, f"is a single picture; expected {expected}", "Give the folder that it is in.")
    for magics, known, known_remedy in _KNOWN:
        if head.startswith(magics):
            return refusal(place, f"is {known}; expected {expected}", known_remedy)
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:40].partition(b"\n")[0].rstrip()
    if line and line.isascii() and line.decode().isprintable():
        if line.startswith(b"<"):
            remedy = "A web page was saved instead of the data. Download it again."
        elif suffix in _KINDS:
            remedy = "Text was saved instead of the data. Download it again."
        found = f"begins with {line.decode()!r}; expected {expected}"
        return refusal(place, found, remedy or "Check the path.")
    usual = UNPACK if suffix in _UNREAD_ARCHIVES else RENEW
    return refusal(place, f"is not {_KINDS.get(suffix, expected)}", remedy or usual)


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
def refusing(place: Path | str, remedy: str = "") -> Iterator[None]:
    """Turn any exception of a reader into an `InputError` that names the file.

    Only for calls into parsing libraries: they may raise almost anything for forged or damaged bytes.

    Args:
        place: The file, and where in it.
        remedy: What to do, in place of what usually helps.
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        found = "does not fit into the memory of this machine"
        raise refusal(place, found, remedy or "Use a smaller file.") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # of the system; those of parsers have no number
            usual = "Check its permissions and its disk, or remove it."
            raise refusal(place, f"cannot be read ({os.strerror(error.errno)})", remedy or usual) from error
        found = f"is truncated or damaged ({reason(error)})".replace(" ()", "")
        raise refusal(place, found, remedy or "Download or copy it again.") from error


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
