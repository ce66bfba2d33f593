"""Plug-ins in files of your own: which kind a file is, what identifies it, and its module.

A file is one plug-in, named like the file. Its content is carried to every process that needs it, so that it may lie
anywhere, on one machine only. Needs no torch: the kind is read from the syntax, without running the file.
"""

import ast
import hashlib
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

from trainables.errors import InputError, reason

SIGNS = {
    "search_spaces": ("sweep", "SWEEP"),
    "trainables.models": ("model", "Model"),
    "trainables.metrics": ("metric", "score"),
    "trainables.data": ("data set", "find"),
}
"""By package: what its plug-ins are called, and the name that only they define."""


@dataclass(frozen=True)
class PluginFile:
    """A plug-in in a file of your own.

    Attributes:
        package: The package whose entries are of its kind, for example `trainables.models`.
        name: Its name everywhere, that of the file.
        text: Its content.
        path: Where it was read, absolute; the file may have changed since.
    """

    package: str
    name: str
    text: str
    path: Path

    @property
    def sha256(self) -> str:
        """Hash of the content, 64 hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """What names exactly this content, for example in the specification of a run: `name@sha256`."""
        return f"{self.name}@{self.sha256}"

    def module(self) -> ModuleType:
        """Import it, once per content.

        Raises:
            InputError: It raises an exception when it is imported.
        """
        name = f"plugin_{self.name}_{self.sha256}"
        if name not in sys.modules:
            sys.modules[name] = self._executed(name)
        return sys.modules[name]

    def _executed(self, name: str) -> ModuleType:
        loader = _Loader(self)
        spec = spec_from_loader(name, loader)
        assert spec
        module = module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up
        try:
            loader.exec_module(module)
        except InputError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {reason(error)}"
            where = f"{self.path}{_line(error, loader.get_filename(name))}"
            raise InputError(f"{where}: {what}.\nCorrect the file.") from error
        finally:
            del sys.modules[name]
        return module


class _Loader(ExecutionLoader):
    """Imports a file from its content."""

    def __init__(self, file: PluginFile) -> None:
        self._file = file

    def get_source(self, _: str) -> str:
        """The content."""
        return self._file.text

    def get_filename(self, _: str) -> str:
        """The file that debuggers and tracebacks show: the original while it has this content."""
        with suppress(OSError, ValueError):
            if self._file.path.read_text(encoding="utf-8") == self._file.text:
                return str(self._file.path)
        return f"<{self._file.reference}>"


def _line(error: BaseException, file: str) -> str:
    """Where in a file an exception was raised, for example `, line 3`; empty if elsewhere."""
    trace, number = error.__traceback__, 0
    while trace:
        number = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else number
        trace = trace.tb_next
    return f", line {number}" if number else ""


def is_file(text: str) -> bool:
    """Whether a name that a user typed is the path of a file with a plug-in."""
    return text.endswith(".py") or "/" in text


def read(path: Path) -> PluginFile:
    """Read a plug-in from a file, without running it.

    Raises:
        InputError: The file does not exist, is not a plug-in, or needs other files beside it.
    """
    path = path.expanduser().absolute()
    if path.suffix != ".py":
        raise InputError(f"{path}: not a Python file.\nGive a file that ends with .py, or a name.")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", path.stem):
        raise InputError(
            f"{path}: the file's name is the plug-in's name.\n"
            "Use lowercase letters, digits and underscores, for example my_model.py."
        )
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}.\nCorrect the file.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {reason(error)}.\nGive the path of a Python file.") from None
    _check_imports(tree, path)
    return PluginFile(_package(tree, path), path.stem, text, path)


def _package(tree: ast.Module, path: Path) -> str:
    """The package for plug-ins with these names at the top level."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    found = [package for package, (_, sign) in SIGNS.items() if sign in names]
    if len(found) == 1:
        return found[0]
    kinds = "; ".join(f"a {kind} defines {sign}" for kind, sign in SIGNS.values())
    what = "defines several kinds of plug-in" if found else "not a plug-in"
    raise InputError(f"{path}: {what}.\nA file is one plug-in: {kinds}.")


def _check_imports(tree: ast.Module, path: Path) -> None:
    """Reject imports of files beside it: only its own content is carried to workers and is part of its identity."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            imported = "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom):
            imported = (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            imported = next((name for name in map(_top, node.names) if _is_beside(name, path)), "")
        else:
            continue
        if imported.startswith(".") or _is_beside(imported, path):
            raise InputError(
                f"{path}, line {node.lineno}: imports {imported} from its own folder.\n"
                "A plug-in is one file: move what it needs into it, or into a package that you install with pip."
            )


def _top(alias: ast.alias) -> str:
    return alias.name.partition(".")[0]


def _is_beside(name: str, path: Path) -> bool:
    """Whether importing a module would take it from the folder of a file, as it is on this machine only."""
    if not name or not any((path.parent / each).exists() for each in (f"{name}.py", name)):
        return False
    try:
        found = find_spec(name)
    except (ImportError, ValueError):
        return True
    origin = Path(found.origin).absolute() if found and found.origin else None
    return origin is None or origin.is_relative_to(path.parent)
