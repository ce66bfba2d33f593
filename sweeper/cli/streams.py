"""Standard output and error that never end a command, whoever reads them and in whatever encoding."""

import io
import os
import sys
from typing import Any


class _Pipe(io.FileIO):
    """A file descriptor whose writes are dropped once its reader is gone, as in `... | head`."""

    def write(self, data: Any, /) -> int:
        """Write bytes; return how many were taken."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def protect() -> None:
    """Replace the standard streams by ones that outlive their reader, and write `?` for letters that cannot be written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # closed, or replaced by another program
            continue
        file = io.BufferedWriter(_Pipe(stream.fileno(), "w", closefd=False))
        safe = io.TextIOWrapper(file, stream.encoding, errors="replace", line_buffering=stream.line_buffering)
        setattr(sys, name, safe)
