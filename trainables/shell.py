"""How commands are typed in the shell that this process was started from, so that what is printed runs as printed."""

import os
import shutil
import sys
from functools import cache
from pathlib import Path

SCRIPTS = {"sweeper": "sweeper"}
"""By module: the command that an installation puts beside the interpreter."""


def program(module: str) -> str:
    """The words that start a module, for example `python -m sweeper`."""
    script = SCRIPTS.get(module)
    if script and Path(sys.argv[0]).name == script:
        return _word(script, Path(sys.argv[0]).absolute())
    return f"{python()} -m {module}"


@cache
def python() -> str:
    """The word that starts this interpreter: a name that PATH leads to, else its path."""
    interpreter = Path(sys.executable).absolute()
    names = [name for name in ("python", "python3") if _is_found(name, interpreter)]
    return names[0] if names else _word("python", interpreter)


def _word(name: str, path: Path) -> str:
    """A name if PATH leads to this path, else the path, relative if it is below the working folder."""
    if _is_found(name, path):
        return name
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _is_found(name: str, path: Path) -> bool:
    # Not resolved: the interpreter of an environment is a link to the one that it was made with.
    found = shutil.which(name)
    return found is not None and Path(found).absolute() == path
