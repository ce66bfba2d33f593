"""Time and memory of a pack, by training it for about a second.

What took longer on a CPU is kept for this user and not measured again: the name of its file stands for the runs, the processor,
the version of the code and of its libraries.
"""

import contextlib
import gc
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from trainables import arithmetic, engine, evaluation, measurements, memory, numerics, stepping
from trainables.config import RunSpec
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images, random_images
from trainables.ladder import MIN_SIZE

NUM_IMAGES = 256
MEASURE_S = 0.7
"""Longest time of training; where one step of a small pack takes longer, that step is the measurement."""

LEAST_S, AGREE = 0.2, 0.03
"""It ends early where two strides in a row, the second of at least these seconds, differ by at most this share."""

KEEP_S = 2.0
"""Seconds from which a measurement is kept."""

GIB = 2**30


class Bench:
    """A pack on random images, built for measurements.

    On a CPU, where a step of two runs takes long, a larger pack is not built: it costs in proportion to its runs.

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
        built = runs[:MIN_SIZE] if device.type == "cpu" else runs
        self._build(built, images)
        if len(built) < num_runs and not self._is_slow:
            built = runs
            self._build(built, images)
        self._times = num_runs / len(built)

    @property
    def _is_slow(self) -> bool:
        return self._device.type == "cpu" and self._first_step_s > MEASURE_S

    def _build(self, runs: Sequence[ResolvedRun], images: Images) -> None:
        self._pack: Pack | None = None
        before = _settled_memory_gib(self._device)
        self._pack = Pack(runs, images)
        begun = time.perf_counter()
        self._pack.advance(1)
        self._first_step_s = time.perf_counter() - begun
        if self._pack.launch == "graph":
            self._pack.advance(2 * stepping.WARM_UP_STEPS)
        if self._device.type == "cuda":  # in addition to what a graph keeps for itself
            evaluation.encodings(self._pack)
        _synchronize(self._device)
        self._memory_gib = max(0.0, _peak_memory_gib(self._device) - before)

    @property
    def memory_gib(self) -> float:
        """Memory that the pack takes, on a GPU the peak during training, on a CPU the growth of the process."""
        return self._times * self._memory_gib

    def step_time_s(self) -> float:
        """Seconds of a step, from about a second of training.

        Steps are taken in growing strides: drawing random numbers step by step takes longer than for many at once.
        """
        assert self._pack
        if self._is_slow:
            return self._times * self._first_step_s
        longest, step_s = 0, math.inf
        stride, begun = 1, time.perf_counter()
        while (left_s := MEASURE_S - (time.perf_counter() - begun)) > 0:
            since = time.perf_counter()
            self._pack.advance(stride)
            _synchronize(self._device)
            taken_s = time.perf_counter() - since
            now_s = taken_s / stride
            is_settled = taken_s >= LEAST_S and abs(now_s - step_s) <= AGREE * step_s
            if stride >= longest:
                longest, step_s = stride, now_s
            if is_settled:
                break
            stride = max(1, min(2 * stride, int(left_s / now_s)))
        return step_s

    def measured(self) -> dict[str, float]:
        """The answer to a driver, see `measure`."""
        return {
            "step_time_s": self.step_time_s(),
            "memory_gib": self.memory_gib,
            "room_gib": _room_gib(self._device, self._gpus),
        }


def measure(spec: RunSpec, num_runs: int, gpus: float, threads: int) -> dict[str, float]:
    """Time and memory of a pack of this many such runs, measured on random images or kept from an earlier time.

    Returns:
        `step_time_s` of the whole pack; `memory_gib`, see `Bench`; `room_gib`, the memory of that share of the GPU, 0 on a
        CPU.

    Raises:
        InputError: The memory of this machine cannot hold the pack.
        UnusableGpuError: Torch cannot use the GPU.
    """
    if gpus:
        return Bench(spec, num_runs, gpus, threads).measured()
    run = engine.resolve(spec)
    arithmetic.set_arithmetic(spec.precision, threads)
    on = numerics.numerics_class(torch.device("cpu"), run.spec.precision, num_runs)
    kept = measurements.place({"runs": run.static_key, "num_runs": num_runs, "on": on})
    if known := measurements.read(kept):
        if known["memory_gib"] * GIB > memory.available_bytes():
            memory.check(run, num_runs)
        return known
    begun = time.perf_counter()
    found = Bench(spec, num_runs, gpus, threads).measured()
    if time.perf_counter() - begun > KEEP_S:
        measurements.keep(kept, found)
    return found


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
