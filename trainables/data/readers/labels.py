"""Ground truth of pictures: a table with a row per picture, or the names of the folders that they are in.

Shape suffixes: N pictures, K factors.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from trainables.data.readers.factors import MAX_FACTORS, Factors
from trainables.data.readers.files import listed, quoted, refusal, refusing
from trainables.reading import FOLDERS

_DELIMITERS = ",;\t"
_MAX_NAME = 60
_MAX_NAMED = 10


def of_folders(path: Path, names: Sequence[str]) -> tuple[Factors, tuple[str, ...]]:
    """The factors of pictures by their folders, and what a person should know of them.

    There is a factor for each level of folders; its values are their names, in the order of the alphabet.

    Args:
        path: The folder or archive, for errors.
        names: Paths of the pictures in it.

    Raises:
        InputError: A picture is in no folder, or they are not equally deep.
    """
    parts = [PurePosixPath(name).parent.parts for name in names]
    shallow = min(range(len(names)), key=lambda index: len(parts[index]))
    deep = max(range(len(names)), key=lambda index: len(parts[index]))
    if not parts[shallow]:
        raise refusal(
            path,
            f"has a picture {quoted(names[shallow])} in no folder; expected each in the folder of its label",
            "Move it into one, or leave out --labels folders.",
        )
    if len(parts[shallow]) != len(parts[deep]):
        found = (
            f"has pictures at several depths, for example {quoted(names[shallow])} and {quoted(names[deep])}"
        )
        raise refusal(
            path, found, "Put all at one depth: a level of folders is a factor, each folder a value."
        )
    columns = [_numbers(path, list(column)) for column in zip(*parts, strict=True)]
    factors = Factors(path, np.stack(columns, axis=1), tuple(f"folder_{k}" for k in range(len(columns))))
    return factors, (_summary(factors),)


def of_table(file: Path, path: Path, names: Sequence[str]) -> tuple[Factors, tuple[str, ...]]:
    """The factors that a table has for pictures, and what a person should know of them.

    A table has a line of names of columns, then a line per picture: its name, then the values, separated by commas,
    semicolons, tabs or spaces. The first line may be the number of pictures, and the names of columns may lack the one of
    the first column, as in CelebA's lists.

    Args:
        file: The table.
        path: The folder or archive of pictures, for errors.
        names: Paths of the pictures in it.

    Raises:
        InputError: The table is invalid, or has no row for a picture.
    """
    with (
        refusing(file, "Give a table as text in UTF-8."),
        file.open(encoding="utf-8-sig", newline="") as lines,
    ):
        header, rows = _parsed(file, lines)
    by_name: Mapping[str, Sequence[str]] = _by_name(file, rows)
    if not any(name in by_name for name in names):  # names without folders, or with others
        names, by_name = _without_folders(names, by_name)
    lacking = [name for name in names if name not in by_name]
    if len(lacking) == len(names):
        found = f"has {quoted(rows[0][0])} in its first column; expected names such as {quoted(names[0])}"
        raise refusal(file, found, "Put the column with the names of the pictures first.")
    if lacking:
        found = f"has no row for {len(lacking):,} of {len(names):,} pictures: {listed(lacking[:3])}"
        raise refusal(
            file, found, "Add rows after a line of names such as file,shape,color, or remove these pictures."
        )
    values = [by_name[name] for name in names]
    columns = [_numbers(file, [row[k] for row in values], header[k]) for k in range(len(header))]
    factors = Factors(file, np.stack(columns, axis=1), header)
    if unused := len(by_name) - len(names):
        unread = f"{file}: {unused:,} rows of pictures that are not in {path} are not used."
        return factors, (_summary(factors), unread)
    return factors, (_summary(factors),)


def suggestion(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """A note if pictures are in several folders, whose names could be labels."""
    folders = sorted({PurePosixPath(name).parent.as_posix() for name in names})
    if len(folders) < 2 or folders[0] == ".":
        return ()
    some = listed(folders[:3]) + (", ..." if len(folders) > 3 else "")
    return (f"{path}: {len(folders):,} folders: {some}. If they are labels, add --labels {FOLDERS}",)


def _summary(factors: Factors) -> str:
    """A note with the factors and how many values each has."""
    columns = list(zip(factors.names, factors.values_NK.T, strict=True))
    some = [f"{name} {len(np.unique(values_N))}" for name, values_N in columns[:_MAX_NAMED]]
    more = ", ..." if len(columns) > _MAX_NAMED else ""
    kinds = f"{len(columns)} factor{'s' * (len(columns) != 1)}"
    return f"{factors.place}: {kinds} of {len(factors.values_NK):,} pictures, with how many values: {', '.join(some)}{more}."


def _parsed(file: Path, lines: Iterator[str]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of the factors, and rows with the name of a picture first."""
    first = next(lines, "")
    if re.fullmatch(r"\d+", first.strip()):
        first = next(lines, "")
    delimiter = next((mark for mark in _DELIMITERS if mark in first), " ")
    header = _cells(first, delimiter)
    rows = [cells for line in _records(lines, delimiter) if (cells := [cell.strip() for cell in line])]
    if not rows or not header:
        raise refusal(
            file, "has no rows; expected a line of names, then a line per picture", "Check the path."
        )
    width = len(rows[0])
    named = header if len(header) == width - 1 else header[1:]
    if len(named) != width - 1 or not named:
        found = f"has {len(header)} names in its first line and {width} values in the next"
        raise refusal(file, found, "Begin it with a line of names: file,shape,color")
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            found = f"has {len(row)} value{'s' * (len(row) != 1)} in row {number} ({quoted(row[0])}); expected {width}"
            raise refusal(file, found, "Give each picture a value of every factor.")
    if len(named) > MAX_FACTORS:
        raise refusal(file, f"has {len(named)} factors; expected at most {MAX_FACTORS}", "Leave out some.")
    return _plain(file, named), rows


