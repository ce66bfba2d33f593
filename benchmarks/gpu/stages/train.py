"""The protocol of the sweep `factorvae_gamma`, all runs in one pack, for as long as time allows; resumes from kept states.

States are kept in `--keep DIR`. The results are the points: training statistics and, at the end, scores.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.gpu.kit import Bench, Row
from trainables import arithmetic
from trainables.__main__ import find_start
from trainables.attempt import Attempt, Start
from trainables.committing import Committer
from trainables.config import Schedule
from trainables.errors import InputError
from trainables.layout import Layout, block_of

SECONDS = 600.0
GAMMAS = (1.0, 10.0, 20.0, 35.0, 40.0, 100.0)
SEEDS = tuple(range(10))
STEPS, REPORT_EVERY, EVALUATE_EVERY = 300_000, 1_000, 30_000
METRICS = ("recon_error", "factor_vae_score", "recon_mse", "kl", "active_dims", "gaussian_tc")
"""The same as in search_spaces/factorvae_gamma.py, which needs more packages than a bare machine has; a test compares them."""

CLOSE_S = 45.0
"""Seconds reserved for a last evaluation and the states."""


def rows(bench: Bench) -> Iterator[Row]:
    """Yield one row per point: gamma, seed, step, name, value; the last row is the speed."""
    gammas, seeds = (GAMMAS[:2], SEEDS[:1]) if bench.is_rehearsal else (GAMMAS, SEEDS)
    steps = 40 if bench.is_rehearsal else STEPS
    arithmetic.set_arithmetic("tf32", 1)
    runs = [bench.run("factor_vae", seed, "tf32", {"gamma": gamma}) for gamma in gammas for seed in seeds]
    settings = {run.key: (run.spec.fields["gamma"], run.spec.seed) for run in runs}
    storage = bench.keep / "train"
    start = _start(storage, [run.key for run in runs], steps)
    number = 1 + max((block_of(path)[0] for path in Layout(storage).manifests()), default=0)
    schedule = Schedule(steps, min(REPORT_EVERY, steps // 4), min(EVALUATE_EVERY, steps), METRICS)
    attempt = Attempt(number, runs, schedule, bench.images, start)
    committer = Committer(storage, attempt, block_s=1.0 if bench.is_rehearsal else 20.0)
    trained_s, first = 0.0, attempt.pack.step
    while not committer.is_over:
        if bench.left_s < (1.0 if bench.is_rehearsal else CLOSE_S):
            Layout(storage).stop(number).touch()
        block = committer.commit()
        if block is None:
            break
        trained_s += block.manifest.train_s
        for point in block.manifest.points:
            gamma, seed = settings[point.key]
            value = round(point.value, 4)
            yield {"gamma": gamma, "seed": seed, "step": point.step, "name": point.name, "value": value}
    Layout(storage).stop(number).unlink(missing_ok=True)
    for run, scores in zip(runs, attempt.scores(), strict=True):
        gamma, seed = settings[run.key]
        for name in METRICS:
            if name in scores:
                value = round(scores[name], 4)
                yield {"gamma": gamma, "seed": seed, "step": attempt.pack.step, "name": name, "value": value}
    done = attempt.pack.step - first
    rate = round(len(runs) * done / max(trained_s, 1e-9), 1)
    yield {"what": "trained", "runs": len(runs), "steps": [first, attempt.pack.step], "run_steps_per_s": rate}


def _start(storage: Path, keys: list[str], steps: int) -> Start:
    try:
        return find_start(storage, keys, steps)
    except InputError:
        return Start()
