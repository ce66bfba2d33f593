"""Settings of a training process that its bits depend on (device, precision, threads), and its memory; see `numerics`."""

import contextlib
import ctypes
from pathlib import Path

import torch

from trainables.errors import UnusableGpuError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def set_arithmetic(precision: str, num_threads: int) -> None:
    """Fix the settings that the bits of this process depend on, instead of the machine's defaults."""
    torch.set_num_threads(num_threads)
    # Dead units and old moments turn denormal, and denormal arithmetic is many times slower.
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def in_precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context that computes matrix products and convolutions in bfloat16, if the precision is bf16.

    Parameters, moments, losses and everything but products stay float32; casts are not cached, since a captured graph
    would replay stale ones.
    """
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def pick_device(gpus: float) -> torch.device:
    """The device for a pack with this share of a GPU; the CPU on a node without one, where tests give Ray a logical GPU.

    Raises:
        UnusableGpuError: The node has a GPU that torch cannot use.
    """
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if Path("/dev/nvidiactl").exists():
            raise UnusableGpuError(
                "Torch cannot use the NVIDIA GPU of this node: the driver is too old for this torch, or torch is a"
                " CPU build. Compare `nvidia-smi` with `python -c 'import torch; print(torch.version.cuda)'`."
            )
        return torch.device("cpu")
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
    return torch.device("cuda")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory: fetching fresh pages for every activation takes up to half of a step.

    Does nothing if the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that is accepted
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_gpu_memory() -> None:
    """Release unused GPU memory: nothing else can use the memory that a captured graph left."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Release what `keep_freed_memory` kept. Does nothing if the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def release_process() -> None:
    """Undo, in a process that continues without training, what affects others: denormals are no longer flushed."""
    torch.set_flush_denormal(False)
    return_freed_memory()
