"""The interruptions of training: an evaluation of all runs, and writing their states to disk."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.kit import Bench, Row
from trainables import arithmetic, scoring
from trainables.attempt import Attempt
from trainables.committing import Committer
from trainables.config import Schedule

SECONDS = 45.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield the seconds of an evaluation of a full pack, and seconds and bytes of a block with states."""
    bench.forget()
    arithmetic.set_arithmetic("tf32", 1)
    runs = [bench.run("factor_vae", seed) for seed in range(bench.num_runs)]
    schedule = Schedule(10**6, 10**6, 10**6, scoring.cheap_metrics(5))
    attempt = Attempt(1, runs, schedule, bench.images)
    attempt.pack.advance(8)
    bench.synchronize()
    begun = time.perf_counter()
    attempt.scores()
    yield {
        "what": "evaluation",
        "runs": len(runs),
        "images": attempt._num_images,
        "seconds": round(time.perf_counter() - begun, 2),
    }
    folder = Path(tempfile.mkdtemp(prefix="evaluation-"))
    try:
        committer = Committer(folder, attempt, block_s=0.0, state_every_s=0.0)
        committer.commit()
        num_bytes = sum(path.stat().st_size for path in folder.rglob("*.slices"))
        seconds = committer._state_cost_s
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    yield {
        "what": "states",
        "runs": len(runs),
        "gib": round(num_bytes / 2**30, 3),
        "seconds": round(seconds, 2),
        "gb_per_s": round(num_bytes / 1e9 / seconds, 2),
    }
