"""Measurements of packs that are kept for this user, in files named after all that they depend on."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables import __version__, durable
from trainables.config import canonical_json
from trainables.data.readers import preparation
from trainables.durable import DamagedBlockError


def place(question: Mapping[str, Any]) -> Path:
    """Where the measurement that answers a question is kept; of this version of the code."""
    name = hashlib.sha256(canonical_json({**question, "code": __version__}).encode()).hexdigest()[:16]
    return preparation.folder() / "measured" / f"{name}.json"


def read(path: Path) -> dict[str, float] | None:
    """The measurement that is kept; None if there is none, or it is damaged."""
    with contextlib.suppress(OSError, DamagedBlockError):
        return durable.read_record(path)[0]
    return None


def keep(path: Path, found: Mapping[str, float]) -> None:
    """Keep a measurement, if there is a place for it."""
    with contextlib.suppress(OSError):
        durable.make_folder(path.parent)
        durable.write_record(path, found)
