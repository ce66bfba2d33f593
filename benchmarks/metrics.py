"""What metrics cost a run, on one core: `python -m benchmarks.metrics [--runs 5] [--out FILE]`.

The codes are noisy factors: those of the laptop's 1,536 images with 6 codes, and all 737,280 of dSprites with 10. Every metric takes its turn
with every run; the median over the runs is given.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy is imported

import numpy as np
import torch

from benchmarks import machine
from benchmarks.gpu.kit import save
from trainables import contracts, scoring
from trainables.encoding import Encoding

SETS = {
    "laptop": ((("scale", 6), ("pos_x", 16), ("pos_y", 16)), 6),
    "dSprites": ((("shape", 3), ("scale", 6), ("orientation", 40), ("pos_x", 32), ("pos_y", 32)), 10),
}
"""Factors and number of codes."""

ON_ALL_IMAGES = ("factor_vae_score", "beta_vae_score", "mig", "sap", "modularity", "gaussian_tc", "kl")
"""Metrics that are measured on all of dSprites; others are meant for a sample."""


def codes(name: str, seed: int) -> Encoding:
    """Return codes of a run: each factor in a code of its own, with noise, and codes of noise alone."""
    factors, num_codes = SETS[name]
    sizes = tuple(size for _, size in factors)
    num_images = int(np.prod(sizes))
    generator = np.random.default_rng(seed)
    factors_NK = np.stack(np.unravel_index(np.arange(num_images), sizes), axis=1).astype(np.int64)
    mu_ND = generator.standard_normal((num_images, num_codes), dtype=np.float32)
    mu_ND[:, : len(sizes)] = factors_NK / np.array(sizes) * 4 - 2 + 0.1 * mu_ND[:, : len(sizes)]
    return Encoding(
        data=f"{name} (codes of a benchmark)",
        factor_names=tuple(name for name, _ in factors),
        factor_sizes=sizes,
        rows_N=np.arange(num_images),
        factors_NK=factors_NK,
        mu_ND=mu_ND,
        logvar_ND=np.full_like(mu_ND, -3.0),
        kl_D=np.full(num_codes, 1.5),
        discrete_D=np.zeros(num_codes, dtype=bool),
        recon_nats_N=np.full(num_images, 30.0),
        recon_mse_N=np.full(num_images, 0.01),
    )


def measure(name: str, num_runs: int) -> list[dict[str, Any]]:
    """Return a row for each metric that can be computed on a set."""
    runs = [codes(name, seed) for seed in range(num_runs)]
    chosen = sorted(contracts.metric_names()) if name == "laptop" else ON_ALL_IMAGES
    taken: dict[str, list[float]] = {metric: [] for metric in chosen}
    for run in runs:
        for metric in chosen:
            module = contracts.metric(metric)
            begun = time.perf_counter()
            module.score(run, scoring.metric_generator(metric))
            taken[metric].append(time.perf_counter() - begun)
        machine.progress(f"{name}: {len(taken[chosen[0]])} of {num_runs} runs")
    return [
        {
            "set": name,
            "metric": metric,
            "cheap": contracts.metric(metric).IS_CHEAP,
            "ms_per_run": round(1e3 * statistics.median(seconds), 2),
            "ms_most": round(1e3 * max(seconds), 2),
        }
        for metric, seconds in taken.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both sets, and print or write what metrics cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each set")
    parser.add_argument("--only", choices=SETS, help="one of the sets")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    rows = [row for name in SETS if options.only in (None, name) for row in measure(name, options.runs)]
    for row in rows:
        print("{set:9} {metric:24} {ms_per_run:10.2f} ms a run, at most {ms_most:10.2f}".format(**row))
    for name in SETS:
        cheap = [row["ms_per_run"] for row in rows if row["set"] == name and row["metric"] != "dci"]
        if cheap:
            print(f"{name:9} all but dci {sum(cheap):22.2f} ms a run")
    if options.out:
        result = {"machine": machine.describe(torch.device("cpu")), "rows": rows}
        save(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
