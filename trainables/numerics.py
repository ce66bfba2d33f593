"""The numerics class of a training process: within one, equal runs give equal bits.

What picks a kernel is named where it is known: the model of the processor, its instruction set, threads, precision, torch, the
project's own choice (`kernels`), and the variables that steer its libraries. A checksum of the results of a few operations
stands for whatever is not known, such as another build of a library.
"""

import hashlib
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F

from trainables import arithmetic, kernels

STEERING = re.compile(
    r"MKL_(CBWR|DEBUG_CPU_TYPE|ENABLE_INSTRUCTIONS)|(ONEDNN|DNNL)_(?!VERBOSE)\w+|ATEN_CPU_CAPABILITY|OPENBLAS_CORETYPE"
    r"|CUBLAS(LT)?_WORKSPACE_CONFIG|NVIDIA_TF32_OVERRIDE|TORCH_(BLAS|LINALG)_\w+"
)
"""Environment variables with which a person picks kernels."""

DIGITS = 8
"""Digits of the checksum."""


def numerics_class(device: torch.device, precision: str, size: int) -> str:
    """The numerics class of this process, whose arithmetic is set, see `arithmetic.set_arithmetic`.

    On a CPU the pack does not matter. On CUDA its size does: cuBLAS picks its kernels by the number of matrices.

    Args:
        device: Where packs train.
        precision: Arithmetic of matrix products and convolutions.
        size: Runs that the pack computes.
    """
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {size} stacked"
    else:
        isa = torch.backends.cpu.get_cpu_capability()
        where = f"{platform.machine()} {isa}, {processor()}, {torch.get_num_threads()} thread(s)"
    chosen = kernels.chosen(device)
    ours = f"convolutions {chosen.convolution}, Adam {chosen.optimizer}"
    known = [f"{device.type} {where}", f"torch {torch.__version__}", precision, ours, *_steering()]
    return ", ".join([*known, f"check {checksum(device, precision)}"])


def _steering() -> list[str]:
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if STEERING.fullmatch(name)]


@cache
def processor() -> str:
    """Model of the processor, for example `AMD EPYC 7B13 (25.1.1)`; empty if the system does not say."""
    return _on_linux() or _on_macos() or platform.processor()


def _on_linux() -> str:
    try:
        return _described(Path("/proc/cpuinfo").read_text())
    except OSError:
        return ""


def _described(text: str) -> str:
    found = dict(re.findall(r"^([\w ]+?)\s*: *(.*)$", text.partition("\n\n")[0], re.MULTILINE))
    numbers = [found.get(name, "") for name in ("cpu family", "model", "stepping")]  # of x86
    if not any(numbers):
        numbers = [found.get(f"CPU {name}", "") for name in ("implementer", "part", "variant")]  # of ARM
    name = " ".join(found.get("model name", "").replace(",", " ").split())
    return f"{name} ({'.'.join(numbers)})".strip() if any(numbers) else name


def _on_macos() -> str:
    try:
        words = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def checksum(device: torch.device, precision: str) -> str:
    """Checksum of the bits of products, convolutions and functions of fixed numbers on this device.

    Args:
        device: Where they are computed.
        precision: Arithmetic of the products and convolutions.
    """
    settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    return _checksum(device, precision, *settings)


@cache
def _checksum(device: torch.device, precision: str, *_: object) -> str:
    digest = hashlib.sha256()
    with torch.no_grad(), arithmetic.in_precision(precision, device):
        for result in _results(device):
            digest.update(result.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:DIGITS]


def _results(device: torch.device) -> list[torch.Tensor]:
    """Results of the kinds of operations that training consists of, at sizes that are not multiples of a vector."""
    batch, wide, narrow = 67, 131, 10
    x = _numbers((3, batch, wide), device)
    weight, bias = _numbers((3, wide, narrow), device, 1), _numbers((3, 1, narrow), device, 2)
    product = torch.baddbmm(bias, x, weight)
    image, kernel = _numbers((5, 3, 16, 16), device, 3), _numbers((7, 3, 4, 4), device, 4)
    down = F.conv2d(image, kernel, stride=2, padding=1)
    up = F.conv_transpose2d(down, kernel, stride=2, padding=1)
    functions = [
        product.exp(),
        product.abs().log1p(),
        product.sigmoid(),
        product.tanh(),
        product.abs().rsqrt(),
    ]
    return [
        product,
        x[0] @ weight[0],
        product.mT @ product,
        down,
        up,
        *functions,
        product.sum(1),
        up.sum((2, 3)),
    ]


def _numbers(shape: tuple[int, ...], device: torch.device, stream: int = 0) -> torch.Tensor:
    """Fixed float32 numbers in (-1, 1), made from integers alone, so that they are the same everywhere."""
    count = torch.Size(shape).numel()
    words = (torch.arange(1, count + 1, dtype=torch.int64) * 2_654_435_761 + stream * 40_503) % 65_521
    return ((words - 32_760).double() / 32_768).float().reshape(shape).to(device)
