"""What `--data` means: the name of a data set, or the path of your own images."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import contracts, plugins
from trainables.errors import InputError, UnknownNameError, reason

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
        raise InputError(
            f"--data {data[:200]}: {reason(error)}.\nUse a file or folder that you can read."
        ) from None
    return path


def check(data: str) -> None:
    """Check the name of a data set, or accept any path, without importing or opening anything.

    Raises:
        InputError: No such data set, or an address on a network.
    """
    if address := re.match(r"([A-Za-z][\w+.-]+)://", data):
        remedy = "Leave out file://." if address[1] == "file" else "Download it first, then give its path."
        raise InputError(f"{data[:200]} is an address; expected a path on this machine.\n{remedy}")
    if not is_path(data) and data not in contracts.data_set_names():
        remedy = "For your own images give a path, for example ./pictures or ./images.npz."
        with suppress(OSError, ValueError):  # the system may reject the name, for example as too long
            if data and Path(data).exists():
                kind = "folder" if Path(data).is_dir() else "file"
                remedy = f"For the {kind} of that name write ./{data}."
        raise UnknownNameError("data set", data, contracts.data_set_names(), remedy)


def named(data: str) -> str:
    """What a user named as its reference: a name, or the path of images, or of a data set's Python file, which is added.

    Raises:
        InputError: No such data set, an address on a network, or a Python file that is no data set.
    """
    if data.endswith(".py"):
        data = plugins.add_path(Path(data), contracts.DATA)
    check(data)
    return plugins.reference(contracts.DATA, data)


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
    own = plugins.file_of(plugins.reference(contracts.DATA, data))
    return replace(source, recipe=f"{source.recipe} ({plugins.short(own.reference)})") if own else source
