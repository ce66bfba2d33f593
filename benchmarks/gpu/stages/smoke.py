"""Check that the real path runs at the paper's size: an attempt of each model, its blocks, its metrics, and a resume."""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.kit import MODELS, Bench, Row
from trainables import arithmetic, blocks, scoring
from trainables.attempt import Attempt, Start
from trainables.blocks import STATE, unpack_arrays
from trainables.committing import Committer
from trainables.config import Schedule
from trainables.engine import ResolvedRun

SECONDS = 60.0
NUM_RUNS = 8


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per model: its values at the end, and whether a resumed attempt gives the same bits."""
    steps = 8 if bench.is_rehearsal else 40
    schedule = Schedule(steps, steps // 4, steps, scoring.cheap_metrics(3))
    for model in MODELS:
        begun = time.perf_counter()
        bench.forget()
        arithmetic.set_arithmetic("tf32", 1)
        runs = [bench.run(model, seed) for seed in range(2 if bench.is_rehearsal else NUM_RUNS)]
        folder = Path(tempfile.mkdtemp(prefix="smoke-"))
        try:
            row = _trained(bench, runs, schedule, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield {"model": model, "runs": len(runs), **row, "seconds": round(time.perf_counter() - begun, 1)}


def _trained(bench: Bench, runs: list[ResolvedRun], schedule: Schedule, storage: Path) -> Row:
    half = dataclasses.replace(schedule, steps=schedule.steps // 2)
    first = Attempt(1, runs, half, bench.images)
    committer = Committer(storage, first, block_s=5.0)
    while not committer.is_over:
        last = committer.commit()
    assert last is not None
    entries = blocks.read_manifest(last.path).runs
    states = [unpack_arrays(blocks.read_slice(last.path.parent, run.slices[STATE])) for run in entries]
    resumed = Attempt(2, runs, schedule, bench.images, Start(half.steps, tuple(states)))
    whole = Attempt(3, runs, schedule, bench.images)
    points = {}
    for number, attempt in enumerate((whole, resumed)):
        block = attempt.work(600.0)
        assert attempt.is_done
        points[number] = {(p.key, p.name): p.value for p in block.manifest.points if p.step == schedule.steps}
    is_equal = str(points[0]) == str(points[1])  # as text, since NaN then equals itself
    mine = {name: value for (key, name), value in points[0].items() if key == runs[0].key}
    return {
        "launch": whole.pack.launch,
        "numerics": block.manifest.numerics,
        "parameters": whole.pack.num_parameters,
        "is_resume_equal": is_equal,
        "diverged": sum(bad is not None for bad in whole.pack.first_bad_steps()),
        "train": {name: round(v, 3) for name, v in mine.items() if name.startswith("train/")},
        "score": mine.get("factor_vae_score"),
        "recon_mse": mine.get("recon_mse"),
    }
