"""Packs against one run at a time, on a CPU: `python -m benchmarks.packs --out FILE [--scale paper]`.

The others are ordinary modules, and pythae's where it is installed. All take turns in one process with one thread: the speed of a
machine drifts, ratios hold. Run-steps a second are medians over the rounds. Then each core has a process of its own with ordinary modules, or with
a pack.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks import processes, pythae_steps
from benchmarks.gpu.kit import save
from benchmarks.machine import describe, progress
from benchmarks.plain import Plain
from benchmarks.products import products_of
from benchmarks.table import table
from search_spaces import betavae_beta, factorvae_gamma
from trainables import arithmetic, engine
from trainables.config import RunSpec
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images
from trainables.models import beta_vae, factor_vae

SWEEPS = {"factor_vae": factorvae_gamma.SWEEP, "beta_vae": betavae_beta.SWEEP}
SIZES = {"laptop": (1, 2, 4, 8, 16), "paper": (1, 2, 4)}
TURN_S = {"laptop": 0.4, "paper": 2.0}
"""Seconds of one turn, which is at least one step."""

Advance = Callable[[int], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write JSON, and print a table."""
    options = build_parser().parse_args(arguments)
    arithmetic.set_arithmetic("fp32", 1)
    arithmetic.keep_freed_memory()
    rows = [row for model in SWEEPS for row in measured(model, options.scale, options.rounds)]
    machine = describe(torch.device("cpu"))
    save(options.out, {"machine": machine, "settings": vars(options) | {"out": ""}, "rows": rows})
    print("\n".join(table(rows)))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the JSON goes")
    parser.add_argument("--scale", choices=tuple(SIZES), default="laptop")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default %(default)d)")
    return parser


def measured(model: str, scale: str, rounds: int) -> list[dict[str, Any]]:
    """Return one row for each that takes turns."""
    progress(f"{model}, {scale}")
    sizes = SIZES[scale]
    runs, images = _runs(model, scale, sizes[-1])
    takers: dict[str, tuple[int, Advance]] = {"ordinary modules": (1, _plain(runs[0], images))}
    if pythae_steps.is_installed():
        takers["pythae"] = 1, pythae_steps.stepper(runs[0], images)
    packs = {size: Pack(runs[:size], images) for size in sizes}
    takers |= {f"pack of {size}": (size, pack.advance) for size, pack in packs.items()}
    takers[f"products of the pack of {sizes[-1]}"] = sizes[-1], products_of(packs[sizes[-1]])
    step_s: dict[str, list[float]] = {name: [] for name in takers}
    for _ in range(rounds + 1):
        for name, (_, advance) in takers.items():
            step_s[name].append(_seconds(advance, TURN_S[scale]))
    # The first round warms up.
    rates = {name: [size / taken for taken in step_s[name][1:]] for name, (size, _) in takers.items()}
    num_processes = len(os.sched_getaffinity(0))
    makers = [
        ("ordinary modules", 1, partial(_made, model, scale, 0)),
        (f"a pack of {sizes[-1]}", sizes[-1], partial(_made, model, scale, sizes[-1])),
    ]
    together = processes.rates(makers, num_processes, rounds, TURN_S[scale])
    named = {f"{num_processes} processes, in each {name}": taken for name, taken in together.items()}
    return [{"model": model, "scale": scale, **row} for row in [*_compared(rates), *_compared(named)]]


def _compared(rates: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row for each, with the ratio of its run-steps a second to the first one's."""
    medians = {name: statistics.median(taken) for name, taken in rates.items()}
    first = next(iter(medians.values()))
    return [
        {
            "what": name,
            "run_steps_per_s": round(medians[name], 1),
            "low": round(min(taken), 1),
            "high": round(max(taken), 1),
            "times_plain": round(medians[name] / first, 2),
        }
        for name, taken in rates.items()
    ]


def _runs(model: str, scale: str, num_runs: int) -> tuple[list[ResolvedRun], Images]:
    protocol = SWEEPS[model].scales[scale]
    runs = [engine.resolve(RunSpec(model, protocol.data, protocol.fields, seed)) for seed in range(num_runs)]
    return runs, runs[0].source.load(torch.device("cpu"))


def _made(model: str, scale: str, size: int) -> Advance:
    """Return what advances a pack, or ordinary modules if the size is 0."""
    runs, images = _runs(model, scale, max(1, size))
    return Pack(runs, images).advance if size else _plain(runs[0], images)


def _seconds(advance: Advance, turn_s: float) -> float:
    """Return the seconds per step, in strides that grow."""
    steps, stride, begun = 0, 1, time.perf_counter()
    while (taken_s := time.perf_counter() - begun) < turn_s:
        advance(stride)
        steps, stride = steps + stride, min(16, 2 * stride)
    return taken_s / steps


def _plain(run: ResolvedRun, images: Images) -> Advance:
    """Return a function that advances one run in ordinary modules; torch generates its random inputs for each step."""
    plain = Plain(run.spec.model, run.config, images.shape)
    plain.prepare()
    generator = torch.Generator().manual_seed(run.spec.seed)
    fields = cast(beta_vae.Config | factor_vae.Config, run.config)
    size, latent = fields.batch_size, fields.vae.latent_dim

    def advance(num_steps: int) -> None:
        for _ in range(num_steps):
            inputs = {}
            for batch in ("a", "b") if run.spec.model == "factor_vae" else ("a",):
                rows = torch.randint(len(images), (size,), generator=generator)
                inputs[f"batch {batch}"] = images.at(rows)
                inputs[f"noise {batch}"] = torch.randn(size, latent, generator=generator)
            orders = [torch.randperm(size, generator=generator) for _ in range(latent)]
            plain.step(inputs | {"permutation": torch.stack(orders)})

    return advance


if __name__ == "__main__":
    sys.exit(main())
