"""Train one pack without Ray.

    python -m trainables factor_vae --data sprites --set discriminator.width=64 --steps 200

Without the narrow discriminator, the one of the paper takes minutes on a CPU. Prints one JSON line per report, then one per
run. --out DIR saves the blocks, and --resume DIR resumes from them exactly. Ctrl-C, SIGTERM and SIGHUP stop after the
current step; with --out, everything that --resume
needs is saved first.
"""

import argparse
import contextlib
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch

from trainables import (
    arithmetic,
    blocks,
    config,
    durable,
    engine,
    memory,
    plugin_store,
    plugins,
    resuming,
    scoring,
    trial,
)
from trainables.attempt import Attempt, Start
from trainables.command_line import build_parser, data_of
from trainables.committing import Committer
from trainables.config import RunSpec, Schedule
from trainables.durable import DamagedBlockError
from trainables.engine import ResolvedRun
from trainables.errors import InputError, is_out_of_memory, reason
from trainables.layout import Layout
from trainables.stopping import StopRequest, interrupt_at_signals
from trainables.worker import newest_intact

BLOCK_S = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 a run diverged, 2 invalid input, 3 an error of the machine, 130 stopped by a signal.
    """
    interrupt_at_signals()
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(__doc__)
    try:
        plugins.add_from_environment()
        parser.check_options(arguments)
        return _train(parser.parse_args(arguments))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except (OSError, DamagedBlockError) as error:
        print(
            f"I/O error: {error}\nFix it, then run the command again; with --resume DIR it resumes from saved blocks.",
            file=sys.stderr,
        )
        return 3
    except KeyboardInterrupt:
        print("Stopped at once; with --resume DIR it resumes from saved blocks.", file=sys.stderr)
        return 130
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError
        if not isinstance(error, MemoryError) and not is_out_of_memory(str(error)):
            raise
        print("Out of memory.\nUse fewer seeds, smaller networks or batches.", file=sys.stderr)
        return 3


def _train(options: argparse.Namespace) -> int:
    _check_folders(options.out, options.resume)
    storage = options.out or options.resume
    if options.resume:
        plugin_store.add_kept(storage)
    data = data_of(options)
    fields = config.parse_fields(options.set)
    evaluate_every = options.steps if options.evaluate_every is None else options.evaluate_every
    seeds = config.parse_seeds(options.seeds)
    runs = engine.resolve_all(
        [RunSpec(options.model, data, fields, seed, options.precision) for seed in seeds]
    )
    metrics = scoring.cheap_metrics(runs[0].source.num_varying)
    for note in [*runs[0].source.notes, *trial.notes(runs[0], metrics)]:
        print(f"Note: {note}", file=sys.stderr)
    schedule = Schedule(options.steps, options.report_every, evaluate_every, metrics)
    if options.precision == "tf32" and options.device == "cpu":
        raise InputError("--precision tf32: not available on a CPU.\nUse --precision fp32, or --device cuda.")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda: torch finds no usable CUDA device on this machine.\nUse --device cpu."
        )
    if options.device == "cpu":  # a GPU refuses by itself what it does not hold
        memory.check(runs[0], len(runs))
    arithmetic.set_arithmetic(options.precision, options.threads)
    arithmetic.keep_freed_memory()
    start = (
        find_start(options.resume, [run.key for run in runs], options.steps) if options.resume else Start()
    )
    number = _claim_attempt(storage) if storage else 1
    if storage:
        plugin_store.keep(storage, [options.model, data])
    images = runs[0].source.load(torch.device(options.device))
    attempt = Attempt(number, runs, schedule, images, start)

    begun = time.perf_counter()
    committer = Committer(storage, attempt, BLOCK_S, options.state_every) if storage else None
    stop, request = Layout(storage).stop(number) if storage else None, StopRequest()
    with contextlib.ExitStack() as stack:
        if stop:
            stack.callback(stop.unlink, missing_ok=True)
        stack.enter_context(request.by_signals(stop.touch if stop else lambda: None))
        # A run resumed at its horizon already has its points.
        while attempt.pack.step < options.steps and not attempt.is_done and not request.is_asked:
            if committer is None:
                _print_points(attempt.work(BLOCK_S, is_stopping=lambda: request.is_asked).manifest.points)
            elif block := committer.commit():
                _print_points(block.manifest.points)
        while request.is_asked and committer and not committer.is_over:
            committer.commit()
    if request.is_asked:
        print(_stopped_words(storage, attempt.pack.step), file=sys.stderr)
        return 130
    return _print_runs(attempt, (attempt.pack.step - start.step) / (time.perf_counter() - begun))


def _stopped_words(storage: Path | None, step: int) -> str:
    if storage is None:
        return f"Stopped at step {step}. Nothing was saved; use --out DIR to be able to resume."
    return (
        f"Stopped at step {step}. To resume, run the same command with --resume {storage} instead of --out."
    )


def _check_folders(out: Path | None, resume: Path | None) -> None:
    if out and resume:
        raise InputError(
            f"--out {out} and --resume {resume} exclude each other: what is resumed saves in its own folder.\n"
            "Leave out --out to go on, or --resume to start anew."
        )
    try:
        blocked_by = durable.file_in_the_way(out) if out else None
    except OSError as error:
        raise InputError(f"--out {out}: {reason(error)}.\nChoose another.") from None
    if blocked_by:
        found = "is a file" if blocked_by == out else f"{blocked_by} is a file"
        raise InputError(f"--out {out}: {found}; expected a folder.\nChoose another.")
    if resume:
        resuming.check_storage(resume)


def find_start(storage: Path, keys: Sequence[str], horizon: int) -> Start:
    """The latest step up to the horizon at which all of these runs have intact states, with these states.

    Raises:
        InputError: There is no such step.
    """
    saved = resuming.saved_runs(storage)
    states = [
        [state for state in saved[key].states if state.step <= horizon] if key in saved else []
        for key in keys
    ]
    start = newest_intact(keys, states, is_together=True)
    if not start.step:
        raise resuming.refusal(storage, saved, keys, horizon)
    if (newest := min(saved[key].newest for key in keys)) > horizon:
        print(
            f"Note: {storage} has these runs up to step {newest}; --steps {horizon} resumes from step {start.step}.",
            file=sys.stderr,
        )
    return start


def _claim_attempt(storage: Path) -> int:
    """Create the folder of a new attempt and return its number.

    Raises:
        InputError: The storage is not writable.
    """
    try:
        layout = Layout(storage)
        durable.make_folder(layout.attempts)
        taken = [int(path.stem) for path in layout.attempts.iterdir() if path.stem.isdecimal()]
        for number in count(max(taken, default=0) + 1):
            with contextlib.suppress(FileExistsError):
                layout.attempt(number).mkdir()
                return number
    except OSError as error:
        raise InputError(
            f"Cannot save blocks in {storage}: {reason(error)}.\nChoose another folder with --out."
        ) from None
    raise AssertionError


def _print_points(points: Sequence[blocks.Point]) -> None:
    lines: dict[tuple[str, int], dict[str, float]] = {}
    for point in points:
        lines.setdefault((point.key, point.step), {})[point.name] = point.value
    for (key, step), values in lines.items():
        print(json.dumps({"run_key": key, "step": step} | _finite(values), allow_nan=False), flush=True)


def _print_runs(attempt: Attempt, steps_per_s: float) -> int:
    pack = attempt.pack
    states = pack.states()
    bad_steps = pack.first_bad_steps()
    for run, state, bad_step, scores in zip(pack.runs, states, bad_steps, attempt.scores(), strict=True):
        print(
            json.dumps(
                _summary(run, bad_step, pack.step)
                | {
                    "params_sha256": _params_sha256(state),
                    "num_params": pack.num_parameters,
                    "metrics": _finite(scores),
                    "run_steps_per_s": round(steps_per_s * len(pack.runs), 2),
                }
            )
        )
    return int(any(bad is not None for bad in bad_steps))


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Values for strict JSON: None in place of NaN and infinities."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _summary(run: ResolvedRun, bad_step: int | None, step: int) -> dict[str, object]:
    status = "done" if bad_step is None else "diverged"
    return {
        "run_key": run.key,
        "seed": run.spec.seed,
        "status": status,
        "step": step if bad_step is None else bad_step,
    }


def _params_sha256(state: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(name for name in state if name.endswith(".values")):
        digest.update(state[name].tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
