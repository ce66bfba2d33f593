"""The other models, at the usual pack size."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row
from trainables.config import Precision

SECONDS = 40.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per model and precision."""
    precisions: tuple[Precision, ...] = ("tf32",) if bench.is_rehearsal else ("tf32", "bf16")
    for model in ("beta_vae", "info_wgan_gp"):
        for precision in precisions:
            if bench.left_s < 4:
                return
            bench.forget()
            yield bench.rated(bench.pack(model, precision=precision))
