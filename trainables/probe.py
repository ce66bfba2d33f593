"""Answers a driver's questions in a separate process, so that the driver never imports torch.

Reads one JSON object per line from standard input and answers each with one:

    {"plugins": [file, ...]}                  -> {"ready": true}, files of your own, see `plugins.carried`
    {"resolve": [[run, [seed, ...]], ...]}    -> {"resolved": [{"keys": [key, ...], "static_key", "spec", ...}, ...]}
    {"fields": model}                         -> {"fields": [name, ...]} of its configuration
    {"try": run, "metrics": [name, ...]}      -> {"notes": [text, ...]}
    {"measure": run, "num_runs": R, ...}      -> {"step_time_s", "memory_gib", "room_gib"}
    {"prepare": run, "num_runs": R, ...}      -> {"ready": true}, a pack as above
    {"time": true}                            -> {"step_time_s"} of the prepared pack
    {"evaluated": data}                       -> {"recipe", "num_images"}
    {"check": name, "package": package}       -> {"verdicts": [[law, problem], ...]}
    {"calibrate": data, "code", "metric", "num_seeds"}   -> {"values": [value, ...], "identity"}
    an unknown name                           -> {"unknown": [kind, name, valid names, remedy]}
    other invalid user input                  -> {"error": text}
    a GPU that torch cannot use               -> {"machine": text}
    a pack that does not fit into memory      -> {"out_of_memory": true}
"""

import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from trainables import (
    arithmetic,
    attempt,
    config,
    contracts,
    engine,
    evaluation,
    known_codes,
    memory,
    plugins,
    stepping,
    trial,
)
from trainables.checking import data_sets, metrics, models
from trainables.checking.laws import Verdict
from trainables.config import RunSpec
from trainables.contracts import DATA, METRICS, MODELS
from trainables.engine import Pack, ResolvedRun
from trainables.errors import InputError, UnknownNameError, UnusableGpuError, is_out_of_memory
from trainables.images import random_images
from trainables.plugin_files import PluginFile

NUM_IMAGES = 256
MEASURE_S = 0.7
GIB = 2**30
CHECKS: Mapping[str, Callable[[str], list[Verdict]]] = {
    MODELS: models.check,
    METRICS: metrics.check,
    DATA: data_sets.check,
}


def resolved(groups: Iterable[tuple[RunSpec, Sequence[int]]]) -> list[dict[str, Any]]:
    """What a driver needs to know about runs, each with several seeds: keys, all fields, facts about the images.

    What a person should know of the images is printed to standard error, once.

    Raises:
        InputError: A specification is invalid.
    """
    groups = list(groups)
    runs = iter(engine.resolve_all([replace(spec, seed=seed) for spec, seeds in groups for seed in seeds]))
    return [_facts(list(islice(runs, len(seeds)))) for _, seeds in groups]


def _facts(runs: Sequence[ResolvedRun]) -> dict[str, Any]:
    """Facts about runs that differ in their seeds alone."""
    first = runs[0]
    for note in first.source.notes:
        _print_once(f"Note: {note}")
    return {
        "keys": [run.key for run in runs],
        "static_key": first.static_key,
        "spec": attempt.stored_spec(first),
        "num_factors": first.source.num_varying,
        "is_small": trial.is_small(first.source),
    }


