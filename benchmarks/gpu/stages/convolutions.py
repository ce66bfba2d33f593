"""The ways to convolve R runs, in a whole step of FactorVAE and of beta-VAE, which is nearly nothing but convolutions."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Bench, Row, kernels
from trainables import convolutions
from trainables.kernels import Convolution, using

SECONDS = 50.0


def rows(bench: Bench) -> Iterator[Row]:
    """A line a way; on streams also with other numbers of them."""
    ways: list[tuple[Convolution, int | None]] = [(way, None) for way in convolutions.WAYS]
    numbers: list[tuple[Convolution, int | None]] = [("streams_nhwc", number) for number in (2, 4, 16)]
    for model, variants in (("factor_vae", [*ways, *numbers]), ("beta_vae", ways)):
        for way, num_streams in ways if bench.is_rehearsal else variants:
            if bench.left_s < 4:
                return
            bench.forget()
            before = convolutions.NUM_STREAMS
            convolutions.NUM_STREAMS = num_streams or before
            convolutions._streams.cache_clear()
            try:
                with using(bench.device, convolution=way):
                    pack = bench.pack(model)
                    row = bench.rated(pack, convolution=way)
                    yield row | {"streams": num_streams or before, "kernels": kernels(pack)}
            except RuntimeError as error:  # a way that does not run is a result
                yield {"model": model, "convolution": way, "error": str(error).splitlines()[0]}
            finally:
                convolutions.NUM_STREAMS = before
                convolutions._streams.cache_clear()
