"""Plug-ins: entries of packages, one module each, and files of your own.

An entry's name is that of its file everywhere: command line, configuration, ledger, CSV. A file of your own is added to
this process by its path, after which its name is known like any other; where its content matters, a reference
`name@sha256` stands for it. Listing only reads the folder and imports nothing, so it needs no torch.
"""

import importlib
import os
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from trainables import plugin_files
from trainables.errors import InputError, UnknownNameError
from trainables.plugin_files import SIGNS, PluginFile

FOLDERS = "SWEEPER_PLUGINS"
"""Environment variable: folders with files of your own, or files, separated like those of PATH."""

_by_path: dict[Path, PluginFile] = {}
_by_reference: dict[str, PluginFile] = {}
_current: dict[tuple[str, str], str] = {}
"""By package and name: the reference of the file that the name stands for."""


def names(package: str) -> list[str]:
    """Names of the entries of a package such as `trainables.models`, and of your own files of its kind, sorted."""
    return sorted({*_built_in(package), *(name for kind, name in _current if kind == package)})


def _built_in(package: str) -> list[str]:
    paths = importlib.import_module(package).__path__
    return [module.name for module in pkgutil.iter_modules(paths) if not module.ispkg]


def check(package: str, name: str, kind: str) -> None:
    """Check that there is an entry of this name or reference, without importing it.

    Raises:
        UnknownNameError: There is none.
    """
    if name not in _by_reference and name not in names(package):
        raise UnknownNameError(kind, name, names(package))


def load(package: str, name: str, kind: str) -> ModuleType:
    """Import an entry by its name or reference.

    Raises:
        UnknownNameError: There is none.
        InputError: It is a file of your own that cannot be imported.
    """
    check(package, name, kind)
    found = _by_reference.get(reference(package, name))
    return found.module() if found else importlib.import_module(f"{package}.{name}")


def reference(package: str, name: str) -> str:
    """What identifies an entry beyond this process: `name@sha256` for a file of your own, else the name."""
    return _current.get((package, name), name)


def name_of(reference: str) -> str:
    """The name in a reference; a name stays as it is."""
    return reference.partition("@")[0]


def short(reference: str) -> str:
    """A reference as people read it: with eight digits of the hash."""
    name, at, sha256 = reference.partition("@")
    return f"{name}{at}{sha256[:8]}"


def shown(package: str, reference: str) -> str:
    """A reference in tables and figures: the name alone if it stands for this content now."""
    name = name_of(reference)
    return name if _current.get((package, name), name) == reference else short(reference)


def file_of(reference: str) -> PluginFile | None:
    """The file of a reference; None for an entry of a package."""
    return _by_reference.get(reference)


def add(file: PluginFile, *, is_current: bool = True) -> str:
    """Add a file to this process and return its reference.

    Args:
        file: The file.
        is_current: Whether its name stands for it from now on; otherwise only if the name is free.

    Raises:
        InputError: An entry of the package has its name.
    """
    kind, _ = SIGNS[file.package]
    is_free = file.name not in _built_in(file.package)
    if is_current and not is_free:
        raise InputError(f"{file.path}: there is a {kind} {file.name} already.\nRename the file.")
    _by_reference.setdefault(file.reference, file)
    if is_current:
        _current[file.package, file.name] = file.reference
    elif is_free:
        _current.setdefault((file.package, file.name), file.reference)
    return file.reference


def add_path(path: Path) -> PluginFile:
    """Add the file at a path, whose content is read once per process.

    Raises:
        InputError: It is no plug-in.
    """
    file = _read(path)
    add(file)
    return file


def _read(path: Path) -> PluginFile:
    path = path.expanduser().absolute()
    if path not in _by_path:
        _by_path[path] = plugin_files.read(path)
    return _by_path[path]


def named(text: str, package: str) -> str:
    """The name of a plug-in that a user named by its name or by the path of its file, which is added.

    Raises:
        InputError: It is no plug-in, or one of another kind.
    """
    if not plugin_files.is_file(text):
        return text
    file = _read(Path(text))
    if file.package != package:
        found, wanted = SIGNS[file.package][0], SIGNS[package][0]
        raise InputError(f"{file.path} is a {found}; expected a {wanted}.")
    add(file)
    return file.name


def add_from_environment() -> None:
    """Add the files in the folders that SWEEPER_PLUGINS names; those that begin with an underscore are left out.

    Raises:
        InputError: A folder is missing, or a file is no plug-in.
    """
    for entry in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        place = Path(entry).expanduser()
        if not place.exists():
            raise InputError(f"{FOLDERS}={entry}: no such folder.\nCorrect the variable, or unset it.")
        files = sorted(place.glob("[!_]*.py")) if place.is_dir() else [place]
        for path in files:
            add_path(path)


def carried() -> list[PluginFile]:
    """The files of this process, for `learn` in another one."""
    is_current = set(_current.values())
    return sorted(_by_reference.values(), key=lambda file: (file.reference in is_current, file.reference))


def learn(files: Iterable[PluginFile]) -> None:
    """Add the files of another process, so that names stand for the same content here."""
    for file in files:
        add(file)
