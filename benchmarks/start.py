"""What a smoke run costs from Enter to prompt: `python -m benchmarks.start [--rounds 2] [--out FILE]`.

Each run has a new home; with Ray and without take turns.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.gpu.kit import save
from benchmarks.size import timed

SMOKE = ("run", "factorvae_gamma", "--scale", "smoke")
VARIANTS = {"smoke run": (), "smoke run with Ray": ("--ray",)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the runs, and print or write what they cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (default %(default)d)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number in range(options.rounds):
        for name, words in VARIANTS.items():
            machine.progress(f"{name}, {number + 1} of {options.rounds}")
            with tempfile.TemporaryDirectory(prefix="sweeper-start-") as folder:
                found[name].append(timed([*SMOKE, *words], Path(folder)))
    rows = [
        {
            "command": name,
            "seconds": statistics.median(each["seconds"] for each in taken),
            "least_s": min(each["seconds"] for each in taken),
            "cpu_s": statistics.median(each["cpu_s"] for each in taken),
            "exit_code": max(each["exit_code"] for each in taken),
        }
        for name, taken in found.items()
    ]
    for row in rows:
        print(
            f"{row['command']:20} {row['seconds']:6.1f} s, {row['cpu_s']:6.1f} s of cpu, exit {row['exit_code']}"
        )
    if options.out:
        result = {"machine": machine.describe(torch.device("cpu")), "rows": rows}
        save(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
