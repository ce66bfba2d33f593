"""Measure a GPU: `python -m benchmarks.gpu --out DIR [--seconds 300] [--stages rates,precisions] [--rehearse]`.

Writes DIR/gpu.json after every measured line and DIR/gpu.md, its tables, at the end. The stages run in a
separate process. If one crashes or hangs, the process is started again for the remaining ones, so a fault costs one stage.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks import table
from benchmarks.gpu import kit
from benchmarks.gpu.stages import ALL, ORDER
from benchmarks.machine import ROOT, describe, progress

GRACE_S = 45.0
"""Seconds that a stage may run beyond its time, to finish its current row."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0 if every stage was measured or cut off by time, 1 if one failed, 2 for invalid arguments."""
    options = build_parser().parse_args(arguments)
    stages = options.stages.split(",") if options.stages else list(ORDER)
    unknown = [name for name in stages if name not in ALL]
    if unknown:
        print(f"Unknown stage '{unknown[0]}'.\nValid: {', '.join(ALL)}.", file=sys.stderr)
        return 2
    if not options.rehearse and not torch.cuda.is_available():
        print("torch finds no CUDA device here.\nUse --rehearse to try the stages on a CPU.", file=sys.stderr)
        return 2
    if options.work:
        _work(options, stages)
        return 0
    return _supervise(options, stages)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument("--seconds", type=float, default=300.0, help="time in all (default %(default)g)")
    parser.add_argument("--stages", metavar="A,B", help=f"of {', '.join(ALL)}; default all but train")
    parser.add_argument("--rehearse", action="store_true", help="every stage at tiny sizes on a CPU")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where `train` keeps its states")
    parser.add_argument("--commit", help="of this code, where git cannot tell")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    return parser


def _supervise(options: argparse.Namespace, stages: list[str]) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gpu.json"
    device = torch.device("cpu" if options.rehearse else "cuda")
    result = {
        "machine": describe(device, options.commit),
        "settings": {"seconds": options.seconds, "is_rehearsal": options.rehearse, "stages": stages},
        "ceilings": {},
        "stages": {},
    }
    kit.save(path, result)
    end_s = time.monotonic() + options.seconds
    while left := [name for name in stages if _status(path, name) in (None, "running")]:
        left_s = end_s - time.monotonic()
        if left_s < 1:
            break
        before = path.read_text()
        _run_worker(options, left, left_s)
        if path.read_text() == before:
            progress(f"The stages cannot be started; see {options.out / 'log.txt'}.")
            return 1
        _fail_what_runs(path, "the process ended in the middle of it")
    result = json.loads(path.read_text())
    (options.out / "gpu.md").write_text(table.markdown(result))
    print(table.markdown(result))
    return int(any(found["status"] == "failed" for found in result["stages"].values()))


def _run_worker(options: argparse.Namespace, stages: list[str], seconds: float) -> None:
    """Measure stages in another process, which is killed if a stage takes far longer than it may."""
    words = [sys.executable, "-m", "benchmarks.gpu", "--work", "--out", str(options.out.absolute())]
    words += ["--stages", ",".join(stages), "--seconds", str(seconds)]
    words += ["--rehearse"] if options.rehearse else []
    words += ["--keep", str(options.keep.absolute())] if options.keep else []
    path = options.out / "gpu.json"
    with (options.out / "log.txt").open("a") as log:
        # In a new session: a stage may have started processes, which hold memory of the GPU.
        worker = subprocess.Popen(
            words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        while worker.poll() is None:
            time.sleep(0.2)
            deadline_s = json.loads(path.read_text()).get("deadline_s")
            if deadline_s is not None and time.monotonic() > deadline_s + GRACE_S:
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def _status(path: Path, stage: str) -> str | None:
    found = json.loads(path.read_text())["stages"].get(stage)
    return found and found["status"]


def _fail_what_runs(path: Path, why: str) -> None:
    result = json.loads(path.read_text())
    result.pop("deadline_s", None)  # its worker is gone
    for found in result["stages"].values():
        if found["status"] == "running":
            found |= {"status": "failed", "error": found["error"] or why}
    kit.save(path, result)


def _work(options: argparse.Namespace, stages: list[str]) -> None:
    path, end_s = options.out / "gpu.json", time.monotonic() + options.seconds
    result = json.loads(path.read_text())
    keep = options.keep or Path(tempfile.gettempdir()) / "benchmarks-gpu"
    device = torch.device("cpu" if options.rehearse else "cuda:0")
    bench = kit.Bench(device, options.rehearse, keep, ceilings=result["ceilings"])
    for stage in stages:
        module = import_module(f"benchmarks.gpu.stages.{stage}")
        left_s = end_s - time.monotonic()
        if left_s < 2:
            break
        progress(f"{stage}: at most {min(module.SECONDS, left_s):.0f} s")
        bench.deadline_s = time.monotonic() + min(module.SECONDS, left_s)
        found: dict[str, Any] = {"status": "running", "seconds": 0.0, "rows": [], "error": ""}
        result["stages"][stage], result["deadline_s"] = found, bench.deadline_s
        kit.save(path, result)
        _measure(module, bench, found, lambda: kit.save(path, result))
        result["ceilings"] = bench.ceilings
        kit.save(path, result)
        if found["status"] == "failed":
            break  # the failure may have broken the GPU for this process
    result.pop("deadline_s", None)
    kit.save(path, result)


def _measure(module: Any, bench: kit.Bench, found: dict[str, Any], keep: Any) -> None:
    """Collect the rows of a stage until it ends or its time is up."""
    begun, saved_s = time.monotonic(), 0.0
    try:
        found["status"] = "done"
        for row in module.rows(bench):
            found["rows"].append(row)
            found["seconds"] = time.monotonic() - begun
            if len(found["rows"]) < 100 or time.monotonic() - saved_s > 0.5:
                found["status"] = "running"
                keep()
                saved_s = time.monotonic()
                found["status"] = "done"
            if bench.left_s < 0:
                found["status"] = "cut"
                break
    except Exception:
        found["status"], found["error"] = "failed", traceback.format_exc()
        progress(found["error"])
    found["seconds"] = round(time.monotonic() - begun, 1)


if __name__ == "__main__":
    sys.exit(main())
