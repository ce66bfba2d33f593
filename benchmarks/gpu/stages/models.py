"""The other models at the size of the pack that is usual."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row, kernels
from trainables.config import Precision

SECONDS = 40.0


def rows(bench: Bench) -> Iterator[Row]:
    """A line a model and precision."""
    for model in ("beta_vae", "info_wgan_gp"):
        precisions: tuple[Precision, ...] = ("tf32",) if bench.is_rehearsal else ("tf32", "bf16")
        for precision in precisions:
            if bench.left_s < 4:
                return
            bench.forget()
            pack = bench.pack(model, precision=precision)
            yield bench.rated(pack) | {"kernels": kernels(pack)}
