"""Where a block comes from: machine, process, device, and the commit of the code."""

import os
import socket
import subprocess
from functools import cache
from pathlib import Path


def provenance(launch: str) -> dict[str, str]:
    """The provenance recorded with a block for users; no number depends on it, and it is never compared.

    Args:
        launch: How steps are launched, see `trainables.stepping`.
    """
    return {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "launch": launch,
        "git_commit": git_commit(),
    }


@cache
def git_commit() -> str:
    """Commit of the checkout that this code runs from, `-dirty` if files were changed; empty outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed, maybe inside another checkout
        return ""
    words = [
        "git",
        "--no-optional-locks",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--match=",
    ]
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):  # no git, or not our files
        return ""
    return ran.stdout.strip()
