"""What `--data` means: the name of a data set, or the path of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import plugins
from trainables.errors import InputError, UnknownNameError

if TYPE_CHECKING:  # a driver asks what is a path, and has no torch
    from trainables.images import Source

PACKAGE = "trainables.data"


def is_path(data: str) -> bool:
    """Whether this is a path, and no name: it has a slash, a dot or a tilde, which no name has."""
    return re.search(r"[/.~\\]", data) is not None


def path_of(data: str) -> Path:
    """The absolute path that is meant.

    Raises:
        InputError: No path can be so.
    """
    try:
        path = Path(data).expanduser().absolute()
        path.exists()  # asks the system, which knows what is too long a name
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--data {data[:200]}: {error}.\nName a file or folder that you may read.") from None
    return path


def check(data: str) -> None:
    """Accept the name of a data set, or any path, without importing or opening anything.

    Raises:
        UnknownNameError: No such data set.
    """
    if not is_path(data) and data not in plugins.names(PACKAGE):
        remedy = "A set of your own is named by its path, for example ./pictures or ./images.npz."
        raise UnknownNameError("data set", data, plugins.names(PACKAGE), remedy)


def find(data: str) -> Source:
    """A data set by name, or one's own by path; files that it is made from are checked and converted now.

    Raises:
        InputError: No such data set, or its files are not what they should be.
    """
    check(data)
    if is_path(data):
        from trainables.data.readers import custom

        return custom.find(path_of(data))
    source: Source = plugins.load(PACKAGE, data, "data set").find()
    return source
