"""Plug-in packages: each module is an entry; what entries share is in sub-packages.

An entry's file name is its name everywhere: command line, configuration, ledger, CSV. Listing only reads the folder
and imports nothing, so it needs no torch.
"""

import importlib
import pkgutil
from types import ModuleType

from trainables.errors import UnknownNameError


def names(package: str) -> list[str]:
    """Names of the entries of a package such as `trainables.models`, sorted."""
    paths = importlib.import_module(package).__path__
    return sorted(module.name for module in pkgutil.iter_modules(paths) if not module.ispkg)


def check(package: str, name: str, kind: str) -> None:
    """Check that a package has an entry of this name, without importing it.

    Raises:
        UnknownNameError: The package has no such entry.
    """
    if name not in names(package):
        raise UnknownNameError(kind, name, names(package))


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import an entry.

    Raises:
        UnknownNameError: The package has no such entry.
    """
    check(package, name, kind)
    return importlib.import_module(f"{package}.{name}")
