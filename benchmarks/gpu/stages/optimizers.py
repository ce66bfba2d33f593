"""Adam in one pass, compared with PyTorch's fused Adam with masks, in a whole step of FactorVAE."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row
from trainables.kernels import using

SECONDS = 20.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per optimizer."""
    for optimizer in ("masked", "one_pass"):
        bench.forget()
        try:
            with using(bench.device, optimizer=optimizer):
                yield bench.rated(bench.pack(), optimizer=optimizer)
        except Exception as error:
            yield {"optimizer": optimizer, "error": f"{type(error).__name__}: {error}".splitlines()[0]}
