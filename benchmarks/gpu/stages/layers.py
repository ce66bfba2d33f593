"""Each convolution of the paper's networks in each way: forward and backward pass of R runs, as a graph."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.gpu.kit import Bench, Row
from trainables import arithmetic, convolutions, stepping
from trainables.kernels import Convolution

SECONDS = 45.0
CHANNELS = (1, 32, 32, 64, 64)
BATCH = 64
REPLAYS = 10


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per layer, with the microseconds per run of each way."""
    arithmetic.set_arithmetic("tf32", 1)
    runs, batch = bench.num_runs, 2 if bench.is_rehearsal else BATCH
    for layer in range(4):
        inputs, outputs, size = CHANNELS[layer], CHANNELS[layer + 1], 64 >> layer
        for what in ("conv", "conv_transpose"):
            if bench.left_s < 3:
                return
            bench.forget()
            side = size if what == "conv" else size // 2
            x = torch.rand(
                runs, batch, inputs if what == "conv" else outputs, side, side, device=bench.device
            )
            weight = torch.rand(runs, outputs, inputs, 4, 4, device=bench.device)
            bias = torch.rand(runs, outputs if what == "conv" else inputs, device=bench.device)
            arguments = [tensor.requires_grad_() for tensor in (x, weight, bias)]
            row: Row = {"layer": f"{what}{layer + 1}", "channels": f"{inputs}-{outputs}", "runs": runs}
            for name in convolutions.WAYS:
                row[name] = _microseconds(bench, name, what, arguments)
            for number in () if bench.is_rehearsal else (2, 4, 16):
                with _on_streams(number):
                    row[f"{number} streams"] = _microseconds(bench, "streams_nhwc", what, arguments)
            macs = 16 * inputs * outputs * (size // 2) ** 2 * batch
            peak = bench.ceilings.get("tf32_tflops")
            yield row | ({"floor": round(6e-6 * macs / peak, 2)} if peak and not bench.is_rehearsal else {})


def _microseconds(bench: Bench, name: Convolution, what: str, arguments: list[torch.Tensor]) -> float | str:
    """Return the microseconds per run, or the text of the error if a way does not run."""
    way = convolutions.WAYS[name]
    try:
        seconds = _seconds(bench, way.conv if what == "conv" else way.conv_transpose, arguments)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return round(1e6 * seconds / len(arguments[0]), 2)


@contextmanager
def _on_streams(number: int) -> Iterator[None]:
    before, convolutions.NUM_STREAMS = convolutions.NUM_STREAMS, number
    convolutions._streams.cache_clear()
    try:
        yield
    finally:
        convolutions.NUM_STREAMS = before
        convolutions._streams.cache_clear()


def _seconds(bench: Bench, function: convolutions.Conv, arguments: list[torch.Tensor]) -> float:
    """Return the seconds of a forward and a backward pass."""

    def work() -> None:
        y = function(*arguments)
        torch.autograd.grad(y, arguments, torch.ones_like(y))

    for _ in range(1 if bench.is_rehearsal else 3):
        work()
    replay: Callable[[], None] = stepping.capture_on(bench.device)(work)
    taken = []
    for _ in range(2 if bench.is_rehearsal else 5):
        bench.synchronize()
        begun = time.perf_counter()
        for _ in range(1 if bench.is_rehearsal else REPLAYS):
            replay()
        bench.synchronize()
        taken.append((time.perf_counter() - begun) / (1 if bench.is_rehearsal else REPLAYS))
    return statistics.median(taken)
