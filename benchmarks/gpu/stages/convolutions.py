"""The ways to convolve R runs, in a whole step of FactorVAE and of beta-VAE, which consists mostly of convolutions."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row
from trainables import convolutions
from trainables.kernels import using

SECONDS = 50.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per model and way."""
    for model in ("factor_vae", "beta_vae"):
        for way in convolutions.WAYS:
            if bench.left_s < 4:
                return
            bench.forget()
            try:
                with using(bench.device, convolution=way):
                    yield bench.rated(bench.pack(model), convolution=way)
            except RuntimeError as error:  # a way that does not run is a result
                yield {"model": model, "convolution": way, "error": str(error).splitlines()[0]}
