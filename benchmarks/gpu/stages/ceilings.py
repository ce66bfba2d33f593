"""The limits of the card: bytes copied and matrix products per second, on random data."""

import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.kit import Bench, Row
from trainables import arithmetic

SECONDS = 15.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield the bandwidth, in bytes read and written, and the speed of square products in fp32, tf32 and bf16."""
    bench.ceilings["copy_tb_per_s"] = _copied(bench) / 1e12
    yield {"what": "copy", "tb_per_s": round(bench.ceilings["copy_tb_per_s"], 3)}
    for precision in ("fp32", "tf32", "bf16"):
        bench.ceilings[f"{precision}_tflops"] = _multiplied(bench, precision) / 1e12
        yield {"what": f"{precision} product", "tflops": round(bench.ceilings[f"{precision}_tflops"], 1)}


def _copied(bench: Bench) -> float:
    """Return the bytes per second."""
    source = torch.rand(2**16 if bench.is_rehearsal else 2**29, device=bench.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(bench, lambda: target.copy_(source))


def _multiplied(bench: Bench, precision: str) -> float:
    """Return the operations per second."""
    arithmetic.set_arithmetic(precision, 1)
    side = 64 if bench.is_rehearsal else 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.rand(side, side, device=bench.device).to(dtype) for _ in range(2))
    return 2 * side**3 / _seconds(bench, lambda: torch.mm(a, b))


def _seconds(bench: Bench, work: Callable[[], object]) -> float:
    """Return the median of some repetitions after a warm-up."""
    for _ in range(3):
        work()
    taken = []
    for _ in range(10):
        bench.synchronize()
        begun = time.perf_counter()
        work()
        bench.synchronize()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[len(taken) // 2]
