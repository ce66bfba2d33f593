"""How your own images are read: the options beside `--data`, and the one text that carries both to every worker.

`--data ./a.npz --images imgs --factors y` is kept as `/home/me/a.npz?images=imgs&factors=y` wherever a specification names its
data. The text does not identify a run: that is done by the recipe of the images, see `images.Source`. Imports no torch.
"""

import re
import shlex
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl, quote

from trainables.errors import InputError

FOLDERS = "folders"
"""What is given in place of a file of labels if the names of folders are the labels."""

OPTIONS = {
    "images": ("NAME", "the array of images in your own .npz or .h5 (default images)"),
    "factors": ("NAME", "the array of ground truth there (default factors), or an .npy file"),
    "labels": (
        "FILE",
        "ground truth of your own pictures: a table with a row each; or the word folders, if the folders that they are in are labels",
    ),
}
"""Options with a text, and what stands for it and what it means on a command line."""
GRID = "values of each factor, if your own images are all their combinations, for example 3,6,40,32,32"
LINKS = "follow links in your own folder of pictures to wherever they lead"

_YES = "yes"


@dataclass(frozen=True)
class Reading:
    """How to read a path of your own images; empty values mean what is usual.

    Attributes:
        images: Name of the array of images in an .npz or HDF5 file, `images` if it is empty.
        factors: Name of the array of ground truth, `factors` if it is empty; or the path of an .npy file.
        factor_sizes: Number of values of each factor, if the images are the grid of all their combinations, the last
            factor the fastest.
        labels: Path of a table with a row per picture, or `folders`.
        follow_links: Whether links in a folder of pictures are followed to wherever they lead.

    Raises:
        InputError: Two of them give the ground truth.
    """

    images: str = ""
    factors: str = ""
    factor_sizes: tuple[int, ...] = ()
    labels: str = ""
    follow_links: bool = False

    def __post_init__(self) -> None:
        chosen = [name for name in ("factors", "factor_sizes", "labels") if getattr(self, name)]
        if len(chosen) > 1:
            first, second = (f"--{name.replace('_', '-')}" for name in chosen[:2])
            raise InputError(f"{first} and {second} both give the ground truth.\nLeave out one of them.")

    @property
    def given(self) -> dict[str, Any]:
        """What is not as usual, by name of the attribute."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}

    @property
    def files(self) -> dict[str, str]:
        """The paths among them, by name of the attribute."""
        found = {"factors": self.factors} if self.factors.endswith(".npy") else {}
        return found | ({"labels": self.labels} if self.labels not in ("", FOLDERS) else {})

    @property
    def options(self) -> list[str]:
        """The words of a command line that say the same."""
        words = []
        for name, value in self.given.items():
            words += [f"--{_option(name)}", *([] if value is True else [_text(value)])]
        return words


def _option(name: str) -> str:
    return name.replace("_", "-")


def _text(value: bool | str | tuple[int, ...]) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return _YES if value is True else str(value)


_NAMES = {_option(field.name): field.name for field in fields(Reading)}
_QUERY = re.compile(rf"\?((?:{'|'.join(_NAMES)})=.*)\Z", re.DOTALL)


def split(data: str) -> tuple[str, Reading]:
    """The name or path in a text, and how it is to be read.

    Raises:
        InputError: An option in it is unknown or invalid.
    """
    found = _QUERY.search(data)
    if not found:
        return data, Reading()
    texts = dict(parse_qsl(found[1], keep_blank_values=True))
    if unknown := [option for option in texts if option not in _NAMES]:
        raise InputError(
            f"--data {data[:200]}: '{unknown[0][:80]}' is not an option of images.\nValid: {', '.join(_NAMES)}."
        )
    values = {_NAMES[option]: _value(option, text) for option, text in texts.items()}
    return data[: found.start()], Reading(**values)


def _value(option: str, text: str) -> Any:
    if option == "follow-links":
        return text == _YES
    return sizes(text) if option == "factor-sizes" else text


def join(place: str, reading: Reading) -> str:
    """One text for a path and how it is to be read; the path alone if that is as usual."""
    pairs = [f"{_option(name)}={quote(_text(value), safe='/,')}" for name, value in reading.given.items()]
    return f"{place}?{'&'.join(pairs)}" if pairs else place


def typed(data: str) -> str:
    """The options of a command line that stand for such a text, beginning with `--data`."""
    place, reading = split(data)
    return shlex.join(["--data", place, *reading.options])


def sizes(text: str) -> tuple[int, ...]:
    """Read the sizes of factors, such as `3,6,40,32,32`.

    Raises:
        InputError: The text is not such a list.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 0 < int(part) < 2**31 for part in parts):
        raise InputError(
            f"--factor-sizes {text[:80]}: expected numbers of values, for example --factor-sizes 3,6,40,32,32"
        )
    return tuple(map(int, parts))
