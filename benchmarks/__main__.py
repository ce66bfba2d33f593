"""All that a CPU can measure, in at most ten minutes: `python -m benchmarks --out FILE`, or `make bench`.

Each stage is a script of its own, for example `python -m benchmarks.packs`, which says what it measures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.gpu.kit import save
from benchmarks.table import markdown

QUICK = ("status", "status of the sweep", "pareto", "export", "plan")
"""Commands in a large home that are timed here: delivery to MLflow takes a tenth of a second a run."""

STAGES = {
    "start": ["start", "--rounds", "2"],
    "packs, laptop": ["packs", "--scale", "laptop", "--rounds", "4"],
    "packs, paper": ["packs", "--scale", "paper", "--rounds", "3"],
    "metrics": ["metrics", "--runs", "3"],
    "size": ["size", *(word for name in QUICK for word in ("--only", name))],
}
"""Each stage's script and its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages, write one JSON file, and print its tables; returns 1 if a stage failed."""
    options = build_parser().parse_args(arguments)
    stages: dict[str, dict[str, Any]] = {}
    for name in options.stage or STAGES:
        machine.progress(f"== {name}")
        stages[name] = _run(STAGES[name])
    result = {
        "machine": machine.describe(torch.device("cpu")),
        "settings": {"is_rehearsal": False},
        "stages": stages,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(options.out, result)
    print(markdown(result))
    print(f"Wrote {options.out}")
    return int(any(stage["error"] for stage in stages.values()))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the JSON goes")
    parser.add_argument("--stage", action="append", choices=tuple(STAGES), help="default: all; repeatable")
    return parser


def _run(words: Sequence[str]) -> dict[str, Any]:
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sweeper-bench-") as folder:
        out = Path(folder, "rows.json")
        script = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:], "--out", str(out)]
        code = subprocess.run(script, stdout=subprocess.DEVNULL, check=False).returncode
        rows = json.loads(out.read_text())["rows"] if code == 0 else []
    return {
        "status": "failed" if code else "done",
        "seconds": round(time.perf_counter() - begun, 1),
        "error": f"exit code {code}" if code else "",
        "rows": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
