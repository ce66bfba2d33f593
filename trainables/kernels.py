"""The one place that chooses the kernels for a pack's convolutions and Adam, for each kind of device.

All choices compute the same formulas; their last bits differ, so a choice is part of a numerics class. The CPU's are
measured (docs/performance.md). CUDA's are what arithmetic favors and are unmeasured: no GPU has run them yet.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch

Convolution = Literal["one_by_one", "run_by_run", "streams", "streams_nhwc", "grouped", "taps"]
"""See `trainables.convolutions`."""

Optimizer = Literal["peeking", "masked", "one_pass"]
"""How Adam keeps a run that ended from moving: `peeking` reads one flag back and masks only where a run ended; `masked`
always masks; `one_pass` is one kernel that skips such a run (`trainables.adam_kernel`), or `masked` if Triton is missing."""


@dataclass(frozen=True)
class Kernels:
    """The kernels chosen for one kind of device."""

    convolution: Convolution
    optimizer: Optimizer


_chosen = {
    True: Kernels("run_by_run", "peeking"),  # on a CPU, where reading a flag back is free
    False: Kernels("streams_nhwc", "one_pass"),
}


def chosen(device: torch.device) -> Kernels:
    """The kernels for a CPU, or for any other device."""
    return _chosen[device.type == "cpu"]


@contextmanager
def using(
    device: torch.device, convolution: Convolution | None = None, optimizer: Optimizer | None = None
) -> Iterator[None]:
    """Override the choice temporarily, to measure or to test; packs keep what they captured."""
    before, is_cpu = chosen(device), device.type == "cpu"
    _chosen[is_cpu] = replace(
        before, convolution=convolution or before.convolution, optimizer=optimizer or before.optimizer
    )
    try:
        yield
    finally:
        _chosen[is_cpu] = before
