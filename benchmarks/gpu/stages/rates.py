"""FactorVAE in packs of 1 to 128 runs: run-steps per second, memory, and the fraction of a step spent on random inputs."""

import time
from collections.abc import Iterator

import torch

from benchmarks.gpu.kit import Bench, Row
from trainables.engine import Pack

SECONDS = 60.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per size."""
    for size in bench.sizes:
        if bench.left_s < 3:
            return
        yield _rated(bench, size)


def _rated(bench: Bench, size: int) -> Row:
    bench.forget()
    pack = bench.pack(num_runs=size)
    row = bench.rated(pack)
    return row | {"inputs_share": round(_inputs_ms(bench, pack) / row["step_ms"], 4)}


def _inputs_ms(bench: Bench, pack: Pack) -> float:
    """Return the milliseconds per step of generating random inputs, for as many steps as are generated at once."""
    steps_T = torch.arange(pack._chunk, device=bench.device)
    pack.generate_inputs(steps_T)
    bench.synchronize()
    begun = time.perf_counter()
    pack.generate_inputs(steps_T)
    bench.synchronize()
    return 1e3 * (time.perf_counter() - begun) / len(steps_T)
