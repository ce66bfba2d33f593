"""A description of what a benchmark ran on: card, driver, versions, commit."""

import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def describe(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """Return a description of the machine and the software, as far as they matter to a measurement.

    Args:
        device: Device that is measured.
        commit: Commit of the code; found with git by default.
    """
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or _git_commit(),
        "device": device.type,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
        "triton": _version("triton"),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "driver": _nvidia_smi("driver_version"),
            "power_limit_w": _nvidia_smi("power.limit"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def _git_commit() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    if not shutil.which("git"):
        return "unknown"
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in _lines(info) if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_smi(field: str) -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    words = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    listed = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return listed[0].strip() if listed else None


def progress(text: str) -> None:
    """Print what is being measured, to standard error."""
    print(text, file=sys.stderr, flush=True)
