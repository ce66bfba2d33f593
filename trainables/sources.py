"""What `--data` means: the name of a data set, or the path of your own images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import contracts
from trainables.errors import InputError, UnknownNameError

if TYPE_CHECKING:  # the driver uses `is_path` without torch
    from trainables.images import Source


def is_path(data: str) -> bool:
    """Whether this is a path and not a name: it has a slash, a dot or a tilde, which no name has."""
    return re.search(r"[/.~\\]", data) is not None


def path_of(data: str) -> Path:
    """The absolute path of the data.

    Raises:
        InputError: The path is invalid.
    """
    try:
        path = Path(data).expanduser().absolute()
        path.exists()  # raises if the system rejects the name, for example as too long
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--data {data[:200]}: {error}.\nUse a file or folder that you can read.") from None
    return path


def check(data: str) -> None:
    """Check the name of a data set, or accept any path, without importing or opening anything.

    Raises:
        UnknownNameError: No such data set.
    """
    if not is_path(data) and data not in contracts.data_set_names():
        remedy = "For your own images give a path, for example ./pictures or ./images.npz."
        raise UnknownNameError("data set", data, contracts.data_set_names(), remedy)


def find(data: str) -> Source:
    """The data set of a name, or your own images at a path; files are checked and converted now.

    Raises:
        InputError: No such data set, or its files are missing or invalid.
    """
    check(data)
    if is_path(data):
        from trainables.data.readers import custom

        return custom.find(path_of(data))
    source: Source = contracts.data_set(data).find()
    return source
