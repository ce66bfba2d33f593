"""Kernels and tensor operations of a step for each way to convolve; last, since the profiler slows down later stages."""

from collections.abc import Iterator

from benchmarks.gpu.kit import MODELS, Bench, Row, kernels, operations
from trainables import convolutions
from trainables.kernels import using

SECONDS = 30.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per model and way."""
    for model in MODELS:
        for way in convolutions.WAYS:
            if bench.left_s < 3:
                return
            bench.forget()
            with using(bench.device, convolution=way):
                pack = bench.pack(model, launch="eager")
                pack.advance(2)
                yield {
                    "model": model,
                    "convolution": way,
                    "runs": len(pack.seeds),
                    "kernels": kernels(pack),
                    "operations": operations(pack),
                }
            del pack
