"""Fields of a configuration that follow from the images unless they are set, such as the kind of network.

Such a field is `auto` until its run is resolved. Keys, ledgers, tables and MLflow only ever have the value that fits.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from trainables.config import C

AUTO: Final = "auto"
"""Value of a field that follows from the images."""

_FITTING: Final = "fitting"

T = TypeVar("T")


@dataclass(frozen=True)
class _Fitting(Generic[T]):
    of: Callable[[tuple[int, int, int]], T]
    usual: T


def by_image(of: Callable[[tuple[int, int, int]], T], usual: T) -> T:
    """Declare a field whose default is `auto`: what fits the images.

    Args:
        of: Returns the value that fits images (C, H, W).
        usual: Value that run keys leave out, as if it were the default.
    """
    field: T = dataclasses.field(default=cast(T, AUTO), metadata={_FITTING: _Fitting(of, usual)})
    return field


def fitted(config: C, image: tuple[int, int, int]) -> C:
    """A copy of a configuration with the values that fit images (C, H, W) in place of `auto`."""
    return _filled(config, lambda fitting: fitting.of(image))


def usual(config: C) -> C:
    """A copy of a configuration with the values that run keys leave out in place of `auto`."""
    return _filled(config, lambda fitting: fitting.usual)


def _filled(config: C, value_for: Callable[[_Fitting[Any]], Any]) -> C:
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changes[field.name] = _filled(value, value_for)
        elif value == AUTO and _FITTING in field.metadata:
            changes[field.name] = value_for(field.metadata[_FITTING])
    return dataclasses.replace(config, **changes)