def _records(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    if delimiter == " ":
        return (line.split() for line in lines)
    return csv.reader(lines, delimiter=delimiter)


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(_records(iter([line]), delimiter), [])]


def _plain(file: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names that can be part of a metric's name."""
    plain = tuple(re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:_MAX_NAME].strip("_") for name in names)
    if "" in plain or len(set(plain)) < len(plain):
        raise refusal(
            file,
            f"has columns {listed(names)}; expected names that differ",
            "Rename them in letters and digits.",
        )
    return plain


def _by_name(file: Path, rows: Sequence[Sequence[str]]) -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = {}
    for name, *values in rows:
        plain = PurePosixPath(name.replace("\\", "/")).as_posix()
        if plain in found:
            raise refusal(file, f"has two rows for {quoted(plain)}; expected one", "Remove one of them.")
        found[plain] = values
    return found


def _without_folders(
    names: Sequence[str], by_name: Mapping[str, Sequence[str]]
) -> tuple[Sequence[str], Mapping[str, Sequence[str]]]:
    """Names of pictures and rows by the last part of each, unless two would be the same."""
    last = [PurePosixPath(name).name for name in names]
    by_last = {PurePosixPath(name).name: values for name, values in by_name.items()}
    is_unique = len(set(last)) == len(last) and len(by_last) == len(by_name)
    return (last, by_last) if is_unique else (names, by_name)


def _numbers(place: Path, texts: Sequence[str], name: str = "") -> np.ndarray:
    """Values as numbers, or if one is no number, all as the positions of texts in the order of the alphabet."""
    if "" in texts:
        raise refusal(place, f"has no value of {quoted(name)} in some rows", "Give every picture a value.")
    try:
        return np.array(texts, dtype=np.float64) if name else _positions(texts)
    except ValueError:
        return _positions(texts)


def _positions(texts: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(texts), return_inverse=True)[1].astype(np.float64)
