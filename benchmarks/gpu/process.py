"""One of several processes that share a device: builds a pack or a plain run, waits until all are ready, then trains.

Reads one line of JSON from standard input and answers "ready"; after the next line it trains for the given seconds, and
answers with steps and seconds.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.kit import Bench
from benchmarks.plain import Plain
from trainables import arithmetic, stepping
from trainables.engine import Pack


def main() -> None:
    """Build, wait, train, and answer."""
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    bench = Bench(torch.device(asked["device"]), asked["is_rehearsal"], Path())
    if bench.device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(asked["share"])
    advance = of_pack(bench, asked["runs"]) if asked["kind"] == "pack" else plain_steps(bench, "eager")
    advance(8)
    bench.synchronize()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, steps, stride = time.perf_counter(), 0, 1
    while (taken_s := time.perf_counter() - begun) < asked["seconds"]:
        advance(stride)
        bench.synchronize()
        steps, stride = steps + stride, min(64, 2 * stride)
    print(json.dumps({"steps": steps, "seconds": taken_s, "runs": asked["runs"]}), flush=True)


def of_pack(bench: Bench, num_runs: int) -> Callable[[int], None]:
    """Return a function that advances a pack of FactorVAE runs."""
    return bench.pack(num_runs=num_runs).advance


def plain_steps(bench: Bench, launch: stepping.Launch) -> Callable[[int], None]:
    """Return a function that advances one FactorVAE run in ordinary modules, on inputs generated once; on request as a graph."""
    arithmetic.set_arithmetic("tf32", 1)
    pack: Pack = bench.pack(num_runs=1, launch="eager")
    found = pack.gathered(
        {
            name: values[0]
            for name, values in pack.generate_inputs(
                torch.zeros(1, dtype=torch.int64, device=bench.device)
            ).items()
        }
    )
    inputs = {name: value[0].clone() for name, value in found.items()}
    is_graph = launch == "graph" and bench.device.type == "cuda"
    plain = Plain("factor_vae", pack.runs[0].config, bench.images.shape, is_capturable=is_graph)
    plain.to(bench.device).prepare()

    def eager(num_steps: int) -> None:
        for _ in range(num_steps):
            plain.step(inputs)

    if not is_graph:
        return eager
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        eager(stepping.WARM_UP_STEPS)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plain.step(inputs)

    def replay(num_steps: int) -> None:
        for _ in range(num_steps):
            graph.replay()

    return replay


if __name__ == "__main__":
    main()
