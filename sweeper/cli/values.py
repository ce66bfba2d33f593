"""Types of the values of options; an error names the option or variable that gave the value, and what is expected."""

import math
import os
from pathlib import Path
from typing import Any

import click

from trainables import plugin_files, plugins
from trainables.errors import InputError

MAX_GPUS = 10_000


def source(parameter: click.Parameter, context: click.Context | None = None) -> str:
    """Return the option that was typed, or the environment variable that gave its value."""
    context = context or click.get_current_context()
    found = context.get_parameter_source(parameter.name or "")
    if found != click.core.ParameterSource.ENVIRONMENT:
        return str(parameter.opts[0])
    names = [parameter.envvar] if isinstance(parameter.envvar, str) else parameter.envvar or ()
    return next(name for name in names if os.environ.get(name))


def given(parameter: click.Parameter, value: object, context: click.Context | None = None) -> str:
    """Return an option and its value as they were given: `--home x`, or `SWEEPER_HOME=x`."""
    name = source(parameter, context)
    return f"{name} {value or repr(value)}" if name.startswith("-") else f"{name}={value}"


class PluginName(click.ParamType[str]):
    """The name of a plug-in, or the path of its file, which is added to this process.

    Args:
        package: The package whose entries are of its kind.
    """

    def __init__(self, package: str) -> None:
        self.name, self._package = plugin_files.SIGNS[package][0], package

    def convert(self, value: Any, _: click.Parameter | None, __: click.Context | None) -> str:
        """Return the name."""
        return plugins.named(value, self._package)


class Number(click.ParamType[float]):
    """A number in a range, whole if the ends are.

    Args:
        low: Smallest value.
        high: Largest value.
        example: A value that makes sense.
        unit: What it counts, plural; empty if the name of the option says it.
    """

    def __init__(self, low: float, high: float, example: float, unit: str = "") -> None:
        self._unit = unit
        self._low, self._high, self._example = low, high, example
        self._read: type[int] | type[float] = int if isinstance(low, int) else float
        self.name = "integer" if self._read is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number."""
        assert param
        try:
            number = self._read(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not self._low <= number <= self._high:
            kind = "a whole number" if self._read is int else "a number"
            raise InputError(
                f"{given(param, value, ctx)}: expected {kind}{f' of {self._unit}' * bool(self._unit)} from {self._low:,.0f} to {self._high:,.0f},"
                f" for example {self._example:g}."
            )
        return number


class Share(click.ParamType[float | None]):
    """A share of a GPU, or `auto`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Parse a share; None means `auto`."""
        assert param
        if value is None or str(value).lower() == "auto":
            return None
        try:
            return float(value)
        except ValueError:
            valid = "auto, 0 (CPU), 1, 0.5, 0.333, 0.25 ..."
            raise InputError(f"{given(param, value, ctx)}: not a share of a GPU.\nValid: {valid}") from None


class Gpus(click.ParamType[tuple[str, int]]):
    """A number of GPUs with their kind, if it is given: `4`, or `L4:4`."""

    name = "gpus"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the kind, empty if none is given, and the number."""
        assert param
        if isinstance(value, tuple):
            return value
        kind, _, number = str(value).rpartition(":")
        if not number.isdecimal() or int(number[:9]) > MAX_GPUS or kind != kind.strip():
            raise InputError(
                f"{given(param, value, ctx)}: expected a number of GPUs up to {MAX_GPUS:,}, with or without their kind,"
                " for example 4 or L4:4."
            )
        return kind, int(number)


class PathOf(click.ParamType[Path]):
    """The path of a file, or of a folder, which need not exist.

    Args:
        kind: What may be there.
    """

    name = "path"

    def __init__(self, kind: str) -> None:
        assert kind in ("file", "folder")
        self._kind = kind
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Parse a path; an empty one, which would mean the working folder, is refused."""
        assert param
        if not str(value):
            raise InputError(f"{given(param, value, ctx)}: the path is empty.\nName a {self._kind}.")
        try:
            path = Path(value).expanduser()
        except RuntimeError:
            raise InputError(f"{given(param, value, ctx)}: no such user.\nName a {self._kind}.") from None
        try:
            is_file, is_folder = path.is_file(), path.is_dir()
        except OSError:  # for example a folder that may not be entered; checked by whoever opens it
            return path
        if is_file and self._kind == "folder":
            raise InputError(f"{given(param, value, ctx)}: is a file; expected a folder.")
        if is_folder and self._kind == "file":
            raise InputError(f"{given(param, value, ctx)}: is a folder; expected a file.")
        return path


FILE, FOLDER = PathOf("file"), PathOf("folder")
