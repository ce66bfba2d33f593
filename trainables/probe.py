"""Answer a driver's questions in a process of its own, so that the driver never imports torch.

Reads one JSON object a line from standard input and answers each with one:

    {"resolve": [run, ...]}                   -> {"runs": [{"key", "static_key", "spec", "num_factors"}, ...]}
    {"measure": run, "num_runs": R, ...}      -> {"step_time_s", "memory_gib", "room_gib"}
    {"evaluated": data}                       -> {"recipe", "num_images"}
    {"calibrate": data, "code", "metric", "num_seeds"}   -> {"values": [value, ...], "identity"}
    anything that the user got wrong          -> {"error": text}
    a pack that the memory does not hold      -> {"out_of_memory": true}
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainables import arithmetic, attempt, calibration, engine
from trainables.config import RunSpec
from trainables.data._images import Images, Source
from trainables.data._pixels import Levels
from trainables.engine import Pack
from trainables.errors import InputError, is_out_of_memory

NUM_IMAGES = 256
MEASURE_S = 0.7
GIB = 2**30


def main() -> None:
    """Answer until standard input ends."""
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _answer(question)
        except InputError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": f"{error}\nMend it, or name another file or folder."}
        except (MemoryError, RuntimeError) as error:  # torch's own for a GPU is a RuntimeError
            if not is_out_of_memory(str(error)) and not isinstance(error, MemoryError):
                raise
            answer = {"out_of_memory": True}
        print(json.dumps(answer), flush=True)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    if "resolve" in question:
        return {"runs": resolved([RunSpec(**run) for run in question["resolve"]])}
    if "evaluated" in question:
        return calibration.evaluated(question["evaluated"])
    if "calibrate" in question:
        arithmetic.set_arithmetic("fp32", 1)
        arithmetic.keep_freed_memory()
        return calibration.score(question.pop("calibrate"), **question)
    run = RunSpec(**question.pop("measure"))
    return measure(run, **question)


def resolved(specs: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """What a driver needs to know of runs: keys, specifications with every field, how many factors vary.

    Raises:
        InputError: Something in a specification is wrong.
    """
    return [
        {
            "key": run.key,
            "static_key": run.static_key,
            "spec": attempt.spec_of(run),
            "num_factors": run.source.num_varying,
        }
        for run in engine.resolve_all(specs)
    ]


def measure(spec: RunSpec, num_runs: int, gpus: float, threads: int) -> dict[str, float]:
    """Time and memory of a pack of this many such runs, from about a second of training on random images.

    Returns:
        `step_time_s` of the whole pack; `memory_gib`, on a GPU what training needed at its peak, on a CPU by how much
        the process grew; `room_gib` of that share of the GPU, 0 on a CPU.
    """
    arithmetic.set_arithmetic(spec.precision, threads)
    arithmetic.keep_freed_memory()
    runs = engine.resolve_all([RunSpec(**(vars(spec) | {"seed": seed})) for seed in range(num_runs)])
    images = _random_images(runs[0].source.shape, arithmetic.pick_device(gpus))
    before = _settled_memory_gib(images.device)
    pack = Pack(runs, images)
    pack.advance(1)
    num_steps, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < MEASURE_S:
        pack.advance(1)
        _synchronize(images.device)
        num_steps += 1
    step_time_s = (time.perf_counter() - begun) / num_steps
    return {
        "step_time_s": step_time_s,
        "memory_gib": max(0.0, _peak_memory_gib(images.device) - before),
        "room_gib": _room_gib(images.device, gpus),
    }


def _random_images(shape: tuple[int, int, int], device: torch.device) -> Images:
    generator = torch.Generator().manual_seed(0)
    size = (NUM_IMAGES, shape[0] * shape[1] * shape[2])
    levels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return Source("random", shape, NUM_IMAGES, partial(Levels, levels, 255)).load(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settled_memory_gib(device: torch.device) -> float:
    """Memory in use once nothing of an earlier measurement is left; its peak counts anew from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / GIB
    arithmetic.return_freed_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _linux_memory_gib("VmRSS")


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return _linux_memory_gib("VmHWM")


def _linux_memory_gib(field: str) -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0  # not Linux: no figure is better than a wrong one
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / GIB


def _room_gib(device: torch.device, gpus: float) -> float:
    if device.type != "cuda":
        return 0.0
    return min(1.0, gpus) * torch.cuda.get_device_properties(device).total_memory / GIB


if __name__ == "__main__":
    main()
