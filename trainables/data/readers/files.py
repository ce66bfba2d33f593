"""What every reader of a user's file needs: what the file is, and how to refuse it by name.

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
    """A digest that changes when files do: of their names, sizes, times and numbers."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        facts = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        digest.update(os.fsencode(path) + f" {facts}\n".encode())
    return digest.hexdigest()


def is_there(path: Path) -> bool:
    """Whether there is something at a path, be it a link that leads nowhere, which is then refused by name."""
    return os.path.lexists(path)


def file_head(path: Path, expected: str) -> bytes:
    """The first 512 bytes of a file.

    Raises:
        InputError: It is missing, a folder or another thing than a file, empty, or may not be read.
    """
    with refusing(path, "Check who may read it."):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(512)
            if head:
                return head
            found = "empty"
        else:
            found = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "not there"
    raise refusal(path, f"is {found}; expected {expected}", RENEW)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip archive, be it one without members."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def foreign(place: Path | str, head: bytes, expected: str) -> InputError:
    """What to say of bytes that begin as no valid kind does; a web page or text is called so."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:40].partition(b"\n")[0].rstrip()
    found, remedy = f"{head[:8]!r}", RENEW
    if line and line.isascii() and line.decode().isprintable():
        found = f"{line.decode()!r}"
        kind = "A web page" if line.startswith(b"<") else "Text"
        remedy = f"{kind} was saved instead of the data. Download again."
    return refusal(place, f"begins with {found}; expected {expected}", remedy)


def check_zip_member(place: str, info: zipfile.ZipInfo) -> None:
    """Refuse a member that is encrypted or compressed in a rare way.

    Raises:
        InputError: It is.
    """
    if info.flag_bits & 1:
        raise refusal(place, "is encrypted", "Unpack it, and pack it without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        found = f"is compressed by zip method {info.compress_type}; expected none or deflate"
        raise refusal(place, found, "Unpack it, and pack it again.")


@contextmanager
def refusing(
    place: Path | str, remedy: str = "It is truncated or damaged: download or copy it again."
) -> Iterator[None]:
    """Turn what a reader raises into an `InputError` that names the place.

    Only for calls of libraries that parse: of forged or damaged bytes they raise almost anything.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")
        raise refusal(place, f"cannot be read ({text})", remedy) from error


def refusal(place: Path | str, found: str, remedy: str) -> InputError:
    """The error that says what was found at a place, what was expected, and what to do."""
    return InputError(f"{place} {found[:1000]}.\n{remedy}")


def quoted(name: str) -> str:
    """A name out of a file, fit for a terminal: escaped and not long."""
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


def listed(names: Iterable[str]) -> str:
    """The first ten names, or `nothing`."""
    some = [quoted(name) for name in islice(names, 11)]
    return ", ".join([*some[:10], *(["..."] if len(some) > 10 else [])]) or "nothing"
