"""What `--data` means: the name of a data set, or the path of your own images with how to read them, see `reading`."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainables import contracts, plugins, reading
from trainables.errors import InputError, UnknownNameError, reason
from trainables.reading import Reading

if TYPE_CHECKING:  # the driver uses `is_path` without torch
    from trainables.images import Source


def is_path(data: str) -> bool:
    """Whether this is a path and not a name: it has a slash, a dot or a tilde, which no name has."""
    place, _ = reading.split(data)
    return re.search(r"[/.~\\]", place) is not None


def with_reading(data: str | None, how: Reading) -> str | None:
    """The data with how to read it as one text, with absolute paths; options that are given override those in the text.

    Raises:
        InputError: There is no path that could be read in this way, or a file is missing.
    """
    if not how.options:
        return data
    if data is None:
        raise InputError(
            f"{how.options[0]} needs images of your own.\nAdd their path, for example --data ./images.npz"
        )
    check(data)
    if not is_path(data):
        raise InputError(
            f"{how.options[0]} is for images of your own; {data} is a data set with a fixed content.\nLeave it out."
        )
    place, before = reading.split(data)
    return absolute(reading.join(place, replace(before, **how.given)))


def absolute(data: str) -> str:
    """The data as workers find it: paths become absolute.

    Raises:
        InputError: No such data set, file or folder.
    """
    data = named(data)
    if not is_path(data):
        return data
    place, how = reading.split(data)
    path = _existing("--data", place, "Name a data set, or the path of your own images.")
    files = {name: str(_existing(f"--{name}", file, _near(path, file))) for name, file in how.files.items()}
    return reading.join(str(path), replace(how, **files))  # type: ignore[arg-type]


def _existing(option: str, text: str, remedy: str) -> Path:
    path = path_of(text, option)
    if not path.exists():
        raise InputError(f"{option} {text}: no such file or folder.\n{remedy}")
    return path


def _near(images: Path, file: str) -> str:
    """What to do about a file that is missing."""
    inside = images / file
    return f"For the one beside the pictures give {inside}" if inside.is_file() else "Check the path."


def path_of(text: str, option: str = "--data") -> Path:
    """The absolute path that an option gives.

    Raises:
        InputError: The path is invalid.
    """
    try:
        path = Path(text).expanduser().absolute()
        path.exists()  # raises if the system rejects the name, for example as too long
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{option} {text[:200]}: {reason(error)}.\nUse a file or folder that you can read."
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


def named(data: str, how: Reading | None = None) -> str:
    """What a user named as its reference: a name, or the path of images, or of a data set's Python file, which is added.

    Args:
        data: What was named.
        how: How to read images of one's own.

    Raises:
        InputError: No such data set, an address on a network, a Python file that is no data set, or images that cannot be
            read in this way.
    """
    if data.endswith(".py"):
        data = plugins.named(data, contracts.DATA)
    check(data)
    data = plugins.reference(contracts.DATA, data)
    return with_reading(data, how or Reading()) or data


def find(data: str) -> Source:
    """The data set of a name, or your own images at a path; files are checked and converted now.

    Raises:
        InputError: No such data set, or its files are missing or invalid.
    """
    check(data)
    if is_path(data):
        from trainables.data.readers import custom

        place, how = reading.split(data)
        return custom.find(path_of(place), how)
    source: Source = contracts.data_set(data).find()
    own = plugins.file_of(plugins.reference(contracts.DATA, data))
    return replace(source, recipe=f"{source.recipe} ({plugins.short(own.reference)})") if own else source
