"""The usual alternatives: one run at a time in ordinary modules, captured or not, and several processes on one GPU."""

import contextlib
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping

from benchmarks.gpu.kit import Bench, Row
from benchmarks.gpu.process import plain_steps
from benchmarks.machine import ROOT

SECONDS = 75.0
MPS_START_S, ANSWER_S = 5.0, 40.0


def rows(bench: Bench) -> Iterator[Row]:
    """Yield rates of FactorVAE: one plain run, eager and captured; a pack; k processes, each a plain run or a small pack."""
    for launch in ("eager", "graph"):
        bench.forget()
        yield {"what": f"one plain run, {launch}", "processes": 1} | _rate(bench, plain_steps(bench, launch))
    bench.forget()
    yield {"what": "one pack", "processes": 1} | bench.rate(bench.pack())
    bench.forget()
    yield from _shared(bench, os.environ)
    with _mps() as environment:
        if environment is None:
            yield {"what": "MPS", "error": "not available"}
        else:
            for row in _shared(bench, environment):
                yield row | {"what": f"{row['what']}, MPS"}


def _rate(bench: Bench, advance: Callable[[int], None]) -> Row:
    """Measure the rate of one run."""
    advance(8)
    bench.synchronize()
    begun = time.perf_counter()
    advance(8)
    bench.synchronize()
    stride = max(1, round(8 * bench.repeat_s / (time.perf_counter() - begun)))
    seconds = []
    for _ in range(bench.num_repeats):
        begun = time.perf_counter()
        advance(stride)
        bench.synchronize()
        seconds.append((time.perf_counter() - begun) / stride)
    median_s = statistics.median(seconds)
    return {
        "runs": 1,
        "run_steps_per_s": round(1 / median_s, 1),
        "low": round(1 / max(seconds), 1),
        "high": round(1 / min(seconds), 1),
        "step_ms": round(1e3 * median_s, 3),
    }


def _shared(bench: Bench, environment: Mapping[str, str]) -> Iterator[Row]:
    """Yield rates of processes that share the device."""
    number = 2 if bench.is_rehearsal else 4
    for kind, num_runs in (("plain", 1), ("pack", max(1, bench.num_runs // number))):
        if bench.left_s < 10:
            return
        what = "plain runs" if kind == "plain" else f"packs of {num_runs}"
        yield {"what": f"{number} processes of {what}", "processes": number} | _together(
            bench, number, kind, num_runs, environment
        )


def _together(
    bench: Bench, num_processes: int, kind: str, num_runs: int, environment: Mapping[str, str]
) -> Row:
    asked = {
        "kind": kind,
        "runs": num_runs,
        "seconds": 0.1 if bench.is_rehearsal else 2.0,
        "share": 1 / num_processes,
        "device": str(bench.device),
        "is_rehearsal": bench.is_rehearsal,
    }
    words = [sys.executable, "-m", "benchmarks.gpu.process"]
    # Their errors appear in the log of this process.
    processes = [
        subprocess.Popen(
            words, cwd=ROOT, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(num_processes)
    ]
    try:
        for process in processes:
            _tell(process, json.dumps(asked))
        if [_told(process) for process in processes] != ["ready"] * num_processes:
            return {"error": "a process was not ready in time"}
        for process in processes:
            _tell(process, "go")
        told = [json.loads(_told(process) or "null") for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    if None in told:
        return {"error": "a process ended while it trained"}
    rate = sum(each["runs"] * each["steps"] / each["seconds"] for each in told)
    return {"runs": num_runs * num_processes, "run_steps_per_s": round(rate, 1)}


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _told(process: "subprocess.Popen[str]") -> str:
    """Return a line of a process, empty if none arrives in time."""
    assert process.stdout
    is_there, _, _ = select.select([process.stdout], [], [], ANSWER_S)
    return process.stdout.readline().strip() if is_there else ""


@contextlib.contextmanager
def _mps() -> Iterator[dict[str, str] | None]:
    """Yield an environment whose processes share the GPU through an MPS daemon, started here; None if it does not start."""
    tool = shutil.which("nvidia-cuda-mps-control")
    if not tool:
        yield None
        return
    folder = tempfile.mkdtemp(prefix="mps-")
    environment = dict(os.environ, CUDA_MPS_PIPE_DIRECTORY=folder, CUDA_MPS_LOG_DIRECTORY=folder)
    try:
        try:
            started = subprocess.run(
                [tool, "-d"], env=environment, capture_output=True, timeout=MPS_START_S, check=False
            )
            is_up = started.returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            is_up = False
        yield environment if is_up else None
    finally:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [tool],
                input="quit\n",
                text=True,
                env=environment,
                capture_output=True,
                timeout=10,
                check=False,
            )
        shutil.rmtree(folder, ignore_errors=True)
