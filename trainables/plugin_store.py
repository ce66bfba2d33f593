"""Files of your own as a storage keeps them, so that what was trained with them can be continued and scored without the originals.

plugins/<kind>/<name>@<sha256>.py   the content of a file
plugins/<kind>/<name>.json          which of them the name stands for, and where it was read
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from trainables import durable, plugins
from trainables.durable import DamagedBlockError
from trainables.layout import Layout
from trainables.plugin_files import SIGNS, PluginFile


def keep(storage: Path, references: Iterable[str]) -> None:
    """Keep these files; from now on their names stand for them in this storage.

    Args:
        storage: The storage.
        references: References, see `plugins.reference`; entries of packages are ignored.

    Raises:
        OSError: The storage cannot be written.
    """
    for file in filter(None, map(plugins.file_of, dict.fromkeys(references))):
        folder = _folder(storage, file.package)
        path, note = folder / f"{file.reference}.py", folder / f"{file.name}.json"
        if not path.exists():
            durable.replace_file(path, file.text.encode())
        body = {"sha256": file.sha256, "path": str(file.path)}
        if not note.exists() or durable.read_record(note)[0] != body:
            durable.write_record(note, body)


def add_kept(storage: Path) -> None:
    """Add the files that a storage keeps to this process; names that are known already keep their meaning.

    Raises:
        DamagedBlockError: A file was changed.
    """
    for package in SIGNS:
        notes = [durable.read_record(path)[0] for path in sorted(_folder(storage, package).glob("*.json"))]
        read_at = {note["sha256"]: Path(note["path"]) for note in notes}
        files = [replace(file, path=read_at.get(file.sha256, file.path)) for file in _kept(storage, package)]
        for file in sorted(
            files, key=lambda each: each.sha256 not in read_at
        ):  # what names stand for comes first
            plugins.add(file, is_current=False)


def _kept(storage: Path, package: str) -> Iterator[PluginFile]:
    for path in sorted(_folder(storage, package).glob("*@*.py")):
        name, _, sha256 = path.stem.partition("@")
        file = PluginFile(package, name, path.read_text(encoding="utf-8"), path)
        if file.sha256 != sha256:
            raise DamagedBlockError(f"{path} is damaged: its content does not match its sha256.")
        yield file


def _folder(storage: Path, package: str) -> Path:
    return Layout(storage).plugins / package.rpartition(".")[2]
