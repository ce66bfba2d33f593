"""FactorVAE in fp32, tf32 and bf16."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row

SECONDS = 25.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per precision."""
    for precision in ("bf16", "tf32", "fp32"):
        if bench.left_s < 3:
            return
        bench.forget()
        yield bench.rated(bench.pack(precision=precision))