@cache
def _print_once(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def tried(spec: RunSpec, metrics: Sequence[str]) -> list[str]:
    """What a person should know of metrics on the images of a run, see `trial`; printed to standard error, once.

    Raises:
        InputError: A metric cannot be computed on these images.
    """
    found = trial.notes(engine.resolve(spec), metrics)
    for note in found:
        _print_once(f"Note: {note}")
    return found


class Bench:
    """A pack on random images, built for measurements.

    Args:
        spec: A run; the pack consists of such runs with different seeds.
        num_runs: Runs of the pack.
        gpus: Share of a GPU, 0 for a CPU.
        threads: CPU threads.

    Raises:
        InputError: The memory of this machine cannot hold the pack.
        UnusableGpuError: Torch cannot use the GPU.
    """

    def __init__(self, spec: RunSpec, num_runs: int, gpus: float, threads: int) -> None:
        arithmetic.set_arithmetic(spec.precision, threads)
        arithmetic.keep_freed_memory()
        runs = engine.resolve_all([RunSpec(**(vars(spec) | {"seed": seed})) for seed in range(num_runs)])
        device = arithmetic.pick_device(gpus)
        if device.type == "cpu":  # a GPU refuses by itself what it does not hold
            memory.check(runs[0], num_runs)
        images = random_images(runs[0].source.shape, NUM_IMAGES, device)
        self._gpus, self._device = gpus, images.device
        before = _settled_memory_gib(self._device)
        self._pack = Pack(runs, images)
        self._pack.advance(1)
        if self._pack.launch == "graph":
            self._pack.advance(2 * stepping.WARM_UP_STEPS)
        if self._device.type == "cuda":  # in addition to what a graph keeps for itself
            evaluation.encodings(self._pack)
        _synchronize(self._device)
        self.memory_gib = max(0.0, _peak_memory_gib(self._device) - before)

    def step_time_s(self) -> float:
        """Seconds of a step, from about a second of training.

        Steps are taken in growing strides: drawing random numbers step by step takes longer than for many at once.
        """
        taken_s: dict[int, float] = {}
        stride, begun = 1, time.perf_counter()
        while (left_s := MEASURE_S - (time.perf_counter() - begun)) > 0:
            since = time.perf_counter()
            self._pack.advance(stride)
            _synchronize(self._device)
            taken_s[stride] = time.perf_counter() - since
            stride = max(1, min(2 * stride, int(stride * left_s / taken_s[stride])))
        longest = max(taken_s)
        return taken_s[longest] / longest

    def measured(self) -> dict[str, float]:
        """The answer to a driver, see `measure`."""
        return {
            "step_time_s": self.step_time_s(),
            "memory_gib": self.memory_gib,
            "room_gib": _room_gib(self._device, self._gpus),
        }


def measure(spec: RunSpec, num_runs: int, gpus: float, threads: int) -> dict[str, float]:
    """Time and memory of a pack of this many such runs, from about a second of training on random images.

    Returns:
        `step_time_s` of the whole pack; `memory_gib`, on a GPU the peak during training, on a CPU the growth of the
        process; `room_gib`, the memory of that share of the GPU, 0 on a CPU.
    """
    return Bench(spec, num_runs, gpus, threads).measured()


def main() -> None:
    """Answer questions until standard input ends."""
    prepared: list[Bench] = []
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _answer(question, prepared)
        except UnknownNameError as error:
            answer = {"unknown": [error.kind, error.name, error.valid, error.remedy]}
        except InputError as error:
            answer = {"error": str(error)}
        except UnusableGpuError as error:
            answer = {"machine": str(error)}
        except OSError as error:
            answer = {"error": f"{error}\nFix it, or use another file or folder."}
        except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError for a GPU
            if not is_out_of_memory(str(error)) and not isinstance(error, MemoryError):
                raise
            answer = {"out_of_memory": True}
        print(json.dumps(answer), flush=True)


def _answer(question: dict[str, Any], prepared: list[Bench]) -> dict[str, Any]:
    if "plugins" in question:
        plugins.learn(PluginFile(**{**file, "path": Path(file["path"])}) for file in question["plugins"])
        return {"ready": True}
    if "resolve" in question:
        return {"resolved": resolved((RunSpec(**run), seeds) for run, seeds in question["resolve"])}
    if "check" in question:
        return {
            "verdicts": [(each.law, each.problem) for each in CHECKS[question["package"]](question["check"])]
        }
    if "fields" in question:
        return {"fields": list(config.flatten(contracts.model(question["fields"]).Config()))}
    if "try" in question:
        return {"notes": tried(RunSpec(**question["try"]), question["metrics"])}
    if "evaluated" in question:
        return known_codes.evaluated(question["evaluated"])
    if "calibrate" in question:
        arithmetic.set_arithmetic("fp32", 1)
        arithmetic.keep_freed_memory()
        return known_codes.score(question.pop("calibrate"), **question)
    if "time" in question:
        return {"step_time_s": prepared[0].step_time_s()}
    if "prepare" in question:
        prepared.append(Bench(RunSpec(**question.pop("prepare")), **question))
        return {"ready": True}
    run = RunSpec(**question.pop("measure"))
    return measure(run, **question)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _settled_memory_gib(device: torch.device) -> float:
    """Memory in use after everything of an earlier measurement is freed; resets the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_reserved(device) / GIB
    arithmetic.return_freed_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _linux_memory_gib("VmRSS")


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / GIB
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
